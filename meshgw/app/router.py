"""One router: its caches of names, and what they are built from.

Source: linkerd-config spec 4.1, 4.9 and 9.9 (bindcache). Path cache: (name, local dtab) → :class:`Route`; trees, bound names and clients
are shared below it. Protocols (``app.http``) give it the pipelines and pools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import nsmallest
from math import inf
from operator import itemgetter
from typing import Any, Protocol

from meshgw.app.client import BoundClient
from meshgw.app.policy import ServicePolicy
from meshgw.bind.cache import CacheCounters, Entry, SharedCache
from meshgw.bind.explain import explain_steps, failures, verdict
from meshgw.bind.route import Choices, Phase, Route, flatten
from meshgw.config.router import BindingCache
from meshgw.core.address import Bound
from meshgw.core.exchange import Exchange
from meshgw.core.live import Ok, Pending, current
from meshgw.core.logger import make_logger
from meshgw.core.stack import Pipeline
from meshgw.core.timers import Timer, Wheel
from meshgw.errors import Unbound
from meshgw.filters.stats import AttemptStats, Tally
from meshgw.kinds import Interpreter
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import NameTree
from meshgw.telemetry.metrics import Metrics

NOWHERE_SECONDS = 60.0
"""Names that lead nowhere are kept for a shorter time: there is nothing to keep warm, and each may be watched by several namers."""
EXPLAINED_SECONDS = 1.0
"""For how long an explanation that names failing sources is given: to work it out takes up to a millisecond, and every request may ask."""
VICTIMS_SHARE = 16
"""The part of a full cache that is chosen for eviction at a time."""
_log = make_logger()


class Choice:
    """One leaf of a route: the pipeline of its bound level, its client, and the hold on it."""

    __slots__ = ("client", "pipeline", "stats", "tally")

    def __init__(self, client: BoundClient, pipeline: Pipeline, stats: AttemptStats, tally: Tally) -> None:
        """``stats`` is the pipeline's; requeues count there as attempts of their own. ``tally`` counts ordinary requests."""
        self.client, self.pipeline, self.stats, self.tally = client, pipeline, stats, tally


class BoundEntry:
    """A bound name in use: its client and what it was bound to."""

    __slots__ = ("bound", "client", "hold")

    def __init__(self, bound: Bound, hold: Entry[Path, BoundClient]) -> None:
        self.bound, self.hold = bound, hold
        self.client = hold.value


class Tree:
    """A bound tree in use: its leaves with their probabilities."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[tuple[float, Entry[Bound, BoundEntry] | None]]) -> None:
        self.items = items


class Parts(Protocol):
    """What the protocol of the router provides."""

    def policy(self, name: Path) -> ServicePolicy:
        """What applies to a logical name."""
        ...

    def path_pipeline(self, name: Path) -> Pipeline:
        """The stack of a logical name."""
        ...

    def choice(self, name: Path, client: BoundClient, residual: Path, dtab_size: int) -> Choice:
        """A bound name under a logical one, with its stack; ``dtab_size`` is that of the route's local dtab."""
        ...

    def client(self, id: Path, resume: Callable[[list[Exchange]], None]) -> BoundClient:
        """A client for a bound id, not started."""
        ...

    def forget_path(self, name: Path) -> None:
        """No route of the logical name is left: prune its metrics."""
        ...


