"""Twisted services for the ports of the control side: a socket with the configured options, bound early, adopted by the reactor.

Source: linkerd-config spec 2.1 and 4.3. Binding happens in ``privilegedStartService``, before twistd gives up its privileges.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred

from meshgw.config.router import SocketOptions
from meshgw.server.listener import BACKLOG, bind_socket


class AdminPort(Service):
    """Serves ``factory`` on one address."""

    def __init__(self, reactor: Any, ip: str, port: int, options: SocketOptions, factory: Any) -> None:
        self._reactor, self._ip, self._port, self._options, self._factory = reactor, ip, port, options, factory
        self._socket: socket.socket | None = None
        self._listening: Any = None

    @property
    def address(self) -> tuple[str, int]:
        """The ip and port it serves on, once bound."""
        assert self._listening is not None
        host = self._listening.getHost()
        return (host.host, host.port)

    def privilegedStartService(self) -> None:
        """Bind. Raises OSError naming the address, which ends the start."""
        options = self._options
        sock = bind_socket(
            self._ip, self._port, backlog=options.backlog or BACKLOG, reuse_port=options.reuse_port, reuse_address=options.reuse_addr
        )
        # accepted connections inherit these from the listening socket
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(options.no_delay))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(options.keep_alive is not False))
        self._socket = sock

    def startService(self) -> None:
        """Serve."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._socket is None:
            self.privilegedStartService()
        assert self._socket is not None
        self._listening = self._reactor.adoptStreamPort(self._socket.fileno(), self._socket.family, self._factory)
        self._socket.close()  # the reactor has its own duplicate
        self._socket = None

    def stopService(self) -> Deferred[None]:
        """Stop listening."""
        super().stopService()  # type: ignore[no-untyped-call]
        listening, self._listening = self._listening, None
        return maybeDeferred(listening.stopListening) if listening is not None else maybeDeferred(lambda: None)
