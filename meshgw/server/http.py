"""HTTP/1.x from callers: wire bytes to exchanges and answers back, one connection each.

Source: DATAPATH.md; linkerd-config spec 5.3, 5.4, 5.8; RFC 9112. Pipelined requests are answered one after the other; input is read ahead
only up to a limit. A request that cannot be read with certainty is answered and its connection closed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meshgw.core.exchange import UNKNOWN_LENGTH, Exchange
from meshgw.errors import BadRequest
from meshgw.server.framing import frame, status_line
from meshgw.server.parameters import HttpParameters
from meshgw.server.tunnel import OpenTunnel
from meshgw.wire.headers import Headers
from meshgw.wire.http1 import CHUNKED, Body, ChunkedBody, FixedBody, chunk, last_chunk, read_request, violation

if TYPE_CHECKING:
    from meshgw.core.exchange import Upstream
    from meshgw.core.secured import Secured
    from meshgw.core.stream import Stream
    from meshgw.core.timers import Timer

READ_AHEAD = 65536
"""Bytes kept of requests or bodies that cannot be handled yet, above which the caller is not read from."""
_CR = 13
_EMPTY_LINES = re.compile(rb"(?:\r\n)*")
_READING_HEAD, _READING_BODY, _ANSWERING, _SENDING, _TUNNEL, _CLOSED = range(6)


class HttpServer:
    """One caller's connection; it owns the exchange of the request under way."""

    __slots__ = (
        "_body",
        "_buffer",
        "_chunked",
        "_close_idle",
        "_closing",
        "_connection",
        "_ex",
        "_halves",
        "_keep",
        "_harmless",
        "_life",
        "_marker",
        "_open",
        "_p",
        "_paused",
        "_reading",
        "_requests",
        "_state",
        "_still",
        "_tunnel",
    )

    def __init__(self, connection: Stream, parameters: HttpParameters, peer: tuple[str, int], local: tuple[str, int]) -> None:
        self._connection, self._p = connection, parameters
        self._harmless = min(parameters.max_line, parameters.max_headers)  # a head of this size is within both limits
        self._ex = ex = Exchange()
        ex.caller, ex.walk, ex.peer, ex.local = self, parameters.walk, peer, local
        self._buffer = b""
        self._state = _READING_HEAD
        self._body: Body | None = None
        self._keep = True
        self._close_idle = self._closing = self._chunked = self._paused = self._reading = False
        self._tunnel: Upstream | None = None
        self._open: OpenTunnel | None = None
        self._requests = self._still = self._halves = 0
        self._marker: tuple[object, ...] = ()
        self._life: Timer | None = None

    def start(self) -> None:
        """Begin to read from the caller."""
        if self._p.life is not None:
            self._life = self._p.wheel.after(self._p.life, self._outlived)
        self._connection.start()

    def _outlived(self) -> None:
        self._p.on_life()
        self.drain()

    @property
    def connection(self) -> Stream:
        """What it speaks over."""
        return self._connection

    @property
    def requests(self) -> int:
        """Requests begun on this connection."""
        return self._requests

    def secured(self, facts: Secured) -> None:
        """The TLS handshake is done; ``facts`` hold for all requests of the connection."""
        self._ex.secured = facts

    # --- bytes from the caller

    def data_received(self, data: bytes) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        if self._state != _READING_HEAD:
            self._received_more(data)
            return
        if self._buffer:
            data = self._buffer + data
        p, ex = self._p, self._ex
        self._reading = True
        while data:  # a loop, so that pipelined requests answered at once do not recurse
            if data[0] == _CR:  # RFC 9112 section 2.2: empty lines before a request are skipped
                data = data[_EMPTY_LINES.match(data).end() :]  # type: ignore[union-attr]  # it matches anything
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._wait_for_more(data)
                break
            self._buffer = data[end + 4 :]
            if end > self._harmless and self._is_too_long(data, end):
                break
            try:
                self._keep = read_request(data[:end], p.table, ex)
            except BadRequest as problem:
                self._refuse(violation(data[: end + 2], end, p.max_line, p.max_headers) or problem)
                break
            self._requests += 1
            ex.arrived = p.clock()
            self._state = _ANSWERING
            if ex.length and not self._begin_body(ex.length):
                break
            p.walk.begin(ex)
            if self._state != _READING_HEAD:
                break
            data = self._buffer
        self._reading = False

    def _received_more(self, data: bytes) -> None:
        """Bytes that come while a request is under way."""
        state = self._state
        if state == _READING_BODY:
            self._read_body(data)
        elif state == _TUNNEL:
            peer = self._tunnel
            if peer is not None:
                peer.send_body(data)
                if peer.is_full:
                    self._pause()
        elif state in (_ANSWERING, _SENDING):
            self._buffer += data
            if len(self._buffer) > READ_AHEAD:
                self._pause()

    def _wait_for_more(self, data: bytes) -> None:
        """The head is not complete: keep what there is of it, unless it is wrong already."""
        self._buffer = data
        if data:
            error = violation(data, -1, self._p.max_line, self._p.max_headers)
            if error is not None:
                self._refuse(error)

    def _is_too_long(self, data: bytes, end: int) -> bool:
        """Whether a head that may exceed a limit does, or is wrong before that point; it is answered then."""
        error = violation(data[: end + 2], end, self._p.max_line, self._p.max_headers)
        if error is not None:
            self._refuse(error)
        return error is not None

    def _begin_body(self, length: int) -> bool:
        """Take the body bytes at hand; False when the body is refused."""
        ex, p = self._ex, self._p
        if p.max_body is not None and length > p.max_body:
            self._refuse(BadRequest(reason=f"body longer than {p.max_body} bytes (maxRequestKB)", code=413))
            return False
        ex.upgrade = None  # a body and a switch of protocols do not go together
        self._body = body = ChunkedBody(p.table) if length == CHUNKED else FixedBody(length)
        data, self._buffer = self._buffer, b""
        payload = body.feed(data)
        if p.max_body is not None and len(payload) > p.max_body:
            self._refuse(BadRequest(reason=f"body longer than {p.max_body} bytes (maxRequestKB)", code=413))
            return False
        if body.error is not None:
            self._refuse(BadRequest(reason=body.error))
            return False
        ex.request_bytes = len(payload)
        ex.body = [payload] if payload else []
        ex.replay = [payload] if len(payload) <= p.replay and length <= p.replay else None
        ex.body_done = body.done
        if body.done:
            self._buffer, ex.trailers = body.rest, body.trailers
        else:
            self._state = _READING_BODY
        return True

    def _read_body(self, data: bytes) -> None:
        ex, body = self._ex, self._body
        assert body is not None
        payload = body.feed(data)
        ex.request_bytes += len(payload)
        if ex.replay is not None:
            if ex.request_bytes <= self._p.replay:
                ex.replay.append(payload)
            else:
                ex.replay = None
        error = body.error
        if ex.length == UNKNOWN_LENGTH and self._p.max_body is not None and ex.request_bytes > self._p.max_body:
            self._fail(BadRequest(reason=f"body longer than {self._p.max_body} bytes (maxRequestKB)", code=413))
            return
        if error is not None:
            self._fail(BadRequest(reason=error))
            return
        if body.done:
            self._state = _ANSWERING
            self._buffer, ex.body_done, ex.trailers = body.rest, True, body.trailers
        upstream = ex.upstream
        if upstream is None:
            if payload and ex.body is not None:
                ex.body.append(payload)
                if sum(map(len, ex.body)) > READ_AHEAD:
                    self._pause()
            return
        if payload:
            upstream.send_body(payload)
        if body.done:
            upstream.send_end(body.trailers)
        elif upstream.is_full:
            self._pause()

    def _fail(self, error: BadRequest) -> None:
        """The request became invalid on its way: its connection ends with this exchange."""
        self._keep = False
        self._state = _ANSWERING
        self._p.walk.caller_failed(self._ex, error)

    def _refuse(self, error: BadRequest) -> None:
        """Answer a head that could not be read, and close."""
        self._buffer = b""
        self._keep = False
        self._state = _ANSWERING
        ex = self._ex
        if not ex.arrived:
            ex.arrived = self._p.clock()
            ex.method = ex.target = ex.version = ex.line = b""  # not those of the request before, nor a part of this one
            ex.headers, ex.upgrade, ex.length = Headers(), None, 0
        self._p.walk.refuse(ex, error)

    # --- the answer

    @property
    def is_full(self) -> bool:
        """Whether the answer's source should pause."""
        return self._connection.is_full

    def respond(self, ex: Exchange, body: bytes, done: bool) -> None:
        """See :class:`meshgw.core.exchange.Caller`."""
        ex.responded = True
        response = ex.response
        lines = response.lines
        line = ex.status_line
        if self._closing or not ex.body_done:
            self._keep = False
        if line and ex.response_length >= 0 and b"content-length" in response.seen:  # an endpoint's answer that needs no framing of ours
            self._chunked = False
        else:
            line = line or status_line(ex.status)
            body, self._chunked, can_keep = frame(ex, body, done)
            self._keep = self._keep and can_keep
        if not self._keep:
            lines.append(b"Connection: close")
        elif ex.version == b"1.0":
            lines.append(b"Connection: keep-alive")
        self._connection.write(b"\r\n".join([line, *lines, b"", body]))
        if done:
            self._answered()

    def inform(self, ex: Exchange, line: bytes, headers: Headers) -> None:
        """Pass an interim answer on; HTTP/1.0 callers do not know them (RFC 9110 section 15.2)."""
        if ex.version == b"1.1" and not ex.responded:
            self._connection.write(b"\r\n".join((line, *headers.lines, b"", b"")))

    def send_body(self, data: bytes) -> None:
        """See :class:`meshgw.core.exchange.Caller`."""
        self._connection.write(chunk(data) if self._chunked else data)

    def send_end(self, trailers: list[bytes]) -> None:
        """See :class:`meshgw.core.exchange.Caller`."""
        if self._state == _TUNNEL:
            self._connection.write_eof()
            self._half_end_tunnel()
            return
        if self._chunked:
            self._connection.write(last_chunk(trailers))
        self._answered()

    def cut(self) -> None:
        """Break the answer off: reset, so that no cache or client takes a part for the whole."""
        self._connection.abort()

    def _answered(self) -> None:
        """The answer is complete: account for it, then take the next request or close."""
        ex = self._ex
        self._p.walk.finish(ex)
        self._body = None
        if not self._keep:
            self._state = _CLOSED
            self._connection.close()
            return
        ex.reset()
        if self._closing and self._close_idle:
            self._state = _CLOSED
            self._connection.close()
        elif self._connection.is_full:
            self._state = _SENDING  # who does not read answers gets no more of them, or they would fill the memory
        else:
            self._state = _READING_HEAD
            if self._buffer or self._paused:
                self._next_request()

    def _next_request(self) -> None:
        self._state = _READING_HEAD
        if self._paused:
            self._resume()
        if self._buffer and not self._reading:
            self.data_received(b"")

    # --- switching protocols

    def tunnel(self, ex: Exchange, peer: Upstream, data: bytes) -> None:
        """See :class:`meshgw.core.exchange.Caller`."""
        self._state = _TUNNEL
        self._tunnel = peer
        self._keep = self._chunked = False  # what follows is not HTTP: neither framed as an answer before it, nor followed by a request
        ex.responded = True
        lines = ex.response.lines
        if ex.upgrade is not None:  # else the tunnel is the answer to CONNECT
            lines.append(b"Connection: Upgrade")
            lines.append(b"Upgrade: " + ex.upgrade)
        head = b"\r\n".join((ex.status_line, *lines, b"", b""))
        early, self._buffer = self._buffer, b""
        p = self._p
        self._open = OpenTunnel(self._connection, p.tunnels, checks=p.tunnel_checks, head=len(head), early=len(early))
        self._connection.write(head + data)
        if early:
            peer.send_body(early)
        if not peer.is_full:
            self._resume()

    def _half_end_tunnel(self) -> None:
        """One direction ended; after the second one both connections end, each once its output is sent."""
        self._halves += 1
        if self._halves == 2:
            self._end_tunnel()
            self._answered()

    def _end_tunnel(self) -> None:
        tunnel, self._open = self._open, None
        if tunnel is not None:
            self._ex.response_length = tunnel.ended()  # which the access log shows

    # --- pressure

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._connection.pause_reading()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._connection.resume_reading()

    def resume_body(self) -> None:
        """See :class:`meshgw.core.exchange.Caller`."""
        if self._state == _READING_BODY or self._state == _TUNNEL:
            self._resume()

    def drained(self) -> None:
        """See :class:`meshgw.core.transport.Receiver`: the caller takes bytes again."""
        if self._state == _SENDING:
            self._next_request()
            return
        upstream = self._ex.upstream
        if upstream is not None:
            upstream.resume_answer()

    # --- ends

    def eof_received(self) -> None:
        """A caller that closes its side has gone: what it asked for is cancelled. In a tunnel the close is passed on."""
        if self._state == _TUNNEL and self._tunnel is not None:
            self._tunnel.send_end([])
            self._half_end_tunnel()
        elif self._state == _READING_HEAD or self._state == _SENDING:
            self._end_idle()
        else:
            self._connection.close_now()

    def _end_idle(self) -> None:
        """No request is under way: end the connection, but not before the last answer was sent."""
        self._state = _CLOSED
        if self._connection.is_sending:
            self._connection.close()
        else:
            self._connection.close_now()

    def connection_lost(self, reason: str) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        state, self._state = self._state, _CLOSED
        if self._life is not None:
            self._life.cancel()
        self._end_tunnel()
        if state in (_READING_BODY, _ANSWERING, _TUNNEL):
            self._p.walk.caller_gone(self._ex)
        self._tunnel = None
        self._p.on_closed(self)

    def drain(self, *, close_idle: bool = True) -> None:
        """Close after the answer under way. When idle, close at once, or with ``close_idle`` false after the next answer."""
        self._closing = True
        self._close_idle = close_idle
        if close_idle and (self._state == _SENDING or (self._state == _READING_HEAD and not self._buffer)):
            self._end_idle()

    def abort(self) -> None:
        """End now, whatever is under way."""
        self._connection.abort()

    def check(self) -> None:
        """Close a connection that stands still for too long; called by its listener every now and then."""
        state, p = self._state, self._p
        if self._open is not None:
            if self._open.is_idle():
                self._connection.close_now()
            return
        marker = (self._requests, bool(self._buffer), state, self._ex.request_bytes, self._connection.flushed)
        if marker != self._marker:
            self._marker, self._still = marker, 0
            return
        self._still += 1
        if state == _READING_HEAD:
            if self._buffer and self._still >= p.head_checks:
                p.on_silence()
                self._refuse(BadRequest(reason="the request head did not arrive in time", code=408))
            elif not self._buffer and self._still >= p.idle_checks:
                p.on_idle()
                self._connection.close_now()
        elif self._still >= p.stall_checks:
            if self._connection.is_full:
                p.on_stall()
                self._connection.abort()  # the caller does not read its answer
            elif state == _READING_BODY and not self._paused:
                p.on_silence()
                self._fail(BadRequest(reason="the request body did not arrive in time", code=408))
