"""Diagnostic requests: ``TRACE`` asks the routers on its way where it goes, one after another or up to the N-th.

Source: linkerd-config spec 5.10; RFC 9110 sections 7.6.2 and 9.3.8. What Linkerd does to chunked answers, to drop them for a placeholder,
is not needed: the context comes behind whatever the service says. Nothing is put behind an encoded answer, which that would spoil.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from meshgw.core.exchange import Caller, Exchange, Upstream
from meshgw.core.stack import Reply
from meshgw.filters.classify import SUCCESS
from meshgw.naming.path import Path
from meshgw.wire.headers import Headers

ADD_CONTEXT: Final = b"l5d-add-context"
_MAX_FORWARDS: Final = b"max-forwards"
_NUMBER: Final = re.compile(rb"[0-9]{1,9}\Z")
_NOTE: Final = "max forwards"
_PLAIN: Final = ((b"Content-Type", b"text/plain"),)
_WITHOUT_BODY: Final = (204, 304)


class DiagnosticTrace:
    """Counts ``Max-Forwards`` of a ``TRACE`` down, answers it at 0, and puts the context of this router behind its answer if asked to."""

    __slots__ = ("_addresses", "_clock", "_client", "_label", "_name", "_pick", "_resolution")

    def __init__(
        self,
        *,
        label: str,
        name: Path,
        client: Path,
        clock: Callable[[], float],
        addresses: Callable[[], Sequence[str]],
        pick: Callable[[], str],
        resolution: Callable[[Exchange], Sequence[str]],
    ) -> None:
        """``addresses`` gives the endpoints of the client, ``pick`` the one that a request would go to, ``resolution`` how a name leads
        to the client, line by line.
        """
        self._label, self._name, self._client, self._clock = label, name.show(), client.show(), clock
        self._addresses, self._pick, self._resolution = addresses, pick, resolution

    def on_request(self, ex: Exchange) -> Reply | None:
        """Answer a request that goes no further. Where ``filters.destination`` asks, ordinary requests do not come here."""
        return self._trace(ex) if ex.method == b"TRACE" else None

    def _trace(self, ex: Exchange) -> Reply | None:
        reply = self._limited(ex)
        if reply is None and _is_wanted(ex):
            caller = ex.caller
            if isinstance(caller, Addition):
                caller.make = self._behind  # another attempt may be on another client
            else:
                ex.caller = Addition(caller, self._behind)
        return reply

    def _limited(self, ex: Exchange) -> Reply | None:
        notes = ex.notes = {} if ex.notes is None else ex.notes
        value = notes.get(_NOTE)  # what the caller said: another attempt is not another hop
        if value is None:
            value = ex.headers.get(_MAX_FORWARDS)
        if value is None:
            return None
        if _NUMBER.match(value) is None:
            ex.verdict = SUCCESS  # which the caller's mistakes are, and an answer at 0 is
            return Reply(400, b"Invalid value for Max-Forwards header", _PLAIN)
        left = int(value)
        if not left:
            ex.verdict = SUCCESS
            return Reply(200, self._context(ex, self._pick()).encode() if _is_wanted(ex) else b"", _PLAIN)
        notes[_NOTE] = value
        ex.headers.replace(_MAX_FORWARDS, b"%d" % (left - 1))
        return None

    def _behind(self, ex: Exchange) -> bytes:
        """What comes behind an answer: nothing, where it was made here or is not readable text."""
        response = ex.response
        if ex.error is not None or ex.status in _WITHOUT_BODY or response.get(b"content-encoding") is not None:
            return b""
        return b"\n" + self._context(ex, ex.node.address.show()).encode()

    def _context(self, ex: Exchange, selected: str) -> str:
        lines = [
            f"--- Router: {self._label} ---",
            f"request duration: {round((self._clock() - ex.arrived) * 1000)} ms",
            f"service name: {self._name}",
            f"client name: {self._client}",
            f"addresses: [{', '.join(self._addresses())}]",
            f"selected address: {selected}",
            "dtab resolution:",
            *(f"  {step}" for step in self._resolution(ex)),
            "",
        ]
        return "\n".join(lines)


class Addition:
    """Stands between an answer and the caller, and puts a text behind its body (:class:`meshgw.core.exchange.Caller`)."""

    def __init__(self, caller: Caller, make: Callable[[Exchange], bytes]) -> None:
        """``make`` gives what is to be put behind an answer whose head is there."""
        self._caller, self.make, self._text = caller, make, b""
        self._ex: Exchange | None = None

    def _leave(self, ex: Exchange | None) -> Caller:
        if ex is not None:
            ex.caller = self._caller
        return self._caller

    def respond(self, ex: Exchange, body: bytes, done: bool) -> None:
        """See the protocol; the head tells of the text, too."""
        self._ex, self._text = ex, self.make(ex)
        if ex.response_length >= 0:
            ex.response_length += len(self._text)
            if b"content-length" in ex.response.seen:
                ex.response.replace(b"content-length", b"%d" % ex.response_length)
        if done:
            self._leave(ex).respond(ex, body + self._text, done)
        else:
            self._caller.respond(ex, body, done)

    def inform(self, ex: Exchange, line: bytes, headers: Headers) -> None:
        """See the protocol."""
        self._caller.inform(ex, line, headers)

    def send_body(self, data: bytes) -> None:
        """See the protocol."""
        self._caller.send_body(data)

    def send_end(self, trailers: list[bytes]) -> None:
        """See the protocol."""
        caller = self._leave(self._ex)
        if self._text:
            caller.send_body(self._text)
        caller.send_end(trailers)

    def cut(self) -> None:
        """See the protocol."""
        self._leave(self._ex).cut()

    def tunnel(self, ex: Exchange, peer: Upstream, data: bytes) -> None:
        """See the protocol."""
        self._leave(ex).tunnel(ex, peer, data)

    def resume_body(self) -> None:
        """See the protocol."""
        self._caller.resume_body()

    @property
    def is_full(self) -> bool:
        """See the protocol."""
        return self._caller.is_full


def _is_wanted(ex: Exchange) -> bool:
    return ex.headers.seen.get(ADD_CONTEXT, b"").lower() == b"true"
