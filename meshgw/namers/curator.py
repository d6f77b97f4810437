"""``io.l5d.curator``: names are services of Apache Curator's service discovery in ZooKeeper.

Source: linkerd-config spec 3.7; nodes ``<basePath>/<service>/<instance>`` with JSON as Curator writes it (``address``, ``port``,
``sslPort``, ``enabled``). As in Linkerd every name is bound, if need be to no address: nobody can tell a service that is down from none.
Unlike Linkerd, an instance that says ``"enabled": false`` is not used, and the metadata ``ssl`` follows the instances.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import attrs
from twisted.application.service import MultiService

from meshgw.backends.endpoints import Endpoint, Endpoints, Found, Resolve, resolved
from meshgw.backends.zk_groups import Group, Groups, node_path
from meshgw.config.document import Chosen, option
from meshgw.config.zookeeper import ZooKeeperConfig
from meshgw.core.address import Bound
from meshgw.core.live import Live, constant, live_map
from meshgw.kinds import Kind, Runtime
from meshgw.namers.zk_names import ensemble_of, groups_of
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf, NameTree
from meshgw.telemetry.metrics import Counter


def _absolute(path: str) -> str | None:
    labels = [label.encode() for label in path.split("/") if label]
    return None if path.startswith("/") and node_path(labels) is not None else f"{path!r} is no path of a node; it begins with /"


@attrs.frozen(kw_only=True)
class CuratorConfig(ZooKeeperConfig):
    """Services of Apache Curator's discovery. A name is the service's."""

    base_path: str = option(default="/", doc="Path of the node below which the services are.", check=_absolute)
    prefix: Path = option(factory=lambda: Path.read("/io.l5d.curator"), doc="The namer answers names under `/#` followed by this path.")
    transformers: tuple[Chosen, ...] = option(
        default=(), doc="Transformers applied in the listed order to what this namer finds.", kinds="transformers"
    )


@attrs.frozen
class Instance:
    """One instance of a service."""

    host: str
    port: int
    is_ssl: bool = False
    is_enabled: bool = True


def read_instance(data: bytes) -> Instance:
    """The instance that a node's data describes. Raises ValueError, with the reason, for what is none."""
    try:
        found = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"it is no JSON in UTF-8: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    host, port, ssl_port = found.get("address"), found.get("port"), found.get("sslPort")
    if not isinstance(host, str) or not host:
        raise ValueError("it has no address")
    chosen = port if ssl_port is None else ssl_port
    if not isinstance(chosen, int) or isinstance(chosen, bool) or not 1 <= chosen <= 65535:
        raise ValueError("it has no port")
    return Instance(host, chosen, ssl_port is not None, found.get("enabled") is not False)


def show_instance(instance: Instance) -> object:
    """For ``/namer_state``."""
    return {"address": f"{instance.host}:{instance.port}", "ssl": instance.is_ssl, "enabled": instance.is_enabled}


def found_instances(group: Group[Instance]) -> Found:
    """The endpoints of those that are enabled; ``ssl`` tells whether any of them is to be spoken to with TLS."""
    enabled = [instance for instance in group.members if instance.is_enabled]
    endpoints = tuple(dict.fromkeys(Endpoint(instance.host, instance.port) for instance in enabled))
    return Endpoints(endpoints, {"ssl": any(instance.is_ssl for instance in enabled)})


def every(names: Iterable[str]) -> list[str]:
    """All children of a service's node are instances."""
    return list(names)


class CuratorNamer(MultiService):
    """The namer of one ensemble; ``prefix`` is its full mount point with ``/#``."""

    def __init__(self, groups: Groups[Instance], base: str, prefix: Path, resolve: Resolve, lookups: Counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._groups, self._base, self._prefix, self._resolve, self._lookups = groups, base, prefix, resolve, lookups
        self.addService(groups)  # type: ignore[no-untyped-call]

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """The service of the first label, bound whether or not it has instances; neg only for what can be no service's name."""
        self._lookups.incr()
        node = node_path(path.take(1), self._base) if path else None
        if node is None:
            return constant(NEG)
        addr = resolved(live_map(self._groups.watch(node), found_instances), self._resolve, node, self._groups.clock)
        return constant(Leaf(Bound(self._prefix + path.take(1), addr, path.drop(1))))

    def describe(self) -> dict[str, Any]:
        """What is watched, for ``/namer_state``."""
        return self._groups.describe()


def build_curator(config: CuratorConfig, runtime: Runtime) -> CuratorNamer:
    """The namer for a configuration block."""
    groups = groups_of(ensemble_of(config), runtime, select=every, parse=read_instance, show_member=show_instance)
    return CuratorNamer(groups, config.base_path, Path.of("#") + config.prefix, runtime.resolve, runtime.metrics.counter("lookups"))


KIND = Kind(id="io.l5d.curator", config=CuratorConfig, build=build_curator, experimental=True)
