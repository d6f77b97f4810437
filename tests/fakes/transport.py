"""Stand-ins for what is below and above the protocols of the data path: a connection, a poller pumped by hand, a recording walk."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from meshgw.core.exchange import UNKNOWN_LENGTH, Exchange, Upstream
from meshgw.core.reactor import Handler
from meshgw.core.stack import Reply, reply_headers
from meshgw.core.transport import Receiver
from meshgw.errors import MeshError
from meshgw.wire.headers import Headers


class FakeConnection:
    """Keeps what is written; ``ending`` tells how the owner ended it: ``close``, ``close_now``, ``abort``, or the peer by ``lost``."""

    receiver: Receiver

    def __init__(self) -> None:
        self.written = b""
        self.ending = ""
        self.is_full = self.is_sending = self.is_paused = self.is_half_closed = False
        self.flushed = self.received = self.sent = 0
        self.blocked = 0.0

    def start(self) -> None:
        pass

    def write(self, data: bytes) -> None:
        if not self.ending:
            self.written += data

    def write_eof(self) -> None:
        self.is_half_closed = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        self.ending = self.ending or "close"

    def close_now(self) -> None:
        self._end("close_now")

    def abort(self) -> None:
        self._end("abort")

    def lost(self, reason: str = "connection reset by peer") -> None:
        """The peer broke the connection."""
        self._end("lost", reason)

    def _end(self, how: str, reason: str = "") -> None:
        if self.ending in ("", "close"):
            self.ending = how
            self.receiver.connection_lost(reason or how)

    def take(self) -> bytes:
        """What was written since the last call."""
        written, self.written = self.written, b""
        return written


class HandPoller:
    """A :class:`meshgw.core.reactor.Poller` over epoll whose handlers run only inside :meth:`pump`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.handlers: dict[int, Handler] = {}
        self._later: list[Callable[[], None]] = []
        self.interests: dict[int, int] = {}

    def watch(self, fd: int, handler: Handler, events: int) -> None:
        self._epoll.register(fd, events)
        self.handlers[fd], self.interests[fd] = handler, events

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)
        self.interests[fd] = events

    def forget(self, fd: int) -> None:
        if self.handlers.pop(fd, None) is not None:
            del self.interests[fd]
            self._epoll.unregister(fd)

    def later(self, function: Callable[[], None]) -> None:
        self._later.append(function)

    def pump(self, wait: float = 0.0) -> int:
        """Run the handlers of what is ready, waiting at most ``wait`` seconds for the first; how many ran."""
        ready = self._epoll.poll(wait, 64)
        for fd, events in ready:
            handler = self.handlers.get(fd)
            if handler is not None:
                handler(events)
        for function in self._later:
            function()
        self._later.clear()
        return len(ready)

    def close(self) -> None:
        self._epoll.close()


class FakeWalk:
    """Records requests as they end and answers each at once, with 204 or by ``answer``.

    ``requests`` holds (method, target, version, body, trailers) of every complete request, ``verdicts`` the statuses of refused ones.
    """

    def __init__(self, answer: Callable[[Exchange], None] | None = None) -> None:
        self.requests: list[tuple[bytes, bytes, bytes, bytes, list[bytes]]] = []
        self.headers: list[list[bytes]] = []
        self.verdicts: list[int] = []
        self.ended = self.gone = self.begun = 0
        self.replied: list[tuple[int, bytes]] = []
        self.interim: list[bytes] = []
        self.failures: list[MeshError] = []
        self.resends: list[bool] = []
        self._answer = answer or answer_nothing

    def begin(self, ex: Exchange) -> None:
        self.begun += 1
        if ex.length:
            ex.upstream = BodySink(self, ex, b"".join(ex.body or []))
            ex.body = None
            if ex.body_done:
                ex.upstream.send_end(ex.trailers or [])
        else:
            self.complete(ex, b"", [])

    def complete(self, ex: Exchange, body: bytes, trailers: list[bytes]) -> None:
        ex.upstream = None
        self.requests.append((ex.method, ex.target, ex.version, body, trailers))
        self.headers.append(list(ex.headers.lines))
        self._answer(ex)

    def refuse(self, ex: Exchange, error: MeshError) -> None:
        self.verdicts.append(error.status)
        answer_error(ex, error)

    def caller_failed(self, ex: Exchange, error: MeshError) -> None:
        ex.upstream = None
        self.refuse(ex, error)

    def caller_gone(self, ex: Exchange) -> None:
        self.gone += 1

    def finish(self, ex: Exchange) -> None:
        self.ended += 1

    def answered(self, ex: Exchange, body: bytes, done: bool) -> None:
        self.replied.append((ex.status, body))
        ex.caller.respond(ex, body, done=done)

    def informed(self, ex: Exchange, line: bytes, headers: Headers) -> None:
        self.interim.append(line)

    def switched(self, ex: Exchange, upstream: Upstream, data: bytes) -> None:
        ex.caller.tunnel(ex, upstream, data)

    def failed(self, ex: Exchange, error: MeshError, *, resend: bool) -> None:
        self.failures.append(error)
        self.resends.append(resend)

    def holds(self, ex: Exchange) -> None:
        return None

    def concluded(self, ex: Exchange, trailers: list[bytes]) -> list[bytes]:
        return trailers

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not expected here")


