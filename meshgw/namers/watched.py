"""What the namers over a watched backend share: a watched service as a bound name.

Source: linkerd-config spec 3.1 (a name that is known and has no endpoint stays bound, one that is unknown is neg).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime

from meshgw.backends.endpoints import Found, NoEndpoints, Resolve, resolved
from meshgw.backends.watching import Watches
from meshgw.core.address import Bound
from meshgw.core.live import Live, live_map
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf, NameTree

K = TypeVar("K", bound=Hashable)


def bound_name(watches: Watches[K, Found], key: K, *, id: Path, residual: Path, resolve: Resolve) -> Live[NameTree[Path | Bound]]:
    """The tree of one name: bound to what ``watches`` finds for ``key`` while that exists, else neg.

    Endpoints that come and go change the addresses only, so that whoever follows the tree is not told of them.
    """
    return bound_found(watches.watch(key), watches.show(key), watches.clock, id=id, residual=residual, resolve=resolve)


def bound_found(
    found: Live[Found], shown: str, clock: IReactorTime, *, id: Path, residual: Path, resolve: Resolve
) -> Live[NameTree[Path | Bound]]:
    """As :func:`bound_name`, of what was found some other way; ``shown`` says in messages whose endpoints these are."""
    leaf: Leaf[Path | Bound] = Leaf(Bound(id, resolved(found, resolve, shown, clock), residual))

    def tree(value: Found) -> NameTree[Path | Bound]:
        return NEG if isinstance(value, NoEndpoints) else leaf

    return live_map(found, tree)
