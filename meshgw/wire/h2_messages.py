"""HTTP/2 messages: fields of a header block to what an exchange holds, which are lines as HTTP/1.1 has them, and back.

Source: RFC 9113 section 8; linkerd-config spec 6.1. Both protocols share one form of a header section (``wire.headers``), so filters and
bridges between them have nothing to convert. What a peer may not send makes its stream fail: :class:`StreamFault`.
"""

from __future__ import annotations

import re
from typing import Final

from meshgw.errors import BadRequest
from meshgw.wire.h2_frames import Code, StreamFault
from meshgw.wire.headers import SECRET_WORDS, FieldTable, Headers, MalformedField, scan
from meshgw.wire.hpack import Block, FieldEncoder, Section, literal
from meshgw.wire.http1 import Request

UNKNOWN_LENGTH: Final = -1
"""Of a body whose end is told by the end of its stream."""
VERSION: Final = b"2"

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+\Z")
_METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}\Z")
_TARGET: Final = re.compile(rb"/[!-~\x80-\xff]*\Z")
_ABSOLUTE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*)://([A-Za-z0-9.\-_~%!$&'()*+;=:\[\]]+)([/?][!-~\x80-\xff]*)?\Z")
_AUTHORITY: Final = re.compile(rb"[A-Za-z0-9.\-_~%!$&'()*+;=:\[\]]+\Z")
_SCHEME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*\Z")
_STATUS: Final = re.compile(rb"[1-9][0-9][0-9]\Z")
_CONNECTION_FIELDS: Final = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
"""What may not stand in an HTTP/2 message (section 8.2.2)."""
_COLON: Final = 0x3A
_MOST_REMEMBERED: Final = 4096
_LONGEST_REMEMBERED: Final = 512


def malformed(reason: str) -> StreamFault:
    """A message that is malformed (section 8.1.1)."""
    return StreamFault(Code.PROTOCOL_ERROR, reason)


class FieldReader:
    """Reads sections into lines; ``table`` is for lines of HTTP/2 only, as those that pass are taken without another look."""

    __slots__ = ("_names", "_passing", "table")

    def __init__(self, table: FieldTable) -> None:
        self.table = table
        self._passing = table.passing
        self._names: set[bytes] = set()

    def lines(self, fields: Block, start: int) -> list[bytes]:
        """The regular fields from ``start`` on as lines. Raises :class:`StreamFault`."""
        lines = []
        passing, names = self._passing, self._names
        cookies: list[bytes] | None = None
        for name, value, _ in fields[start:] if start else fields:
            if name not in names:
                self._learn(name)  # first, as a name with a colon in it makes a line that may be known
            line = name + b": " + value
            if line not in passing:
                if value and (value[0] <= 0x20 or value[-1] <= 0x20):
                    raise malformed(f"white space around the value of field {name.decode('latin-1')!r}")
                if name == b"cookie":  # crumbs are one field elsewhere (section 8.2.3)
                    if cookies is None:
                        cookies = []
                    cookies.append(value)
                    continue
            lines.append(line)
        if cookies is not None:
            lines.append(b"cookie: " + b"; ".join(cookies))
        return lines

    def _learn(self, name: bytes) -> None:
        if _NAME.match(name) is None:
            shown = name[:60].decode("latin-1")
            if name[:1] == b":":
                raise malformed(f"pseudo-header field {shown!r} after a regular one, or in trailers")
            raise malformed(f"invalid field name {shown!r}")
        if name in _CONNECTION_FIELDS:
            raise malformed(f"field {name.decode('ascii')!r}, which is specific to HTTP/1.1 connections")
        if len(name) <= _LONGEST_REMEMBERED:
            if len(self._names) >= _MOST_REMEMBERED:
                self._names.clear()
            self._names.add(name)

    def noted(self, lines: list[bytes]) -> dict[bytes, bytes]:
        """Validate the lines, drop those of the hop, and give what is noted of them. Raises :class:`StreamFault`."""
        try:
            seen = scan(lines, self.table)
        except MalformedField as error:
            raise malformed(str(error)) from None
        if b"te" in seen and seen[b"te"].lower() != b"trailers":
            raise malformed("field 'te' with another value than trailers")
        return seen

    def headers(self, section: Section, start: int, into: Headers) -> None:
        """Read the fields from ``start`` on into ``into``. Raises :class:`StreamFault`."""
        parsed = section.head
        if parsed is None:
            lines = self.lines(section.fields, start)
            parsed = (lines, self.noted(lines))
            if section.is_kept:
                section.head = parsed
        lines, seen = parsed
        into.lines, into.seen = lines.copy(), seen.copy()

    def trailers(self, section: Section) -> list[bytes]:
        """A message's trailers as lines, without those of the hop and those of framing and routing. Raises :class:`StreamFault`."""
        lines = section.tail
        if lines is None:
            lines = self.lines(section.fields, 0)
            headers = Headers(lines, self.noted(lines))
            for name in (b"content-length", b"host"):  # too late to be believed (RFC 9110 section 6.5.1)
                if name in headers.seen:
                    headers.remove(name)
            lines = headers.lines
            if section.is_kept:
                section.tail = lines
        return lines.copy()


