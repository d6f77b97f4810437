"""A small HTTP/1.1 service that answers every request with its own name and what it was sent: `service.py NAME PORT`.

The demonstration and the integration tests use it as the instance behind the gateway. It needs nothing but the standard library.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Instance(ThreadingHTTPServer):
    """A server that knows its name."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, name: str, port: int) -> None:
        super().__init__(("127.0.0.1", port), Answer)
        self.instance = name


class Answer(BaseHTTPRequestHandler):
    """Answers GET, HEAD, POST and PUT: the instance's name on the first line, then method, target and the size of the body."""

    protocol_version = "HTTP/1.1"
    server: Instance
    disable_nagle_algorithm = True

    def answer(self) -> None:
        """Read the body, if any, and answer."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        text = f"{self.server.instance}\n{self.command} {self.path} ({len(body)} bytes)\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Instance", self.server.instance)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_POST = do_PUT = answer  # names that http.server looks up

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the gateway's access log is what there is to see."""


def main() -> int:
    """Serve until stopped."""
    if len(sys.argv) != 3:
        sys.stderr.write("usage: service.py NAME PORT\n")
        return 2
    with Instance(sys.argv[1], int(sys.argv[2])) as server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
