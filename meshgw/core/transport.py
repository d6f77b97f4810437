"""A data-path TCP connection over a non-blocking socket: immediate sends, a bounded output buffer, explicit half-close and abort.

Source: DATAPATH.md, design point 2. ``send`` is tried at once and the poller is asked for writability only after ``EAGAIN``; reads are
64 KiB (16 and 256 KiB measured worse). This is a leaf part behind a narrow interface: nothing above it sees a socket.
"""

from __future__ import annotations

import os
import select
import socket
from typing import Final, Protocol

import attrs

from meshgw.core.reactor import BROKEN, IN, OUT, Poller
from meshgw.core.timers import Timer, Wheel

READ_SIZE = 65536
HIGH_WATER = 262144
"""Bytes waiting to be sent above which the other side should pause reading (four reads)."""
LOW_WATER = 65536
LINGER_SECONDS = 2.0
"""How long a connection that was closed on an error goes on discarding input, so that the peer sees the answer and not a reset."""
LINGER_BYTES = 1 << 20
FLUSH_SECONDS = 30.0
"""How long a connection that is to be closed may take to get rid of what waits to be sent (at most a few hundred kilobytes)."""


class Receiver(Protocol):
    """Who owns a connection and is told what happens on it."""

    def data_received(self, data: bytes) -> None:
        """Some bytes arrived."""
        ...

    def eof_received(self) -> None:
        """The peer will send no more. The connection can still be written to until it is closed."""
        ...

    def drained(self) -> None:
        """The output buffer fell below its low mark after having been full."""
        ...

    def connection_lost(self, reason: str) -> None:
        """The connection is gone; called once, last, also after ``close`` and ``abort``."""
        ...


class _Nobody:
    """Who owns a connection that is gone."""

    def data_received(self, data: bytes) -> None:
        pass

    def eof_received(self) -> None:
        pass

    def drained(self) -> None:
        pass

    def connection_lost(self, reason: str) -> None:
        pass


_NOBODY: Final = _Nobody()


