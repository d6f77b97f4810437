"""A log file that is rolled by time or size and follows a rename by another program.

Source: linkerd-config spec 5.1 (roll policy, append, rotate count); names of rolled files are those of Twitter's FileHandler:
``access.log`` → ``access-20240131.log``. Everything blocks: it belongs into a thread (``telemetry.access``).
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar

import attrs

from meshgw.errors import MeshError

CHUNK = 65536  # bytes joined for one write; also how far a file may exceed its size limit
_STREAMS = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
_SIZE = re.compile(r"(\d+)\.(byte|kilobyte|megabyte|gigabyte|terabyte)s?")
_FACTORS = {"byte": 1, "kilobyte": 1 << 10, "megabyte": 1 << 20, "gigabyte": 1 << 30, "terabyte": 1 << 40}
_SUFFIXES = {"hourly": "%Y%m%d-%H", "daily": "%Y%m%d", "weekly": "%Y%m%d", "size": "%Y%m%d-%H%M%S"}


@attrs.frozen(kw_only=True)
class LogFileError(MeshError):
    """A log file cannot be opened."""

    path: str
    reason: str
    phase: ClassVar[str] = "config"

    def __str__(self) -> str:
        return f"cannot open log file {self.path}: {self.reason}; its folder must exist and be writable for this process"


@attrs.frozen(kw_only=True)
class RollPolicy:
    """When a file is rolled: ``every`` is never, hourly, daily, weekly or size; ``weekday`` is 1 (Sunday) to 7, ``size`` in bytes."""

    every: str = "never"
    weekday: int = 1
    size: int = 0

    @classmethod
    def read(cls, text: str) -> RollPolicy:
        """Read the configuration's form, in any case. Raises ValueError with what was expected."""
        lowered = text.strip().lower()
        if lowered in ("never", "hourly", "daily"):
            return cls(every=lowered)
        if weekly := re.fullmatch(r"weekly\(([1-7])\)", lowered):
            return cls(every="weekly", weekday=int(weekly[1]))
        sized = _SIZE.fullmatch(lowered)
        if sized is None or not int(sized[1]):
            raise ValueError(f"roll policy {text!r}: expected never, hourly, daily, weekly(1..7) or a size such as 3.megabytes")
        return cls(every="size", size=int(sized[1]) * _FACTORS[sized[2]])

    def period(self, now: float) -> tuple[int, ...]:
        """What stays the same until the file is due to be rolled by time; local time, as in Linkerd."""
        local = time.localtime(now)
        if self.every == "hourly":
            return local[:4]
        if self.every == "daily":
            return local[:3]
        if self.every == "weekly":
            since = (local.tm_wday + 1 - (self.weekday - 1)) % 7  # tm_wday counts from Monday, the policy from Sunday
            return time.localtime(time.mktime((local.tm_year, local.tm_mon, local.tm_mday - since, 12, 0, 0, 0, 0, -1)))[:3]
        return ()


class LogFile:
    """The file at ``path``; ``-`` or ``/dev/stdout``, and ``/dev/stderr``, mean the streams of this process, which are never rolled.

    ``append`` keeps what a file holds when it is opened first. ``rotate_count`` rolled files are kept, all if negative.
    ``clock`` gives seconds since the epoch.
    """

    def __init__(self, path: str, *, roll: RollPolicy, append: bool, rotate_count: int, clock: Callable[[], float]) -> None:
        self._path, self._roll, self._append, self._keep, self._clock = path, roll, append, rotate_count, clock
        self._fd: int | None = None
        self._identity: tuple[int, int] | None = None  # device and inode; None for what is not a regular file
        self._size = 0
        self._opened_at = 0.0

    def open(self) -> None:
        """Open it for the first time. Raises :class:`LogFileError`."""
        try:
            self._open(0 if self._append else os.O_TRUNC)
        except OSError as error:
            raise LogFileError(path=self._path, reason=error.strerror or str(error)) from error

    def write(self, lines: Sequence[bytes]) -> None:
        """Write whole lines, which come without their ends. Raises OSError; the file is opened anew at the next call."""
        try:
            self._follow()
            start, length = 0, sum(map(len, lines)) + len(lines)
            if length > CHUNK:
                start, length = self._put_chunks(lines)
            if length:
                self._put(lines[start:], length)
        except OSError:
            self.close()
            raise

    def _put_chunks(self, lines: Sequence[bytes]) -> tuple[int, int]:
        """Write more lines than make a chunk; the number of those written, and the bytes of the others."""
        start = length = 0
        for end, line in enumerate(lines, 1):
            length += len(line) + 1
            if length >= CHUNK:
                self._put(lines[start:end], length)
                start, length = end, 0
        return start, length

    def close(self) -> None:
        """Close it; safe to repeat."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _open(self, flags: int) -> None:
        stream = _STREAMS.get(self._path)
        if stream is not None:
            self._fd = os.dup(stream)  # opening the name fails where the stream is a socket, as under journald
        else:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | flags, 0o644)
        status = os.fstat(self._fd)
        regular = stream is None and stat.S_ISREG(status.st_mode)
        self._identity = (status.st_dev, status.st_ino) if regular else None
        self._size = status.st_size
        self._opened_at = status.st_mtime if regular and status.st_size else self._clock()  # a file of yesterday is due today

    def _follow(self) -> None:
        """Open the file anew if it was closed after an error, or renamed or removed by a program such as logrotate."""
        if self._fd is not None and self._identity is not None:
            try:
                status = os.stat(self._path)
            except FileNotFoundError:
                self.close()
            else:
                if (status.st_dev, status.st_ino) != self._identity:
                    self.close()
        if self._fd is None:
            self._open(0)

    def _put(self, lines: Sequence[bytes], length: int) -> None:
        if self._identity is not None and self._size and self._is_due(length):
            self._rolled()
        rest = memoryview(b"\n".join((*lines, b"")))
        while rest and self._fd is not None:
            rest = rest[os.write(self._fd, rest) :]
        self._size += length

    def _is_due(self, length: int) -> bool:
        if self._roll.every == "size":
            return self._size + length > self._roll.size
        return self._roll.period(self._opened_at) != self._roll.period(self._clock())

    def _rolled(self) -> None:
        self.close()
        stem, suffix = os.path.splitext(self._path)
        named_after = self._clock() if self._roll.every == "size" else self._opened_at
        base = f"{stem}-{time.strftime(_SUFFIXES[self._roll.every], time.localtime(named_after))}"
        target, number = base + suffix, 0
        while os.path.exists(target):
            number += 1
            target = f"{base}-{number}{suffix}"
        os.rename(self._path, target)
        self._remove_old(os.path.basename(stem), suffix)
        self._open(0)
        self._opened_at = self._clock()

    def _remove_old(self, stem: str, suffix: str) -> None:
        if self._keep < 0:
            return
        folder = os.path.dirname(self._path) or "."
        rolled = re.compile(rf"{re.escape(stem)}-\d{{8}}(-\d+)*{re.escape(suffix)}")
        found = [os.path.join(folder, name) for name in os.listdir(folder) if rolled.fullmatch(name)]
        found.sort(key=lambda path: (os.stat(path).st_mtime_ns, path), reverse=True)
        for path in found[self._keep :]:
            with suppress(FileNotFoundError):  # removed by somebody else meanwhile
                os.remove(path)
