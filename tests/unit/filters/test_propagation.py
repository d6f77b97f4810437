from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.heads import section
from meshgw.core.exchange import Exchange
from meshgw.filters.context import TAKEN, ClearContext, ServerContext, untrusted_fields
from meshgw.filters.destination import Destination
from meshgw.filters.propagation import L5D, L5D_AND_W3C, B3Propagator, W3cPropagator
from meshgw.kinds import Propagator
from meshgw.naming.path import Path
from meshgw.wire.b3 import decode_b3
from meshgw.wire.context import SAMPLED, SAMPLING_KNOWN, TraceId, decode_trace
from meshgw.wire.headers import FieldTable
from meshgw.wire.traceparent import decode_traceparent

B3, W3C = B3Propagator(), W3cPropagator()
EVERY = pytest.mark.parametrize("propagator", [L5D_AND_W3C, B3, W3C], ids=["l5d", "b3", "w3c"])
HIGH, LOW, CALLER = 0x0AF7651916CD43DD, 0x8448EB211C80319C, 0xB7AD6B7169203331
PARENT_LINE = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
B3_LINE = b"b3: 0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"
L5D_LINE = b"l5d-ctx-trace: " + TraceId(CALLER, 9, LOW, SAMPLING_KNOWN | SAMPLED, HIGH).encode()
OWN, SENT = 0x51, 0x52


def passed(propagator: Propagator, *lines: bytes, clear: bool = False) -> tuple[Exchange, dict[bytes, bytes]]:
    """A request with these lines that went through a router: it, and the fields that it was sent on with."""
    taken = TAKEN | (untrusted_fields(propagator) if clear else propagator.fields)
    ex = Exchange()
    ex.version, ex.headers = b"1.1", section([b"Host: web", *lines], FieldTable(taken=taken))
    bits = iter((OWN, SENT, SENT + 1, SENT + 2)).__next__
    if clear:
        ClearContext(propagator).on_request(ex)
    assert ServerContext(bits, 0, lambda _ex: None, propagator).on_request(ex) is None
    Destination(Path.read("/svc/web"), Path.read("/#/web"), Path.read("/"), lambda: SENT, propagator).on_request(ex)
    return ex, dict(ex.headers.items())


def traces(fields: dict[bytes, bytes]) -> set[bytes]:
    """The names of those fields that tell of traces."""
    return {name for name in fields if name in untrusted_fields(L5D_AND_W3C) or name == b"l5d-reqid"}


# --- every propagator


@pytest.mark.parametrize(
    ("propagator", "line"), [(L5D_AND_W3C, L5D_LINE), (L5D_AND_W3C, PARENT_LINE), (B3, B3_LINE), (W3C, PARENT_LINE), (W3C, L5D_LINE)]
)
def test_a_callers_trace_goes_on_with_a_span_of_this_hop_and_one_of_the_next(propagator: Propagator, line: bytes) -> None:
    ex, fields = passed(propagator, line)
    assert ex.trace is not None
    assert (ex.trace.high, ex.trace.trace, ex.trace.parent, ex.trace.span, ex.trace.is_sampled) == (HIGH, LOW, CALLER, OWN, True)
    if b"l5d-ctx-trace" in fields:
        read = decode_trace(fields[b"l5d-ctx-trace"])
        assert read is not None
        assert (read.high, read.trace, read.span, read.parent, read.is_sampled) == (HIGH, LOW, SENT, OWN, True)
    if b"traceparent" in fields:
        read = decode_traceparent(fields[b"traceparent"])
        assert read is not None
        assert (read.high, read.trace, read.span, read.is_sampled) == (HIGH, LOW, SENT, True)
    if b"x-b3-traceid" in fields:
        read = decode_b3(fields, 1)
        assert read is not None
        assert (read.high, read.trace, read.parent, read.is_sampled) == (HIGH, LOW, SENT, True)
        assert fields[b"x-b3-parentspanid"] == b"%016x" % OWN


@EVERY
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(untrusted_fields(L5D_AND_W3C) | {b"l5d-sample", b"l5d-reqid"})),
            st.binary(max_size=80).map(lambda value: bytes(byte for byte in value if byte > 0x20 and byte != 0x7F)),
        ),
        max_size=6,
    )
)
def test_whatever_a_caller_says_the_request_has_a_place_and_goes_on(propagator: Propagator, said: list[tuple[bytes, bytes]]) -> None:
    ex, _ = passed(propagator, *(name + b": " + value for name, value in said))
    assert ex.trace is not None
    assert ex.trace.span == OWN


@EVERY
def test_the_place_of_a_callers_span_is_never_passed_on_by_who_understands_it(propagator: Propagator) -> None:
    _, fields = passed(propagator, *((B3_LINE,) if propagator is B3 else (PARENT_LINE, L5D_LINE)))
    own = propagator.fields | {b"l5d-ctx-trace"}
    assert not [value for name, value in fields.items() if name in own and b"b7ad6b7169203331" in value]


@EVERY
def test_a_server_that_clears_context_believes_and_passes_on_no_trace_of_any_form(propagator: Propagator) -> None:
    state, decision = b"tracestate: a=1", b"x-b3-sampled: 1"
    ex, fields = passed(propagator, PARENT_LINE, state, B3_LINE, decision, L5D_LINE, b"l5d-sample: 1", clear=True)
    assert ex.trace is not None
    assert (ex.trace.trace, ex.trace.parent, ex.trace.is_sampled) == (OWN, OWN, None)
    assert traces(fields) == traces(passed(propagator)[1])


