"""Who may keep a question open at a backend: long polls and watches hold a connection each, and names come from callers.

Connections are limited on both sides: Consul grants an address 200 by default (``limits.http_max_conns_per_client``), and a process has
a limit of open files, without any of which it accepts no caller. Whoever has no turn asks now and then instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """``most`` turns at a time, of those a quarter for what does not exist: names that lead nowhere must not take them all."""

    def __init__(self, most: int) -> None:
        self._most, self._most_absent = most, max(1, most // 4)
        self.taken = self._absent = 0

    @contextmanager
    def turn(self, *, is_absent: bool) -> Iterator[bool]:
        """Whether there is one, held until the block ends."""
        if self.taken >= self._most or (is_absent and self._absent >= self._most_absent):
            yield False
            return
        self.taken += 1
        self._absent += is_absent
        try:
            yield True
        finally:
            self.taken -= 1
            self._absent -= is_absent
