"""The access log: the line, its clock, and a queue that a thread of its own writes to the file.

Source: linkerd-config spec 5.9 (line) and 5.1 (file options). The reactor only appends to a bounded queue, so that a slow or full
disk never delays a request; what does not fit is dropped, counted and reported. The thread sleeps long and writes much at once, since
every time it runs it takes the interpreter from the requests.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from meshgw.core.logger import make_logger
from meshgw.telemetry.rolling import LogFile, RollPolicy

GRANT = 256 << 10  # bytes that may be queued before the thread is woken and the queue's room is looked at
BATCH = 256  # lines the thread takes at a time
FLUSH_SECONDS = 0.2  # an operator who follows the file sees a line at once, and a quiet gateway wakes up five times a second
QUEUE_LIMIT = 8 << 20  # bytes: some 40,000 lines, two seconds of a stalled disk at 20,000 requests/s
REPORT_SECONDS = 60.0
STOP_SECONDS = 2.0

_UNSAFE_BYTE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_UNSAFE_IN_WORD = re.compile(rb'[\x00-\x20"\\\x7f-\xff]')
_MOST_TEXTS, _LONGEST_TEXT = 1024, 512
K = TypeVar("K")


class ClfFormat:
    """Makes the parts of a line, and remembers those that callers repeat: a line is one of each, joined.

    Quotes, backslashes, control characters and bytes above 126 become ``\\xHH``, so that a request cannot forge a line. Its tables
    are to be looked up by whoever makes lines, before it calls the method of the same name.
    """

    __slots__ = ("agents", "answers", "origins", "requests")

    def __init__(self) -> None:
        self.origins: dict[tuple[bytes | None, str], bytes] = {}
        """By host and remote address."""
        self.requests: dict[tuple[bytes, bytes, bytes], bytes] = {}
        """By method, target and version."""
        self.answers: dict[tuple[int, int], bytes] = {}
        """By status and length."""
        self.agents: dict[tuple[bytes | None, bytes | None], bytes] = {}
        """By referer and agent."""

    def origin(self, host: bytes | None, remote: str) -> bytes:
        """Host, remote address, and two names that nobody knows."""
        part = b"%b %b - - [" % (safe_word(host), remote.encode("ascii"))
        remember(self.origins, (host, remote), part)
        return part

    def request(self, method: bytes, target: bytes, version: bytes) -> bytes:
        """The request line of a request that has none as it came, or another now; parts that could not be read are empty."""
        part = b"%b %b HTTP/%b" % (safe_word(method), safe_text(target), version or b"1.1")
        remember(self.requests, (method, target, version), part)
        return part

    def answer(self, status: int, length: int) -> bytes:
        """Status and the length of the answer's body, negative if it was not known."""
        part = b'" %d %b "' % (status, b"-" if length < 0 else b"%d" % length)
        remember(self.answers, (status, length), part)
        return part

    def agent(self, referer: bytes | None, agent: bytes | None) -> bytes:
        """What the caller says of where it comes from and what it is."""
        part = b'%b" "%b"' % (safe_text(referer), safe_text(agent))
        remember(self.agents, (referer, agent), part)
        return part


def safe_text(text: bytes | None) -> bytes:
    """What may stand between double quotes; a hyphen for nothing."""
    return _UNSAFE_BYTE.sub(_escaped, text) if text else b"-"


def safe_word(text: bytes | None) -> bytes:
    """The same without spaces, for places without quotes."""
    return _UNSAFE_IN_WORD.sub(_escaped, text) if text else b"-"


def remember(known: dict[K, bytes], key: K, part: bytes) -> None:
    """Keep ``part`` unless it is long; a full table begins anew, as it most likely has what nobody repeats."""
    if len(part) <= _LONGEST_TEXT:
        if len(known) >= _MOST_TEXTS:
            known.clear()
        known[key] = part


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"\\x%02X" % match[0][0]


