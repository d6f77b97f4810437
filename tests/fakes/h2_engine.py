"""The HTTP/2 engine without servers and clients: streams that echo or ask, beside another implementation, in memory.

``Echo`` answers each request with its body and trailers, ``Asker`` sends requests and keeps answers. :func:`exchange` carries the bytes
between one of them and ``h2``, in pieces of any size, until nothing more is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs
from h2.config import H2Configuration
from h2.connection import H2Connection as Other
from h2.events import DataReceived, Event, RemoteSettingsChanged, ResponseReceived, StreamEnded, TrailersReceived, WindowUpdated
from h2.settings import SettingCodes, Settings

from meshgw.wire import h2_frames as frames
from meshgw.wire.h2_connection import H2Connection, H2Settings
from meshgw.wire.h2_messages import FieldReader
from meshgw.wire.h2_stream import H2Stream
from meshgw.wire.headers import FieldTable
from meshgw.wire.hpack import Section
from meshgw.wire.hpack_writer import FieldWriter


class Buffer:
    """A sink that never is full."""

    is_full = False

    def __init__(self) -> None:
        self.data = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.is_closed = True

    def take(self) -> bytes:
        data, self.data = self.data, b""
        return data


class _Stream(H2Stream):
    """A message that comes: head, body and trailers."""

    __slots__ = ("body", "head", "is_over", "tail")

    def __init__(self, connection: H2Connection, id: int) -> None:
        super().__init__(connection, id)
        self.head: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.tail: list[bytes] = []
        self.is_over = False

    def headers_received(self, section: Section, ends: bool) -> None:
        if self.head:
            self.tail = READER.trailers(section)
        else:
            self.head = [(field.name, field.value) for field in section.fields]
        if ends:
            self.over()

    def body_received(self, data: bytes, ends: bool) -> None:
        self.body += data
        if ends:
            self.over()

    def over(self) -> None:
        self.is_over = True

    def reset_received(self, code: int) -> None:
        pass

    def faulted(self, reason: str) -> None:
        pass

    def lost(self, reason: str) -> None:
        pass

    def drained(self) -> None:
        pass


READER = FieldReader(FieldTable())


class EchoStream(_Stream):
    """Answers at the end of the request."""

    __slots__ = ()

    def over(self) -> None:
        connection = self.connection
        connection.send_headers(self, [b":status: 200", b"x-echo: yes"], False)
        if self.body:
            connection.send_data(self, self.body, False)
        connection.send_trailers(self, self.tail)


class _Engine(H2Connection):
    def __init__(self, own: H2Settings) -> None:
        self.buffer = Buffer()
        self.calls: list[Callable[[], None]] = []
        self.fault: frames.ConnectionFault | None = None
        super().__init__(self.buffer, own, FieldWriter(), READER, self.calls.append, lambda: 0.0)

    def failed(self, fault: frames.ConnectionFault) -> None:
        self.fault = fault

    def output(self) -> bytes:
        """What it has to say."""
        while self.calls:
            self.calls.pop(0)()
        return self.buffer.take()


class Echo(_Engine):
    """The server."""

    def opened(self, id: int) -> EchoStream:
        return EchoStream(self, id)


class Asker(_Engine):
    """The client."""

    def ask(self, path: bytes, body: bytes, trailers: list[bytes]) -> _Stream:
        """Send a request."""
        stream = _Stream(self, self.next_id)
        self.streams[stream.id] = stream
        self.next_id += 2
        self.send_headers(stream, [b":method: POST", b":scheme: http", b":path: " + path, b":authority: web"], False)
        if body:
            self.send_data(stream, body, False)
        self.send_trailers(stream, trailers)
        return stream


@attrs.define
class Message:
    """One message as ``h2`` sends or receives it."""

    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = attrs.Factory(list)
    head: list[tuple[bytes, bytes]] = attrs.Factory(list)
    is_over: bool = False


class Peer:
    """``h2`` as a client or server that keeps to all windows, pads, and gives credit for what came."""

    def __init__(self, *, is_client: bool, window: int, frame: int, padding: int | None) -> None:
        self.connection = Other(H2Configuration(client_side=is_client, header_encoding=None, validate_inbound_headers=True))
        values = {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_FRAME_SIZE: frame, SettingCodes.MAX_CONCURRENT_STREAMS: 100}
        self.connection.local_settings = Settings(client=is_client, initial_values=values)
        self.connection.max_inbound_frame_size = frame
        self.connection.initiate_connection()
        self._padding = padding
        self.sending: dict[int, Message] = {}
        self.received: dict[int, Message] = {}

    def ask(self, body: bytes, trailers: list[tuple[bytes, bytes]], path: bytes = b"/") -> int:
        """Begin a request."""
        stream = self.connection.get_next_available_stream_id()
        head = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"web")]
        self.connection.send_headers(stream, head)
        self.sending[stream] = Message(body, list(trailers))
        self.received[stream] = Message()
        self._send()
        return stream

    def receive(self, data: bytes) -> None:
        """Bytes from the engine."""
        for event in self.connection.receive_data(data):
            self._on_event(event)
        self._send()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, DataReceived):
            self._of(event.stream_id).body += event.data
            if event.flow_controlled_length:
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, TrailersReceived):
            self._of(event.stream_id).trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
        elif isinstance(event, StreamEnded):
            message = self._of(event.stream_id)
            message.is_over = True
            if not self.connection.config.client_side:
                self.connection.send_headers(event.stream_id, [(b":status", b"200")])
                self.sending[event.stream_id] = Message(message.body, message.trailers)
        elif isinstance(event, ResponseReceived):
            self._of(event.stream_id).head = [(bytes(name), bytes(value)) for name, value in event.headers]
        else:
            assert isinstance(event, Event | RemoteSettingsChanged | WindowUpdated)

    def _of(self, stream: int) -> Message:
        return self.received.setdefault(stream, Message())

    def _send(self) -> None:
        """Send on as far as windows allow."""
        for stream, message in list(self.sending.items()):
            overhead = 0 if self._padding is None else self._padding + 1
            while message.body:
                room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
                size = min(room - overhead, len(message.body))
                if size <= 0:
                    if room <= 0 or overhead == 0:
                        break
                    size, padding = min(room, len(message.body)), None  # windows below the padding
                else:
                    padding = self._padding
                self.connection.send_data(stream, message.body[:size], pad_length=padding)
                message.body = message.body[size:]
            if not message.body:
                if message.trailers:
                    self.connection.send_headers(stream, message.trailers, end_stream=True)
                else:
                    self.connection.end_stream(stream)
                del self.sending[stream]

    def output(self) -> bytes:
        """What it has to say."""
        return bytes(self.connection.data_to_send())


def exchange(engine: _Engine, peer: Peer, sizes: Iterator[int]) -> None:
    """Carry bytes both ways, in pieces of ``sizes``, until both are silent."""
    while True:
        to_peer, to_engine = engine.output(), peer.output()
        if not to_peer and not to_engine:
            return
        for piece in _pieces(to_peer, sizes):
            peer.receive(piece)
        for piece in _pieces(to_engine, sizes):
            engine.data_received(piece)


def _pieces(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    while data:
        size = next(sizes)
        yield data[:size]
        data = data[size:]