@pytest.mark.parametrize(("propagator", "line"), [(L5D_AND_W3C, B3_LINE), (W3C, B3_LINE), (B3, PARENT_LINE), (B3, b"tracestate: a=1")])
def test_fields_of_another_form_pass_as_they_are(propagator: Propagator, line: bytes) -> None:
    ex, _ = passed(propagator, line)
    assert line in ex.headers.lines
    assert ex.trace is not None
    assert ex.trace.trace == OWN


# --- the default


def test_the_request_id_is_the_defaults_alone() -> None:
    assert passed(L5D_AND_W3C)[1][b"l5d-reqid"] == b"%016x" % OWN
    assert b"l5d-reqid" not in passed(B3)[1]
    assert b"l5d-reqid" not in passed(W3C, PARENT_LINE)[1]


def test_a_hop_without_spans_of_its_own_passes_traceparent_as_it_is() -> None:
    ex, fields = passed(L5D, L5D_LINE, PARENT_LINE, b"tracestate: a=1")
    assert {PARENT_LINE, b"tracestate: a=1"} <= set(ex.headers.lines)
    assert traces(fields) == traces(passed(L5D, L5D_LINE)[1]) | {b"traceparent", b"tracestate"}


def test_where_the_caller_tells_no_traceparent_none_is_told() -> None:
    assert traces(passed(L5D_AND_W3C)[1]) == traces(passed(L5D_AND_W3C, L5D_LINE)[1]) == {b"l5d-ctx-trace", b"l5d-reqid"}


def test_of_both_fields_in_one_trace_traceparent_names_the_nearer_span() -> None:
    copied = b"l5d-ctx-trace: " + TraceId(7, 6, LOW, SAMPLING_KNOWN, HIGH).encode()
    ex, fields = passed(L5D_AND_W3C, copied, PARENT_LINE, b"tracestate: a=1")
    assert ex.trace is not None
    assert (ex.trace.parent, ex.trace.is_sampled) == (CALLER, False)
    assert fields[b"traceparent"] == b"00-0af7651916cd43dd8448eb211c80319c-%016x-00" % SENT
    assert fields[b"tracestate"] == b"a=1"


def test_a_traceparent_of_another_trace_than_the_callers_passes_untouched() -> None:
    ex, fields = passed(L5D_AND_W3C, b"l5d-ctx-trace: " + TraceId(7, 6, 5).encode(), PARENT_LINE, b"tracestate: a=1")
    assert ex.trace is not None
    assert (ex.trace.trace, ex.trace.parent) == (5, 7)
    assert (b"traceparent: " + fields[b"traceparent"], fields[b"tracestate"]) == (PARENT_LINE, b"a=1")


def test_an_invalid_traceparent_is_dropped_with_its_state() -> None:
    for propagator in (L5D_AND_W3C, W3C):
        ex, fields = passed(propagator, b"traceparent: 00-0-0-00", b"tracestate: a=1", b"l5d-sample: 1")
        assert ex.trace is not None
        assert ex.trace.trace == OWN
        assert b"tracestate" not in fields
        assert fields.get(b"traceparent") != b"00-0-0-00"


# --- B3


def test_b3_uses_neither_the_trace_nor_the_sampling_of_l5d_fields_and_drops_them() -> None:
    ex, fields = passed(B3, L5D_LINE, b"l5d-sample: 1", b"l5d-reqid: 1")
    assert ex.trace is not None
    assert (ex.trace.trace, ex.trace.is_sampled) == (OWN, None)
    assert not [name for name in fields if name in (b"l5d-ctx-trace", b"l5d-sample", b"l5d-reqid")]


def test_b3_writes_several_fields_and_the_single_one_to_whom_it_is_known() -> None:
    several = {b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-flags", b"x-b3-sampled"}
    assert traces(passed(B3, b"x-b3-sampled: 1")[1]) == several
    assert traces(passed(B3, B3_LINE)[1]) == several | {b"b3"}


def test_b3_leaves_open_what_nobody_has_decided() -> None:
    assert b"x-b3-sampled" not in passed(B3)[1]


# --- W3C


def test_w3c_tells_no_traceparent_before_somebody_has_decided() -> None:
    ex, fields = passed(W3C)
    assert traces(fields) == {b"l5d-ctx-trace"}
    read = decode_trace(fields[b"l5d-ctx-trace"])
    assert ex.trace is not None and read is not None
    assert (read.high, read.trace) == (ex.trace.high, ex.trace.trace)


@pytest.mark.parametrize(("rate", "flags"), [(b"1", b"01"), (b"0", b"00")])
def test_w3c_begins_traces_of_128_bits(rate: bytes, flags: bytes) -> None:
    assert passed(W3C, b"l5d-sample: " + rate)[1][b"traceparent"] == b"00-%016x%016x-%016x-%b" % (SENT, OWN, SENT, flags)


def test_w3c_passes_tracestate_on_unchanged_and_in_one_line() -> None:
    assert passed(W3C, PARENT_LINE, b"tracestate: a=1,b=2", b"TraceState: c=3")[1][b"tracestate"] == b"a=1,b=2, c=3"
    assert b"tracestate" not in passed(W3C, PARENT_LINE, b"tracestate: " + b",".join([b"a=1"] * 33))[1]
    assert b"tracestate" not in passed(W3C, b"tracestate: a=1", b"l5d-sample: 1")[1]
