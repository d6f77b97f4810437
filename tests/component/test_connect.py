"""CONNECT through a whole router: who gets a tunnel, what passes through it, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshgw.naming.dtab import Dtab
from transcript import Mesh, Service, Side, asked, idle

ALLOW = 'connect: {allow: ["*.example.com:443", "192.0.2.1:443"]}'
NAME = "www.example.com:443"
CONNECT = b"CONNECT www.example.com:443 HTTP/1.1\r\nHost: www.example.com:443\r\n"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n"


def tunnel(mesh: Mesh, more: bytes = b"") -> tuple[Side, Side, Service]:
    """A caller with a tunnel to a service."""
    service = mesh.service(NAME)
    caller = mesh.caller().send(CONNECT + b"\r\n" + more)
    upstream = service.accept()
    caller.expect(b"\r\n\r\n")
    return caller, upstream, service


def end(mesh: Mesh, caller: Side, upstream: Side) -> None:
    """Both sides close, the caller first."""
    caller.close()
    upstream.expect_end()
    upstream.close()
    mesh.until(lambda: not mesh.router.connections)


def open_tunnels(mesh: Mesh) -> float:
    """The gauge of the listener."""
    return next(value for names, value in mesh.snapshot().gauges.items() if names[-2:] == ("tunnels", "open"))


def passes(mesh: Mesh, seconds: float) -> None:
    """Let time pass in small steps, as checks come one after the other."""
    mesh.clock.pump([0.5] * round(seconds / 0.5))


def refused(mesh: Mesh, request: bytes) -> bytes:
    """The whole answer to a request whose connection is closed then."""
    caller = mesh.caller().send(request)
    caller.expect_end()
    return caller.got


def test_bytes_pass_both_ways_and_none_of_them_is_http() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, upstream, _ = tunnel(mesh)
        assert caller.take().startswith(ESTABLISHED)
        caller.send(b"GET / HTTP/1.1\r\n\r\n")
        assert upstream.expect(b"\r\n\r\n") == b"GET / HTTP/1.1\r\n\r\n"
        upstream.send(b"\x00\x01 anything")
        assert caller.expect(b"anything") == b"\x00\x01 anything"


def test_the_answer_has_neither_a_length_nor_an_upgrade() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, _, _ = tunnel(mesh)
        head = caller.got.lower()
        assert b"content-length" not in head
        assert b"transfer-encoding" not in head
        assert b"upgrade" not in head
        assert b"connection: close" not in head


def test_bytes_sent_with_the_request_reach_the_other_side_once_the_tunnel_is_there() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, upstream, _ = tunnel(mesh, b"GET /secret HTTP/1.1\r\nHost: web\r\n\r\n")
        upstream.expect(b"\r\n\r\n")
        assert upstream.got == b"GET /secret HTTP/1.1\r\nHost: web\r\n\r\n"
        assert caller.got.count(b"HTTP/1.1") == 1


def test_bytes_after_a_refused_request_are_not_read_as_another_one() -> None:
    with Mesh(server=ALLOW) as mesh:
        web = mesh.service("web")
        caller = mesh.caller().send(b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n")
        caller.send(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        caller.expect_end()
        assert caller.got.startswith(b"HTTP/1.1 403 ")
        assert caller.got.count(b"HTTP/1.1") == 1
        assert not web.has_more()


def test_what_is_not_listed_is_refused_with_the_name_of_the_option() -> None:
    with Mesh(server=ALLOW) as mesh:
        answer = refused(mesh, b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"l5d-err: " in answer
        assert b"servers[].connect.allow" in answer
        assert b"Connection: close" in answer
        assert mesh.counter(f"server/127.0.0.1/{mesh.port}/tunnels/refused") == 1


def test_an_address_is_not_allowed_by_patterns_of_names() -> None:
    with Mesh(server='connect: {allow: ["*:443"]}') as mesh:
        assert refused(mesh, b"CONNECT 127.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 403 ")
        assert refused(mesh, b"CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 403 ")


def test_without_the_option_the_method_is_not_supported() -> None:
    with Mesh() as mesh:
        answer = refused(mesh, CONNECT + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert b"servers[].connect" in answer


@pytest.mark.parametrize(
    "request_",
    [
        CONNECT + b"Content-Length: 3\r\n\r\nabc",
        CONNECT + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT www.example.com HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        b"CONNECT http://www.example.com:443/ HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
        b"CONNECT /a HTTP/1.1\r\nHost: www.example.com:443\r\n\r\n",
        b"CONNECT 127.1:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT www.example.com:443@evil:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_a_malformed_request_is_answered_400(request_: bytes) -> None:
    with Mesh(server=ALLOW) as mesh:
        assert refused(mesh, request_).startswith(b"HTTP/1.1 400 ")


def test_the_host_field_does_not_decide() -> None:
    with Mesh(server=ALLOW) as mesh:
        assert refused(mesh, b"CONNECT evil.example:443 HTTP/1.1\r\nHost: www.example.com:443\r\n\r\n").startswith(b"HTTP/1.1 403 ")


def test_a_caller_cannot_lead_a_tunnel_elsewhere_by_a_dtab() -> None:
    with Mesh(server=ALLOW) as mesh:
        service = mesh.service(NAME)
        mesh.caller().send(CONNECT + b"l5d-dtab: /svc => /$/inet/127.0.0.1/22\r\n\r\n")
        service.accept()
        assert [dtab for dtab, _ in mesh.names.bound] == [Dtab.EMPTY]


def test_a_destination_without_an_endpoint_is_answered_502() -> None:
    with Mesh(server=ALLOW) as mesh:
        mesh.service(NAME).close()
        assert refused(mesh, CONNECT + b"\r\n").startswith(b"HTTP/1.1 502 ")
        assert idle(mesh)


def test_other_requests_of_the_listener_are_served_as_ever() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        caller.expect(b"ok")


def test_a_half_close_is_passed_on_and_the_other_way_stays_open() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, upstream, _ = tunnel(mesh)
        caller.take()
        caller.send(b"last words").end()
        assert upstream.expect_end() == "eof"
        assert upstream.got == b"last words"
        upstream.send(b"the answer")
        caller.expect(b"the answer")
        upstream.close()
        assert caller.expect_end() == "eof"
        assert idle(mesh)


def test_a_reset_is_passed_on() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, upstream, _ = tunnel(mesh)
        upstream.reset()
        assert caller.expect_end() == "reset"
        assert idle(mesh)


def test_a_caller_that_takes_nothing_holds_the_other_side_back() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, upstream, _ = tunnel(mesh)
        caller.is_reading = False
        size = 64 << 20
        assert upstream.offer(b"x" * size) < size


def test_a_service_that_takes_nothing_holds_the_caller_back() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, upstream, _ = tunnel(mesh)
        upstream.is_reading = False
        size = 64 << 20
        assert caller.offer(b"x" * size) < size


def test_a_silent_tunnel_is_closed_after_its_limit_and_counted() -> None:
    with Mesh(server=f"{ALLOW}\ntunnelIdleMs: 8000") as mesh:
        caller, upstream, _ = tunnel(mesh)
        passes(mesh, 7.0)
        caller.send(b"x")
        upstream.expect(b"x")
        passes(mesh, 7.0)
        mesh.settle()
        assert not caller.ending
        passes(mesh, 6.0)
        caller.expect_end()
        upstream.expect_end()
        assert mesh.counter(f"server/127.0.0.1/{mesh.port}/tunnels/idle") == 1
        assert idle(mesh)


def test_a_tunnel_whose_one_side_never_ends_is_closed_after_its_limit() -> None:
    with Mesh(server=f"{ALLOW}\ntunnelIdleMs: 8000") as mesh:
        caller, upstream, _ = tunnel(mesh)
        caller.end()
        upstream.expect_end()
        passes(mesh, 14.0)
        caller.expect_end()
        assert idle(mesh)


def test_a_silent_upgrade_is_closed_after_the_same_limit() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    with Mesh(server="tunnelIdleMs: 8000") as mesh:
        caller, upstream, _ = asked(mesh, upgrade)
        upstream.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        caller.expect(b"\r\n\r\n")
        passes(mesh, 14.0)
        caller.expect_end()
        assert idle(mesh)


def test_bytes_and_tunnels_are_counted() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, upstream, _ = tunnel(mesh, b"abc")
        caller.send(b"de")
        upstream.expect(b"abcde")
        upstream.send(b"1234567")
        caller.expect(b"1234567")
        scope = f"server/127.0.0.1/{mesh.port}/tunnels"
        assert open_tunnels(mesh) == 1
        end(mesh, caller, upstream)
        figures = [mesh.counter(f"{scope}/{name}") for name in ("opened", "received_bytes", "sent_bytes")]
        assert figures == [1, 5, 7]
        assert open_tunnels(mesh) == 0


def test_a_tunnel_is_a_request_of_its_server_service_and_client() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, upstream, _ = tunnel(mesh)
        end(mesh, caller, upstream)
        assert mesh.counter(f"server/127.0.0.1/{mesh.port}/status/200") == 1
        assert mesh.counter(f"service/svc/{NAME}/success") == 1


def test_the_access_log_has_a_line_with_the_bytes_sent_once_the_tunnel_ended(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with Mesh(f"httpAccessLog: {log}", ALLOW) as mesh:
        caller, upstream, _ = tunnel(mesh)
        upstream.send(b"1234567")
        caller.expect(b"1234567")
        assert log.read_text() == ""
        end(mesh, caller, upstream)
    assert '"CONNECT www.example.com:443 HTTP/1.1" 200 7 ' in log.read_text()


def test_a_tunnel_may_end_by_itself_while_the_gateway_drains() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, upstream, _ = tunnel(mesh)
        mesh.router.stop_accepting()
        mesh.settle()
        caller.take()
        upstream.send(b"more")
        caller.expect(b"more")
        assert mesh.router.connections == 1
        upstream.close()
        caller.end()
        mesh.until(lambda: not mesh.router.connections)


def test_the_end_of_the_grace_period_ends_tunnels() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller, upstream, _ = tunnel(mesh)
        mesh.router.stop_accepting()
        mesh.router.abort()
        assert caller.expect_end() == "reset"
        upstream.expect_end()
        assert idle(mesh)


def test_a_caller_that_goes_while_the_connection_is_made_leaves_nothing_behind() -> None:
    with Mesh(server=ALLOW) as mesh:
        caller = mesh.caller().send(CONNECT + b"\r\n")
        mesh.settle()
        caller.reset()
        mesh.settle()
        assert idle(mesh)


PROXY = "client: {tunnels: connect}"


def test_an_endpoint_that_is_a_proxy_is_asked_by_connect() -> None:
    with Mesh(PROXY, ALLOW) as mesh:
        service = mesh.service(NAME)
        caller = mesh.caller().send(CONNECT + b"Proxy-Authorization: Basic x\r\n\r\nearly")
        proxy = service.accept()
        assert proxy.expect(b"\r\n\r\n") == b"CONNECT www.example.com:443 HTTP/1.1\r\nHost: www.example.com:443\r\n\r\n"
        proxy.send(b"HTTP/1.1 200 OK\r\nX-Proxy: secret\r\n\r\nhello")
        caller.expect(b"hello")
        assert caller.got.startswith(ESTABLISHED)
        assert b"X-Proxy" not in caller.got
        assert proxy.expect(b"early").endswith(b"early")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 101 X\r\n\r\n", b"nonsense\r\n\r\n"])
def test_a_proxy_that_refuses_is_told_of_in_a_502(answer: bytes) -> None:
    with Mesh(PROXY, ALLOW) as mesh:
        service = mesh.service(NAME)
        caller = mesh.caller().send(CONNECT + b"\r\n")
        service.accept().send(answer)
        caller.expect_end()
        assert caller.got.startswith(b"HTTP/1.1 502 ")
        assert idle(mesh)


def test_the_answer_of_a_proxy_is_limited() -> None:
    with Mesh(PROXY, ALLOW) as mesh:
        service = mesh.service(NAME)
        caller = mesh.caller().send(CONNECT + b"\r\n")
        service.accept().send(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 4000)
        caller.expect_end()
        assert b"maxHeadersKB" in caller.got
