"""The edge of the mesh through a whole router: PROXY headers on both sides, trusted forwarders, and health checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshgw.app.edge import Health, walk_for
from meshgw.app.walk import Walk
from meshgw.client.caller_pools import IDLE_SECONDS
from meshgw.telemetry.metrics import Metrics
from meshgw.wire.proxy_protocol import ProxyHeaderReader, write_header
from transcript import DONE, OK, Mesh, Service, Side, asked, gauge, idle

BEHIND = "proxyProtocol: {trusted: [127.0.0.1]}"
TO_SERVICES = "client: {proxyProtocol: v2}"
CALLER, SEEN_AS = ("192.0.2.7", 56324), ("198.51.100.9", 80)


def proxied(mesh: Mesh, version: int = 2, source: tuple[str, int] | None = CALLER) -> Side:
    """A caller's connection through a load balancer."""
    return mesh.caller().send(write_header(version, source, SEEN_AS if source is not None else None))


def address(side: Side) -> tuple[str, int]:
    name = side.sock.getsockname()
    return (name[0], name[1])


def fields(upstream: Side) -> dict[bytes, bytes]:
    """The fields of the last request that a service got, those of PROXY headers left out."""
    head = upstream.got[upstream.got.rindex(b"GET ") :].split(b"\r\n\r\n")[0]
    return {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])}


# --- from load balancers


@pytest.mark.parametrize("version", [1, 2])
def test_the_caller_behind_a_load_balancer_is_told_on(version: int) -> None:
    with Mesh(server=f"{BEHIND}\nxForwardedHeaders: append\naddForwardedHeader: {{for: {{kind: 'ip:port'}}, by: {{kind: ip}}}}") as mesh:
        service = mesh.service("web")
        proxied(mesh, version).get()
        upstream = service.accept()
        upstream.expect(b"\r\n\r\n")
        assert fields(upstream)[b"x-forwarded-for"] == b"192.0.2.7"
        assert fields(upstream)[b"forwarded"] == b'by=198.51.100.9;for="192.0.2.7:56324";host=web'
        assert mesh.counter(f"server/127.0.0.1/{mesh.port}/proxy_protocol/headers") == 1


