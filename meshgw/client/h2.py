"""HTTP/2 to endpoints: exchanges to streams of shared connections, the answers back.

Source: RFC 9113; linkerd-config spec 6.1. A request that the endpoint certainly did not look at (REFUSED_STREAM, beyond the last stream of
a GOAWAY) may be sent again. A reset passes on to the caller with its code. Where the verdict is in an answer's trailers, a short one
is kept until its end, so that the request can still be retried.
"""

from __future__ import annotations

from typing import Protocol

from meshgw.client.h2_parameters import H2ClientParameters
from meshgw.core.exchange import UNKNOWN_LENGTH, Exchange, Hold
from meshgw.core.stream import Stream
from meshgw.core.timers import Timer
from meshgw.errors import BadResponse, CallerStalled, StreamReset, UpstreamClosed
from meshgw.telemetry.streams import UNREAD, laps
from meshgw.wire import h2_frames as frames
from meshgw.wire.h2_connection import CROWDED, MOST_HELD, STARVED_SECONDS, H2Connection
from meshgw.wire.h2_frames import LARGEST_ID, Code, ConnectionFault, StreamFault, code_name
from meshgw.wire.h2_messages import read_status
from meshgw.wire.h2_stream import H2Stream, gather
from meshgw.wire.hpack import Section

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
MOST_INTERIM = 16
"""Interim (1xx) answers accepted before the final one."""
ASSUMED_STREAMS = 1
"""Streams opened before the endpoint has told how many it takes: it would refuse more, and not all requests can be sent again."""
SETTINGS_SECONDS = 10.0
"""How long an endpoint may take to tell."""
SILENCE_SECONDS = 20.0
"""How long an endpoint may say nothing after a request before it is asked whether it is there, and then until it answers."""
ALIVE_PING = b"is alive"
ASK_AGAIN_SECONDS = 300.0
"""The least time between two such questions without an answer's head between them: servers of gRPC end connections that ask more."""
MOST_HASTY = 2
"""So many may come sooner, about a request that was sent after the question before: those servers forgive two."""
MOST_UNREAD = 4 << 20
"""Bytes of requests that wait beside what the socket's buffer should take, above which the endpoint counts as stuck."""
NOT_YET = -1.0
"""Stands for a time that has not come."""
METHOD_LINES = {method: b":method: " + method for method in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")}


class Pool(Protocol):
    """Where the connection belongs."""

    def released(self, client: H2Client) -> None:
        """A stream ended, or more are allowed: the connection may have room."""
        ...

    def closed(self, client: H2Client) -> None:
        """The connection is gone."""
        ...

    def leaving(self, client: H2Client) -> None:
        """The connection takes no more streams."""
        ...


class ClientStream(H2Stream):
    """One attempt of an exchange."""

    __slots__ = (
        *("_answered_bytes", "_asked_bytes", "_asked_until", "_began", "_headed"),
        *("_client", "_ex", "_hold", "_interim", "_kept", "_kept_bytes", "_passed", "_until", "held_since"),
    )

    def __init__(self, client: H2Client) -> None:
        super().__init__(client, client.next_id)
        self._client = client
        self._ex: Exchange | None = None
        self._interim = self._passed = self._kept_bytes = self._asked_bytes = self._answered_bytes = 0
        self._began = self._asked_until = self._headed = self.held_since = NOT_YET
        self._kept: list[bytes] | None = None
        self._hold: Hold | None = None
        self._until: Timer | None = None

    # --- the request

    def send(self, ex: Exchange) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        client = self._client
        self._ex = ex
        self._began = ex.attempt_started
        ex.answer_trailers = None
        self.id = client.next_id
        client.next_id += 2
        client.streams[self.id] = self
        p = client.parameters
        headers = ex.headers
        host = headers.seen.get(b"host")
        method, target = ex.method, ex.target
        lines = [METHOD_LINES.get(method) or b":method: " + method, p.scheme, b":path: " + target]
        if host:
            lines.append(b":authority: " + host)
        lines += headers.lines
        te = headers.seen.get(b"te")
        if te is not None and b"trailers" in te.lower():
            lines.append(b"te: trailers")
        body, ex.body = ex.body, None
        done = ex.body_done
        data = b"".join(body) if body else b""
        if done:
            self._asked_until = self._began
        if done and not data and not ex.trailers:
            client.send_headers(self, lines, True)
            return
        if ex.length > 0 and b"content-length" not in headers.seen:
            lines.append(b"content-length: %d" % ex.length)
        client.send_headers(self, lines, False)
        if data:
            self._asked_bytes = len(data)
            client.send_data(self, data, done and not ex.trailers)
        if done and ex.trailers:
            client.send_trailers(self, ex.trailers)

    def send_body(self, data: bytes) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self._asked_bytes += len(data)
        self._client.send_data(self, data, False)

    def send_last(self, data: bytes) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self._asked_bytes += len(data)
        self._asked_until = self._client.parameters.clock()
        self._client.send_data(self, data, True)

    def send_end(self, trailers: list[bytes]) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self._asked_until = self._client.parameters.clock()
        self._client.send_trailers(self, trailers)

    @property
    def taken(self) -> int:
        """See :class:`meshgw.core.exchange.Upstream`."""
        return self._asked_bytes - self.queued

    def drained(self) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        if self._ex is not None:
            self._ex.caller.resume_body()

    # --- the answer

    def headers_received(self, section: Section, ends: bool) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        client = self._client
        ex, p = self._ex, client.parameters
        client.answers += 1
        if ex is None:
            return
        if section.size > p.own.header_list:
            raise StreamFault(Code.PROTOCOL_ERROR, f"header section longer than {p.own.header_list} bytes (maxHeaderListBytes)")
        if ex.status:
            self._trailers_received(ex, section, ends)
            return
        status = read_status(section.fields)
        headers = ex.response
        if status < 200:
            self._interim_answer(ex, status, section, ends)
            return
        p.reader.headers(section, 1, headers)
        length = headers.seen.get(b"content-length")
        if ex.method == b"HEAD" or status == 304 or status == 204:
            ex.response_length = self.left = 0  # whatever the fields tell: over HTTP/1.1 a body would be taken for the next answer
        elif ends:
            if length is not None and int(length):
                raise StreamFault(Code.PROTOCOL_ERROR, "an answer without a body and with a content-length")
            ex.response_length = 0
        else:
            ex.response_length = UNKNOWN_LENGTH if length is None else int(length)
            self.left = ex.response_length
        if p.max_body is not None and ex.response_length > p.max_body:
            raise StreamFault(Code.CANCEL, f"body longer than {p.max_body} bytes (maxResponseKB)")
        ex.status_line = b""
        ex.status = status
        if ends:
            self._finished(ex)
            ex.answer_trailers = []
            ex.walk.answered(ex, b"", True)
            return
        self._headed = p.clock()
        hold = ex.walk.holds(ex)
        if hold is not None and hold.seconds > 0:  # the verdict comes with the end: wait for that, but not for long and not for much
            self._kept, self._hold = [], hold
            client.keeping.append(self)
        else:
            ex.walk.answered(ex, b"", False)
            self._hold_back(ex)

    def _interim_answer(self, ex: Exchange, status: int, section: Section, ends: bool) -> None:
        self._interim += 1
        if ends or status == 101 or self._interim > MOST_INTERIM:
            raise StreamFault(Code.PROTOCOL_ERROR, f"an interim answer that is not allowed ({status})")
        self._client.parameters.reader.headers(section, 1, ex.response)
        ex.walk.informed(ex, b"HTTP/1.1 %d Informational" % status, ex.response)

    def body_received(self, data: bytes, ends: bool) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        ex = self._ex
        if ex is None:
            return
        if not ex.status:
            raise StreamFault(Code.PROTOCOL_ERROR, "DATA before an answer's header section")
        self._answered_bytes += len(data)
        limit = self._client.parameters.max_body
        if limit is not None:
            self._passed += len(data)
            if self._passed > limit:
                raise StreamFault(Code.CANCEL, f"body longer than {limit} bytes (maxResponseKB)")
        if self._kept is not None:
            self._keep_body(ex, data, ends)
            return
        if ends:
            self._finished(ex)
            trailers = ex.walk.concluded(ex, [])
        if data:
            ex.caller.send_body(data)
        if ends:
            ex.caller.send_end(trailers)
        else:
            self._hold_back(ex)

    def _trailers_received(self, ex: Exchange, section: Section, ends: bool) -> None:
        if not ends:
            raise StreamFault(Code.PROTOCOL_ERROR, "a second header section that does not end the stream")
        lines = self._client.parameters.reader.trailers(section)
        self._client.counts.trailers_received += 1
        self._finished(ex)
        if self._kept is not None:
            self._decide(ex, lines)
            return
        ex.caller.send_end(ex.walk.concluded(ex, lines))

    # --- keeping an answer until its verdict

    def _keep_body(self, ex: Exchange, data: bytes, ends: bool) -> None:
        kept, hold = self._kept, self._hold
        assert kept is not None and hold is not None
        gather(kept, data)
        self._kept_bytes += len(data)
        if ends:
            self._finished(ex)
            self._decide(ex, [])
        elif self._kept_bytes > hold.size:
            hold.on_size()
            self._let_go(ex)

    def kept_on(self) -> None:
        """What has been read does not have the end of the answer, if that is kept: from now on it is waited for."""
        if self._hold is not None and self._until is None:
            self._until = self._client.parameters.wheel.after(self._hold.seconds, self._kept_too_long)

    def _kept_too_long(self) -> None:
        self._until = None
        if self._ex is not None and self._hold is not None:
            self._hold.on_time()
            self._let_go(self._ex)

    def _decide(self, ex: Exchange, trailers: list[bytes]) -> None:
        """The whole answer is here."""
        body = b"".join(self._kept or ())
        self._forget_kept()
        ex.answer_trailers = trailers
        ex.walk.answered(ex, body, True)

    def _let_go(self, ex: Exchange) -> None:
        """It cannot be kept any longer: pass it on, and judge it at its end."""
        body = b"".join(self._kept or ())
        self._forget_kept()
        ex.walk.answered(ex, body, False)
        self._hold_back(ex)

    def _forget_kept(self) -> None:
        self._kept = self._hold = None
        if self._until is not None:
            self._until.cancel()
            self._until = None

    # --- pressure

    def _hold_back(self, ex: Exchange) -> None:
        if self._ex is ex and ex.caller.is_full:
            self.hold()

    def hold(self) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        if not self.is_held:
            self.held_since = self._client.parameters.clock()
            super().hold()

    def give_up(self) -> None:
        """The caller takes nothing of its answer, and others suffer for that."""
        if self._ex is not None:
            self._ex.walk.caller_failed(self._ex, CallerStalled(stream_code=Code.CANCEL))

    def pause_answer(self) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self.hold()

    def resume_answer(self) -> None:
        """See :class:`meshgw.core.exchange.Upstream`."""
        self.release()

    # --- ends

    def _finished(self, ex: Exchange) -> None:
        """The whole answer is here: the exchange needs this no more."""
        self._count("")
        self._ex = None
        ex.upstream = None
        if not self.local_done:  # the endpoint has answered before it had the whole request, which is not wanted any more
            self._client.reset(self, Code.NO_ERROR)
            self._client.ended()

    def closed(self) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        self._client.ended()

    def abandon(self) -> None:
        """See :class:`meshgw.core.exchange.Upstream`; a reset of the caller's goes on with its code."""
        ex, self._ex = self._ex, None
        if ex is not None:
            self._count("Cancelled" if ex.error is None else type(ex.error).__name__)
        self._forget_kept()
        client = self._client
        if client.streams.get(self.id) is self:
            client.reset(self, getattr(ex.error, "stream_code", Code.CANCEL) if ex is not None else Code.CANCEL)
            client.ended()

    def reset_received(self, code: int) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        ex = self._take("StreamReset")
        client = self._client
        client.ended()
        if ex is not None:
            resend = code == Code.REFUSED_STREAM and not ex.status
            ex.walk.failed(ex, StreamReset(selected=client.name, code=code_name(code), stream_code=code), resend=resend)

    def faulted(self, reason: str) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        ex = self._take("BadResponse")
        self._client.ended()
        if ex is not None:
            ex.walk.failed(ex, BadResponse(selected=self._client.name, reason=reason), resend=False)

    def lost(self, reason: str) -> None:
        """See :class:`meshgw.wire.h2_stream.H2Stream`."""
        ex = self._take("UpstreamClosed")
        if ex is not None:
            client = self._client
            unseen = self.id > client.last and not ex.status
            # as over HTTP/1.1: what can be sent twice may have met a connection that was closed while idle
            stale = client.is_stale_loss and ex.method in IDEMPOTENT and not ex.status
            ex.walk.failed(ex, UpstreamClosed(selected=client.name, reason=reason), resend=unseen or stale)

    def _take(self, cause: str) -> Exchange | None:
        """Leave the exchange, of which no whole answer came."""
        ex, self._ex = self._ex, None
        self._forget_kept()
        if ex is not None:
            self._count(cause)
            ex.upstream = None
        return ex

    def _count(self, cause: str) -> None:
        """The stream has ended, before its time if there is a ``cause``."""
        stats = self._client.parameters.streams
        if stats is None:
            return
        now = self._client.parameters.clock()
        until, headed = self._asked_until, self._headed
        is_asked = until != NOT_YET
        answering = 0.0 if headed == NOT_YET else now - headed
        if is_asked and not cause:
            times, buckets = laps(until - self._began, answering, now - self._began)
            stats.completed(self._asked_bytes, self._answered_bytes, times, buckets)
            return
        stats.request.ended(self._asked_bytes, (until if is_asked else now) - self._began, "" if is_asked else cause or UNREAD)
        stats.response.ended(self._answered_bytes, answering, cause)
        stats.whole.ended(self._asked_bytes + self._answered_bytes, now - self._began, cause)


class H2Client(H2Connection):
    """One connection to an endpoint."""

    def __init__(self, connection: Stream, parameters: H2ClientParameters, pool: Pool, name: str) -> None:
        super().__init__(
            connection, parameters.own, parameters.writer, parameters.reader, parameters.later, parameters.clock, parameters.frames
        )
        self.parameters, self.connection, self.name = parameters, connection, name
        self._pool = pool
        self.born = self.idle_since = 0.0
        self.used = 0
        """Requests sent on this connection."""
        self.last = LARGEST_ID
        """The last stream that the endpoint will look at, or has looked at."""
        self.is_leaving = False
        self.is_stale_loss = False
        self._patience = parameters.wheel.after(SETTINGS_SECONDS, self._silent)
        self._watch: Timer | None = None
        self._relief: Timer | None = None
        self.keeping: list[ClientStream] = []
        """Those that have begun to keep their answers since the last bytes came; a short answer has its end in the same."""
        self._heard = self._watched = 0  # bytes received, and requests sent, when the connection was looked at last
        self._is_asked = False
        self._asked_again = float("-inf")
        self._asked_used = self._hasty = 0  # requests sent until the last question, and the questions that came early
        self.answers = self._answers_before = 0
        """Sections received, and those until the last question."""
        connection.receiver = self
        self.begin()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self.streams

    @property
    def is_new(self) -> bool:
        """Whether the endpoint has yet to tell how many streams it takes."""
        return not self._has_settings and not self.is_leaving

    @property
    def room(self) -> int:
        """How many more streams it takes now."""
        if self.is_leaving or self.is_closed or self._held > CROWDED:
            return 0
        most = self.peer_streams if self._has_settings else ASSUMED_STREAMS
        return LARGEST_ID if most is None else most - len(self.streams)

    def stream(self) -> ClientStream:
        """A stream for one more request; :attr:`room` must allow it."""
        self.used += 1
        if self.next_id >= LARGEST_ID - 2:
            self._leave()
        if self._watch is None:
            self._heard = self.connection.received
            self._watch = self.parameters.wheel.after(SILENCE_SECONDS, self._look)
        return ClientStream(self)

    def _look(self) -> None:
        """A request was sent a while ago: an endpoint that has said nothing at all since is asked whether it is there, but once only."""
        self._watch = None
        if not self.streams or self.is_closed:
            self._is_asked = False
            return
        is_heard = self.connection.received != self._heard
        if not is_heard and self._is_asked:
            self._leave()
            self.lose(f"no answer to a PING in {SILENCE_SECONDS:g} s")
            self.connection.abort()
            return
        if not is_heard:
            now = self.parameters.clock()
            if self.answers != self._answers_before:
                self._hasty = 0
            elif now < self._asked_again:
                if self._hasty >= MOST_HASTY or self.used == self._asked_used:
                    self._watch = self.parameters.wheel.after(min(self._asked_again - now, SILENCE_SECONDS), self._look)
                    return
                self._hasty += 1
            self._asked_again, self._answers_before, self._asked_used = now + ASK_AGAIN_SECONDS, self.answers, self.used
            self.emit(frames.ping(ALIVE_PING))
        elif self._watched == self.used:
            self._is_asked = False
            return  # until the next request
        self._is_asked = not is_heard
        self._heard, self._watched = self.connection.received, self.used
        self._watch = self.parameters.wheel.after(SILENCE_SECONDS, self._look)

    # --- callers that do not take their answers

    def count_held(self, size: int) -> None:
        """See :class:`meshgw.wire.h2_sending.Sending`."""
        was_crowded = self._held > CROWDED
        super().count_held(size)
        if was_crowded and self._held <= CROWDED:
            self.parameters.wheel.soon(self._has_room_again)  # not now, while a stream is being closed

    def _has_room_again(self) -> None:
        if not self.is_leaving:
            self._pool.released(self)

    def starved(self) -> None:
        """See :class:`meshgw.wire.h2_connection.H2Connection`."""
        if self._relief is None:
            self._relief = self.parameters.wheel.after(STARVED_SECONDS, self._relieve)

    def _relieve(self) -> None:
        """If it is so still, give up the streams whose callers have taken nothing since, longest first: the others wait for them."""
        self._relief = None
        if self.is_closed or self._held <= MOST_HELD:
            return
        before = self.parameters.clock() - STARVED_SECONDS
        held = [stream for stream in self.streams.values() if isinstance(stream, ClientStream) and stream.is_held]
        for stream in sorted(held, key=lambda stream: stream.held_since):
            if stream.held_since > before or self._held <= CROWDED:
                break
            stream.give_up()
        if self._held > MOST_HELD:
            self.starved()

    # --- told by the endpoint

    def data_received(self, data: bytes) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        super().data_received(data)
        if self.keeping:
            for stream in self.keeping:
                stream.kept_on()
            self.keeping.clear()

    def settings_changed(self) -> None:
        """See :class:`meshgw.wire.h2_connection.H2Connection`."""
        self._patience.cancel()
        self._pool.released(self)

    def _silent(self) -> None:
        self.fail(ConnectionFault(Code.SETTINGS_TIMEOUT, f"no SETTINGS in {SETTINGS_SECONDS:g} s"))

    def going_away(self, last: int, code: int, reason: str) -> None:
        """See :class:`meshgw.wire.h2_connection.H2Connection`."""
        self.last = min(self.last, last)
        self._leave()
        error = f"GOAWAY {code_name(code)}" + (f" ({reason})" if reason else "")
        for id, stream in sorted(self.streams.items()):
            if id > last:
                self._close(stream, 0)
                stream.lost(error)
        self.ended()

    def _leave(self) -> None:
        if not self.is_leaving:
            self.is_leaving = True
            self._pool.leaving(self)

    def failed(self, fault: ConnectionFault) -> None:
        """See :class:`meshgw.wire.h2_connection.H2Connection`."""
        self.parameters.on_failed(fault.code)
        self._leave()

    def ended(self) -> None:
        """A stream has ended."""
        if self.is_leaving:
            if not self.streams:
                self.close_idle()
        else:
            self._pool.released(self)

    # --- the connection

    def drained(self) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        self.sink_drained()

    def unread(self, size: int) -> None:
        """See :class:`meshgw.wire.h2_sending.Sending`: what callers ask of an endpoint that does not read must not fill the memory."""
        if size > MOST_UNREAD and not self.is_leaving:
            self._leave()
            self.parameters.wheel.soon(self.connection.abort)  # not now, while somebody sends

    def eof_received(self) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        self.connection.close_now()

    def connection_lost(self, reason: str) -> None:
        """See :class:`meshgw.core.transport.Receiver`."""
        self._patience.cancel()
        for timer in (self._watch, self._relief):
            if timer is not None:
                timer.cancel()
        self.is_stale_loss = self.used > len(self.streams) or not self._has_settings
        self.is_leaving = True
        self._pool.closed(self)
        self.lose(reason)

    def close_idle(self) -> None:
        """End the connection if nothing is under way on it."""
        if not self.streams and not self.is_closed:
            self.is_closed = self.is_leaving = True
            self.emit(frames.goaway(0, Code.NO_ERROR))
            self.flush()
            self.connection.close()

    def retire(self) -> None:
        """Take no more streams, and end with the last."""
        self._leave()
        self.ended()
