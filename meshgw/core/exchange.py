"""Exchange: one request and its answer, from the caller's first byte to the end of the accounting.

Source: ARCHITECTURE.md sections 2 and 3. An exchange knows no protocol: server and client protocols fill and read it, filters look at
it, the walk (``app.walk``) moves it on. On HTTP/1.1 one object serves all requests of a connection and is reset between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from meshgw.wire.context import TraceId
from meshgw.wire.headers import Headers

if TYPE_CHECKING:
    from meshgw.core.secured import Secured
    from meshgw.core.stack import Reply
    from meshgw.core.timers import Timer
    from meshgw.errors import MeshError
    from meshgw.naming.dtab import Dtab
    from meshgw.naming.path import Path

UNKNOWN_LENGTH = -1
"""A body length that only its end tells."""


def _nothing() -> None:
    """Stand in for a callback that nobody wants."""


@attrs.frozen
class Hold:
    """Bounds of an answer that is kept until its end, seconds and bytes of its body, and who is told when one is reached."""

    seconds: float
    size: int
    on_time: Callable[[], None] = _nothing
    on_size: Callable[[], None] = _nothing


class Caller(Protocol):
    """The side an exchange came from: it is given the answer and can be held back."""

    def respond(self, ex: Exchange, body: bytes, done: bool) -> None:
        """Send the answer's head from ``ex`` with the first ``body`` bytes, the only ones if ``done``."""
        ...

    def inform(self, ex: Exchange, line: bytes, headers: Headers) -> None:
        """Send an interim (1xx) answer."""
        ...

    def send_body(self, data: bytes) -> None:
        """Send more of the answer's body."""
        ...

    def send_end(self, trailers: list[bytes]) -> None:
        """End the answer's body."""
        ...

    def cut(self) -> None:
        """Break the answer off so that the caller sees that it is incomplete."""
        ...

    def tunnel(self, ex: Exchange, peer: Upstream, data: bytes) -> None:
        """The answer switches protocols: send its head, then pass bytes both ways until either side ends."""
        ...

    def resume_body(self) -> None:
        """Read on."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the answer's source should pause."""
        ...


class Upstream(Protocol):
    """The side an exchange was sent to."""

    def send(self, ex: Exchange) -> None:
        """Send the request's head and what is known of its body."""
        ...

    def send_body(self, data: bytes) -> None:
        """Send more of the request's body."""
        ...

    def send_last(self, data: bytes) -> None:
        """Send the last of the request's body, which ends without trailers."""
        ...

    def send_end(self, trailers: list[bytes]) -> None:
        """End the request's body."""
        ...

    def abandon(self) -> None:
        """Nobody wants the answer any more: free the connection or stream at once."""
        ...

    def pause_answer(self) -> None:
        """Read no more of the answer for now."""
        ...

    def resume_answer(self) -> None:
        """Read on."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether the request's source should pause."""
        ...

    @property
    def taken(self) -> int:
        """A count of bytes that grows as long as the service takes the request's body."""
        ...


class Recording(Protocol):
    """What is recorded of a request that is traced (``filters.recording``)."""

    lines: tuple[bytes, ...]
    """The header lines that tell the endpoint of the attempt under way."""
    status: int
    """That of the endpoint's answer, from when its head is passed on."""

    def begin(self, ex: Exchange, route: Mapping[str, str], *, told: bool) -> None:
        """An attempt on a bound name begins; ``route`` describes it, ``told`` is whether the endpoint gets the lines."""
        ...

    def concluded(self, trailers: list[bytes]) -> None:
        """The trailers of an answer that was passed on from its head on."""
        ...

    def ended(self, ex: Exchange, error: MeshError | None) -> None:
        """The attempt under way is over, at ``ex.ended``."""
        ...

    def again(self, ex: Exchange, error: MeshError | None) -> None:
        """The attempt is over now, and what was sent goes to another endpoint: its header lines tell of that from now on."""
        ...

    def finish(self, ex: Exchange) -> None:
        """The request is over, at ``ex.ended``, and with it an attempt that is still under way."""
        ...


