"""What a router tells of a ``TRACE`` request's way (``filters.diagnostic``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshgw.app.client import BoundClient
from meshgw.app.router import RouterCaches
from meshgw.bind.explain import explain_steps
from meshgw.core.live import Ok, current
from meshgw.filters.diagnostic import DiagnosticTrace
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path

MOST_ADDRESSES_SHOWN = 20


def diagnostic_trace(
    client: BoundClient, name: Path, *, label: str, clock: Callable[[], float], resolution: Callable[[Path, Dtab | None], Sequence[str]]
) -> DiagnosticTrace:
    """The filter for requests to ``client`` under a logical name."""
    nodes, pick = client.nodes, client.pick

    def picked() -> str:
        node = pick(nodes)
        return "none" if node is None else node.address.show()

    return DiagnosticTrace(
        label=label,
        name=name,
        client=client.id,
        clock=clock,
        addresses=lambda: [node.address.show() for node in nodes.all()[:MOST_ADDRESSES_SHOWN]],
        pick=picked,
        resolution=lambda ex: resolution(name, ex.dtab),
    )


def resolution(caches: RouterCaches, name: Path, dtab: Dtab | None) -> Sequence[str]:
    """How the name leads where it does now, step by step, where the interpreter can tell. ``dtab`` is that of the request."""
    delegate = getattr(caches.interpreter, "delegate", None)
    if delegate is None:
        return ()
    state = current(delegate(caches.dtab if dtab is None else caches.dtab + dtab, name))
    return explain_steps(state.value) if isinstance(state, Ok) else ()
