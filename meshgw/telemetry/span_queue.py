"""Spans on their way to a collector: a bounded queue, batches, one request at a time, patience with a collector that is away.

The request path only appends; making spans, encoding and sending happen in between, a batch at a time. Whatever the collector does, memory
and the end of the process stay bounded: what does not fit, or cannot be told in time, is dropped and counted. How a batch travels is the
caller's business (``backends.zipkin``, ``backends.otlp``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, ClassVar, Final

import attrs
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from meshgw.core.logger import make_logger
from meshgw.core.slices import Slices, Work
from meshgw.core.timers import Backoff
from meshgw.errors import MeshError
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.spans import LateSpans, Span

SPAN_COST: Final = 600
TAG_COST: Final = 56
"""Bytes of memory, as measured, that a span takes, and each of its tags besides its text; the tags' names are shared."""
STOP_SECONDS: Final = 2.0
MOST_WAIT: Final = 60.0
"""Seconds; a collector that asks for more patience than that is asked again all the same."""
QUIET_SECONDS: Final = 60.0
MOST_ATTEMPTS: Final = 8
"""For one batch, which take about a minute: what a collector cannot take however often it is asked must not hold up the rest."""

Deliver = Callable[[Sequence[Span]], Coroutine[Any, Any, None]]
"""Tells a collector some spans. Raises :class:`CollectorAway`, :class:`SpansRefused`, :class:`PartlyRefused`, or whatever else kept it."""

_NEVER: Final = -1.0
_log = make_logger()


class DeliveryError(MeshError):
    """A collector did not take a batch."""

    phase: ClassVar[str] = "telemetry"


@attrs.frozen(kw_only=True)
class CollectorAway(DeliveryError):
    """It may take the batch later; not before ``wait`` seconds, if it says so."""

    reason: str
    wait: float = 0.0

    def __str__(self) -> str:
        return self.reason


