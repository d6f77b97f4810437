"""The trace log: which lines a request gives, at which level, and which part of the requests is logged."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from fakes.looked import runtime
from fakes.spans import STARTED, TRACE, server_span, traced
from meshgw.telemetry.trace_log import TraceLog, TraceLogConfig, build_trace_log, records


@pytest.fixture
def events(request: pytest.FixtureRequest) -> list[LogEvent]:
    found: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "io.l5d.tracelog":
            found.append(event)

    globalLogPublisher.addObserver(observe)
    request.addfinalizer(lambda: globalLogPublisher.removeObserver(observe))
    return found


def log(level: str = "INFO", rate: float = 1.0) -> TraceLog:
    return build_trace_log(TraceLogConfig(level=level, sample_rate=rate), runtime(Clock()))


def test_records_of_a_span_begin_with_its_start_and_end_with_its_end() -> None:
    span = server_span(tags={}, events=((STARTED + 1.01, "l5d.success"),))
    found = [words for _, words in records(span)]
    assert found[:5] == ["ServiceName(web)", "Rpc(GET)", "ServerRecv", "ServerAddr(192.0.2.1:4140)", "ClientAddr(198.51.100.7:50123)"]
    assert found[5:-2] == [f"BinaryAnnotation({name},{value})" for name, value in span.tags.items()]
    assert found[-2:] == ["Message(l5d.success)", "ServerSend"]


def test_records_of_an_attempt_are_those_of_a_client() -> None:
    found = [words for _, words in records(traced()[1])]
    assert {"ClientSend", "ClientRecv", "ClientAddr(10.0.0.1:33000)", "ServerAddr(10.0.0.2:8001)"} <= set(found)


def test_line_begins_with_moment_and_ids(events: list[LogEvent]) -> None:
    log().record(traced())
    trace = f"{TRACE + 1:016x}"
    assert formatEvent(events[2]) == f"1114 22:13:21.250 {trace}.{trace}<:{trace}] ServerRecv"
    assert formatEvent(events[-1]) == f"1114 22:13:21.261 {trace}.{0xA1:016x}<:{trace}] ClientRecv"
    assert (events[0]["trace_id"], events[0]["router"]) == (trace, "web")


@pytest.mark.parametrize(
    ("level", "name"), [("INFO", "info"), ("debug", "debug"), ("TRACE", "debug"), ("WARNING", "warn"), ("FATAL", "critical")]
)
def test_level_is_that_of_the_configuration(events: list[LogEvent], level: str, name: str) -> None:
    log(level).record(traced())
    assert {event["log_level"].name for event in events} == {name}


def test_level_off_wants_nothing_and_says_nothing(events: list[LogEvent]) -> None:
    quiet = log("OFF")
    assert quiet.rate == 0.0
    quiet.record(traced())
    assert events == []


@pytest.mark.parametrize(("given", "rate"), [(-1.0, 0.0), (0.5, 0.5), (7.0, 1.0)])
def test_rate_is_clamped_and_decides_for_nobody_else(given: float, rate: float) -> None:
    made = log(rate=given)
    assert (made.rate, made.decides, made.tracer) == (rate, False, made)


def test_value_cannot_format_itself(events: list[LogEvent]) -> None:
    log().record((server_span(tags={"http.uri": "/{record}"}),))
    assert any(formatEvent(event).endswith("BinaryAnnotation(http.uri,/{record})") for event in events)
