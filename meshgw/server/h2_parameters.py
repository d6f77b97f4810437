"""What the HTTP/2 connections of one listener share: settings, limits, times, and who is told.

Source: linkerd-config spec 4.2 (serverSession) and 6.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshgw.core.exchange import Walk
from meshgw.core.timers import Wheel
from meshgw.server.parameters import CHECK_SECONDS, HEAD_SECONDS, IDLE_SECONDS, STALL_SECONDS
from meshgw.telemetry.streams import StreamStats
from meshgw.wire.h2_connection import H2Settings
from meshgw.wire.h2_counts import FrameCounts
from meshgw.wire.h2_messages import FieldReader
from meshgw.wire.headers import FieldTable
from meshgw.wire.hpack_writer import FieldWriter

if TYPE_CHECKING:
    from meshgw.server.h2 import H2Server

SILENCE_SECONDS = 60.0
"""How long a caller with requests under way may be silent before it is asked whether it is there, and then until it answers."""


def _nothing(*_said: object) -> None:
    """Stand in for a callback that nobody wants."""


class H2Parameters:
    """What all connections of one listener share. Sizes are bytes, times seconds; None means no limit."""

    __slots__ = (
        *("ask_checks", "check", "clock", "head_checks", "idle_checks", "later", "life", "max_body"),
        *("frames", "on_closed", "on_failed", "on_fault", "on_idle", "on_life", "on_silence", "on_stall", "own", "reader", "replay"),
        *("stall_checks", "streams", "walk", "wheel", "writer"),
    )

    def __init__(
        self,
        *,
        walk: Walk,
        table: FieldTable,
        wheel: Wheel,
        clock: Callable[[], float],
        later: Callable[[Callable[[], None]], None],
        own: H2Settings,
        max_body: int | None = None,
        replay: int = 0,
        idle: float | None = None,
        life: float | None = None,
        head: float = HEAD_SECONDS,
        body: float = STALL_SECONDS,
        on_idle: Callable[[], None] = _nothing,
        on_life: Callable[[], None] = _nothing,
        on_silence: Callable[[], None] = _nothing,
        on_stall: Callable[[], None] = _nothing,
        frames: FrameCounts | None = None,
        streams: StreamStats | None = None,
        on_fault: Callable[[], None] = _nothing,
        on_failed: Callable[[int], None] = _nothing,
        on_closed: Callable[[H2Server], None],
    ) -> None:
        """``later`` calls at the end of a round of events. Bodies of up to ``replay`` bytes are kept for retries.

        ``on_silence`` is called when what a caller was to send did not come in time, ``on_stall`` when it did not take its answer.
        ``frames`` and ``streams`` are for counting.

        ``on_fault`` is told of streams, ``on_failed`` with the code of connections, that ended because the caller broke a rule.
        """
        self.walk, self.wheel, self.clock, self.later, self.own = walk, wheel, clock, later, own
        self.reader, self.writer = FieldReader(table), FieldWriter()
        self.max_body, self.replay, self.life = max_body, replay, life
        self.check = min(CHECK_SECONDS, head / 3, body / 3, CHECK_SECONDS if idle is None else idle / 4)
        self.ask_checks = max(1, round(SILENCE_SECONDS / self.check))
        self.head_checks = max(1, round(head / self.check))
        self.idle_checks = max(1, round((IDLE_SECONDS if idle is None else idle) / self.check))
        self.stall_checks = max(1, round(body / self.check))
        self.on_silence, self.on_stall, self.frames, self.streams = on_silence, on_stall, frames, streams
        self.on_idle, self.on_life, self.on_fault, self.on_failed, self.on_closed = on_idle, on_life, on_fault, on_failed, on_closed
