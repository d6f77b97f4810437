"""What the namers over a watched backend share: a watched service as a bound name.

Source: linkerd-config spec 3.1 (a name that is known and has no endpoint stays bound, one that is unknown is neg).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime

from meshgw.backends.endpoints import Found, NoEndpoints, Resolve, resolved
from meshgw.backends.watching import Watches
from meshgw.core.address import Addr, Bound, Replicas
from meshgw.core.live import Failed, Live, Ok, Source, State, live_map
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf, NameTree

K = TypeVar("K", bound=Hashable)


def bound_name(
    watches: Watches[K, Found], key: K, *, id: Path, residual: Path, resolve: Resolve, needs_address: bool = False
) -> Live[NameTree[Path | Bound]]:
    """The tree of one name: bound to what ``watches`` finds for ``key`` while that exists, else neg.

    Endpoints that come and go change the addresses only, so that whoever follows the tree is not told of them. With ``needs_address``
    it is neg, so that alternatives are tried, also while none of their hosts has an address.
    """
    shown = watches.show(key)
    return bound_found(watches.watch(key), shown, watches.clock, id=id, residual=residual, resolve=resolve, needs_address=needs_address)


def bound_found(
    found: Live[Found], shown: str, clock: IReactorTime, *, id: Path, residual: Path, resolve: Resolve, needs_address: bool = False
) -> Live[NameTree[Path | Bound]]:
    """As :func:`bound_name`, of what was found some other way; ``shown`` says in messages whose endpoints these are."""
    addr = resolved(found, resolve, shown, clock)
    leaf: Leaf[Path | Bound] = Leaf(Bound(id, addr, residual))
    if needs_address:
        return _while_reachable(found, addr, leaf)

    def tree(value: Found) -> NameTree[Path | Bound]:
        return NEG if isinstance(value, NoEndpoints) else leaf

    return live_map(found, tree)


def _while_reachable(found: Live[Found], addr: Live[Addr], leaf: Leaf[Path | Bound]) -> Live[NameTree[Path | Bound]]:
    def start(out: Source[NameTree[Path | Bound]]) -> Callable[[], None]:
        def notify(state: State[Addr]) -> None:
            if isinstance(state, Ok):
                has_address = isinstance(state.value, Replicas) and bool(state.value.addresses)
                out.put(Ok(leaf if has_address else NEG, state.error))
            elif isinstance(state, Failed) and isinstance(found.state, Ok):
                out.put(Ok(NEG, state.error))  # the backend answers; it is the hosts that have no address
            else:
                out.put(state)

        return addr.observe(notify).close

    return Source(start, forget=True)
