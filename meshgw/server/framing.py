"""How a caller is told where an answer's body ends, when the answer's own head does not tell it.

Source: RFC 9112 section 6; linkerd-config spec 5.4. Answers made here, of unknown length, to HEAD, and without content come here; an
endpoint's answer with a Content-Length is passed on as it is.
"""

from __future__ import annotations

from http import HTTPStatus

from meshgw.core.exchange import Exchange
from meshgw.wire.http1 import chunk, last_chunk

_REASONS = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


def status_line(status: int) -> bytes:
    """The first line of an answer made here."""
    return b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"Unknown"))


def frame(ex: Exchange, body: bytes, done: bool) -> tuple[bytes, bool, bool]:
    """Add what is needed to the answer's header lines.

    Gives its first bytes as they are to be sent, whether what follows is sent in chunks, and whether the connection can be used again.
    """
    lines, length = ex.response.lines, ex.response_length
    if ex.method == b"HEAD" or ex.status == 304 or ex.status == 204:
        if ex.error is not None and ex.status != 204:
            lines.append(b"Content-Length: %d" % length)
        return b"", False, True
    if length >= 0:
        if b"content-length" not in ex.response.seen:
            lines.append(b"Content-Length: %d" % length)
        return body, False, True
    if ex.version != b"1.1":
        return body, False, False
    lines.append(b"Transfer-Encoding: chunked")
    if body:
        body = chunk(body)
    if done:
        body += last_chunk(ex.answer_trailers or [])
    return body, True, True
