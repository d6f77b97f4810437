"""The first message of a TLS connection, read before any TLS library sees it: which server name and which protocols the client asks for.

Source: RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3 (server name), RFC 7301 (ALPN). Nothing is verified beyond what is needed to
find the two; a library does the handshake with the same bytes. What cannot be a ClientHello is told apart from a plain HTTP request.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

import attrs

from meshgw.errors import MeshError

LARGEST_HELLO: Final = 65536
"""Bytes of a ClientHello with its record headers; real ones have 200 to 4,000, with large tickets and post-quantum keys some more."""
RECORD_HEADER: Final = 5
_LARGEST_RECORD: Final = 16384
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ALPN = 0, 16
_HOST_NAME = 0
_METHOD = re.compile(rb"[A-Z]{1,20}")  # RFC 9110 knows none longer than CONNECT, other registries UPDATEREDIRECTREF
_NAME = re.compile(r"[!-~]{1,255}")

UNEXPECTED_MESSAGE: Final = 10
ILLEGAL_PARAMETER: Final = 47
DECODE_ERROR: Final = 50
INTERNAL_ERROR: Final = 80
UNRECOGNIZED_NAME: Final = 112
NO_APPLICATION_PROTOCOL: Final = 120


@attrs.frozen(slots=True)
class ClientHello:
    """What a client asks for: the ``server_name`` in lower case without a final dot, and its protocols in the order it prefers."""

    server_name: str | None = None
    alpn: tuple[bytes, ...] = ()


@attrs.frozen(kw_only=True)
class HelloError(MeshError):
    """The bytes are no ClientHello. ``alert`` is what to answer, None when the peer does not even speak TLS."""

    phase: ClassVar[str] = "receive"
    status: ClassVar[int] = 400
    reason: str
    alert: int | None = None
    is_http: bool = False
    """Whether it looks like a plain HTTP request."""

    def __str__(self) -> str:
        return self.reason


class ClientHelloReader:
    """Takes the first bytes of a connection, however they are cut, until the ClientHello is complete."""

    __slots__ = ("_at", "_message", "received")

    def __init__(self) -> None:
        self.received = bytearray()
        """All bytes so far; for the library that does the handshake."""
        self._at = 0
        self._message = bytearray()

    def feed(self, data: bytes) -> ClientHello | None:
        """The hello once it is complete, else None. Raises :class:`HelloError`."""
        received = self.received
        received += data
        if received and received[0] != _HANDSHAKE:
            self._refuse()
            return None
        if len(received) > LARGEST_HELLO:
            raise HelloError(reason=f"a ClientHello of more than {LARGEST_HELLO} bytes", alert=DECODE_ERROR)
        while len(received) - self._at >= RECORD_HEADER:
            at = self._at
            if received[at] != _HANDSHAKE:
                raise HelloError(reason=f"a record of type {received[at]} instead of the ClientHello", alert=UNEXPECTED_MESSAGE)
            length = received[at + 3] << 8 | received[at + 4]
            if received[at + 1] != 3 or not 0 < length <= _LARGEST_RECORD:
                raise HelloError(reason="not a TLS record", alert=DECODE_ERROR)
            if len(received) - at < RECORD_HEADER + length:
                break
            self._at = at + RECORD_HEADER + length
            self._message += received[at + RECORD_HEADER : self._at]
            hello = self._complete()
            if hello is not None:
                return hello
        return None

    def _refuse(self) -> None:
        """Tell HTTP from garbage; returns as long as it may still become a method and a space."""
        received = self.received
        found = _METHOD.match(received)
        if found is None:
            raise HelloError(reason="neither TLS nor HTTP")
        if found.end() < len(received):
            is_http = received[found.end()] == 0x20
            raise HelloError(reason="plain HTTP" if is_http else "neither TLS nor HTTP", is_http=is_http)
        if found.end() == 20:
            raise HelloError(reason="neither TLS nor HTTP")

    def _complete(self) -> ClientHello | None:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            raise HelloError(reason=f"a handshake message of type {message[0]} instead of the ClientHello", alert=UNEXPECTED_MESSAGE)
        if len(message) < 4:
            return None
        size = int.from_bytes(message[1:4], "big")
        if size > LARGEST_HELLO:
            raise HelloError(reason=f"a ClientHello of {size} bytes", alert=DECODE_ERROR)
        return parse_client_hello(bytes(message[4 : 4 + size])) if len(message) >= 4 + size else None


def alert_record(alert: int) -> bytes:
    """The record of a fatal alert as it is sent before any key exists (RFC 8446 section 6)."""
    return bytes((21, 3, 3, 0, 2, 2, alert))


def parse_client_hello(body: bytes) -> ClientHello:
    """Read the body of a ClientHello, without its handshake header. Raises :class:`HelloError`."""
    fields = _Fields(body)
    fields.take(2 + 32)  # legacy version, random
    fields.vector(1)  # session id
    fields.vector(2)  # cipher suites
    fields.vector(1)  # compression methods
    if fields.is_done:  # RFC 5246 lets a client leave all extensions out
        return ClientHello()
    extensions = _Fields(fields.vector(2))
    fields.finish()
    found: dict[int, bytes] = {}
    while not extensions.is_done:
        kind = int.from_bytes(extensions.take(2), "big")
        if kind in found:
            raise HelloError(reason=f"the extension {kind} twice in a ClientHello", alert=ILLEGAL_PARAMETER)
        found[kind] = extensions.vector(2)
    return ClientHello(_server_name(found.get(_SERVER_NAME)), _protocols(found.get(_ALPN)))


def _server_name(data: bytes | None) -> str | None:
    if data is None:
        return None
    outer = _Fields(data)
    names = _Fields(outer.vector(2))
    outer.finish()
    host: bytes | None = None
    while not names.is_done:
        kind = names.take(1)[0]
        name = names.vector(2)
        if kind == _HOST_NAME:
            if host is not None:
                raise HelloError(reason="two host names in a ClientHello", alert=ILLEGAL_PARAMETER)
            host = name
    if host is None:
        return None
    text = host.decode("ascii", "replace").lower()
    if not _NAME.fullmatch(text) or text == ".":
        raise HelloError(reason="a server name that cannot be a host name", alert=ILLEGAL_PARAMETER)
    return text.removesuffix(".")


def _protocols(data: bytes | None) -> tuple[bytes, ...]:
    if data is None:
        return ()
    outer = _Fields(data)
    names = _Fields(outer.vector(2))
    outer.finish()
    found = []
    while not names.is_done:
        name = names.vector(1)
        if not name:
            raise HelloError(reason="an empty protocol name in a ClientHello", alert=DECODE_ERROR)
        found.append(name)
    return tuple(found)


class _Fields:
    """Reads one field after the other; a field that is not all there is a :class:`HelloError`."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def is_done(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise HelloError(reason="a ClientHello that ends too early", alert=DECODE_ERROR)
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def vector(self, width: int) -> bytes:
        """A field that begins with its length in ``width`` bytes."""
        return self.take(int.from_bytes(self.take(width), "big"))

    def finish(self) -> None:
        if not self.is_done:
            raise HelloError(reason="a ClientHello that goes on after its end", alert=DECODE_ERROR)
