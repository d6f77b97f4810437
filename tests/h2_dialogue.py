"""Dialogues in frames through a whole router of protocol ``h2`` in this process (see ``transcript``): callers, services, what they said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hpack

from support import h2_frames as f
from support.h2_frames import Frame
from transcript import Mesh, Service, Side

CALL = ((":method", "POST"), (":scheme", "http"), (":path", "/pkg.Svc/Do"), (":authority", "web"), ("content-type", "application/grpc"))
ANSWER = ((":status", "200"), ("content-type", "application/grpc"))


def trailers(status: int, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """The end of a gRPC answer."""
    return (("grpc-status", str(status)), *more)


class H2Mesh(Mesh):
    """A router that speaks HTTP/2."""

    def __init__(self, router: str = "", server: str = "", **more: Any) -> None:
        super().__init__(router, server, protocol="h2", **more)

    def calling(self, opening: bytes = f.OPENING) -> H2Side:
        """A caller's connection, opened."""
        return H2Side(self, self.caller().send(opening))

    def serving(self, service: Service, opening: bytes | None = None) -> H2Side:
        """The router's next connection to the service, which has sent its settings."""
        side = H2Side(self, service.accept(), skip=len(f.PREFACE))
        side.send(f.settings({f.STREAMS: 100}) + f.settings(ack=True) if opening is None else opening)
        return side


class H2Side:
    """One end of a connection and the frames that came to it; ``sections`` are the header sections by stream."""

    def __init__(self, mesh: Mesh, side: Side, *, skip: int = 0) -> None:
        self.mesh, self.side = mesh, side
        self.frames: list[Frame] = []
        self.sections: dict[int, list[dict[str, str]]] = {}
        self._skip = skip
        self._rest = b""
        self._decoder = hpack.Decoder()

    def send(self, *pieces: bytes) -> H2Side:
        """Send bytes."""
        self.side.send(b"".join(pieces))
        return self

    def read(self) -> H2Side:
        """Take what came."""
        data = self.side.take()
        skipped = data[: self._skip]
        self._skip -= len(skipped)
        found, self._rest = f.split(self._rest + data[len(skipped) :])
        for frame in found:
            if frame.kind == f.HEADERS:
                self.sections.setdefault(frame.stream, []).append(dict(self._decoder.decode(frame.payload)))
        self.frames += found
        return self

    def until(self, statement: Callable[[H2Side], object]) -> H2Side:
        """Let the router work until ``statement`` holds of what came."""
        self.mesh.until(lambda: statement(self.read()) or self.side.ending)
        assert statement(self), (self.frames[-10:], self.sections, self.side.ending)
        return self

    # --- what came

    def has_section(self, stream: int, count: int = 1) -> bool:
        """Whether so many header sections came on a stream."""
        return len(self.sections.get(stream, ())) >= count

    def is_whole(self, stream: int) -> bool:
        """Whether the other side ended the stream."""
        return any(frame.ends for frame in self.frames if frame.stream == stream)

    def code(self, stream: int) -> int | None:
        """The code with which a stream was reset."""
        codes = [frame.code for frame in self.frames if frame.kind == f.RST_STREAM and frame.stream == stream]
        return codes[0] if codes else None

    def body(self, stream: int) -> bytes:
        """The DATA of a stream."""
        return b"".join(frame.payload for frame in self.frames if frame.kind == f.DATA and frame.stream == stream)

    def awaited_request(self, stream: int) -> dict[str, str]:
        """The request that comes on this stream, once it is whole."""
        return self.until(lambda side: side.is_whole(stream)).sections[stream][0]

    def awaited_answer(self, stream: int = 1) -> tuple[dict[str, str], bytes, dict[str, str]]:
        """The answer on this stream, once it is whole: fields, body, trailers."""
        sections = self.until(lambda side: side.is_whole(stream)).sections[stream]
        return sections[0], self.body(stream), sections[-1] if len(sections) > 1 else {}


def called(mesh: H2Mesh, request: bytes = f.headers(1, CALL)) -> tuple[H2Side, H2Side]:
    """A caller, and the service at which its request has arrived as the first one."""
    service = mesh.service("web")
    caller = mesh.calling().send(request)
    upstream = mesh.serving(service).until(lambda side: side.has_section(1))
    return caller, upstream
