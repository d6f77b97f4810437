"""A header section as a list of field lines, with the few fields that somebody looks at kept at hand.

Source: RFC 9112 section 5, DATAPATH.md design point 3. Lines are validated once: a bounded table remembers what every well-formed
line means, so that a line seen before costs one dictionary look-up and is copied as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[!-~\x80-\xff](?:[ \t]*[!-~\x80-\xff])*)?)[ \t]*\Z")
_MOST_LINES = 4096
_LONGEST_LINE = 512

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Removed from every proxied message (RFC 9110 section 7.6.1, linkerd-config spec 5.4)."""

SECRET = frozenset((b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"))
"""Lines of these fields are not remembered, so that credentials do not outlive their request in memory."""

KEPT_AT_HAND = frozenset((b"host", b"via", b"user-agent", b"referer", b"expect", b"forwarded", b"x-forwarded-client-cert"))


class Note:
    """What one field line says: lower-case name, value, and whether the line is left out when the section is sent on."""

    __slots__ = ("drop", "name", "value")

    def __init__(self, name: bytes, value: bytes, *, drop: bool) -> None:
        self.name, self.value, self.drop = name, value, drop


class MalformedField(ValueError):
    """A field line breaks RFC 9112 section 5; the text says how."""


class FieldTable:
    """Remembers field lines; one for each kind of message and set of wanted names, so that capacity is bounded per listener.

    ``wanted`` are lower-case names whose values should be at hand in :attr:`Headers.seen`; names starting with ``l5d-`` always are.
    ``taken`` are names whose lines are read and then left out, because this hop writes its own.
    """

    __slots__ = ("_taken", "_wanted", "lines")

    def __init__(self, wanted: Iterable[bytes] = (), taken: Iterable[bytes] = ()) -> None:
        self.lines: dict[bytes, Note | bool] = {}
        self._wanted = KEPT_AT_HAND | frozenset(wanted)
        self._taken = HOP_BY_HOP | frozenset(taken) | {b"content-length"}

    def learn(self, line: bytes) -> Note | bool:
        """Validate a line not seen before: False for one that merely passes, else its note."""
        match = _FIELD.match(line)
        if match is None:
            raise MalformedField(_complaint(line))
        name = match.group(1).lower()
        entry: Note | bool
        if name in self._taken:
            entry = Note(name, match.group(2), drop=True)
        elif name in self._wanted or name.startswith(b"l5d-"):
            entry = Note(name, match.group(2), drop=False)
        else:
            entry = False
        if len(line) <= _LONGEST_LINE and name not in SECRET and not name.startswith(b"l5d-ctx-"):
            if len(self.lines) >= _MOST_LINES:
                self.lines.clear()
            self.lines[line] = entry
        return entry


class Headers:
    """The field lines of one message in order, without line ends; hop-by-hop and framing fields are not among ``lines``.

    ``seen`` maps lower-case names of noted fields to their value; a repeated field's values are joined by ``, ``.
    """

    __slots__ = ("lines", "seen")

    def __init__(self, lines: list[bytes] | None = None, seen: dict[bytes, bytes] | None = None) -> None:
        self.lines = [] if lines is None else lines
        self.seen: dict[bytes, bytes] = {} if seen is None else seen

    def get(self, name: bytes) -> bytes | None:
        """The value of the field ``name`` (lower-case), repeated fields joined by ``, ``; None when absent."""
        value = self.seen.get(name)
        if value is not None:
            return value
        values = [value for _, value in self._find(name)]
        return b", ".join(values) if values else None

    def get_all(self, name: bytes) -> list[bytes]:
        """The values of every line of the field ``name``, in order."""
        return [value for _, value in self._find(name)]

    def remove(self, name: bytes) -> None:
        """Drop every line of the field."""
        found = {index for index, _ in self._find(name)}
        if found:
            self.lines = [line for index, line in enumerate(self.lines) if index not in found]
        self.seen.pop(name, None)

    def set(self, name: bytes, value: bytes) -> None:
        """Replace every line of the field by one."""
        self.remove(name)
        self.add(name, value)

    def replace(self, name: bytes, value: bytes) -> None:
        """Change the first line of the field where it stands, or append one."""
        found = self._find(name)
        if found:
            self.lines[found[0][0]] = name + b": " + value
            if name in self.seen:
                self.seen[name] = value
        else:
            self.add(name, value)

    def add(self, name: bytes, value: bytes) -> None:
        """Append a line."""
        self.lines.append(name + b": " + value)
        if name in self.seen:
            self.seen[name] += b", " + value
        else:
            self.seen[name] = value

    def remove_prefixed(self, prefix: bytes) -> None:
        """Drop every field whose lower-case name starts with ``prefix``."""
        length = len(prefix)
        self.lines = [line for line in self.lines if line[:length].lower() != prefix]
        for name in [name for name in self.seen if name.startswith(prefix)]:
            del self.seen[name]

    def items(self) -> list[tuple[bytes, bytes]]:
        """All fields as (lower-case name, value)."""
        fields = []
        for line in self.lines:
            name, _, value = line.partition(b":")
            fields.append((name.lower(), value.strip(b" \t")))
        return fields

    def _find(self, name: bytes) -> list[tuple[int, bytes]]:
        length = len(name)
        return [
            (index, line[length + 1 :].strip(b" \t"))
            for index, line in enumerate(self.lines)
            if line[length : length + 1] == b":" and line[:length].lower() == name
        ]


def scan(raw: list[bytes], table: FieldTable) -> Headers:
    """Sort the raw lines of a section: what passes, what is noted, what is left out. Raises :class:`MalformedField`."""
    known = table.lines.get
    seen: dict[bytes, bytes] = {}
    dropped: list[bytes] | None = None
    for line in raw:
        note = known(line)
        if note is False:
            continue
        if note is None:
            note = table.learn(line)
            if note is False:
                continue
        assert isinstance(note, Note)
        name = note.name
        if name in seen:
            _repeat(seen, name, note.value)
        else:
            seen[name] = note.value
        if note.drop:
            if dropped is None:
                dropped = [line]
            else:
                dropped.append(line)
    if dropped is not None:
        for line in dropped:
            raw.remove(line)
        options = seen.get(b"connection")
        if options is not None and options.lower() not in (b"keep-alive", b"close"):
            return _without_listed(Headers(raw, seen), options)
    return Headers(raw, seen)


def _repeat(seen: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    if name == b"content-length" or name == b"host":
        raise MalformedField(f"repeated {name.decode('ascii')} field")
    # several dtabs are one dtab in order (linkerd-config spec 7.2); every other field is a comma-separated list
    seen[name] = seen[name] + (b";" if name.endswith(b"-dtab") else b", ") + value


def _without_listed(headers: Headers, options: bytes) -> Headers:
    """Fields named in Connection are meant for this hop only (RFC 9110 section 7.6.1); end-to-end ones can't be removed that way."""
    for option in options.lower().split(b","):
        name = option.strip(b" \t")
        if name and name not in (b"close", b"keep-alive", b"host", b"content-length") and name not in HOP_BY_HOP:
            headers.remove(name)
    return headers


def _complaint(line: bytes) -> str:
    shown = line[:60].decode("latin-1")
    if line[:1] in (b" ", b"\t"):
        return f"obsolete line folding at {shown!r}"
    if b"\n" in line or b"\r" in line:
        return f"bare CR or LF at {shown!r}"
    name, colon, _ = line.partition(b":")
    if not colon:
        return f"field line without colon at {shown!r}"
    if name[-1:] in (b" ", b"\t"):
        return f"white space before the colon at {shown!r}"
    return f"invalid character in field line at {shown!r}"