class Walk(Protocol):
    """Who moves an exchange on, from step to step and to its end (``app.walk``)."""

    def begin(self, ex: Exchange) -> None:
        """The request's head is known."""
        ...

    def refuse(self, ex: Exchange, error: MeshError) -> None:
        """The head could not be read: count and answer it."""
        ...

    def caller_failed(self, ex: Exchange, error: MeshError) -> None:
        """The request became invalid after its head."""
        ...

    def caller_gone(self, ex: Exchange) -> None:
        """The caller vanished before its answer was complete."""
        ...

    def identifiable(self, ex: Exchange) -> None:
        """The rules that may name it are known."""
        ...

    def route_changed(self, ex: Exchange) -> None:
        """The binding it waited for got an answer."""
        ...

    def addresses_known(self, ex: Exchange) -> None:
        """The addresses it waited for are known."""
        ...

    def connected(self, ex: Exchange, upstream: Upstream) -> None:
        """The connection it waited for is there."""
        ...

    def rebound(self, ex: Exchange) -> None:
        """The binding it waits under is not that of its name any more."""
        ...

    def diverted(self, ex: Exchange, node: Any) -> None:
        """Another endpoint than the one whose connection it waits for has one, and is to have it."""
        ...

    def connect_failed(self, ex: Exchange, error: MeshError) -> None:
        """No connection to the endpoint can be had; nothing was sent."""
        ...

    def answered(self, ex: Exchange, body: bytes, done: bool) -> None:
        """The answer's head is in the exchange; ``body`` are its first bytes, the only ones if ``done``."""
        ...

    def holds(self, ex: Exchange) -> Hold | None:
        """How long and how much of the answer whose head has come is to be kept, as its end decides whether the request is retried."""
        ...

    def concluded(self, ex: Exchange, trailers: list[bytes]) -> list[bytes]:
        """The end of an answer that was passed on from its head on has come; the trailers to pass on."""
        ...

    def informed(self, ex: Exchange, line: bytes, headers: Headers) -> None:
        """An interim answer came."""
        ...

    def switched(self, ex: Exchange, upstream: Upstream, data: bytes) -> None:
        """The answer is a switch of protocols: bytes flow freely from now on."""
        ...

    def failed(self, ex: Exchange, error: MeshError, *, resend: bool) -> None:
        """No answer, or only a part, will come; ``resend`` tells that the request is known to be safe to send again."""
        ...

    def resume(self, ex: Exchange, reply: Reply | None) -> None:
        """A filter that said WAIT lets it go on, or answers it."""
        ...

    def expired(self, ex: Exchange, error: MeshError) -> None:
        """A limit for the whole request passed before its answer began."""
        ...

    def attempt_expired(self, ex: Exchange, error: MeshError) -> None:
        """The limit of one attempt passed before its answer began."""
        ...

    def finish(self, ex: Exchange) -> None:
        """The whole answer was handed to the caller's connection."""
        ...


