from __future__ import annotations

import pytest

from fakes.tracers import FakeTracer
from meshgw.core.exchange import Exchange
from meshgw.filters.propagation import L5D_AND_W3C
from meshgw.filters.recording import Setting
from meshgw.filters.tracing import Sampler, ServerTracing
from meshgw.telemetry.spans import TracingSwitch
from meshgw.wire.context import DEBUG, SAMPLED, SAMPLING_KNOWN, TraceId, first_lines


def some_traces(flags: int = 0) -> list[TraceId]:
    return [TraceId(1, 1, number, flags) for number in range(1, 2001)]


def test_a_tracer_that_decides_settles_it_for_the_hops_behind() -> None:
    sampler = Sampler([tracer := FakeTracer(rate=0.25)], 7)
    traces = some_traces()
    wanted = [trace for trace in traces if sampler.takers(trace) == (tracer,)]
    assert [trace for trace in traces if trace.is_sampled] == wanted
    assert all(trace.is_sampled is False for trace in traces if trace not in wanted)
    assert len(wanted) / len(traces) == pytest.approx(0.25, abs=0.05)


def test_tracers_that_look_on_choose_their_part_and_decide_nothing() -> None:
    sampler = Sampler([FakeTracer(rate=0.25, decides=False)], 7)
    traces = some_traces()
    assert sum(bool(sampler.takers(trace)) for trace in traces) / len(traces) == pytest.approx(0.25, abs=0.05)
    assert {trace.is_sampled for trace in traces} == {None}


def test_of_several_tracers_each_gets_its_part_and_the_largest_decides() -> None:
    few, many, looking = FakeTracer(0.1), FakeTracer(0.5), FakeTracer(0.9, decides=False)
    sampler = Sampler([few, many, looking], 3)
    traces = some_traces()
    takers = [sampler.takers(trace) for trace in traces]
    for tracer in (few, many, looking):
        assert sum(tracer in each for each in takers) / len(traces) == pytest.approx(tracer.rate, abs=0.05)
    assert [trace.is_sampled for trace in traces] == [many in each for each in takers]
    assert all(many in each for each in takers if few in each)


@pytest.mark.parametrize("flags", [SAMPLING_KNOWN | SAMPLED, DEBUG, DEBUG | SAMPLING_KNOWN])
def test_a_trace_that_is_sampled_or_debugged_goes_to_all_tracers(flags: int) -> None:
    tracers = FakeTracer(0.0), FakeTracer(0.0, decides=False)
    assert Sampler(tracers, 0).takers(TraceId(1, 1, 1, flags)) == tracers


def test_a_trace_that_is_not_sampled_goes_only_to_those_who_look_on() -> None:
    looking = FakeTracer(decides=False)
    trace = TraceId(1, 1, 1, SAMPLING_KNOWN)
    assert Sampler([FakeTracer(), looking], 0).takers(trace) == (looking,)
    assert trace.is_sampled is False


@pytest.mark.parametrize(("rate", "sampled"), [(0.0, False), (1.0, True)])
def test_nothing_and_everything_are_exact(rate: float, sampled: bool) -> None:
    sampler = Sampler([FakeTracer(rate)], 99)
    for trace in some_traces():
        assert bool(sampler.takers(trace)) is sampled


def test_while_tracing_is_off_nothing_is_recorded_or_decided() -> None:
    switch = TracingSwitch()
    setting = Setting(label="http", dtab="", propagator=L5D_AND_W3C, clock=lambda: 1.0, now=lambda: 1.0, bits=lambda: 2)
    tracing = ServerTracing(Sampler([FakeTracer()], 0), switch, setting)

    def arrived() -> Exchange:
        ex = Exchange()
        ex.version, ex.root = b"1.1", 5
        tracing.on_request(ex)
        return ex

    assert arrived().recording is not None
    switch.enabled = False
    ex = arrived()
    assert ex.recording is None
    assert ex.trace is not None
    assert ex.trace.is_sampled is None


@pytest.mark.parametrize(("decides", "sampled"), [(True, False), (False, None)])
def test_a_trace_that_begins_here_and_that_nobody_wants_is_told_so_where_somebody_decides(decides: bool, sampled: bool | None) -> None:
    setting = Setting(label="http", dtab="", propagator=L5D_AND_W3C, clock=lambda: 1.0, now=lambda: 1.0, bits=lambda: 2)
    tracing = ServerTracing(Sampler([FakeTracer(0.0, decides=decides)], 0), TracingSwitch(), setting)
    ex = Exchange()
    ex.version, ex.root = b"1.1", 5
    tracing.on_request(ex)
    assert (ex.recording, ex.root) == (None, 5)
    assert ex.trace is not None
    assert ex.trace.is_sampled is sampled
    assert first_lines(7, ex.root, ex.root_flags) == ex.trace.lines(7)
