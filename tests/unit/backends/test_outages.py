"""Outages as the log tells them: by kind of trouble, not by name and attempt."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshgw.backends.outages import News, Outages
from meshgw.errors import BackendError, BackendMalformed, BackendRefused, BackendSilent, BackendUnreachable


class Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.outages = Outages(lambda: self.now)


def test_an_outage_begins_with_its_first_member_and_ends_with_its_last() -> None:
    time = Time()
    assert time.outages.failed("web", "refused") is News.OUTAGE
    assert time.outages.failed("web", "refused") is News.NOTHING
    time.now = 1.0
    assert time.outages.failed("api", "refused") is News.MEMBER
    time.now = 5.0
    assert time.outages.recovered("web") is None
    assert time.outages.recovered("api") == 5.0
    assert time.outages.failed("web", "refused") is News.OUTAGE


def test_recovery_from_several_kinds_of_trouble_is_told_once_with_the_longest() -> None:
    time = Time()
    time.outages.failed("web", "refused")
    time.now = 2.0
    assert time.outages.failed("web", "silent") is News.OUTAGE
    time.now = 3.0
    assert time.outages.recovered("web") == 3.0
    assert time.outages.recovered("web") is None


def test_what_was_never_ill_does_not_recover() -> None:
    assert Time().outages.recovered("web") is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", None]))))
def test_as_many_outages_end_as_begin(steps: list[tuple[str, str | None]]) -> None:
    outages, begun, ill = Outages(lambda: 0.0), 0, dict[str, set[str]]()
    for member, kind in steps:
        if kind is None:
            before = set[str]().union(*ill.values())
            ill.pop(member, None)
            left = set[str]().union(*ill.values())
            assert (outages.recovered(member) is None) == (before == left)
        else:
            is_first = not any(kind in kinds for kinds in ill.values())
            assert (outages.failed(member, kind) is News.OUTAGE) == is_first
            begun += is_first
            ill.setdefault(member, set()).add(kind)
    for member in "abc":
        outages.recovered(member)
    assert all(outages.failed("d", kind) is News.OUTAGE for kind in "xy")


def test_refusals_are_one_outage_whatever_the_api_says_of_each_name() -> None:
    one = BackendRefused(backend="Consul", reason='403 (no permission for "web")', code=403)
    other = BackendRefused(backend="Consul", reason='403 (no permission for "api")', code=403)
    assert one.outage == other.outage == "Consul: 403"
    assert BackendRefused(backend="Consul", reason="500", code=500).outage != one.outage
    assert BackendSilent(backend="Consul", reason="slow", asked="/a").outage == BackendSilent(backend="Consul", reason="slow").outage


def test_what_somebody_has_to_mend_is_lasting() -> None:
    def refused(code: int) -> BackendError:
        return BackendRefused(backend="b", reason=str(code), code=code)

    assert [code for code in (301, 400, 403, 404, 408, 425, 429, 500, 503) if refused(code).is_lasting] == [301, 400, 403, 404]
    assert BackendMalformed(backend="b", reason="r").is_lasting
    assert not BackendUnreachable(backend="b", reason="r").is_lasting
