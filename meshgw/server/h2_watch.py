"""What is done when nothing moves on a caller's HTTP/2 connection: requests, or the whole connection, are given up after a while.

Source: RFC 9113 sections 9.1 and 10.5. A caller may keep a connection busy with frames that carry nothing, so each stream is looked at by
itself. Looks are taken by the listener, every ``H2Parameters.check`` seconds, and limits are counted in them. Services that take nothing
are another matter: they are found out when others suffer for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshgw.wire import h2_frames as frames
from meshgw.wire.h2_connection import CROWDED, MOST_HELD, STARVED_SECONDS
from meshgw.wire.h2_frames import Code, ConnectionFault

if TYPE_CHECKING:
    from meshgw.core.timers import Timer
    from meshgw.server.h2 import H2Server

ALIVE_PING: Final = b"is alive"


class Watch:
    """Looks at one connection."""

    __slots__ = ("_flushed", "_head", "_head_still", "_heard", "_marker", "_server", "_silent", "_still", "_stuck")

    def __init__(self, server: H2Server) -> None:
        self._server = server
        self._marker: tuple[int, ...] = ()
        self._head: object = None
        self._flushed = self._heard = 0
        self._still = self._head_still = self._stuck = self._silent = 0  # looks without a change of that

    def check(self) -> None:
        """Take a look."""
        server = self._server
        head = server.awaited
        self._head_still = self._head_still + 1 if head is not None and head is self._head else 0
        self._head = head
        if self._head_still >= server.parameters.head_checks:
            code = Code.PROTOCOL_ERROR if server.is_acquainted else Code.SETTINGS_TIMEOUT
            server.parameters.on_silence()
            server.fail(ConnectionFault(code, "what a connection or a request begins with did not come in time"))
        elif self._is_stuck() or self._is_gone():
            server.connection.abort()
        elif server.streams:
            self._look_at_streams()
        else:
            self._rest()

    def _is_stuck(self) -> bool:
        """Whether the socket takes nothing, for too long."""
        server, p = self._server, self._server.parameters
        connection = server.connection
        self._stuck = self._stuck + 1 if connection.is_full and connection.flushed == self._flushed else 0
        self._flushed = connection.flushed
        if self._stuck >= p.stall_checks:
            p.on_stall()
            return True
        return False

    def _rest(self) -> None:
        """End a connection that is idle for too long as any other, since a request may be on its way; one whose caller is gone, later."""
        server, p = self._server, self._server.parameters
        marker = (server.requests, server.connection.received, server.connection.sent)
        self._still = self._still + 1 if marker == self._marker else 0
        self._marker = marker
        if not server.is_draining:
            if self._still >= p.idle_checks:
                p.on_idle()
                server.drain()
        elif self._still >= p.head_checks:
            server.emit(frames.goaway(server.highest, Code.NO_ERROR))
            server.end()

    def _is_gone(self) -> bool:
        """Whether a caller whose requests are under way is silent, and does not answer when it is asked."""
        server, p = self._server, self._server.parameters
        received = server.connection.received
        self._silent = self._silent + 1 if received == self._heard and server.streams and not server.is_deaf else 0
        self._heard = received
        if self._silent == p.ask_checks:
            server.emit(frames.ping(ALIVE_PING))
        elif self._silent >= 2 * p.ask_checks:
            p.on_silence()
            return True
        return False

    def _look_at_streams(self) -> None:
        """Give up the streams that wait for the caller and have not moved for too long."""
        server, p = self._server, self._server.parameters
        is_moving = False
        stalled = []
        for stream in server.served():
            moved = stream.moved
            if moved != stream.seen or not stream.waits_for_caller():
                is_moving = is_moving or moved != stream.seen
                stream.seen, stream.still = moved, 0
            else:
                stream.still += 1
                if stream.still >= p.stall_checks:
                    stalled.append(stream)
        for stream in stalled:
            # what waits for the socket, or its turn, is not the caller's doing
            if not stream.queued or stream.send_window <= 0 or (server.send_window <= 0 and not is_moving):
                (p.on_stall if stream.queued else p.on_silence)()
                stream.stood_still()


class Relief:
    """Gives up requests whose services take nothing of their bodies, when so much is held for them that the connection gets no more credit.

    All other requests of the connection wait for these services then; where the caller is a gateway, they are those of many callers.
    """

    __slots__ = ("_server", "_timer")

    def __init__(self, server: H2Server) -> None:
        self._server = server
        self._timer: Timer | None = None

    def begin(self) -> None:
        """The connection gets no more credit: see in a while which services have taken nothing since."""
        if self._timer is None:
            for stream in self._server.served():
                stream.taken_before = stream.taken
            self._timer = self._server.parameters.wheel.after(STARVED_SECONDS, self._relieve)

    def cancel(self) -> None:
        """The connection has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _relieve(self) -> None:
        """If it is so still, give up those whose services stood still, longest first: the others may have come to that through them."""
        self._timer = None
        server = self._server
        if server.is_closed or server.held <= MOST_HELD:
            return
        stuck = [stream for stream in server.served() if stream.is_held and stream.taken == stream.taken_before]
        for stream in sorted(stuck, key=lambda stream: stream.held_since):
            if server.held <= CROWDED:
                return
            stream.give_up()
        if server.held > MOST_HELD:
            self.begin()
