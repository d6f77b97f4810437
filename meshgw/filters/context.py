"""Context of a request at a server: local dtabs, trace position, deadline, sampling; or none of it from callers that are not trusted.

Source: linkerd-config spec 7.1, 7.2, 7.5, 7.6 and dtab spec 5.6. Reading takes the headers off the request; ``filters.destination`` writes
them for the next hop.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote_plus

from meshgw.core.exchange import Exchange
from meshgw.core.stack import Reply
from meshgw.filters.propagation import L5D, TRACE_FIELDS, L5dPropagator
from meshgw.kinds import Propagator
from meshgw.naming.dtab import Dtab, DtabSyntaxError
from meshgw.wire.context import TraceId, decide_sampling, decode_deadline

TAKEN = frozenset(
    (
        b"via",
        b"l5d-ctx-trace",
        b"l5d-ctx-deadline",
        b"l5d-ctx-dtab",
        b"l5d-dtab",
        b"l5d-sample",
        b"l5d-dst-service",
        b"l5d-dst-client",
        b"l5d-dst-residual",
        b"l5d-reqid",
        b"l5d-client-id",
        b"x-forwarded-client-cert",
    )
)
"""Request fields that every hop reads and writes itself; x-forwarded-client-cert is never passed on (spec 5.6)."""

_READ = frozenset((b"l5d-ctx-deadline", b"l5d-ctx-dtab", b"l5d-dtab", b"l5d-sample", b"l5d-client-id"))
_VIA = b"via"
_MOST_DTABS = 256
MOST_SHOWN = 1024
"""Characters of a parser's complaint, which may quote a whole dtab, that a header repeats; encoded they are at most three times as many."""


class ServerContext:
    """Reads the context headers. ``bits`` gives 64 random bits for a new span, ``salt`` spreads sampling over processes."""

    __slots__ = ("_bits", "_depth", "_dtabs", "_is_plain", "_propagator", "_reads", "_salt", "_start_deadline")

    def __init__(
        self,
        bits: Callable[[], int],
        salt: int,
        start_deadline: Callable[[Exchange], None],
        propagator: Propagator = L5D,
        *,
        depth: CallDepth | None = None,
    ) -> None:
        """``start_deadline`` is called for a request that comes with one; it may raise. ``depth`` looks at one that other proxies passed
        on: the others, which are most, need no look for it.
        """
        self._depth = depth
        self._bits, self._salt, self._start_deadline, self._propagator = bits, salt, start_deadline, propagator
        self._reads = _READ | propagator.fields | ({_VIA} if depth is not None else frozenset())
        self._is_plain = isinstance(propagator, L5dPropagator)
        self._dtabs: dict[bytes, Dtab] = {}

    def on_request(self, ex: Exchange) -> Reply | None:
        """Fill ``ex.trace``, ``ex.dtab`` and ``ex.deadline``; a malformed dtab is answered 400 with the parser's words, as is a loop."""
        seen = ex.headers.seen
        span = self._bits() or 1
        if self._reads.isdisjoint(seen):  # as most callers are no proxies
            if self._is_plain:
                ex.root = span  # all that filters.destination needs, unless somebody asks for more
            else:
                ex.trace = self._first(span)
            return None
        return self._read(ex, seen, span)

    def _first(self, span: int) -> TraceId:
        """The place of a request with which a trace begins."""
        return TraceId(span, span, span, 0, self._bits() if self._propagator.has_wide_ids else 0)

    def _read(self, ex: Exchange, seen: dict[bytes, bytes], span: int) -> Reply | None:
        if self._depth is not None and _VIA in seen:
            refusal = self._depth.refusal(seen[_VIA])
            if refusal is not None:
                return refusal
        seen.pop(b"l5d-client-id", None)  # nobody is to believe it (filters.identity)
        ex.trace = trace = self._propagator.read(seen, span) or self._first(span)
        value = seen.get(b"l5d-sample")
        if value is not None and self._propagator.heeds_sample:
            decide_sampling(trace, value, self._salt)
        value = seen.get(b"l5d-ctx-deadline")
        if value is not None:
            ex.deadline = decode_deadline(value)
            if ex.deadline is not None:
                self._start_deadline(ex)
        if b"l5d-ctx-dtab" in seen or b"l5d-dtab" in seen:
            return self._local_dtab(ex, seen)
        return None

    def _local_dtab(self, ex: Exchange, seen: dict[bytes, bytes]) -> Reply | None:
        """l5d-ctx-dtab then l5d-dtab, so that the caller's own has the last word."""
        dtab = Dtab.EMPTY
        for name in (b"l5d-ctx-dtab", b"l5d-dtab"):
            value = seen.get(name)
            if value:
                known = self._dtabs.get(value)
                if known is None:
                    try:
                        known = Dtab.read(value.strip(b"; \t").decode("latin-1"))
                    except DtabSyntaxError as error:
                        return malformed_dtab(name.decode("ascii"), error)
                    if len(self._dtabs) >= _MOST_DTABS:
                        self._dtabs.clear()
                    self._dtabs[value] = known
                dtab = dtab + known if dtab else known
        ex.dtab = dtab or None
        return None


def untrusted_fields(propagator: Propagator) -> frozenset[bytes]:
    """The fields of traces that callers who are not trusted may not send."""
    return TRACE_FIELDS.union(propagator.fields)


def malformed_dtab(header: str, error: DtabSyntaxError) -> Reply:
    """The 400 that tells the caller what is wrong with its dtab."""
    text = f"{header}: {error}"
    shown = quote_plus(text[:MOST_SHOWN])
    return Reply(400, text.encode(), ((b"l5d-err", shown.encode("ascii")), (b"Content-Type", b"text/plain")))


class ClearContext:
    """Callers of this server are not trusted: no ``l5d-*`` header comes in, none goes out, and errors made here lose their text.

    Nor are they believed about traces, in whatever form: who may say that everything is to be sampled can fill a trace store.
    """

    __slots__ = ("_traces",)

    def __init__(self, propagator: Propagator = L5D) -> None:
        self._traces = untrusted_fields(propagator)

    def on_request(self, ex: Exchange) -> None:
        """Forget what the caller says of itself; lines of traces were taken off when the request was read."""
        headers = ex.headers
        headers.remove_prefixed(b"l5d-")
        if not self._traces.isdisjoint(headers.seen):
            for name in self._traces:
                headers.seen.pop(name, None)

    def on_response(self, ex: Exchange) -> Reply | None:
        """Give nothing about the inside away (spec 7.5)."""
        response = ex.response
        failed = response.get(b"l5d-err") is not None
        response.remove_prefixed(b"l5d-")
        if failed:
            return Reply(ex.status, b"", tuple(item for item in response.items() if item[0] not in (b"content-type", b"content-length")))
        return None


class CallDepth:
    """Refuses requests that have passed through too many proxies, which means a loop (spec 5.1, maxCallDepth)."""

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        self._most = most

    def refusal(self, via: bytes) -> Reply | None:
        """The answer to a request with this Via, whose entries count."""
        if via.count(b",") < self._most:
            return None
        text = f"Maximum number of calls ({self._most}) has been exceeded. Please check for proxy loops."
        return Reply(400, text.encode(), ((b"l5d-err", quote_plus(text).encode("ascii")), (b"Content-Type", b"text/plain")))
