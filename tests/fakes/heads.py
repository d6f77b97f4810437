"""Header sections and heads as the protocols read them, for tests that begin with lines."""

from __future__ import annotations

from collections.abc import Iterable

from meshgw.core.exchange import Exchange
from meshgw.wire.headers import FieldTable, Headers, scan
from meshgw.wire.http1 import read_request


def section(lines: Iterable[bytes], table: FieldTable | None = None) -> Headers:
    """The section made of these lines; what hop-by-hop lines are left out is the table's business."""
    raw = list(lines)
    seen = scan(raw, FieldTable() if table is None else table)
    return Headers(raw, seen)


def request(block: bytes, table: FieldTable | None = None) -> Exchange:
    """An exchange whose request head is ``block``."""
    ex = Exchange()
    read_request(block, FieldTable() if table is None else table, ex)
    return ex
