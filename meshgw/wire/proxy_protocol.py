"""The PROXY protocol, versions 1 and 2: what stands before everything else on a connection and tells whose it really is.

Source: "The PROXY protocol, versions 1 & 2" (haproxy.org, proxy-protocol.txt). Read strictly: what the text does not allow is an error,
since whoever gets past here is believed. Extensions (TLVs) must be well-formed and are passed over, but for the checksum, which counts.
"""

from __future__ import annotations

import re
import socket
import struct
from typing import Final

import attrs

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_BEGINNING: Final = b"PROXY "
LONGEST_V1: Final = 107
"""Bytes of a version 1 line with its end (section 2.1)."""
LONGEST_V2: Final = 4096
"""Bytes that may follow the fixed part of version 2: addresses take up to 216, and senders are to stay within one segment."""
_PORT: Final = re.compile(rb"0|[1-9][0-9]{0,4}")
_FIXED: Final = struct.Struct("!12sBBH")
_V2, _LOCAL, _PROXY = 0x20, 0x0, 0x1
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_SIZES: Final = {_TCP4: 12, _TCP6: 36, _UNIX: 216}
_CRC32C: Final = 0x03

Endpoint = tuple[str, int]
"""A literal address and its port."""


class ProxyHeaderError(ValueError):
    """The bytes are no header; ``is_missing`` tells that they do not even begin like one."""

    def __init__(self, reason: str, *, is_missing: bool = False) -> None:
        super().__init__(reason)
        self.is_missing = is_missing


@attrs.frozen
class ProxyHeader:
    """What a header says: who connected to what. Both are None when that is the sender itself, or cannot be told by addresses."""

    version: int
    source: Endpoint | None = None
    destination: Endpoint | None = None


class ProxyHeaderReader:
    """Reads one header from pieces of any size. Afterwards ``header`` is set, and ``rest`` holds what came behind it."""

    __slots__ = ("_data", "header", "rest")

    def __init__(self) -> None:
        self._data = b""
        self.header: ProxyHeader | None = None
        self.rest = b""

    def feed(self, data: bytes) -> ProxyHeader | None:
        """The header once it is complete. Raises :class:`ProxyHeaderError`, as soon as it can be known."""
        self._data = have = self._data + data
        if have[: len(SIGNATURE)] == SIGNATURE[: len(have)]:
            end = _end_of_v2(have)
        elif have[: len(_V1_BEGINNING)] == _V1_BEGINNING[: len(have)]:
            end = _end_of_v1(have)
        else:
            raise ProxyHeaderError(f"no PROXY header, but {have[:16]!r}", is_missing=True)
        if end is not None:
            whole, self.rest, self._data = have[:end], have[end:], b""
            self.header = _read_v2(whole) if whole[:1] == b"\r" else _read_v1(whole[:-2])
        return self.header


# --- version 1


def _end_of_v1(have: bytes) -> int | None:
    line = have[:LONGEST_V1]
    end = line.find(b"\r\n")
    if end >= 0:
        return end + 2
    if b"\n" in line or b"\r" in line[:-1]:
        raise ProxyHeaderError("the line of version 1 ends without CR LF")
    if len(line) == LONGEST_V1:
        raise ProxyHeaderError(f"the line of version 1 is longer than {LONGEST_V1} bytes")
    return None


def _read_v1(line: bytes) -> ProxyHeader:
    if b"\r" in line or b"\n" in line:
        raise ProxyHeaderError("the line of version 1 ends without CR LF")
    words = line.split(b" ")
    if words[1] == b"UNKNOWN":  # whatever follows is to be ignored
        return ProxyHeader(1)
    if words[1] not in (b"TCP4", b"TCP6"):
        raise ProxyHeaderError(f"unknown protocol {words[1][:16]!r} in version 1")
    if len(words) != 6:
        raise ProxyHeaderError("version 1 has a protocol, two addresses and two ports, each after one space")
    family = socket.AF_INET if words[1] == b"TCP4" else socket.AF_INET6
    hosts = [_host(family, word) for word in words[2:4]]
    ports = [_port(word) for word in words[4:6]]
    return ProxyHeader(1, (hosts[0], ports[0]), (hosts[1], ports[1]))


def _host(family: int, word: bytes) -> str:
    try:
        text = word.decode("ascii")
        shown = socket.inet_ntop(family, socket.inet_pton(family, text))
    except (ValueError, OSError):
        raise ProxyHeaderError(f"{word[:45]!r} is no address of its family") from None
    if family == socket.AF_INET and shown != text:
        raise ProxyHeaderError(f"{word[:45]!r} is no IPv4 address in its usual form")
    return shown


