"""An HTTP server in a thread that stands for a Consul which answers slowly, wrongly, or not to the end."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

from fakes.consul_agent import catalog_entry

FAILURES = {
    "not-json": "it answered with what is not JSON at line 1, column 3",
    "no-list": "it answered with JSON that is no list of instances",
    "no-index": "it answered with no X-Consul-Index",
    "cut": "the connection broke",
    "huge": "an answer longer than 5242880 bytes",
    "html": "503",
    "no-http": "what is not HTTP",
    "circle": "301",
}
"""The ways to fail, with what is to be said of each. Others are ``good`` and ``slow``."""
SLOW_SECONDS = 1.5


class UnrulyConsul:
    """Serves one instance, at the port ``instance``, for every service; those in ``modes`` otherwise, from the next request on."""

    def __init__(self, instance: int) -> None:
        self.modes: dict[str, str] = {}
        self.instance = instance
        self._indexes = count(1)
        self._ended = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> UnrulyConsul:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def wait(self, seconds: float) -> None:
        """Do nothing, at most until the end."""
        self._ended.wait(seconds)

    def answers(self, mode: str) -> Iterator[bytes]:
        """The pieces of an answer in a mode."""
        good = json.dumps([catalog_entry(self.instance, "127.0.0.1")]).encode()
        index = b"X-Consul-Index: %d\r\n" % next(self._indexes)
        match mode:
            case "good":
                self.wait(0.2)
                yield _answer(good, index)
            case "slow":
                self.wait(SLOW_SECONDS)
                yield _answer(good, index)
            case "not-json":
                yield _answer(b"[{", index)
            case "no-list":
                yield _answer(b'{"error": "none"}', index)
            case "no-index":
                yield _answer(good)
            case "cut":
                yield _answer(good, index)[:-20]
            case "huge":
                yield from [_answer(good, index, length=1 << 30), *([b" " * (1 << 20)] * 16)]
            case "html":
                yield _answer(b"<html>the proxy says no</html>", b"Content-Type: text/html\r\n", status=b"503 Unavailable")
            case "no-http":
                yield b"\x15\x03\x01\x00\x02\x02\x28"
            case "circle":
                yield _answer(b"", b"Location: /v1/catalog/service/web\r\n", status=b"301 Moved")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        consul = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                mode = consul.modes.get(self.path.partition("?")[0].rpartition("/")[2], "good")
                self.close_connection = mode != "good"
                with contextlib.suppress(OSError):  # whoever asked may have had enough
                    for piece in consul.answers(mode):
                        self.wfile.write(piece)

            def log_message(self, *_args: object) -> None:
                """Nobody reads it."""

        return Handler


def _answer(body: bytes, headers: bytes = b"", *, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(body) if length is None else length, body)
