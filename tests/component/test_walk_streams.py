from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as File

import pytest
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from meshgw.core.stack import Pipeline, Reply
from meshgw.core.transport import HIGH_WATER
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG
from transcript import DONE, OK, Mesh, asked, idle


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Mesh() as found:
        yield found


# --- pressure


def test_a_slow_caller_holds_its_service_back_and_gets_everything_in_the_end(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh)
    size = 40_000_000
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    caller.expect(b"\r\n\r\n")
    begin = caller.total
    caller.is_reading, caller.last_only = False, True
    sent = upstream.offer(b"y" * size)
    assert sent < size
    assert HIGH_WATER < most_kept(mesh) <= HIGH_WATER + 65536
    caller.is_reading = True
    upstream.send(b"y" * (size - sent))
    mesh.until(lambda: caller.total == begin + size)


def test_a_slow_service_holds_its_caller_back_and_gets_everything_in_the_end(mesh: Mesh) -> None:
    size = 40_000_000
    caller, upstream, _ = asked(mesh, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % size)
    begin = upstream.total
    upstream.is_reading, upstream.last_only = False, True
    sent = caller.offer(b"z" * size)
    assert sent < size
    assert HIGH_WATER < most_kept(mesh) <= HIGH_WATER + 65536
    upstream.is_reading = True
    caller.send(b"z" * (size - sent))
    mesh.until(lambda: upstream.total == begin + size)
    upstream.send(OK)
    caller.expect(DONE)


def most_kept(mesh: Mesh) -> int:
    """The largest output buffer of the router's connections."""
    owners = [getattr(handler, "__self__", None) for handler in mesh.poller.handlers.values()]
    return max(sum(map(len, owner._out)) for owner in owners if hasattr(owner, "_out"))


# --- tunnels

UPGRADE = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_a_tunnel_passes_early_bytes_and_each_half_close(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh, UPGRADE + b"early")
    upstream.send(SWITCH + b"hello")
    caller.expect(b"hello")
    upstream.expect(b"early")
    caller.send(b"last words")
    caller.end()
    assert upstream.expect_end() == "eof"
    assert upstream.got.endswith(b"earlylast words")
    upstream.send(b"x" * 1_000_000 + b"goodbye")
    upstream.close()
    assert caller.expect_end() == "eof"
    assert caller.got.endswith(b"xgoodbye")
    mesh.settle()
    assert idle(mesh)


def test_the_end_of_a_service_in_a_tunnel_leaves_the_callers_direction_open(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh, UPGRADE)
    upstream.send(SWITCH)
    caller.expect(b"\r\n\r\n")
    upstream.end()
    assert caller.expect_end() == "eof"
    caller.send(b"GET /not-a-request HTTP/1.1\r\nHost: web\r\n\r\n")
    caller.close()
    upstream.expect(b"GET /not-a-request")
    upstream.expect_end()
    assert mesh.counter(f"server/127.0.0.1/{mesh.port}/requests") == 1


def test_a_slow_tunnel_is_bounded_and_loses_nothing(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh, UPGRADE)
    upstream.send(SWITCH)
    caller.expect(b"\r\n\r\n")
    begin = upstream.total
    upstream.is_reading, upstream.last_only = False, True
    sent = caller.offer(b"t" * 20_000_000)
    assert sent < 20_000_000
    assert most_kept(mesh) <= HIGH_WATER + 65536
    caller.end()
    upstream.is_reading = True
    assert upstream.expect_end() == "eof"
    assert upstream.total == begin + sent


def test_a_refusal_to_switch_is_an_ordinary_answer(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh, UPGRADE)
    upstream.send(OK)
    caller.expect(DONE)
    caller.get()
    upstream.expect(b"GET / ", 2)


# --- filters, accounting, log


