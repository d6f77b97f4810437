"""``metrics.json``: all metrics as one object, flat or nested.

Source: linkerd-config spec 2.4. It is written piece by piece, each the work of a fraction of a millisecond (see ``core.slices``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from heapq import merge
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, ClassVar

import attrs

from meshgw.core.slices import batched
from meshgw.errors import MeshError
from meshgw.telemetry.export import HISTOGRAMS_AT_ONCE, Number, Summaries, figures
from meshgw.telemetry.metrics import Names, Snapshot

NOTHING_YET = b""
"""A piece that gives the reactor its turn."""
_Node = dict[str, Any]
"""Names to nodes, and the words of figures to numbers."""


@attrs.frozen
class NoSuchSubtree(MeshError):
    """The ``q`` parameter names nothing in the metrics tree."""

    subtree: str
    phase: ClassVar[str] = "admin"
    status: ClassVar[int] = 404

    def __str__(self) -> str:
        return f"No such subtree: {self.subtree}"


class MetricsJson:
    """Writes snapshots."""

    def __init__(self) -> None:
        self._summaries, self._partial = Summaries(), Summaries()  # apart, since each forgets what it is not asked for

    def pieces(self, snapshot: Snapshot, *, tree: bool = False, pretty: bool = False, subtree: str = "") -> Iterator[bytes]:
        """The text: all metrics, or those below ``subtree`` with names relative to it. Raises :class:`NoSuchSubtree`."""
        wanted = subtree.strip("/")
        lots = _lots(snapshot, self._partial if wanted else self._summaries)
        if wanted:
            lots = _below(lots, wanted)
        return _tree(lots, pretty) if tree else _flat(lots, pretty)


_Value = tuple[Names, list[tuple[str, Number]]]
"""The names of a metric and its figures."""


def _lots(snapshot: Snapshot, summaries: Summaries) -> Iterator[list[_Value]]:
    for counters in batched(snapshot.counters.items()):
        yield [(names, [("counter", count)]) for names, count in counters]
    for gauges in batched(snapshot.gauges.items()):
        # JSON has no way to write the others
        yield [(names, [("gauge", float(value))]) for names, value in gauges if math.isfinite(value)]
    for found in batched(summaries.of(snapshot.histograms), HISTOGRAMS_AT_ONCE):
        yield [(names, figures(each)) for names, each in found]


def _below(lots: Iterator[list[_Value]], wanted: str) -> Iterator[list[_Value]]:
    """What lies under the node whose joined path is ``wanted``, so that names with a ``/`` in them can be addressed as well."""
    is_there = False
    for lot in lots:
        kept = [(names[depth:], found) for names, found in lot if (depth := _depth(names, wanted))]
        is_there = is_there or bool(kept)
        yield kept
    if not is_there:
        raise NoSuchSubtree(wanted)


def _depth(names: Names, wanted: str) -> int:
    """How many of the names make up the path ``wanted``; 0 if it does not lead to them."""
    reached = -1
    if "/".join(names).startswith(wanted):
        for index, name in enumerate(names):
            reached += 1 + len(name)
            if reached >= len(wanted):
                return index + 1 if reached == len(wanted) else 0
    return 0


def _flat(lots: Iterator[list[_Value]], pretty: bool) -> Iterator[bytes]:
    colon = ": " if pretty else ":"
    lines: Iterator[list[str]] = (_flat_lines(lot, colon) for lot in lots)
    if pretty:
        ordered = []
        for lot in lines:
            ordered.append(sorted(lot))
            yield NOTHING_YET
        lines = batched(merge(*ordered))
    comma, before, after = (",\n  ", "{\n  ", "\n}") if pretty else (",", "{", "}")
    is_first = True
    for lot in lines:
        if lot:
            yield ((before if is_first else comma) + comma.join(lot)).encode()
            is_first = False
        else:
            yield NOTHING_YET
    yield b"{}" if is_first else after.encode()


def _flat_lines(lot: list[_Value], colon: str) -> list[str]:
    lines = []
    for names, found in lot:
        name = "/".join(names)
        if found[0][0] in ("counter", "gauge"):
            lines.append(f"{quoted(name)}{colon}{found[0][1]!r}")
        else:
            lines += [f"{quoted(f'{name}.{figure}')}{colon}{value!r}" for figure, value in found]
    return lines


def _tree(lots: Iterator[list[_Value]], pretty: bool) -> Iterator[bytes]:
    root: _Node = {}
    for lot in lots:
        for names, found in lot:
            node = root
            for name in names:
                child = node.get(name)
                if not isinstance(child, dict):  # a name that is also the word of a figure wins over that
                    child = node[name] = {}
                node = child
            for figure, value in found:
                node.setdefault(figure if figure in ("counter", "gauge") else f"stat.{figure}", value)
        yield NOTHING_YET
    for lines in batched(_written(root, pretty), 200):
        yield "".join(lines).encode()


def _written(root: _Node, pretty: bool) -> Iterator[str]:
    """The nested object, without recursion: a path may be as long as a name that somebody sends has segments."""
    colon = ": " if pretty else ":"
    open_nodes = [(root, _items(root, pretty))]
    yield "{"
    is_first = True
    while open_nodes:
        indent = "\n" + "  " * len(open_nodes) if pretty else ""
        found = next(open_nodes[-1][1], None)
        if found is None:
            open_nodes.pop()[0].clear()  # letting go of all nodes at the end would take milliseconds at once
            yield ("}" if is_first else f"{indent[:-2]}" + "}")
            is_first = False
            continue
        name, value = found
        start = f"{'' if is_first else ','}{indent}{quoted(name)}{colon}"
        if isinstance(value, dict):
            yield start + "{"
            open_nodes.append((value, _items(value, pretty)))
            is_first = True
        else:
            yield f"{start}{value!r}"
            is_first = False


def _items(node: Mapping[str, Any], pretty: bool) -> Iterator[tuple[str, Any]]:
    return iter(sorted(node.items(), key=lambda item: item[0])) if pretty else iter(node.items())
