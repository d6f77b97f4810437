"""Which watched things fail at present and for what reason, so that the log has a line for an outage and not for each of a thousand names.

An outage is a kind of trouble (:attr:`meshgw.errors.BackendError.outage`) with those who have it; it ends when the last of them recovers.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable

import attrs


class News(enum.Enum):
    """What a failure means to somebody who reads the log."""

    OUTAGE = "the first that has this trouble"
    MEMBER = "another one that has it"
    NOTHING = "it has had it since its last good answer"


@attrs.define
class _Outage:
    since: float
    members: set[Hashable] = attrs.field(factory=set)


class Outages:
    """The outages of one backend. ``seconds`` is the clock."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._outages: dict[str, _Outage] = {}
        self._kinds: dict[Hashable, set[str]] = {}

    def failed(self, member: Hashable, kind: str) -> News:
        """``member`` has this kind of trouble."""
        kinds = self._kinds.setdefault(member, set())
        if kind in kinds:
            return News.NOTHING
        kinds.add(kind)
        outage = self._outages.get(kind)
        if outage is None:
            self._outages[kind] = _Outage(self._seconds(), {member})
            return News.OUTAGE
        outage.members.add(member)
        return News.MEMBER

    def recovered(self, member: Hashable) -> float | None:
        """It is well again, or nobody cares any more: for how many seconds what ended with it had lasted; None if nothing did."""
        ended = []
        for kind in self._kinds.pop(member, ()):
            outage = self._outages[kind]
            outage.members.discard(member)
            if not outage.members:
                ended.append(outage.since)
                del self._outages[kind]
        return self._seconds() - min(ended) if ended else None

    def clear(self) -> None:
        """Forget all."""
        self._outages.clear()
        self._kinds.clear()
