"""An open-loop load generator: `python steady.py PORT RATE SECONDS BODY HEADERS [HOSTS]`; prints one RESULT line as wrk.lua does,
and asks for so many hosts in turn as that one does.

Requests leave by a plan, one every 1/RATE seconds, over keep-alive connections; a slow answer delays no later request as long as a
connection is free. Latency counts from the planned moment, so that waiting for a stalled server is not left out. How exactly the plan was
kept is part of the result: ``late_us`` is the 99th percentile of what passed between a planned moment and the ``send``, generator and
machine included. It takes some 25 µs of CPU per request, so that one core is good for about 25,000 requests/s.
"""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from time import monotonic

CONNECTIONS = 128
WARM_UP_SECONDS = 0.5
PATIENCE_SECONDS = 5.0
FIELDS = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding: gzip, deflate, br",
    "Referer: http://www.example.com/catalogue/category/12?page=3&sort=price",
    "Cookie: session=4f9a1c6e2b7d48d09c3e5a7b1d2f6e80; theme=dark; consent=necessary",
    "Cache-Control: max-age=0",
    "X-Request-Id: 5b1f7a0c-3d2e-4f68-9a7b-0c1d2e3f4a5b",
    "X-Forwarded-For: 203.0.113.17",
    "X-Forwarded-Proto: https",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)
"""With Host the same twelve as in wrk.lua."""


def request_head(headers: int, host: str = "web") -> bytes:
    """The head that is sent each time to ``host``."""
    fields = [f"Host: {host}", *(FIELDS if headers else ())]
    return ("GET /index.html HTTP/1.1\r\n" + "\r\n".join(fields) + "\r\n\r\n").encode()


class Caller:
    """One connection and the request that is under way on it."""

    __slots__ = ("due", "received", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.due = 0.0

    def has_answer(self, body: int) -> bool:
        """Read what is there; whether the answer is complete. Raises OSError when the connection ended, ValueError on a bad answer."""
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionResetError("closed by the server")
        data = self.received + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < end + 4 + body:
            self.received = data
            return False
        self.received = b""
        if not data.startswith(b"HTTP/1.1 200"):
            raise ValueError(data[:60])
        return True


class Generator:
    """One run, in which the ``heads`` take turns. ``latencies`` and ``lateness`` are in seconds, without the warm-up."""

    def __init__(self, port: int, rate: float, seconds: float, body: int, heads: Sequence[bytes]) -> None:
        self._rate, self._body, self._heads = rate, body, cycle(heads)
        self._planned = int(rate * (seconds + WARM_UP_SECONDS))
        self._uncounted = int(rate * WARM_UP_SECONDS)
        self.latencies: list[float] = []
        self.lateness: list[float] = []
        self.failures = 0
        self.seconds = 0.0
        self._epoll = select.epoll()
        self._callers: dict[int, Caller] = {}
        self._idle: list[Caller] = []
        for _ in range(CONNECTIONS):
            self._add(Caller(port))

    def _add(self, caller: Caller) -> None:
        caller.sock.sendall(next(self._heads))
        while not caller.has_answer(self._body):
            continue
        caller.sock.setblocking(False)
        self._callers[caller.sock.fileno()] = caller
        self._epoll.register(caller.sock, select.EPOLLIN)
        self._idle.append(caller)

    def run(self) -> None:
        """Send everything planned and wait for the answers."""
        sent, gap, idle, poll = 0, 1 / self._rate, self._idle, self._epoll.poll
        start = monotonic() + gap
        counted_from = start + self._uncounted * gap
        last = start + self._planned * gap + PATIENCE_SECONDS
        while (sent < self._planned or len(idle) < len(self._callers)) and monotonic() < last and self._callers:
            due = start + sent * gap
            now = monotonic()
            if sent < self._planned and idle and due <= now:
                if due >= counted_from:
                    self.lateness.append(now - due)
                self._send(idle.pop(), due)
                sent += 1
                continue
            ready = poll(0)
            if not ready:
                # epoll's own time-outs are whole milliseconds; select waits microseconds, and an epoll descriptor can be selected
                wait = due - now if sent < self._planned and idle else 0.05
                select.select([self._epoll], [], [], max(0.0, wait))
                continue
            for fd, _ in ready:
                self._receive(self._callers[fd], counted_from)
        self.failures += self._planned - sent + len(self._callers) - len(idle)
        self.seconds = monotonic() - counted_from

    def _send(self, caller: Caller, due: float) -> None:
        caller.due = due
        try:
            caller.sock.send(next(self._heads))
        except OSError:
            self._lose(caller)

    def _receive(self, caller: Caller, counted_from: float) -> None:
        try:
            if not caller.has_answer(self._body):
                return
        except (OSError, ValueError):
            self._lose(caller)
            return
        if caller.due >= counted_from:
            self.latencies.append(monotonic() - caller.due)
        self._idle.append(caller)

    def _lose(self, caller: Caller) -> None:
        self.failures += 1
        del self._callers[caller.sock.fileno()]
        with contextlib.suppress(ValueError):
            self._idle.remove(caller)
        self._epoll.unregister(caller.sock)
        caller.sock.close()


def at(values: Sequence[float], part: float) -> int:
    """The percentile of sorted ``values`` in whole microseconds."""
    return round(values[min(len(values) - 1, int(len(values) * part))] * 1e6) if values else 0


def main() -> int:
    """Run and print; 1 when nothing was answered."""
    port, rate, seconds, body, headers, *more = sys.argv[1:]
    names = [f"web{number}" for number in range(int(more[0]))] if more and int(more[0]) else ["web"]
    with contextlib.suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text("1")  # by default the system may wake us 50 µs late
    gc.disable()
    generator = Generator(int(port), float(rate), float(seconds), int(body), [request_head(int(headers), name) for name in names])
    generator.run()
    latencies, lateness = sorted(generator.latencies), sorted(generator.lateness)
    values = {
        "requests": len(latencies),
        "duration_us": round(generator.seconds * 1e6),
        "p50_us": at(latencies, 0.5),
        "p99_us": at(latencies, 0.99),
        "p999_us": at(latencies, 0.999),
        "max_us": at(latencies, 1.0),
        "bad_status": 0,
        "socket_errors": generator.failures,
        "late_us": at(lateness, 0.99),
    }
    sys.stdout.write("RESULT " + " ".join(f"{name}={value}" for name, value in values.items()) + "\n")
    return 0 if latencies else 1


if __name__ == "__main__":
    sys.exit(main())
