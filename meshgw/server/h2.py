"""HTTP/2 from callers: streams to exchanges and answers back, one connection each.

Source: RFC 9113; linkerd-config spec 6.1; DATAPATH.md design point 7. Frames and their rules are in ``wire.h2_connection``; here is what
a request is, when its body is held back, and how a connection ends without losing one. Answers made here to gRPC calls are gRPC's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshgw.core.exchange import Exchange
from meshgw.errors import BadRequest, CallerReset, CallerStalled, ServiceStalled, StreamReset
from meshgw.server.h2_parameters import H2Parameters
from meshgw.server.h2_watch import Relief, Watch
from meshgw.telemetry.streams import UNREAD, laps
from meshgw.wire import h2_frames as frames
from meshgw.wire.grpc import broken_off, error_lines, is_grpc
from meshgw.wire.h2_connection import STARVED_SECONDS, H2Connection
from meshgw.wire.h2_frames import LARGEST_ID, PREFACE, Code, ConnectionFault, StreamFault, code_name
from meshgw.wire.h2_messages import read_request
from meshgw.wire.h2_stream import H2Stream, gather
from meshgw.wire.headers import Headers
from meshgw.wire.hpack import Section

if TYPE_CHECKING:
    from meshgw.core.exchange import Upstream
    from meshgw.core.secured import Secured
    from meshgw.core.stream import Stream
    from meshgw.core.timers import Timer

READ_AHEAD = 65536
"""Bytes of a body that cannot be sent on yet, above which the caller is given no more credit for its stream."""
MOST_SPARE = 128
"""Exchanges that a connection keeps for requests to come; most callers have up to a hundred streams."""
STATUS_LINES = {status: b":status: %d" % status for status in range(200, 600)}
MOST_UNREAD = 1 << 19
"""Bytes of answers that wait beside what the socket's buffer should take, above which a caller is not listened to until it reads."""
SETTLED_SECONDS = 0.1
"""A request that was given up later than that counts as an ordinary one: it had its place among the streams that are allowed at once, and
callers whose deadlines are short give up many when a service is slow."""
TOLD_ANYWAY = (b"l5d-", b"finagle-http-nack:")
"""Fields of an answer made here that a gRPC call gets too."""
DRAIN_PING = b"draining"
UNHELD = -1
WRONG_PROTOCOL = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 69\r\n\r\n"
    b"This port speaks HTTP/2: by prior knowledge, or as agreed on by ALPN\n"
)
"""For callers of HTTP/1.x, those that ask for an upgrade to h2c among them."""