def test_the_access_log_shows_the_caller_behind_a_load_balancer(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with Mesh(router=f"httpAccessLog: {log}", server=BEHIND) as mesh:
        service = mesh.service("web")
        caller = proxied(mesh).get()
        service.accept().send(OK)
        caller.expect(DONE)
    assert log.read_text().startswith("web 192.0.2.7 - - ")


def test_a_trusted_address_without_header_gets_nothing() -> None:
    with Mesh(server=BEHIND) as mesh:
        caller = mesh.caller().get()
        caller.expect_end()
        assert caller.got == b""
        assert mesh.counter(f"server/127.0.0.1/{mesh.port}/proxy_protocol/failures/missing") == 1
        assert mesh.router.connections == 0


def test_the_header_of_an_untrusted_address_is_a_bad_request() -> None:
    with Mesh(server="proxyProtocol: {trusted: [192.0.2.0/24]}") as mesh:
        assert b" 400 " in proxied(mesh, 1).get().expect(b"\r\n\r\n")


def test_connections_that_wait_for_their_header_end_with_a_drain() -> None:
    with Mesh(server=BEHIND) as mesh:
        waiting = mesh.caller()
        mesh.until(lambda: mesh.router.connections == 1)
        mesh.router.stop_accepting()
        waiting.expect_end()
        assert mesh.router.connections == 0


def test_a_header_that_does_not_come_ends_the_connection_after_the_configured_time() -> None:
    with Mesh(server="proxyProtocol: {trusted: [127.0.0.1], timeoutMs: 700}") as mesh:
        waiting = mesh.caller()
        mesh.until(lambda: mesh.router.connections == 1)
        mesh.clock.advance(0.6)
        mesh.settle()
        assert mesh.router.connections == 1
        mesh.clock.advance(0.2)
        waiting.expect_end()


# --- to services


def header_of(upstream: Side) -> tuple[tuple[str, int] | None, bytes]:
    """Who a service is told is calling, and what follows."""
    reader = ProxyHeaderReader()
    header = reader.feed(upstream.expect(b"\r\n\r\n"))
    if header is None:
        header = reader.feed(upstream.expect(b"GET "))
    assert header is not None
    return header.source, reader.rest


@pytest.mark.parametrize("version", [1, 2])
def test_a_service_is_told_the_caller_before_its_request(version: int) -> None:
    with Mesh(router=f"client: {{proxyProtocol: v{version}}}") as mesh:
        service = mesh.service("web")
        caller = mesh.caller().get()
        upstream = service.accept()
        upstream.expect(b"GET / HTTP/1.1\r\n")
        reader = ProxyHeaderReader()
        header = reader.feed(upstream.got)
        assert header is not None
        assert (header.version, header.source) == (version, address(caller))
        assert header.destination == ("127.0.0.1", mesh.port)
        assert reader.rest.startswith(b"GET / HTTP/1.1\r\n")


def test_a_caller_behind_a_load_balancer_is_told_through() -> None:
    with Mesh(router=TO_SERVICES, server=BEHIND) as mesh:
        service = mesh.service("web")
        proxied(mesh).get()
        assert service.accept().expect(b"GET / ").startswith(write_header(2, CALLER, SEEN_AS))


def test_a_caller_s_next_request_goes_over_its_own_connection_without_another_header() -> None:
    with Mesh(router=TO_SERVICES) as mesh:
        caller, upstream, service = asked(mesh, mark=b"GET / ")
        for times in (1, 2, 3):
            upstream.expect(b"GET / ", times)
            upstream.send(OK)
            caller.expect(DONE, times)
            if times < 3:
                caller.get()
        assert upstream.got.count(b"QUIT") == 1
        assert not service.has_more()


def test_another_caller_never_gets_a_connection_that_names_somebody_else() -> None:
    with Mesh(router=TO_SERVICES) as mesh:
        first, upstream, service = asked(mesh, mark=b"GET / ")
        upstream.send(OK)
        first.expect(DONE)
        assert gauge(mesh, "pool_cached") == 1
        second = mesh.caller().get()
        other = service.accept()
        other.expect(b"GET / ")
        assert header_of(other)[0] == address(second)
        assert upstream.got.count(b"GET / ") == 1


def test_connections_of_vanished_callers_close_soon_and_leave_nothing() -> None:
    with Mesh(router=TO_SERVICES) as mesh:
        caller, upstream, _ = asked(mesh, mark=b"GET / ")
        upstream.send(OK)
        caller.expect(DONE)
        caller.close()
        mesh.settle()
        assert gauge(mesh, "pool_cached") == 1
        mesh.clock.advance(IDLE_SECONDS * 2 + 0.1)
        assert upstream.expect_end() == "eof"
        assert gauge(mesh, "pool_size") == 0
        (client,) = mesh.router.caches.clients()
        assert client.nodes.all()[0].endpoint.pool.callers == 0  # type: ignore[union-attr]  # it is the pools per caller


def one_connection(mesh: Mesh) -> tuple[Side, Side, Service]:
    """A caller that has been answered over the only connection there may be."""
    caller, upstream, service = asked(mesh, mark=b"GET / ")
    upstream.send(OK)
    caller.expect(DONE)
    return caller, upstream, service


LIMITED = "client: {proxyProtocol: v1, hostConnectionPool: {maxSize: 1, maxWaiters: 1}}"


def test_an_idle_connection_makes_room_for_another_caller_s() -> None:
    with Mesh(router=LIMITED) as mesh:
        _, upstream, service = one_connection(mesh)
        second = mesh.caller().get()
        other = service.accept()
        assert upstream.expect_end() == "eof"
        other.expect(b"GET / ")
        other.send(OK)
        second.expect(DONE)
        assert gauge(mesh, "pool_size") == 1


def test_a_caller_waits_for_room_and_gets_a_connection_of_its_own() -> None:
    with Mesh(router=LIMITED) as mesh:
        first, upstream, service = asked(mesh, mark=b"GET / ")
        second = mesh.caller().get()
        mesh.settle()
        assert gauge(mesh, "pool_waiters") == 1
        upstream.send(OK)
        first.expect(DONE)
        other = service.accept()
        other.expect(b"GET / ")
        assert other.got.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (address(second)[1], mesh.port))
        other.send(OK)
        second.expect(DONE)
        assert idle(mesh)


