from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.bind.cache import CacheCounters, Entry, SharedCache
from meshgw.bind.route import Phase
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG
from meshgw.telemetry.metrics import Metrics
from transcript import Mesh

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DONE = b"\r\n\r\nok"


class Kept:
    """A cache of strings that writes down what was built and closed."""

    def __init__(self, capacity: int, idle_seconds: float = 10.0) -> None:
        self.now = 0.0
        self.built: list[str] = []
        self.closed: list[str] = []
        self.metrics = Metrics()
        counter: Callable[[str], object] = lambda name: self.metrics.counter(name)  # noqa: E731
        self.cache: SharedCache[str, str] = SharedCache(
            capacity=capacity,
            idle_seconds=idle_seconds,
            clock=lambda: self.now,
            build=self._build,
            close=self.closed.append,
            counters=CacheCounters(counter),  # type: ignore[arg-type]
        )

    def _build(self, key: str) -> str:
        self.built.append(key)
        return key

    def counts(self) -> dict[str, int]:
        counters = self.metrics.snapshot().counters
        return {name: counters[name,] for name in ("misses", "evicts", "expires", "oneshots")}


def test_a_held_value_is_shared_and_built_once() -> None:
    kept = Kept(2)
    first, second = kept.cache.acquire("a"), kept.cache.acquire("a")
    assert first is second
    assert kept.built == ["a"]
    kept.cache.release(first)
    kept.now = 100.0
    kept.cache.sweep()
    assert kept.closed == []


def test_an_idle_value_is_kept_for_the_idle_time_and_then_closed() -> None:
    kept = Kept(2)
    kept.cache.release(kept.cache.acquire("a"))
    kept.now = 9.9
    kept.cache.sweep()
    assert (kept.closed, kept.cache.idle) == ([], 1)
    kept.now = 10.0
    kept.cache.sweep()
    assert (kept.closed, len(kept.cache)) == (["a"], 0)
    assert kept.counts() == {"misses": 1, "evicts": 0, "expires": 1, "oneshots": 0}


def test_a_full_cache_drops_what_was_idle_longest() -> None:
    kept = Kept(2)
    holds = [kept.cache.acquire(key) for key in "ab"]
    for hold in reversed(holds):
        kept.now += 1.0
        kept.cache.release(hold)
    kept.cache.acquire("c")
    assert kept.closed == ["b"]
    assert kept.counts()["evicts"] == 1


def test_a_full_cache_of_held_values_makes_oneshots() -> None:
    kept = Kept(1)
    kept.cache.acquire("a")
    oneshot = kept.cache.acquire("b")
    assert len(kept.cache) == 1
    kept.cache.release(oneshot)
    assert kept.closed == ["b"]
    assert kept.counts() == {"misses": 2, "evicts": 0, "expires": 0, "oneshots": 1}


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.integers(0, 4)), max_size=60))
def test_a_value_is_closed_once_and_never_while_held(steps: list[tuple[str, bool, int]]) -> None:
    kept, held = Kept(3), list[Entry[str, str]]()
    open_values: list[str] = []
    for key, take, wait in steps:
        kept.now += wait
        if take:
            held.append(kept.cache.acquire(key))
        elif held:
            kept.cache.release(held.pop(0))
        kept.cache.sweep()
        assert len(kept.cache) <= 3
        open_values = list(kept.built)
        for value in kept.closed:
            open_values.remove(value)  # fails when closed more often than built
        for key_held in {entry.key for entry in held}:
            assert key_held in open_values
    while held:
        kept.cache.release(held.pop())
    kept.cache.close()
    assert sorted(kept.closed) == sorted(kept.built)


# --- a router's caches

LIMITS = "bindingCache:\n  paths: 2\n  trees: 2\n  bounds: 2\n  clients: 2\n  idleTtlSecs: 60"


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Mesh(LIMITS) as found:
        yield found


def ask(mesh: Mesh, name: str) -> None:
    """One request to ``name`` on connections of its own."""
    service = mesh.service(name)
    caller = mesh.caller().get(host=name.encode(), fields=b"Connection: close\r\n")
    upstream = service.accept()
    upstream.expect(b"\r\n\r\n")
    upstream.send(OK)
    caller.expect(DONE)
    caller.expect_end()


def test_requests_to_a_known_name_bind_once(mesh: Mesh) -> None:
    ask(mesh, "web")
    lookups: list[object] = []

    class Watched(dict[object, object]):
        def get(self, key: object, default: object = None) -> object:
            lookups.append(key)
            return super().get(key, default)

    assert len(mesh.names.bound) == 1
    caller = mesh.caller().get()
    caller2 = mesh.caller().get()
    mesh.settle()
    assert len(mesh.names.bound) == 1
    assert mesh.counter("bindcache/path/misses") == 1
    caller.close()
    caller2.close()


def test_a_local_dtab_makes_a_route_of_its_own(mesh: Mesh) -> None:
    mesh.service("web")
    for fields in (b"", b"l5d-dtab: /a=>/b\r\n", b"l5d-dtab: /a => /b ;\r\n"):
        mesh.caller().get(fields=fields)
    mesh.settle()
    assert [dtab.show() for dtab, _ in mesh.names.bound] == ["", "/a=>/b"]


