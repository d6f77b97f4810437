"""HTTP/2 messages: fields of a header block to what an exchange holds, which are lines as HTTP/1.1 has them.

Source: RFC 9113 section 8; linkerd-config spec 6.1. Both protocols share one form of a header section (``wire.headers``), so filters and
bridges between them have nothing to convert. What a peer may not send makes its stream fail: :class:`StreamFault`. What a field means is
worked out once, when a connection's table takes it (``wire.hpack``); the way back, lines to fields, is in ``wire.hpack_writer``.
"""

from __future__ import annotations

import re
from typing import Final

from meshgw.errors import BadRequest
from meshgw.wire.h2_frames import CONNECTION_FIELDS, Code, StreamFault
from meshgw.wire.headers import ILLEGAL, FieldTable, Headers, MalformedField, joined
from meshgw.wire.hpack import COOKIE, NOTED, PASSING, PSEUDO, WRONG, Field, Section
from meshgw.wire.hpack_table import STATIC_FIELDS
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
_PSEUDO_FIELDS: Final = 4
"""What nearly all requests begin with: method, scheme, path and authority, in any order."""
_COLON: Final = 0x3A
_MOST_REMEMBERED: Final = 1024
_LONGEST_REMEMBERED: Final = 256
_MOST_STARTS: Final = 256


def malformed(reason: str) -> StreamFault:
    """A message that is malformed (section 8.1.1)."""
    return StreamFault(Code.PROTOCOL_ERROR, reason)


class _Static(dict[int, Field]):
    """The fields of the static table as a reader takes them, each from when it was met first."""

    def __init__(self, reader: FieldReader) -> None:
        super().__init__()
        self._reader = reader

    def __missing__(self, index: int) -> Field:
        field = self[index] = self._reader.field(*STATIC_FIELDS[index - 1])
        return field


