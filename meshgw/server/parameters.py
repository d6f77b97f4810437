"""What the HTTP/1.x connections of one listener share: limits, times, and who is told.

Source: linkerd-config spec 4.2 (serverSession), 5.1 (limits) and 5.8; the times that Linkerd lacks are explained where they stand.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from meshgw.core.exchange import Walk
from meshgw.core.timers import Wheel
from meshgw.wire.headers import FieldTable

if TYPE_CHECKING:
    from meshgw.server.http import HttpServer

CHECK_SECONDS = 10.0
"""How often a connection is looked at for having stood still."""
STALL_SECONDS = 300.0
"""A body must make some progress within this time, in either direction, while it is the caller that is waited for."""
HEAD_SECONDS = 30.0
"""A head must be complete within this time (slow-loris defence)."""
IDLE_CHECKS = 60
"""A connection without a request is closed after this many checks (10 min); Linkerd keeps it for ever."""
REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


def _nothing() -> None:
    """Stand in for a callback that nobody wants."""


class HttpParameters:
    """What all connections of one listener share. Sizes are bytes; ``max_body`` None means no limit."""

    __slots__ = (
        *("check", "clock", "head_checks", "idle_checks", "life", "max_body", "max_headers", "max_line"),
        *("on_closed", "on_idle", "on_life", "replay", "stall_checks", "table", "walk", "wheel"),
    )

    def __init__(
        self,
        *,
        walk: Walk,
        table: FieldTable,
        wheel: Wheel,
        clock: Callable[[], float],
        max_line: int = 4096,
        max_headers: int = 8192,
        max_body: int | None = None,
        replay: int = 0,
        idle: float | None = None,
        life: float | None = None,
        on_idle: Callable[[], None] = _nothing,
        on_life: Callable[[], None] = _nothing,
        on_closed: Callable[[HttpServer], None],
    ) -> None:
        """Bodies of up to ``replay`` bytes are kept for retries. ``idle`` and ``life`` are seconds, None for the
        defaults (10 min, for ever); ``on_idle`` and ``on_life`` are called when a connection is closed for these.
        """
        self.replay, self.life = replay, life
        self.check = CHECK_SECONDS if idle is None else min(CHECK_SECONDS, idle / 4)
        self.idle_checks = IDLE_CHECKS if idle is None else max(1, round(idle / self.check))
        self.head_checks = max(1, round(HEAD_SECONDS / self.check))
        self.stall_checks = max(1, round(STALL_SECONDS / self.check))
        self.on_idle, self.on_life = on_idle, on_life
        self.walk, self.table, self.wheel, self.clock = walk, table, wheel, clock
        self.max_line, self.max_headers, self.max_body = max_line, max_headers, max_body
        self.on_closed = on_closed
