"""A small HTTP/1.1 service in this process that tests of HTTP/2 put behind a gateway.

``/`` says hello, ``/size/N`` gives N bytes, ``/never`` notes that something came that must not; a body is given back as it came. The fields
of each request are kept.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.processes import LOOPBACK


class _Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _answer(self) -> None:
        body = self._body()
        seen: list[tuple[str, str, dict[str, str]]] = self.server.seen  # type: ignore[attr-defined]
        seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.path.startswith("/size/"):
            body = b"x" * int(self.path.rpartition("/")[2])
        elif not body:
            body = b"hello"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        pass  # callers that vanish are the point of many tests


class Origin:
    """The service; ``seen`` holds method, target and fields of each request."""

    def __init__(self) -> None:
        self._server = _Server((LOOPBACK, 0), _Service)
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self._server.seen = self.seen  # type: ignore[attr-defined]
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