class ServerStream(H2Stream):
    """One request and its answer. The exchange goes back to the connection when it has ended."""

    __slots__ = ("_answered_bytes", "_asked_until", "_ex", "_has_begun", "_server", "held_since", "seen", "still", "taken_before")

    def __init__(self, server: H2Server, id: int) -> None:
        super().__init__(server, id)
        self._server = server
        self._ex: Exchange | None = None
        self._has_begun = False
        self._asked_until = 0.0
        self._answered_bytes = 0
        self.seen, self.still = -1, 0
        """For who watches it: what had moved at the last look, and how many looks ago that was different."""
        self.held_since = 0.0
        self.taken_before = UNHELD
        """What its service had taken when the connection ran out of credit, if the stream was held then."""

    # --- the request

    def headers_received(self, section: Section, ends: bool) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        if self._has_begun:
            self._trailers_received(section, ends)
            return
        self._has_begun = True
        server = self._server
        p = server.parameters
        ex = server.exchange()
        ex.caller = self
        ex.arrived = p.clock()
        try:
            if section.size > p.own.header_list:
                raise BadRequest(reason=f"header section longer than {p.own.header_list} bytes (maxHeaderListBytes)", code=431)
            read_request(section, p.reader, ex, ends=ends)
        except BadRequest as error:
            self._refuse(ex, section, error)
            return
        except StreamFault:
            server.spare(ex)
            raise
        self._ex = ex
        if ends or self._begin_body(ex):
            p.walk.begin(ex)

    def _refuse(self, ex: Exchange, section: Section, error: BadRequest) -> None:
        """Answer a request that is well-formed and not served; nothing of it was read, and the exchange may have had another before."""
        kinds = [field.value for field in section.fields if field.name == b"content-type"]
        ex.method = ex.target = b"-"
        ex.version, ex.line, ex.length = b"2", b"", 0
        ex.headers = Headers([], {b"content-type": kinds[0]} if kinds else None)  # which tells how to answer
        self._ex = ex
        self._server.parameters.walk.refuse(ex, error)

    def _begin_body(self, ex: Exchange) -> bool:
        """A body follows; False when it is refused."""
        length, p = ex.length, self._server.parameters
        if p.max_body is not None and length > p.max_body:
            p.walk.refuse(ex, BadRequest(reason=f"body longer than {p.max_body} bytes (maxRequestKB)", code=413))
            return False
        self.left = length
        if not length:
            return True  # all of it is here, whenever the stream ends
        ex.body_done = False
        ex.body = []
        ex.replay = [] if length <= p.replay else None
        return True

    def body_received(self, data: bytes, ends: bool) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        ex = self._ex
        if ex is None or ex.body_done:
            return  # it has been answered, so that the rest is not wanted
        p = self._server.parameters
        ex.request_bytes += len(data)
        if ex.replay is not None:
            if ex.request_bytes <= p.replay:
                gather(ex.replay, data)
            else:
                ex.replay = None
        if p.max_body is not None and ex.request_bytes > p.max_body:
            p.walk.caller_failed(ex, BadRequest(reason=f"body longer than {p.max_body} bytes (maxRequestKB)", code=413))
            return
        if ends:
            self._asked_until = p.clock()
        upstream = ex.upstream
        if upstream is None:
            if data and ex.body is not None:
                gather(ex.body, data)
                if ex.request_bytes > READ_AHEAD:
                    self.hold()
            if ends:
                ex.body_done, ex.trailers = True, []
            return
        if ends:
            ex.body_done, ex.trailers = True, []
            if data:
                upstream.send_last(data)
            else:
                upstream.send_end([])
            return
        if data:
            upstream.send_body(data)
        if upstream.is_full:
            self.hold()

    def _trailers_received(self, section: Section, ends: bool) -> None:
        if not ends:
            raise StreamFault(Code.PROTOCOL_ERROR, "a second header section that does not end the stream")
        p = self._server.parameters
        if section.size > p.own.header_list:
            raise StreamFault(Code.PROTOCOL_ERROR, f"trailers longer than {p.own.header_list} bytes (maxHeaderListBytes)")
        lines = p.reader.trailers(section)
        self._server.counts.trailers_received += 1
        ex = self._ex
        if ex is None or ex.body_done:
            return
        ex.body_done, ex.trailers = True, lines
        self._asked_until = p.clock()
        if ex.upstream is not None:
            ex.upstream.send_end(lines)

    def waits_for_caller(self) -> bool:
        """Whether nothing happens until the caller does something. Calls of gRPC may be silent for as long as they like."""
        if self.queued:
            return True
        ex = self._ex
        return not self.remote_done and not self.is_held and (ex is None or not (ex.body_done or is_grpc(ex.headers)))

    @property
    def moved(self) -> int:
        """Bytes of bodies that the caller has sent and taken."""
        ex = self._ex
        return self._answered_bytes - self.queued + (0 if ex is None else ex.request_bytes)

    def stood_still(self) -> None:
        """The caller has given no credit, or sent nothing, for too long; the others on its connection need not suffer for that."""
        ex = self._ex
        if self.queued or ex is None:
            if ex is not None and ex.error is None:
                ex.error = CallerStalled(stream_code=Code.CANCEL)
            self._server.reset(self, Code.CANCEL)
            self._gone()
            self._server.ended()
        else:
            self._server.parameters.walk.caller_failed(ex, BadRequest(reason="the request body did not arrive in time", code=408))

    def resume_body(self) -> None:
        """See :class:`meshgw.core.exchange.Caller`."""
        self.release()

    def hold(self) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        if not self.is_held:
            self.held_since = self._server.parameters.clock()
            super().hold()

    @property
    def taken(self) -> int:
        """A count of bytes of the body that grows as long as the service takes any; ``UNHELD`` while the body is not held back."""
        if not self.is_held:
            return UNHELD
        upstream = None if self._ex is None else self._ex.upstream
        return 0 if upstream is None else upstream.taken

    def give_up(self) -> None:
        """The service takes nothing of the body, and others suffer for that."""
        ex, walk = self._ex, self._server.parameters.walk
        if ex is None:
            return
        error = ServiceStalled(seconds=STARVED_SECONDS)
        if ex.responded:
            walk.failed(ex, error, resend=False)
        else:
            walk.expired(ex, error)

    # --- the answer

    def respond(self, ex: Exchange, body: bytes, done: bool) -> None:
        """See :class:`meshgw.core.exchange.Caller`."""
        ex.responded = True
        server = self._server
        if not done:
            ex.headed = server.parameters.clock()  # streams may last: their latency is that of their beginning (spec 9.9)
        response, status = ex.response, ex.status
        if isinstance(ex.error, StreamReset):
            self.cut()
            return
        trailers: list[bytes] | None = None
        if ex.error is not None and is_grpc(ex.headers):
            lines, body, done = error_lines(ex.error, status, response), b"", True
            lines += [line for line in response.lines if line.lower().startswith(TOLD_ANYWAY)]
        else:
            lines = [STATUS_LINES.get(status) or b":status: %d" % status, *response.lines]
            is_bodiless = ex.method == b"HEAD" or status == 304 or status == 204
            if is_bodiless:
                body = b""
            is_known = done and not is_bodiless  # else the length would be that of a body which the service kept to itself
            if ex.response_length >= 0 and b"content-length" not in response.seen and status != 204 and (is_known or ex.error is not None):
                lines.append(b"content-length: %d" % ex.response_length)
            if done and ex.answer_trailers:
                trailers = ex.answer_trailers
        self._answered_bytes = len(body)
        if trailers is not None:
            server.send_whole(self, lines, body, trailers)
        elif body or not done:
            server.send_headers(self, lines, False)
            if body:
                server.send_data(self, body, done)
        else:
            server.send_headers(self, lines, True)
        if done:
            self._answered(ex)

    def inform(self, ex: Exchange, line: bytes, headers: Headers) -> None:
        """Pass an interim answer on, but for a switch of protocols, which HTTP/2 does not know."""
        if not ex.responded and line[9:12].isdigit() and line[9:12] != b"101":
            self._server.send_headers(self, [b":status: " + line[9:12], *headers.lines], False)

    def send_body(self, data: bytes) -> None:
        """See :class:`meshgw.core.exchange.Caller`."""
        self._answered_bytes += len(data)
        self._server.send_data(self, data, False)

    def send_end(self, trailers: list[bytes]) -> None:
        """See :class:`meshgw.core.exchange.Caller`."""
        self._server.send_trailers(self, trailers)
        if self._ex is not None:
            self._answered(self._ex)

    def cut(self) -> None:
        """Break the answer off: the stream is reset, by the code of the other side if it was reset there. A gRPC call gets a status."""
        ex = self._ex
        error = ex.error if ex is not None else None
        code = getattr(error, "stream_code", None)
        if ex is not None and error is not None and code is None and ex.responded and ex.response_length < 0 and is_grpc(ex.headers):
            self._ex = None  # its end does not count as an answer's
            self._server.send_trailers(self, broken_off(error))
            self._ex = ex
        else:
            self._server.reset(self, Code.INTERNAL_ERROR if code is None else code)
        self._gone()
        self._server.ended()

    def tunnel(self, ex: Exchange, peer: Upstream, data: bytes) -> None:
        """See :class:`meshgw.core.exchange.Caller`; no request of HTTP/2 asks for one."""
        self.cut()

    def _answered(self, ex: Exchange) -> None:
        self._ex = None
        self._server.parameters.walk.finish(ex)
        self._count(ex, "")
        self._server.spare(ex)

    def _count(self, ex: Exchange, cause: str) -> None:
        """The stream has ended, before its time if there is a ``cause``; it counts for the listener and for the service."""
        of_server, route = self._server.parameters.streams, ex.route
        if of_server is None:
            return
        asked, answered, arrived, now = ex.request_bytes, self._answered_bytes, ex.arrived, ex.ended
        asking, unasked = self._asked_until - arrived if self._asked_until else 0.0, ""
        if not ex.body_done:
            asking, unasked = now - arrived, cause or UNREAD
        answering = now - ex.headed if ex.headed else 0.0
        of_service = None if route is None else route.policy.streams
        if not cause and not unasked:
            times, buckets = laps(asking, answering, now - arrived)
            of_server.completed(asked, answered, times, buckets)
            if of_service is not None:
                of_service.completed(asked, answered, times, buckets)
            return
        for stats in (of_server,) if of_service is None else (of_server, of_service):
            stats.request.ended(asked, asking, unasked)
            stats.response.ended(answered, answering, cause)
            stats.whole.ended(asked + answered, now - arrived, cause)

    def drained(self) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        ex = self._ex
        if ex is not None and ex.upstream is not None:
            ex.upstream.resume_answer()

    # --- ends

    def sent(self) -> None:
        """The answer is complete before the request is: the rest of that is not wanted (RFC 9113, 8.1)."""
        self._server.reset(self, Code.NO_ERROR)
        self._server.ended()

    def closed(self) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        self._server.defence.forgive()
        self._server.ended()

    def reset_received(self, code: int) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        ex, server = self._ex, self._server
        is_early = ex is None or server.parameters.clock() - ex.arrived < SETTLED_SECONDS
        if ex is not None and ex.error is None:
            ex.error = CallerReset(stream_code=code, code=code_name(code))
        self._gone()
        server.ended()
        if is_early:
            server.defence.reset()

    def faulted(self, reason: str) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        self._server.parameters.on_fault()
        ex = self._ex
        if ex is not None and ex.error is None:
            ex.error = BadRequest(reason=reason)
        self._gone()
        self._server.ended()
        self._server.defence.reset()  # the caller could have reset it itself

    def lost(self, reason: str) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        self._gone()

    def _gone(self) -> None:
        ex, self._ex = self._ex, None
        if ex is not None:
            self._server.parameters.walk.caller_gone(ex)
            self._count(ex, type(ex.error).__name__)
            self._server.spare(ex)