@attrs.frozen
class SocketOptions:
    """TCP options of a data-path socket (linkerd-config spec 4.3); None leaves the system's default."""

    no_delay: bool = True
    keep_alive: bool = True

    def apply(self, sock: socket.socket) -> None:
        """Set the options; an option the address family does not know is left out."""
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            if self.no_delay:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.keep_alive:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class Connection:
    """An established connection. Its owner sets ``receiver`` and then calls :meth:`start`."""

    __slots__ = (
        "_blocked",
        "_blocked_since",
        "_eof",
        "_events",
        "_fd",
        "_linger",
        "_lingered",
        "_out",
        "_poller",
        "_recv",
        "_send",
        "_sock",
        "_state",
        "_waiting",
        "_wheel",
        "flushed",
        "is_full",
        "received",
        "receiver",
        "sent",
    )

    def __init__(self, sock: socket.socket, poller: Poller, wheel: Wheel, receiver: Receiver | None = None) -> None:
        self._sock, self._poller, self._wheel = sock, poller, wheel
        self._fd = sock.fileno()
        self._recv, self._send = sock.recv, sock.send
        self._out: list[bytes] = []
        self._events = self._waiting = 0
        self._eof = False
        self.is_full = False
        """Whether so much output waits that the source of it should pause until ``drained``."""
        self._state = _OPEN
        self._linger: Timer | None = None
        self._lingered = 0
        self.received = self.sent = 0
        """Bytes of the whole connection."""
        self._blocked = self._blocked_since = 0.0
        self.flushed = 0
        """Bytes that had to wait and were sent then; whoever watches for a peer that does not read compares it."""
        if receiver is not None:
            self.receiver = receiver

    def start(self) -> None:
        """Begin to read."""
        self._events = IN
        self._poller.watch(self._fd, self._on_events, IN)

    # --- reading

    def _on_events(self, events: int) -> None:
        if events & IN:
            try:
                data = self._recv(READ_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                self._lost(describe(error))
                return
            if data and self._state <= _PARKED:
                self.received += len(data)
                self.receiver.data_received(data)
            else:
                self._end_of_input(data)
            if events == IN:  # nearly always
                return
        elif events & BROKEN:
            if not self._is_broken():
                return
            if self._events & IN:
                self._lost(_describe_pending(self._sock))
            else:
                self._park()
            return
        if events & OUT and self._state < _GONE:
            self._flush()

    def _end_of_input(self, data: bytes) -> None:
        """The peer has ended, or nobody wants what it says."""
        if self._state > _PARKED:
            self._discard(data)
        else:
            self._ask(self._events & ~IN)
            self.receiver.eof_received()

    def _is_broken(self) -> bool:
        """Events of one round may still speak of the connection that had this descriptor before, so the socket itself is asked."""
        asked = select.poll()
        asked.register(self._fd, 0)
        return bool(asked.poll(0))

    def _park(self) -> None:
        """A paused connection broke: unread bytes may wait, so it is looked at again on resume, or lost now when closing."""
        if self._state == _OPEN and not self._out:
            self._poller.forget(self._fd)
            self._state = _PARKED
        else:
            self._lost(_describe_pending(self._sock))

    @property
    def is_readable(self) -> bool:
        """Whether bytes or the end of the connection are there to be read; asks the system."""
        try:
            self._recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def pause_reading(self) -> None:
        """Read nothing until :meth:`resume_reading`; the peer is held back by TCP once its window is full."""
        if self._events & IN and self._state == _OPEN:
            self._ask(self._events & ~IN)

    def resume_reading(self) -> None:
        """Go on reading after :meth:`pause_reading`."""
        if self._state == _PARKED:
            self._state = _OPEN
            self._events = IN
            self._poller.watch(self._fd, self._on_events, IN)
        elif not self._events & IN and self._state == _OPEN:
            self._ask(self._events | IN)

    def _ask(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._poller.change(self._fd, events)

    # --- writing

    @property
    def is_sending(self) -> bool:
        """Whether output waits to be sent."""
        return bool(self._out)

    @property
    def blocked(self) -> float:
        """Seconds for which output has had to wait."""
        return self._blocked + (self._wheel.now() - self._blocked_since if self._out else 0.0)

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written."""
        return self._state == _OPEN or self._state == _PARKED

    def write(self, data: bytes) -> None:
        """Send ``data`` now, or keep what the socket does not take; ignored once closed."""
        if self._state or self._out:
            self._write_later(data)
            return
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._break(describe(error))
            return
        self.sent += sent
        if sent < len(data):
            self._keep(data[sent:] if sent else data)
            self._ask(self._events | OUT)

    def _write_later(self, data: bytes) -> None:
        """Bytes that cannot be sent at once, or not at all."""
        if not self._state:
            self._keep(data)
        elif self._state == _PARKED:
            self._break("connection reset by peer")

    def _break(self, reason: str) -> None:
        """Told from the loop, not from inside the owner's call, so that an owner never sees itself end half-way."""
        self._state = _BROKEN
        self._wheel.soon(lambda: self._lost(reason))

    def _keep(self, data: bytes) -> None:
        if not self._out:
            self._blocked_since = self._wheel.now()
        self._out.append(data)
        self._waiting += len(data)
        if self._waiting > HIGH_WATER:
            self.is_full = True

    def _flush(self) -> None:
        out = self._out
        data = b"".join(out) if len(out) > 1 else out[0] if out else b""
        try:
            sent = self._send(data) if data else 0
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(describe(error))
            return
        rest = data[sent:]
        self.flushed += sent
        self.sent += sent
        self._out = [rest] if rest else []
        self._waiting = len(rest)
        if not rest:
            if out:
                self._blocked += self._wheel.now() - self._blocked_since
            self._ask(self._events & ~OUT)
            if self._state == _CLOSING:
                self._shut()
                return
            if self._eof:
                self.write_eof()
        if self.is_full and len(rest) <= LOW_WATER:
            self.is_full = False
            self.receiver.drained()

    # --- ending

    def close(self) -> None:
        """Send what waits, then end the connection; input is discarded for a short while so that the peer can read the answer."""
        if self._state == _PARKED:
            self._lost("closed")
        elif self._state == _OPEN:
            self._state = _CLOSING
            if self._out:
                self._ask(OUT)
                self._linger = self._wheel.after(FLUSH_SECONDS, self._end_linger)
            else:
                self._shut()

    def close_now(self) -> None:
        """End the connection at once without lingering; for peers that have nothing under way."""
        if self._state < _GONE:
            self._lost("closed")

    def abort(self) -> None:
        """Reset the connection: the peer learns that what it got is not complete."""
        if self._state < _GONE:
            try:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            except OSError:
                pass  # the socket is broken already
            self._lost("aborted")

    def write_eof(self) -> None:
        """Half-close: say that nothing more will be sent once what waits is, and go on reading."""
        self._eof = True
        if self._state == _OPEN and not self._out:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the peer is gone; reading will tell

    def _shut(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._lost(describe(error))
            return
        self._state = _LINGERING
        self._ask(IN)
        self._linger = self._wheel.after(LINGER_SECONDS, self._end_linger)

    def _discard(self, data: bytes) -> None:
        self._lingered += len(data)
        if not data or self._lingered > LINGER_BYTES:
            self._end_linger()

    def _end_linger(self) -> None:
        if self._state < _GONE:
            self._lost("closed")

    def _lost(self, reason: str) -> None:
        if self._state >= _GONE:
            return
        self._state = _GONE
        if self._linger is not None:
            self._linger.cancel()
        self._poller.forget(self._fd)
        self._sock.close()
        self._blocked = self.blocked
        self._out = []
        # the owner knows the connection, and both would wait for the garbage collector if the connection went on knowing the owner
        receiver, self.receiver = self.receiver, _NOBODY
        receiver.connection_lost(reason)


_OPEN, _PARKED, _BROKEN, _CLOSING, _LINGERING, _GONE = range(6)


def describe(error: OSError) -> str:
    """The error in the system's words."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)  # the resolver's codes are negative


def _describe_pending(sock: socket.socket) -> str:
    try:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError as error:
        return describe(error)
    return os.strerror(code) if code else "connection closed by peer"
