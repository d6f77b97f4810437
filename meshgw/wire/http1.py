"""HTTP/1.x messages: heads and body framing, strict against request smuggling. Bytes in, values out.

Source: RFC 9112; linkerd-config spec 5.1, 5.3, 5.4 and 5.8. Stricter than Linkerd on purpose: what two parsers could read in two ways
(Content-Length beside Transfer-Encoding, repeated or listed lengths, folded lines, bare CR or LF, odd chunk sizes) is refused.
The verdict on a head never depends on how its bytes were split: the first violation in byte order decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from meshgw.errors import BadRequest
from meshgw.wire.headers import FieldTable, Headers, MalformedField, scan

_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"))
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


class RequestHead:
    """A request's first line and header section, and how its body is framed.

    ``length`` is the body's number of bytes or ``CHUNKED``. ``keep_alive`` is what the caller asks of its connection.
    """

    __slots__ = ("headers", "keep_alive", "length", "line", "method", "scheme", "target", "upgrade", "version")

    def __init__(self, line: bytes, method: bytes, target: bytes, version: bytes, headers: Headers) -> None:
        self.line, self.method, self.target, self.version, self.headers = line, method, target, version, headers
        self.length = 0
        self.keep_alive = True
        self.scheme: bytes | None = None
        self.upgrade: bytes | None = None


class ResponseHead:
    """A response's status line and header section, and how its body is framed."""

    __slots__ = ("headers", "keep_alive", "length", "line", "status", "upgrade", "version")

    def __init__(self, line: bytes, status: int, version: bytes, headers: Headers) -> None:
        self.line, self.status, self.version, self.headers = line, status, version, headers
        self.length = 0
        self.keep_alive = True
        self.upgrade: bytes | None = None


def parse_request(block: bytes, table: FieldTable) -> RequestHead:
    """Read a whole request head without its final empty line. Raises :class:`BadRequest` with status 400, 405, 501 or 505."""
    raw = block.split(b"\r\n")
    line = raw.pop(0)
    try:
        method, target, protocol = line.split(b" ")
    except ValueError:
        raise BadRequest(reason=f"malformed request line {line[:80].decode('latin-1')!r}") from None
    if (
        method not in _METHODS
        and _METHOD.match(method) is None
        or not (target.decode("latin-1").isprintable() or _INVISIBLE.search(target) is None)
        or not target
    ):
        raise BadRequest(reason=f"malformed request line {line[:80].decode('latin-1')!r}")
    if protocol == b"HTTP/1.1":
        version = b"1.1"
    elif protocol == b"HTTP/1.0":
        version = b"1.0"
    elif _OTHER_VERSION.match(line):
        raise BadRequest(reason="HTTP version not supported: this server speaks HTTP/1.0 and HTTP/1.1", code=505)
    else:
        raise BadRequest(reason=f"malformed request line {line[:80].decode('latin-1')!r}")
    try:
        headers = scan(raw, table)
    except MalformedField as error:
        raise BadRequest(reason=str(error)) from None
    head = RequestHead(line, method, target, version, headers)
    seen = headers.seen
    if target[:1] != b"/" or method == b"CONNECT":
        _other_target(head)
    if version == b"1.0":
        head.keep_alive = False
    elif b"host" not in seen:
        raise BadRequest(reason="HTTP/1.1 request without Host")
    if b"connection" in seen:
        _connection_options(head, seen[b"connection"])
    if b"transfer-encoding" in seen:
        _request_coding(head, seen)
    elif b"content-length" in seen:
        head.length = int(seen[b"content-length"])
    return head


def _other_target(head: RequestHead) -> None:
    """Absolute form becomes origin form with its authority as Host (spec 5.3); ``*`` is for OPTIONS only."""
    target = head.target
    if target == b"*" and head.method == b"OPTIONS":
        return
    if head.method == b"CONNECT":
        raise BadRequest(reason="CONNECT is not supported by this server", code=405)
    match = _ABSOLUTE.match(target)
    if match is None or not match.group(2) or _HOST.match(match.group(2)) is None:
        raise BadRequest(reason=f"invalid request target {target[:80].decode('latin-1')!r}")
    scheme, authority, rest = match.groups()
    head.scheme = scheme.lower()
    if rest[:1] != b"/":
        rest = b"/" + rest
    head.target = rest
    head.line = head.method + b" " + rest + b" HTTP/" + head.version
    head.headers.set(b"host", authority)


