from __future__ import annotations

import pytest

from fakes.heads import section
from meshgw.core.exchange import Exchange
from meshgw.core.stack import Reply
from meshgw.filters.context import TAKEN, CallDepth, ClearContext, ServerContext
from meshgw.wire.context import TraceId
from meshgw.wire.headers import FieldTable, Headers


def arrived(*lines: bytes) -> Exchange:
    ex = Exchange()
    ex.headers = section([b"Host: web", *lines], FieldTable(taken=TAKEN))
    return ex


def context(deadlines: list[Exchange] | None = None) -> ServerContext:
    return ServerContext(iter(range(100, 200)).__next__, 0, ([] if deadlines is None else deadlines).append)


def test_a_request_without_context_begins_a_trace() -> None:
    ex = arrived()
    assert context().on_request(ex) is None
    assert ex.trace is not None
    assert (ex.trace.span, ex.trace.parent, ex.trace.trace) == (100, 100, 100)
    assert (ex.dtab, ex.deadline) == (None, None)


def test_a_callers_trace_is_continued() -> None:
    ex = arrived(b"l5d-ctx-trace: " + TraceId(1, 2, 3, 6).encode())
    context().on_request(ex)
    assert ex.trace is not None
    assert (ex.trace.span, ex.trace.parent, ex.trace.trace, ex.trace.flags) == (100, 1, 3, 6)


def test_an_undecodable_trace_counts_as_absent() -> None:
    ex = arrived(b"l5d-ctx-trace: nonsense")
    context().on_request(ex)
    assert ex.trace is not None
    assert ex.trace.trace == 100


def test_the_callers_dtab_comes_after_that_of_the_context() -> None:
    ex = arrived(b"l5d-dtab: /a => /c", b"l5d-ctx-dtab: /a => /b ;", b"l5d-dtab: /d => /e")
    context().on_request(ex)
    assert ex.dtab is not None
    assert ex.dtab.show() == "/a=>/b;/a=>/c;/d=>/e"


def test_context_is_read_also_without_host() -> None:
    ex = Exchange()
    ex.headers = section([b"l5d-ctx-dtab: /a=>/b"], FieldTable(taken=TAKEN))
    context().on_request(ex)
    assert ex.dtab is not None


def test_what_this_hop_writes_is_taken_off_the_request() -> None:
    lines = [name + b": 1 2" for name in sorted(TAKEN)]
    assert arrived(*lines, b"l5d-name: /x", b"dtab-local: /a=>/b").headers.lines == [b"Host: web", b"l5d-name: /x", b"dtab-local: /a=>/b"]


@pytest.mark.parametrize("name", [b"l5d-dtab", b"l5d-ctx-dtab"])
def test_a_malformed_dtab_is_answered_400_with_the_parsers_words(name: bytes) -> None:
    reply = context().on_request(arrived(name + b": /a =>"))
    assert reply is not None
    assert reply.status == 400
    assert reply.body.startswith(name + b": ")
    assert b"l5d-err" in dict(reply.headers)


def test_many_different_dtabs_are_not_all_remembered() -> None:
    reader = ServerContext(lambda: 1, 0, lambda _ex: None)
    for number in range(1000):
        reader.on_request(arrived(b"l5d-dtab: /a=>/%d" % number))
    assert len(reader._dtabs) <= 256


def test_deadline_and_sampling_are_read() -> None:
    ex = arrived(b"l5d-ctx-deadline: 5 9", b"l5d-ctx-deadline: 6 8", b"l5d-sample: 1.0")
    context().on_request(ex)
    assert ex.deadline == (6, 8)
    assert ex.trace is not None
    assert ex.trace.is_sampled is True


def test_a_server_that_clears_context_believes_nothing_of_its_callers() -> None:
    ex = arrived(b"L5D-Name: /x", b"l5d-sample: 1", b"X-L5d-Other: 1")
    ClearContext().on_request(ex)
    assert ex.headers.lines == [b"Host: web", b"X-L5d-Other: 1"]
    assert not [name for name in ex.headers.seen if name.startswith(b"l5d-")]


def answered(status: int, *lines: bytes) -> tuple[Exchange, Reply | None]:
    ex = arrived()
    ex.status, ex.response = status, section(list(lines), FieldTable())
    return ex, ClearContext().on_response(ex)


def test_a_server_that_clears_context_drops_the_body_of_errors() -> None:
    _, reply = answered(502, b"l5d-err: x", b"l5d-retryable: true", b"Content-Type: text/plain", b"Content-Length: 9", b"X-Kept: 1")
    assert reply == Reply(502, b"", ((b"x-kept", b"1"),))


def test_other_answers_only_lose_their_context() -> None:
    ex, reply = answered(500, b"l5d-success-class: 0.0", b"X-Kept: 1")
    assert reply is None
    assert ex.response.lines == [b"X-Kept: 1"]


@pytest.mark.parametrize(("via", "refused"), [(None, False), (b"a, b, c", False), (b"a, b, c, d", True)])
def test_a_request_that_passed_too_many_proxies_is_refused(via: bytes | None, refused: bool) -> None:
    ex = Exchange()
    ex.headers = Headers([], {} if via is None else {b"via": via})
    reply = ServerContext(lambda: 1, 0, lambda _ex: None, depth=CallDepth(3)).on_request(ex)
    assert (reply is not None) is refused
    if reply is not None:
        assert reply.status == 400
        assert reply.body == b"Maximum number of calls (3) has been exceeded. Please check for proxy loops."