class ClfClock:
    """The time as the access log writes it, ``dd/MM/yyyy:HH:mm:ss zone`` in the system's time zone, formatted once a second.

    ``zone`` is how ``strftime`` is to write that: by its name, or with ``%z`` as a number.
    """

    __slots__ = ("_form", "_second", "_text")

    def __init__(self, zone: str = "%Z") -> None:
        self._form = f"%d/%m/%Y:%H:%M:%S {zone}"
        self._second = -1
        self._text = b""

    def at(self, now: float) -> bytes:
        """The text for ``now``, in seconds since the epoch."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = time.strftime(self._form, time.localtime(second)).encode()
        return self._text


class AccessLog:
    """An access log file and the thread that writes it. For the parameters see :class:`meshgw.telemetry.rolling.LogFile`.

    ``zone`` is the form of its lines' time zone, see :class:`ClfClock`.
    """

    log = make_logger()

    def __init__(
        self,
        path: str,
        *,
        roll: RollPolicy,
        append: bool,
        rotate_count: int,
        clock: Callable[[], float],
        queue_limit: int = QUEUE_LIMIT,
        zone: str = "%Z",
    ) -> None:
        self.path, self.zone = path, zone
        self._file = LogFile(path, roll=roll, append=append, rotate_count=rotate_count, clock=clock)
        self._clock, self._limit = clock, queue_limit
        # The reactor's thread appends, the log's thread cuts off the front: single steps of the interpreter, so no lock is needed.
        self._lines: list[bytes] = []
        # Bytes. Each number has one writer: the reactor's thread grants itself some and uses them up, the log's thread takes. What was
        # granted less what is left and what was taken is what waits.
        self._granted = self._left = min(GRANT, queue_limit)
        self._taken = 0
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._reported_at = float("-inf")
        self._lost = self._reported = 0
        self.dropped = 0
        """Lines that found the queue full."""

    def write(self, line: bytes) -> None:
        """Queue a line, which comes without its end; never blocks and never raises."""
        self._left -= len(line)
        if self._left >= 0 or self._has_room(len(line)):
            self._lines.append(line)

    def _has_room(self, size: int) -> bool:
        """What was granted is used up by a line of this size: wake the thread, and grant more if the queue is not full."""
        self._wake.set()
        waiting = self._granted - self._left - size - self._taken
        if waiting > self._limit:
            self._left += size
            self.dropped += 1
            return False
        more = min(GRANT, self._limit - waiting)
        self._granted += more
        self._left += more
        return True

    @property
    def lost(self) -> int:
        """Lines that were not written: those, and what a failing disk did not take."""
        return self.dropped + self._lost

    def start(self) -> None:
        """Open the file and start the thread. Raises :class:`meshgw.telemetry.rolling.LogFileError`."""
        self._file.open()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"access log {self.path}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is queued and close the file; after two seconds a stuck disk is left behind."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._stopping = True
        self._wake.set()
        thread.join(STOP_SECONDS)
        if thread.is_alive():
            text = "access log {path}: not written within {seconds} s, its last lines are lost"
            self.log.warn(text, path=self.path, seconds=STOP_SECONDS)

    def flush(self) -> None:
        """Write what is queued; runs in the log's thread."""
        while self._lines:
            lines = self._lines[:BATCH]
            del self._lines[: len(lines)]
            try:
                self._file.write(lines)
            except OSError as error:
                self._lost += len(lines)
                self._report(str(error))
            self._taken += sum(map(len, lines))

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            self.flush()
            if self.dropped + self._lost > self._reported:
                self._report("the queue was full")
        self.flush()
        self._file.close()

    def _report(self, reason: str) -> None:
        now = self._clock()
        if now - self._reported_at >= REPORT_SECONDS:
            lost, self._reported = self.dropped + self._lost - self._reported, self.dropped + self._lost
            self._reported_at = now
            self.log.warn("access log {path}: {count} lines lost: {reason}", path=self.path, count=lost, reason=reason)
