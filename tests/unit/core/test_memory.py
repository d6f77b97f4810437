from __future__ import annotations

from meshgw.core.memory import give_back


def test_giving_back_may_be_asked_for_again_and_again() -> None:
    kept = [b"x" * 1000 for _ in range(1000)]
    assert {type(give_back()) for _ in range(3)} == {bool}
    assert all(each == b"x" * 1000 for each in kept)
