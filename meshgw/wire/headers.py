"""A header section as a list of field lines, with the few fields that somebody looks at kept at hand.

Source: RFC 9112 section 5, DATAPATH.md design point 3. Lines are validated once: a bounded table remembers what every well-formed
line means, so that a line seen before costs one look-up and is copied as it is. Together with ``wire.http1`` this is a leaf part behind a
narrow interface: everybody gets at it through :class:`FieldTable`, :class:`Headers` and :func:`scan`, so a compiled twin needs no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import filterfalse

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_HOST = re.compile(rb"[A-Za-z0-9.\-_~%!$&'()*+;=:\[\]]*\Z")
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")
ILLEGAL = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])
"""Bytes that no field line may hold (RFC 9110 section 5.5; obs-text is let through). Deleting them finds them faster than any pattern."""
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

SECRET_WORDS = (b"auth", b"cookie", b"token", b"secret", b"key", b"password", b"credential", b"session")
"""Lines of fields with these in their name are not remembered, so that credentials do not outlive their request in memory."""

_TRACES = frozenset((b"traceparent", b"tracestate", b"b3"))

KEPT_AT_HAND = frozenset((b"host", b"content-length", b"via"))


Note = tuple[bytes, bytes, bool]
"""What one field line says: lower-case name, value, and whether the line is left out when the section is sent on."""


class MalformedField(ValueError):
    """A field line breaks RFC 9112 section 5; the text says how."""


class FieldTable:
    """Remembers field lines; one for each kind of message and set of wanted names, so that capacity is bounded per listener.

    ``wanted`` are lower-case names whose values should be at hand in :attr:`Headers.seen`; names starting with ``l5d-`` always are.
    ``taken`` are names whose lines are read and then left out, because this hop writes its own. ``passing`` holds the lines that need no
    look at all, ``noted`` the others, ``names`` what is known of field names as they were spelled; ``fleeting`` are those, each with its
    colon, whose lines merely pass but are not to be remembered. ``connects`` tells that the method CONNECT is known.
    """

    __slots__ = ("_taken", "_wanted", "connects", "fleeting", "names", "noted", "passing")

    def __init__(self, wanted: Iterable[bytes] = (), taken: Iterable[bytes] = (), *, connects: bool = False) -> None:
        self.connects = connects
        self.passing: set[bytes] = set()
        self.fleeting: set[bytes] = set()
        self.noted: dict[bytes, Note] = {}
        self.names: dict[bytes, _Name] = {}
        self._wanted = KEPT_AT_HAND | frozenset(wanted)
        self._taken = HOP_BY_HOP | frozenset(taken)

    def learn(self, line: bytes) -> Note | None:
        """Validate a line not seen before: None for one that merely passes, else its note. Raises :class:`MalformedField`."""
        raw, colon, value = line.partition(b":")
        name = self.names.get(raw)
        if name is None:
            name = self._learn_name(raw, line)
        if not colon or line.translate(None, ILLEGAL) != line:
            raise MalformedField(_complaint(line))
        if not name.is_noted:
            if name.is_remembered and len(line) <= _LONGEST_LINE:
                if len(self.passing) >= _MOST_LINES:
                    self.passing.clear()
                self.passing.add(line)
            return None
        value = value.strip(b" \t")
        if name.lower == b"content-length" and _DIGITS.match(value) is None:
            raise MalformedField(f"invalid Content-Length {value[:40].decode('latin-1')!r}")
        if name.lower == b"host" and _HOST.match(value) is None:
            raise MalformedField(f"invalid Host {value[:80].decode('latin-1')!r}")
        note = (name.lower, value, name.is_dropped)
        if name.is_remembered and len(line) <= _LONGEST_LINE:
            if len(self.noted) >= _MOST_LINES:
                self.noted.clear()
            self.noted[line] = note
        return note

    def note(self, line: bytes) -> Note | None:
        """What a line says: None when it merely passes. Raises :class:`MalformedField`."""
        return None if line in self.passing else self.noted.get(line) or self.learn(line)

    def is_remembered(self, raw: bytes) -> bool:
        """Whether lines of the field ``raw``, a name that is well-formed, may be kept: they are no secrets, and come again."""
        name = self.names.get(raw)
        return (name or self._learn_name(raw, raw)).is_remembered

    def _learn_name(self, raw: bytes, line: bytes) -> _Name:
        if _NAME.match(raw) is None:
            raise MalformedField(_complaint(line))
        lower = raw.lower()
        drop = lower in self._taken
        name = _Name(lower, drop=drop, noted=drop or lower in self._wanted or lower.startswith(b"l5d-"))
        if len(raw) <= _LONGEST_LINE:
            if len(self.names) >= _MOST_LINES:
                self.names.clear()
                self.fleeting.clear()
            self.names[raw] = name
            if not (name.is_noted or name.is_remembered):
                self.fleeting.add(raw + b":")
        return name


class _Name:
    """What is done with the lines of one field."""

    __slots__ = ("is_dropped", "is_noted", "is_remembered", "lower")

    def __init__(self, lower: bytes, *, drop: bool, noted: bool) -> None:
        self.lower, self.is_dropped, self.is_noted = lower, drop, noted
        # credentials must not outlive their request, and traces and ids never come twice
        secret = any(word in lower for word in SECRET_WORDS)
        self.is_remembered = not (secret or lower.startswith((b"l5d-ctx-", b"x-b3-")) or lower.endswith(b"-id") or lower in _TRACES)


class Headers:
    """The field lines of one message in order, without line ends; hop-by-hop fields are not among ``lines``, Content-Length is.

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


