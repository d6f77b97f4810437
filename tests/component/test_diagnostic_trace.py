"""TRACE requests through a whole router: how far they go, and what routers put behind their answers."""

from __future__ import annotations

import pytest

from fakes.answers import FAILED, answer_of, assert_nothing_left, pass_time
from meshgw.naming.dtab import Dtab
from transcript import OK, Mesh, asked

WANTED = b"l5d-add-context: true\r\n"


def trace(fields: bytes = b"") -> bytes:
    return b"TRACE / HTTP/1.1\r\nHost: web\r\n%b\r\n" % fields


def context(port: int, milliseconds: int = 0) -> str:
    return (
        f"--- Router: http ---\nrequest duration: {milliseconds} ms\nservice name: /svc/web\nclient name: /#/web\n"
        f"addresses: [127.0.0.1:{port}]\nselected address: 127.0.0.1:{port}\ndtab resolution:\n"
    )


@pytest.mark.parametrize(("fields", "sent"), [(b"", None), (b"Max-Forwards: 7\r\n", b"6"), (b"Max-Forwards: 1\r\n", b"0")])
def test_a_trace_goes_on_with_one_hop_less(fields: bytes, sent: bytes | None) -> None:
    with Mesh() as mesh:
        caller, upstream, _ = asked(mesh, trace(fields))
        assert upstream.got.lower().count(b"max-forwards") == (sent is not None)
        assert sent is None or b"max-forwards: " + sent + b"\r\n" in upstream.got
        upstream.send(OK)
        assert answer_of(caller, 200)[1] == "ok"


def test_another_attempt_is_not_another_hop() -> None:
    with Mesh("service: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}") as mesh:
        caller, upstream, _ = asked(mesh, trace(b"Max-Forwards: 7\r\n"))
        upstream.send(FAILED)
        upstream.expect(b"max-forwards: 6\r\n", 2)
        upstream.send(OK)
        caller.expect(b"ok")


@pytest.mark.parametrize("value", [b"x", b"-1", b"1.5", b"", b"9" * 10])
def test_a_number_of_hops_that_is_none_is_answered_400(value: bytes) -> None:
    with Mesh() as mesh:
        mesh.service("web")
        caller = mesh.caller().send(trace(b"Max-Forwards: " + value + b"\r\n"))
        fields, body = answer_of(caller, 400)
        assert (fields["content-type"], body) == ("text/plain", "Invalid value for Max-Forwards header")
        assert_nothing_left(mesh)


def test_the_last_hop_answers_itself_and_that_is_no_failure() -> None:
    with Mesh() as mesh:
        service = mesh.service("web")
        fields, body = answer_of(mesh.caller().send(trace(b"Max-Forwards: 0\r\n")), 200)
        assert (body, fields["l5d-success-class"]) == ("", "1.0")
        assert answer_of(mesh.caller().send(trace(b"Max-Forwards: 0\r\n" + WANTED)), 200)[1] == context(service.port)
        assert not service.has_more()
        assert mesh.counter(f"server/127.0.0.1/{mesh.port}/success") == 2
        assert_nothing_left(mesh)


def test_the_context_of_the_router_comes_behind_the_answer() -> None:
    with Mesh() as mesh:
        caller, upstream, service = asked(mesh, trace(WANTED))
        assert b"l5d-add-context: true" in upstream.got
        pass_time(mesh, 0.25)
        upstream.send(OK)
        assert answer_of(caller, 200)[1] == "ok\n" + context(service.port, 250)
        caller.get()
        upstream.expect(b"GET /")
        upstream.send(OK)
        assert answer_of(caller, 200)[1] == "ok"


def test_an_answer_in_pieces_is_passed_on_whole_with_the_context_behind_it() -> None:
    with Mesh() as mesh:
        caller, upstream, service = asked(mesh, trace(WANTED))
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        caller.expect(b"abc")
        upstream.send(b"def")
        head, _, body = caller.expect(b"dtab resolution:\n").partition(b"\r\n\r\n")
        assert body.decode() == "abcdef\n" + context(service.port)
        assert b"content-length: %d" % len(body) in head
        caller.take()
        caller.send(trace(WANTED))
        upstream.expect(b"\r\n\r\n", 2)
        upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        got = caller.expect(b"\r\n0\r\n\r\n")
        assert b"\r\nabc\n--- Router: http" in got
        assert context(service.port).encode() in got


@pytest.mark.parametrize(
    ("request_line", "fields", "answer"),
    [
        (b"GET", WANTED, OK),
        (b"TRACE", b"l5d-add-context: false\r\n", OK),
        (b"TRACE", WANTED, b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok"),
        (b"TRACE", WANTED, b"HTTP/1.1 204 No Content\r\nX: ok\r\n\r\n"),
    ],
    ids=["another method", "not wanted", "encoded", "without body"],
)
def test_nothing_is_put_behind_other_answers(request_line: bytes, fields: bytes, answer: bytes) -> None:
    with Mesh() as mesh:
        caller, upstream, _ = asked(mesh, request_line + trace(fields)[5:])
        upstream.send(answer)
        caller.expect(b"ok")
        mesh.settle()
        assert b"--- Router" not in caller.got


def test_a_server_that_clears_context_tells_nothing_of_the_inside() -> None:
    with Mesh(server="clearContext: true") as mesh:
        caller, upstream, _ = asked(mesh, trace(WANTED))
        upstream.send(OK)
        assert answer_of(caller, 200)[1] == "ok"
        assert answer_of(mesh.caller().send(trace(b"Max-Forwards: 0\r\n" + WANTED)), 200)[1] == ""


def test_errors_made_here_stay_as_they_are() -> None:
    with Mesh("client: {requestAttemptTimeoutMs: 200}") as mesh:
        caller, _, _ = asked(mesh, trace(WANTED))
        pass_time(mesh, 0.3)
        assert "--- Router" not in answer_of(caller, 503)[1]


def test_the_resolution_is_that_of_the_request() -> None:
    with Mesh() as mesh:
        service = mesh.service("web")
        asked_for: list[Dtab] = []
        mesh.names.delegate = lambda dtab, path: asked_for.append(dtab) or mesh.names.tree(path)  # type: ignore[attr-defined]
        caller = mesh.caller().send(trace(b"Max-Forwards: 0\r\nl5d-dtab: /a => /b\r\n" + WANTED))
        caller.expect(b"HTTP/1.1 ")
        assert [dtab.show() for dtab in asked_for] == ["/a=>/b"]
        assert service.port