def test_a_filter_that_fails_is_answered_500_and_accounted_for(mesh: Mesh) -> None:
    class Faulty:
        def on_request(self, ex: object) -> Reply | None:
            raise ZeroDivisionError

    caller, upstream, _ = asked(mesh)
    upstream.send(OK)
    caller.expect(DONE)
    served = next(iter(mesh.router.listeners[0]._open))
    pipeline = served._ex.walk._server  # type: ignore[attr-defined]
    pipeline.requests = (*pipeline.requests, Faulty().on_request)
    pipeline.partial = (*pipeline.partial, (pipeline.responses, pipeline.ends))
    caller.get()
    caller.expect(b"HTTP/1.1 500 ")
    scope = f"server/127.0.0.1/{mesh.port}"
    assert mesh.counter(f"{scope}/requests") == 2
    assert mesh.snapshot().gauges["rt", "http", "server", f"127.0.0.1/{mesh.port}", "pending"] == 0


def test_the_log_of_a_defect_has_no_query(mesh: Mesh, request: pytest.FixtureRequest) -> None:
    def faulty(_ex: object) -> None:
        raise ZeroDivisionError

    told: list[str] = []

    def observe(event: LogEvent) -> None:
        told.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    request.addfinalizer(lambda: globalLogPublisher.removeObserver(observe))
    caller, upstream, _ = asked(mesh, b"GET /a?token=secret HTTP/1.1\r\nHost: web\r\n\r\n")
    ex = next(iter(mesh.router.listeners[0]._open))._ex  # type: ignore[attr-defined]
    ex.bound.pipeline.responses = (faulty,)
    ex.walk._server.ends = (faulty,)
    upstream.send(OK)
    caller.expect(b"HTTP/1.1 500 ")
    assert any("/a" in text for text in told)
    assert not any("secret" in text for text in told)


def faulty_response(_ex: object) -> None:
    raise ZeroDivisionError


def with_faulty_response(mesh: Mesh, seen: list[object]) -> Pipeline:
    """The server's stack, in which a response hook fails from now on, between one before it and one behind it that both tell ``seen``."""
    pipeline: Pipeline = next(iter(mesh.router.listeners[0]._open))._ex.walk._server  # type: ignore[attr-defined]
    pipeline.responses = (seen.append, faulty_response, seen.append)
    return pipeline


def test_a_response_hook_of_the_server_that_fails_is_answered_500_which_the_others_see(mesh: Mesh) -> None:
    seen: list[object] = []
    caller, upstream, _ = asked(mesh)
    pipeline = with_faulty_response(mesh, seen)
    upstream.send(OK)
    caller.expect(b"HTTP/1.1 500 ")
    seen.clear()
    caller.get(host=b"nowhere")
    mesh.names.tree(Path.of("svc", "nowhere")).set(NEG)
    caller.expect(b"HTTP/1.1 500 ", 2)
    assert len(seen) == 3  # the first of the 502 that was to be, and both of what is told instead
    scope = f"server/127.0.0.1/{mesh.port}"
    assert mesh.counter(f"{scope}/status/500") == mesh.counter(f"{scope}/failures") == 2
    pipeline.responses = ()
    caller.get()
    upstream.expect(b"\r\n\r\n", 2)
    upstream.send(OK)
    caller.expect(DONE)
    assert idle(mesh)


