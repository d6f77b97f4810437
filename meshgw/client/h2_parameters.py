"""What the HTTP/2 connections to one bound name have in common."""

from __future__ import annotations

from collections.abc import Callable

from meshgw.core.timers import Wheel
from meshgw.telemetry.streams import StreamStats
from meshgw.wire.h2_connection import H2Settings
from meshgw.wire.h2_counts import FrameCounts
from meshgw.wire.h2_messages import FieldReader
from meshgw.wire.headers import FieldTable
from meshgw.wire.hpack_writer import FieldWriter


class H2ClientParameters:
    """What all connections to one bound name share. ``scheme`` is what requests say; sizes are bytes, times seconds."""

    __slots__ = ("clock", "frames", "later", "max_body", "on_failed", "own", "reader", "scheme", "streams", "wheel", "writer")

    def __init__(
        self,
        *,
        table: FieldTable,
        wheel: Wheel,
        clock: Callable[[], float],
        later: Callable[[Callable[[], None]], None],
        own: H2Settings,
        scheme: bytes = b"http",
        max_body: int | None = None,
        on_failed: Callable[[int], None] = lambda _code: None,
        frames: FrameCounts | None = None,
        streams: StreamStats | None = None,
    ) -> None:
        """``frames`` and ``streams`` are for counting."""
        self.frames, self.streams = frames, streams
        self.reader, self.writer = FieldReader(table), FieldWriter()
        self.wheel, self.clock, self.later, self.own, self.max_body = wheel, clock, later, own, max_body
        self.scheme = b":scheme: " + scheme
        self.on_failed = on_failed