def scan(raw: list[bytes], table: FieldTable) -> dict[bytes, bytes]:
    """Sort the lines of a section: those that are left out are taken from ``raw``, what is noted is returned (:attr:`Headers.seen`).

    Raises :class:`MalformedField` for the first line in order that is.
    """
    noted = table.noted.get
    seen: dict[bytes, bytes] = {}
    fresh: list[bytes] = []  # ids, cookies and tokens, which are new each time: validated together
    dropped: list[bytes] = []
    try:
        for line in filterfalse(table.passing.__contains__, raw):  # lazily: lines learned on the way are not looked at again
            note = noted(line)
            if note is None:
                if line[: line.find(b":") + 1] in table.fleeting:
                    fresh.append(line)
                    continue
                note = table.learn(line)
                if note is None:
                    continue
            name, value, drop = note
            if name in seen:
                seen[name] = joined(name, seen[name], value)
            else:
                seen[name] = value
            if drop:
                dropped.append(line)
    except MalformedField:
        _validate(fresh, table)
        raise
    if fresh:
        _validate(fresh, table)
    if dropped:
        for line in dropped:
            raw.remove(line)
        options = seen.get(b"connection")
        if options is not None and options not in _PLAIN_OPTIONS:
            _drop_listed(raw, seen, options)
    return seen


def _validate(fresh: list[bytes], table: FieldTable) -> None:
    """Lines of known names: deleting what is illegal from all of them at once costs as much as from one."""
    text = b"".join(fresh)
    if text.translate(None, ILLEGAL) != text:
        for line in fresh:
            table.learn(line)


_PLAIN_OPTIONS = frozenset((b"keep-alive", b"close", b"Keep-Alive", b"Close"))


def joined(name: bytes, before: bytes, value: bytes) -> bytes:
    """The value of a field that is repeated. Raises :class:`MalformedField` for those that must not be."""
    if name == b"content-length" or name == b"host":
        raise MalformedField(f"repeated {name.decode('ascii')} field")
    # several dtabs are one dtab in order (linkerd-config spec 7.2); every other field is a comma-separated list
    return before + (b";" if name.endswith(b"-dtab") else b", ") + value


def _drop_listed(raw: list[bytes], seen: dict[bytes, bytes], options: bytes) -> None:
    """Fields named in Connection are meant for this hop only (RFC 9110 section 7.6.1); end-to-end ones can't be removed that way."""
    headers = Headers(raw, seen)
    for option in options.lower().split(b","):
        name = option.strip(b" \t")
        if name and name not in (b"close", b"keep-alive", b"host", b"content-length") and name not in HOP_BY_HOP:
            headers.remove(name)
    raw[:] = headers.lines


def _complaint(line: bytes) -> str:
    if line[:1] in (b" ", b"\t"):
        return "obsolete line folding"
    shown = line.partition(b":")[0][:60].decode("latin-1")  # values may be credentials
    if b"\n" in line or b"\r" in line:
        return f"bare CR or LF at {shown!r}"
    name, colon, _ = line.partition(b":")
    if not colon:
        return f"field line without colon at {shown!r}"
    if name[-1:] in (b" ", b"\t"):
        return f"white space before the colon at {shown!r}"
    return f"invalid character in field line at {shown!r}"