def _port(word: bytes) -> int:
    if _PORT.fullmatch(word) is None or int(word) > 65535:
        raise ProxyHeaderError(f"{word[:8]!r} is no port")
    return int(word)


# --- version 2


def _end_of_v2(have: bytes) -> int | None:
    if len(have) > 12 and have[12] & 0xF0 != _V2:
        raise ProxyHeaderError(f"version {have[12] >> 4} behind the signature of version 2")
    if len(have) > 12 and have[12] & 0x0F not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"unknown command {have[12] & 0x0F} in version 2")
    if len(have) < _FIXED.size:
        return None
    length = _FIXED.unpack_from(have)[3]
    if length > LONGEST_V2:
        raise ProxyHeaderError(f"version 2 announces {length} bytes, more than {LONGEST_V2}")
    end = int(_FIXED.size + length)
    return end if len(have) >= end else None


def _read_v2(whole: bytes) -> ProxyHeader:
    _, command, family, length = _FIXED.unpack_from(whole)
    if command == _V2 | _LOCAL:  # the sender's own connection, such as a health check: all that follows is to be discarded
        return ProxyHeader(2)
    if family == _UNSPEC:
        return ProxyHeader(2)
    size = _SIZES.get(family)
    if size is None:
        raise ProxyHeaderError(f"unknown family and protocol 0x{family:02x} in version 2")
    if length < size:
        raise ProxyHeaderError(f"{length} bytes are too few for the addresses of version 2, which take {size}")
    _check_extensions(whole, _FIXED.size + size)
    if family == _UNIX:
        return ProxyHeader(2)
    kind, width = (socket.AF_INET, 4) if family == _TCP4 else (socket.AF_INET6, 16)
    at = _FIXED.size
    source, destination = whole[at : at + width], whole[at + width : at + 2 * width]
    ports = struct.unpack_from("!HH", whole, at + 2 * width)
    return ProxyHeader(2, (socket.inet_ntop(kind, source), ports[0]), (socket.inet_ntop(kind, destination), ports[1]))


def _check_extensions(whole: bytes, at: int) -> None:
    """They fill what is left to the byte; a checksum among them must be that of the whole header (section 2.2.3)."""
    is_checked = False
    while at < len(whole):
        if at + 3 > len(whole):
            raise ProxyHeaderError("the last extension of version 2 is cut off")
        kind, size = struct.unpack_from("!BH", whole, at)
        at += 3
        if at + size > len(whole):
            raise ProxyHeaderError(f"the extension 0x{kind:02x} of version 2 is longer than what is left")
        if kind == _CRC32C:
            if size != 4 or is_checked:
                raise ProxyHeaderError("the checksum of version 2 must be there once, with 4 bytes")
            is_checked = True
            (told,) = struct.unpack_from("!I", whole, at)
            if crc32c(whole[:at] + bytes(4) + whole[at + 4 :]) != told:
                raise ProxyHeaderError("the checksum of version 2 is wrong")
        at += size


# --- writing


def write_header(version: int, source: Endpoint | None, destination: Endpoint | None) -> bytes:
    """A header of that version; without addresses, it is the one of a connection that nobody else asked for."""
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n" if version == 1 else _FIXED.pack(SIGNATURE, _V2 | _LOCAL, _UNSPEC, 0)
    family, hosts = _packed(source[0], destination[0])
    if version == 1:
        shown = b" ".join(socket.inet_ntop(family, host).encode("ascii") for host in hosts)
        word = b"TCP4" if family == socket.AF_INET else b"TCP6"
        return b"PROXY %b %b %d %d\r\n" % (word, shown, source[1], destination[1])
    kind = _TCP4 if family == socket.AF_INET else _TCP6
    return _FIXED.pack(SIGNATURE, _V2 | _PROXY, kind, _SIZES[kind]) + hosts[0] + hosts[1] + struct.pack("!HH", source[1], destination[1])


def _packed(*texts: str) -> tuple[int, list[bytes]]:
    """Addresses in the one family that holds both: a lone IPv4 address is mapped into IPv6 (RFC 4291 section 2.5.5.2)."""
    plain = [text.partition("%")[0] for text in texts]
    if not any(":" in text for text in plain):
        return socket.AF_INET, [socket.inet_pton(socket.AF_INET, text) for text in plain]
    return socket.AF_INET6, [socket.inet_pton(socket.AF_INET6, text if ":" in text else f"::ffff:{text}") for text in plain]


# --- checksum


def _table() -> tuple[int, ...]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return tuple(found)


_TABLE: Final = _table()


def crc32c(data: bytes) -> int:
    """The checksum of Castagnoli (RFC 3720, appendix B.4), which the standard library lacks."""
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