class BodySink:
    """An upstream that takes a request's body and completes the request at its end."""

    def __init__(self, walk: FakeWalk, ex: Exchange, first: bytes) -> None:
        self._walk, self._ex, self.body = walk, ex, first
        self.is_full = False
        self.abandoned = False

    def send(self, ex: Exchange) -> None:
        pass

    def send_body(self, data: bytes) -> None:
        self.body += data

    def send_last(self, data: bytes) -> None:
        self.send_body(data)
        self.send_end([])

    def send_end(self, trailers: list[bytes]) -> None:
        self._walk.complete(self._ex, self.body, trailers)

    def abandon(self) -> None:
        self.abandoned = True

    def pause_answer(self) -> None:
        pass

    def resume_answer(self) -> None:
        pass


class FakeCaller:
    """The caller of a client under test: keeps the answer."""

    def __init__(self) -> None:
        self.head: tuple[int, bytes, list[bytes], int] | None = None
        self.body = b""
        self.trailers: list[bytes] | None = None
        self.is_done = self.is_cut = self.is_full = False
        self.paused = 0
        self.tunneled: bytes | None = None

    def respond(self, ex: Exchange, body: bytes, done: bool) -> None:
        assert self.head is None, "one answer per request"
        ex.responded = True
        self.head = (ex.status, ex.status_line, sorted(ex.response.lines), ex.response_length)
        self.body = body
        if done:
            self.is_done, self.trailers = True, ex.answer_trailers

    def inform(self, ex: Exchange, line: bytes, headers: Headers) -> None:
        pass

    def send_body(self, data: bytes) -> None:
        self.body += data

    def send_end(self, trailers: list[bytes]) -> None:
        self.is_done, self.trailers = True, trailers

    def cut(self) -> None:
        self.is_cut = True

    def tunnel(self, ex: Exchange, peer: Upstream, data: bytes) -> None:
        self.tunneled = data

    def pause_body(self) -> None:
        self.paused += 1

    def resume_body(self) -> None:
        self.paused -= 1


def answer_nothing(ex: Exchange) -> None:
    """204 at once."""
    ex.status, ex.status_line, ex.response, ex.response_length = 204, b"", Headers(), 0
    ex.caller.respond(ex, b"", done=True)


def answer_error(ex: Exchange, error: MeshError) -> None:
    """The error's status with an empty body."""
    reply = Reply(error.status, b"")
    ex.error, ex.status, ex.status_line = error, reply.status, b""
    ex.response, ex.response_length = reply_headers(reply), 0
    if not ex.responded:
        ex.caller.respond(ex, b"", done=True)


def request(method: bytes = b"GET", target: bytes = b"/", *, version: bytes = b"1.1", body: bytes | None = None) -> Exchange:
    """An exchange as a server hands it to a client; with a ``body`` of known length if one is given."""
    ex = Exchange()
    ex.method, ex.target, ex.version = method, target, version
    ex.headers = Headers([b"Host: web"], {b"host": b"web"})
    if body is not None:
        ex.length, ex.body = len(body), [body]
    return ex


__all__ = ["UNKNOWN_LENGTH", "FakeCaller", "FakeConnection", "FakeWalk", "HandPoller", "answer_nothing", "request"]
