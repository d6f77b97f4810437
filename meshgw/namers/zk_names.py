"""What the namers over ZooKeeper have in common: the groups they follow, and names whose longest part that leads somewhere counts.

Source: linkerd-config spec 3.3 and 3.7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from meshgw.backends.kazoo_session import Ensemble
from meshgw.backends.zk_groups import Groups
from meshgw.backends.zookeeper import ZooKeeper
from meshgw.config.zookeeper import ZooKeeperConfig
from meshgw.core.address import Bound
from meshgw.core.live import Live, constant, live_flat_map
from meshgw.kinds import Runtime
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, NameTree, Neg

M = TypeVar("M")
Tree = Live[NameTree[Path | Bound]]

MOST_LABELS: Final = 32
"""Labels of a name that may be a node: each part of a name is asked for, and callers make names as long as they like."""
MEMBER: Final = "member_"
"""How the names of members begin in a group of Twitter's commons, server sets included."""


def ensemble_of(config: ZooKeeperConfig) -> Ensemble:
    """The servers that a configuration names."""
    auth = config.auth_info
    return Ensemble(
        tuple((address.host, address.port) for address in config.zk_addrs),
        config.session_timeout_ms / 1000,
        None if auth is None else (auth.scheme, auth.auth),
    )


def groups_of(
    ensemble: Ensemble,
    runtime: Runtime,
    *,
    select: Callable[[Iterable[str]], list[str]],
    parse: Callable[[bytes], M],
    show_member: Callable[[M], object],
) -> Groups[M]:
    """The groups of an ensemble for a namer, whose metrics are those of ``runtime``."""
    zookeeper = ZooKeeper(runtime.reactor, runtime.random, runtime.metrics.scope("zookeeper"), ensemble)
    metrics = runtime.metrics.scope("service")
    return Groups(zookeeper, runtime.random, metrics, select=select, parse=parse, show_member=show_member)


def longest_first(path: Path, bind: Callable[[int], Tree | None]) -> Tree:
    """The answer of ``bind`` for the most labels of ``path`` with which it is not neg; None counts as neg. Neg without any."""
    return _at_most(min(len(path), MOST_LABELS), bind)


def _at_most(count: int, bind: Callable[[int], Tree | None]) -> Tree:
    while count > 0:
        found = bind(count)
        if found is not None:
            return _or_fewer(found, count, bind)
        count -= 1
    return constant(NEG)


def _or_fewer(found: Tree, count: int, bind: Callable[[int], Tree | None]) -> Tree:
    def follow(tree: NameTree[Path | Bound]) -> Tree:
        return _at_most(count - 1, bind) if isinstance(tree, Neg) else constant(tree)

    return live_flat_map(found, follow)


def show_endpoint(endpoint: Any) -> str:
    """``host:port`` for ``/namer_state``."""
    return f"{endpoint.host}:{endpoint.port}"