class Exchange:
    """One request and its answer. Times are monotonic seconds, lengths bytes.

    - Request: ``method``, ``target`` (origin form), ``version`` (``b"1.1"``), ``scheme`` (of an absolute target, else None), ``headers``,
      ``length`` (0 none, ``UNKNOWN_LENGTH`` until its end). ``line`` and ``line_target`` are :meth:`request_line`'s. ``body`` holds pieces
      that could not be sent on yet, ``body_done`` says that all of it arrived, ``request_bytes`` counts it, ``trailers`` end it.
    - Route: ``name``, ``dtab`` (local entries or None), ``route``, ``bound``, ``node``, ``upstream``. ``depth`` counts the levels of stacks
      passed; ``partial`` holds the end hooks to run at the last one when a filter stopped the exchange there. ``tally`` is set while it is
      counted as an ordinary one (``filters.stats.Tally``). ``root`` is the id of a trace that begins with this request, else 0;
      ``root_flags`` are its flags. ``recording`` is set while its spans are recorded (:class:`Recording`).
    - Attempts: ``attempts`` counts requeues, ``retries`` retries, ``waits`` gives the backoffs to come. ``queued`` is since when it waits
      for a connection, else 0. ``base`` is the number of header lines before those of an attempt, ``replay`` the whole body while it is
      kept. ``verdict`` is the classifier's; None: nobody knows.
    - Answer: ``status`` (0 none yet), ``status_line``, ``response`` headers, ``response_length``, ``answer_trailers``
      when it came whole with its head; ``error`` when it was made here.
    - Connection: ``peer``, ``local``, and ``secured``, the facts of its TLS once the handshake is done; None for plaintext.
    - ``headers`` and ``response`` are filled anew for each request of a connection: whoever needs them longer copies them.
    - End: ``ended``, ``outcome`` (the key of ``telemetry.outcomes``), and the time taken as ``micros`` and its histogram ``bucket``. That
      is the whole time, or that until ``headed``, when the head was passed on, where the caller's protocol counts so; it is 0 elsewhere.
    """

    __slots__ = (
        "_trace",
        "answer_trailers",
        "arrived",
        "attempt_started",
        "attempts",
        "base",
        "body",
        "body_done",
        "bound",
        "bucket",
        "caller",
        "deadline",
        "deadline_timer",
        "depth",
        "dtab",
        "ended",
        "error",
        "fault_timer",
        "headed",
        "headers",
        "length",
        "line",
        "line_target",
        "local",
        "method",
        "micros",
        "name",
        "node",
        "notes",
        "outcome",
        "partial",
        "peer",
        "queued",
        "recording",
        "replay",
        "request_bytes",
        "responded",
        "response",
        "response_length",
        "retries",
        "root",
        "root_flags",
        "route",
        "scheme",
        "secured",
        "status",
        "status_line",
        "tally",
        "target",
        "timer",
        "trailers",
        "upgrade",
        "upstream",
        "verdict",
        "version",
        "waiting",
        "waits",
        "walk",
    )

    caller: Caller
    walk: Walk
    peer: tuple[str, int]
    local: tuple[str, int]

    def __init__(self) -> None:
        # written by whoever begins or ends the exchange before anybody reads them, hence not reset
        self.method = self.target = self.version = self.line = self.line_target = self.status_line = b""
        self.headers, self.response = Headers(), Headers()
        self.scheme: bytes | None = None
        self.answer_trailers: list[bytes] | None = None
        self.attempt_started = self.ended = self.headed = self.queued = 0.0
        self.micros = self.bucket = self.response_length = self.base = self.depth = 0
        self.outcome: int | str = 0
        self.root_flags = 0
        self.tally: Any = None
        self.secured: Secured | None = None
        # and these are let go of where the exchange ends
        self.upstream: Upstream | None = None
        self.timer: Timer | None = None
        self.deadline_timer: Timer | None = None
        self.length = -1  # so that the first reset is a whole one
        self.reset()

    def reset(self) -> None:
        """Make ready for the next request of the same caller."""
        if self.length:
            self.length = self.request_bytes = 0
            self.body_done = True
            self.body: list[bytes] | None = None
            self.trailers: list[bytes] | None = None
            self.replay: list[bytes] | None = None
        self.arrived = 0.0
        self.responded = False
        self.attempts = self.retries = self.status = 0
        self.upgrade: bytes | None = None
        self.name: Path | None = None
        self.dtab: Dtab | None = None
        self.root = 0
        self._trace: TraceId | None = None
        self.recording: Recording | None = None
        self.deadline: tuple[int, int] | None = None
        self.route: Any = None
        self.bound: Any = None
        self.node: Any = None
        self.waiting: Any = None
        self.fault_timer: Timer | None = None
        self.verdict: Any = None
        self.waits: Iterator[float] | None = None
        self.error: MeshError | None = None
        self.notes: dict[str, Any] | None = None
        self.partial: tuple[Callable[[Exchange], None], ...] | None = None

    @property
    def trace(self) -> TraceId | None:
        """The request's place in its trace; that of one that begins here is worked out when somebody asks for it."""
        if self._trace is None and self.root:
            self._trace = TraceId(self.root, self.root, self.root, self.root_flags)
        return self._trace

    @trace.setter
    def trace(self, place: TraceId | None) -> None:
        self._trace, self.root = place, 0

    def request_line(self) -> bytes:
        """The request line to send on over HTTP/1.x: the caller's own unless somebody changed the target."""
        if self.line and self.target is self.line_target:
            return self.line
        version = b"1.0" if self.version == b"1.0" else b"1.1"
        return b"%b %b HTTP/%b" % (self.method, self.target, version)

    def header(self, name: bytes) -> bytes | None:
        """The request's field ``name`` (lower-case), repeated lines joined by ``, ``; None when absent."""
        return self.headers.seen.get(name) or self.headers.get(name)

    @property
    def host(self) -> bytes | None:
        """The request's Host."""
        return self.headers.seen.get(b"host")
