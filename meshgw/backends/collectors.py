"""Reaching the collectors of spans: Scribe over a framed Thrift connection, and HTTP with what its answers mean.

Source: linkerd-config spec 9.6 (Scribe); Zipkin's and OpenTelemetry's HTTP APIs (which statuses are worth another try, ``Retry-After``).
What is sent is encoded in ``telemetry``; waiting, batches and limits are ``telemetry.span_queue``'s.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Final, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from meshgw.backends.connecting import Connector
from meshgw.backends.http_client import ApiClient, reason_of
from meshgw.core.address import Addr
from meshgw.core.live import Live, Observation
from meshgw.errors import BackendError
from meshgw.kinds import Runtime
from meshgw.telemetry.span_queue import CollectorAway, Limits, SpanSender, SpansRefused
from meshgw.telemetry.spans import Span, Tracer
from meshgw.telemetry.zipkin_thrift import LARGEST_REPLY, OK, TRY_LATER, MalformedReply, decode_reply, encode_call

RETRIED: Final = frozenset((429, 502, 503, 504))
"""Statuses that promise that it may work later, as OpenTelemetry's protocol has them."""
GZIP_LEVEL: Final = 1
"""Spans repeat themselves so much that more work gains little."""
ANSWER_SECONDS: Final = 60.0
"""The sender's own patience is shorter; this is what ends a question that nobody waits for."""

Encode = Callable[[Sequence[Span]], bytes]


class Collector(Protocol):
    """Where spans are told."""

    def start(self) -> None:
        """Get ready; nothing is connected yet."""
        ...

    def stop(self) -> None:
        """Close what is open."""
        ...

    async def deliver(self, spans: Sequence[Span]) -> None:
        """See :data:`meshgw.telemetry.span_queue.Deliver`."""
        ...


class SpanTelemeter(Service):
    """A telemeter that decides about sampling and tells a collector at ``host`` and ``port`` what is sampled."""

    decides = True

    def __init__(
        self, kind: str, runtime: Runtime, collector: Collector, *, rate: float, where: str, host: str, port: int, limits: Limits
    ) -> None:
        self.rate = rate
        self._collector = collector
        metrics = runtime.metrics.scope("telemetry", kind)
        self._sender = SpanSender(runtime.reactor, runtime.random, metrics, collector.deliver, where=where, limits=limits)
        self.record = self._sender.record
        self._resolve: Callable[[], Live[Addr]] = lambda: runtime.resolve(host, port)
        self._address: Observation | None = None

    @property
    def tracer(self) -> Tracer:
        """See :class:`meshgw.telemetry.spans.TracingTelemeter`."""
        return self

    def startService(self) -> None:
        """Take spans. The address is kept resolved, so that the last spans can be told when the resolver ends with all the rest."""
        super().startService()  # type: ignore[no-untyped-call]
        self._address = self._resolve().observe(lambda _state: None)
        self._collector.start()
        self._sender.startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Deferred[None]:
        """Tell what is left, within the sender's limit, and close."""
        super().stopService()  # type: ignore[no-untyped-call]
        stopped: Deferred[None] = self._sender.stopService()
        return stopped.addBoth(self._stopped)

    def _stopped(self, _result: object) -> None:
        self._collector.stop()
        address, self._address = self._address, None
        if address is not None:
            address.close()


# --- Scribe


