"""The data plane of one process: a configuration built into namers, interpreters, routers and telemeters, started and stopped in order.

Source: ARCHITECTURE.md section 7; linkerd-config spec 1.1 and 1.5. Building opens nothing; ``startService`` binds and starts.
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import attrs
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, maybeDeferred

from meshgw.app.components import RouterService
from meshgw.app.described import Describe, namer_states, router_states
from meshgw.app.http_stacks import Shared
from meshgw.app.joined import leave_to_master
from meshgw.app.request_router import RequestRouter
from meshgw.app.sockets import router_label
from meshgw.bind.builtin import BuiltinNamer
from meshgw.bind.interpreter import DefaultInterpreter
from meshgw.config.document import Chosen
from meshgw.config.models import Config
from meshgw.core.address import Bound
from meshgw.core.live import Live, constant, live_flat_map
from meshgw.core.logger import make_logger
from meshgw.core.memory import give_back
from meshgw.core.reactor import poller_for
from meshgw.core.slices import Work, finished
from meshgw.core.timers import Spawner, Wheel
from meshgw.filters.tracing import Sampler
from meshgw.kinds import Interpreter, Namer, Runtime, Transformer
from meshgw.namers.dns import Resolver
from meshgw.namers.resolvconf import SystemServers
from meshgw.namers.rewrite import UTILITIES
from meshgw.namers.zk_named import ZK_LEADER, NamedLeaders, NoLeaders
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import NameTree, leaves
from meshgw.server.shares import Shares
from meshgw.telemetry.histogram import DEFAULT_INTERVAL, HistogramSnapshots
from meshgw.telemetry.metrics import Metrics, Snapshot
from meshgw.telemetry.process import add_process_metrics
from meshgw.telemetry.recent_requests import RecentRequests
from meshgw.telemetry.spans import TracingSwitch
from meshgw.telemetry.stalls import Stalls

DRAIN_STEP = 0.02
"""Seconds between looks at whether the connections have ended."""
GC_YOUNG = 1_000
"""Objects more than were freed before the youngest generation is collected. Neither requests nor changes of addresses leave it much to do,
but a change puts some sixty new objects in the place of old ones. They don't count here and are looked at all the same: when it comes to
a collection there are about five times as many, which hold requests up for 2 to 4 ms."""
GC_MIDDLE = 40
"""Such collections before what survived them is looked at again: some 20 ms with 5,000 endpoints."""
_log = make_logger()


class Names:
    """Namers and interpreters of a configuration, shared by its routers; services among them start and stop with it."""

    def __init__(self, config: Config, reactor: Any, metrics: Metrics, random: Random, spawn: Callable[..., Callable[[], None]]) -> None:
        self.services = MultiService()  # type: ignore[no-untyped-call]
        resolver = Resolver(reactor, SystemServers(reactor), random, metrics)
        self._add(resolver)
        self.runtime = Runtime(reactor=reactor, metrics=metrics, random=random, spawn=spawn, resolve=resolver.resolve)
        leaders = NamedLeaders(attrs.evolve(self.runtime, metrics=metrics.scope("namer", f"$/{ZK_LEADER.decode()}")))
        self._add(leaders)
        self._builtin = BuiltinNamer(resolver.resolve, UTILITIES, {ZK_LEADER: leaders})
        # a router with limits to where it connects does not connect where a name says, to ask for addresses
        self._limited = BuiltinNamer(resolver.resolve, UTILITIES, {ZK_LEADER: NoLeaders()})
        self.plain = DefaultInterpreter((), self._builtin)
        self.namers: list[tuple[Path, Namer]] = []
        for chosen in config.namers:
            self.namers.append(self._namer(chosen))
        self._global = DefaultInterpreter(self.namers, self._builtin)
        self.interpreters = {router_label(chosen): self._interpreter(chosen) for chosen in config.routers}

    def _add(self, item: object) -> None:
        if IService.providedBy(item):
            self.services.addService(item)  # type: ignore[no-untyped-call]

    def _namer(self, chosen: Chosen) -> tuple[Path, Namer]:
        prefix = Path.of("#") + chosen.config.prefix
        metrics = self.runtime.metrics.scope("namer", prefix.show()[1:])
        namer = chosen.kind.build(chosen.config, attrs.evolve(self.runtime, metrics=metrics))
        self._add(namer)
        transformers = self._transformers(getattr(chosen.config, "transformers", ()), metrics)
        return prefix, TransformedNamer(namer, transformers) if transformers else namer

    def _interpreter(self, router: Chosen) -> Interpreter:
        chosen: Chosen = router.config.interpreter
        metrics = self.runtime.metrics.scope("rt", router_label(router))
        transformers = self._transformers(getattr(chosen.config, "transformers", ()), metrics)
        builtin = self._builtin if getattr(router.config, "egress", None) is None else self._limited
        interpreter: Interpreter = chosen.kind.build(
            chosen.config, self.runtime, namers=self.namers, builtin=builtin, transformers=transformers
        )
        self._add(interpreter)
        return interpreter

    def _transformers(self, chosen: Sequence[Chosen], metrics: Metrics) -> list[Transformer]:
        # names in transformers resolve through all namers with an empty dtab (linkerd-config spec 8.3)
        runtime = attrs.evolve(self.runtime, bind=lambda path: self._global.bind(Dtab.EMPTY, path))
        built = []
        for item in chosen:
            transformer = item.kind.build(item.config, attrs.evolve(runtime, metrics=metrics.scope("transformer", item.kind.id)))
            self._add(transformer)
            built.append(transformer)
        return built


class TransformedNamer:
    """A namer with transformers of its own: they change only what it binds fully, so names of other namers stay untouched."""

    def __init__(self, namer: Namer, transformers: Sequence[Transformer]) -> None:
        self._namer, self._transformers = namer, transformers
        if any(hasattr(item, "describe") for item in (namer, *transformers)):
            self.describe = self._describe

    def _describe(self) -> dict[str, Any]:
        """The namer's state, and that of those transformers that have one."""
        found: dict[str, Any] = dict(self._namer.describe()) if hasattr(self._namer, "describe") else {}
        states = {getattr(item, "name", type(item).__name__): item.describe() for item in self._transformers if hasattr(item, "describe")}
        return found | ({"transformers": states} if states else {})

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """See :class:`meshgw.kinds.Namer`."""
        return live_flat_map(self._namer.lookup(path), self._transformed)

    def _transformed(self, tree: NameTree[Path | Bound]) -> Live[NameTree[Path | Bound]]:
        """Only fully bound trees are transformed (linkerd-config spec 3.1); names to be looked up again pass as they are."""
        if not all(isinstance(leaf, Bound) for leaf in leaves(tree)):
            return constant(tree)
        bound: Live[Any] = constant(tree)
        for transformer in self._transformers:
            bound = transformer.transform(bound)
        return bound

    def names(self) -> list[Path]:
        """The names of the namer behind, if it can tell them."""
        names = getattr(self._namer, "names", None)
        return names() if names is not None else []


