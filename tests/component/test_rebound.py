"""Names that are bound anew while requests wait for addresses, and addresses that tell by which Host their services want to be called."""

from __future__ import annotations

from meshgw.core.address import ADDR_NEG, Address, Replicas
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Union, Weighted
from transcript import OK, Mesh, Service, Side, gauge, idle

WEB = Path.of("svc", "web")


def at(service: Service, authority: str | None = None) -> Replicas:
    """The addresses of a service, and the Host that it wants."""
    return Replicas((Address("127.0.0.1", service.port),), {} if authority is None else {"authority": authority})


def waiting_for_addresses(mesh: Mesh) -> Side:
    """A caller whose name is bound to a client without addresses yet."""
    mesh.names.tree(WEB).set(mesh.names.leaf("/#/old"))
    caller = mesh.caller().get()
    mesh.until(lambda: any(client.waiters for client in mesh.router.caches.clients()))
    return caller


def answered(caller: Side, service: Service) -> bytes:
    """Answer the request that came to the service; its head."""
    upstream = service.accept()
    head = upstream.expect(b"\r\n\r\n")
    upstream.send(OK)
    caller.expect(b"\r\n\r\nok")
    return head


def test_a_request_that_waits_for_addresses_follows_its_name() -> None:
    with Mesh() as mesh:
        caller, service = waiting_for_addresses(mesh), mesh.service()
        mesh.names.addr("/#/new").set(at(service))
        mesh.names.tree(WEB).set(mesh.names.leaf("/#/new"))
        head = answered(caller, service)
        assert head.count(b"l5d-dst-client: /#/new") == 1
        assert b"/#/old" not in head
        assert idle(mesh)


def test_it_is_counted_where_it_was_served() -> None:
    with Mesh() as mesh:
        caller, service = waiting_for_addresses(mesh), mesh.service()
        mesh.names.addr("/#/new").set(at(service))
        mesh.names.tree(WEB).set(mesh.names.leaf("/#/new"))
        answered(caller, service)
        assert mesh.counter("client/#/new/requests") == 1
        assert mesh.counter("client/#/old/requests") == 0
        assert mesh.counter("service/svc/web/requests") == 1
        assert gauge(mesh, "pending") == 0.0


def test_a_request_waits_on_where_its_name_leads_to_the_same_client_still() -> None:
    with Mesh() as mesh:
        caller, service = waiting_for_addresses(mesh), mesh.service()
        other = mesh.names.leaf("/#/other")
        mesh.names.addr("/#/other").set(ADDR_NEG)
        mesh.names.tree(WEB).set(Union((Weighted(1.0, mesh.names.leaf("/#/old")), Weighted(1.0, other))))
        mesh.settle()
        assert caller.got == b""
        mesh.names.addr("/#/old").set(at(service))
        answered(caller, service)


def test_it_fails_at_once_where_its_name_leads_nowhere_any_more() -> None:
    with Mesh() as mesh:
        caller = waiting_for_addresses(mesh)
        mesh.names.tree(WEB).set(NEG)
        caller.expect(b"HTTP/1.1 502 ")
        assert idle(mesh)


def test_it_may_wait_for_the_next_client_too_within_one_limit() -> None:
    with Mesh("bindingTimeoutMs: 3000") as mesh:
        caller = waiting_for_addresses(mesh)
        mesh.clock.advance(2.0)
        mesh.names.tree(WEB).set(mesh.names.leaf("/#/new"))
        mesh.clock.advance(1.1)
        caller.expect(b"HTTP/1.1 502 ")
        assert b"%2F%23%2Fnew" in caller.got
        assert idle(mesh)


def test_requests_of_other_names_go_on_waiting() -> None:
    with Mesh() as mesh:
        waiting_for_addresses(mesh)
        mesh.names.tree(Path.of("svc", "b")).set(mesh.names.leaf("/#/old"))
        other = mesh.caller().get(host=b"b")
        mesh.settle()
        mesh.names.tree(WEB).set(NEG)
        mesh.settle()
        assert other.got == b""


def test_the_first_requests_carry_the_host_that_the_addresses_tell() -> None:
    with Mesh() as mesh:
        caller, service = waiting_for_addresses(mesh), mesh.service()
        mesh.names.addr("/#/old").set(at(service, "web.service.consul"))
        head = answered(caller, service)
        assert b"\r\nHost: web.service.consul\r\n" in head or b"\r\nhost: web.service.consul\r\n" in head
        assert head.count(b"l5d-dst-client") == 1
        assert idle(mesh)


def test_a_host_that_changes_is_used_from_then_on() -> None:
    with Mesh() as mesh:
        service = mesh.service()
        mesh.names.addr("/#/old").set(at(service, "one.example"))
        caller = waiting_or_not(mesh)
        upstream = service.accept()
        for host, following in ((b"one.example", "two.example"), (b"two.example", None), (b"web", None)):
            assert b"ost: " + host + b"\r\n" in upstream.expect(b"\r\n\r\n")
            mesh.names.addr("/#/old").set(at(service, following))
            upstream.take()
            upstream.send(OK)
            caller.expect(b"\r\n\r\nok")
            caller.take()
            caller.get()
        assert mesh.counter("client/#/old/requests") == 3


def waiting_or_not(mesh: Mesh) -> Side:
    """A caller's request to a name that is bound already."""
    mesh.names.tree(WEB).set(mesh.names.leaf("/#/old"))
    return mesh.caller().get()