class _Framed(Int32StringReceiver):
    """A connection to a Thrift server that answers one call at a time."""

    MAX_LENGTH = LARGEST_REPLY

    def __init__(self) -> None:
        self._waiting: Deferred[bytes] | None = None
        self.is_lost = False

    def call(self, frame: bytes) -> Deferred[bytes]:
        """The body of the reply's frame. A call that is given up takes the connection with it, as its reply may still come."""
        waiting: Deferred[bytes] = Deferred(lambda _waiting: self.abort())
        self._waiting = waiting
        self._control().write(frame)
        return waiting

    def close(self) -> None:
        """Close it; nothing is under way."""
        self.is_lost = True
        self._control().loseConnection()

    def abort(self) -> None:
        """Close at once."""
        self.is_lost = True
        self._control().abortConnection()

    def _control(self) -> Any:
        return self.transport  # its published type knows nothing of aborting

    def stringReceived(self, string: bytes) -> None:
        """A reply; without a call it is a misunderstanding."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self.abort()
        elif not waiting.called:
            waiting.callback(string)

    def lengthLimitExceeded(self, length: int) -> None:
        """What comes is no reply."""
        self._end(Failure(MalformedReply(f"it does not speak framed Thrift, or answers with {length} bytes")))  # type: ignore[no-untyped-call]
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone."""
        self.is_lost = True
        self._end(reason)

    def _end(self, reason: Failure) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.errback(reason)


class _Quietly(Factory):
    noisy = False
    protocol = _Framed


class ScribeCollector:
    """Calls ``Log`` of the Scribe server at ``endpoint`` over one connection, which is kept."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint
        self._connection: _Framed | None = None
        self._calls = 0

    def start(self) -> None:
        """See :class:`Collector`."""

    def stop(self) -> None:
        """See :class:`Collector`."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_lost:
            connection.close()

    async def deliver(self, spans: Sequence[Span]) -> None:
        """See :class:`Collector`."""
        self._calls = self._calls % 0x7FFFFFFF + 1
        frame = encode_call(spans, self._calls)
        try:
            connection = await self._connected()
            code = decode_reply(await connection.call(frame), self._calls)
        except CancelledError:
            raise
        except MalformedReply as error:
            self.stop()
            raise SpansRefused(reason=str(error)) from error
        except Exception as error:
            raise CollectorAway(reason=reason_of(error)) from error
        if code == TRY_LATER:
            raise CollectorAway(reason="it is too busy (TRY_LATER)")
        if code != OK:
            raise SpansRefused(reason=f"it answers with the unknown code {code}")

    async def _connected(self) -> _Framed:
        connection = self._connection
        if connection is None or connection.is_lost:
            made: Any = await self._endpoint.connect(_Quietly())
            connection = self._connection = made
        return connection


# --- HTTP


class HttpCollector:
    """Posts spans, as ``encode`` writes them, to ``path``.

    ``taken`` gets the body of each answer that is a success, and raises :class:`meshgw.telemetry.span_queue.PartlyRefused` if it tells of
    less. ``headers`` are asked for at each request, and may raise an error that says why there are none.
    """

    def __init__(
        self,
        connector: Connector,
        client: ApiClient,
        path: str,
        encode: Encode,
        *,
        headers: Callable[[], Mapping[str, str]],
        compressed: bool = False,
        taken: Callable[[bytes], None] = lambda _body: None,
    ) -> None:
        self._connector, self._client, self._path, self._encode = connector, client, path, encode
        self._headers, self._is_compressed, self._taken = headers, compressed, taken

    def start(self) -> None:
        """See :class:`Collector`."""
        self._connector.start()

    def stop(self) -> None:
        """See :class:`Collector`."""
        self._connector.stop()

    async def deliver(self, spans: Sequence[Span]) -> None:
        """See :class:`Collector`."""
        body, headers = self._encode(spans), dict(self._headers())
        if self._is_compressed:
            body, headers["Content-Encoding"] = gzip.compress(body, GZIP_LEVEL), "gzip"
        try:
            answer = await self._client.request("POST", self._path, seconds=ANSWER_SECONDS, headers=headers, body=body)
        except BackendError as error:
            raise CollectorAway(reason=error.reason) from error
        if answer.is_good:
            self._taken(answer.body)
            return
        reason = self._client.refused(answer).reason
        if answer.status in RETRIED:
            raise CollectorAway(reason=reason, wait=retry_after(answer.headers))
        raise SpansRefused(reason=reason)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait by ``Retry-After``; 0 if it says nothing useful. A moment in it is taken by the answer's own clock, ``Date``."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        wait = parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))
    # one of them has a time zone and the other has none; or a number in it is beyond what a date can hold
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(0.0, wait.total_seconds())
