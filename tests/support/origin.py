"""A service whose answers its callers choose by the target: `origin.py PORT`, run as a program by :func:`origin`.

``/status/503`` is answered with that status, ``/slow/250`` after so many milliseconds, everything else with 200.
"""

from __future__ import annotations

import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

if __name__ != "__main__":
    from support.processes import Process, Running, accepts, free_port

STATUS = re.compile(r"/status/([2-5]\d\d)")
SLOW = re.compile(r"/slow/(\d{1,5})")


class Answers(BaseHTTPRequestHandler):
    """Answers as the target says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        """Read the body, if any, and answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = self.path.partition("?")[0]
        slow, status = SLOW.fullmatch(target), STATUS.fullmatch(target)
        if slow:
            time.sleep(int(slow[1]) / 1000)
        text = f"{self.command} {target} ({len(body)} bytes)\n".encode()
        self.send_response(int(status[1]) if status else 200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # names that http.server looks up

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: who asks, asks about the gateway."""


def origin(running: Running) -> int:
    """Start one; its port."""
    port = free_port()
    running.add(Process(f"origin-{port}", [sys.executable, __file__, str(port)], running.directory), is_ready=lambda: accepts(port))
    return port


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answers) as server:
        server.serve_forever()
