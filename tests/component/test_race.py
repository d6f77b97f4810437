"""Names with addresses of both families: a connect that hangs is raced by one of the other family, and lost races count."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from meshgw.app import race
from meshgw.core.address import Address, Replicas
from meshgw.naming.path import Path
from transcript import OK, Mesh, Service, Side, gauge, idle

NO_OTHER = "client: {failureAccrual: {kind: none}}"


class BlackHole:
    """An IPv6 address that answers no connect: a listener whose queue is full, so that the system drops what comes."""

    def __init__(self) -> None:
        self.listener = socket.socket(socket.AF_INET6)
        self.listener.bind(("::1", 0))
        self.listener.listen(0)
        self.port: int = self.listener.getsockname()[1]
        self._filling: list[socket.socket] = []
        for _ in range(4):
            sock = socket.socket(socket.AF_INET6)
            sock.setblocking(False)
            sock.connect_ex(("::1", self.port))
            self._filling.append(sock)

    def close(self) -> None:
        for sock in self._filling:
            sock.close()
        self.listener.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")


@pytest.fixture
def hole() -> Iterator[BlackHole]:
    found = BlackHole()
    yield found
    found.close()


def lead(mesh: Mesh, hole: BlackHole | None, *ports: int, name: str = "web") -> None:
    """``/svc/<name>`` has the black hole and these ports of IPv4 loopback, the hole to be picked by its weight."""
    addresses = [Address("127.0.0.1", port, weight=0.0) for port in ports]
    if hole is not None:
        addresses.append(Address("::1", hole.port, weight=1.0))
    mesh.names.addr(f"/#/{name}").set(Replicas(tuple(addresses)))
    mesh.names.tree(Path.of("svc", name)).set(mesh.names.leaf(f"/#/{name}"))


def waiting(mesh: Mesh) -> bool:
    return gauge(mesh, "pool_waiters") == 1.0


def asked_at_the_hole(mesh: Mesh, hole: BlackHole, service: Service) -> Side:
    """A caller whose request waits for a connection to the hole."""
    lead(mesh, hole, service.port)
    caller = mesh.caller().get()
    mesh.until(lambda: waiting(mesh))
    return caller


def test_the_other_family_serves_when_a_connect_takes_longer_than_the_delay(hole: BlackHole) -> None:
    with Mesh(NO_OTHER) as mesh:
        service = mesh.service()
        caller = asked_at_the_hole(mesh, hole, service)
        mesh.clock.advance(race.ATTEMPT_DELAY + 0.05)
        service.accept().send(OK)
        caller.expect(b"\r\n\r\nok")
        assert idle(mesh)


def test_before_the_delay_only_one_address_is_tried(hole: BlackHole) -> None:
    with Mesh(NO_OTHER) as mesh:
        service = mesh.service()
        asked_at_the_hole(mesh, hole, service)
        mesh.clock.advance(race.ATTEMPT_DELAY - 0.05)
        assert not service.has_more()


def test_a_lost_race_is_no_requeue_and_takes_nothing_from_the_budget(hole: BlackHole) -> None:
    with Mesh(NO_OTHER) as mesh:
        service = mesh.service()
        caller = asked_at_the_hole(mesh, hole, service)
        mesh.clock.advance(race.ATTEMPT_DELAY + 0.05)
        service.accept().send(OK)
        caller.expect(b"\r\n\r\nok")
        assert mesh.counter("client/#/web/retries/requeues") == 0
        assert mesh.counter("client/#/web/requests") == 1


def test_a_connect_that_fails_after_its_race_counts_against_its_address(hole: BlackHole) -> None:
    with Mesh("client: {failureAccrual: {kind: io.l5d.consecutiveFailures, failures: 1}}") as mesh:
        service = mesh.service()
        caller = asked_at_the_hole(mesh, hole, service)
        mesh.clock.advance(race.ATTEMPT_DELAY + 0.05)
        upstream = service.accept().send(OK)
        caller.expect(b"\r\n\r\nok")
        mesh.clock.advance(1.0)
        mesh.settle()
        assert mesh.counter("client/#/web/service_creation/overtaken") == 1
        assert mesh.counter("client/#/web/failure_accrual/removals") == 1
        mesh.names.addr("/#/web").set(Replicas((Address("127.0.0.1", service.port), Address("::1", hole.port))))
        for count in range(2, 8):
            caller.take()
            caller.get()
            upstream.expect(b"\r\n\r\n", count)
            upstream.send(OK)
            caller.expect(b"\r\n\r\nok")


def test_whoever_connects_second_is_kept_for_the_next_request() -> None:
    with Mesh(NO_OTHER) as mesh:
        service, slow = mesh.service(), six(mesh)
        mesh.names.addr("/#/web").set(Replicas((Address("::1", slow.port, weight=1.0), Address("127.0.0.1", service.port, weight=0.0))))
        mesh.names.tree(Path.of("svc", "web")).set(mesh.names.leaf("/#/web"))
        caller = mesh.caller().get()
        mesh.until(lambda: waiting(mesh))
        mesh.clock.advance(race.ATTEMPT_DELAY + 0.05)  # both are under way now, and nothing of either was looked at
        mesh.until(lambda: gauge(mesh, "pool_cached") == 1.0)
        upstream = first_with_a_request(mesh, service, slow)
        upstream.send(OK)
        caller.expect(b"\r\n\r\nok")
        assert gauge(mesh, "pool_cached") == 2.0
        assert idle(mesh)


def test_names_of_one_family_have_no_races(hole: BlackHole) -> None:
    with Mesh(NO_OTHER) as mesh:
        other = six(mesh)
        mesh.names.addr("/#/web").set(Replicas((Address("::1", hole.port, weight=1.0), Address("::1", other.port, weight=0.0))))
        mesh.names.tree(Path.of("svc", "web")).set(mesh.names.leaf("/#/web"))
        mesh.caller().get()
        mesh.until(lambda: waiting(mesh))
        mesh.clock.advance(race.ATTEMPT_DELAY + 0.05)
        assert not other.has_more()


def test_an_address_that_is_avoided_does_not_race(hole: BlackHole) -> None:
    with Mesh("client: {failFast: true}") as mesh:
        dead = mesh.service()
        dead.close()
        asked_at_the_hole(mesh, hole, dead)
        mesh.clock.advance(race.ATTEMPT_DELAY + 0.05)
        mesh.settle()
        mesh.caller().get()
        mesh.settle()
        mesh.clock.advance(race.ATTEMPT_DELAY + 0.05)
        mesh.settle()
        assert mesh.counter("client/#/web/service_creation/failures") == 1


def test_a_caller_that_goes_meanwhile_leaves_an_idle_connection(hole: BlackHole) -> None:
    with Mesh(NO_OTHER) as mesh:
        service = mesh.service()
        caller = asked_at_the_hole(mesh, hole, service)
        mesh.clock.advance(race.ATTEMPT_DELAY + 0.05)
        caller.reset()
        mesh.until(lambda: gauge(mesh, "pool_cached") == 1.0)
        assert idle(mesh)


def test_an_idle_connection_of_the_other_family_is_used_at_once(hole: BlackHole) -> None:
    with Mesh(NO_OTHER) as mesh:
        service = mesh.service()
        lead(mesh, None, service.port)
        first = mesh.caller().get()
        upstream = service.accept().send(OK)
        first.expect(b"\r\n\r\nok")
        caller = asked_at_the_hole(mesh, hole, service)
        mesh.clock.advance(race.ATTEMPT_DELAY + 0.05)
        upstream.expect(b"\r\n\r\n", 2)
        upstream.send(OK)
        caller.expect(b"\r\n\r\nok")
        assert not service.has_more()


def test_a_tunnel_is_raced_too(hole: BlackHole) -> None:
    with Mesh(NO_OTHER, 'connect: {allow: ["web.test:443"]}') as mesh:
        service = mesh.service()
        lead(mesh, hole, service.port, name="web.test:443")
        caller = mesh.caller().send(b"CONNECT web.test:443 HTTP/1.1\r\nHost: web.test:443\r\n\r\nhello")
        mesh.settle()
        assert caller.got == b""
        mesh.clock.advance(race.ATTEMPT_DELAY + 0.05)
        upstream = service.accept()
        caller.expect(b"200 Connection established")
        upstream.expect(b"hello")


def six(mesh: Mesh) -> Service:
    """A service on IPv6 loopback."""
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    listener.setblocking(False)
    held: Any = mesh
    held._listeners.append(listener)
    return Service(mesh, listener)


def first_with_a_request(mesh: Mesh, *services: Service) -> Side:
    """The connection, of one to each service, that the request came on."""
    sides = [service.accept() for service in services]
    mesh.until(lambda: any(side.got.endswith(b"\r\n\r\n") for side in sides))
    return next(side for side in sides if side.got)