def _pseudo(fields: Block) -> dict[bytes, bytes]:
    """The pseudo-header fields, which come first. Raises :class:`StreamFault` for one that comes twice."""
    found: dict[bytes, bytes] = {}
    for name, value, _ in fields:
        if not name or name[0] != _COLON:
            break
        if name in found:
            raise malformed(f"repeated pseudo-header field {name[:60].decode('latin-1')!r}")
        found[name] = value
    return found


def read_request(section: Section, reader: FieldReader, into: Request, *, ends: bool) -> None:
    """Read a request's section into an exchange; ``ends`` tells that no body follows.

    Raises :class:`StreamFault` for a malformed one, :class:`BadRequest` for one that is well-formed and not served; nothing is read then.
    """
    parsed = section.head
    if parsed is None:
        parsed = _parse_request(section, reader)
        if section.is_kept:
            section.head = parsed
    into.method, into.target, lines, seen, length = parsed
    into.version, into.scheme, into.line = VERSION, None, b""
    headers = into.headers
    headers.lines, headers.seen = lines.copy(), seen.copy()
    if not ends:
        into.length = length
    elif length > 0:
        raise malformed(f"a request without a body and content-length {length}")
    else:
        into.length = 0


def _parse_request(section: Section, reader: FieldReader) -> tuple[bytes, bytes, list[bytes], dict[bytes, bytes], int]:
    """Method, target, lines, what is noted of them, and the length of the body that they tell."""
    fields = section.fields
    pseudo = _pseudo(fields)
    method = pseudo.get(b":method")
    target, scheme, authority = pseudo.get(b":path"), pseudo.get(b":scheme"), pseudo.get(b":authority")
    if len(pseudo) - (authority is not None) != 3 or method is None or target is None or scheme is None or method == b"CONNECT":
        _refuse_pseudo(pseudo)
    assert method is not None and target is not None and scheme is not None
    if _METHOD.match(method) is None or _SCHEME.match(scheme) is None:
        raise malformed("malformed :method or :scheme")
    lines = reader.lines(fields, len(pseudo))
    if _TARGET.match(target) is None:
        target, authority = _other_target(method, target, authority)
    if authority is not None:
        if _AUTHORITY.match(authority) is None or b"@" in authority:
            raise malformed(f"malformed :authority {authority[:80].decode('latin-1')!r}")
        line = b"host: " + authority
        if line in lines:
            lines.remove(line)
        lines.insert(0, line)
    seen = reader.noted(lines)  # a Host that differs from :authority is a repeated one
    if b"host" not in seen:
        raise BadRequest(reason="neither :authority nor Host")
    length = seen.get(b"content-length")
    return method, target, lines, seen, UNKNOWN_LENGTH if length is None else int(length)


def _refuse_pseudo(pseudo: dict[bytes, bytes]) -> None:
    """Say what is wrong with the pseudo-header fields."""
    unknown = pseudo.keys() - {b":method", b":path", b":scheme", b":authority"}
    if unknown:
        raise malformed(f"unknown pseudo-header field {min(unknown)[:60].decode('latin-1')!r}")
    if pseudo.get(b":method") == b"CONNECT":
        if pseudo.keys() == {b":method", b":authority"}:
            raise BadRequest(reason="CONNECT is not supported over HTTP/2", code=405)
        raise malformed("CONNECT with :path or :scheme, or without :authority")
    missing = next(name for name in (b":method", b":scheme", b":path") if name not in pseudo)
    raise malformed(f"missing pseudo-header field {missing.decode('ascii')!r}")


