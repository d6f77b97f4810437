"""A reactor whose time and readers are moved by hand."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from meshgw.core.files import SETTLE_SECONDS


class PumpedReactor(Clock):
    """A clock with readers that are read by hand: inotify queues its events before the system call that caused them returns."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def turn(self) -> None:
        """Let what happened in the file system be seen."""
        for reader in list(self.readers):
            reader.doRead()
        self.advance(SETTLE_SECONDS)
