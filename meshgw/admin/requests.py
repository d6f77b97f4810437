"""``/requests.json``: the latest traced requests, as they are or those of them that are asked for.

Source: linkerd-config spec 9.5, whose page ``/requests`` is made of the same data; the filters are our own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from meshgw.admin.api import JSON, Answer, GatewayView, Query
from meshgw.core.slices import Slices, collected

HOW: Final = (
    "requests are not kept; to see the latest here, add to the configuration:\n\n"
    "telemetry:\n- kind: io.l5d.recentRequests\n  sampleRate: 1.0\n  capacity: 100\n"
)
_STATUS: Final = re.compile(r"[1-5]xx|[1-5][0-9]{2}")
_TRUE, _FALSE = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})

Row = Mapping[str, Any]
Wanted = Callable[[Row], bool]


class BadFilter(ValueError):
    """A parameter that cannot be understood; the text says which and why."""


class RequestsView:
    """``/requests.json``: a JSON array, the newest request first."""

    def __init__(self, view: GatewayView, reactor: IReactorTime) -> None:
        self._view, self._slices = view, Slices(reactor)

    async def __call__(self, query: Query) -> Answer:
        """At most ``limit`` rows that pass every filter: ``router``, ``service``, ``client``, ``status``, ``failed``, ``text``."""
        try:
            wanted, limit = _filters(query), _limit(query)
        except BadFilter as error:
            return Answer(f"{error}\n", status=400)
        rows = await self._view.recent_requests()
        if rows is None:
            return Answer(HOW, status=404)
        return Answer(await self._slices.run(collected(_pieces(rows, wanted, limit))), JSON)


def _pieces(rows: Iterable[Row], wanted: Sequence[Wanted], limit: int | None) -> Iterator[bytes]:
    """The array, row by row, as there may be thousands; a row that is not wanted is an empty piece, as looking at it takes time, too."""
    separator, left = b"[", math.inf if limit is None else limit
    for row in rows:
        if left < 1:
            break
        if not all(passes(row) for passes in wanted):
            yield b""
            continue
        yield separator + json.dumps(row).encode()
        separator, left = b",\n", left - 1
    yield b"]" if separator != b"[" else b"[]"


def _limit(query: Query) -> int | None:
    text = query.first("limit")
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise BadFilter(f"limit: expected a number, not {text[:40]!r}")
    return int(text)


def _filters(query: Query) -> list[Wanted]:
    found: list[Wanted] = []
    for name, column in (("router", "router"), ("service", "logical_name"), ("client", "concrete_name")):
        value = query.first(name)
        if value:
            found.append(_equals(column, value))
    status, failed, text = query.first("status"), query.first("failed"), query.first("text")
    if status:
        found.append(_has_status(status.lower()))
    if failed:
        found.append(_has_failed(failed.lower()))
    if text:
        found.append(_mentions(text.casefold()))
    return found


def _equals(column: str, value: str) -> Wanted:
    return lambda row: bool(row[column] == value)


def _has_status(status: str) -> Wanted:
    """``404`` or ``5xx``."""
    if not _STATUS.fullmatch(status):
        raise BadFilter(f"status: expected a status such as 404, or a class such as 5xx, not {status[:40]!r}")
    start = status.removesuffix("xx")
    return lambda row: str(row["status"] or "").startswith(start)


def _has_failed(word: str) -> Wanted:
    if word not in _TRUE | _FALSE:
        raise BadFilter(f"failed: expected true or false, not {word[:40]!r}")
    wanted = word in _TRUE
    return lambda row: bool(row["failed"]) is wanted


def _mentions(text: str) -> Wanted:
    """Whether any column has the text in it, whatever its case."""
    return lambda row: any(text in str(value).casefold() for value in row.values() if value is not None)
