"""What a request tells the next hop: where it was routed, its context, and that it passed through here; and Via on the answer.

Source: linkerd-config spec 5.4, 7.1, 7.3 and 7.6. Everything that depends only on the route is encoded once when the route is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from meshgw.core.exchange import Exchange
from meshgw.core.stack import Reply
from meshgw.filters.propagation import L5D
from meshgw.kinds import Propagator
from meshgw.naming.path import Path
from meshgw.wire.context import encode_deadline, first_lines

VIA, H2_VIA = b"1.1 linkerd", b"h2 linkerd"
"""The name Linkerd gives itself; kept, since callers and loop checks look for it."""
_NO_TAGS: Final[Mapping[str, str]] = {}
_VIA_LINE, _H2_VIA_LINE = b"Via: " + VIA, b"Via: " + H2_VIA


class Destination:
    """Writes the request's ``Via``, ``l5d-dst-*`` and context fields for one bound name, and ``Via`` on its answers."""

    __slots__ = ("_bits", "_diagnose", "_lines", "_other_lines", "_route", "_tell")

    def __init__(
        self,
        service: Path,
        client: Path,
        residual: Path,
        bits: Callable[[], int],
        propagator: Propagator = L5D,
        route: Mapping[str, str] = _NO_TAGS,
        diagnose: Callable[[Exchange], Reply | None] | None = None,
    ) -> None:
        """``bits`` gives 64 random bits for a new span, which ``propagator`` tells; ``route`` is what is recorded of this bound name.

        ``diagnose`` is asked about a request whose line is an unusual one, as that of a ``TRACE`` is, and may answer it.
        """
        self._route, self._diagnose = route, diagnose
        lines = [_VIA_LINE, b"l5d-dst-service: " + service.show().encode("ascii"), b"l5d-dst-client: " + client.show().encode("ascii")]
        if residual:
            lines.append(b"l5d-dst-residual: " + residual.show().encode("ascii"))
        self._lines = tuple(lines)
        self._other_lines = {b"1.0": (b"Via: 1.0 linkerd", *lines[1:]), b"2": (b"Via: " + H2_VIA, *lines[1:])}
        self._bits, self._tell = bits, propagator.lines

    def on_request(self, ex: Exchange) -> Reply | None:
        """Append the fields; what an earlier hop wrote was taken off when the request was read."""
        headers = ex.headers
        lines = headers.lines
        if ex.line:  # an ordinary one, whose version is 1.1
            mine = self._lines
        else:
            if self._diagnose is not None:
                reply = self._diagnose(ex)
                if reply is not None:
                    return reply
            mine = self._other_lines.get(ex.version, self._lines)
        if b"via" in headers.seen:
            lines.append(b"Via: " + headers.seen[b"via"] + b", " + mine[0][5:])
            lines += mine[1:]
        else:
            lines += mine
        if ex.recording is not None:
            ex.recording.begin(ex, self._route, told=True)
            lines += ex.recording.lines
        elif ex.root:
            lines += first_lines(self._bits(), ex.root, ex.root_flags)
        elif ex.trace is not None:
            lines += self._tell(ex.trace, self._bits(), headers.seen)
        if ex.dtab is not None:
            lines.append(b"l5d-ctx-dtab: " + ex.dtab.show().encode("latin-1"))
        if ex.deadline is not None:
            lines.append(b"l5d-ctx-deadline: " + encode_deadline(ex.deadline))
        return None

    def on_response(self, ex: Exchange) -> None:
        """Append to the answer's Via, by what the service speaks; answers made here get none (spec 5.4)."""
        response = ex.response  # only one over HTTP/1.x has a status line
        if b"via" in response.seen:
            response.lines.append(b"Via: " + response.seen[b"via"] + b", " + (VIA if ex.status_line else H2_VIA))
        else:
            response.lines.append(_VIA_LINE if ex.status_line else _H2_VIA_LINE)


class Authority:
    """Addresses that carry an ``authority`` (Consul's setHost): the request's Host becomes it, the answer's redirects are turned back
    (spec 5.6).
    """

    __slots__ = ("_authority",)

    def __init__(self, authority: bytes) -> None:
        self._authority = authority

    def on_request(self, ex: Exchange) -> None:
        """Rewrite Host, remembering the caller's."""
        notes = ex.notes
        if notes is None:
            notes = ex.notes = {}
        notes["host"] = ex.host
        ex.headers.replace(b"host", self._authority)

    def on_response(self, ex: Exchange) -> None:
        """Put the caller's host back into Location and Refresh."""
        host: bytes = (ex.notes or {}).get("host") or b""
        for name in (b"location", b"refresh"):
            value = ex.response.get(name)
            if value is not None and self._authority in value:
                ex.response.set(name, value.replace(self._authority, host))

    def on_end(self, ex: Exchange) -> None:
        """The attempt ended: the next one, and the access log, see the caller's Host again."""
        host = (ex.notes or {}).get("host")
        if host is None:
            ex.headers.remove(b"host")
        else:
            ex.headers.replace(b"host", host)