def _connection_options(head: RequestHead | ResponseHead, value: bytes) -> None:
    if value == b"keep-alive":
        head.keep_alive = True
        return
    options = [option.strip(b" \t") for option in value.lower().split(b",")]
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options:
        head.keep_alive = True
    if b"upgrade" in options and head.version == b"1.1":  # RFC 9110 section 7.8: ignored in HTTP/1.0
        head.upgrade = head.headers.seen.get(b"upgrade")


def _request_coding(head: RequestHead, seen: dict[bytes, bytes]) -> None:
    if b"content-length" in seen:
        raise BadRequest(reason="both Content-Length and Transfer-Encoding are given")
    if head.version == b"1.0":
        raise BadRequest(reason="Transfer-Encoding in an HTTP/1.0 request")
    if seen[b"transfer-encoding"].lower() != b"chunked":
        raise BadRequest(reason="the only Transfer-Encoding understood is chunked", code=501)
    head.length = CHUNKED


class ResponseTable(FieldTable):
    """What is remembered of responses: their field lines and status lines."""

    __slots__ = ("status_lines",)

    def __init__(self, wanted: Iterable[bytes] = (), taken: Iterable[bytes] = ()) -> None:
        super().__init__(wanted, taken)
        self.status_lines: dict[bytes, tuple[int, bytes]] = {}

    def status(self, line: bytes) -> tuple[int, bytes]:
        """Status and version of a status line not seen before. Raises ValueError."""
        match = _STATUS_LINE.match(line)
        if match is None:
            raise ValueError(f"malformed status line {line[:80].decode('latin-1')!r}")
        found = (int(match.group(2)), b"1.1" if match.group(1) == b"1" else b"1.0")
        if len(self.status_lines) >= _MOST_STATUS_LINES:
            self.status_lines.clear()
        self.status_lines[line] = found
        return found


def parse_response(block: bytes, table: ResponseTable, method: bytes) -> ResponseHead:
    """Read a whole response head to a request of ``method``. Raises ValueError with the reason when it can't be trusted."""
    raw = block.split(b"\r\n")
    line = raw.pop(0)
    status, version = table.status_lines.get(line) or table.status(line)
    headers = scan(raw, table)
    head = ResponseHead(line, status, version, headers)
    seen = headers.seen
    if version == b"1.0":
        head.keep_alive = False
    if b"connection" in seen:
        _connection_options(head, seen[b"connection"])
    if (
        b"content-length" in seen
        and b"transfer-encoding" not in seen
        and status >= 200
        and status != 204
        and status != 304
        and method != b"HEAD"
    ):
        head.length = int(seen[b"content-length"])  # by far the most frequent framing
    else:
        _response_framing(head, seen, method)
    return head


def _response_framing(head: ResponseHead, seen: dict[bytes, bytes], method: bytes) -> None:
    """RFC 9112 section 6.3. The length a HEAD or 304 answer would have had passes as a plain field."""
    status = head.status
    length = seen.get(b"content-length")
    coding = seen.get(b"transfer-encoding")
    if method == b"HEAD" or status == 304:
        pass
    elif status == 204 or status < 200:
        if length is not None:
            head.headers.remove(b"content-length")  # not allowed there (RFC 9110 section 8.6)
    elif coding is not None:
        if length is not None:
            raise ValueError("both Content-Length and Transfer-Encoding are given")
        if head.version == b"1.0" or coding.lower() != b"chunked":
            raise ValueError(f"unusable Transfer-Encoding {coding[:40].decode('latin-1')!r} in an HTTP/{head.version.decode()} response")
        head.length = CHUNKED
    elif length is not None:
        head.length = int(length)
    else:
        head.length = UNTIL_CLOSE
        head.keep_alive = False


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
        if note is None or not (
            note.drop or note.name in (b"host", b"content-length") or note.name.startswith(b"l5d-")
        ):  # framing and routing never come in trailers
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
