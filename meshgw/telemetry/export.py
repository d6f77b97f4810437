"""What all exporters of metrics share: how the path of a metric in the tree becomes a name with labels, and the figures of a histogram.

Source: linkerd-config spec 9.1 (labels) and 2.4 (figures). Beyond it, what carries the id of a namer, announcer, telemeter, transformer or
interpreter has that as a label too; its name is what Linkerd gives it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

import attrs

from meshgw.telemetry.histogram import QUANTILES, Summary, Window, summary
from meshgw.telemetry.metrics import Names

HISTOGRAMS_AT_ONCE = 20
"""So many are summed up before others get their turn; each takes up to 10 µs."""

T = TypeVar("T")
Number = int | float
Labels = tuple[tuple[str, str], ...]

_FOREIGN = re.compile(r"[^a-zA-Z0-9:]")
_ROUTER_PARTS = ("service", "client", "server")
_TOP_IDS = {"namer": "namer", "announcer": "announcer", "telemetry": "telemeter"}
_ROUTER_IDS = ("transformer", "interpreter")


@attrs.frozen
class Series:
    """A metric as exporters name it: the parts of its name, and labels in the order of the path."""

    parts: Names
    labels: Labels


def series(names: Names, *, exceptions: bool) -> Series:
    """How the metric at ``names`` is called; with ``exceptions`` those directly below service, client or server become a label too."""
    if names[0] == "rt" and len(names) >= 2:
        return _of_router(names, exceptions)
    if names[0] in _TOP_IDS and len(names) > 2:
        return Series(names, ((_TOP_IDS[names[0]], names[1]), *_ids(names[2:])))
    return Series(names, ())


def _of_router(names: Names, exceptions: bool) -> Series:
    labels: list[tuple[str, str]] = [("rt", names[1])]
    rest = names[2:]
    if len(rest) < 2 or rest[0] not in _ROUTER_PARTS:
        return Series(("rt", *rest), (*labels, *_ids(rest)))
    part = rest[0]
    labels.append((part, rest[1]))
    name, rest = ["rt", part], rest[2:]
    if part == "client" and len(rest) >= 2 and rest[0] == "service":
        name.append("service")
        labels.append(("service", rest[1]))
        rest = rest[2:]
    elif exceptions and len(rest) >= 2 and rest[0] in ("failures", "exn"):  # the rule holds only directly below service, client, server
        labels.append(("exception", ":".join(rest[1:])))
        rest = ("failures",) if rest[0] == "failures" else ("exceptions",)
    return Series((*name, *rest), tuple(labels))


def _ids(rest: Names) -> Labels:
    return ((rest[0], rest[1]),) if len(rest) > 2 and rest[0] in _ROUTER_IDS else ()


def joined_name(parts: Names) -> str:
    """The parts joined by ``:``, all that is no letter, digit or ``:`` replaced."""
    return ":".join([escaped_name(part) for part in parts])


def escaped_name(name: str) -> str:
    """``name`` with an underscore for every character that has no place in one."""
    return _FOREIGN.sub("_", name)


def figures(found: Summary | None) -> list[tuple[str, Number]]:
    """What is told of a histogram, by the words of ``metrics.json``; without a value only that there was none."""
    if found is None:
        return [("count", 0)]
    return [
        ("count", found.count),
        ("max", found.most),
        ("min", found.least),
        *((name, value) for (_, name), value in zip(QUANTILES, found.quantiles, strict=True)),
        ("sum", rounded(found.total)),
        ("avg", found.average),
    ]


def rounded(total: float) -> float:
    """A sum of many fractions, without the digits at its end that mean nothing."""
    return round(total, 6)


class Kept(Generic[T]):
    """What was worked out for each metric and holds for the next export too, since names do not change. Those that are gone are let go.

    Working out a name costs some 5 µs, reading it here a tenth of that.
    """

    def __init__(self) -> None:
        self._last: dict[Names, T] = {}
        self._now: dict[Names, T] = {}

    def get(self, names: Names) -> T | None:
        """What was kept."""
        found = self._last.get(names)
        if found is not None:
            self._now[names] = found
        return found

    def keep(self, names: Names, value: T) -> T:
        """Keep ``value`` for the next export; it is returned."""
        self._now[names] = value
        return value

    def turn(self) -> None:
        """The export is complete: what was not used in it is forgotten."""
        self._last, self._now = self._now, {}


class Summaries:
    """The summaries of windows, worked out once for each: a window stays the same for a minute."""

    def __init__(self) -> None:
        self._kept: Kept[tuple[Window, Summary | None]] = Kept()

    def of(self, windows: Mapping[Names, Window]) -> Iterator[tuple[Names, Summary | None]]:
        """The summary of each window."""
        for names, window in windows.items():
            known = self._kept.get(names)
            if known is None or known[0] != window:
                known = self._kept.keep(names, (window, summary(window)))
            yield names, known[1]
        self._kept.turn()
