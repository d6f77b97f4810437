"""YAML or JSON text → nodes that remember where they stand.

Source: linkerd-config spec 1.2. Text whose first non-blank character is ``{`` is JSON, anything else YAML; there is one document.
Scalars stay text: what they mean is decided by the type that is wanted, so that ``label: 8080`` and ``port: "4140"`` can be told
apart or treated alike as the spec says. Depth, size and the growth by aliases are bounded; an alias may not hold itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

import attrs
import yaml

from meshgw.config.problems import UnreadableText

MAX_CHARACTERS: Final = 4_000_000
MAX_NODES: Final = 200_000
MAX_DEPTH: Final = 64

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_KNOWN_TAGS: Final = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_STR_TAG: Final = "tag:yaml.org,2002:str"


@attrs.frozen(eq=False, kw_only=True)
class Node:
    """A part of the document: ``start`` and ``end`` are offsets in the text, ``size`` counts nodes with aliases expanded."""

    start: int
    end: int
    size: int = 1


@attrs.frozen(eq=False, kw_only=True)
class Scalar(Node):
    """A single value; ``plain`` means written without quotes."""

    text: str
    plain: bool

    @property
    def is_null(self) -> bool:
        """Whether it stands for an absent value."""
        return self.plain and self.text in _NULL


@attrs.frozen(eq=False, kw_only=True)
class Items(Node):
    """A list."""

    items: tuple[Node, ...]


@attrs.frozen(eq=False, kw_only=True)
class Block(Node):
    """An object; keys may repeat here, which the loader reports."""

    entries: tuple[tuple[Scalar, Node], ...]


def read_nodes(text: str) -> Node | None:
    """The document's root node, or None if it is empty. Raises :class:`UnreadableText`."""
    if len(text) > MAX_CHARACTERS:
        raise UnreadableText(f"the text is longer than {MAX_CHARACTERS} characters", 0)
    if text.lstrip()[:1] == "{":
        return _JsonReader(text).read()
    try:
        return _YamlReader(text).read()
    except yaml.reader.ReaderError as error:
        raise UnreadableText(f"the character U+{ord(text[error.position]):04X} is not allowed", error.position) from error
    except yaml.MarkedYAMLError as error:
        raise _yaml_error(text, error) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, UnreadableText):
            raise
        raise UnreadableText(f"not valid YAML: {error}", 0) from error  # PyYAML lets some escapes fail as ValueError


def _yaml_error(text: str, error: yaml.MarkedYAMLError) -> UnreadableText:
    mark = error.problem_mark or error.context_mark
    index = mark.index if mark is not None else 0
    if "'\\t'" in (error.problem or "") or text[index : index + 1] == "\t":
        return UnreadableText("a tab cannot be used for indentation", index, "use spaces")
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return UnreadableText(f"not valid YAML: {said}", index)


def _start(event: yaml.Event) -> int:
    return event.start_mark.index if event.start_mark is not None else 0


