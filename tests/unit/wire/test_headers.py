from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.heads import section
from meshgw.wire.headers import FieldTable, Headers, MalformedField

NAMES = st.sampled_from([b"Host", b"X-A", b"x-a", b"Accept", b"Via", b"Cookie", b"L5d-Dtab", b"l5d-ctx-dtab", b"Connection", b"TE"])
VALUES = st.sampled_from([b"", b"1", b"a  b", b"x-a", b"close", b"caf\xc3\xa9"])
LINES = st.lists(
    st.builds(lambda name, blank, value: name + b":" + blank + value, NAMES, st.sampled_from([b"", b" ", b"\t "]), VALUES), max_size=8
)


def outcome(lines: list[bytes], table: FieldTable) -> object:
    try:
        headers = section(list(lines), table)
    except MalformedField as error:
        return str(error)
    return (headers.lines, headers.seen)


@given(LINES, LINES)
def test_what_was_seen_before_never_changes_what_a_section_means(before: list[bytes], lines: list[bytes]) -> None:
    table = FieldTable(taken=(b"via",))
    outcome(before, table)
    assert outcome(lines, table) == outcome(lines, FieldTable(taken=(b"via",)))


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_lines_are_understood_or_refused(lines: list[bytes]) -> None:
    outcome(lines, FieldTable())


def test_a_long_run_of_blanks_is_judged_at_once() -> None:
    began = time.process_time()
    for line in (b"a:" + b" " * 80_000 + b"\x01", b"a: b" + b"\t " * 40_000 + b"\x01", b"a: " + b"b " * 40_000 + b"\x7f"):
        with pytest.raises(MalformedField):
            FieldTable().learn(line)
    assert time.process_time() - began < 5, "it takes minutes where the time grows with the square of the length"


def test_memory_of_lines_is_bounded_and_keeps_no_credentials() -> None:
    table = FieldTable(wanted=(b"authorization",))
    for number in range(20_000):
        section([b"X-%d: %d" % (number, number), b"Host: h%d" % number], table)
    section([b"Authorization: secret", b"Cookie: secret", b"X-Long: " + b"a" * 5000], table)
    assert len(table.passing) <= 4096
    assert len(table.noted) <= 4096
    assert len(table.names) <= 4096
    assert not [line for line in [*table.passing, *table.noted] if b"secret" in line or b"aaaa" in line]


def test_fields_listed_in_connection_are_removed_but_never_framing_or_host() -> None:
    lines = [b"Connection: x-a, Host, content-length, Via", b"X-A: 1", b"Host: h", b"Content-Length: 3", b"Via: 1.1 x", b"X-B: 2"]
    headers = section(lines, FieldTable(taken=(b"via",)))
    assert [line for line in headers.lines if not line.lower().startswith(b"content-length")] == [b"Host: h", b"X-B: 2"]
    assert headers.seen[b"content-length"] == b"3"
    assert b"via" not in headers.seen


def test_repeated_fields_are_joined_as_lists_and_dtabs_in_order() -> None:
    headers = section([b"Via: a", b"VIA: b", b"l5d-dtab: /a=>/b", b"l5d-dtab: /c=>/d", b"X: 1", b"X: 2"], FieldTable())
    assert headers.get(b"via") == b"a, b"
    assert headers.get(b"l5d-dtab") == b"/a=>/b;/c=>/d"
    assert headers.get(b"x") == b"1, 2"
    assert headers.get_all(b"x") == [b"1", b"2"]
    assert headers.get(b"y") is None


def test_a_section_can_be_changed() -> None:
    headers = Headers([b"A: 1", b"b: 2", b"a: 3"], {b"b": b"2"})
    headers.replace(b"b", b"4")
    headers.set(b"a", b"5")
    headers.add(b"c", b"6")
    headers.add(b"c", b"7")
    assert headers.items() == [(b"b", b"4"), (b"a", b"5"), (b"c", b"6"), (b"c", b"7")]
    assert headers.seen == {b"b": b"4", b"a": b"5", b"c": b"6, 7"}
    headers.remove_prefixed(b"c")
    headers.remove(b"b")
    assert headers.items() == [(b"a", b"5")]
    assert headers.seen == {b"a": b"5"}
