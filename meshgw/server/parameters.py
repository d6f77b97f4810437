"""What the HTTP/1.x connections of one listener share: limits, times, and who is told.

Source: linkerd-config spec 4.2 (serverSession), 5.1 (limits) and 5.8; the times that Linkerd lacks are explained where they stand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshgw.core.exchange import Walk
from meshgw.core.timers import Wheel
from meshgw.server.tunnel import TunnelStats, Uncounted
from meshgw.wire.headers import FieldTable

if TYPE_CHECKING:
    from meshgw.server.http import HttpServer

CHECK_SECONDS = 10.0
"""How often a connection is looked at for having stood still."""
STALL_SECONDS = 300.0
"""A body must make some progress within this time, in either direction, while it is the caller that is waited for."""
HEAD_SECONDS = 30.0
"""A head must be complete within this time (slow-loris defence)."""
TUNNEL_SECONDS = 300.0
"""A tunnel ends after this time without a byte either way."""
IDLE_SECONDS = 600.0
"""A connection without a request is closed after this time; Linkerd keeps it for ever."""


def _nothing() -> None:
    """Stand in for a callback that nobody wants."""


class HttpParameters:
    """What all connections of one listener share. Sizes are bytes; ``max_body`` None means no limit."""

    __slots__ = (
        *("check", "clock", "head_checks", "idle_checks", "life", "max_body", "max_headers", "max_line"),
        *(
            "on_closed",
            "on_idle",
            "on_life",
            "on_silence",
            "on_stall",
            "replay",
            "stall_checks",
            "table",
            "tunnel_checks",
            "tunnels",
            "walk",
            "wheel",
        ),
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
        head: float = HEAD_SECONDS,
        body: float = STALL_SECONDS,
        tunnel_idle: float = TUNNEL_SECONDS,
        tunnels: TunnelStats | None = None,
        on_idle: Callable[[], None] = _nothing,
        on_life: Callable[[], None] = _nothing,
        on_silence: Callable[[], None] = _nothing,
        on_stall: Callable[[], None] = _nothing,
        on_closed: Callable[[HttpServer], None],
    ) -> None:
        """Bodies of up to ``replay`` bytes are kept for retries. ``idle`` and ``life`` are seconds, None for the
        defaults (10 min, for ever); ``on_idle`` and ``on_life`` are called when a connection is closed for these. ``head`` and ``body``
        are the seconds within which a head must be complete and a body make some progress; ``on_silence`` is called when what a caller
        was to send did not come in time, ``on_stall`` when it did not take its answer.
        """
        self.replay, self.life = replay, life
        self.check = min(CHECK_SECONDS, head / 3, body / 3, tunnel_idle / 4, CHECK_SECONDS if idle is None else idle / 4)
        self.tunnels = Uncounted() if tunnels is None else tunnels
        self.tunnel_checks = max(1, round(tunnel_idle / self.check))
        self.idle_checks = max(1, round((IDLE_SECONDS if idle is None else idle) / self.check))
        self.head_checks = max(1, round(head / self.check))
        self.stall_checks = max(1, round(body / self.check))
        self.on_idle, self.on_life, self.on_silence, self.on_stall = on_idle, on_life, on_silence, on_stall
        self.walk, self.table, self.wheel, self.clock = walk, table, wheel, clock
        self.max_line, self.max_headers, self.max_body = max_line, max_headers, max_body
        self.on_closed = on_closed