def test_a_response_hook_that_fails_on_a_switch_of_protocols_is_answered_500(mesh: Mesh) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    caller, upstream, _ = asked(mesh, b"GET /chat HTTP/1.1\r\nHost: web\r\n" + upgrade + b"\r\n")
    with_faulty_response(mesh, [])
    upstream.send(b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n")
    caller.expect(b"HTTP/1.1 500 ")
    upstream.expect_end()
    assert idle(mesh)


def test_an_end_hook_that_fails_keeps_no_other_and_no_counter_from_what_they_do(mesh: Mesh) -> None:
    def faulty(_ex: object) -> None:
        raise ZeroDivisionError

    ended: list[object] = []
    caller, upstream, _ = asked(mesh)
    ex = next(iter(mesh.router.listeners[0]._open))._ex  # type: ignore[attr-defined]
    for pipeline in (ex.walk._server, ex.route.pipeline, ex.bound.pipeline):
        pipeline.ends = (faulty, ended.append)
    upstream.send(OK)
    caller.expect(DONE)
    assert len(ended) == 3
    caller.get()
    upstream.expect(b"\r\n\r\n", 2)
    upstream.send(b"broken\r\n\r\n")
    caller.expect(b"HTTP/1.1 502 ")
    assert len(ended) == 6
    pending = {names[2:4]: value for names, value in mesh.snapshot().gauges.items() if names[-1] == "pending"}
    assert len(pending) == 3
    assert not any(pending.values())


def test_a_server_that_clears_context_hides_errors_of_services_in_one_framing() -> None:
    with Mesh(server="clearContext: true") as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(b"HTTP/1.1 502 Bad Gateway\r\nl5d-err: secret\r\nContent-Length: 6\r\n\r\nsecret")
        answer = caller.expect(b"\r\n\r\n")
        mesh.settle()
        assert b"secret" not in caller.got
        assert answer.lower().count(b"content-length") == 1
        assert b"content-length: 0\r\n" in answer.lower()
        caller.get()
        mesh.settle()
        assert caller.ending == ""


def test_every_request_has_its_line_in_the_access_log(tmp_path: File) -> None:
    file = tmp_path / "access.log"
    with Mesh(f"httpAccessLog: {file}") as mesh:
        caller, upstream, _ = asked(mesh, b'GET /a?b HTTP/1.1\r\nHost: web\r\nUser-Agent: x"y\r\nReferer: /r\r\n\r\n')
        upstream.send(OK)
        caller.expect(DONE)
        mesh.names.tree(Path.of("svc", "none")).set(NEG)
        caller.get(b"/error", host=b"none")
        caller.expect(b"HTTP/1.1 502")
        caller.get(b"/gone")
        upstream.expect(b"GET /gone")
        caller.reset()
        mesh.settle()
        broken = mesh.caller().send(b"broken\r\n\r\n")
        broken.expect(b"HTTP/1.1 400 ")
    lines = file.read_text().splitlines()
    assert lines[0].startswith("web 127.0.0.1 - - [")
    assert lines[0].endswith('"GET /a?b HTTP/1.1" 200 2 "/r" "x\\x22y"')
    assert '"GET /error HTTP/1.1" 502 ' in lines[1]
    assert '"GET /gone HTTP/1.1" 499 - "' in lines[2]
    assert lines[3].startswith("- 127.0.0.1 ")
    assert " 400 " in lines[3]
    assert len(lines) == 4


def test_a_full_pool_makes_requests_wait_in_line_and_then_refuses() -> None:
    with Mesh("client:\n  hostConnectionPool:\n    maxSize: 1\n    maxWaiters: 1") as mesh:
        caller, upstream, _ = asked(mesh)
        second = mesh.caller().get(b"/second")
        mesh.settle()
        third = mesh.caller().get(b"/third")
        third.expect(b"pooled connections are busy")
        assert third.got.startswith(b"HTTP/1.1 502 ")
        upstream.send(OK)
        caller.expect(DONE)
        upstream.expect(b"GET /second")
        upstream.send(OK)
        second.expect(DONE)
        assert idle(mesh)


def test_context_of_a_request_without_host_counts() -> None:
    with Mesh("identifier:\n  kind: io.l5d.static\n  path: /web") as mesh:
        service = mesh.service("web")
        mesh.caller().send(b"GET / HTTP/1.0\r\nl5d-dtab: /a=>/b\r\n\r\n")
        upstream = service.accept()
        assert b"\r\nl5d-ctx-dtab: /a=>/b" in upstream.expect(b"\r\n\r\n")
        assert b"l5d-dtab" not in upstream.got
