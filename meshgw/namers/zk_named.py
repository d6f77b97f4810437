"""``/$/io.buoyant.namer.zk.leader/<h:p::h:p>/<path>``: leaders in ensembles that names tell, without configuration.

Source: linkerd-config spec 3.13. Names come from callers too (``l5d-dtab``): there are few such ensembles at a time, each is left when
nobody has asked for a while, and nothing of ZooKeeper is imported before the first is asked. Unlike Linkerd, ids can be looked up again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.interfaces import IDelayedCall

from meshgw.core.address import Bound
from meshgw.core.live import Failed, Live, Source, constant, failed
from meshgw.errors import NamerError
from meshgw.kinds import Runtime
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, NameTree

ZK_LEADER: Final = b"io.buoyant.namer.zk.leader"
MOST_ENSEMBLES: Final = 16
"""Each has a session and three threads."""
LINGER_SECONDS: Final = 60.0
SESSION_SECONDS: Final = 10.0
MOST_SERVERS: Final = 16
_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")

Tree = NameTree[Path | Bound]
Make = Callable[[Any, Path, Runtime], Any]


def read_servers(label: bytes) -> tuple[tuple[str, int], ...] | None:
    """The servers of ``host:port::host:port``; None for anything else."""
    try:
        text = label.decode("ascii")
    except UnicodeDecodeError:
        return None
    servers = []
    # the address of IPv6 has colons of its own, in brackets
    for part in re.split(r"::(?![^\[]*\])", text):
        match = _SERVER.fullmatch(part)
        if match is None or not 1 <= int(match[2]) <= 65535:
            return None
        servers.append((match[1].strip("[]"), int(match[2])))
    return tuple(servers) if len(servers) <= MOST_SERVERS else None


@attrs.define(eq=False)
class _Named:
    """The namer of an ensemble while somebody looks, and a little longer."""

    namer: Any
    lookers: int = 0
    linger: IDelayedCall | None = None


class NamedLeaders(Service):
    """The namer behind :data:`ZK_LEADER`; ``runtime`` is for the namers of the ensembles, which ``make`` makes."""

    def __init__(self, runtime: Runtime, *, make: Make | None = None) -> None:
        self._runtime, self._clock, self._make_namer = runtime, runtime.reactor, make
        self._named: dict[bytes, _Named] = {}

    def stopService(self) -> Any:
        """Leave all ensembles."""
        super().stopService()  # type: ignore[no-untyped-call]
        return DeferredList([self._leave(label) for label in list(self._named)], consumeErrors=True)

    def lookup(self, path: Path) -> Live[Tree]:
        """The leader of a group in the ensemble of the first label. Failed if that tells none, or there are too many in use."""
        if not path:
            return constant(NEG)
        label, rest = path[0], path.drop(1)
        servers = read_servers(label)
        if servers is None:
            name = (Path.of("$") + Path((ZK_LEADER,)) + path).show()
            return failed(NamerError(detail=f"{name}: expected host:port::host:port, the servers of ZooKeeper, as the next label"))

        def start(out: Source[Tree]) -> Callable[[], None]:
            named = self._obtain(label, servers)
            if named is None:
                out.put(
                    Failed(NamerError(detail=f"{MOST_ENSEMBLES} ensembles of ZooKeeper that names tell are in use, and no more are asked"))
                )
                return _nothing
            named.lookers += 1
            observation = named.namer.lookup(rest).observe(out.put)

            def stop() -> None:
                observation.close()
                self._left(label, named)

            return stop

        return Source(start, forget=True)

    def _obtain(self, label: bytes, servers: tuple[tuple[str, int], ...]) -> _Named | None:
        named = self._named.get(label)
        if named is None:
            if len(self._named) >= MOST_ENSEMBLES:
                idle = next((label for label, one in self._named.items() if not one.lookers), None)
                if idle is None:
                    return None
                self._leave(idle)
            named = self._named[label] = _Named(self._make(label, servers))
        elif named.linger is not None:
            named.linger.cancel()
            named.linger = None
        return named

    def _make(self, label: bytes, servers: tuple[tuple[str, int], ...]) -> Any:
        # only now: most gateways never need it, and it is some megabytes
        from meshgw.backends.kazoo_session import Ensemble
        from meshgw.namers.zk_leader import leader_namer

        make = self._make_namer or leader_namer
        prefix = Path.of("$") + Path((ZK_LEADER, label))
        runtime = attrs.evolve(self._runtime, metrics=self._runtime.metrics.scope(Path((label,)).show()[1:]))
        namer = make(Ensemble(servers, SESSION_SECONDS), prefix, runtime)
        namer.startService()
        return namer

    def _left(self, label: bytes, named: _Named) -> None:
        named.lookers -= 1
        if not named.lookers and self._named.get(label) is named:
            named.linger = self._clock.callLater(LINGER_SECONDS, self._leave, label)

    def _leave(self, label: bytes) -> Any:
        named = self._named.pop(label)
        if named.linger is not None and named.linger.active():
            named.linger.cancel()
        self._runtime.metrics.remove(Path((label,)).show()[1:])
        return maybeDeferred(named.namer.stopService)


class NoLeaders:
    """Stands where names must not lead to connections."""

    def lookup(self, _path: Path) -> Live[Tree]:
        """Failed."""
        return failed(
            NamerError(
                detail=f"/$/{ZK_LEADER.decode()} is not used by routers with egress, which limits where they connect; "
                "configure a namer io.l5d.zkLeader"
            )
        )


def _nothing() -> None:
    """There is nothing to stop."""
