from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshgw.core.address import ADDR_NEG, Address, Replicas
from meshgw.naming.path import Path
from meshgw.naming.tree import EMPTY, FAIL, NEG
from support.processes import free_port
from transcript import DONE, OK, Mesh, asked, gauge, idle


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Mesh() as found:
        yield found


# --- framing


def test_a_request_and_its_answer_pass_with_via_and_the_route(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh)
    head = upstream.take()
    assert head.startswith(b"GET / HTTP/1.1\r\nHost: web\r\nVia: 1.1 linkerd\r\nl5d-dst-service: /svc/web\r\nl5d-dst-client: /#/web\r\n")
    upstream.send(OK)
    answer = caller.expect(DONE)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.count(b"Content-Length: 2\r\n") == 1
    assert b"\r\nVia: 1.1 linkerd\r\n" in answer
    assert caller.ending == ""


def test_one_connection_each_way_serves_many_requests(mesh: Mesh) -> None:
    caller, upstream, service = asked(mesh)
    for number in range(1, 6):
        upstream.send(OK)
        caller.expect(DONE, number)
        caller.get()
        upstream.expect(b"\r\n\r\n", number + 1)
    assert not service.has_more()
    assert mesh.counter("client/#/web/connects") == 1


def test_pipelined_answers_come_in_order(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh, b"GET /1 HTTP/1.1\r\nHost: web\r\n\r\nGET /2 HTTP/1.1\r\nHost: web\r\n\r\n")
    for number in (b"1", b"2"):
        upstream.expect(b"GET /" + number)
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + number)
        caller.expect(b"\r\n\r\n" + number)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_answers_without_body_leave_both_connections_in_use(mesh: Mesh, method: bytes, answer: bytes) -> None:
    caller, upstream, service = asked(mesh, method + b" / HTTP/1.1\r\nHost: web\r\n\r\n")
    upstream.send(answer)
    head = caller.expect(b"\r\n\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"Content-Length: ") == answer.count(b"Content-Length: ")
    caller.get()
    upstream.expect(b"\r\n\r\n", 2)
    upstream.send(OK)
    caller.expect(DONE)
    assert not service.has_more()


def test_interim_answers_pass_before_the_final_one(mesh: Mesh) -> None:
    request = b"POST / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    caller, upstream, _ = asked(mesh, request)
    assert b"\r\nExpect: 100-continue\r\n" in upstream.got
    upstream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    caller.expect(b"HTTP/1.1 100 Continue\r\n\r\n")
    caller.send(b"body")
    upstream.expect(b"body")
    upstream.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    assert b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK" in caller.expect(DONE)


def test_chunked_bodies_pass_both_ways_with_their_trailers(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh, b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"abc\r\n")
    caller.send(b"1\r\nd\r\n0\r\nX-Sum: 4\r\n\r\n")
    assert upstream.expect(b"X-Sum: 4\r\n\r\n").endswith(b"\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\nX-Sum: 4\r\n\r\n")
    upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Back: 2\r\n\r\n")
    assert caller.expect(b"X-Back: 2\r\n\r\n").endswith(b"\r\n\r\n2\r\nhi\r\n0\r\nX-Back: 2\r\n\r\n")
    assert caller.got.count(b"Transfer-Encoding: chunked") == 1


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_an_answer_that_ends_with_its_connection_is_chunked_for_http11_only(mesh: Mesh, version: bytes) -> None:
    caller, upstream, _ = asked(mesh, b"GET / HTTP/%b\r\nHost: web\r\n\r\n" % version)
    assert upstream.got.startswith(b"GET / HTTP/%b\r\n" % version)
    upstream.send(b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
    upstream.close()
    if version == b"1.1":
        assert caller.expect(b"0\r\n\r\n").endswith(b"\r\n\r\nd\r\nuntil the end\r\n0\r\n\r\n")
        assert caller.ending == ""
    else:
        assert caller.expect_end() == "eof"
        assert caller.got.endswith(b"Connection: close\r\n\r\nuntil the end")


def test_an_http10_caller_that_keeps_alive_is_kept(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh, b"GET / HTTP/1.0\r\nHost: web\r\nConnection: keep-alive\r\n\r\n")
    assert b"Via: 1.0 linkerd\r\n" in upstream.got
    upstream.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert b"\r\nConnection: keep-alive\r\n" in caller.expect(DONE)
    assert caller.ending == ""


def test_an_answer_before_the_whole_request_closes_both_connections(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000\r\n\r\nabc", b"abc")
    upstream.send(OK)
    assert b"\r\nConnection: close\r\n" in caller.expect(DONE)
    caller.send(b"more")
    assert caller.expect_end() == "eof"
    upstream.expect_end()


def test_hop_by_hop_fields_end_here_in_both_directions(mesh: Mesh) -> None:
    fields = b"Connection: x-private\r\nX-Private: 1\r\nKeep-Alive: 1\r\nTE: trailers\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\n"
    caller, upstream, _ = asked(mesh, b"GET / HTTP/1.1\r\nHost: web\r\n" + fields + b"X-Kept: 1\r\n\r\n")
    upstream.send(b"HTTP/1.1 200 OK\r\n" + fields.replace(b"TE: trailers", b"Trailer: a") + b"X-Kept: 2\r\nContent-Length: 2\r\n\r\nok")
    caller.expect(DONE)
    for text in (upstream.got, caller.got):
        assert b"X-Kept" in text
        for name in (b"x-private", b"keep-alive:", b"te:", b"trailer", b"proxy-", b"upgrade", b"connection:"):
            assert b"\r\n" + name not in text.lower()


# --- failures of the endpoint


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"220 mail.test ESMTP\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01",
    ],
)
def test_an_answer_that_is_none_becomes_502(mesh: Mesh, answer: bytes) -> None:
    caller, upstream, _ = asked(mesh)
    upstream.send(answer)
    assert caller.expect(b"sent an invalid response").startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert caller.ending == ""
    upstream.expect_end()


@pytest.mark.parametrize("part", [b"Content-Length: 9\r\n\r\npart", b"Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"])
def test_an_answer_that_breaks_off_resets_the_caller(mesh: Mesh, part: bytes) -> None:
    caller, upstream, _ = asked(mesh)
    upstream.send(b"HTTP/1.1 200 OK\r\n" + part)
    caller.expect(b"part")
    upstream.close()
    assert caller.expect_end() == "reset"


def counted(mesh: Mesh, scope: str) -> tuple[int, int, int]:
    return mesh.counter(f"{scope}/requests"), mesh.counter(f"{scope}/success"), mesh.counter(f"{scope}/failures")


def test_an_answer_that_breaks_off_is_a_failure_wherever_it_counts(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh)
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
    caller.expect(b"part")
    upstream.close()
    caller.expect_end()
    server = f"server/127.0.0.1/{mesh.port}"
    assert [counted(mesh, scope) for scope in (server, "service/svc/web", "client/#/web")] == [(1, 0, 1)] * 3
    assert mesh.counter(f"{server}/status/200") == 1


def test_an_answer_that_its_caller_leaves_is_no_failure_of_the_server(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh)
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
    caller.expect(b"part")
    caller.reset()
    upstream.expect_end()
    mesh.settle()
    assert counted(mesh, f"server/127.0.0.1/{mesh.port}") == (1, 1, 0)


def test_an_endpoint_that_closes_without_an_answer_is_told_as_502(mesh: Mesh) -> None:
    caller, upstream, service = asked(mesh)
    upstream.close()
    assert b"l5d-err: " in caller.expect(b"closed+the+connection")
    assert caller.got.startswith(b"HTTP/1.1 502 ")
    assert not service.has_more()


@pytest.mark.parametrize(("method", "resent"), [(b"GET", True), (b"POST", False)])
def test_a_request_on_a_kept_connection_that_was_closed_is_sent_again_if_idempotent(mesh: Mesh, method: bytes, resent: bool) -> None:
    caller, upstream, service = asked(mesh)
    upstream.send(OK)
    caller.expect(DONE)
    caller.take()
    caller.get(method=method)
    upstream.expect(b"\r\n\r\n", 2)
    upstream.close()
    if resent:
        again = service.accept()
        assert again.expect(b"\r\n\r\n").count(b"Via: ") == 1
        again.send(OK)
        caller.expect(DONE)
        assert mesh.counter("client/#/web/retries/requeues") == 1
    else:
        caller.expect(b"HTTP/1.1 502 ")
        assert not service.has_more()


def test_a_body_is_never_sent_again_in_part(mesh: Mesh) -> None:
    caller, upstream, service = asked(mesh)
    upstream.send(OK)
    caller.expect(DONE)
    caller.send(b"PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\n\r\nabc")
    upstream.expect(b"abc")
    upstream.close()
    mesh.settle()
    caller.send(b"def")
    mesh.settle()
    if not caller.got.count(b"HTTP/1.1 502 "):
        assert service.accept().expect(b"def").endswith(b"\r\n\r\nabcdef")


def test_a_refused_connect_tries_another_endpoint(mesh: Mesh) -> None:
    service = mesh.service()
    mesh.names.lead("web", free_port(), service.port)
    for _ in range(8):
        caller = mesh.caller().get()
        upstream = service.accept()
        upstream.expect(b"\r\n\r\n")
        upstream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        caller.expect(DONE)
    assert all(not node.load for client in mesh.router.caches.clients() for node in client.nodes.all())


def test_when_every_connect_fails_the_502_names_the_addresses(mesh: Mesh) -> None:
    ports = [free_port(), free_port()]
    mesh.names.lead("web", *ports)
    caller = mesh.caller().get()
    answer = caller.expect(b"reason: Connection refused").decode()
    assert answer.startswith("HTTP/1.1 502 ")
    assert "Unable to establish connection to 127.0.0.1:" in answer
    for text in ("service name: /svc/web", "client name: /#/web", f"addresses: [127.0.0.1:{ports[0]}, 127.0.0.1:{ports[1]}]"):
        assert text in answer
    assert "l5d-retryable" not in answer
    assert caller.ending == ""


# --- waiting


def test_a_request_waits_for_its_binding_and_its_addresses(mesh: Mesh) -> None:
    service = mesh.service()
    caller = mesh.caller().get()
    mesh.settle()
    mesh.names.tree(Path.of("svc", "web")).set(mesh.names.leaf("/#/web"))
    mesh.settle()
    assert caller.got == b""
    mesh.names.addr("/#/web").set(Replicas((Address("127.0.0.1", service.port),)))
    upstream = service.accept()
    upstream.expect(b"\r\n\r\n")
    upstream.send(OK)
    caller.expect(DONE)


def test_a_binding_that_takes_too_long_is_answered_502(mesh: Mesh) -> None:
    caller = mesh.caller().get()
    mesh.settle()
    mesh.clock.pump([0.1] * 99)
    mesh.settle()
    assert caller.got == b""
    mesh.clock.pump([0.1] * 2)
    assert caller.expect(b"resolving name: /svc/web").startswith(b"HTTP/1.1 502 ")
    mesh.names.lead("web", free_port())
    mesh.settle()
    assert caller.got.count(b"HTTP/1.1") == 1


def test_a_request_that_waited_and_was_sent_on_an_idle_connection_may_take_its_time(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh)
    upstream.send(OK)
    caller.expect(DONE)
    caller.get(host=b"alias")
    mesh.settle()
    mesh.names.tree(Path.of("svc", "alias")).set(mesh.names.leaf("/#/web"))
    upstream.expect(b"\r\n\r\n", 2)
    mesh.clock.pump([0.5] * 40)
    upstream.send(OK)
    caller.expect(DONE, 2)
    assert b" 502 " not in caller.got


def test_a_large_body_that_waited_and_was_sent_on_an_idle_connection_is_read_on(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh)
    upstream.send(OK)
    caller.expect(DONE)
    body = b"x" * 300_000
    caller.send(b"POST / HTTP/1.1\r\nHost: alias\r\nContent-Length: 300000\r\n\r\n")
    caller.offer(body[:200_000])
    mesh.settle()
    mesh.names.tree(Path.of("svc", "alias")).set(mesh.names.leaf("/#/web"))
    mesh.settle()
    caller.send(body[200_000:])
    mesh.until(lambda: upstream.got.count(b"x") >= 300_000)
    upstream.send(OK)
    caller.expect(DONE, 2)


@pytest.mark.parametrize("tree", [NEG, FAIL, EMPTY])
def test_a_name_that_leads_nowhere_is_answered_502_at_once(mesh: Mesh, tree: object) -> None:
    mesh.names.tree(Path.of("svc", "web")).set(tree)  # type: ignore[arg-type]
    answer = mesh.caller().get().expect(b"Unable to route request!")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"l5d-retryable" not in answer


@pytest.mark.parametrize("addr", [Replicas(()), ADDR_NEG])
def test_a_bound_name_without_addresses_is_answered_502_at_once(mesh: Mesh, addr: object) -> None:
    mesh.names.lead("web")
    mesh.names.addr("/#/web").set(addr)  # type: ignore[arg-type]
    assert mesh.caller().get().expect(b"it has no addresses").startswith(b"HTTP/1.1 502 ")
    assert counted(mesh, "service/svc/web") == (1, 0, 1)
    assert counted(mesh, "client/#/web") == (0, 0, 0)  # as nothing was dispatched
    assert gauge(mesh, "client/#/web/pending") == 0


# --- callers that go away


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_caller_that_goes_away_takes_its_upstream_connection_along(mesh: Mesh, how: str) -> None:
    caller, upstream, _ = asked(mesh)
    getattr(caller, how)()
    upstream.expect_end()
    mesh.settle()
    assert idle(mesh)
    assert mesh.router.connections == 0


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_caller_that_goes_away_while_it_waits_for_a_binding_is_forgotten(mesh: Mesh, how: str) -> None:
    service = mesh.service()
    caller = mesh.caller().get()
    mesh.settle()
    getattr(caller, how)()
    mesh.settle()
    assert idle(mesh)
    mesh.names.lead("web", service.port)
    assert not service.has_more()
    mesh.clock.pump([0.5] * 30)


def test_a_caller_that_goes_away_while_connecting_leaves_the_connection_to_others(mesh: Mesh) -> None:
    service = mesh.service("web")
    caller = mesh.caller().get()
    mesh.until(lambda: gauge(mesh, "pool_waiters"))
    caller.reset()
    mesh.settle()
    assert idle(mesh)
    other = mesh.caller().get(b"/other")
    upstream = service.accept()
    assert upstream.expect(b"\r\n\r\n").startswith(b"GET /other ")
    upstream.send(OK)
    other.expect(DONE)


def test_a_caller_that_goes_away_in_the_middle_of_the_answer_stops_it(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh)
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart")
    caller.expect(b"part")
    caller.reset()
    upstream.expect_end()
    mesh.settle()
    assert idle(mesh)


def test_a_request_that_becomes_invalid_on_its_way_is_answered_400(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh, b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"abc\r\n")
    caller.send(b"zz\r\n")
    caller.expect(b"HTTP/1.1 400 ")
    assert caller.expect_end() == "eof"
    upstream.expect_end()
    assert not upstream.got.endswith(b"0\r\n\r\n")
