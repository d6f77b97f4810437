"""Connecting to an address: one attempt, bounded in time, on a non-blocking socket.

Source: DATAPATH.md, design point 4; linkerd-config spec 10.5 (connect timeout).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Protocol

from meshgw.core.reactor import OUT, Poller
from meshgw.core.stream import Stream
from meshgw.core.timers import Timer, Wheel
from meshgw.core.transport import Connection, SocketOptions, describe
from meshgw.errors import MeshError


class Done(Protocol):
    """Called once with the outcome: the connection, or why there is none."""

    def __call__(self, connection: Stream | None, reason: str | MeshError) -> None: ...


class ConnectDone(Protocol):
    """The same of an attempt without TLS."""

    def __call__(self, connection: Connection | None, reason: str) -> None: ...


class Dialing(Protocol):
    """One attempt to connect, whatever it takes."""

    def start(self, host: str, port: int, timeout: float, options: SocketOptions) -> None:
        """Begin to connect to a literal address."""
        ...

    def cancel(self) -> None:
        """Give up; ``done`` is not called."""
        ...


Dial = Callable[[Done, bytes], Dialing]
"""Makes an attempt; the bytes are what the connection begins with, before TLS."""


class Connecting:
    """One attempt to connect: calls ``done(connection, "")`` or ``done(None, reason)`` once, within ``timeout`` seconds.

    ``prelude`` is sent at once.
    """

    __slots__ = ("_done", "_is_cancelled", "_poller", "_prelude", "_sock", "_timer", "_wheel")

    def __init__(self, poller: Poller, wheel: Wheel, done: ConnectDone, prelude: bytes = b"") -> None:
        self._prelude = prelude
        self._poller, self._wheel, self._done = poller, wheel, done
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        self._is_cancelled = False

    def start(self, host: str, port: int, timeout: float, options: SocketOptions) -> None:
        """Begin to connect to a literal address."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._sock = sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            options.apply(sock)
            code = sock.connect_ex((host, port))
        except OSError as error:  # no descriptor left; or an address that the system can't read, such as one with an unknown zone
            reason = describe(error)
            self._wheel.soon(lambda: self._refuse(reason))
            return
        if code in (0, errno.EINPROGRESS):
            self._poller.watch(sock.fileno(), self._on_events, OUT)
            self._timer = self._wheel.after(timeout, lambda: self._fail(f"connect timed out after {timeout:g} s"))
        else:
            self._wheel.soon(lambda: self._fail(os.strerror(code)))

    def cancel(self) -> None:
        """Give up; ``done`` is not called."""
        self._is_cancelled = True
        self._release(close=True)

    def _on_events(self, _events: int) -> None:
        sock = self._sock
        if sock is None:
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(os.strerror(code))
            return
        try:
            sock.getpeername()
        except OSError:
            return  # an event meant for the descriptor's former owner; this one's is still to come
        done = self._release(close=False)
        connection = Connection(sock, self._poller, self._wheel)
        if self._prelude:
            connection.write(self._prelude)
        done(connection, "")

    def _fail(self, reason: str) -> None:
        if self._sock is not None:
            self._refuse(reason)

    def _refuse(self, reason: str) -> None:
        if not self._is_cancelled:
            self._release(close=True)(None, reason)

    def _release(self, *, close: bool) -> ConnectDone:
        """Let go of the socket, and of who is to be told: it knows this attempt, and both would wait for the garbage collector."""
        sock, self._sock = self._sock, None
        done, self._done = self._done, _tell_nobody
        if self._timer is not None:
            self._timer.cancel()
        if sock is not None:
            self._poller.forget(sock.fileno())
            if close:
                sock.close()
        return done


def _tell_nobody(connection: Connection | None, reason: str) -> None:
    """The outcome of an attempt that has ended."""


class Unconfigured:
    """An attempt that fails with what is wrong with the configuration."""

    def __init__(self, wheel: Wheel, done: Done, error: str | MeshError) -> None:
        self._wheel, self._done, self._error = wheel, done, error
        self._is_cancelled = False

    def start(self, host: str, port: int, timeout: float, options: SocketOptions) -> None:
        """Fail soon."""
        self._wheel.soon(self._fail)

    def cancel(self) -> None:
        """Give up; ``done`` is not called."""
        self._is_cancelled = True

    def _fail(self) -> None:
        if not self._is_cancelled:
            self._done(None, self._error)
