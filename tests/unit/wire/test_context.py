from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from meshgw.wire.context import (
    DEBUG,
    SAMPLED,
    SAMPLING_KNOWN,
    TraceId,
    decide_sampling,
    decode_deadline,
    decode_trace,
    encode_deadline,
    first_lines,
    scatter,
    threshold,
)

WORDS = st.integers(0, (1 << 64) - 1)


def fields(trace: TraceId) -> tuple[int, ...]:
    return (trace.span, trace.parent, trace.trace, trace.flags, trace.high)


@given(WORDS, WORDS, WORDS, WORDS, WORDS)
def test_a_trace_survives_its_encoding(span: int, parent: int, trace: int, flags: int, high: int) -> None:
    assume(span and (trace or high))
    one = TraceId(span, parent, trace, flags, high)
    again = decode_trace(one.encode())
    assert again is not None
    assert fields(again) == fields(one)
    assert one.lines(7)[0] == b"l5d-ctx-trace: " + one.child(7).encode()


def test_zeros_are_no_trace() -> None:
    assert decode_trace(TraceId(0, 2, 3).encode()) is None
    assert decode_trace(TraceId(1, 2, 0).encode()) is None


def test_the_encoding_is_linkerds() -> None:
    assert base64.b64decode(TraceId(1, 2, 3, 6).encode()) == struct.pack(">QQQQ", 1, 2, 3, 6)
    assert TraceId(1, 2, 0xAB).lines(7)[1] == b"l5d-reqid: 00000000000000ab"


@given(WORDS, WORDS)
def test_a_trace_that_begins_here_is_told_as_any_other(span: int, root: int) -> None:
    assert first_lines(span, root) == TraceId(root, root, root).lines(span)
    assert first_lines(span, root, SAMPLING_KNOWN) == TraceId(root, root, root, SAMPLING_KNOWN).lines(span)


@given(st.binary(max_size=60))
def test_any_value_of_a_caller_is_read_or_ignored(value: bytes) -> None:
    decode_trace(value)
    decode_deadline(value)
    decide_sampling(TraceId(1, 1, 1), value, 0)


def test_a_child_keeps_the_trace_and_names_its_parent() -> None:
    assert fields(TraceId(1, 2, 3, 4, 5).child(9)) == (9, 1, 3, 4, 5)


@pytest.mark.parametrize(
    ("rate", "sampled"), [(b"1.0", True), (b"7", True), (b"0", False), (b"-1", False), (b"inf", True), (b"x", None), (b"nan", None)]
)
def test_a_rate_decides_unless_it_is_no_number(rate: bytes, sampled: bool | None) -> None:
    trace = TraceId(1, 1, 12345)
    decide_sampling(trace, rate, 99)
    assert trace.is_sampled is sampled


@pytest.mark.parametrize(
    ("value", "deadline"),
    [
        (b"1 2", (1, 2)),
        (b"1 9, 3 7", (3, 7)),
        (b"x, 1 2, 5", (1, 2)),
        (b"-1 2", None),
        (b"1 2 3", None),
        (b"", None),
        (b"1 " + b"9" * 30, None),
    ],
)
def test_the_strictest_valid_deadline_counts(value: bytes, deadline: tuple[int, int] | None) -> None:
    assert decode_deadline(value) == deadline
    if deadline is not None:
        assert decode_deadline(encode_deadline(deadline)) == deadline


@pytest.mark.parametrize(
    ("flags", "sampled"), [(0, None), (DEBUG, True), (SAMPLING_KNOWN, False), (SAMPLING_KNOWN | SAMPLED, True), (SAMPLED, None)]
)
def test_flags_say_whether_a_trace_is_sampled(flags: int, sampled: bool | None) -> None:
    assert TraceId(1, 1, 1, flags).is_sampled is sampled


@given(WORDS, st.booleans())
def test_a_decision_leaves_the_other_flags(flags: int, sampled: bool) -> None:
    trace = TraceId(1, 1, 1, flags)
    trace.decide(sampled)
    known = SAMPLING_KNOWN | SAMPLED
    assert (trace.flags & ~known, trace.flags & known) == (flags & ~known, SAMPLING_KNOWN | (SAMPLED if sampled else 0))


@pytest.mark.parametrize("step", [1, 2**32, 2**40 + 7], ids=["counted", "counted in the high half", "other"])
@pytest.mark.parametrize("rate", [0.0, 0.001, 0.1, 0.5, 1.0])
def test_scattering_chooses_the_part_of_a_rate_whatever_ids_are_made_of(rate: float, step: int) -> None:
    least = threshold(rate)
    chosen = sum(scatter((number * step) & ((1 << 64) - 1), 0xABCDEF) < least for number in range(20_000))
    assert abs(chosen / 20_000 - rate) < 0.01
