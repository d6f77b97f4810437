"""Telling collectors, byte by byte: Scribe's calls and HTTP's requests, and all that may come back or not."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from twisted.internet.error import NoRouteError
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from fakes.dialled import Dialled, Outcome, Wire
from fakes.looked import literal
from fakes.spans import traced
from fakes.zipkin_schema import decode_call, encode_exception, encode_reply
from meshgw.backends.collectors import ScribeCollector, SpanTelemeter, retry_after
from meshgw.backends.connecting import ResolvedEndpoint
from meshgw.backends.otlp import OtlpConfig, Url, build_otlp
from meshgw.backends.zipkin import ZipkinConfig, build_zipkin
from meshgw.kinds import Runtime
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.span_queue import CollectorAway, SpansRefused
from meshgw.telemetry.zipkin_thrift import LARGEST_REPLY


class Scribe:
    """A Scribe collector over a dialled reactor."""

    def __init__(self) -> None:
        self.reactor = Dialled()
        self.collector = ScribeCollector(ResolvedEndpoint(self.reactor, literal, "192.0.2.9", 9410))
        self.sequence = 0

    def deliver(self, number: int = 1) -> Outcome:
        return Outcome(self.collector.deliver(traced(number)))

    def called(self) -> tuple[Outcome, Wire]:
        """A call under way on a new connection."""
        outcome = self.deliver()
        wire = self.reactor.accept()
        self.sequence, spans = decode_call(wire.take())
        assert [span.name for span in spans] == ["GET", "GET"]
        return outcome, wire


@pytest.fixture
def scribe() -> Scribe:
    return Scribe()


def test_spans_are_logged_in_one_framed_call(scribe: Scribe) -> None:
    outcome, wire = scribe.called()
    assert outcome.is_open
    wire.send(encode_reply(scribe.sequence, 0))
    assert outcome.value is None


def test_connection_is_kept_for_the_next_call(scribe: Scribe) -> None:
    _, wire = scribe.called()
    wire.send(encode_reply(scribe.sequence, 0))
    outcome = scribe.deliver(2)
    sequence, _ = decode_call(wire.take())
    wire.send(encode_reply(sequence, 0))
    assert outcome.value is None
    assert len(scribe.reactor.attempts) == 1


def test_reply_may_come_in_pieces(scribe: Scribe) -> None:
    outcome, wire = scribe.called()
    for byte in encode_reply(scribe.sequence, 0):
        wire.send(bytes((byte,)))
    assert outcome.value is None


def test_try_later_is_worth_another_try(scribe: Scribe) -> None:
    outcome, wire = scribe.called()
    wire.send(encode_reply(scribe.sequence, 1))
    assert isinstance(outcome.error, CollectorAway) and str(outcome.error) == "it is too busy (TRY_LATER)"
    assert wire.ended == ""


def test_exception_of_the_collector_is_final_and_told(scribe: Scribe) -> None:
    outcome, wire = scribe.called()
    wire.send(encode_exception(scribe.sequence, "Unknown function Log"))
    assert isinstance(outcome.error, SpansRefused) and str(outcome.error) == "the collector says: Unknown function Log"


@pytest.mark.parametrize("reply", [b"\0\0\0\4\0\0\0\0", b"HTTP/1.1 400 Bad Request\r\n\r\n", (LARGEST_REPLY + 1).to_bytes(4, "big")])
def test_what_is_no_reply_ends_the_connection(scribe: Scribe, reply: bytes) -> None:
    outcome, wire = scribe.called()
    wire.send(reply)
    scribe.reactor.advance(0)
    assert isinstance(outcome.error, SpansRefused)
    assert wire.ended


def test_refused_connection_is_told_in_plain_words(scribe: Scribe) -> None:
    outcome = scribe.deliver()
    scribe.reactor.attempts[-1].refuse()
    assert isinstance(outcome.error, CollectorAway) and str(outcome.error) == "connection refused"


def test_other_reason_of_no_connection_is_told_too(scribe: Scribe) -> None:
    outcome = scribe.deliver()
    scribe.reactor.attempts[-1].refuse(NoRouteError())
    assert outcome.error.reason.startswith("no connection: ")


def test_connection_that_breaks_within_a_call_is_worth_another_try(scribe: Scribe) -> None:
    outcome, wire = scribe.called()
    wire.reset()
    assert outcome.error.reason.startswith("the connection broke")
    again, wire = scribe.called()
    wire.send(encode_reply(scribe.sequence, 0))
    assert again.value is None


def test_connection_that_was_closed_between_calls_is_made_anew(scribe: Scribe) -> None:
    _, wire = scribe.called()
    wire.send(encode_reply(scribe.sequence, 0))
    wire.close()
    outcome, wire = scribe.called()
    wire.send(encode_reply(scribe.sequence, 0))
    assert outcome.value is None


def test_call_that_is_given_up_takes_its_connection_with_it(scribe: Scribe) -> None:
    outcome, wire = scribe.called()
    outcome.deferred.cancel()
    scribe.reactor.advance(0)
    assert wire.ended == "aborted"
    again, wire = scribe.called()
    wire.send(encode_reply(scribe.sequence, 0))
    assert again.value is None


def test_reply_without_a_call_ends_the_connection(scribe: Scribe) -> None:
    _, wire = scribe.called()
    wire.send(encode_reply(scribe.sequence, 0) * 2)
    scribe.reactor.advance(0)
    assert wire.ended == "aborted"


# --- HTTP, with the whole telemeter


class Telemeter:
    """A telemeter that is started, over a dialled reactor."""

    def __init__(self, build: Any, config: Any) -> None:
        self.reactor, self.metrics = Dialled(), Metrics()
        runtime = Runtime(reactor=self.reactor, metrics=self.metrics, random=Random(5), spawn=_no_spawn, resolve=literal)
        self.telemeter: SpanTelemeter = build(config, runtime)
        self.telemeter.startService()

    def record(self, number: int = 1) -> None:
        self.telemeter.tracer.record(traced(number))
        self.reactor.advance(1.0)

    def posted(self) -> tuple[str, Mapping[str, str], bytes, Wire]:
        """The request on a new connection."""
        self.record()
        wire = self.reactor.accept()
        self.reactor.advance(0)
        return (*request_on(wire), wire)

    def count(self, name: str) -> int:
        (kind,) = self.metrics.scope("telemetry")._children
        return self.metrics.counter("telemetry", kind, name).value

    def stop(self) -> list[None]:
        done: list[None] = []
        self.telemeter.stopService().addCallback(done.append)
        self.reactor.advance(0)
        return done


def request_on(wire: Wire) -> tuple[str, Mapping[str, str], bytes]:
    head, _, body = wire.take().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


def _no_spawn(*_arguments: Any) -> Any:
    raise AssertionError("telemeters run their own coroutines")


def answer(status: int, body: bytes = b"", *lines: str) -> bytes:
    head = "\r\n".join((f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *lines, "", ""))
    return head.encode() + body


def otlp(**options: Any) -> Telemeter:
    return Telemeter(build_otlp, OtlpConfig(endpoint=Url.read("http://192.0.2.8:4318"), **options))


def test_zipkin_over_http_gets_json_spans() -> None:
    on = Telemeter(build_zipkin, ZipkinConfig(host="192.0.2.9", protocol="http"))
    first, headers, body, wire = on.posted()
    assert first == "POST /api/v2/spans HTTP/1.1"
    assert (headers["host"], headers["content-type"]) == ("192.0.2.9:9411", "application/json")
    assert [span["kind"] for span in json.loads(body)] == ["SERVER", "CLIENT"]
    wire.send(answer(202))
    assert on.count("sent") == 2
    assert on.stop() == [None]


def test_zipkin_over_scribe_is_the_default() -> None:
    on = Telemeter(build_zipkin, ZipkinConfig(host="192.0.2.9"))
    assert (on.telemeter.rate, on.telemeter.decides) == (0.001, True)
    on.record()
    assert (on.reactor.attempts[-1].host, on.reactor.attempts[-1].port) == ("192.0.2.9", 9410)
    wire = on.reactor.accept()
    sequence, _ = decode_call(wire.take())
    wire.send(encode_reply(sequence, 0))
    assert on.count("sent") == 2
    assert on.stop() == [None]
    assert wire.ended == "closed"


def test_otlp_gets_a_protobuf_request_with_our_headers() -> None:
    on = otlp(headers={"x-tenant": "t 1"}, service_name="edge", resource={"deployment.environment": "test"})
    first, headers, body, wire = on.posted()
    assert first == "POST /v1/traces HTTP/1.1"
    assert headers.items() >= {"content-type": "application/x-protobuf", "x-tenant": "t 1", "host": "192.0.2.8:4318"}.items()
    request = ExportTraceServiceRequest.FromString(body)
    facts = {one.key: one.value.string_value for one in request.resource_spans[0].resource.attributes}
    assert facts["service.name"] == "edge"
    assert facts["deployment.environment"] == "test"
    assert {"service.version", "service.instance.id", "host.name"} <= facts.keys()
    wire.send(answer(200))
    assert on.count("sent") == 2
    assert on.stop() == [None]


def test_compressed_request_says_so_and_is_smaller() -> None:
    _, headers, body, _ = otlp(compression="gzip").posted()
    assert headers["content-encoding"] == "gzip"
    plain = gzip.decompress(body)
    assert len(ExportTraceServiceRequest.FromString(plain).resource_spans[0].scope_spans[0].spans) == 2
    assert len(body) < len(plain) * 0.7


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_status_that_promises_better_times_is_tried_again(status: int) -> None:
    on = otlp()
    *_, body, wire = on.posted()
    wire.send(answer(status, b"", "Retry-After: 3"))
    on.reactor.advance(2.9)
    assert wire.take() == b""
    on.reactor.advance(0.2)
    assert request_on(wire)[2] == body
    wire.send(answer(200))
    assert (on.count("sent"), on.count("dropped"), on.count("failures")) == (2, 0, 1)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 501, 302])
def test_any_other_status_drops_the_batch(status: int) -> None:
    on = otlp()
    *_, wire = on.posted()
    wire.send(answer(status, b"no"))
    on.reactor.advance(60)
    assert (on.count("sent"), on.count("dropped"), on.count("failures")) == (0, 2, 1)


def test_rejected_spans_count_as_dropped_and_are_logged_once_a_minute(request: pytest.FixtureRequest) -> None:
    lines = logged(request)
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans, response.partial_success.error_message = 1, "too old"
    on = otlp()
    *_, wire = on.posted()
    refusal = answer(200, response.SerializeToString(), "Content-Type: application/x-protobuf")
    told = ["the collector at http://192.0.2.8:4318/v1/traces took a batch of spans but for 1: too old"]
    wire.send(refusal)
    assert (on.count("sent"), on.count("dropped"), on.count("failures")) == (1, 1, 0)
    assert lines == told
    for lines_so_far in (told, told, told * 2):
        on.reactor.advance(20)
        on.record()
        request_on(wire)
        wire.send(refusal)
        assert lines == lines_so_far
    assert (on.count("sent"), on.count("dropped")) == (4, 4)


@pytest.mark.parametrize(("rejected", "dropped"), [(0, 0), (-5, 0), (1000, 2)])
def test_no_more_spans_are_dropped_than_there_were(rejected: int, dropped: int) -> None:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans, response.partial_success.error_message = rejected, "odd"
    on = otlp()
    *_, wire = on.posted()
    wire.send(answer(200, response.SerializeToString(), "Content-Type: application/x-protobuf"))
    assert (on.count("sent"), on.count("dropped")) == (2 - dropped, dropped)


def test_header_is_read_from_its_file_at_each_request(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("Bearer first-token\n")
    on = otlp(header_files={"Authorization": str(file)})
    _, headers, _, wire = on.posted()
    assert headers["authorization"] == "Bearer first-token"
    wire.send(answer(200))
    file.write_text("Bearer second-token")
    on.record(2)
    assert request_on(wire)[1]["authorization"] == "Bearer second-token"


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"caf\xc3\xa9", b"x" * 20_000])
def test_file_that_cannot_be_a_header_keeps_spans_waiting_and_is_named(
    tmp_path: Path, content: bytes | None, request: pytest.FixtureRequest
) -> None:
    lines, file = logged(request), tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    on = otlp(header_files={"Authorization": str(file)})
    on.record()
    assert on.reactor.attempts == []
    assert len(lines) == 1 and str(file) in lines[0] and "Authorization" in lines[0]
    file.write_text("Bearer good")
    on.reactor.advance(5)
    on.reactor.accept()


def test_pipe_in_place_of_a_file_holds_nothing_up(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    lines, pipe = logged(request), tmp_path / "pipe"
    os.mkfifo(pipe)
    on = otlp(header_files={"Authorization": str(pipe)})
    on.record()
    assert on.reactor.attempts == []
    assert "does not hold one line" in lines[0]


def test_no_secret_is_repeated_from_the_collectors_answer(request: pytest.FixtureRequest) -> None:
    lines = logged(request)
    on = otlp(headers={"Authorization": "Bearer s3cret-token"})
    *_, wire = on.posted()
    wire.send(answer(401, b"bad token s3cret-token"))
    assert "401" in lines[0] and "s3cret" not in lines[0]


def logged(request: pytest.FixtureRequest) -> list[str]:
    """What operators are warned of."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") is not None and event["log_level"].name == "warn":
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    request.addfinalizer(lambda: globalLogPublisher.removeObserver(observe))
    return lines


def test_silent_collector_is_given_up_and_nothing_is_left() -> None:
    on = otlp(timeout_ms=500)
    *_, wire = on.posted()
    on.reactor.advance(0.6)
    on.reactor.advance(0)
    assert wire.ended
    on.reactor.advance(0.1)
    assert on.stop() in ([], [None])
    on.reactor.advance(3)
    assert on.count("dropped") == 2
    assert on.reactor.getDelayedCalls() == []


def test_end_tells_the_last_spans_and_closes_the_connection() -> None:
    on = otlp()
    *_, wire = on.posted()
    wire.send(answer(200))
    on.telemeter.tracer.record(traced(2))
    done = on.stop()
    assert done == []
    assert len(ExportTraceServiceRequest.FromString(request_on(wire)[2]).resource_spans) == 1
    wire.send(answer(200))
    assert done == [None]
    on.reactor.advance(1)
    assert wire.ended
    assert on.reactor.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:29:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00"}, 0.0),
        ({"retry-after": "9" * 400}, 999999999.0),
        ({"retry-after": "Wed, 21 Oct 99999999999 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 +99999999999999", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_moment(headers: dict[str, str], seconds: float) -> None:
    assert retry_after(headers) == seconds
