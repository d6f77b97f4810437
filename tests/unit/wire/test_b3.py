from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.propagators.b3 import B3MultiFormat, B3SingleFormat
from opentelemetry.trace import SpanContext, get_current_span

from meshgw.wire.b3 import FIELDS, decode_b3, encode_b3, encode_single
from meshgw.wire.context import DEBUG, TraceId

WORDS = st.integers(0, (1 << 64) - 1)
IDS = st.integers(1, (1 << 64) - 1)
DECISIONS = st.sampled_from([None, False, True])
OWN = 0x77
LONG, SPAN, PARENT = b"80f198ee56343ba864fe8b2a57d3eff7", b"e457b5a2e4d86bd1", b"05e3ac9a4f6e3b90"


def place(high: int, low: int, sampled: bool | None) -> TraceId:
    one = TraceId(5, 4, low, 0, high)
    if sampled is not None:
        one.decide(sampled)
    return one


def fields(lines: tuple[bytes, ...]) -> dict[bytes, bytes]:
    return dict(line.split(b": ") for line in lines)  # type: ignore[misc]  # of two parts


def as_text(seen: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in seen.items()}


def by_opentelemetry(reader: B3MultiFormat, seen: dict[bytes, bytes]) -> SpanContext:
    return get_current_span(reader.extract(as_text(seen))).get_span_context()


@given(WORDS, IDS, IDS, DECISIONS)
def test_a_place_survives_its_encodings(high: int, low: int, span: int, sampled: bool | None) -> None:
    one = place(high, low, sampled)
    for seen in (fields(encode_b3(one, span)), {b"b3": encode_single(one, span)}):
        again = decode_b3(seen, OWN)
        assert again is not None
        assert (again.high, again.trace, again.parent, again.span, again.is_sampled) == (high, low, span, OWN, sampled)


@given(WORDS, IDS, IDS, st.booleans())
def test_opentelemetry_reads_what_is_written(high: int, low: int, span: int, sampled: bool) -> None:
    one = place(high, low, sampled)
    written = ((B3MultiFormat(), fields(encode_b3(one, span))), (B3SingleFormat(), {b"b3": encode_single(one, span)}))
    for reader, seen in written:
        read = by_opentelemetry(reader, seen)
        assert (read.trace_id, read.span_id, read.trace_flags.sampled) == ((high << 64) | low, span, sampled)


def test_the_fields_are_zipkins() -> None:
    assert encode_b3(place(0, 0xAB, True), 9) == (
        b"x-b3-traceid: 00000000000000ab",
        b"x-b3-spanid: 0000000000000009",
        b"x-b3-parentspanid: 0000000000000005",
        b"x-b3-flags: 0",
        b"x-b3-sampled: 1",
    )


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.binary(max_size=60) | st.from_regex(rb"[0-9a-fd-]{1,70}", fullmatch=True)))
def test_any_values_are_read_or_ignored(seen: dict[bytes, bytes]) -> None:
    read = decode_b3(seen, OWN)
    assert read is None or read.span == OWN


@pytest.mark.parametrize(
    ("seen", "sampled"),
    [
        ({b"x-b3-sampled": b"1"}, True),
        ({b"x-b3-sampled": b"0"}, False),
        ({b"x-b3-sampled": b"True"}, True),
        ({b"x-b3-flags": b"1"}, True),
        ({b"b3": b"0"}, False),
        ({b"b3": b"1"}, True),
        ({b"b3": b"d"}, True),
        ({b"b3": b"0", b"x-b3-sampled": b"1"}, False),
    ],
)
def test_a_decision_without_ids_is_one_about_the_trace_that_begins(seen: dict[bytes, bytes], sampled: bool) -> None:
    read = decode_b3(seen, OWN)
    assert read is not None
    assert (read.trace, read.parent, read.span, read.is_sampled) == (OWN, OWN, OWN, sampled)


@pytest.mark.parametrize(
    "seen",
    [
        {},
        {b"x-b3-traceid": LONG},
        {b"x-b3-traceid": b"nonsense", b"x-b3-spanid": SPAN},
        {b"x-b3-traceid": LONG, b"x-b3-spanid": LONG},
        {b"x-b3-traceid": b"0" * 16, b"x-b3-spanid": SPAN},
        {b"x-b3-traceid": LONG, b"x-b3-spanid": b"0"},
        {b"x-b3-flags": b"9" * 30},
        {b"x-b3-sampled": b"d"},
        {b"b3": b"x"},
        {b"b3": LONG + b"-" + SPAN + b"-9"},
        {b"b3": LONG + b"-" + SPAN + b"-1-x"},
        {b"b3": LONG + b"-" + SPAN + b"-1-" + PARENT + b"-1"},
    ],
)
def test_what_is_malformed_counts_as_absent(seen: dict[bytes, bytes]) -> None:
    assert decode_b3(seen, OWN) is None


def test_the_single_field_wins_unless_it_is_malformed() -> None:
    several = {b"x-b3-traceid": LONG, b"x-b3-spanid": SPAN, b"x-b3-sampled": b"0"}
    read = decode_b3({**several, b"b3": b"ab-cd-1"}, OWN)
    assert read is not None
    assert (read.trace, read.parent, read.is_sampled) == (0xAB, 0xCD, True)
    read = decode_b3({**several, b"b3": b"ab-"}, OWN)
    assert read is not None
    assert (read.show_id(), read.is_sampled) == (LONG, False)


def test_a_span_without_a_trace_is_its_beginning() -> None:
    read = decode_b3({b"x-b3-spanid": SPAN}, OWN)
    assert read is not None
    assert (read.trace, read.parent) == (int(SPAN, 16), int(SPAN, 16))


@pytest.mark.parametrize("seen", [{b"b3": LONG + b"-" + SPAN + b"-d"}, {b"x-b3-traceid": LONG, b"x-b3-spanid": SPAN, b"x-b3-flags": b"1"}])
def test_what_is_debugged_is_sampled_and_told_as_debugged(seen: dict[bytes, bytes]) -> None:
    read = decode_b3(seen, OWN)
    assert read is not None
    assert read.flags & DEBUG
    written = fields(encode_b3(read, 9))
    assert (written[b"x-b3-flags"], written[b"x-b3-sampled"]) == (b"1", b"1")
    assert b"-d-" in encode_single(read, 9)
