"""Twisted services for the ports of the control side: a bound socket with the configured options, adopted by the reactor.

Source: linkerd-config spec 2.1 and 4.3. The socket was bound before twistd gave up its privileges (``app.sockets``).
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred

from meshgw.config.router import SocketOptions


class AdminPort(Service):
    """Serves ``factory`` on ``sock``, of which it takes possession."""

    def __init__(self, reactor: Any, sock: socket.socket, options: SocketOptions, factory: Any) -> None:
        self._reactor, self._sock, self._factory = reactor, sock, factory
        self._listening: Any = None
        # accepted connections inherit these from the listening socket
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(options.no_delay))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(options.keep_alive is not False))

    @property
    def address(self) -> tuple[str, int]:
        """The ip and port it serves on."""
        name = self._sock.getsockname() if self._listening is None else self._listening.socket.getsockname()
        return (name[0], name[1])

    def startService(self) -> None:
        """Serve."""
        super().startService()  # type: ignore[no-untyped-call]
        self._listening = self._reactor.adoptStreamPort(self._sock.fileno(), self._sock.family, self._factory)
        self._sock.close()  # the reactor has its own duplicate

    def stopService(self) -> Deferred[None]:
        """Stop listening; connections under way go on."""
        super().stopService()  # type: ignore[no-untyped-call]
        listening, self._listening = self._listening, None
        # one that was never started still has its socket
        return maybeDeferred(listening.stopListening) if listening is not None else maybeDeferred(self._sock.close)
