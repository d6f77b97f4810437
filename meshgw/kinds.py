"""The plug-in registry: what a kind is, where kinds are found, and the protocols their objects fulfil.

Source: linkerd-config spec 11. Every kind, meshgw's own included, is announced by an entry point whose name is the id as it is
written in YAML and whose object is a :class:`Kind`. Only kinds that a configuration names are imported.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Set
from importlib import metadata
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import txaio

from meshgw.core.address import Addr, Bound
from meshgw.core.live import Live
from meshgw.errors import MeshError
from meshgw.naming.dtab import Delegation, Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import NameTree
from meshgw.wire.context import TraceId

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from meshgw.core.certificates import CertificateStore
    from meshgw.core.exchange import Exchange
    from meshgw.telemetry.metrics import Metrics

GROUPS = (
    "protocols",
    "identifiers",
    "namers",
    "interpreters",
    "transformers",
    "balancers",
    "classifiers",
    "accruals",
    "authorizers",
    "propagators",
    "telemeters",
    "announcers",
)


@attrs.frozen(kw_only=True)
class Kind:
    """One choice for a ``kind:`` (or ``protocol:``) in the configuration.

    ``config`` is the attrs class of its block, ``build(config, runtime)`` makes the working object without listening,
    connecting or scheduling. An ``experimental`` kind must be enabled by ``experimental: true``. ``protocols`` limits
    it to routers of these protocols; empty means any.
    """

    id: str
    config: type[Any]
    build: Callable[..., Any]
    experimental: bool = False
    protocols: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True)
class Runtime:
    """What ``build`` may use: the reactor, a metrics scope, randomness, and ``spawn`` for background coroutines.

    ``resolve`` is the shared DNS resolver: host name to a live address set with the given port (see ``namers.dns``).
    ``bind`` resolves a name through the interpreter that is being built (global namers, empty dtab); transformers use it.
    """

    reactor: Any
    metrics: Metrics
    random: Random
    spawn: Callable[[Coroutine[Any, Any, None], str], Callable[[], None]]
    resolve: Callable[[str, int], Live[Addr]]
    bind: Callable[[Path], Live[NameTree[Bound]]] | None = None


class Namer(Protocol):
    """A source of addresses, mounted under a prefix. It may also be a Twisted service, which is then started and stopped."""

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """Resolve ``path`` (without the namer's prefix): a bound leaf, a path to look up again, or neg."""
        ...


class EnumeratingNamer(Namer, Protocol):
    """A namer that can list the names it knows, for ``/bound-names.json``."""

    def names(self) -> list[Path]:
        """All names that can be bound now, with the namer's prefix."""
        ...


class Describing(Protocol):
    """A namer, interpreter or identifier that tells its state, for the admin server (linkerd-config spec 2.3)."""

    def describe(self) -> Mapping[str, Any]:
        """The state as JSON data, without secrets: what is watched, how old it is, and the last error."""
        ...


class Awaiting(Protocol):
    """An interpreter or identifier that no request can do without, and that has to learn something before the first one."""

    @property
    def awaits(self) -> str:
        """What it has not learnt yet, with the reason if there is one; empty from the first answer on. Shown by ``/admin/ready``."""
        ...


class DescribingNamer(Namer, Describing, Protocol):
    """A namer that tells its state at ``/namer_state/<prefix>.json``."""


class Interpreter(Protocol):
    """Binds logical names by a dtab; may also be a Twisted service."""

    def bind(self, dtab: Dtab, path: Path) -> Live[NameTree[Bound]]:
        """The live tree of bound names for ``path`` (dtab spec 5.3)."""
        ...


class Delegator(Protocol):
    """An interpreter that can explain itself."""

    def delegate(self, dtab: Dtab, path: Path) -> Live[Delegation]:
        """The live delegation tree for ``path`` (dtab spec 6)."""
        ...


class Transformer(Protocol):
    """Changes bound trees and their addresses (linkerd-config spec 8.3)."""

    def transform(self, tree: Live[NameTree[Bound]]) -> Live[NameTree[Bound]]:
        """The changed tree; ids of changed leaves get the transformer's ``/%/...`` prefix."""
        ...

    @property
    def can_delegate(self) -> bool:
        """Whether delegations through this transformer can still be explained."""
        ...


class NotYet:
    """What an identifier gives that does not know its rules yet: requests wait for it, within the binding timeout.

    One for all requests; ``waiting_for`` says in errors what is awaited.
    """

    __slots__ = ("_waiters", "waiting_for")

    def __init__(self, waiting_for: str = "") -> None:
        self.waiting_for = waiting_for
        self._waiters: dict[Exchange, None] = {}

    def __str__(self) -> str:
        return f"not known yet: {self.waiting_for}"

    def add(self, exchange: Exchange) -> None:
        """Let a request wait."""
        self._waiters[exchange] = None

    def forget(self, exchange: Exchange) -> None:
        """A request waits no longer."""
        self._waiters.pop(exchange, None)

    def resume(self) -> None:
        """The rules are known, or cannot be known: whoever waits is identified again."""
        for exchange in list(self._waiters):
            if exchange in self._waiters:  # it may have ended meanwhile
                del self._waiters[exchange]
                exchange.walk.identifiable(exchange)


Identified = Path | str | NotYet
"""The logical name of a request, the reason why there is none, or that it is not known yet."""


class Announcement(Protocol):
    """A server that is being announced."""

    @property
    def is_there(self) -> bool:
        """Whether others can find it now."""
        ...

    def withdraw(self) -> Deferred[None]:
        """Announce it no more; fires when others are told, or cannot be told within some seconds."""
        ...


class Announcer(Protocol):
    """Tells a service discovery of our servers; may also be a Twisted service, stopped when all it announced is withdrawn."""

    def announce(self, name: Path, host: str, port: int) -> Announcement:
        """Announce an address as ``name`` (without the announcer's prefix) from now on, whatever happens to the connection.

        Raises :class:`MeshError` for a name that cannot be announced at all.
        """
        ...


class Identifier(Protocol):
    """Gives a request its logical name. It may also be a Twisted service, which is then started and stopped with its router."""

    def identify(self, exchange: Exchange) -> Identified:
        """The logical name, or the reason why this identifier has none for the request, or that it cannot tell yet."""
        ...


class Propagator(Protocol):
    """Reads the traces of a router's callers from header fields and writes those of the next hop. It runs for every request.

    ``fields`` are the lower-case names that it knows, which are taken off a request and are for it to write. ``has_wide_ids`` tells
    whether a trace that begins here gets an id of 128 bits, ``heeds_sample`` whether ``l5d-sample`` decides about sampling.
    """

    @property
    def fields(self) -> Set[bytes]:
        """See the class."""
        ...

    @property
    def has_wide_ids(self) -> bool:
        """See the class."""
        ...

    @property
    def heeds_sample(self) -> bool:
        """See the class."""
        ...

    def read(self, seen: Mapping[bytes, bytes], span: int) -> TraceId | None:
        """The place in its trace of a request with the fields ``seen``, whose own id is ``span``; None when a trace begins with it.

        Never raises: what cannot be understood counts as absent.
        """
        ...

    def lines(self, trace: TraceId, span: int, seen: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        """The header lines that tell the next hop of the new ``span`` below ``trace``; ``seen`` is what the request came with."""
        ...


class CertificateSource(Protocol):
    """An identifier that has certificates, too, for listeners that want them (``tls.sni.ingress``)."""

    def serve_certificates(self, store: CertificateStore) -> None:
        """Keep the certificates of the identifier's own in ``store`` from its start on. To be called before that."""
        ...


class KindError(MeshError):
    """The registry cannot give a kind."""

    phase = "config"


@attrs.frozen(kw_only=True)
class UnknownKind(KindError):
    """No installed distribution announces the id."""

    group: str
    id: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return f"unknown kind {self.id!r}; known: {', '.join(self.known)}"


@attrs.frozen(kw_only=True)
class ConflictingKinds(KindError):
    """Two distributions announce the same id in one group; the start is refused."""

    group: str
    id: str
    distributions: tuple[str, ...]

    def __str__(self) -> str:
        return f"kind {self.id!r} of meshgw.{self.group} is announced by several distributions: {', '.join(self.distributions)}"


@attrs.frozen(kw_only=True)
class BrokenKind(KindError):
    """The announced object could not be imported or is not a Kind of that id."""

    group: str
    id: str
    reason: str

    def __str__(self) -> str:
        return f"kind {self.id!r} of meshgw.{self.group} cannot be loaded: {self.reason}"


class Registry:
    """The kinds of all installed distributions, found through entry points and imported on demand."""

    def __init__(self, entry_points: Mapping[str, list[metadata.EntryPoint]] | None = None) -> None:
        """Read the installed distributions' entry points, or the given ones (``group name → entry points``)."""
        if entry_points is None:
            entry_points = {group: list(metadata.entry_points(group=f"meshgw.{group}")) for group in GROUPS}
        self._points: dict[str, dict[str, list[metadata.EntryPoint]]] = {}
        for group, points in entry_points.items():
            found = self._points.setdefault(group, {})
            for point in points:
                if point not in found.setdefault(point.name, []):
                    found[point.name].append(point)
        self._loaded: dict[tuple[str, str], Kind] = {}

    def known(self, group: str) -> tuple[str, ...]:
        """The ids announced in ``group``, sorted."""
        return tuple(sorted(self._points.get(group, {})))

    def kind(self, group: str, id: str) -> Kind:
        """The kind ``id`` of ``group``. Raises :class:`UnknownKind`, :class:`ConflictingKinds` or :class:`BrokenKind`."""
        loaded = self._loaded.get((group, id))
        if loaded is not None:
            return loaded
        points = self._points.get(group, {}).get(id)
        if not points:
            raise UnknownKind(group=group, id=id, known=self.known(group))
        if len({point.value for point in points}) > 1:
            raise ConflictingKinds(group=group, id=id, distributions=tuple(_distribution(point) for point in points))
        txaio.use_twisted()  # type: ignore[no-untyped-call]  # so that a plug-in can make loggers of txaio while it is imported
        try:
            kind = points[0].load()
        except Exception as error:  # importing a plug-in may raise anything; it becomes a reported problem
            raise BrokenKind(group=group, id=id, reason=f"{type(error).__name__}: {error}") from error
        if not isinstance(kind, Kind) or kind.id != id:
            raise BrokenKind(group=group, id=id, reason=f"{points[0].value} is not a Kind with this id")
        self._loaded[group, id] = kind
        return kind

    def distributions(self, group: str, id: str) -> tuple[str, ...]:
        """The distributions that announce ``id`` in ``group``: none if it is unknown, several if they conflict."""
        return tuple(sorted({_distribution(point) for point in self._points.get(group, {}).get(id, [])}))

    def check(self) -> list[KindError]:
        """The conflicts between installed distributions, whether or not a configuration uses the kinds."""
        return [
            ConflictingKinds(group=group, id=id, distributions=tuple(_distribution(point) for point in points))
            for group, found in self._points.items()
            for id, points in found.items()
            if len({point.value for point in points}) > 1
        ]


def _distribution(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
