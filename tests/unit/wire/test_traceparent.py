from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanContext, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meshgw.wire.context import DEBUG, SAMPLED, SAMPLING_KNOWN, TraceId
from meshgw.wire.traceparent import LONGEST_STATE, MOST_MEMBERS, decode_traceparent, encode_traceparent, is_passable_state

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
WORDS = st.integers(0, (1 << 64) - 1)
IDS = st.integers(1, (1 << 64) - 1)


def read_by_opentelemetry(value: str) -> SpanContext:
    """What OpenTelemetry's own reader makes of the field."""
    return get_current_span(TraceContextTextMapPropagator().extract({"traceparent": value})).get_span_context()


@given(WORDS, IDS, IDS, st.booleans())
def test_a_place_survives_its_encoding(high: int, low: int, span: int, sampled: bool) -> None:
    place = TraceId(1, 1, low, 0, high)
    place.decide(sampled)
    again = decode_traceparent(encode_traceparent(place, span))
    assert again is not None
    assert (again.high, again.trace, again.span, again.is_sampled) == (high, low, span, sampled)


@given(WORDS, IDS, IDS, st.booleans())
def test_opentelemetry_reads_what_is_written(high: int, low: int, span: int, sampled: bool) -> None:
    place = TraceId(1, 1, low, 0, high)
    place.decide(sampled)
    read = read_by_opentelemetry(encode_traceparent(place, span).decode())
    assert (read.trace_id, read.span_id, read.trace_flags.sampled) == ((high << 64) | low, span, sampled)


@given(st.integers(1, (1 << 128) - 1), IDS, st.sampled_from([TraceFlags.DEFAULT, TraceFlags.SAMPLED]))
def test_what_opentelemetry_writes_is_read(trace: int, span: int, flags: int) -> None:
    read = decode_traceparent(f"00-{trace:032x}-{span:016x}-{flags:02x}".encode())
    assert read is not None
    assert ((read.high << 64) | read.trace, read.span, read.is_sampled) == (trace, span, bool(flags))


@given(st.binary(max_size=80) | st.from_regex(rb"[0-9a-f-]{50,60}", fullmatch=True))
def test_any_value_is_read_or_ignored(value: bytes) -> None:
    read = decode_traceparent(value)
    assert read is None or (read.span and (read.trace or read.high))


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"0-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"01-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_what_breaks_the_recommendation_counts_as_absent(value: str) -> None:
    assert decode_traceparent(value.encode()) is None


@pytest.mark.parametrize("value", [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-09-what the future will be like", f"00-{TRACE}-{SPAN}-ff"])
def test_of_later_versions_and_flags_the_known_part_is_read(value: str) -> None:
    read = decode_traceparent(value.encode())
    assert read is not None
    assert (f"{read.high:016x}{read.trace:016x}", f"{read.span:016x}", read.is_sampled) == (TRACE, SPAN, True)


@pytest.mark.parametrize(("flags", "shown"), [(0, b"00"), (SAMPLING_KNOWN, b"00"), (SAMPLING_KNOWN | SAMPLED, b"01"), (DEBUG, b"01")])
def test_only_what_is_sampled_is_told_as_such(flags: int, shown: bytes) -> None:
    assert encode_traceparent(TraceId(1, 1, 1, flags), 2)[-2:] == shown


@pytest.mark.parametrize(
    ("value", "passes"),
    [
        (b"a=1", True),
        (b",".join([b"a=1"] * MOST_MEMBERS), True),
        (b",".join([b"a=1"] * (MOST_MEMBERS + 1)), False),
        (b"a=" + b"x" * (LONGEST_STATE - 2), True),
        (b"a=" + b"x" * LONGEST_STATE, False),
        (b"", False),
    ],
)
def test_a_tracestate_passes_within_its_limits(value: bytes, passes: bool) -> None:
    assert is_passable_state(value) is passes
