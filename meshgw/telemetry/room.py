"""How many nodes a tree of metrics may have, in all and below single scopes, and that somebody is told when there are too many.

Source: linkerd-config spec 9.9 gives no bound; one is needed since callers and servers choose some of the names. The bounds nest: what
one scope may have keeps a flood of its names from taking the room of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol
from weakref import WeakSet

from meshgw.core.logger import make_logger

MOST_TOLD = 8
"""Scopes that one line of the log names."""
_log = make_logger()


class Account(Protocol):
    """Counts for several metrics at once, which take it over when they are read."""

    def settle(self) -> None:
        """Hand over what was counted since the last time."""
        ...


class Ledger:
    """What a whole tree has in common: who counts for some of its metrics, what was left out of it, and what could not be read."""

    __slots__ = ("_is_told", "_untold", "accounts", "broken", "dropped")

    def __init__(self) -> None:
        self.accounts: WeakSet[Account] = WeakSet()
        self.dropped = 0
        """Metrics that were not exported, or counted under a coarser name, for lack of room."""
        self.broken = 0
        """Gauges that could not be read."""
        self._is_told = False
        self._untold: dict[str, None] = {}

    def settle(self) -> None:
        """Let all accounts hand over."""
        for account in list(self.accounts):
            account.settle()

    def drop(self, scope: str) -> None:
        """There is no room for a metric of ``scope``: the first time is told at once, further ones at the end of the interval."""
        self.dropped += 1
        if not self._is_told:
            self._is_told = True
            self._tell(scope)
        elif len(self._untold) < MOST_TOLD:
            self._untold[scope] = None

    def end_interval(self) -> None:
        """Tell what was dropped since the last time somebody was told."""
        untold, self._untold = self._untold, {}
        self._is_told = bool(untold)
        if untold:
            self._tell(", ".join(untold))

    def _tell(self, scopes: str) -> None:
        _log.warn(
            "no room for more metrics in {scopes}: new ones there are not exported, or count under a coarser name; {dropped} so far",
            scopes=scopes,
            dropped=self.dropped,
        )


class Room:
    """What may still be added to a tree, or to the part of it below one scope, for which ``above`` is the room around it."""

    __slots__ = ("above", "ledger", "left", "limit")

    def __init__(self, limit: int, ledger: Ledger, above: Room | None = None) -> None:
        self.limit = self.left = limit
        self.ledger, self.above = ledger, above

    @property
    def used(self) -> int:
        """Nodes in it."""
        return self.limit - self.left

    def _all(self) -> Iterator[Room]:
        room: Room | None = self
        while room is not None:
            yield room
            room = room.above

    def take(self) -> bool:
        """Take a place for one node here and in the rooms around; False when one of them is full."""
        if any(room.left <= 0 for room in self._all()):
            return False
        for room in self._all():
            room.left -= 1
        return True

    def give(self) -> None:
        """Give one back."""
        for room in self._all():
            room.left += 1
