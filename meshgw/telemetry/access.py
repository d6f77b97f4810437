"""The access log: the line, its clock, and a queue that a thread of its own writes to the file.

Source: linkerd-config spec 5.9 (line) and 5.1 (file options). The reactor only appends to a bounded queue, so that a slow or full
disk never delays a request; what does not fit is dropped, counted and reported.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable

from twisted.logger import Logger

from meshgw.telemetry.rolling import CHUNK, LogFile, RollPolicy

FLUSH_SECONDS = 0.2  # an operator who follows the file sees a line at once, and a quiet gateway wakes up five times a second
QUEUE_LIMIT = 8 << 20  # bytes: some 40,000 lines, two seconds of a stalled disk at 20,000 requests/s
REPORT_SECONDS = 60.0
STOP_SECONDS = 2.0

_UNSAFE_BYTE = re.compile(rb'[\x00-\x1f"\\\x7f-\xff]')
_UNSAFE_IN_WORD = re.compile(rb'[\x00-\x20"\\\x7f-\xff]')
_MOST_TEXTS, _LONGEST_TEXT = 1024, 512


class ClfFormat:
    """Makes lines. Quotes, backslashes, control characters and bytes above 126 become ``\\xHH``, so that a request cannot forge a line.

    Escaped hosts, referers and agents are remembered, since callers repeat them; a target is looked at each time.
    """

    __slots__ = ("_texts", "_words")

    def __init__(self) -> None:
        self._words: dict[bytes | None, bytes] = {None: b"-", b"": b"-"}
        self._texts: dict[bytes | None, bytes] = {None: b"-", b"": b"-"}

    def line(
        self,
        host: bytes | None,
        remote: bytes,
        now: bytes,
        method: bytes,
        target: bytes,
        version: bytes,
        status: int,
        length: int | None,
        referer: bytes | None,
        agent: bytes | None,
    ) -> bytes:
        """One line without its end; ``now`` comes from :class:`ClfClock`, ``length`` is the response's if it was known, ``version``
        ``1.1``...
        """
        words, texts = self._words, self._texts
        if not (target.isascii() and target.decode("ascii").isprintable()) or b'"' in target or b"\\" in target:
            target = _UNSAFE_BYTE.sub(_escaped, target)
        return b'%b %b - - [%b] "%b %b HTTP/%b" %d %b "%b" "%b"' % (
            words.get(host) or self._escape(words, host, _UNSAFE_IN_WORD),
            remote,
            now,
            words.get(method) or self._escape(words, method, _UNSAFE_IN_WORD),
            target,
            version,
            status,
            b"-" if length is None else b"%d" % length,
            texts.get(referer) or self._escape(texts, referer, _UNSAFE_BYTE),
            texts.get(agent) or self._escape(texts, agent, _UNSAFE_BYTE),
        )

    def _escape(self, known: dict[bytes | None, bytes], text: bytes | None, unsafe: re.Pattern[bytes]) -> bytes:
        assert text is not None
        escaped = unsafe.sub(_escaped, text)
        if len(text) <= _LONGEST_TEXT:
            if len(known) >= _MOST_TEXTS:
                known.clear()
                known.update({None: b"-", b"": b"-"})
            known[text] = escaped
        return escaped


def _escaped(match: re.Match[bytes]) -> bytes:
    return b"\\x%02X" % match[0][0]


class ClfClock:
    """The time as the access log writes it, ``dd/MM/yyyy:HH:mm:ss zone`` in the system's time zone, formatted once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def at(self, now: float) -> bytes:
        """The text for ``now``, in seconds since the epoch."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%d/%m/%Y:%H:%M:%S %Z", time.localtime(second)).encode()
        return self._text


class AccessLog:
    """An access log file and the thread that writes it. For the parameters see :class:`meshgw.telemetry.rolling.LogFile`."""

    log = Logger()

    def __init__(
        self,
        path: str,
        *,
        roll: RollPolicy,
        append: bool,
        rotate_count: int,
        clock: Callable[[], float],
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self.path = path
        self._file = LogFile(path, roll=roll, append=append, rotate_count=rotate_count, clock=clock)
        self._clock, self._limit = clock, queue_limit
        self._lines: deque[bytes] = deque()
        # Each number has one writer: the reactor's thread adds, the log's thread takes. Their difference is what waits.
        self._added = self._taken = 0
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._reported_at = float("-inf")
        self._lost = self._reported = 0
        self.dropped = 0
        """Lines that found the queue full."""

    def write(self, line: bytes) -> None:
        """Queue a line, which comes without its end; never blocks and never raises."""
        waiting = self._added - self._taken
        if waiting > self._limit:
            self.dropped += 1
            return
        self._lines.append(line)
        self._added += len(line) + 1
        if waiting < CHUNK <= waiting + len(line) + 1:  # once per chunk: waking costs more than queueing
            self._wake.set()

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
            lines: list[bytes] = []
            length = 0
            while self._lines and length < CHUNK:
                line = self._lines.popleft()
                lines.append(line)
                length += len(line) + 1
            try:
                self._file.write(lines)
            except OSError as error:
                self._lost += len(lines)
                self._report(str(error))
            self._taken += length

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