class Gateway(MultiService):
    """The routers of one process, with what they share."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        random: Random,
        shares: Shares | None = None,
        *,
        is_first: bool = True,
        tracing: TracingSwitch | None = None,
        histogram_interval: float = DEFAULT_INTERVAL,
        started_at: float | None = None,
    ) -> None:
        """For ``shares``, ``is_first`` and ``tracing`` see :class:`meshgw.app.http_stacks.Shared`.

        ``started_at`` is when the process started, in seconds since the epoch; None for one that has a master.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.config, self._reactor = config, reactor
        self.metrics = Metrics()
        self._spawner = Spawner()
        self.grace = config.admin.shutdown_grace_ms / 1000
        """Seconds that requests under way get at the end."""
        self._shares, self._started_at = shares, started_at
        self._deadline = 0.0
        self._final: Snapshot | None = None
        self._end_process_metrics: Callable[[], None] | None = None
        self.names = Names(config, reactor, self.metrics, random, self._spawner.spawn)
        self._wheel = Wheel(reactor)
        self.stalls = Stalls(reactor)
        self.tracing = TracingSwitch() if tracing is None else tracing
        self.telemeters = [chosen.kind.build(chosen.config, self.names.runtime) for chosen in config.telemetry]
        if started_at is None:
            leave_to_master(self.telemeters)
        tracers = [telemeter.tracer for telemeter in self.telemeters if hasattr(telemeter, "tracer")]
        shared = Shared(
            runtime=self.names.runtime,
            poller=poller_for(reactor),
            wheel=self._wheel,
            clock=time.monotonic,
            now=time.time,  # noqa: TID251 - wall-clock time is what operators are shown
            shares=shares,
            is_first=is_first,
            sampler=Sampler(tracers, random.getrandbits(64)) if tracers else None,
            tracing=self.tracing,
        )
        self.routers: dict[str, RequestRouter] = {}
        for chosen in config.routers:
            label = router_label(chosen)
            self.routers[label] = chosen.kind.build(
                chosen.config,
                self.names.runtime,
                label=label,
                interpreter=self.names.interpreters[label],
                shared=shared,
                metrics=self.metrics.scope("rt", label),
            )
        self.names.services.setServiceParent(self)  # type: ignore[no-untyped-call]
        HistogramSnapshots(reactor, self.metrics, histogram_interval).setServiceParent(self)  # type: ignore[no-untyped-call]
        for telemeter in self.telemeters:
            if IService.providedBy(telemeter):
                telemeter.setServiceParent(self)  # type: ignore[no-untyped-call]
        for router in self.routers.values():
            RouterService(router).setServiceParent(self)  # type: ignore[no-untyped-call]

    # --- life cycle

    def listen(self, take: Callable[[str], socket.socket]) -> None:
        """Get every router's bound sockets; ``take`` gives a duplicate of the one of a name (see ``app.sockets``)."""
        for router in self.routers.values():
            router.listen(take)

    def startService(self) -> None:
        """Start from the sources of names outward: namers, interpreters, then listeners."""
        self._end_process_metrics = add_process_metrics(self.metrics, time.time, self._started_at)  # noqa: TID251 - as above
        super().startService()  # type: ignore[no-untyped-call]
        self.stalls.start()
        if self._shares is not None:
            self._shares.enter()
        gc.collect()
        gc.freeze()  # what start-up made lives as long as the process: collections need not look at it again
        gc.set_threshold(GC_YOUNG, GC_MIDDLE, 20)
        give_back()

    def stopService(self) -> Deferred[None]:
        """Drain and stop in the reverse order, within the grace period."""
        return Deferred.fromCoroutine(self._stop(close_idle=True))

    def retire(self) -> Deferred[None]:
        """End while others serve on the same sockets: as ``stopService``, but callers' idle connections get one more answer first."""
        leave_to_master(self.telemeters)  # which there is by now, if there was none before
        return Deferred.fromCoroutine(self._stop(close_idle=False))

    def hurry(self, grace: float | None = None) -> None:
        """Close what is idle, of a gateway that is being retired; with ``grace``, the rest within this time if it has no less."""
        if grace is not None:
            self._deadline = min(self._deadline, self._reactor.seconds() + grace)
        for router in self.routers.values():
            router.close_idle()

    async def _stop(self, *, close_idle: bool) -> None:
        for router in self.routers.values():
            router.stop_accepting(close_idle=close_idle)
        await self._drain()
        await self._conclude()
        self._final = self.metrics.snapshot()  # what belongs to names and clients goes with them
        if self._end_process_metrics is not None:
            self._end_process_metrics()
        for router in self.routers.values():
            router.stop()
        self.stalls.stop()
        self._spawner.stop()
        await maybeDeferred(super().stopService)

    async def _conclude(self) -> None:
        """Telemeters that tell what is counted, rather than being asked for it, have a last word."""
        for telemeter in self.telemeters:
            if hasattr(telemeter, "conclude"):
                try:
                    await telemeter.conclude()
                except Exception:  # noqa: BLE001 - the rim around telemeters, which plug-ins provide
                    _log.failure("defect in a telemeter at the end of the process")

    async def _drain(self) -> None:
        self._deadline = self._reactor.seconds() + self.grace
        while self._connections():
            if self._reactor.seconds() >= self._deadline:
                self.hurry()
                self._abort()
                return
            pause: Deferred[None] = Deferred()
            self._reactor.callLater(DRAIN_STEP, pause.callback, None)
            await pause

    def _connections(self) -> int:
        return sum(router.connections for router in self.routers.values())

    def _abort(self) -> None:
        left = self._connections()
        if left:
            _log.warn("{left} connections did not finish within the grace period of {grace} s and are closed", left=left, grace=self.grace)
        for router in self.routers.values():
            router.abort()

    # --- what admin shows (app.plane)

    def described(self) -> dict[str, Describe]:
        """What describes itself, by the path of the admin server where it is shown."""
        found = namer_states(self.names.namers)
        for chosen in self.config.routers:
            router = self.routers[router_label(chosen)]
            identifiers = [(identifier.kind, identifier) for identifier in router.identifiers]
            found |= router_states(router.label, chosen.config.interpreter.kind.id, router.interpreter, identifiers)
        return found

    def snapshot(self) -> Snapshot:
        """All metrics of the process; once it has ended, as they were at the end."""
        return finished(self.reading())

    def reading(self, below: str = "") -> Work[Snapshot]:
        """The same, little by little; for ``below`` see :meth:`meshgw.telemetry.metrics.Metrics.reading`."""
        return self._final or (yield from self.metrics.reading(below))

    def bound_names(self) -> list[str]:
        """The names that enumerating namers know."""
        names: set[str] = set()
        for _, namer in self.names.namers:
            enumerate_names = getattr(namer, "names", None)
            if enumerate_names is not None:
                names.update(path.show() for path in enumerate_names())
        return sorted(names)

    def client_state(self) -> Work[dict[str, Any]]:
        """The clients of all routers with their addresses, little by little: there may be thousands of endpoints."""
        found: dict[str, Any] = {}
        for router in self.routers.values():
            for client in router.caches.clients():
                found[client.label] = client.state()
                yield
        return found

    def recent_requests(self) -> Work[list[Mapping[str, Any]]]:
        """The work of telling the latest traced requests, where a telemeter keeps them."""
        found = []
        for telemeter in self.telemeters:
            for row in telemeter.rows() if isinstance(telemeter, RecentRequests) else ():
                found.append(row)
                yield
        return found