def test_a_full_pool_with_a_full_queue_refuses() -> None:
    with Mesh(router=LIMITED) as mesh:
        asked(mesh, mark=b"GET / ")
        mesh.caller().get()
        mesh.settle()
        assert b" 50" in mesh.caller().get().expect(b"\r\n\r\n")
        assert gauge(mesh, "pool_size") == 1


def test_a_caller_that_leaves_while_it_waits_is_forgotten() -> None:
    with Mesh(router=LIMITED) as mesh:
        first, upstream, service = asked(mesh, mark=b"GET / ")
        second = mesh.caller().get()
        mesh.settle()
        second.close()
        mesh.settle()
        assert gauge(mesh, "pool_waiters") == 0
        upstream.send(OK)
        first.expect(DONE)
        assert not service.has_more()
        assert idle(mesh)


def test_a_refused_connect_lets_the_next_caller_try() -> None:
    with Mesh(router=LIMITED) as mesh:
        service = mesh.service("web")
        service.close()
        assert b" 502 " in mesh.caller().get().expect(b"\r\n\r\n")
        assert b" 502 " in mesh.caller().get().expect(b"\r\n\r\n")
        (client,) = mesh.router.caches.clients()
        assert client.nodes.all()[0].endpoint.pool.callers == 0  # type: ignore[union-attr]  # it is the pools per caller
        assert idle(mesh)


def test_an_address_that_goes_closes_what_is_idle_and_lets_the_rest_finish() -> None:
    with Mesh(router=TO_SERVICES) as mesh:
        _, resting, service = one_connection(mesh)
        busy = mesh.caller().get()
        other = service.accept()
        other.expect(b"GET / ")
        mesh.service("web")
        assert resting.expect_end() == "eof"
        other.send(OK)
        busy.expect(DONE)
        assert other.expect_end() == "eof"


def test_without_the_option_nothing_stands_before_a_request() -> None:
    with Mesh(router="client: {proxyProtocol: none}") as mesh:
        _, upstream, _ = asked(mesh)
        assert upstream.got.startswith(b"GET / HTTP/1.1\r\n")


# --- trusted forwarders


TOLD = b"X-Forwarded-For: 203.0.113.5, 192.0.2.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\nForwarded: for=203.0.113.5\r\n"


def forwarded(mode: str, source: str) -> dict[bytes, bytes]:
    """What a service is told by a proxy at ``source`` when 192.0.2.0/24 is trusted."""
    with Mesh(server=f"{BEHIND}\nxForwardedHeaders: {mode}\ntrustedForwarders: [192.0.2.0/24]") as mesh:
        service = mesh.service("web")
        proxied(mesh, source=(source, 1)).get(fields=TOLD)
        upstream = service.accept()
        upstream.expect(b"\r\n\r\n")
        return {name: value for name, value in fields(upstream).items() if b"forwarded" in name}


def test_a_trusted_proxy_s_fields_pass() -> None:
    found = forwarded("pass", "192.0.2.1")
    assert found[b"x-forwarded-for"] == b"203.0.113.5, 192.0.2.9"
    assert found[b"x-forwarded-port"] == b"443"
    assert found[b"forwarded"] == b"for=203.0.113.5"


def test_the_fields_of_others_do_not_pass() -> None:
    assert forwarded("pass", "198.51.100.1") == {}


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_trusted_proxy_s_fields_are_appended_to(mode: str) -> None:
    found = forwarded(mode, "192.0.2.1")
    assert found[b"x-forwarded-for"] == b"203.0.113.5, 192.0.2.9, 192.0.2.1"
    assert found[b"x-forwarded-proto"] == b"https"
    assert found[b"x-forwarded-host"] == b"web"
    assert found[b"forwarded"] == b"for=203.0.113.5"


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_the_fields_of_others_are_replaced(mode: str) -> None:
    expected = {b"x-forwarded-for": b"198.51.100.1", b"x-forwarded-proto": b"http", b"x-forwarded-host": b"web"}
    assert forwarded(mode, "198.51.100.1") == expected


