"""An HTTP/2 connection without its sockets: frames in, frames out, the state of streams, and flow control. Strict to RFC 9113.

Source: RFC 9113; linkerd-config spec 6.1. Servers and clients subclass it and its streams. Frames are gathered and leave in one write at
the end of a round of events (``later``). A fault of a stream resets it, one of the connection ends it with GOAWAY; what a peer can make us
do for nothing is counted against it (``wire.h2_defence``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from meshgw.wire import h2_frames as frames
from meshgw.wire.h2_counts import FrameCounts
from meshgw.wire.h2_defence import SMALL_INCREMENT, Defence
from meshgw.wire.h2_frames import HEAD, HEAD_SIZE, Code, ConnectionFault, StreamFault
from meshgw.wire.h2_sending import ENDED, GIVEN_UP, MOST_GATHERED, RESET, Sending, Sink
from meshgw.wire.h2_stream import H2Stream
from meshgw.wire.hpack import FieldDecoder, Meanings
from meshgw.wire.hpack_writer import FieldWriter

MOST_HELD: Final = 8 << 20
"""Bytes on streams that are held up, above which the whole connection gets no more credit."""
CROWDED: Final = MOST_HELD // 2
"""Bytes down to which streams that have stood still for long are given up then. Requests are not put on a connection that holds more."""
STARVED_SECONDS: Final = 5.0
"""How long streams that stand still may keep a connection without credit from all others."""
LARGEST_HPACK_FACTOR: Final = 4
"""A section may grow to so many times its limit before decompression is stopped, which ends the connection; between, it is refused."""
_WHOLE: Final = frames.END_HEADERS | frames.PADDED | frames.WITH_PRIORITY
LEAST_HEADER_LIST: Final = 65536
"""What that counts for the least, so that with a small limit too requests are refused rather than connections ended."""


@attrs.frozen(kw_only=True)
class H2Settings:
    """What we tell the peer, and how its windows are kept open. Sizes are bytes.

    ``update_ratio``: credit is given once a window has shrunk below this part of it.
    """

    window: int = frames.DEFAULT_WINDOW
    frame: int = frames.DEFAULT_FRAME
    header_list: int = 65536
    table: int = frames.DEFAULT_TABLE
    streams: int | None = None
    connection_window: int = 1 << 20
    update_ratio: float = 0.99
    is_client: bool = False

    def values(self) -> list[tuple[int, int]]:
        """As they are sent."""
        values = [(frames.INITIAL_WINDOW_SIZE, self.window), (frames.MAX_FRAME_SIZE, self.frame)]
        values += [(frames.MAX_HEADER_LIST_SIZE, self.header_list), (frames.HEADER_TABLE_SIZE, self.table)]
        if self.streams is not None:
            values.append((frames.MAX_CONCURRENT_STREAMS, self.streams))
        if self.is_client:
            values.append((frames.ENABLE_PUSH, 0))
        return values


class H2Connection(Sending):
    """One side of a connection. ``later(function)`` calls it at the end of this round of events."""

    def __init__(
        self,
        sink: Sink,
        own: H2Settings,
        writer: FieldWriter,
        reader: Meanings,
        later: Callable[[Callable[[], None]], None],
        clock: Callable[[], float],
        counts: FrameCounts | None = None,
    ) -> None:
        """``counts`` are for frames, which are not counted without."""
        super().__init__(sink, writer, later, counts)
        self._received_sizes = self.counts.received
        self._own = own
        self.defence = Defence(clock)
        self.highest = 0
        """The highest stream that the peer has opened."""
        self.next_id = 1 if own.is_client else 2
        # until the peer knows our settings it goes by the defaults, which may be more than ours
        self.own_window = max(own.window, frames.DEFAULT_WINDOW)
        self.receive_window = frames.DEFAULT_WINDOW
        self.peer_header_list: int | None = None
        self.peer_streams: int | None = None
        self.is_closed = False
        self.is_acknowledged = False
        self._owed = 0
        self._stream_step = max(1, int(own.window * (1 - own.update_ratio)), min(own.window // 2, frames.DEFAULT_FRAME // 4))
        self._connection_step = own.connection_window // 4
        tolerated = max(own.header_list, LEAST_HEADER_LIST)
        self._decoder = FieldDecoder(reader, most=tolerated * LARGEST_HPACK_FACTOR, table=own.table)
        self._most_block = 2 * tolerated  # compression never makes a block much longer than its section
        self._buffer = bytearray()
        self._wanted = 0  # bytes in the buffer with which a frame is whole, or more can be told
        self._has_settings = False
        self._block: tuple[int, int, list[bytes]] | None = None
        self._block_size = 0
        self._handlers = (
            self._on_data,
            self._on_headers,
            self._on_priority,
            self._on_rst_stream,
            self._on_settings,
            self._on_push_promise,
            self._on_ping,
            self._on_goaway,
            self._on_window_update,
            self._on_continuation,
        )

    # --- for subclasses

    def opened(self, id: int) -> H2Stream | None:
        """The peer opens a stream; None refuses it. Clients have no such streams."""
        return None

    def settings_changed(self) -> None:
        """The peer's settings came."""

    def going_away(self, last: int, code: int, reason: str) -> None:
        """The peer wants no more streams, and has not looked at those beyond ``last``."""

    def ping_answered(self, payload: bytes) -> None:
        """A PING of ours came back."""

    def starved(self) -> None:
        """The peer gets no more credit for the connection, as too much of what came is held up."""

    def failed(self, fault: ConnectionFault) -> None:
        """The peer broke a rule; GOAWAY was sent and the connection is being closed."""

    # --- beginning and end

    def begin(self) -> None:
        """Send our settings, a client its preface before."""
        own = self._own
        if own.is_client:
            self.emit(frames.PREFACE)
        self.emit(frames.settings(own.values()))
        if own.connection_window > frames.DEFAULT_WINDOW:
            self.emit(frames.window_update(0, own.connection_window - frames.DEFAULT_WINDOW))
            self.receive_window = own.connection_window

    def fail(self, fault: ConnectionFault) -> None:
        """End the connection because of the peer."""
        if not self.is_closed:
            self.is_closed = True
            self.emit(frames.goaway(self.highest, fault.code, fault.reason))
            self.flush()
            self.failed(fault)
            self.lose(f"HTTP/2 {fault.code.name}: {fault.reason}")
            self.sink.close()

    def lose(self, reason: str) -> None:
        """All streams end with the connection."""
        self.is_closed = True
        streams, self.streams = self.streams, {}
        self._blocked.clear()
        for stream in streams.values():
            stream.remote_done = stream.local_done = True
            stream.lost(reason)

    def noise(self) -> None:
        """A frame that carries nothing. Raises :class:`ConnectionFault` when there are too many beside the useful ones."""
        self.useful = self.defence.noise(self.useful)

    # --- input

    def data_received(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self.is_closed:
            return
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._wanted:
                return
            data = bytes(buffer)
            buffer.clear()
        position, size, end = 0, len(data), 0
        unpack, largest, handlers = HEAD.unpack_from, self._own.frame, self._handlers
        try:
            while size - position >= HEAD_SIZE:
                high, low, kind, flags, id = unpack(data, position)
                begin = position + HEAD_SIZE
                end = begin + (high << 8 | low)
                if end - begin > largest:
                    if not self._has_settings and kind != frames.SETTINGS:  # "HTTP/1.1 400 ..." has a length, too
                        raise ConnectionFault(Code.PROTOCOL_ERROR, "what came first is no SETTINGS frame, so it is hardly HTTP/2")
                    raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a frame of {end - begin} bytes, more than {largest}")
                if end > size:
                    break
                position = end
                if self._block is not None or kind > frames.CONTINUATION or not self._has_settings:
                    if self._is_ignored(kind, flags):
                        continue
                try:
                    handlers[kind](flags, id & 0x7FFFFFFF, data[begin:end])
                except StreamFault as fault:
                    self._fault(id & 0x7FFFFFFF, fault)
                if self.is_closed:
                    return
        except ConnectionFault as fault:
            self.fail(fault)
            return
        if position < size:
            buffer += data[position:] if position else data
            self._wanted = max(end - position, HEAD_SIZE)
        if self._owed >= self._connection_step:
            self._credit()

    def _is_ignored(self, kind: int, flags: int) -> bool:
        """Whether a frame that is special, as things stand, says nothing. Raises :class:`ConnectionFault` if it must not be here."""
        if self._block is not None and kind != frames.CONTINUATION:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "another frame between HEADERS and CONTINUATION")
        if not self._has_settings:
            if kind != frames.SETTINGS or flags & frames.ACK:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._has_settings = True
        if kind > frames.CONTINUATION:
            self.noise()  # unknown kinds are ignored (section 5.5)
            return True
        return False

    def _fault(self, id: int, fault: StreamFault) -> None:
        stream = self.streams.get(id)
        if stream is None:
            if self._is_idle(id):  # of which nothing may be said (section 6.4)
                raise ConnectionFault(fault.code, fault.reason)
            if self.how_closed(id) is None:
                self.noise()
            else:
                self.defence.fault()
            self.emit(frames.rst_stream(id, fault.code))
            return
        self.reset(stream, fault.code)
        stream.faulted(fault.reason)

    def _on_data(self, flags: int, id: int, payload: bytes) -> None:
        size = len(payload)
        self.receive_window -= size
        if self.receive_window < 0:
            raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "more data than the connection's window allows")
        self._owed += size
        stream = self.streams.get(id)
        if stream is None or stream.remote_done:
            self._stray(id, "DATA", stream)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "more data than the stream's window allows")
        if flags & frames.PADDED:
            payload = frames.unpadded(flags, payload, "DATA")
        self._received_sizes[len(payload)] += 1
        ends = bool(flags & frames.END_STREAM)
        if payload or ends:
            self.useful += 1
        else:
            self.noise()
        if stream.left >= 0:
            stream.left -= len(payload)
            if stream.left < 0 or (ends and stream.left):
                raise StreamFault(Code.PROTOCOL_ERROR, "a body of another length than content-length says")
        stream.owed += size
        if stream.is_held:
            self._held += size
        if ends:
            stream.remote_done = True
        stream.body_received(payload, ends)
        if ends:
            if stream.local_done and id in self.streams:
                self._close(stream, ENDED)
                stream.closed()
        elif stream.owed >= self._stream_step and not stream.is_held:
            self.credit_stream(stream)

    def credit_stream(self, stream: H2Stream) -> None:
        """Give the peer credit for what it sent on a stream that is not held."""
        owed, stream.owed = stream.owed, 0
        if owed and not stream.remote_done and stream.id in self.streams:
            stream.receive_window += owed
            self.emit(frames.window_update(stream.id, owed))

    def count_held(self, size: int) -> None:
        """So many bytes more, or less, are held up."""
        super().count_held(size)
        if size < 0 and self._owed >= self._connection_step:
            self._credit()

    def _credit(self) -> None:
        """Give the peer credit for the connection, unless too much is held up."""
        if self._held > MOST_HELD:
            self.starved()
            return
        owed, self._owed = self._owed, 0
        self.receive_window += owed
        self.emit(frames.window_update(0, owed))

    def _stray(self, id: int, name: str, stream: H2Stream | None) -> None:
        """A frame for a stream that the peer has ended, or that is closed or idle (section 5.1)."""
        if stream is not None:
            raise StreamFault(Code.STREAM_CLOSED, f"{name} after the end of the stream")
        if id == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"{name} on stream 0")
        if self._is_idle(id):
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"{name} on an idle stream")
        how = self.how_closed(id)
        if how == RESET or (how is None and self._own.is_client):
            return  # it was on its way when we gave the stream up, perhaps with so many others that it was forgotten
        if how == ENDED:
            raise ConnectionFault(Code.STREAM_CLOSED, f"{name} on a closed stream")
        raise StreamFault(Code.STREAM_CLOSED, f"{name} on a closed stream")

    def _is_idle(self, id: int) -> bool:
        """Whether nobody has opened that stream yet."""
        if bool(id & 1) == self._own.is_client:
            return id >= self.next_id
        return id > self.highest

    # --- sections

    def _on_headers(self, flags: int, id: int, payload: bytes) -> None:
        if id == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & _WHOLE == frames.END_HEADERS and len(payload) <= self._most_block:  # nearly always
            self._section(id, flags & frames.END_STREAM != 0, payload, 0)
            return
        if flags & frames.PADDED:
            payload = frames.unpadded(flags, payload, "HEADERS", 5 if flags & frames.WITH_PRIORITY else 0)
        depends = 0
        if flags & frames.WITH_PRIORITY:
            if len(payload) < 5:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a HEADERS frame too short for its priority")
            depends = frames.read_number(payload)
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            if len(payload) > self._most_block:  # frames may be larger than that by configuration
                raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header block that is far beyond its limit")
            self._section(id, bool(flags & frames.END_STREAM), payload, depends)
        else:
            self._block = (id, flags, [payload])
            self._block_size = len(payload)

    def _on_continuation(self, flags: int, id: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        id, first, parts = self._block
        parts.append(payload)
        self._block_size += len(payload)
        if self._block_size > self._most_block or len(parts) > 16 + self._block_size // 1024:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "a header block that goes on and on")
        if flags & frames.END_HEADERS:
            self._block = None
            self._section(id, bool(first & frames.END_STREAM), b"".join(parts), 0)

    def _section(self, id: int, ends: bool, block: bytes, depends: int) -> None:
        """A whole header block. It is decompressed whatever becomes of it, as later ones build on it."""
        section = self._decoder.decode(block)
        self.useful += 1
        stream = self.streams.get(id)
        if stream is None:
            if self._own.is_client or id & 1 == 0 or id <= self.highest:
                self._stray_section(id)
                return
            stream = self._open(id)
            if stream is None:
                return
        elif stream.remote_done:
            raise StreamFault(Code.STREAM_CLOSED, "HEADERS after the end of the stream")
        if depends == id:
            raise StreamFault(Code.PROTOCOL_ERROR, "a stream that depends on itself")
        if ends:
            stream.remote_done = True
            if stream.left > 0:
                raise StreamFault(Code.PROTOCOL_ERROR, "a body shorter than content-length says")
        stream.headers_received(section, ends)
        if ends and stream.local_done and id in self.streams:
            self._close(stream, ENDED)
            stream.closed()

    def _stray_section(self, id: int) -> None:
        """A section for no open stream that cannot open one."""
        if self._own.is_client:
            if id & 1 == 0:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "HEADERS on a stream that only the peer could have opened")
        elif id & 1 == 0 or self.how_closed(id) is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, f"stream {id} cannot be opened")
        self._stray(id, "HEADERS", None)

    def _open(self, id: int) -> H2Stream | None:
        self.highest = id
        most = self._own.streams
        if most is not None and len(self.streams) >= most:
            self.defence.refused()
            stream = None
        else:
            stream = self.opened(id)
        if stream is None:
            self.emit(frames.rst_stream(id, Code.REFUSED_STREAM))
            self._remember(id, RESET)
            return None
        self.streams[id] = stream
        return stream

    # --- control

    def _on_priority(self, flags: int, id: int, payload: bytes) -> None:
        if id == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise StreamFault(Code.FRAME_SIZE_ERROR, f"a PRIORITY frame of {len(payload)} bytes")
        self.noise()
        if frames.read_number(payload) == id:
            raise StreamFault(Code.PROTOCOL_ERROR, "a stream that depends on itself")

    def _on_rst_stream(self, flags: int, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a RST_STREAM frame of {len(payload)} bytes")
        stream = self.streams.get(id)
        if stream is None:
            if id == 0 or self._is_idle(id):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM on an idle stream")
            if self.how_closed(id) == RESET:  # both gave it up at once, which is nobody's fault
                self._remember(id, GIVEN_UP)
            else:
                self.noise()
            return
        self.counts.resets_received += 1
        self._close(stream, GIVEN_UP)
        stream.reset_received(frames.read_code(payload))

    def _on_settings(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload")
            self._acknowledged()
            return
        self.noise()
        window = self.peer_window
        for key, value in frames.read_settings(payload):
            if key == frames.INITIAL_WINDOW_SIZE:
                window = value
            elif key == frames.MAX_FRAME_SIZE:
                self.peer_frame = min(value, MOST_GATHERED)
            elif key == frames.HEADER_TABLE_SIZE:
                self._encoder.allow(value)
            elif key == frames.MAX_HEADER_LIST_SIZE:
                self.peer_header_list = value
            elif key == frames.MAX_CONCURRENT_STREAMS:
                self.peer_streams = value
            elif key == frames.ENABLE_PUSH and self._own.is_client and value:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a server that allows us to push")
        self.emit(frames.SETTINGS_ACK)
        if window != self.peer_window:
            self._move_windows(window)
        self.settings_changed()

    def _move_windows(self, window: int) -> None:
        """The peer's initial window counts for open streams too (section 6.9.2)."""
        difference, self.peer_window = window - self.peer_window, window
        for stream in list(self.streams.values()):
            stream.send_window += difference
            if stream.send_window > frames.LARGEST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window that grows too large by SETTINGS")
            if difference > 0 and stream.queue:
                self._pump(stream)

    def _acknowledged(self) -> None:
        """The peer goes by our settings from now on."""
        if self.is_acknowledged:
            self.noise()
            return
        self.is_acknowledged = True
        self._decoder.acknowledged()
        difference, self.own_window = self._own.window - self.own_window, self._own.window
        for stream in self.streams.values():
            stream.receive_window += difference

    def _on_push_promise(self, flags: int, id: int, payload: bytes) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "PUSH_PROMISE, which is not allowed here")

    def _on_ping(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a PING frame of {len(payload)} bytes")
        if flags & frames.ACK:
            self.ping_answered(payload)
        else:
            self.noise()
            self.emit(frames.ping(payload, is_ack=True))

    def _on_goaway(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a GOAWAY frame of {len(payload)} bytes")
        self.noise()
        self.going_away(frames.read_number(payload), frames.read_code(payload, 4), payload[8:264].decode("utf-8", "replace"))

    def _on_window_update(self, flags: int, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, f"a WINDOW_UPDATE frame of {len(payload)} bytes")
        increment = frames.read_number(payload)
        if id == 0:
            self.send_window += increment
            if not increment:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "a WINDOW_UPDATE of 0 for the connection")
            if self.send_window > frames.LARGEST_WINDOW:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a connection's window that grows too large")
            if increment < SMALL_INCREMENT:
                self._count_small(bool(self._blocked))
            if self._blocked:
                self.pump_all()
            return
        stream = self.streams.get(id)
        if stream is None:
            if self._is_idle(id):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE on an idle stream")
            self.noise()
        if not increment:
            raise StreamFault(Code.PROTOCOL_ERROR, "a WINDOW_UPDATE of 0")
        if stream is None:
            return  # it may have been on its way when the stream was closed
        stream.send_window += increment
        if stream.send_window > frames.LARGEST_WINDOW:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "a window that grows too large")
        if increment < SMALL_INCREMENT:
            self._count_small(bool(stream.queue))
        if stream.queue:
            self._pump(stream)

    def _count_small(self, is_waited_for: bool) -> None:
        """Larger increments need not be counted: they end when the window can grow no more."""
        if is_waited_for:
            self.defence.tiny()
        else:
            self.noise()
