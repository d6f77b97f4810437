"""HTTP/1.1 to endpoints: an exchange's request to wire bytes, the answer back, one pooled connection each.

Source: DATAPATH.md; linkerd-config spec 5.3, 5.4; RFC 9112. The head and the body bytes at hand leave in one write. A connection goes
back to its pool only when both messages ended cleanly; bytes that come on an idle connection make it unusable.
"""

from __future__ import annotations

from typing import Protocol

from meshgw.core.exchange import UNKNOWN_LENGTH, Exchange
from meshgw.core.stream import Stream
from meshgw.errors import BadResponse, UpstreamClosed
from meshgw.wire.http1 import (
    CHUNKED,
    UNTIL_CLOSE,
    Body,
    ChunkedBody,
    CloseBody,
    FixedBody,
    ResponseTable,
    chunk,
    last_chunk,
    read_response,
    upgrade_of,
)

_BEGINNING = b"HTTP/1."
_IDLE, _AWAITING_HEAD, _READING_BODY, _TUNNEL, _GONE = range(5)
MOST_INTERIM = 16
"""Interim (1xx) answers accepted before the final one."""
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


class Pool(Protocol):
    """Where the connection belongs."""

    def released(self, client: HttpClient) -> None:
        """The connection is idle again."""
        ...

    def closed(self, client: HttpClient) -> None:
        """The connection is gone."""
        ...


class ClientParameters:
    """What all connections to one bound name share."""

    __slots__ = ("max_body", "max_headers", "table")

    def __init__(self, *, table: ResponseTable, max_headers: int, max_body: int | None = None) -> None:
        self.table, self.max_headers, self.max_body = table, max_headers, max_body


