"""A server's limit of concurrent requests.

Source: linkerd-config spec 4.2 and 5.8: what exceeds it is rejected at once with a nack that callers may send again elsewhere; nothing
queues.
"""

from __future__ import annotations

from urllib.parse import quote_plus

from meshgw.core.exchange import Exchange
from meshgw.core.stack import Reply


class ConcurrencyLimit:
    """Lets ``most`` requests through at a time. ``current`` is their number, ``rejected`` counts the others."""

    __slots__ = ("_most", "_reply", "current", "rejected")

    def __init__(self, most: int) -> None:
        self._most = most
        self.current = self.rejected = 0
        text = f"more than {most} concurrent requests (maxConcurrentRequests)"
        headers = (
            (b"finagle-http-nack", b"true"),
            (b"Retry-After", b"0"),
            (b"l5d-retryable", b"true"),
            (b"l5d-err", quote_plus(text).encode("ascii")),
            (b"Content-Type", b"text/plain"),
        )
        self._reply = Reply(503, text.encode("ascii"), headers)

    def on_request(self, ex: Exchange) -> Reply | None:
        """Count the request in, or reject it."""
        if self.current >= self._most:
            self.rejected += 1
            return self._reply
        self.current += 1
        return None

    def on_end(self, ex: Exchange) -> None:
        """One that was let through ended."""
        self.current -= 1
