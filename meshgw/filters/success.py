"""Tells the caller how the service's classifier judged its answer, so that every hop counts alike.

Source: linkerd-config spec 7.3 (l5d-success-class).
"""

from __future__ import annotations

from meshgw.core.exchange import Exchange
from meshgw.filters.classify import SUCCESS

SUCCESS_LINE, FAILURE_LINE = b"l5d-success-class: 1.0", b"l5d-success-class: 0.0"


class SuccessClass:
    """Adds the header; what an endpoint said of itself was taken off when its answer was read."""

    __slots__ = ()

    def on_response(self, ex: Exchange) -> None:
        """Write the verdict."""
        ex.response.lines.append(SUCCESS_LINE if ex.verdict is SUCCESS else FAILURE_LINE)


class LateSuccessClass(SuccessClass):
    """The same where the end of an answer may decide."""

    __slots__ = ()

    def on_response(self, ex: Exchange) -> None:
        """Write the verdict, unless it comes with the end of an answer that is being passed on: the walk adds it to the trailers then."""
        if ex.answer_trailers is not None:
            super().on_response(ex)
