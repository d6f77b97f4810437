"""Tells the caller how the service's classifier judged its answer, so that every hop counts alike.

Source: linkerd-config spec 7.3 (l5d-success-class).
"""

from __future__ import annotations

from meshgw.core.exchange import Exchange
from meshgw.filters.classify import SUCCESS

_GOOD, _BAD = b"l5d-success-class: 1.0", b"l5d-success-class: 0.0"


class SuccessClass:
    """Adds the header; what an endpoint said of itself was taken off when its answer was read."""

    __slots__ = ()

    def on_response(self, ex: Exchange) -> None:
        """Write the verdict."""
        ex.response.lines.append(_GOOD if ex.verdict is SUCCESS else _BAD)
