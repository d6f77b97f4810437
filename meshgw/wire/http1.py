"""HTTP/1.x messages: heads and body framing, strict against request smuggling. Bytes in, values out.

Source: RFC 9112; linkerd-config spec 5.1, 5.3, 5.4 and 5.8. Stricter than Linkerd on purpose: what two parsers could read in two ways
(Content-Length beside Transfer-Encoding, repeated or listed lengths, folded lines, bare CR or LF, odd chunk sizes) is refused.
The verdict on a head never depends on how its bytes were split: the first violation in byte order decides. A leaf part behind a narrow
interface: :func:`read_request` and :func:`read_response` fill what they are given, :func:`violation` and the bodies are all else that the
protocols use, so a compiled twin can be put in place of this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from meshgw.errors import BadRequest
from meshgw.wire.authority import read_authority
from meshgw.wire.headers import FieldTable, Headers, MalformedField, scan

_ORDINARY = re.compile(rb"(?!TRACE )([A-Z]{3,6}) (/[!#-\[\]-~]*) HTTP/1\.1\Z")
"""Request lines that need no second look, nearly all. They hold nothing that an access log has to escape, and ask for no diagnosis."""
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}\Z")
_INVISIBLE = re.compile(rb"[^!-~\x80-\xff]")
"""Bytes that no request target may hold; stricter sets break callers that send raw UTF-8."""
_OTHER_VERSION = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [!-~\x80-\xff]+ HTTP/[0-9]\.[0-9]\Z")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t -~\x80-\xff]*))?\Z")
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?#]*)([^#]*)")
_HOST = re.compile(rb"[A-Za-z0-9.\-_~%!$&'()*+;=:\[\]]*\Z")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t -~\x80-\xff]*)?\Z")
_MOST_STATUS_LINES = 256
_MOST_CHUNK_LINE = 1024
_MOST_TRAILERS = 16384

CHUNKED = -1
UNTIL_CLOSE = -2
"""Body lengths that are not a number of bytes."""


class Request(Protocol):
    """What a request's head says (``core.exchange.Exchange``).

    ``line`` is the request line as it may be sent on and logged while ``target`` is still the object ``line_target``; empty when it was not
    ordinary. ``length`` is the body's number of bytes or ``CHUNKED``; it and ``upgrade`` are left alone when there is nothing to tell.
    """

    method: bytes
    target: bytes
    version: bytes
    line: bytes
    line_target: bytes
    scheme: bytes | None
    headers: Headers
    length: int
    upgrade: bytes | None


class Response(Protocol):
    """What a response's head says (``core.exchange.Exchange``).

    ``status_line`` is the line in HTTP/1.1's words, ``response_length`` the body's number of bytes, ``CHUNKED`` or ``UNTIL_CLOSE``.
    """

    status: int
    status_line: bytes
    response: Headers
    response_length: int


def read_request(block: bytes, table: FieldTable, into: Request) -> bool:
    """Read a whole request head without its final empty line; True when the caller wants to keep its connection.

    Raises :class:`BadRequest` with status 400, 405, 501 or 505.
    """
    raw = block.split(b"\r\n")
    line = raw.pop(0)
    ordinary = _ORDINARY.match(line)
    if ordinary is None:
        return _read_unusual(line, raw, table, into)
    into.method, target = ordinary.groups()
    into.target = into.line_target = target
    into.line, into.version, into.scheme = line, b"1.1", None
    try:
        seen = scan(raw, table)
    except MalformedField as error:
        raise BadRequest(reason=str(error)) from None
    headers = into.headers
    headers.lines, headers.seen = raw, seen
    if b"host" not in seen:
        raise BadRequest(reason="HTTP/1.1 request without Host")
    keep = True
    if b"connection" in seen:
        keep = _request_options(into, seen, keep)
    if b"transfer-encoding" in seen:
        into.length = _request_coding(into.version, seen)
    elif b"content-length" in seen:
        into.length = int(seen[b"content-length"])
    return keep


def _read_unusual(line: bytes, raw: list[bytes], table: FieldTable, into: Request) -> bool:
    """Any request line that is allowed, judged piece by piece."""
    try:
        method, target, protocol = line.split(b" ")
    except ValueError:
        raise BadRequest(reason=f"malformed request line {line[:80].decode('latin-1')!r}") from None
    if _METHOD.match(method) is None or not target or _INVISIBLE.search(target) is not None:
        raise BadRequest(reason=f"malformed request line {line[:80].decode('latin-1')!r}")
    if protocol not in (b"HTTP/1.1", b"HTTP/1.0"):
        if _OTHER_VERSION.match(line):
            raise BadRequest(reason="HTTP version not supported: this server speaks HTTP/1.0 and HTTP/1.1", code=505)
        raise BadRequest(reason=f"malformed request line {line[:80].decode('latin-1')!r}")
    into.method, into.target, into.version = method, target, protocol[5:]
    into.line, into.scheme = b"", None
    headers = into.headers
    try:
        headers.seen = seen = scan(raw, table)
    except MalformedField as error:
        raise BadRequest(reason=str(error)) from None
    headers.lines = raw
    if target[:1] != b"/" or method == b"CONNECT":
        _other_target(into, table)
    if into.version == b"1.1" and b"host" not in seen:
        raise BadRequest(reason="HTTP/1.1 request without Host")
    keep = _request_options(into, seen, into.version == b"1.1")
    if b"transfer-encoding" in seen:
        into.length = _request_coding(into.version, seen)
    elif b"content-length" in seen:
        into.length = int(seen[b"content-length"])
    if method == b"CONNECT":
        if into.length:
            raise BadRequest(reason="CONNECT with a body")
        return False  # should the tunnel be refused, what follows may have been meant for it and is not to be read as a request
    return keep


def _other_target(into: Request, table: FieldTable) -> None:
    """Absolute form becomes origin form with its authority as Host (spec 5.3); ``*`` is for OPTIONS only, a mere authority for CONNECT."""
    target = into.target
    if target == b"*" and into.method == b"OPTIONS":
        return
    if into.method == b"CONNECT":
        if not table.connects:
            raise BadRequest(reason="CONNECT is not supported by this server (servers[].connect)", code=405)
        try:
            into.target = read_authority(target).show().encode("ascii")
        except ValueError as error:
            raise BadRequest(reason=f"invalid target of CONNECT {target[:80].decode('latin-1')!r}: {error}") from None
        into.headers.set(b"host", into.target)
        return
    match = _ABSOLUTE.match(target)
    if match is None or not match.group(2) or _HOST.match(match.group(2)) is None:
        raise BadRequest(reason=f"invalid request target {target[:80].decode('latin-1')!r}")
    scheme, authority, rest = match.groups()
    into.scheme = scheme.lower()
    into.target = rest if rest[:1] == b"/" else b"/" + rest
    into.headers.set(b"host", authority)


def _request_options(into: Request, seen: dict[bytes, bytes], keep: bool) -> bool:
    value = seen.get(b"connection")
    if value is None or value == b"keep-alive":
        return keep or value is not None
    options = _options(value)
    if b"upgrade" in options and into.version == b"1.1":  # RFC 9110 section 7.8: ignored in HTTP/1.0
        wanted = seen.get(b"upgrade")
        if wanted is not None and b"h2c" not in wanted.lower():  # HTTP/2 is not to be begun behind this proxy's back
            into.upgrade = wanted
    return _keeps(options, keep)


def _options(value: bytes) -> list[bytes]:
    return [option.strip(b" \t") for option in value.lower().split(b",")]


def _keeps(options: list[bytes], keep: bool) -> bool:
    return b"close" not in options and (keep or b"keep-alive" in options)


def _request_coding(version: bytes, seen: dict[bytes, bytes]) -> int:
    if b"content-length" in seen:
        raise BadRequest(reason="both Content-Length and Transfer-Encoding are given")
    if version == b"1.0":
        raise BadRequest(reason="Transfer-Encoding in an HTTP/1.0 request")
    if seen[b"transfer-encoding"].lower() != b"chunked":
        raise BadRequest(reason="the only Transfer-Encoding understood is chunked", code=501)
    return CHUNKED


class ResponseTable(FieldTable):
    """What is remembered of responses: their field lines and status lines."""

    __slots__ = ("status_lines",)

    def __init__(self, wanted: Iterable[bytes] = (), taken: Iterable[bytes] = ()) -> None:
        super().__init__(wanted, taken)
        self.status_lines: dict[bytes, tuple[int, bytes, bool, bool]] = {}

    def status(self, line: bytes) -> tuple[int, bytes, bool, bool]:
        """Of a status line not seen before: status, the line in HTTP/1.1's words, whether it was HTTP/1.1's, whether a body may follow.

        Raises ValueError.
        """
        match = _STATUS_LINE.match(line)
        if match is None:
            raise ValueError(f"malformed status line {line[:80].decode('latin-1')!r}")
        status, is_current = int(match.group(2)), match.group(1) == b"1"
        may_have_body = status >= 200 and status != 204 and status != 304
        found = (status, line if is_current else b"HTTP/1.1" + line[8:], is_current, may_have_body)
        if len(self.status_lines) >= _MOST_STATUS_LINES:
            self.status_lines.clear()
        self.status_lines[line] = found
        return found


def read_response(block: bytes, table: ResponseTable, method: bytes, into: Response) -> bool:
    """Read a whole response head to a request of ``method``; True when the connection can be kept.

    Raises ValueError with the reason when it can't be trusted; ``into.status`` is set last, when all is well.
    """
    raw = block.split(b"\r\n")
    line = raw.pop(0)
    status, into.status_line, keep, may_have_body = table.status_lines.get(line) or table.status(line)
    headers = into.response
    headers.seen = seen = scan(raw, table)
    headers.lines = raw
    if b"connection" in seen and seen[b"connection"] != b"keep-alive":
        keep = _keeps(_options(seen[b"connection"]), keep)
    elif b"connection" in seen:
        keep = True
    if may_have_body and b"content-length" in seen and b"transfer-encoding" not in seen and method != b"HEAD":
        into.response_length = int(seen[b"content-length"])  # by far the most frequent framing
    else:
        into.response_length = length = _response_framing(status, line, headers, method)
        keep = keep and length != UNTIL_CLOSE
    into.status = status
    return keep


def _response_framing(status: int, line: bytes, headers: Headers, method: bytes) -> int:
    """RFC 9112 section 6.3. The length a HEAD or 304 answer would have had passes as a plain field."""
    length = headers.seen.get(b"content-length")
    coding = headers.seen.get(b"transfer-encoding")
    if method == b"HEAD" or status == 304:
        return 0
    if status == 204 or status < 200:
        if length is not None:
            headers.remove(b"content-length")  # not allowed there (RFC 9110 section 8.6)
        return 0
    if coding is not None:
        if length is not None:
            raise ValueError("both Content-Length and Transfer-Encoding are given")
        version = line[5:8]
        if version == b"1.0" or coding.lower() != b"chunked":
            raise ValueError(f"unusable Transfer-Encoding {coding[:40].decode('latin-1')!r} in an HTTP/{version.decode()} response")
        return CHUNKED
    return UNTIL_CLOSE if length is None else int(length)


def upgrade_of(response: Headers) -> bytes | None:
    """The protocol that a 101 answer switches to, if its Connection field says that it does."""
    seen = response.seen
    return seen.get(b"upgrade") if b"upgrade" in _options(seen.get(b"connection", b"")) else None


def violation(data: bytes, end: int, max_line: int, max_headers: int) -> BadRequest | None:
    """What is wrong with the bytes of a head, by the first violation in byte order; None when nothing is, or more bytes may mend it.

    ``end`` is the offset of the head's final empty line, -1 while it has not come. ``max_line`` bounds the request line, ``max_headers``
    the section after it, both in bytes.
    """
    line_end = data.find(b"\r\n")
    bare = _first_bare(data)
    line_size = line_end if line_end >= 0 else len(data) - data.endswith(b"\r")
    if line_size > max_line and not 0 <= bare <= max_line:
        return BadRequest(reason=f"request line longer than {max_line} bytes (maxInitialLineKB)", code=414)
    if line_end >= 0 and not 0 <= bare < line_end:
        limit = line_end + 2 + max_headers
        # up to three bytes of the final empty line may be among those of an unfinished head
        if (end if end >= 0 else len(data) - 3) > limit or bare > limit:
            return BadRequest(reason=f"header section longer than {max_headers} bytes (maxHeadersKB)", code=431)
    if bare >= 0:
        return BadRequest(reason="bare CR or LF in the message head")
    return None


def _first_bare(data: bytes) -> int:
    """The offset of the first CR not before LF or LF not after CR; -1 for none. A CR at the very end is not judged yet."""
    pairs = data.count(b"\r\n")  # counting is a hundred times faster than the search, and a head that trickles in is looked at often
    if data.count(b"\n") == pairs and data.count(b"\r") - data.endswith(b"\r") == pairs:
        return -1
    match = _BARE.search(data)
    return -1 if match is None else match.start()


_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")


class FixedBody:
    """A body of a known number of bytes."""

    __slots__ = ("done", "error", "left", "rest", "trailers")

    def __init__(self, length: int) -> None:
        self.left = length
        self.error: str | None = None
        self.done = length == 0
        self.rest = b""
        self.trailers: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """The body bytes in ``data``; what follows the body is left in ``rest``."""
        size = len(data)
        if size < self.left:
            self.left -= size
            return data
        body, self.rest = data[: self.left], data[self.left :]
        self.left = 0
        self.done = True
        return body


class CloseBody:
    """A response body that ends with its connection."""

    __slots__ = ("done", "error", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.error: str | None = None
        self.rest = b""
        self.trailers: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """All of it."""
        return data


class ChunkedBody:
    """A body in the chunked coding (RFC 9112 section 7.1); extensions are dropped, trailer lines validated and kept.

    A coding that could be read in two ways sets ``error``; what came before it has been given out.
    """

    __slots__ = ("_buffer", "_left", "_state", "_table", "_trailer_size", "done", "error", "rest", "trailers")

    def __init__(self, table: FieldTable) -> None:
        self._table = table
        self._buffer = b""
        self._left = 0
        self._state = _SIZE
        self._trailer_size = 0
        self.done = False
        self.error: str | None = None
        self.rest = b""
        self.trailers: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """The body bytes in ``data``, joined; after the end what follows is in ``rest``."""
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        while not self.done and self.error is None:
            if self._state == _DATA:
                take = min(self._left, size - at)
                if take:
                    pieces.append(data[at : at + take])
                    at += take
                    self._left -= take
                if self._left:
                    break
                self._state = _AFTER_DATA
            elif self._state == _AFTER_DATA:
                end = data[at : at + 2]
                if end == b"\r\n":
                    at += 2
                    self._state = _SIZE
                elif end in (b"", b"\r"):
                    self._buffer = end
                    break
                else:
                    self.error = "chunk data is not followed by CRLF"
            else:
                newline = data.find(b"\r\n", at)
                if newline < 0:
                    self._keep_line(data[at:])
                    break
                self._line(data[at:newline])
                at = newline + 2
        if self.done:
            self.rest = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _keep_line(self, part: bytes) -> None:
        size = len(part) - part.endswith(b"\r")
        if _first_bare(part) >= 0:
            self.error = "bare CR or LF in the chunked coding"
        elif self._state == _SIZE and size > _MOST_CHUNK_LINE:
            self.error = "chunk size line is too long"
        elif self._trailer_size + size > _MOST_TRAILERS:
            self.error = "trailer section is too long"
        self._buffer = part

    def _line(self, line: bytes) -> None:
        if self._state == _SIZE:
            match = _CHUNK_SIZE.match(line) if len(line) <= _MOST_CHUNK_LINE else None
            if match is None:
                self.error = f"invalid chunk size {line[:40].decode('latin-1')!r}"
                return
            self._left = int(match.group(1), 16)
            self._state = _DATA if self._left else _TRAILER
        elif not line:
            self.done = True
        else:
            self._trailer(line)

    def _trailer(self, line: bytes) -> None:
        self._trailer_size += len(line)
        if self._trailer_size > _MOST_TRAILERS:
            self.error = "trailer section is too long"
            return
        try:
            note = self._table.learn(line)
        except MalformedField as error:
            self.error = str(error)
            return
        if note is not None:
            name, _, drop = note
            if drop or name in (b"host", b"content-length") or name.startswith(b"l5d-"):
                return  # framing and routing never come in trailers
        self.trailers.append(line)


_SIZE, _DATA, _AFTER_DATA, _TRAILER = range(4)

Body = FixedBody | ChunkedBody | CloseBody
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """``data`` as one chunk; must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: list[bytes]) -> bytes:
    """The end of a chunked body with its trailer lines."""
    return b"0\r\n" + b"\r\n".join(trailers) + b"\r\n\r\n" if trailers else LAST_CHUNK