class RouterCaches:
    """Binds names and keeps what was bound. ``dtab`` is the router's own; times are seconds."""

    def __init__(
        self,
        *,
        label: str,
        dtab: Dtab,
        interpreter: Interpreter,
        parts: Parts,
        limits: BindingCache,
        metrics: Metrics,
        wheel: Wheel,
        clock: Callable[[], float],
    ) -> None:
        self.label, self.dtab, self.interpreter = label, dtab, interpreter
        self._parts, self._limits, self._wheel, self._clock = parts, limits, wheel, clock
        self.routes: dict[Any, Route] = {}
        self._victims: list[tuple[tuple[bool, float], Any]] = []
        self._named: dict[Path, int] = {}  # how many routes each name has, those outside of the cache included
        scope = metrics.scope("bindcache")
        idle = float(limits.idle_ttl_secs)
        self._counters = CacheCounters(lambda name: scope.counter("path", name))
        self._trees: SharedCache[NameTree[Bound], Tree] = SharedCache(
            capacity=limits.trees,
            idle_seconds=idle,
            clock=clock,
            build=self._build_tree,
            close=self._close_tree,
            counters=CacheCounters(lambda name: scope.counter("tree", name)),
        )
        self._bounds: SharedCache[Bound, BoundEntry] = SharedCache(
            capacity=limits.bounds,
            idle_seconds=idle,
            clock=clock,
            build=self._build_bound,
            close=lambda entry: self._clients.release(entry.hold),
            counters=CacheCounters(lambda name: scope.counter("bound", name)),
        )
        self._clients: SharedCache[Path, BoundClient] = SharedCache(
            capacity=limits.clients,
            idle_seconds=idle,
            clock=clock,
            build=self._build_client,
            close=_reap,
            counters=CacheCounters(lambda name: scope.counter("client", name)),
        )
        self._holds: dict[NameTree[Bound], list[Entry[NameTree[Bound], Tree]]] = {}
        self._sweeper: Timer | None = None
        scope.gauge("path", "idle", function=lambda: float(sum(not route.in_flight for route in self.routes.values())))
        for name, cache in (("tree", self._trees), ("bound", self._bounds), ("client", self._clients)):
            scope.gauge(name, "idle", function=lambda cache=cache: float(cache.idle))  # type: ignore[misc]  # mypy: defaults of lambdas

    def start(self) -> None:
        """Begin to release what is not used."""
        self._sweeper = self._wheel.after(self._sweep_seconds, self._sweep)

    def stop(self) -> None:
        """Release everything."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for key in list(self.routes):
            self._expire(key)
        for cache in (self._trees, self._bounds, self._clients):
            cache.close()

    def clients(self) -> list[BoundClient]:
        """The clients in use or kept."""
        return self._clients.values()

    # --- routes

    def bind(self, name: Path, dtab: Dtab | None) -> Route:
        """See :class:`meshgw.app.walk.Routes`."""
        self._counters.misses.incr()
        self._named[name] = self._named.get(name, 0) + 1
        key = name if dtab is None else (name, dtab)
        route = Route(
            name,
            dtab,
            self._parts.path_pipeline(name),
            self._parts.policy(name),
            choose=lambda tree: self._choices(name, tree, 0 if dtab is None else len(dtab)),
            release=self._release,
            on_change=_changed,
        )
        if len(self.routes) < self._limits.paths or self._evict():
            self.routes[key] = route
        else:
            self._counters.oneshots.incr()
            route.is_oneshot = True
        try:
            route.start(self.interpreter.bind(self.dtab if dtab is None else self.dtab + dtab, name))
        except Exception:  # a plug-in's defect: the next request is to try again, not to wait for what nobody works on
            self.routes.pop(key, None)
            self.drop(route)
            raise
        return route

    def explain(self, route: Route) -> Unbound:
        """Why the route leads nowhere; worked out once for each answer of its binding, and again each second while sources fail."""
        known, now = route.error, self._clock()
        if isinstance(known, Unbound) and now < route.explained_until:
            return known
        outcome, is_known = "no endpoint", True
        steps: tuple[str, ...] = ()
        failing = () if route.stale is None else (str(route.stale),)
        delegate = getattr(self.interpreter, "delegate", None)
        if delegate is not None:
            state = current(delegate(self.dtab if route.dtab is None else self.dtab + route.dtab, route.name))
            if isinstance(state, Ok):
                outcome, steps = verdict(state.value), explain_steps(state.value)
                failing = tuple(dict.fromkeys((*failing, *failures(state.value))))
            is_known = not isinstance(state, Pending)
        error = Unbound(
            name=route.name.show(),
            outcome=outcome,
            base=tuple(f"{dentry.prefix.show()} => {dentry.show().partition('=>')[2]}" for dentry in self.dtab),
            override=tuple(f"{dentry.prefix.show()} => {dentry.show().partition('=>')[2]}" for dentry in route.dtab or ()),
            steps=steps,
            failures=failing,
        )
        if route.phase is Phase.UNBOUND:
            # a source that fails otherwise, or recovers, may change what is told without changing the answer
            route.explained_until = inf if is_known and not failing else now + EXPLAINED_SECONDS
            route.error = error
        return error

    # --- building

    def _choices(self, name: Path, tree: NameTree[Bound], dtab_size: int) -> Choices[Choice]:
        hold = self._trees.acquire(tree)
        self._holds.setdefault(tree, []).append(hold)
        try:
            return Choices(
                [(share, None if entry is None else self._choice(name, entry.value, dtab_size)) for share, entry in hold.value.items]
            )
        except Exception:
            self._release(tree)  # a filter that cannot be built must not keep the tree alive
            raise

    def _choice(self, name: Path, entry: BoundEntry, dtab_size: int) -> Choice:
        return self._parts.choice(name, entry.client, entry.bound.residual, dtab_size)

    def _release(self, tree: NameTree[Bound]) -> None:
        holds = self._holds[tree]
        self._trees.release(holds.pop())
        if not holds:
            del self._holds[tree]

    def _build_tree(self, tree: NameTree[Bound]) -> Tree:
        return Tree([(share, None if bound is None else self._bounds.acquire(bound)) for share, bound in flatten(tree)])

    def _close_tree(self, tree: Tree) -> None:
        for _, entry in tree.items:
            if entry is not None:
                self._bounds.release(entry)

    def _build_bound(self, bound: Bound) -> BoundEntry:
        hold = self._clients.acquire(bound.id)
        hold.value.follow(bound.addr)
        return BoundEntry(bound, hold)

    def _build_client(self, id: Path) -> BoundClient:
        client = self._parts.client(id, resume)
        client.on_authority = self._rebuild
        return client

    def _rebuild(self, client: BoundClient) -> None:
        """What the stacks of this client's choices are built from has changed; whoever waits for its addresses passes the new ones."""
        waiters = list(client.waiters)
        for route in {*self.routes.values(), *(ex.route for ex in waiters)}:
            if route.choices is not None and client in _clients(route.choices):
                route.rebuild()
        for ex in waiters:
            ex.walk.rebound(ex)

    # --- releasing

    @property
    def _sweep_seconds(self) -> float:
        return max(0.5, min(30.0, self._limits.idle_ttl_secs / 4))

    def _sweep(self) -> None:
        self._sweeper = self._wheel.after(self._sweep_seconds, self._sweep)
        now, idle = self._clock(), self._limits.idle_ttl_secs
        limit, limit_nowhere = now - idle, now - min(idle, NOWHERE_SECONDS)
        for key, route in list(self.routes.items()):
            if route.used <= (limit if route.phase is Phase.READY else limit_nowhere) and not route.waiters and not route.in_flight:
                self._expire(key)
                self._counters.expires.incr()
        for cache in (self._trees, self._bounds, self._clients):
            cache.sweep()

    def _evict(self) -> bool:
        """Make room: the route that was used least recently, those that lead nowhere first. False when all have requests under way."""
        while True:
            if not self._victims:
                self._victims = self._least_used()
                if not self._victims:
                    return False
            rank, key = self._victims.pop()
            route = self.routes.get(key)
            if route is not None and _rank(route) == rank and not route.waiters and not route.in_flight:
                self._expire(key)
                self._counters.evicts.incr()
                return True

    def _least_used(self) -> list[tuple[tuple[bool, float], Any]]:
        """Routes to evict one after another, the next one last; to look at all for each would take 1 ms where callers invent names."""
        ranked = [(_rank(route), key) for key, route in self.routes.items() if not route.waiters and not route.in_flight]
        return nsmallest(max(1, len(ranked) // VICTIMS_SHARE), ranked, key=itemgetter(0))[::-1]

    def _expire(self, key: Any) -> None:
        self.drop(self.routes.pop(key))

    def drop(self, route: Route) -> None:
        """See :class:`meshgw.app.attempt.Routes`."""
        route.close()
        self._named[route.name] -= 1
        if not self._named[route.name]:
            del self._named[route.name]
            self._parts.forget_path(route.name)


def _rank(route: Route) -> tuple[bool, float]:
    return (route.phase is Phase.READY, route.used)


def _changed(route: Route, before: Choices[Choice] | None) -> None:
    waiters, route.waiters = route.waiters, []
    for ex in waiters:
        ex.walk.route_changed(ex)
    if before is not None:
        left = _clients(before) - (set() if route.choices is None else _clients(route.choices))
        for ex in [ex for client in left for ex in client.waiters if ex.route is route]:  # what they wait for may never come
            ex.walk.rebound(ex)


def _clients(choices: Choices[Choice]) -> set[BoundClient]:
    return {choice.client for _, choice in choices.items if choice is not None}


def resume(waiters: list[Exchange]) -> None:
    """The addresses these exchanges waited for are known."""
    for ex in waiters:
        ex.walk.addresses_known(ex)


def _reap(client: BoundClient) -> None:
    _log.info("Reaping {client}", client=client.label)
    client.close()