@attrs.frozen(kw_only=True)
class SpansRefused(DeliveryError):
    """It will not take the batch, however often it is asked."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@attrs.frozen(kw_only=True)
class PartlyRefused(DeliveryError):
    """It has taken the batch but for ``rejected`` spans, which it will never take. With none of them it only has something to say."""

    rejected: int
    reason: str

    def __str__(self) -> str:
        return self.reason


@attrs.frozen(kw_only=True)
class Limits:
    """How much waits, and what makes a batch.

    A batch is small since it is encoded in one go, in which no request is served: 100 spans take some 2 ms.
    """

    most_spans: int = 10_000
    most_bytes: int = 8 << 20
    batch_spans: int = 100
    batch_bytes: int = 256 << 10
    linger: float = 1.0
    """Seconds that spans wait for more of them."""
    request_seconds: float = 1.0


def cost(span: Span) -> int:
    """About how many bytes of memory a span takes."""
    tags = span.tags
    return SPAN_COST + TAG_COST * len(tags) + sum(map(len, tags.values()))


def size_of(spans: Sequence[Span]) -> int:
    """About how many bytes of memory it takes to keep the spans of a request."""
    return spans.size if isinstance(spans, LateSpans) else sum(map(cost, spans))


class SpanQueue:
    """The spans of requests that wait, up to a number of spans and a size."""

    def __init__(self, most_spans: int, most_bytes: int) -> None:
        self._most_spans, self._most_bytes = most_spans, most_bytes
        self._waiting: deque[tuple[int, int, Sequence[Span]]] = deque()
        self._spans = self._bytes = 0

    def __len__(self) -> int:
        return self._spans

    def put(self, spans: Sequence[Span]) -> int:
        """How many spans were taken: all of the request, or none as there is no room."""
        count, size = len(spans), size_of(spans)
        total, room = self._spans + count, self._bytes + size
        if total > self._most_spans or room > self._most_bytes:
            return 0
        self._waiting.append((count, size, spans))
        self._spans, self._bytes = total, room
        return count

    def take(self, most_spans: int, most_bytes: int) -> list[Sequence[Span]]:
        """The spans of the next requests, the oldest first: of at least one if there is any, whatever its size."""
        taken: list[Sequence[Span]] = []
        spans = size = 0
        waiting = self._waiting
        while waiting and (not taken or (spans + waiting[0][0] <= most_spans and size + waiting[0][1] <= most_bytes)):
            count, one, request = waiting.popleft()
            spans += count
            size += one
            taken.append(request)
        self._spans -= spans
        self._bytes -= size
        return taken


def _made(requests: Sequence[Sequence[Span]]) -> Work[list[Span]]:
    """Make the spans of requests, of which only what is known was kept."""
    spans: list[Span] = []
    for request in requests:
        spans.extend(request)
        yield
    return spans


class SpanSender(Service):
    """Sends what is recorded to ``where``, a batch at a time. ``metrics`` is the scope in which it counts."""

    def __init__(
        self, clock: IReactorTime, random: Random, metrics: Metrics, deliver: Deliver, *, where: str, limits: Limits | None = None
    ) -> None:
        self._clock, self._deliver, self._where = clock, deliver, where
        self._slices = Slices(clock)
        self._limits = limits or Limits()
        self._queue = SpanQueue(self._limits.most_spans, self._limits.most_bytes)
        self._backoff = Backoff(random, least=0.5, most=15.0)
        self._sent, self._dropped = metrics.counter("sent"), metrics.counter("dropped")
        self._failures = metrics.counter("failures")
        self._queued = metrics.gauge("queued")
        self._lingering: IDelayedCall | None = None
        self._working: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._is_stopping = False
        self._is_outage = False
        """Whether there is one that the log was told of, since when so many spans were lost."""
        self._lost = 0
        self._told_at: float | None = None
        self._full_at: float | None = None
        self._partly_at: float | None = None

    # --- the request path

    def record(self, spans: Sequence[Span]) -> None:
        """Take the spans of one request; what does not fit is dropped. Never raises, and does no more than that here."""
        if not self.running or self._is_stopping:
            self._drop(len(spans))
            return
        taken = self._queue.put(spans)
        if not taken:
            self._overflow(len(spans))
            return
        self._count(taken)
        if self._working is None:
            if len(self._queue) >= self._limits.batch_spans:
                self._soon(0.0)
            elif self._lingering is None:
                self._soon(self._limits.linger)

    def _overflow(self, count: int) -> None:
        """There is no room; the log is told once a minute, unless it knows of an outage anyway."""
        self._drop(count)
        now = self._clock.seconds()
        if not self._is_outage and (self._full_at is None or now - self._full_at >= QUIET_SECONDS):
            self._full_at = now
            _log.warn("{where} takes spans more slowly than they come: some are dropped; a lower sampleRate helps", where=self._where)

    def _drop(self, count: int) -> None:
        self._dropped.incr(count)
        self._lost += count

    def _count(self, more: int) -> None:
        self._queued.set(self._queued.value + more)  # not of the queue's length: several telemeters of a kind share it

    def _soon(self, seconds: float) -> None:
        call = self._lingering
        if call is None:
            self._lingering = self._clock.callLater(seconds, self._begin)
        elif call.getTime() > self._clock.seconds() + seconds:
            call.reset(seconds)

    # --- sending

    def _begin(self) -> None:
        self._lingering = None
        if self._working is None:
            working: Deferred[None] = Deferred.fromCoroutine(self._work())
            if not working.called:
                self._working = working
            working.addBoth(self._rest)

    def _rest(self, result: object) -> None:
        self._working = None
        if isinstance(result, Failure) and not result.check(CancelledError):  # type: ignore[no-untyped-call]
            _log.failure("defect in sending spans to {where}", failure=result, where=self._where)
        if self._queue and not self._is_stopping:
            self._soon(self._limits.linger)

    async def _work(self) -> None:
        """Send for as long as there are whole batches; at the end of the process all, until the collector does not take one."""
        limits = self._limits
        while True:
            requests = self._queue.take(limits.batch_spans, limits.batch_bytes)
            count, is_sent = sum(map(len, requests)), False
            try:
                is_sent = await self._send(await self._slices.run(_made(requests)))
            finally:
                self._count(-count)
                self._drop(0 if is_sent else count)
            if len(self._queue) < (1 if self._is_stopping else limits.batch_spans) or (self._is_stopping and not is_sent):
                return

    async def _send(self, batch: Sequence[Span]) -> bool:
        """Whether the collector has taken the batch, now or when it was back."""
        for _ in range(MOST_ATTEMPTS):
            wait = await self._try(batch)
            if wait is None:
                return True
            if wait == _NEVER or self._is_stopping:
                return False
            await self._sleep(wait)
        return False

    async def _try(self, batch: Sequence[Span]) -> float | None:
        """One attempt: None if the collector took the batch, else the seconds until the next attempt."""
        seconds = self._limits.request_seconds
        try:
            await Deferred.fromCoroutine(self._deliver(batch)).addTimeout(seconds, self._clock)
        except defer.TimeoutError:
            return self._away(f"no answer within {seconds:g} s")
        except PartlyRefused as error:
            self._partly(len(batch), error)
            return None
        except SpansRefused as error:
            self._complain(f"{error}; they are dropped")
            return _NEVER
        except CollectorAway as error:
            return self._away(str(error), min(error.wait, MOST_WAIT))
        except MeshError as error:
            return self._away(str(error))
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the rim: one batch that cannot be encoded must not end all that come after it
            self._failures.incr()
            _log.failure("{count} spans cannot be told to {where}", count=len(batch), where=self._where)
            return _NEVER
        self._succeeded(len(batch))
        return None

    def _away(self, reason: str, wait: float = 0.0) -> float:
        self._complain(f"{reason}; trying again")
        return max(wait, self._backoff.next())

    def _complain(self, reason: str) -> None:
        """Once per outage; and a collector that takes every other batch has one outage a minute."""
        self._failures.incr()
        now = self._clock.seconds()
        if not self._is_outage and (self._told_at is None or now - self._told_at >= QUIET_SECONDS):
            self._is_outage, self._told_at, self._lost = True, now, 0
            _log.warn("{where} does not take spans: {reason}", where=self._where, reason=reason)
        else:
            _log.debug("{where} does not take spans: {reason}", where=self._where, reason=reason)

    def _partly(self, count: int, error: PartlyRefused) -> None:
        """Most were taken. The log is told of it once a minute: whatever is wrong is likely to be so with each batch."""
        rejected = min(max(0, error.rejected), count)
        now = self._clock.seconds()
        is_quiet = self._partly_at is not None and now - self._partly_at < QUIET_SECONDS
        tell = _log.debug if is_quiet else _log.warn
        if not is_quiet:
            self._partly_at = now
        tell("{where} took a batch of spans but for {rejected}: {reason}", where=self._where, rejected=rejected, reason=error.reason)
        self._drop(rejected)
        self._succeeded(count - rejected)

    def _succeeded(self, count: int) -> None:
        self._sent.incr(count)
        self._backoff.reset()
        if self._is_outage:
            self._is_outage = False
            _log.info("{where} takes spans again; {lost} were dropped meanwhile", where=self._where, lost=self._lost)

    async def _sleep(self, seconds: float) -> None:
        """Wait; the end of the process ends that."""
        pause: Deferred[None] = Deferred()
        self._pause = pause
        call = self._clock.callLater(seconds, pause.callback, None)
        try:
            await pause
        finally:
            self._pause = None
            if call.active():
                call.cancel()

    # --- the end

    def stopService(self) -> Deferred[None]:
        """Send what waits, within ``STOP_SECONDS``, and without patience: the first failure drops the rest."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._is_stopping = True
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._working is None and self._queue:
            self._begin()
        elif self._pause is not None and not self._pause.called:
            self._pause.callback(None)
        working = self._working
        if working is not None:
            working.addTimeout(STOP_SECONDS, self._clock)
            ended: Deferred[Any] = Deferred()
            working.addBoth(lambda _result: ended.callback(None))
            await ended
        self._drop_all()

    def _drop_all(self) -> None:
        rest = sum(map(len, self._queue.take(len(self._queue), self._limits.most_bytes)))
        self._drop(rest)
        self._count(-rest)
