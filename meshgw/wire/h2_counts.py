"""What a connection counts of its frames, and the counts of those that nobody looks at."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Protocol


class FrameCounts(Protocol):
    """Counts for any number of connections: ``sent`` and ``received`` have how many DATA frames there were of each size."""

    trailers_sent: int
    trailers_received: int
    resets_sent: int
    resets_received: int

    @property
    def sent(self) -> MutableMapping[int, int]:
        """DATA frames that were sent, by their size."""
        ...

    @property
    def received(self) -> MutableMapping[int, int]:
        """DATA frames that came, by their size."""
        ...


class _Forgetful(dict[int, int]):
    """Keeps nothing."""

    def __missing__(self, size: int) -> int:
        return 0

    def __setitem__(self, size: int, count: int) -> None:
        pass


class Uncounted:
    """For connections whose frames nobody counts."""

    def __init__(self) -> None:
        self.trailers_sent = self.trailers_received = self.resets_sent = self.resets_received = 0
        self.sent = self.received = _Forgetful()
