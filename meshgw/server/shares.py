"""Even shares of connections for processes that accept from the same socket.

The system wakes all of them for each connection, and the quickest takes it, which on an idle machine is often the same one. Each process
writes how many connections it has into memory that all of them see; one that is well ahead leaves a new connection to the others.
"""

from __future__ import annotations

import mmap
import os
import struct

SLOT = struct.Struct("=q")
_ABSENT = 0
SLACK = 1
"""Connections that a process may have more than another, besides an eighth: waiting for the other costs something too."""


class Shares:
    """The table of counts, one slot for each process. The master makes it, workers map the same memory."""

    def __init__(self, fd: int, slots: int, own: int | None = None) -> None:
        """``fd`` comes from :func:`make_shares`; ``own`` is the slot of this process, if it has one."""
        self._memory = mmap.mmap(fd, slots * SLOT.size)
        self._slots, self._own = slots, own
        self._count = 0
        self.is_enough = slots > 1
        """Whether there is anybody to share with."""

    def enter(self) -> None:
        """This process accepts from now on."""
        self._write(self._own, self._count + 1)

    def leave(self, slot: int | None = None) -> None:
        """This process, or the one that had ``slot``, accepts no more."""
        self._write(self._own if slot is None else slot, _ABSENT)
        if slot is None:
            self._own = None

    def add(self, by: int) -> None:
        """This process has ``by`` more connections, or fewer."""
        self._count += by
        self._write(self._own, self._count + 1)

    def is_ahead(self) -> bool:
        """Whether another process has clearly fewer connections than this one."""
        least = None
        for slot in range(self._slots):
            if slot != self._own:
                count = int(SLOT.unpack_from(self._memory, slot * SLOT.size)[0])
                if count != _ABSENT and (least is None or count < least):
                    least = count
        return least is not None and self._count + 1 > least + SLACK + (least >> 3)

    def close(self) -> None:
        """Give the memory back; nothing may be called after."""
        self._memory.close()

    def _write(self, slot: int | None, value: int) -> None:
        if slot is not None:
            SLOT.pack_into(self._memory, slot * SLOT.size, value)


def make_shares(slots: int) -> int:
    """A descriptor of memory for ``slots`` processes, to be inherited by them."""
    fd = os.memfd_create("meshgw-shares")
    os.ftruncate(fd, slots * SLOT.size)
    return fd
