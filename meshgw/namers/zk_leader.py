"""``io.l5d.zkLeader``: a name is a group of candidates in ZooKeeper, its addresses are those that the leader wrote down.

Source: linkerd-config spec 3.7; candidates as Twitter's commons has them: children ``member_`` and a number, of which the lowest leads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import attrs
from twisted.application.service import MultiService

from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoint, Endpoints, Found, Resolve
from meshgw.backends.kazoo_session import Ensemble
from meshgw.backends.zk_groups import Group, Groups, node_path
from meshgw.config.document import Chosen, option
from meshgw.config.zookeeper import ZooKeeperConfigWithPorts
from meshgw.core.address import Bound
from meshgw.core.live import Live, live_map
from meshgw.kinds import Kind, Runtime
from meshgw.namers.watched import bound_found
from meshgw.namers.zk_names import MEMBER, ensemble_of, groups_of, longest_first, show_endpoint
from meshgw.naming.path import Path
from meshgw.naming.tree import NameTree
from meshgw.telemetry.metrics import Counter

_NUMBER: Final = re.compile(rf"{MEMBER}(-?[0-9]{{1,19}})")
_PLACE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")

Leader = tuple[Endpoint, ...]


@attrs.frozen(kw_only=True)
class ZkLeaderConfig(ZooKeeperConfigWithPorts):
    """Leaders elected in ZooKeeper. A name is the path of a group's node."""

    prefix: Path = option(factory=lambda: Path.read("/io.l5d.zkLeader"), doc="The namer answers names under `/#` followed by this path.")
    transformers: tuple[Chosen, ...] = option(
        default=(), doc="Transformers applied in the listed order to what this namer finds.", kinds="transformers"
    )


def leading(names: Iterable[str]) -> list[str]:
    """The candidate with the lowest number, if there is one."""
    numbered = [(int(match[1]), name) for name in names if (match := _NUMBER.fullmatch(name)) is not None]
    return [min(numbered)[1]] if numbered else []


def read_leader(data: bytes) -> Leader:
    """The places ``host:port[,host:port]`` that a candidate wrote down. Raises ValueError for anything else."""
    try:
        text = data.decode("utf-8")
    except ValueError as error:
        raise ValueError("it is no text in UTF-8") from error
    endpoints = []
    for place in text.split(","):
        match = _PLACE.fullmatch(place.strip())
        if match is None or not 1 <= int(match[2]) <= 65535:
            raise ValueError(f"it is not host:port[,host:port]: {text[:80]!r}")
        endpoints.append(Endpoint(match[1].strip("[]"), int(match[2])))
    return tuple(dict.fromkeys(endpoints))


def found_leader(group: Group[Leader]) -> Found:
    """The endpoints of the leader; a group without one is unknown."""
    return Endpoints(group.members[0]) if group.members else NO_ENDPOINTS


class ZkLeaderNamer(MultiService):
    """The namer of one ensemble; ``prefix`` stands before the ids of what it finds."""

    def __init__(self, groups: Groups[Leader], prefix: Path, resolve: Resolve, lookups: Counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._groups, self._prefix, self._resolve, self._lookups = groups, prefix, resolve, lookups
        self.addService(groups)  # type: ignore[no-untyped-call]

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """The group of as many labels as possible, the others as residual; neg if no part of the name is a group with a leader."""
        self._lookups.incr()

        def bind(count: int) -> Live[NameTree[Path | Bound]] | None:
            node = node_path(path.take(count))
            if node is None:
                return None
            found = live_map(self._groups.watch(node), found_leader)
            id, rest = self._prefix + path.take(count), path.drop(count)
            return bound_found(found, node, self._groups.clock, id=id, residual=rest, resolve=self._resolve)

        return longest_first(path, bind)

    def describe(self) -> dict[str, Any]:
        """What is watched, for ``/namer_state``."""
        return self._groups.describe()


def leader_namer(ensemble: Ensemble, prefix: Path, runtime: Runtime) -> ZkLeaderNamer:
    """The namer of an ensemble, with the metrics of ``runtime``."""
    groups = groups_of(ensemble, runtime, select=leading, parse=read_leader, show_member=lambda leader: [*map(show_endpoint, leader)])
    return ZkLeaderNamer(groups, prefix, runtime.resolve, runtime.metrics.counter("lookups"))


def build_zk_leader(config: ZkLeaderConfig, runtime: Runtime) -> ZkLeaderNamer:
    """The namer for a configuration block."""
    return leader_namer(ensemble_of(config), Path.of("#") + config.prefix, runtime)


KIND = Kind(id="io.l5d.zkLeader", config=ZkLeaderConfig, build=build_zk_leader)
