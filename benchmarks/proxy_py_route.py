"""The plug-in that makes proxy.py a reverse proxy for one backend, whose port is in ``BENCH_BACKEND``; imported by proxy.py alone.

proxy.py's static routes connect to the backend for every request, and its worker dies when a caller sends a second request on the same
connection (2.4.10). A dynamic route may choose the connection itself, so that each caller's connection keeps one to the backend.
"""

from __future__ import annotations

import os
import re

from proxy.core.connection import TcpServerConnection
from proxy.http.parser import HttpParser
from proxy.http.server import ReverseProxyBasePlugin


class OneBackend(ReverseProxyBasePlugin):
    """Every path goes to the same place. proxy.py makes an object of this class for each of its callers' connections."""

    _upstream: TcpServerConnection | None = None

    def routes(self) -> list[str | tuple[str, list[bytes]]]:
        """All paths."""
        return [r"/(.*)"]

    def handle_route(self, request: HttpParser, _pattern: re.Pattern[str]) -> TcpServerConnection:
        """Send the request on, over the connection that earlier ones went over."""
        if self._upstream is None:
            self._upstream = TcpServerConnection("127.0.0.1", int(os.environ["BENCH_BACKEND"]))
            self._upstream.connect()
        self._upstream.queue(memoryview(request.build()))
        return self._upstream
