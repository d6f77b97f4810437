"""The announcer ``io.l5d.serversets``: servers of ours become members of server sets in ZooKeeper.

Source: linkerd-config spec 3.12; members as Finagle's announcer writes them, so that Linkerd, Finagle and our own namer find them. The node
is ``pathPrefix`` followed by what the announced name has behind the announcer's prefix. Unlike Linkerd, of a server with several
addresses each is a member of its own: there the last one displaces the others.
"""

from __future__ import annotations

from random import Random

import attrs
from twisted.application.service import MultiService

from meshgw.backends.kazoo_session import shown
from meshgw.backends.zk_groups import node_path
from meshgw.backends.zk_membership import Membership
from meshgw.backends.zookeeper import ZooKeeper
from meshgw.config.document import option
from meshgw.config.zookeeper import ZooKeeperConfig
from meshgw.errors import NamerError
from meshgw.kinds import Kind, Runtime
from meshgw.namers.serversets import member_data
from meshgw.namers.zk_names import MEMBER, ensemble_of
from meshgw.naming.path import Path


@attrs.frozen(kw_only=True)
class ServersetsAnnouncerConfig(ZooKeeperConfig):
    """Announces servers as members of server sets in ZooKeeper."""

    prefix: Path = option(factory=lambda: Path.read("/io.l5d.serversets"), doc="Names under `/#` followed by this path are announced.")
    path_prefix: Path = option(
        factory=lambda: Path.read("/discovery"), doc="Path of the node below which the sets are; the rest of the name follows it."
    )


class ServersetsAnnouncer(MultiService):
    """Announces to one ensemble, over a session of its own, with which all that it announced ends."""

    def __init__(self, zookeeper: ZooKeeper, rng: Random, path_prefix: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._zookeeper, self._rng, self._path_prefix = zookeeper, rng, path_prefix
        self.addService(zookeeper)  # type: ignore[no-untyped-call]

    def announce(self, name: Path, host: str, port: int) -> Membership:
        """See :class:`meshgw.kinds.Announcer`."""
        path = self._path_prefix + name
        node = node_path(path)
        if node is None or not name:
            raise NamerError(detail=f"{path.show()} can be no server set in ZooKeeper")
        what = f"{shown(host, port)} in {node} of {self._zookeeper.backend}"
        membership = Membership(self._zookeeper, self._rng, path=f"{node}/{MEMBER}", data=member_data(host, port), what=what)
        membership.start()
        return membership


def build_announcer(config: ServersetsAnnouncerConfig, runtime: Runtime) -> ServersetsAnnouncer:
    """The announcer for a configuration block."""
    zookeeper = ZooKeeper(runtime.reactor, runtime.random, runtime.metrics.scope("zookeeper"), ensemble_of(config))
    return ServersetsAnnouncer(zookeeper, runtime.random, config.path_prefix)


KIND = Kind(id="io.l5d.serversets", config=ServersetsAnnouncerConfig, build=build_announcer)