@pytest.mark.parametrize(
    ("source", "told", "shown"),
    [
        ("192.0.2.1", b"X-Forwarded-For: 1.2.3.4, 203.0.113.5, 192.0.2.9\r\n", "203.0.113.5"),
        ("198.51.100.1", b"X-Forwarded-For: 203.0.113.5\r\n", "198.51.100.1"),
        ("192.0.2.1", b"", "192.0.2.1"),
    ],
)
def test_the_access_log_shows_the_caller_that_trusted_proxies_tell(tmp_path: Path, source: str, told: bytes, shown: str) -> None:
    log = tmp_path / "access.log"
    server = f"{BEHIND}\nxForwardedHeaders: append\ntrustedForwarders: [192.0.2.0/24]"
    with Mesh(router=f"httpAccessLog: {log}", server=server) as mesh:
        service = mesh.service("web")
        caller = proxied(mesh, source=(source, 1)).get(fields=told)
        service.accept().send(OK)
        caller.expect(DONE)
    assert log.read_text().startswith(f"web {shown} - - ")


# --- health checks


HEALTH = "healthPath: /healthz"


def test_the_listener_answers_health_checks_itself_and_counts_them_apart(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with Mesh(router=f"httpAccessLog: {log}", server=HEALTH) as mesh:
        caller = mesh.caller().get(b"/healthz").get(b"/healthz?from=lb", b"any.name")
        assert caller.expect(b"\r\n\r\nok\n", 2).startswith(b"HTTP/1.1 200 OK\r\n")
        caller.take()
        assert b" 200 " in caller.get(b"/healthz", method=b"OPTIONS").expect(b"ok\n")
        caller.take()
        head = caller.get(b"/healthz", method=b"HEAD").expect(b"\r\n\r\n")
        assert b"Content-Length: 3\r\n" in head and head.endswith(b"\r\n\r\n")
        server = f"server/127.0.0.1/{mesh.port}"
        assert mesh.counter(f"{server}/health_checks") == 4
        assert mesh.counter(f"{server}/requests") == 0
        assert mesh.names.bound == []
    assert log.read_text() == ""


def test_other_methods_and_other_paths_are_no_health_checks() -> None:
    with Mesh(server=HEALTH) as mesh:
        assert b" 405 " in mesh.caller().get(b"/healthz", method=b"DELETE").expect(b"\r\n\r\n")
        _, upstream, _ = asked(mesh, b"GET /healthz2 HTTP/1.1\r\nHost: web\r\n\r\n")
        assert upstream.got.startswith(b"GET /healthz2 ")


def test_a_health_check_with_a_body_is_answered_and_its_connection_closed() -> None:
    with Mesh(server=HEALTH) as mesh:
        caller = mesh.caller().get(b"/healthz", fields=b"Content-Length: 5\r\n")
        assert b"Connection: close\r\n" in caller.expect(b"ok\n")
        caller.expect_end()


def test_a_connection_kept_for_health_checks_hears_of_the_drain() -> None:
    with Mesh(server=HEALTH) as mesh:
        caller = mesh.caller().get(b"/healthz")
        caller.expect(b"ok\n")
        caller.send(b"GET /healthz HTTP/1.1\r\n")
        mesh.settle()
        mesh.router.stop_accepting()
        caller.take()
        caller.send(b"Host: web\r\n\r\n")
        assert caller.expect(b"draining\n").startswith(b"HTTP/1.1 503 ")


def test_a_process_that_leaves_its_sockets_to_others_stays_healthy() -> None:
    with Mesh(server=HEALTH) as mesh:
        caller = mesh.caller().get(b"/healthz")
        caller.expect(b"ok\n")
        mesh.router.stop_accepting(close_idle=False)
        caller.take()
        answer = caller.get(b"/healthz").expect(b"ok\n")
        assert answer.startswith(b"HTTP/1.1 200 ") and b"Connection: close\r\n" in answer


def test_without_the_option_the_walk_is_the_plain_one() -> None:
    assert walk_for(None, Health(), Metrics()) is Walk
