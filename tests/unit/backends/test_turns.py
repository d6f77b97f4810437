"""Turns at keeping a question open."""

from meshgw.backends.turns import Turns


def test_turns_are_limited_and_given_back() -> None:
    turns = Turns(2)
    with turns.turn(is_absent=False) as first, turns.turn(is_absent=False) as second, turns.turn(is_absent=False) as third:
        assert (first, second, third) == (True, True, False)
    assert turns.taken == 0


def test_services_that_do_not_exist_get_a_quarter_of_the_turns() -> None:
    turns = Turns(4)
    with turns.turn(is_absent=True) as absent, turns.turn(is_absent=True) as another, turns.turn(is_absent=False) as present:
        assert (absent, another, present) == (True, False, True)
    with turns.turn(is_absent=True) as later:
        assert later