def test_requests_that_wait_for_one_name_are_all_resumed(mesh: Mesh) -> None:
    callers = [mesh.caller().get() for _ in range(5)]
    mesh.settle()
    assert len(mesh.names.bound) == 1
    mesh.names.tree(Path.of("svc", "web")).set(NEG)
    for caller in callers:
        caller.expect(b"HTTP/1.1 502 ")
    assert mesh.router.caches.routes[Path.of("svc", "web")].waiters == []


def test_a_full_cache_gives_up_a_name_that_leads_nowhere_before_one_that_works(mesh: Mesh) -> None:
    ask(mesh, "works")
    mesh.clock.advance(1.0)
    mesh.names.tree(Path.of("svc", "nowhere")).set(NEG)
    mesh.caller().get(host=b"nowhere").expect(b"HTTP/1.1 502 ")
    ask(mesh, "other")
    assert set(mesh.router.caches.routes) == {Path.of("svc", "works"), Path.of("svc", "other")}
    assert mesh.counter("bindcache/path/evicts") == 1
    assert not mesh.names.tree(Path.of("svc", "nowhere")).is_observed


def test_a_name_that_leads_nowhere_is_let_go_a_minute_after_its_last_use_whatever_the_idle_time() -> None:
    with Mesh("bindingCache: {idleTtlSecs: 600}") as mesh:
        ask(mesh, "works")
        mesh.names.tree(Path.of("svc", "nowhere")).set(NEG)
        mesh.caller().get(host=b"nowhere").expect(b"HTTP/1.1 502 ")
        mesh.clock.pump([1.0] * 59)
        assert mesh.names.tree(Path.of("svc", "nowhere")).is_observed
        mesh.clock.pump([1.0] * 32)
        assert not mesh.names.tree(Path.of("svc", "nowhere")).is_observed
        assert mesh.names.tree(Path.of("svc", "works")).is_observed


def test_names_beyond_the_capacity_are_served_as_oneshots_and_let_go(mesh: Mesh) -> None:
    waiting = [mesh.caller().get(host=b"pending%d" % number) for number in range(2)]
    mesh.settle()
    ask(mesh, "third")
    mesh.settle()
    assert mesh.counter("bindcache/path/oneshots") == 1
    assert len(mesh.router.caches.routes) == 2
    assert not mesh.names.tree(Path.of("svc", "third")).is_observed
    assert all(caller.got == b"" for caller in waiting)


def test_an_idle_name_is_released_with_its_client_and_its_metrics(mesh: Mesh) -> None:
    service = mesh.service("web")
    caller = mesh.caller().get()
    upstream = service.accept()
    upstream.expect(b"\r\n\r\n")
    upstream.send(OK)
    caller.expect(DONE)
    assert mesh.counter("service/svc/web/requests") == 1
    assert mesh.counter("client/#/web/requests") == 1
    # each level's idle time begins when the one above lets it go
    mesh.clock.pump([1.0] * 50)
    mesh.settle()
    assert upstream.ending == ""
    assert mesh.counter("client/#/web/requests") == 1
    mesh.clock.pump([1.0] * 330)
    assert upstream.expect_end() == "eof"
    assert mesh.router.caches.routes == {}
    assert mesh.router.caches.clients() == []
    assert not mesh.names.tree(Path.of("svc", "web")).is_observed
    assert not mesh.names.addr("/#/web").is_observed
    names = ["/".join(found) for found in mesh.snapshot().counters]
    assert not [name for name in names if "web" in name]
    for cache in ("path", "tree", "bound", "client"):
        assert mesh.counter(f"bindcache/{cache}/expires") == 1, cache


def test_a_name_in_use_is_never_released(mesh: Mesh) -> None:
    service = mesh.service("web")
    caller = mesh.caller().get()
    upstream = service.accept()
    upstream.expect(b"\r\n\r\n")
    mesh.clock.pump([1.0] * 400)
    upstream.send(OK)
    caller.expect(DONE)


def test_the_metrics_of_the_caches_have_linkerds_names(mesh: Mesh) -> None:
    ask(mesh, "web")
    names = {
        "/".join(found[3:]) for found in [*mesh.snapshot().counters, *mesh.snapshot().gauges] if found[:3] == ("rt", "http", "bindcache")
    }
    for cache in ("path", "tree", "bound", "client"):
        assert {f"{cache}/{figure}" for figure in ("misses", "evicts", "expires", "oneshots")} <= names


def test_a_binding_that_fails_later_keeps_the_last_good_tree(mesh: Mesh) -> None:
    ask(mesh, "web")
    mesh.names.tree(Path.of("svc", "web")).fail(ValueError("source gone"))
    assert mesh.router.caches.routes[Path.of("svc", "web")].phase is Phase.READY
    ask(mesh, "web")


def test_a_binding_that_never_worked_is_answered_with_its_reason(mesh: Mesh) -> None:
    mesh.names.tree(Path.of("svc", "web")).fail(ValueError("source gone"))
    assert b"source gone" in mesh.caller().get().expect(b"\r\n\r\nsource gone")


def test_a_changed_tree_leads_new_requests_elsewhere_and_closes_the_old_client_when_idle(mesh: Mesh) -> None:
    ask(mesh, "web")
    other = mesh.service("other")
    mesh.names.tree(Path.of("svc", "web")).set(mesh.names.leaf("/#/other"))
    caller = mesh.caller().get()
    upstream = other.accept()
    assert b"l5d-dst-client: /#/other\r\n" in upstream.expect(b"\r\n\r\n")
    upstream.send(OK)
    caller.expect(DONE)
    assert {client.label for client in mesh.router.caches.clients()} == {"/#/web", "/#/other"}