class _YamlReader:
    """Builds nodes from PyYAML's events; its own composer neither bounds depth nor keeps repeated keys apart."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._anchors: dict[str, Node] = {}

    def read(self) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise UnreadableText("a second document begins here; only one is allowed", _start(event))
                root = self._node(next(self._events), 0)
        return root

    def _node(self, event: yaml.Event, depth: int) -> Node:
        start = _start(event)
        if depth > MAX_DEPTH:
            raise UnreadableText(f"nested more than {MAX_DEPTH} levels deep", start)
        if isinstance(event, yaml.AliasEvent):
            node = self._anchors.get(event.anchor or "")
            if node is None:
                raise UnreadableText(f"alias {event.anchor!r} names no anchor before it, or its own parent", start)
            return node
        tag = getattr(event, "tag", None)
        if tag not in (None, "!") and tag not in _KNOWN_TAGS:
            raise UnreadableText(f"tag {tag!r} is not supported", start)
        node = self._collected(event, depth)
        if node.size > MAX_NODES:
            raise UnreadableText(f"more than {MAX_NODES} values, counting repeated aliases", start)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _collected(self, event: yaml.Event, depth: int) -> Node:
        start, end = _start(event), event.end_mark.index if event.end_mark is not None else 0
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(start=start, end=end, text=event.value, plain=event.implicit[0] and event.tag != _STR_TAG)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(following := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(following, depth + 1))
            return Items(start=start, end=end, size=1 + sum(item.size for item in items), items=tuple(items))
        entries: list[tuple[Scalar, Node]] = []
        while not isinstance(following := next(self._events), yaml.MappingEndEvent):
            key = self._node(following, depth + 1)
            if not isinstance(key, Scalar):
                raise UnreadableText("a key must be a single word", _start(following))
            entries.append((key, self._node(next(self._events), depth + 1)))
        return Block(start=start, end=end, size=1 + sum(value.size for _, value in entries), entries=tuple(entries))


_BLANK: Final = re.compile(r"[ \t\r\n]*")
_JSON: Final = json.JSONDecoder()
_LITERAL: Final = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class _JsonReader:
    """A JSON reader that keeps offsets, which the standard library's does not; strings are read by the standard library."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._nodes = 0

    def read(self) -> Node:
        root = self._value(0)
        if self._next() != "":
            raise self._error("nothing more after the closing brace")
        return root

    def _next(self) -> str:
        found = _BLANK.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._text[self._at : self._at + 1]

    def _error(self, expected: str) -> UnreadableText:
        char = self._text[self._at : self._at + 1]
        found = repr(char) if char else "the end of the text"
        return UnreadableText(f"not valid JSON: expected {expected}, found {found}", self._at)

    def _value(self, depth: int) -> Node:
        char, start = self._next(), self._at
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise UnreadableText(f"nested more than {MAX_DEPTH} levels deep, or more than {MAX_NODES} values", start)
        if char == "{":
            return self._block(start, depth)
        if char == "[":
            return self._items(start, depth)
        if char == '"':
            return self._string()
        literal = _LITERAL.match(self._text, start)
        if literal is None:
            raise self._error("a value")
        self._at = literal.end()
        return Scalar(start=start, end=self._at, text=literal[0], plain=True)

    def _string(self) -> Scalar:
        start = self._at
        try:
            value, self._at = _JSON.raw_decode(self._text, start)
        except json.JSONDecodeError as error:
            said = error.msg.removesuffix(" at").removesuffix(" starting").lower()  # the position is told with it
            raise UnreadableText(f"not valid JSON: {said}", error.pos) from error
        return Scalar(start=start, end=self._at, text=value, plain=False)

    def _items(self, start: int, depth: int) -> Items:
        items: list[Node] = []
        self._at += 1
        if self._next() != "]":
            items.append(self._value(depth + 1))
            while self._separated("]"):
                items.append(self._value(depth + 1))
        self._at += 1
        return Items(start=start, end=self._at, size=1 + sum(item.size for item in items), items=tuple(items))

    def _block(self, start: int, depth: int) -> Block:
        entries: list[tuple[Scalar, Node]] = []
        self._at += 1
        if self._next() != "}":
            entries.append(self._entry(depth))
            while self._separated("}"):
                entries.append(self._entry(depth))
        self._at += 1
        return Block(start=start, end=self._at, size=1 + sum(value.size for _, value in entries), entries=tuple(entries))

    def _entry(self, depth: int) -> tuple[Scalar, Node]:
        if self._next() != '"':
            raise self._error("a name in double quotes")
        key = self._string()
        if self._next() != ":":
            raise self._error("':'")
        self._at += 1
        return key, self._value(depth + 1)

    def _separated(self, closing: str) -> bool:
        char = self._next()
        if char == ",":
            self._at += 1
            return True
        if char != closing:
            raise self._error(f"',' or {closing!r}")
        return False


def locate(text: str, scalar: Scalar, offset: int) -> int | None:
    """The offset in the document of character ``offset`` of a scalar, or None where escapes make it untellable.

    Line folding and indentation only change white space, so the place is found by counting the other characters.
    """
    source = text[scalar.start : scalar.end]
    skipped = 0
    if source[:1] in ("|", ">"):
        skipped = source.find("\n") + 1
    elif source[:1] in ("'", '"') and not scalar.plain:
        skipped, source = 1, source[:-1]
    body = source[skipped:]
    if "".join(body.split()) != "".join(scalar.text.split()):
        return None
    wanted = len("".join(scalar.text[:offset].split()))
    if offset >= len(scalar.text.rstrip()):
        return scalar.start + skipped + len(body.rstrip())
    for index, char in enumerate(body):
        if char.isspace():
            continue
        if wanted == 0:
            return scalar.start + skipped + index
        wanted -= 1
    return None