class FieldReader:
    """Tells what fields mean (:class:`meshgw.wire.hpack.Meanings`), and reads sections into lines; one for all connections of a side.

    ``table`` says which lines are noted. ``starts`` remembers what the pseudo-header fields of requests say.
    """

    __slots__ = ("_fleeting", "_names", "literals", "starts", "static", "table")

    def __init__(self, table: FieldTable) -> None:
        self.table = table
        self.static = _Static(self)
        self.literals: dict[bytes, Field] = {}
        self.starts: dict[tuple[Field, ...], Start] = {}
        self._fleeting: set[bytes] = set()  # names whose lines merely pass and are not remembered
        self._names: dict[bytes, str] = {}  # what is wrong with each, nothing of most

    # --- one field

    def field(self, name: bytes, value: bytes) -> Field:
        """See :class:`meshgw.wire.hpack.Meanings`."""
        if name in self._fleeting:
            line = name + b": " + value
            if line.translate(None, ILLEGAL) == line and value.strip() == value:  # else it is looked at like any other
                return Field(name, value, PASSING, line, is_fleeting=True)
        wrong = self._names.get(name)
        if wrong is None:
            wrong = self._learn(name)
        if wrong:
            return Field(name, value, PSEUDO if name[:1] == b":" else WRONG, note=wrong)
        if value and (value[0] <= 0x20 or value[-1] <= 0x20):
            return Field(name, value, WRONG, note=f"white space around the value of field {name.decode('latin-1')!r}")
        if name == b"cookie":  # crumbs are one field elsewhere (section 8.2.3)
            return Field(name, value, COOKIE, is_fleeting=True)
        line = name + b": " + value
        is_fleeting = not self.table.is_remembered(name)
        try:
            note = self.table.note(line)
        except MalformedField as error:
            return Field(name, value, WRONG, note=str(error), is_fleeting=is_fleeting)
        if is_fleeting and note is None and len(name) <= _LONGEST_REMEMBERED:
            if len(self._fleeting) >= _MOST_REMEMBERED:
                self._fleeting.clear()
            self._fleeting.add(name)
        return Field(name, value, PASSING if note is None else NOTED, line, note, is_fleeting=is_fleeting)

    def keep(self, literal: bytes, field: Field) -> None:
        """See :class:`meshgw.wire.hpack.Meanings`."""
        if len(literal) <= _LONGEST_REMEMBERED:
            if len(self.literals) >= _MOST_REMEMBERED:
                self.literals.clear()
            self.literals[literal] = field

    def _learn(self, name: bytes) -> str:
        """What is wrong with a name; a pseudo-header field's is so only behind a regular one, and in trailers."""
        shown, wrong = name[:60].decode("latin-1"), ""
        if name[:1] == b":":
            wrong = f"pseudo-header field {shown!r} after a regular one, or in trailers"
        elif _NAME.match(name) is None:
            wrong = f"invalid field name {shown!r}"
        elif name in CONNECTION_FIELDS:
            wrong = f"field {shown!r}, which is specific to HTTP/1.1 connections"
        if len(name) <= _LONGEST_REMEMBERED:
            if len(self._names) >= _MOST_REMEMBERED:
                self._names.clear()
            self._names[name] = wrong
        return wrong

    # --- sections

    def regular(self, fields: list[Field], start: int, lines: list[bytes], seen: dict[bytes, bytes]) -> None:
        """Add the regular fields from ``start`` on to ``lines``, and what is noted of them to ``seen``, which may have a Host each.

        Those of the hop are left out. Raises :class:`StreamFault`.
        """
        own = lines[0] if lines else None
        cookies: list[bytes] | None = None
        for field in fields[start:] if start else fields:
            kind = field.kind
            if not kind:
                lines.append(field.line)
            elif kind == NOTED:
                name, value, is_dropped = field.note
                if name not in seen:
                    seen[name] = value
                elif own is not None and name == b"host" and value.lower() == own[6:].lower():
                    own = None  # Host says once again what :authority says, in other letters perhaps
                    continue
                else:
                    _repeat(seen, name, value)
                if not is_dropped:
                    lines.append(field.line)
            elif kind == COOKIE:
                if cookies is None:
                    cookies = []
                cookies.append(field.value)
            else:
                raise malformed(field.note)
        if cookies is not None:
            self._add_cookies(b"cookie: " + b"; ".join(cookies), lines, seen)
        if b"te" in seen and seen[b"te"].lower() != b"trailers":
            raise malformed("field 'te' with another value than trailers")

    def _add_cookies(self, line: bytes, lines: list[bytes], seen: dict[bytes, bytes]) -> None:
        try:
            note = self.table.note(line)
        except MalformedField as error:
            raise malformed(str(error)) from None
        if note is not None:
            seen[note[0]] = note[1]
        if note is None or not note[2]:
            lines.append(line)

    def headers(self, section: Section, start: int, into: Headers) -> None:
        """Read the fields from ``start`` on into ``into``. Raises :class:`StreamFault`."""
        parsed = section.head
        if parsed is None:
            lines: list[bytes] = []
            seen: dict[bytes, bytes] = {}
            self.regular(section.fields, start, lines, seen)
            if not section.is_kept:
                into.lines, into.seen = lines, seen
                return
            parsed = section.head = (lines, seen)
        lines, seen = parsed
        into.lines, into.seen = lines.copy(), seen.copy()

    def trailers(self, section: Section) -> list[bytes]:
        """A message's trailers as lines, without those of the hop and those of framing and routing. Raises :class:`StreamFault`."""
        lines = section.tail
        if lines is None:
            headers = Headers([], {})
            self.regular(section.fields, 0, headers.lines, headers.seen)
            for name in (b"content-length", b"host"):  # too late to be believed (RFC 9110 section 6.5.1)
                if name in headers.seen:
                    headers.remove(name)
            lines = headers.lines
            if section.is_kept:
                section.tail = lines
        return lines.copy()


Start = tuple[bytes, bytes, bytes | None, int]
"""What the pseudo-header fields of a request say: method, target, authority; and how many they are."""


