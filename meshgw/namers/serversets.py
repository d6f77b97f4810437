"""``io.l5d.serversets``: names are server sets of Twitter's commons in ZooKeeper, as Aurora and Finagle announce them.

Source: linkerd-config spec 3.3; members as finagle-serversets writes them. A label may choose an additional endpoint (``web:admin``) or a
shard (``web#3``, ``web:admin#3``). A set without members that are alive is neg. Unlike Linkerd, a member that cannot be read is left
out and told of, and host names of members stay resolved. Weight vectors are not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
from twisted.application.service import MultiService

from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoint, Endpoints, Found, Resolve
from meshgw.backends.zk_groups import Group, Groups, node_path
from meshgw.config.document import Chosen, option
from meshgw.config.zookeeper import ZooKeeperConfig
from meshgw.core.address import Bound
from meshgw.core.live import Live, live_map
from meshgw.kinds import Kind, Runtime
from meshgw.namers.watched import bound_found
from meshgw.namers.zk_names import MEMBER, ensemble_of, groups_of, longest_first
from meshgw.naming.path import Path
from meshgw.naming.tree import NameTree
from meshgw.telemetry.metrics import Counter

ALIVE: Final = "ALIVE"
_LABEL: Final = re.compile(rb"(?P<name>[^:#]+)(?::(?P<endpoint>[^:#]+))?(?:#(?P<shard>[0-9]{1,9}))?")


@attrs.frozen(kw_only=True)
class ServersetsConfig(ZooKeeperConfig):
    """Server sets in ZooKeeper. A name is the path of a set's node, its last label with `:endpoint` or `#shard` if one is wanted."""

    prefix: Path = option(factory=lambda: Path.read("/io.l5d.serversets"), doc="The namer answers names under `/#` followed by this path.")
    transformers: tuple[Chosen, ...] = option(
        default=(), doc="Transformers applied in the listed order to what this namer finds.", kinds="transformers"
    )


# Members


@attrs.frozen
class Member:
    """One member of a set: where it serves, by the names of its endpoints; None names the service itself."""

    status: str
    endpoints: Mapping[str | None, tuple[str, int]] = attrs.field(hash=False)
    shard: int | None = None


def read_member(data: bytes) -> Member:
    """The member that a node's data describes. Raises ValueError, with the reason, for what is none."""
    try:
        found = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"it is no JSON in UTF-8: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    status, shard, additional = found.get("status"), found.get("shard"), found.get("additionalEndpoints")
    if not isinstance(status, str):
        raise ValueError("it has no status")
    endpoints: dict[str | None, tuple[str, int]] = {None: _endpoint(found.get("serviceEndpoint"), "serviceEndpoint")}
    for name, value in additional.items() if isinstance(additional, dict) else ():
        endpoints[name] = _endpoint(value, f"additionalEndpoints.{name}")
    return Member(status, endpoints, _whole(shard))


def _endpoint(value: Any, where: str) -> tuple[str, int]:
    if not isinstance(value, dict):
        raise ValueError(f"it has no {where}")
    host, port = value.get("host"), _whole(value.get("port"))
    if not isinstance(host, str) or not host or port is None or not 1 <= port <= 65535:
        raise ValueError(f"its {where} is no host and port")
    return host, port


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def member_data(host: str, port: int) -> bytes:
    """What a member's node holds, as Finagle's announcer writes it."""
    endpoint = {"host": host, "port": port}
    return json.dumps({"serviceEndpoint": endpoint, "additionalEndpoints": {}, "status": ALIVE, "shard": 0}).encode()


def show_member(member: Member) -> object:
    """For ``/namer_state``."""
    places = {name or "service": f"{host}:{port}" for name, (host, port) in member.endpoints.items()}
    return {"status": member.status, "shard": member.shard, "endpoints": places}


# Names


@attrs.frozen
class SetName:
    """A set, and what of its members is wanted."""

    path: str
    endpoint: str | None = None
    shard: int | None = None

    @classmethod
    def read(cls, path: Path) -> SetName | None:
        """What a name tells; None if it can tell no set."""
        match = _LABEL.fullmatch(path[-1]) if path else None
        if match is None:
            return None
        node = node_path([*path[:-1], match["name"]])
        endpoint, shard = match["endpoint"], match["shard"]
        if node is None:
            return None
        name = None if endpoint is None else endpoint.decode("utf-8", "replace")
        return cls(node, name, None if shard is None else int(shard))

    def found(self, group: Group[Member]) -> Found:
        """The endpoints that are wanted, of members that are alive; a set that has none counts as unknown (spec 3.1, Finagle)."""
        endpoints: dict[tuple[str, int], Endpoint] = {}
        for member in group.members:
            place = member.endpoints.get(self.endpoint)
            if place is not None and member.status == ALIVE and self.shard in (None, member.shard):
                endpoints.setdefault(place, Endpoint(*place))
        return Endpoints(tuple(endpoints.values())) if endpoints else NO_ENDPOINTS


def members(names: Iterable[str]) -> list[str]:
    """The children of a set's node that are members."""
    return [name for name in names if name.startswith(MEMBER)]


class ServersetsNamer(MultiService):
    """The namer of one ensemble; ``prefix`` is its full mount point with ``/#``."""

    def __init__(self, groups: Groups[Member], prefix: Path, resolve: Resolve, lookups: Counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._groups, self._prefix, self._resolve, self._lookups = groups, prefix, resolve, lookups
        self.addService(groups)  # type: ignore[no-untyped-call]

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """The set of as many labels as possible, the others as residual; neg if no part of the name is a set with members."""
        self._lookups.incr()

        def bind(count: int) -> Live[NameTree[Path | Bound]] | None:
            name = SetName.read(path.take(count))
            if name is None:
                return None
            found = live_map(self._groups.watch(name.path), name.found)
            id, rest = self._prefix + path.take(count), path.drop(count)
            return bound_found(found, name.path, self._groups.clock, id=id, residual=rest, resolve=self._resolve)

        return longest_first(path, bind)

    def describe(self) -> dict[str, Any]:
        """What is watched, for ``/namer_state``."""
        return self._groups.describe()


def build_serversets(config: ServersetsConfig, runtime: Runtime) -> ServersetsNamer:
    """The namer for a configuration block."""
    groups = groups_of(ensemble_of(config), runtime, select=members, parse=read_member, show_member=show_member)
    return ServersetsNamer(groups, Path.of("#") + config.prefix, runtime.resolve, runtime.metrics.counter("lookups"))


KIND = Kind(id="io.l5d.serversets", config=ServersetsConfig, build=build_serversets)