def _other_target(method: bytes, target: bytes, authority: bytes | None) -> tuple[bytes, bytes | None]:
    """``*`` is for OPTIONS; an absolute URI becomes its path with its authority (spec 6.1)."""
    if target == b"*" and method == b"OPTIONS":
        return target, authority
    match = _ABSOLUTE.match(target)
    if match is None:
        raise malformed(f"malformed :path {target[:80].decode('latin-1')!r}")
    rest = match.group(3) or b"/"
    return rest if rest[:1] == b"/" else b"/" + rest, match.group(2)


def read_status(fields: Block) -> int:
    """The status of an answer. Raises :class:`StreamFault`."""
    pseudo = _pseudo(fields)
    status = pseudo.get(b":status")
    if status is None or len(pseudo) != 1 or _STATUS.match(status) is None:
        raise malformed("an answer without a well-formed :status as its only pseudo-header field")
    return int(status)


class FieldWriter:
    """Turns lines, and pseudo-header fields written like them, into what goes on the wire. One is shared by the connections of a side.

    What comes a second time is expected again and gets a number, by which each connection knows it (:class:`FieldEncoder`); what comes for
    the first time, or is secret, is written out, and takes no place in the peer's table.
    """

    __slots__ = ("_known", "_names", "_next", "_once", "fields")

    def __init__(self) -> None:
        self._next = 1
        self._known: dict[bytes, int] = {}
        self._names: dict[bytes, tuple[bytes, int]] = {}
        self._once: set[bytes] = set()
        self.fields: dict[int, tuple[bytes, bytes, bool]] = {}
        """Those that have a number."""

    def block(self, lines: list[bytes], encoder: FieldEncoder) -> bytes:
        """The header block of the lines for one connection; Host and fields of the hop are left out."""
        known = self._known
        numbers: list[int] = []
        late: list[bytes] = []
        pseudo = encoder.update() if encoder.is_changed else b""
        rest = b""
        for line in lines:
            number = known.get(line)
            if number is None:
                end = line.find(b":", 1)
                name, kind = self._names.get(line[:end]) or self._learn_name(line[:end])
                if kind == _PLAIN:
                    number = self._learn(line, name, line[end + 1 :].strip(b" \t"))
                if number is None:
                    if kind == _DROPPED:
                        continue
                    field = literal(name, line[end + 1 :].strip(b" \t"), is_secret=kind == _SECRET)
                    if line[0] == _COLON:
                        pseudo += field
                    else:
                        rest += field
                        late.append(name)
                    continue
            if late and self.fields[number][0] in late:  # fields of one name keep their order
                rest += literal(*self.fields[number][:2], is_secret=False)
            else:
                numbers.append(number)
        if numbers:
            return pseudo + encoder.encode(tuple(numbers), self.fields) + rest
        return pseudo + rest

    def _learn(self, line: bytes, name: bytes, value: bytes) -> int | None:
        """The number of a line that has none yet; None while it is to be written out."""
        if len(line) > _LONGEST_REMEMBERED:
            return None
        if line not in self._once:
            if len(self._once) >= _MOST_REMEMBERED:
                self._once.clear()
            self._once.add(line)
            return None
        self._once.discard(line)
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()  # the numbers stay, for blocks that connections remember; they are dropped with the next clearing
            for number in list(self.fields)[:-_MOST_REMEMBERED]:
                del self.fields[number]
        number = self._known[line] = self._next
        self._next += 1
        self.fields[number] = (name, value, False)
        return number

    def _learn_name(self, raw: bytes) -> tuple[bytes, int]:
        """The name as it is sent, and what is done with lines of it."""
        name = raw.lower()
        if name == b"host" or name in _CONNECTION_FIELDS:
            kind = _DROPPED
        elif any(word in name for word in SECRET_WORDS):
            kind = _SECRET
        else:
            kind = _FLEETING if name in _NEVER_TWICE else _PLAIN
        if len(raw) <= _LONGEST_REMEMBERED:
            if len(self._names) >= _MOST_REMEMBERED:
                self._names.clear()
            self._names[raw] = (name, kind)
        return name, kind


_PLAIN, _FLEETING, _SECRET, _DROPPED = range(4)
_NEVER_TWICE: Final = frozenset(
    (
        *(b"l5d-ctx-trace", b"l5d-ctx-deadline", b"l5d-reqid", b"grpc-timeout", b"x-request-id"),
        *(b"traceparent", b"tracestate", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid"),
    )
)
"""Fields whose values are new each time, which need not be looked for among those that came before."""