def _repeat(seen: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    try:
        seen[name] = joined(name, seen[name], value)
    except MalformedField as error:
        raise malformed(str(error)) from None


def _pseudo(fields: list[Field]) -> dict[bytes, bytes]:
    """The pseudo-header fields, which come first. Raises :class:`StreamFault` for one that comes twice."""
    found: dict[bytes, bytes] = {}
    for field in fields:
        if field.kind != PSEUDO:
            break
        if field.name in found:
            raise malformed(f"repeated pseudo-header field {field.name[:60].decode('latin-1')!r}")
        found[field.name] = field.value
    return found


def read_request(section: Section, reader: FieldReader, into: Request, *, ends: bool) -> None:
    """Read a request's section into an exchange; ``ends`` tells that no body follows.

    Raises :class:`StreamFault` for a malformed one, :class:`BadRequest` for one that is well-formed and not served; nothing is read then.
    """
    headers = into.headers
    parsed = section.head
    if parsed is None:
        method, target, lines, seen, length = parsed = _parse_request(section, reader)
        if section.is_kept:
            section.head = parsed
            lines, seen = lines.copy(), seen.copy()
    else:
        method, target, lines, seen, length = parsed
        lines, seen = lines.copy(), seen.copy()
    if ends:
        if length > 0:
            raise malformed(f"a request without a body and content-length {length}")
        length = 0
    into.method, into.target, into.length = method, target, length
    into.version, into.scheme, into.line = VERSION, None, b""
    headers.lines, headers.seen = lines, seen


def _parse_request(section: Section, reader: FieldReader) -> tuple[bytes, bytes, list[bytes], dict[bytes, bytes], int]:
    """Method, target, lines, what is noted of them, and the length of the body that they tell."""
    fields = section.fields
    key = tuple(fields[:_PSEUDO_FIELDS])
    method, target, authority, count = reader.starts.get(key) or _read_start(fields, key, reader)
    lines: list[bytes] = []
    seen: dict[bytes, bytes] = {}
    if authority is not None:
        lines.append(b"host: " + authority)
        seen[b"host"] = authority
    reader.regular(fields, count, lines, seen)  # a Host that differs from :authority is a repeated one
    if b"host" not in seen:
        raise BadRequest(reason="neither :authority nor Host")
    length = seen.get(b"content-length")
    return method, target, lines, seen, UNKNOWN_LENGTH if length is None else int(length)


def _read_start(fields: list[Field], key: tuple[Field, ...], reader: FieldReader) -> Start:
    """What the pseudo-header fields say. It is remembered where they are all of ``key``."""
    pseudo = _pseudo(fields)
    method = pseudo.get(b":method")
    target, scheme, authority = pseudo.get(b":path"), pseudo.get(b":scheme"), pseudo.get(b":authority")
    if len(pseudo) - (authority is not None) != 3 or method is None or target is None or scheme is None or method == b"CONNECT":
        _refuse_pseudo(pseudo)
    assert method is not None and target is not None and scheme is not None
    if _METHOD.match(method) is None or _SCHEME.match(scheme) is None:
        raise malformed("malformed :method or :scheme")
    if _TARGET.match(target) is None:
        target, authority = _other_target(method, target, authority)
    if authority is not None and (_AUTHORITY.match(authority) is None or b"@" in authority):
        raise malformed(f"malformed :authority {authority[:80].decode('latin-1')!r}")
    start = (method, target, authority, len(pseudo))
    if len(pseudo) == _PSEUDO_FIELDS and not any(field.is_fleeting or field.size > _LONGEST_REMEMBERED for field in key):
        if len(reader.starts) >= _MOST_STARTS:
            reader.starts.clear()
        reader.starts[key] = start
    return start


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


def read_status(fields: list[Field]) -> int:
    """The status of an answer. Raises :class:`StreamFault`."""
    first = fields[0] if fields else None
    if first is None or first.name != b":status" or _STATUS.match(first.value) is None or (len(fields) > 1 and fields[1].kind == PSEUDO):
        raise malformed("an answer without a well-formed :status as its only pseudo-header field")
    return int(first.value)
