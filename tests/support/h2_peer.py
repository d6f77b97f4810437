"""One end of an HTTP/2 connection over a real socket, which says what the test says and nothing by itself.

A :class:`Wire` keeps all frames that came; waiting for something ends with it, with the end of the connection, or after a bound.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import closing

import hpack

from support import h2_frames as f
from support.h2_frames import Frame
from support.processes import LOOPBACK

SECONDS = 20.0
"""The longest a test waits for one thing."""
PROBE = 0x7000_0001
"""The stream on which a connection is shown to be usable still; greater than any that tests open."""


class Wire:
    """A connection. ``ending`` is ``eof`` or ``reset`` once the other side has ended it, ``raw`` all that came."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.frames: list[Frame] = []
        self.fields: dict[int, list[dict[str, str]]] = {}
        self.ending = ""
        self.raw = b""
        self._rest = b""
        self._block = b""
        self._decoder = hpack.Decoder(max_header_list_size=1 << 24)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @classmethod
    def connect(cls, port: int, opening: bytes = f.OPENING) -> Wire:
        """A connection to a port of loopback that begins with ``opening``."""
        return cls(socket.create_connection((LOOPBACK, port), timeout=SECONDS)).send(opening)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> Wire:
        """Send; a connection that the other side has ended takes nothing more."""
        try:
            self.sock.sendall(data)
        except OSError:
            self.ending = self.ending or "reset"
        return self

    def read(self, seconds: float) -> bool:
        """Take what comes first; False when nothing did in time."""
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(1 << 18)
        except TimeoutError:
            return False
        except OSError:
            self.ending = "reset"
            return True
        if not data:
            self.ending = "eof"
            return True
        self.raw += data
        found, self._rest = f.split(self._rest + data)
        for frame in found:
            self._take(frame)
        return True

    def _take(self, frame: Frame) -> None:
        self.frames.append(frame)
        if frame.kind in (f.HEADERS, f.CONTINUATION):
            self._block += frame.payload
            if frame.flags & f.END_HEADERS:
                self.fields.setdefault(frame.stream, []).append(dict(self._decoder.decode(self._block)))
                self._block = b""

    def until(self, statement: Callable[[Wire], object], seconds: float = SECONDS) -> bool:
        """Read until ``statement`` holds; whether it does."""
        end = time.monotonic() + seconds
        while not statement(self):
            left = end - time.monotonic()
            if self.ending or left <= 0 or not self.read(left):
                return bool(statement(self))
        return True

    # --- what came

    def has(self, kind: int, stream: int | None = None) -> bool:
        """Whether a frame of this kind came."""
        return any(frame.kind == kind and stream in (None, frame.stream) for frame in self.frames)

    def goaway(self) -> Frame | None:
        """The last GOAWAY."""
        found = [frame for frame in self.frames if frame.kind == f.GOAWAY]
        return found[-1] if found else None

    def reset(self, stream: int) -> int | None:
        """The code with which a stream was reset."""
        codes = [frame.code for frame in self.frames if frame.kind == f.RST_STREAM and frame.stream == stream]
        return codes[0] if codes else None

    def status(self, stream: int) -> int:
        """The status of the final answer, 0 while there is none."""
        for section in self.fields.get(stream, ()):
            status = int(section.get(":status", "0"))
            if status >= 200:
                return status
        return 0

    def ended(self, stream: int) -> bool:
        """Whether the other side ended the stream."""
        return any(frame.ends for frame in self.frames if frame.stream == stream)

    def body(self, stream: int) -> bytes:
        """The DATA that came on it, without padding, which nobody here sends."""
        return b"".join(frame.payload for frame in self.frames if frame.kind == f.DATA and frame.stream == stream)

    def pongs(self) -> list[bytes]:
        """The payloads of PINGs that were answered."""
        return [frame.payload for frame in self.frames if frame.kind == f.PING and frame.is_ack]

    def describe(self) -> str:
        """All that came, in short."""
        shown = [
            f"{frame.name}({frame.stream}{f' code {frame.code}' if frame.kind in (f.GOAWAY, f.RST_STREAM) else ''})"
            + (f" {frame.payload[8:].decode('latin-1')!r}" if frame.kind == f.GOAWAY else "")
            for frame in self.frames[-30:]
        ]
        return f"{' '.join(shown)} {self.fields} {self.ending or 'open'}"


def listen() -> tuple[socket.socket, int]:
    """A listening socket and its port."""
    listener = socket.create_server((LOOPBACK, 0))
    listener.settimeout(SECONDS)
    return listener, listener.getsockname()[1]


def accept(listener: socket.socket, opening: bytes | None = None) -> Wire:
    """The next connection of a client, past its preface; ``opening`` is sent, by default our settings and the acknowledgement of its."""
    sock, _ = listener.accept()
    wire = Wire(sock)
    sock.settimeout(SECONDS)
    preface = b""
    while len(preface) < len(f.PREFACE):
        piece = sock.recv(len(f.PREFACE) - len(preface))
        assert piece, "closed before the preface"
        preface += piece
    assert preface == f.PREFACE
    return wire.send(f.settings({f.STREAMS: 100}) + f.settings(ack=True) if opening is None else opening)


__all__ = ["LOOPBACK", "PROBE", "SECONDS", "Wire", "accept", "closing", "listen"]