class H2Server(H2Connection):
    """One caller's connection."""

    def __init__(self, connection: Stream, parameters: H2Parameters, peer: tuple[str, int], local: tuple[str, int]) -> None:
        super().__init__(
            connection, parameters.own, parameters.writer, parameters.reader, parameters.later, parameters.clock, parameters.frames
        )
        self.parameters, self.connection = parameters, connection
        self.requests = 0
        self._peer, self._local = peer, local
        self._secured: Secured | None = None
        self._spare: list[Exchange] = []
        self._preface = PREFACE
        self.is_draining = False
        """Whether the caller has been told that no more requests are wanted."""
        self._final = LARGEST_ID
        """The last stream that is served, once that is settled."""
        self._life: Timer | None = None
        self.is_deaf = False
        """Whether nothing is read from a caller that does not read."""
        self._watch = Watch(self)
        self._relief = Relief(self)

    def start(self) -> None:
        """Begin to serve; what comes first is the caller's to say, so that one that speaks HTTP/1.x can be told so."""
        p = self.parameters
        if p.life is not None:
            self._life = p.wheel.after(p.life, self._outlived)
        self.connection.start()

    def _outlived(self) -> None:
        self.parameters.on_life()
        self.drain()

    def secured(self, facts: Secured) -> None:
        """The TLS handshake is done; ``facts`` hold for all requests of the connection."""
        self._secured = facts

    # --- exchanges

    def exchange(self) -> Exchange:
        """An exchange for a new request."""
        if self._spare:
            ex = self._spare.pop()
            ex.secured = self._secured
            return ex
        ex = Exchange()
        ex.walk = self.parameters.walk
        ex.peer, ex.local, ex.secured = self._peer, self._local, self._secured
        return ex

    def spare(self, ex: Exchange) -> None:
        """An exchange has ended."""
        if len(self._spare) < MOST_SPARE:
            ex.reset()
            ex.answer_trailers, ex.headed = None, 0.0
            self._spare.append(ex)

    def opened(self, id: int) -> ServerStream | None:
        """See :class:`meshgw.wire.h2_connection.H2Connection`."""
        if id > self._final:
            return None
        self.requests += 1
        return ServerStream(self, id)

    def ended(self) -> None:
        """A stream has closed."""
        if self.is_draining and not self.streams and self._final != LARGEST_ID:
            self.end()

    # --- bytes

    def data_received(self, data: bytes) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        if self._preface:
            data = self._read_preface(data)
            if not data:
                return
        super().data_received(data)

    def _read_preface(self, data: bytes) -> bytes:
        """What follows the preface, once that is complete."""
        wanted = self._preface
        if data.startswith(wanted):
            self._preface = b""
            self.begin()
            return data[len(wanted) :]
        if wanted.startswith(data):
            self._preface = wanted[len(data) :]
            return b""
        self._preface = b""
        if wanted is PREFACE and data[:1].isalpha() and not data.startswith(PREFACE[:4]):
            self.is_closed = True
            self.connection.write(WRONG_PROTOCOL)
            self.connection.close()
        else:
            self.fail(ConnectionFault(Code.PROTOCOL_ERROR, "no HTTP/2 connection preface"))
        return b""

    def drained(self) -> None:
        """See :class:`meshgw.core.transport.Receiver`: the caller takes bytes again."""
        self.sink_drained()
        if self.is_deaf:
            self.is_deaf = False
            self.connection.resume_reading()

    def unread(self, size: int) -> None:
        """See :class:`meshgw.wire.h2_sending.Sending`: who does not read answers can ask for no more, or they would fill the memory."""
        if size > MOST_UNREAD and not self.is_deaf and not self.is_closed:
            self.is_deaf = True
            self.connection.pause_reading()

    def starved(self) -> None:
        """See :class:`meshgw.wire.h2_connection.H2Connection`."""
        self._relief.begin()

    @property
    def held(self) -> int:
        """Bytes of bodies that services do not take."""
        return self._held

    def failed(self, fault: ConnectionFault) -> None:
        """See :class:`meshgw.wire.h2_connection.H2Connection`."""
        self.parameters.on_failed(fault.code)

    # --- ends

    def eof_received(self) -> None:
        """A caller that closes its side has gone."""
        self.connection.close_now()

    def connection_lost(self, reason: str) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        if self._life is not None:
            self._life.cancel()
        self._relief.cancel()
        self.lose(reason)
        self.parameters.on_closed(self)

    def drain(self, *, close_idle: bool = True) -> None:
        """Say that no more requests are wanted, serve those that were on their way, then close (RFC 9113, 6.8).

        ``close_idle`` makes no difference: other than over HTTP/1.1, a caller is told before its connection is closed.
        """
        if self.is_closed:
            return
        if self._preface:
            self.end()
            return
        if not self.is_draining:
            self.is_draining = True
            self.emit(frames.goaway(LARGEST_ID, Code.NO_ERROR, "draining"))
            self.emit(frames.ping(DRAIN_PING))

    def ping_answered(self, payload: bytes) -> None:
        """The caller has read that no more requests are wanted: those that it has sent are all."""
        if payload == DRAIN_PING and self.is_draining and self._final == LARGEST_ID:
            self._final = self.highest
            self.emit(frames.goaway(self._final, Code.NO_ERROR))
            self.ended()

    def end(self) -> None:
        """Close: nothing is under way."""
        self.is_closed = True
        self.flush()
        self.connection.close()

    def abort(self) -> None:
        """End now, whatever is under way."""
        self.connection.abort()

    def check(self) -> None:
        """Give up what stands still for too long; called by its listener every now and then."""
        self._watch.check()

    def served(self) -> list[ServerStream]:
        """The streams under way."""
        return [stream for stream in self.streams.values() if isinstance(stream, ServerStream)]

    @property
    def is_acquainted(self) -> bool:
        """Whether the caller has told its settings."""
        return self._has_settings

    @property
    def awaited(self) -> object:
        """What stands for the beginning of the connection, or of a request, that has not come whole; None where nothing is missing."""
        return self._block if self._has_settings else self
