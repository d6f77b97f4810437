"""What callers and operators are told of a name whose source of addresses fails: which one, and why; and that it recovers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.followed import Followed
from meshgw.app.gateway import TransformedNamer
from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoint, Endpoints, Found
from meshgw.backends.watching import Watches
from meshgw.bind.builtin import BuiltinNamer
from meshgw.bind.delegate import with_addresses
from meshgw.bind.explain import delegation_from_json, delegation_to_json, render_delegation
from meshgw.bind.interpreter import DefaultInterpreter
from meshgw.core.address import Addr, Address, Bound, Replicas
from meshgw.core.live import Constant, Live, Ok, Source, constant, current
from meshgw.errors import BackendRefused, BackendUnreachable, MeshError
from meshgw.namers.watched import bound_name
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, NameTree
from transcript import OK, Mesh

FORBIDDEN = BackendRefused(backend="Fake at localhost:1", reason="403 (ACL not found)", code=403)
REFUSED = BackendUnreachable(backend="Fake at localhost:1", reason="connection refused")
PREFIX = Path.of("#", "fake")
TO_FAKE = "dtab: /svc => /#/fake"
TO_FAKE_TEXT = "/svc => /#/fake"


class FakeNamer:
    """Binds the first segment of a name to what the backend has for it."""

    def __init__(self, watches: Watches[str, Found]) -> None:
        self._watches = watches
        self.hosts: dict[str, Source[Addr]] = {}

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        key = path.take(1).show()[1:]
        return bound_name(self._watches, key, id=PREFIX + path.take(1), residual=path.drop(1), resolve=self._resolve)

    def _resolve(self, host: str, port: int) -> Live[Addr]:
        if host[0].isdigit():
            return Constant(Ok(Replicas((Address(host, port),))))
        return self.hosts.setdefault(host, Source())


class Same:
    """A transformer that changes nothing."""

    can_delegate = True

    def transform(self, tree: Live[NameTree[Bound]]) -> Live[NameTree[Bound]]:
        return tree


class Place:
    """A router whose names are bound by a namer over a backend that the test speaks for."""

    def __init__(self, *, absent: Found | None = NO_ENDPOINTS, is_transformed: bool = False) -> None:
        self.backend: Followed[Found] = Followed()
        self.watches = self.backend.watches(absent=absent)
        self.fake = FakeNamer(self.watches)
        namer: Any = TransformedNamer(self.fake, [Same()]) if is_transformed else self.fake
        builtin = BuiltinNamer(lambda _host, _port: constant(Replicas(())), {})
        self.interpreter = DefaultInterpreter([(PREFIX, namer)], builtin)

    def mesh(self, router: str = TO_FAKE, server: str = "") -> Mesh:
        return Mesh(router, server, interpreter=self.interpreter)

    def delegation(self, path: str = "/svc/web") -> Any:
        state = current(with_addresses(self.interpreter.delegate(Dtab.read(TO_FAKE_TEXT), Path.read(path))))
        assert isinstance(state, Ok)
        return state.value


def text_of(mesh: Mesh, host: bytes = b"web") -> str:
    """The answer to a request that is answered here."""
    caller = mesh.caller().get(host=host, fields=b"Connection: close\r\n")
    caller.expect_end()
    return caller.take().decode()


@pytest.mark.parametrize("is_transformed", [False, True])
def test_the_answer_for_an_unknown_name_tells_which_source_fails_and_why(is_transformed: bool) -> None:
    place = Place(is_transformed=is_transformed)
    with place.mesh() as mesh:
        caller = mesh.caller().get(fields=b"Connection: close\r\n")
        mesh.until(lambda: place.backend.is_followed("web"))
        place.backend.fails("web", FORBIDDEN)
        caller.expect_end()
        text = caller.take().decode()
        assert text.startswith("HTTP/1.1 502 ")
        assert "failing sources:\n  Fake at localhost:1: 403 (ACL not found)\n" in text
        assert "/#/fake/web by /svc => /#/fake: taken as unknown, for its source fails: Fake at localhost:1: 403 (ACL not found)" in text
        assert "l5d-err: Unable+to+route" in text


def test_the_answer_tells_the_latest_error_and_none_after_recovery() -> None:
    place = Place()
    with place.mesh() as mesh:
        mesh.caller().get()
        mesh.until(lambda: place.backend.is_followed("web"))
        place.backend.fails("web", FORBIDDEN)
        assert "403 (ACL not found)" in text_of(mesh)
        place.backend.wait(30.0)
        place.backend.fails("web", REFUSED)
        text = text_of(mesh)
        assert "connection refused" in text and "403" not in text
        place.backend.wait(30.0)
        place.backend.says("web", NO_ENDPOINTS)
        text = text_of(mesh)
        assert "failing sources" not in text and "/#/fake/web by /svc => /#/fake: no such name" in text


def test_untrusted_callers_are_not_told() -> None:
    place = Place()
    with place.mesh(server="clearContext: true") as mesh:
        caller = mesh.caller().get(fields=b"Connection: close\r\n")
        mesh.until(lambda: place.backend.is_followed("web"))
        place.backend.fails("web", FORBIDDEN)
        caller.expect_end()
        answer = caller.take()
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert b"403" not in answer and b"Fake" not in answer and b"l5d-err" not in answer


def test_a_source_that_never_answered_well_fails_requests_with_its_error() -> None:
    place = Place(absent=None)
    with place.mesh() as mesh:
        caller = mesh.caller().get(fields=b"Connection: close\r\n")
        mesh.until(lambda: place.backend.is_followed("web"))
        place.backend.fails("web", FORBIDDEN)
        caller.expect_end()
        assert b"\r\n\r\nFake at localhost:1: 403 (ACL not found)" in caller.take()
        place.backend.wait(30.0)
        place.backend.fails("web", REFUSED)
        assert "connection refused" in text_of(mesh)


def test_a_request_that_waits_too_long_is_told_for_what_and_the_last_error() -> None:
    place = Place(absent=None)
    with place.mesh(f"{TO_FAKE}\nbindingTimeoutMs: 1000") as mesh:
        silent, refused = mesh.caller().get(host=b"silent"), mesh.caller().get(host=b"refused")
        mesh.until(lambda: place.backend.is_followed("silent") and place.backend.is_followed("refused"))
        place.backend.fails("refused", REFUSED)
        mesh.clock.advance(1.1)
        assert b"(waiting for Fake at localhost:1: silent)" in silent.expect(b"waiting for")
        assert b"(waiting for refused; Fake at localhost:1: connection refused)" in refused.expect(b"waiting for")


def test_a_request_that_waits_for_addresses_is_told_whose_names_are_being_resolved() -> None:
    place = Place()
    with place.mesh(f"{TO_FAKE}\nbindingTimeoutMs: 1000") as mesh:
        caller = mesh.caller().get()
        mesh.until(lambda: place.backend.is_followed("web"))
        place.backend.says("web", Endpoints((Endpoint("node1", 80),)))
        mesh.clock.advance(1.1)
        assert b"(waiting for addresses of /#/fake/web: DNS of web)" in caller.expect(b"waiting for")
        assert mesh.router.caches.clients()[0].state()["waitingFor"] == "DNS of web"


@pytest.mark.parametrize("is_transformed", [False, True])
def test_staleness_shows_in_client_state_until_the_source_recovers(is_transformed: bool) -> None:
    place = Place(is_transformed=is_transformed)
    with place.mesh() as mesh:
        service = mesh.service()
        found = Endpoints((Endpoint("127.0.0.1", service.port),))
        caller = mesh.caller().get()
        mesh.until(lambda: place.backend.is_followed("web"))
        place.backend.says("web", found)
        upstream = service.accept()
        upstream.expect(b"\r\n\r\n")
        upstream.send(OK)
        caller.expect(b"\r\n\r\nok")
        (client,) = mesh.router.caches.clients()
        assert "stale" not in client.state()
        place.backend.fails("web", REFUSED)
        assert client.state()["stale"] == "Fake at localhost:1: connection refused"
        assert client.state()["addresses"] == [f"127.0.0.1:{service.port}"]
        place.backend.wait(5.0)
        place.backend.says("web", found)
        assert "stale" not in client.state()


def test_a_stale_name_without_endpoints_is_told_to_be_stale() -> None:
    place = Place()
    with place.mesh() as mesh:
        caller = mesh.caller().get(fields=b"Connection: close\r\n")
        mesh.until(lambda: place.backend.is_followed("web"))
        place.backend.says("web", Endpoints())
        caller.expect_end()
        assert b"no hosts available: it has no addresses\r\n" in caller.take() + b"\r\n"
        place.backend.fails("web", REFUSED)
        assert "it has no addresses; their source fails: Fake at localhost:1: connection refused" in text_of(mesh)


def test_a_delegation_tells_a_failing_source_from_a_name_that_does_not_exist() -> None:
    place = Place()
    live = place.interpreter.bind(Dtab.read(TO_FAKE_TEXT), Path.read("/svc/web"))
    hold = live.observe(lambda _state: None)
    place.backend.fails("web", FORBIDDEN)
    assert live.state == Ok(NEG, FORBIDDEN)
    json_text = json.dumps(delegation_to_json(place.delegation()))
    leaf = json.loads(json_text)["delegate"]
    assert leaf | {"dentry": None} == {"type": "neg", "path": "/#/fake/web", "dentry": None, "message": str(FORBIDDEN)}
    read = render_delegation(delegation_from_json(json.loads(json_text)))
    assert read == render_delegation(place.delegation())
    assert any("taken as unknown" in line for line in read)
    place.backend.wait(30.0)
    place.backend.says("web", NO_ENDPOINTS)
    assert "message" not in json.loads(json.dumps(delegation_to_json(place.delegation())))["delegate"]
    hold.close()


def test_a_delegation_shows_stale_addresses_as_such() -> None:
    place = Place()
    live = place.interpreter.bind(Dtab.read(TO_FAKE_TEXT), Path.read("/svc/web"))
    hold = live.observe(lambda _state: None)
    place.backend.says("web", Endpoints((Endpoint("127.0.0.1", 80),)))
    place.backend.fails("web", REFUSED)
    shown = json.loads(json.dumps(delegation_to_json(place.delegation())))
    assert shown["delegate"]["bound"]["addr"]["stale"] == str(REFUSED)
    assert any("last good answer; since then" in line for line in render_delegation(delegation_from_json(shown)))
    hold.close()


def test_a_later_namer_that_knows_the_name_is_asked_past_a_failing_one() -> None:
    failing, good = Place(), Place()
    interpreter = DefaultInterpreter([(PREFIX, good.fake), (PREFIX, failing.fake)], BuiltinNamer(lambda _h, _p: constant(Replicas(())), {}))
    live = interpreter.bind(Dtab.EMPTY, PREFIX + Path.of("web"))
    hold = live.observe(lambda _state: None)
    failing.backend.fails("web", FORBIDDEN)
    good.backend.says("web", NO_ENDPOINTS)
    assert live.state == Ok(NEG, FORBIDDEN)
    good.backend.says("web", Endpoints())
    state = live.state
    assert isinstance(state, Ok) and state.value != NEG and isinstance(state.error, MeshError)
    hold.close()


def test_of_several_failing_sources_each_is_told_as_it_is_now() -> None:
    one, other = Place(), Place()
    namers = [(PREFIX, one.fake), (Path.of("#", "other"), other.fake)]
    interpreter = DefaultInterpreter(namers, BuiltinNamer(lambda _h, _p: constant(Replicas(())), {}))
    with Mesh("dtab: /svc => /#/fake | /#/other", interpreter=interpreter) as mesh:
        caller = mesh.caller().get(fields=b"Connection: close\r\n")
        mesh.until(lambda: one.backend.is_followed("web"))
        one.backend.fails("web", FORBIDDEN)
        other.backend.fails("web", BackendUnreachable(backend="Other", reason="no route"))
        caller.expect_end()
        text = caller.take().decode()
        assert "Fake at localhost:1: 403 (ACL not found)\n" in text and "  Other: no route\n" in text
        one.backend.wait(30.0)
        one.backend.says("web", NO_ENDPOINTS)
        mesh.clock.advance(1.0)
        text = text_of(mesh)
        assert "403" not in text and "  Other: no route\n" in text
