"""A tunnel on a caller's connection, after Upgrade or CONNECT: how many bytes passed, and whether any did of late.

Source: RFC 9110 sections 7.8 and 9.3.6. The bytes themselves are passed by :class:`meshgw.server.http.HttpServer` and its upstream; what is
known here is read off the connection's own counters, so that a chunk costs nothing more.
"""

from __future__ import annotations

from typing import Protocol

from meshgw.core.stream import Stream


class TunnelStats(Protocol):
    """What a listener counts of its tunnels."""

    def opened(self) -> None:
        """A tunnel began."""
        ...

    def ended(self, received: int, sent: int) -> None:
        """It ended, after so many bytes from and to the caller."""
        ...

    def idled(self) -> None:
        """It is about to be ended for having stood still."""
        ...


class Uncounted:
    """Counts nothing."""

    def opened(self) -> None:
        """See :class:`TunnelStats`."""

    def ended(self, received: int, sent: int) -> None:
        """See :class:`TunnelStats`."""

    def idled(self) -> None:
        """See :class:`TunnelStats`."""


class OpenTunnel:
    """One tunnel. It stands still when neither end has taken or given a byte at the caller's side; what waits for the caller may wait."""

    __slots__ = ("_checks", "_connection", "_marker", "_received", "_sent", "_stats", "_still")

    def __init__(self, connection: Stream, stats: TunnelStats, *, checks: int, head: int, early: int) -> None:
        """``head`` bytes of an answer are still to be sent, ``early`` bytes of the tunnel came already. ``checks`` are those without
        a byte until it is idle.
        """
        self._connection, self._stats, self._checks = connection, stats, checks
        self._received, self._sent = connection.received - early, connection.sent + head
        self._marker = (-1, -1)
        self._still = 0
        stats.opened()

    @property
    def passed(self) -> tuple[int, int]:
        """Bytes from and to the caller."""
        return self._connection.received - self._received, max(0, self._connection.sent - self._sent)

    def is_idle(self) -> bool:
        """Whether no byte passed since so many calls; counted if so, as the tunnel is to be ended then."""
        passed = self.passed
        if passed != self._marker:
            self._marker, self._still = passed, 0
            return False
        self._still += 1
        if self._still < self._checks:
            return False
        self._stats.idled()
        return True

    def ended(self) -> int:
        """Count it; gives the bytes sent to the caller."""
        received, sent = self.passed
        self._stats.ended(received, sent)
        return sent