class HttpClient:
    """One connection to an endpoint."""

    __slots__ = (
        *(
            "_body",
            "_buffer",
            "_chunked",
            "_connection",
            "_ex",
            "_interim",
            "_keep",
            "_p",
            "_passed",
            "_paused",
            "_pool",
            "_sent",
            "_state",
            "_used",
        ),
        *("born", "idle_since", "name"),
    )

    def __init__(self, connection: Stream, parameters: ClientParameters, pool: Pool, name: str) -> None:
        self._connection, self._p, self._pool, self.name = connection, parameters, pool, name
        self._ex: Exchange | None = None
        self._state = _IDLE
        self._buffer = b""
        self._body: Body | None = None
        self._chunked = self._keep = self._paused = self._sent = False
        self._interim = self._used = self._passed = 0
        self.born = self.idle_since = 0.0
        """When it was established and when it became idle, for its pool's limits."""
        connection.receiver = self

    @property
    def connection(self) -> Stream:
        """What it speaks over."""
        return self._connection

    @property
    def used(self) -> int:
        """Requests sent on this connection."""
        return self._used

    @property
    def is_stale(self) -> bool:
        """Whether the endpoint has closed the idle connection, or said something unasked, and nobody was told yet."""
        return self._connection.is_readable

    # --- the request

    def send(self, ex: Exchange) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self._ex = ex
        self._state = _AWAITING_HEAD
        self._used += 1
        self._interim = 0
        if ex.length or ex.upgrade is not None:
            self._send_with_more(ex)
            return
        self._sent = True
        line = ex.line if ex.line and ex.target is ex.line_target else ex.request_line()
        self._connection.write(b"\r\n".join([line, *ex.headers.lines, b"", b""]))

    def _begin(self, ex: Exchange) -> None:
        """An exchange begins without a body; nothing was sent yet."""
        self._ex = ex
        self._state = _AWAITING_HEAD
        self._used += 1
        self._interim = 0
        self._sent = True

    def _send_with_more(self, ex: Exchange) -> None:
        """Send a head after which a body or another protocol is to come."""
        head = [ex.request_line(), *ex.headers.lines]
        self._chunked = ex.length == UNKNOWN_LENGTH
        if self._chunked:
            head.append(b"Transfer-Encoding: chunked")
        elif ex.length and b"content-length" not in ex.headers.seen:
            head.append(b"Content-Length: %d" % ex.length)
        if ex.upgrade is not None:
            head.append(b"Connection: Upgrade")
            head.append(b"Upgrade: " + ex.upgrade)
        head.append(b"\r\n")
        data = b"\r\n".join(head)
        self._sent = ex.body_done
        body = ex.body
        if body is not None:
            data += self._first_body(ex, body)
        self._connection.write(data)

    def _first_body(self, ex: Exchange, body: list[bytes]) -> bytes:
        payload = b"".join(body)
        ex.body = None
        if self._chunked:
            payload = chunk(payload) if payload else b""
            if ex.body_done:
                payload += last_chunk(ex.trailers or [])
        return payload

    def send_body(self, data: bytes) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self._connection.write(chunk(data) if self._chunked else data)

    def send_last(self, data: bytes) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self._sent = True
        self._connection.write(chunk(data) + last_chunk([]) if self._chunked else data)

    def send_end(self, trailers: list[bytes]) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        if self._state == _TUNNEL:
            self._connection.write_eof()
            return
        self._sent = True
        if self._chunked:
            self._connection.write(last_chunk(trailers))

    @property
    def is_full(self) -> bool:
        """Whether the request's source should pause."""
        return self._connection.is_full

    @property
    def taken(self) -> int:
        """See :class:`meshgw.core.exchange.Upstream`."""
        return self._connection.flushed

    def drained(self) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        if self._ex is not None:
            self._ex.caller.resume_body()

    # --- the answer

    def data_received(self, data: bytes) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        ex = self._ex
        if self._state != _AWAITING_HEAD or ex is None:
            self._received_more(data)
            return
        if self._buffer:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > self._p.max_headers:
            self._wait_for_more(data, end)
            return
        try:
            keep = read_response(data[:end], self._p.table, ex.method, ex)
        except ValueError as error:
            self._broken(str(error))
            return
        rest = data[end + 4 :]
        self._buffer = b""
        if ex.status < 200:
            self._interim_answer(ex, data, rest)
            return
        self._keep = keep and ex.version != b"1.0"  # as which a request of HTTP/2 is not sent
        length = ex.response_length
        if length != len(rest) or (self._p.max_body is not None and length > self._p.max_body):
            self._begin_body(ex, length, rest)
            return
        self._free(b"")  # the whole answer is here: give the connection back first, so that the next request can have it
        ex.upstream = ex.answer_trailers = None
        ex.walk.answered(ex, rest, True)

    def _received_more(self, data: bytes) -> None:
        """Bytes that come outside of an answer's head."""
        if self._state == _READING_BODY:
            self._read_body(data)
        elif self._state == _TUNNEL and self._ex is not None:
            caller = self._ex.caller
            caller.send_body(data)
            if caller.is_full:
                self.pause_answer()
        else:
            self._connection.close_now()  # an endpoint that talks before it is asked cannot be trusted with the next request

    def _wait_for_more(self, data: bytes, end: int) -> None:
        """The head is not complete, or too long (``end`` is its size then)."""
        self._buffer = data
        if end < 0 and not data.startswith(_BEGINNING[: len(data)]):
            self._broken("not an HTTP/1.x response")
        elif end >= 0 or len(data) - 3 > self._p.max_headers:  # up to three bytes may be of the final empty line
            self._broken(f"header section longer than {self._p.max_headers} bytes (maxHeadersKB)")

    def _begin_body(self, ex: Exchange, length: int, rest: bytes) -> None:
        limit = self._p.max_body
        if limit is not None and length > limit:
            self._broken(f"body longer than {limit} bytes (maxResponseKB)")
            return
        if length == CHUNKED:
            body: Body = ChunkedBody(self._p.table)
        elif length == UNTIL_CLOSE:
            body = CloseBody()
            self._keep = False
        else:
            body = FixedBody(length)
        ex.response_length = length if length >= 0 else UNKNOWN_LENGTH
        self._body = body
        self._state = _READING_BODY
        payload = body.feed(rest)
        self._passed = len(payload)
        if body.error is not None:
            self._broken(body.error)
        elif limit is not None and self._passed > limit:
            self._broken(f"body longer than {limit} bytes (maxResponseKB)")
        elif body.done:
            ex.answer_trailers = body.trailers  # not the request's, which are sent again with a retry
            self._complete(ex, payload, body.rest)
        else:
            ex.answer_trailers = None
            ex.walk.answered(ex, payload, False)
            self._hold(ex)

    def _interim_answer(self, ex: Exchange, data: bytes, rest: bytes) -> None:
        """The head at the beginning of ``data`` is that of an interim answer; ``rest`` comes after it."""
        if ex.status == 101:
            protocol = upgrade_of(ex.response) if data.startswith(b"HTTP/1.1") else None
            if ex.upgrade is None or protocol is None:
                ex.status = 0
                self._broken("101 Switching Protocols without having been asked to switch")
                return
            ex.upgrade = protocol
            self._switch(ex, rest)
            return
        ex.status = 0
        self._interim += 1
        if self._interim > MOST_INTERIM:
            self._broken(f"more than {MOST_INTERIM} interim answers")
            return
        ex.walk.informed(ex, ex.status_line, ex.response)
        if rest and self._ex is ex:
            self.data_received(rest)

    def _switch(self, ex: Exchange, rest: bytes) -> None:
        """From now on bytes are passed on as they come; ``rest`` are the first."""
        self._state = _TUNNEL
        ex.walk.switched(ex, self, rest)

    def _read_body(self, data: bytes) -> None:
        ex, body = self._ex, self._body
        assert ex is not None and body is not None
        payload = body.feed(data)
        if body.error is not None:
            self._broken(body.error)
            return
        limit = self._p.max_body
        if limit is not None:
            self._passed += len(payload)
            if self._passed > limit:  # of an answer that did not tell its length, and has begun: it is cut off
                self._broken(f"body longer than {limit} bytes (maxResponseKB)")
                return
        if payload:
            ex.caller.send_body(payload)
            if self._ex is not ex:
                return  # the caller was lost by writing to it
        if body.done:
            self._free(body.rest)
            ex.upstream = None
            ex.caller.send_end(ex.walk.concluded(ex, body.trailers))
        else:
            self._hold(ex)

    def _complete(self, ex: Exchange, payload: bytes, rest: bytes) -> None:
        """The end of the answer came with its beginning; ``rest`` is not of it."""
        self._free(rest)
        ex.upstream = None
        ex.walk.answered(ex, payload, True)

    def _free(self, rest: bytes) -> None:
        """Nothing is under way any more: give the connection back, or close it if it cannot be used again."""
        self._ex = self._body = None
        self._state = _IDLE
        if self._keep and self._sent and not rest:
            if self._paused:
                self._paused = False
                self._connection.resume_reading()
            self._pool.released(self)
        else:
            self._connection.close_now()

    def _hold(self, ex: Exchange) -> None:
        if self._ex is ex and ex.caller.is_full:
            self.pause_answer()

    def pause_answer(self) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self._paused = True
        self._connection.pause_reading()

    def resume_answer(self) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        if self._paused:
            self._paused = False
            self._connection.resume_reading()

    # --- ends

    def _broken(self, reason: str) -> None:
        ex, self._ex = self._ex, None
        self._connection.close_now()
        if ex is not None:
            ex.upstream = None
            ex.walk.failed(ex, BadResponse(selected=self.name, reason=reason), resend=False)

    def abandon(self) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self._ex = None
        if self._state == _TUNNEL:
            self._connection.close()  # what the caller sent last is still to be delivered
        else:
            self._connection.close_now()

    def close_idle(self) -> None:
        """End the connection if nothing is under way on it."""
        if self._ex is None:
            self._connection.close_now()

    def eof_received(self) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        ex = self._ex
        if self._state == _READING_BODY and isinstance(self._body, CloseBody) and ex is not None:
            self._free(b"")
            ex.upstream = None
            ex.caller.send_end(ex.walk.concluded(ex, []))
        elif self._state == _TUNNEL and ex is not None:
            ex.caller.send_end([])
        else:
            self._connection.close_now()

    def connection_lost(self, reason: str) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        ex, self._ex = self._ex, None
        state, self._state = self._state, _GONE
        self._pool.closed(self)
        if ex is None:
            return
        ex.upstream = None
        # a kept connection that ends before any byte of an answer was most likely closed while idle (RFC 9112 section 9.3.1)
        stale = state == _AWAITING_HEAD and self._used > 1 and not self._buffer and not self._interim
        resend = stale and ex.method in IDEMPOTENT
        ex.walk.failed(ex, UpstreamClosed(selected=self.name, reason=reason), resend=resend)
