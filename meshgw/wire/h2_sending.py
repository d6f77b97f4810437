"""The sending half of an HTTP/2 connection: frames that are gathered, data that waits for windows, streams that end.

Source: RFC 9113 sections 5.2 and 6.9. Streams that wait for the connection's window or for the socket take turns, a frame each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from meshgw.wire import h2_frames as frames
from meshgw.wire.h2_counts import FrameCounts, Uncounted
from meshgw.wire.h2_frames import HEAD
from meshgw.wire.h2_stream import LOW_WATER, H2Stream, gather
from meshgw.wire.hpack_writer import FieldEncoder, FieldWriter

MOST_GATHERED: Final = 131072
"""Bytes of frames gathered above which they are written without waiting for the end of the round."""
MOST_CLOSED: Final = 1024
"""Closed streams whose end is remembered, at least; up to twice as many."""
RESET, ENDED, GIVEN_UP = range(3)
"""How a stream closed: we gave it up, both sides ended it, the peer gave it up."""


class Sink(Protocol):
    """What frames are written to (``core.stream.Stream``)."""

    is_full: bool

    def write(self, data: bytes) -> None:
        """Send, or keep."""
        ...

    def close(self) -> None:
        """Send what waits, then end."""
        ...


class Sending:
    """What both sides have in common for sending. ``later(function)`` calls it at the end of this round of events."""

    def __init__(
        self, sink: Sink, writer: FieldWriter, later: Callable[[Callable[[], None]], None], counts: FrameCounts | None = None
    ) -> None:
        self.sink, self._later = sink, later
        self.counts: FrameCounts = Uncounted() if counts is None else counts
        self._sent_sizes = self.counts.sent
        self.streams: dict[int, H2Stream] = {}
        self.peer_window = self.send_window = frames.DEFAULT_WINDOW
        """What streams begin with, and what the connection has."""
        self.peer_frame = frames.DEFAULT_FRAME
        self._held = self._gathered = self._unread = 0
        self._encoder = FieldEncoder(writer)
        self._out: list[bytes | memoryview] = []
        self._tail: H2Stream | None = None  # whose data was gathered last
        self._blocked: dict[H2Stream, None] = {}
        self.useful = 0
        """Frames that carried something, either way; whoever causes them may cause some others too (``wire.h2_defence``)."""
        self._ends: dict[int, int] = {}
        self._older_ends: dict[int, int] = {}

    def emit(self, data: bytes | memoryview) -> None:
        """Gather a frame."""
        if not self._out:
            self._later(self.flush)
        self._out.append(data)
        self._tail = None

    def flush(self) -> None:
        """Write what was gathered."""
        out = self._out
        if out:
            self._out, self._gathered, self._tail = [], 0, None
            data = b"".join(out) if len(out) > 1 else bytes(out[0])
            self.sink.write(data)
            if self.sink.is_full:
                self._unread += len(data)
                self.unread(self._unread)

    def unread(self, size: int) -> None:
        """The peer does not read, and ``size`` bytes more than the socket's buffer should take wait for it: frames without flow control."""

    def sink_drained(self) -> None:
        """The socket takes bytes again."""
        self._unread = 0
        self.pump_all()

    def count_held(self, size: int) -> None:
        """So many bytes more, or less, are held up."""
        self._held += size

    def send_headers(self, stream: H2Stream, lines: list[bytes], ends: bool) -> None:
        """Send a section, pseudo-header fields first and written like lines; nothing of the stream may wait."""
        block = self._encoder.block(lines)
        size = len(block)
        if size <= self.peer_frame:
            if not self._out:
                self._later(self.flush)
            self._out += HEAD.pack(size >> 8, size & 0xFF, frames.HEADERS, frames.END_HEADERS | ends, stream.id), block
            self._tail = None
        else:
            self.emit(frames.header_block(stream.id, block, end=ends, largest=self.peer_frame))
        if ends:
            self._sent_end(stream)

    def send_data(self, stream: H2Stream, data: bytes, ends: bool) -> None:
        """Send some of the body, or keep it until the windows allow it."""
        size = len(data)
        queue = stream.queue
        if not queue and (
            not size or (size <= stream.send_window and size <= self.send_window and size <= self.peer_frame and not self.sink.is_full)
        ):
            stream.send_window -= size
            self.send_window -= size
            self._put(stream, data, size, ends)
            if ends:
                self._sent_end(stream)
            return
        if queue is None:
            queue = stream.queue = deque()
        if size:
            gather(queue, data)
            stream.queued += size
        if ends:
            stream.trailers = []
        self._pump(stream)

    def send_trailers(self, stream: H2Stream, lines: list[bytes]) -> None:
        """End the stream with trailers, after what waits; without any, just end it."""
        if stream.queue:
            stream.trailers = lines
        elif lines:
            self.counts.trailers_sent += 1
            self.send_headers(stream, lines, True)
        else:
            if self._tail is stream:  # its last data is still here, and can say that it is the last
                size = len(self._out[-1])
                self._out[-2] = HEAD.pack(size >> 8, size & 0xFF, frames.DATA, frames.END_STREAM, stream.id)
            else:
                self._put(stream, b"", 0, True)
            self._sent_end(stream)

    def send_whole(self, stream: H2Stream, lines: list[bytes], body: bytes, trailers: list[bytes]) -> None:
        """Send a message that is complete and has trailers, as most answers of gRPC are: in few steps, if the windows allow it."""
        size = len(body)
        self.send_headers(stream, lines, False)
        if size > stream.send_window or size > self.send_window or size > self.peer_frame or self.sink.is_full:
            self.send_data(stream, body, False)
            self.send_trailers(stream, trailers)
            return
        if size:
            stream.send_window -= size
            self.send_window -= size
            self._out += HEAD.pack(size >> 8, size & 0xFF, frames.DATA, 0, stream.id), body
            self._sent_sizes[size] += 1
            self._gathered += size
            self.useful += 1
        self.counts.trailers_sent += 1
        self.send_headers(stream, trailers, True)
        if self._gathered > MOST_GATHERED:
            self.flush()

    def reset(self, stream: H2Stream, code: int) -> None:
        """Give a stream up; what comes for it still is ignored."""
        if self.streams.get(stream.id) is stream:
            self.counts.resets_sent += 1
            self.emit(frames.rst_stream(stream.id, code))
            self._close(stream, RESET)

    def _put(self, stream: H2Stream, data: bytes | memoryview, size: int, ends: bool) -> None:
        out = self._out
        if not out:
            self._later(self.flush)
        out.append(HEAD.pack(size >> 8, size & 0xFF, frames.DATA, ends, stream.id))
        self._sent_sizes[size] += 1
        if not size:
            self._tail = None
            return
        out.append(data)
        self._tail = stream
        self._gathered += size
        self.useful += 1
        if self._gathered > MOST_GATHERED:
            self.flush()

    def _pump(self, stream: H2Stream, most: int = frames.LARGEST_WINDOW) -> None:
        """Send what waits on a stream as far as the windows and the socket take it, ``most`` bytes of it."""
        queue = stream.queue
        while queue and most > 0:
            room = min(stream.send_window, self.send_window, self.peer_frame, most)
            if room <= 0 or self.sink.is_full:
                break
            data = queue[0]
            if len(data) <= room:
                queue.popleft()
            else:
                view = memoryview(data)
                data, queue[0] = view[:room], view[room:]
            size = len(data)
            stream.send_window -= size
            self.send_window -= size
            stream.queued -= size
            most -= size
            ends = not queue and stream.trailers == []
            self._put(stream, data, size, ends)
            if ends:
                self._sent_end(stream)
        if queue:
            if stream.send_window > 0:  # it waits for the connection, not for its own window
                self._blocked[stream] = None
        else:
            self._blocked.pop(stream, None)
            if stream.trailers is not None and not stream.local_done:
                trailers, stream.trailers = stream.trailers, None
                self.send_trailers(stream, trailers)
        if stream.was_full and stream.queued <= LOW_WATER:
            stream.was_full = False
            stream.drained()

    def pump_all(self) -> None:
        """The connection's window or the socket has room: streams that wait for it take turns, a frame each."""
        while self._blocked and self.send_window > 0 and not self.sink.is_full:
            for stream in list(self._blocked):
                self._blocked.pop(stream, None)
                self._pump(stream, self.peer_frame)
                if self.send_window <= 0:
                    break

    def _sent_end(self, stream: H2Stream) -> None:
        stream.local_done = True
        if stream.remote_done:
            self._close(stream, ENDED)
            stream.closed()
        else:
            stream.sent()

    def _close(self, stream: H2Stream, how: int) -> None:
        if self.streams.pop(stream.id, None) is None:
            return
        stream.remote_done = stream.local_done = True
        self._blocked.pop(stream, None)
        if stream.queue:
            stream.queue.clear()
            stream.queued = 0
        if stream.is_held:
            stream.is_held = False
            self.count_held(-stream.owed)
        stream.owed = 0
        self._remember(stream.id, how)

    def _remember(self, id: int, how: int) -> None:
        """Keep how a stream closed: two generations, the older of which is dropped as a whole when the younger is full."""
        ends = self._ends
        ends[id] = how
        if len(ends) >= MOST_CLOSED:
            self._older_ends, self._ends = ends, {}

    def how_closed(self, id: int) -> int | None:
        """How a stream closed; None when that is not known any more, or it has not."""
        how = self._ends.get(id)
        return self._older_ends.get(id) if how is None else how
