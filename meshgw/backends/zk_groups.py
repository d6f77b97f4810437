"""Groups in ZooKeeper: a node whose children are members, each with its data, followed live.

Source: linkerd-config spec 3.3 and 3.7. What a member's data means is told by ``parse``; one that cannot be read is left out and told of,
the others count. Members that come or go cost one reading of the list, and one of each that is new or has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Final, Generic, TypeVar

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, FirstError, gatherResults

from meshgw.backends.watching import Pace, Watch, Watches
from meshgw.backends.zookeeper import View, ZooKeeper
from meshgw.core.live import Live
from meshgw.core.logger import make_logger
from meshgw.errors import BackendError, BackendMalformed, BackendRefused
from meshgw.telemetry.metrics import Metrics

_log = make_logger()

M = TypeVar("M")

RESYNC_SECONDS: Final = 240.0
"""How often the list is read although nothing is told: a notice that got lost must not be lost for ever, and it shows that we look."""
APART_SECONDS: Final = 0.1
"""From one change to the next: of many that come one by one, each would have the list read and everything behind it worked out anew."""
MOST_TOLD: Final = 10
LONGEST_PATH: Final = 1024
_NO_NAMES: Final = (b".", b"..")


@attrs.frozen
class Group(Generic[M]):
    """The members of a node in the order of their names. Without ``exists`` there is no such node."""

    members: tuple[M, ...] = ()
    exists: bool = True


@attrs.frozen
class Unusable:
    """A member that is left out, and why."""

    reason: str


def node_path(labels: Sequence[bytes], base: str = "/") -> str | None:
    """The node below ``base`` that these labels of a name tell; None if no node can be called so."""
    names = []
    for label in labels:
        try:
            name = label.decode("utf-8")
        except UnicodeDecodeError:
            return None
        if "/" in name or label in _NO_NAMES or not name.isprintable():
            return None
        names.append(name)
    path = base.rstrip("/") + "/" + "/".join(names)
    return path if len(path) <= LONGEST_PATH else None


class Groups(MultiService, Generic[M]):
    """The groups of one ensemble, by the path of their node.

    ``select`` chooses among the names of a node's children those to be read, ``parse`` makes a member of one's data; it raises
    ValueError, with the reason, for what is none.
    """

    def __init__(
        self,
        zookeeper: ZooKeeper,
        rng: Random,
        metrics: Metrics,
        *,
        select: Callable[[Iterable[str]], list[str]],
        parse: Callable[[bytes], M],
        show_member: Callable[[M], object],
        pace: Pace = Pace(),
    ) -> None:
        """``metrics`` is the scope of what is watched."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._zookeeper, self._select, self._parse = zookeeper, select, parse
        self._rng, self.clock = rng, zookeeper.clock

        def show_group(group: Group[M]) -> object:
            return [show_member(member) for member in group.members] if group.exists else None

        self._watches: Watches[str, Group[M]] = Watches(
            self.clock,
            rng,
            metrics,
            backend=zookeeper.backend,
            follow=self._follow,
            show=str,
            show_value=show_group,
            pace=pace,
        )
        self.addService(zookeeper)  # type: ignore[no-untyped-call]
        self.addService(self._watches)  # type: ignore[no-untyped-call]

    def watch(self, path: str) -> Live[Group[M]]:
        """The live members of the node at ``path``."""
        return self._watches.watch(path)

    def describe(self) -> dict[str, Any]:
        """The connection and what is watched, as JSON data for ``/namer_state``."""
        return {"zookeeper": self._zookeeper.describe(), **self._watches.describe()}  # what is watched begins with a slash

    async def _follow(self, watch: Watch[str, Group[M]]) -> None:
        view = await self._zookeeper.view()
        try:
            await _Following(self, watch, view).run()
        finally:
            view.close()

    # --- for following one

    def select(self, names: Iterable[str]) -> list[str]:
        """The names to be read, sorted."""
        return sorted(self._select(names))

    def member(self, data: bytes) -> M | Unusable:
        """A member of its data."""
        try:
            return self._parse(data)
        except (ValueError, RecursionError) as error:
            return Unusable(str(error) or type(error).__name__)

    def useless(self, path: str, unusable: Mapping[str, str]) -> BackendError:
        """The error of a group none of whose members can be used."""
        reason = f"none of the {len(unusable)} members can be used: {next(iter(unusable.values()))}"
        return BackendMalformed(backend=self._zookeeper.backend, reason=reason, asked=path)

    def pause(self) -> float:
        """Seconds until the list is read without a reason; groups are not to be read together."""
        return RESYNC_SECONDS * self._rng.uniform(0.8, 1.2)


class _Following(Generic[M]):
    """One group over one connection."""

    def __init__(self, groups: Groups[M], watch: Watch[str, Group[M]], view: View) -> None:
        self._groups, self._watch, self._view = groups, watch, view
        self._path = watch.key
        self._members: dict[str, M | Unusable | None] = {}
        self._told: set[str] = set()

    def _place(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}"

    async def run(self) -> None:
        """Tell what is there, again at each change, until the connection ends."""
        changed = {self._path}
        names: list[str] | None = None
        while True:
            if not changed or self._path in changed:
                names = await self._view.children(self._path)
            wanted = [] if names is None else self._groups.select(names)
            self._drop_others(wanted)
            await self._read([name for name in wanted if name not in self._members or self._place(name) in changed])
            self._tell(wanted, exists=names is not None)
            changed = await self._view.changed(self._groups.pause(), apart=APART_SECONDS)
            self._watch.heard()

    def _drop_others(self, wanted: Sequence[str]) -> None:
        for name in self._members.keys() - set(wanted):
            del self._members[name]
            self._told.discard(name)
            self._view.forget(self._place(name))

    async def _read(self, names: Sequence[str]) -> None:
        reading = [Deferred.fromCoroutine(self._read_one(name)) for name in names]
        try:
            await gatherResults(reading, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()

    async def _read_one(self, name: str) -> None:
        try:
            data = await self._view.data(self._place(name))
        except BackendRefused as error:
            self._members[name] = Unusable(error.reason)
        else:
            self._members[name] = None if data is None else self._groups.member(data)  # gone; the list will tell too

    def _tell(self, wanted: Sequence[str], *, exists: bool) -> None:
        found = [self._members[name] for name in wanted]
        unusable = {name: member.reason for name in wanted if isinstance(member := self._members[name], Unusable)}
        self._watch.facts = {"members": len(wanted), "unusable": dict(list(unusable.items())[:MOST_TOLD])}
        for name in [name for name in unusable if name not in self._told][:MOST_TOLD]:
            _log.warn("{path} is left out: {reason}", path=self._place(name), reason=unusable[name])
        self._told = set(unusable)
        good = tuple(member for member in found if member is not None and not isinstance(member, Unusable))
        if unusable and not good:  # surely not meant as "no members": what served until now goes on to
            self._watch.bad(self._groups.useless(self._path, unusable))
        else:
            self._watch.good(Group(good, exists))
