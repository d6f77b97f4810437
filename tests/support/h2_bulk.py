"""One HTTP/2 connection that moves much: downloads, uploads, a stream that is read slowly, and small calls whose time is taken meanwhile.

It is quick enough to keep a gateway busy: frames of data are counted and thrown away, everything else is rare.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

import attrs
import hpack

from support import h2_frames as f
from support.processes import LOOPBACK

CREDIT = 4 << 20
"""Window of a stream that is read as fast as it comes."""
MOST_QUEUED = 1 << 16
"""Bytes that wait here for the socket, above which no more of an upload is made: what a small call would wait behind."""
TRICKLE = 1024
"""Bytes that a slow reader takes every ``TRICKLE_SECONDS``."""
TRICKLE_SECONDS = 0.05
FRAME = 16384


@attrs.define
class Stream:
    """One stream: what it has received, what it has still to send, and its answer's status."""

    id: int
    credit: int = 0
    received: int = 0
    left: int = 0
    window: int = 65535
    status: int = 0
    is_whole: bool = False
    began: float = 0.0


class BulkCaller:
    """The connection. Streams are begun by methods, and move on in :meth:`run`."""

    def __init__(self, port: int, authority: str = "web") -> None:
        self._sock = socket.create_connection((LOOPBACK, port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.setblocking(False)
        self._authority = authority
        self._out = bytearray(f.PREFACE + f.settings() + f.window_update(0, f.LARGEST - 65535))
        self._in = b""
        self._buffer = memoryview(bytearray(1 << 20))
        self._decoder = hpack.Decoder()
        self._next = 1
        self._window, self._initial = 65535, 65535
        self._owed = 0
        self._block = b""
        self.streams: dict[int, Stream] = {}
        self._slow: list[Stream] = []
        self._trickled = 0.0
        self.latencies: list[float] = []
        """Seconds that each small call took."""
        self._call: Stream | None = None
        self._called = 0.0

    def close(self) -> None:
        """Leave."""
        self._sock.close()

    # --- streams

    def _begin(self, method: str, path: str, *, ends: bool, credit: int = 0) -> Stream:
        stream = self.streams[self._next] = Stream(self._next, credit, window=self._initial, began=time.monotonic())
        self._next += 2
        fields = ((":method", method), (":scheme", "http"), (":path", path), (":authority", self._authority))
        self._out += f.headers(stream.id, fields, ends=ends)
        if credit:
            self._out += f.window_update(stream.id, credit - 65535)
        return stream

    def download(self, path: str) -> Stream:
        """An answer that is read as fast as it comes."""
        return self._begin("GET", path, ends=True, credit=CREDIT)

    def upload(self, path: str, size: int) -> Stream:
        """A request with a body of so many bytes."""
        stream = self._begin("POST", path, ends=False)
        stream.left = size
        return stream

    def read_slowly(self, path: str) -> Stream:
        """An answer of which little is read now and then."""
        stream = self._begin("GET", path, ends=True)
        self._slow.append(stream)
        return stream

    def run(self, until: Callable[[], bool], *, seconds: float, calls: str | None = None, pause: float = 0.01) -> bool:
        """Move until ``until()``; whether that came in time. ``calls`` is the path of small calls, made one after another."""
        end = time.monotonic() + seconds
        while not until():
            now = time.monotonic()
            if now > end:
                return False
            if calls is not None and self._call is None and now - self._called >= pause:
                self._call = self._begin("GET", calls, ends=True)
            if now - self._trickled >= TRICKLE_SECONDS:
                self._trickled = now
                for stream in self._slow:
                    self._out += f.window_update(stream.id, TRICKLE)
            self._fill()
            readable, writable, _ = select.select([self._sock], [self._sock] if self._out else [], [], pause)
            if writable:
                sent = self._sock.send(memoryview(self._out)[: 1 << 18])
                del self._out[:sent]
            if readable:
                self._read()
        return True

    # --- out

    def _fill(self) -> None:
        for stream in list(self.streams.values()):
            while stream.left and len(self._out) < MOST_QUEUED:
                size = min(FRAME, stream.left, stream.window, self._window)
                if size <= 0:
                    break
                stream.left -= size
                stream.window -= size
                self._window -= size
                self._out += f.data(stream.id, bytes(size), ends=not stream.left)

    # --- in

    def _read(self) -> None:
        size = self._sock.recv_into(self._buffer)
        if not size:
            raise EOFError("the gateway closed the connection")
        data = self._in + bytes(self._buffer[:size])
        frames, self._in = f.split(data)
        for frame in frames:
            self._take(frame)
        if self._owed >= CREDIT:
            self._out += f.window_update(0, self._owed)
            self._owed = 0

    def _take(self, frame: f.Frame) -> None:
        stream = self.streams.get(frame.stream)
        if frame.kind == f.DATA and stream is not None:
            size = len(frame.payload)
            self._owed += size
            before, stream.received = stream.received, stream.received + size
            step = CREDIT // 4
            if stream.credit and before // step != stream.received // step:
                self._out += f.window_update(stream.id, step)
        elif frame.kind in (f.HEADERS, f.CONTINUATION):
            self._section(frame, stream)
        elif frame.kind == f.WINDOW_UPDATE:
            if not frame.stream:
                self._window += frame.number
            elif stream is not None:
                stream.window += frame.number
        elif frame.kind == f.SETTINGS and not frame.is_ack:
            self._settings(frame)
        elif frame.kind == f.PING and not frame.is_ack:
            self._out += f.ping(frame.payload, ack=True)
        elif frame.kind in (f.GOAWAY, f.RST_STREAM):
            raise EOFError(f"{frame.name} on stream {frame.stream}, code {frame.code}, {frame.payload[8:]!r}")
        if frame.ends and stream is not None:
            self._ended(stream)

    def _settings(self, frame: f.Frame) -> None:
        initial = frame.settings.get(f.WINDOW, self._initial)
        for stream in self.streams.values():
            stream.window += initial - self._initial
        self._initial = initial
        self._out += f.settings(ack=True)

    def _section(self, frame: f.Frame, stream: Stream | None) -> None:
        self._block += frame.payload
        if frame.flags & f.END_HEADERS:
            fields, self._block = dict(self._decoder.decode(self._block)), b""
            if stream is not None and ":status" in fields:
                stream.status = int(fields[":status"])

    def _ended(self, stream: Stream) -> None:
        stream.is_whole = True
        del self.streams[stream.id]
        if stream is self._call:
            now = time.monotonic()
            self.latencies.append(now - stream.began)
            self._call, self._called = None, now
