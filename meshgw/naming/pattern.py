"""``PathMatcher``: patterns over the beginning of a path, with captures, and the substitution of what was captured.

Source: linkerd-config spec 4.8. A segment is a literal, ``*`` for any label, or text with ``{name}`` captures. Captures take as
much as they can, from left to right, and are searched for within the label, not anchored to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from meshgw.naming.path import Path
from meshgw.naming.text import show_label

# ``:-_`` is a range on purpose: Linkerd's expression has it, and names such as {a@b} are in use because of it.
_CAPTURE = re.compile(r"\{([A-Za-z0-9.\-:-_]+)\}")


@attrs.frozen
class _Segment:
    """``literals[0] {names[0]} literals[1] {names[1]} ...``; no names: the literal is compared, or any label if it is ``*``."""

    literals: tuple[str, ...]
    names: tuple[str, ...]

    def match(self, label: bytes, captures: dict[str, str]) -> bool:
        text = label.decode("utf-8", "surrogateescape")
        if not self.names:
            return self.literals[0] in ("*", text)
        # Same answer as searching ``L0(.*)L1(.*)...``, but linear: a label is the caller's choice, and backtracking over
        # several captures would let a long one occupy the process.
        end, spans = len(text), []
        for literal in reversed(self.literals[1:]):
            position = text.rfind(literal, 0, end)
            if position < 0:
                return False
            spans.append((position, position + len(literal)))
            end = position
        start = text.find(self.literals[0])
        if start < 0 or start + len(self.literals[0]) > end:
            return False
        begin = start + len(self.literals[0])
        for name, (stop, after) in zip(self.names, reversed(spans), strict=True):
            captures[name] = text[begin:stop]
            begin = after
        return True


@attrs.frozen
class PathMatcher:
    """A pattern; it matches a path that begins with labels its segments match."""

    text: str
    segments: tuple[_Segment, ...]

    @classmethod
    def read(cls, text: str) -> PathMatcher:
        """Parse a pattern; every text is one. Leading and trailing slashes are ignored."""
        parts = text.strip("/").split("/") if text.strip("/") else []
        return cls(text, tuple(_read_segment(part) for part in parts))

    def match(self, path: Path) -> dict[str, str] | None:
        """What was captured, or ``None`` if the path does not begin as the pattern says."""
        if len(path) < len(self.segments):
            return None
        captures: dict[str, str] = {}
        for segment, label in zip(self.segments, path, strict=False):
            if not segment.match(label, captures):
                return None
        return captures

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the captures in the order they are written."""
        return tuple(name for segment in self.segments for name in segment.names)

    def __str__(self) -> str:
        return self.text


def _read_segment(part: str) -> _Segment:
    pieces = _CAPTURE.split(part)  # literal, name, literal, name, ..., literal
    return _Segment(tuple(pieces[::2]), tuple(pieces[1::2]))


def substitute(template: str, captures: Mapping[str, str]) -> str:
    """``template`` with each ``{name}`` that was captured replaced; unknown names stay as they are."""
    return _CAPTURE.sub(lambda found: captures.get(found.group(1), found.group()), template)


def substitute_path(template: str, captures: Mapping[str, str]) -> Path:
    """The path ``template`` with captures replaced, whatever bytes they hold.

    Raises :class:`~meshgw.naming.text.NameSyntaxError` if the outcome is no path: an unknown or an empty capture in it.
    """
    escaped = {name: show_label(value.encode("utf-8", "surrogateescape")) for name, value in captures.items()}
    return Path.read(substitute(template, escaped))
