"""What leaves the mesh says nothing of its inside, and what comes back is not believed about it (``stripContext`` of a client).

Source: linkerd-config spec 7 (the ``l5d-*`` fields); RFC 9110 section 7.6.3, RFC 7239 section 8.2 (Via and Forwarded tell of a network).
"""

from __future__ import annotations

from typing import Final

from meshgw.core.exchange import Exchange
from meshgw.filters.propagation import TRACE_FIELDS

INSIDE: Final = (b"l5d-", b"x-forwarded-", b"dtab-local", b"x-b3-")
"""Beginnings of names of request fields that do not leave."""
_NAMES: Final = TRACE_FIELDS | {b"forwarded", b"x-real-ip", b"via"}
_OWN_VIA: Final = b"Via: 1.1 linkerd"
_OWN_H2_VIA: Final = b"Via: h2 linkerd"
_NOTE: Final = "unstripped"


class StripContext:
    """Stands where ``filters.destination`` would write what the next hop may know: it writes nothing but a Via of this hop alone."""

    __slots__ = ()

    def on_request(self, ex: Exchange) -> None:
        """Send on a copy without the inside's fields: a retry may lead to a service of the inside, which is to see them."""
        headers = ex.headers
        if ex.notes is None:
            ex.notes = {}
        ex.notes[_NOTE] = headers.lines
        lines = [line for line in headers.lines if not _is_inside(line)]
        lines.append(_OWN_H2_VIA if ex.version == b"2" else _OWN_VIA)
        headers.lines = lines

    def on_end(self, ex: Exchange) -> None:
        """The attempt ended: the request is as it was."""
        lines = (ex.notes or {}).pop(_NOTE, None)
        if lines is not None:
            ex.headers.lines = lines

    def on_response(self, ex: Exchange) -> None:
        """An answer from outside has no context, and tells no hops but this one."""
        response = ex.response
        response.remove_prefixed(b"l5d-")
        response.seen.pop(b"via", None)  # its line was taken off when it was read
        response.lines.append(_OWN_VIA if ex.status_line else _OWN_H2_VIA)


def _is_inside(line: bytes) -> bool:
    name = line.partition(b":")[0].lower()
    return name.startswith(INSIDE) or name in _NAMES
