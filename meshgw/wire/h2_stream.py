"""One HTTP/2 stream: its two halves, its windows, and what waits to be sent on it.

Source: RFC 9113 sections 5.1 and 5.2. A stream belongs to a connection (``wire.h2_connection``), which moves its frames; whoever speaks
over it subclasses it. Back-pressure has two ends: a stream that is *held* gives its peer no more credit, and one that is *full* says that
its source should pause, until ``drained``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from meshgw.wire.hpack import Section

if TYPE_CHECKING:
    from meshgw.wire.h2_connection import H2Connection

HIGH_WATER: Final = 65536
"""Bytes that wait for a window above which the source should pause; a window's worth, so that a window that opens is filled at once."""
LOW_WATER: Final = 16384
UNTOLD: Final = -1
TINY: Final = 1024


def gather(pieces: list[bytes] | deque[bytes | memoryview], data: bytes) -> None:
    """Keep one more piece of a body. Tiny ones are joined: kept alone, each would cost far more than its bytes, at the peer's choice."""
    if pieces and len(data) < TINY and len(pieces[-1]) < TINY:
        pieces[-1] = b"".join((pieces[-1], data))
    else:
        pieces.append(data)


class H2Stream:
    """A stream. ``remote_done`` and ``local_done`` tell that the peer and we ended it; a stream that is reset is both."""

    __slots__ = (
        "connection",
        "id",
        "is_held",
        "left",
        "local_done",
        "owed",
        "queue",
        "queued",
        "receive_window",
        "remote_done",
        "send_window",
        "trailers",
        "was_full",
    )

    def __init__(self, connection: H2Connection, id: int) -> None:
        self.connection, self.id = connection, id
        self.remote_done = self.local_done = False
        self.send_window = connection.peer_window
        self.receive_window = connection.own_window
        self.owed = 0
        """Bytes received that the peer has no new credit for yet."""
        self.is_held = False
        self.left = UNTOLD
        """Bytes that must still come by the message's own word."""
        self.queue: deque[bytes | memoryview] | None = None
        self.queued = 0
        self.trailers: list[bytes] | None = None
        """Set once nothing more will be sent than what waits, and these."""
        self.was_full = False

    # --- for the owner

    @property
    def is_full(self) -> bool:
        """Whether the source of what is sent here should pause."""
        if self.queued >= HIGH_WATER:
            self.was_full = True
            return True
        return False

    def hold(self) -> None:
        """Give the peer no more credit for now."""
        if not self.is_held:
            self.is_held = True
            self.connection.count_held(self.owed)

    def release(self) -> None:
        """Let the peer send again."""
        if self.is_held:
            self.is_held = False
            self.connection.count_held(-self.owed)
            self.connection.credit_stream(self)

    # --- told by the connection

    def headers_received(self, section: Section, ends: bool) -> None:
        """A section; ``ends`` tells that the peer sends no more. May raise StreamFault."""
        raise NotImplementedError  # pragma: no cover - abstract

    def body_received(self, data: bytes, ends: bool) -> None:
        """Some of the body. May raise StreamFault."""
        raise NotImplementedError  # pragma: no cover - abstract

    def reset_received(self, code: int) -> None:
        """The peer gave the stream up; it is closed."""
        raise NotImplementedError  # pragma: no cover - abstract

    def faulted(self, reason: str) -> None:
        """The peer broke a rule; the stream was reset."""
        raise NotImplementedError  # pragma: no cover - abstract

    def lost(self, reason: str) -> None:
        """The connection ended."""
        raise NotImplementedError  # pragma: no cover - abstract

    def drained(self) -> None:
        """What waited has become little: the source may go on."""
        raise NotImplementedError  # pragma: no cover - abstract

    def closed(self) -> None:
        """Both sides have ended it."""

    def sent(self) -> None:
        """We have ended it, the peer has not."""
