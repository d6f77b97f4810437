"""Listening sockets: bind, accept, count, drain.

Source: linkerd-config spec 4.2 and 4.3. The socket is made apart from accepting on it, so that it can be bound early, adopted from another
process, and checked before anything starts.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Protocol

from meshgw.core.logger import make_logger
from meshgw.core.reactor import IN, Poller
from meshgw.core.timers import Timer, Wheel
from meshgw.core.transport import SocketOptions
from meshgw.server.shares import Shares

ACCEPTS_AT_ONCE = 64
"""Connections accepted before others are served again."""
BACKLOG = 1024
"""Connections the system may queue, unless ``socketOptions.backlog`` says otherwise; bounded by net.core.somaxconn."""
REST_SECONDS = 0.5
"""How long nothing is accepted after the process ran out of file descriptors."""
YIELD_SECONDS = 0.001
"""How long a process that is ahead of others leaves new connections to them."""

_log = make_logger()


class ServerConnection(Protocol):
    """One accepted connection, as its listener sees it."""

    def start(self) -> None:
        """Begin to serve."""
        ...

    def drain(self, *, close_idle: bool = True) -> None:
        """Close as soon as nothing is under way, or, with ``close_idle`` false, after one more request."""
        ...

    def abort(self) -> None:
        """Close now."""
        ...

    def check(self) -> None:
        """Called every now and then: close if standing still for too long."""
        ...


Accepted = Callable[[socket.socket, tuple[str, int], tuple[str, int]], ServerConnection]


def bind_socket(ip: str, port: int, *, backlog: int = BACKLOG, reuse_port: bool = False, reuse_address: bool = True) -> socket.socket:
    """A listening, non-blocking socket. Raises OSError, with the address in its text."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if reuse_address:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind((ip, port))
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {ip}:{port}: {error.strerror}") from error
    return sock


class Listener:
    """Accepts connections of one server and knows those that are open."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        poller: Poller,
        wheel: Wheel,
        accepted: Accepted,
        options: SocketOptions,
        check_seconds: float,
        shares: Shares | None = None,
        call_later: Callable[..., Any] | None = None,
    ) -> None:
        """``accepted`` makes the protocol of a connection. All connections are checked every ``check_seconds``, one timer for all.

        ``shares``, with the reactor's ``call_later``, is given where other processes accept from the same socket.
        """
        self._shares, self._call_later = shares, call_later
        self._sock, self._poller, self._wheel, self._accepted, self._options = sock, poller, wheel, accepted, options
        self._open: set[ServerConnection] = set()
        self._listening = False
        self._rest: Timer | None = None
        self._check_seconds = check_seconds
        self._checking: Timer | None = None
        self.accepts = self.closes = 0

    @property
    def address(self) -> tuple[str, int]:
        """The bound ip and port."""
        name = self._sock.getsockname()
        return (name[0], name[1])

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._open)

    def start(self) -> None:
        """Begin to accept."""
        self._listening = True
        self._poller.watch(self._sock.fileno(), self._accept, IN)

    def _accept(self, _events: int, *, yielded: bool = False) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            if self._shares is not None and not yielded and self._shares.is_ahead():
                self._leave_to_others()
                return
            yielded = False  # having waited once, one is taken: the others may be busy or stuck
            try:
                sock, peer = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._take_a_rest(error)
                    return
                continue  # the caller went away before it was accepted
            try:
                sock.setblocking(False)
                self._options.apply(sock)
                local = sock.getsockname()
            except OSError:
                sock.close()  # the caller went away just after it was accepted
                continue
            connection = self._accepted(sock, (peer[0], peer[1]), (local[0], local[1]))
            self.accepts += 1
            self._open.add(connection)
            if self._shares is not None:
                self._shares.add(1)
            if self._checking is None:
                self._checking = self._wheel.after(self._check_seconds, self._check)
            connection.start()

    def _leave_to_others(self) -> None:
        """Other processes have fewer connections; they were woken too."""
        assert self._call_later is not None
        self._poller.forget(self._sock.fileno())
        self._call_later(YIELD_SECONDS, self._after_yielding)

    def _after_yielding(self) -> None:
        if self._listening:
            self._poller.watch(self._sock.fileno(), self._accept, IN)
            self._accept(IN, yielded=True)

    def _check(self) -> None:
        self._checking = None
        for connection in list(self._open):
            connection.check()
        if self._open:
            self._checking = self._wheel.after(self._check_seconds, self._check)

    def _take_a_rest(self, error: OSError) -> None:
        """Out of descriptors: waiting callers stay in the system's queue instead of making the loop spin."""
        _log.warn(
            "cannot accept on {address}: {reason}; trying again in {seconds} s. Raise the limit of open files (ulimit -n).",
            address=self.address,
            reason=error.strerror,
            seconds=REST_SECONDS,
        )
        self._poller.forget(self._sock.fileno())
        self._rest = self._wheel.after(REST_SECONDS, self.start)

    def replaced(self, before: ServerConnection, after: ServerConnection) -> None:
        """From now on ``after`` is the connection that ``before`` was."""
        if before in self._open:
            self._open.discard(before)
            self._open.add(after)

    def closed(self, connection: ServerConnection) -> None:
        """A connection ended."""
        if connection in self._open:
            self._open.discard(connection)
            self.closes += 1
            if self._shares is not None:
                self._shares.add(-1)

    def stop(self, *, close_idle: bool = True) -> None:
        """Accept no more and ask the open connections to finish (see :meth:`ServerConnection.drain`)."""
        if self._rest is not None:
            self._rest.cancel()
        if self._listening:
            self._listening = False
            self._poller.forget(self._sock.fileno())
        if self._shares is not None:
            self._shares.leave()
        self._sock.close()
        self.drain(close_idle=close_idle)

    def drain(self, *, close_idle: bool = True) -> None:
        """Ask the open connections to finish."""
        for connection in list(self._open):
            connection.drain(close_idle=close_idle)

    def abort(self) -> None:
        """Close what is still open; the grace period is over."""
        for connection in list(self._open):
            connection.abort()
