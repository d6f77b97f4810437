"""Tells the service who calls: ``l5d-client-id`` with the identity of the caller's verified certificate.

Source: our own. What a caller says in that field is taken off every request when it is read (``filters.context``), so that whoever finds
the field in a request that came through here can rely on it.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from meshgw.core.exchange import Exchange

CLIENT_ID: Final = b"l5d-client-id"
_VISIBLE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
_MOST_KNOWN: Final = 1024


def encoded(identity: str) -> bytes:
    """The identity as a field's value: spaces, percent signs, control characters and what is not ASCII are percent-encoded."""
    return quote(identity, safe=_VISIBLE, errors="replace").encode("ascii")


class ClientId:
    """Writes the field on requests of connections that have an identity."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}

    def on_request(self, ex: Exchange) -> None:
        """Append the line; identifiers may read it too."""
        secured = ex.secured
        if secured is None or secured.identity is None:
            return
        value = self._known.get(secured.identity)
        if value is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            value = self._known[secured.identity] = encoded(secured.identity)
        ex.headers.add(CLIENT_ID, value)
