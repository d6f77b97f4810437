"""Linux inotify as a read descriptor of the reactor: which directory changed, under which name.

Source: inotify(7). ``twisted.internet.inotify`` is not used because it closes itself when any watched directory is deleted, closes
its descriptor number twice when two are deleted in one burst, and drops the kernel's notice that events were lost. This module
knows nothing of files or trees; ``core.files`` decides what to watch.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
ONLYDIR: Final = 0x0100_0000
LOST: Final = DELETE_SELF | MOVE_SELF | UNMOUNT | OVERFLOW | IGNORED

_HEAD: Final = struct.Struct("=iIII")
_READ_SIZE: Final = 65536  # some thousand events; the kernel's queue holds 16384 by default

OnEvent = Callable[[bytes, bytes, int], None]
"""Called with the watched directory, the name in it (empty for the directory itself) and the event mask."""


@implementer(IReadDescriptor)
class Inotify:
    """One inotify instance. Raises ``OSError`` from the constructor and from :meth:`add` when the system has none to give."""

    def __init__(self, reactor: IReactorFDSet, on_event: OnEvent) -> None:
        self._reactor, self._on_event = reactor, on_event
        self._libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except AttributeError:
            raise OSError(errno.ENOSYS, "this system has no inotify") from None
        if self._fd < 0:
            raise _last_error("inotify_init1")
        self._paths: dict[int, bytes] = {}
        self._reading = False

    def add(self, directory: bytes, mask: int) -> None:
        """Watch ``directory`` for the events of ``mask``; its own removal is always reported."""
        watch = self._libc.inotify_add_watch(self._fd, directory, mask | DELETE_SELF | MOVE_SELF | ONLYDIR)
        if watch < 0:
            raise _last_error(os.fsdecode(directory))
        self._paths[watch] = directory

    def start(self) -> None:
        """Begin to read events in the reactor."""
        self._reactor.addReader(self)
        self._reading = True

    def close(self) -> None:
        """Stop reading and give the descriptor back; may be called twice."""
        if self._reading:
            self._reactor.removeReader(self)
            self._reading = False
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def fileno(self) -> int:
        """The descriptor, -1 once closed."""
        return self._fd

    def doRead(self) -> None:
        """Deliver all events that wait."""
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return
        offset = 0
        while offset < len(data) and self._fd >= 0:
            watch, mask, _cookie, size = _HEAD.unpack_from(data, offset)
            offset += _HEAD.size
            name = data[offset : offset + size].rstrip(b"\0")
            offset += size
            self._on_event(self._paths.get(watch, b""), name, mask)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops or found the descriptor broken."""
        self._reading = False
        self.close()

    def logPrefix(self) -> str:
        """The name in log lines."""
        return "inotify"


def _last_error(subject: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), subject)
