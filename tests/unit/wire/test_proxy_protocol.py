"""The PROXY protocol's codec against its specification, and against itself."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshgw.wire.proxy_protocol import (
    LONGEST_V1,
    LONGEST_V2,
    SIGNATURE,
    ProxyHeader,
    ProxyHeaderError,
    ProxyHeaderReader,
    crc32c,
    write_header,
)

V4, V4_OTHER = ("192.0.2.7", 56324), ("198.51.100.9", 443)
V6, V6_OTHER = ("2001:db8::7", 1), ("2001:db8::9", 65535)
ports = st.integers(0, 65535)
v4 = st.tuples(st.ip_addresses(v=4).map(str), ports)
v6 = st.tuples(st.ip_addresses(v=6).map(lambda ip: socket.inet_ntop(socket.AF_INET6, ip.packed)), ports)


def read(data: bytes) -> tuple[ProxyHeader, bytes]:
    reader = ProxyHeaderReader()
    header = reader.feed(data)
    assert header is not None, "incomplete"
    return header, reader.rest


def v2(command: int = 0x21, family: int = 0x11, block: bytes = b"", length: int | None = None) -> bytes:
    return SIGNATURE + bytes((command, family)) + struct.pack("!H", len(block) if length is None else length) + block


BLOCK = bytes((192, 0, 2, 7, 198, 51, 100, 9)) + struct.pack("!HH", 56324, 443)


def extension(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def checked(*before: bytes, after: bytes = b"") -> bytes:
    """A header with a right checksum among its extensions."""
    start = b"".join(before) + b"\x03\x00\x04"
    zeroed = v2(block=BLOCK + start + bytes(4) + after)
    at = 16 + len(BLOCK) + len(start)
    return zeroed[:at] + struct.pack("!I", crc32c(zeroed)) + zeroed[at + 4 :]


@pytest.mark.parametrize("version", [1, 2])
@given(pair=st.one_of(st.tuples(v4, v4), st.tuples(v6, v6)), rest=st.binary(max_size=40))
def test_what_is_written_is_read_and_the_rest_left(version: int, pair: tuple[tuple[str, int], tuple[str, int]], rest: bytes) -> None:
    data = write_header(version, *pair)
    assert read(data + rest) == (ProxyHeader(version, *pair), rest)
    assert len(data) <= (LONGEST_V1 if version == 1 else 52)


@given(
    data=st.one_of(
        st.binary(max_size=120),
        st.binary(max_size=60).map(lambda tail: b"PROXY " + tail),
        st.binary(max_size=60).map(lambda tail: SIGNATURE + tail),
        st.tuples(st.sampled_from((b"TCP4", b"TCP6", b"UNKNOWN")), st.text("0123456789.: af\r\n", max_size=90)).map(
            lambda parts: b"PROXY " + parts[0] + b" " + parts[1].encode() + b"\r\n"
        ),
        st.tuples(st.integers(0x1F, 0x23), st.sampled_from((0, 0x11, 0x12, 0x21, 0x31, 0x41)), st.binary(max_size=80)).map(
            lambda parts: v2(*parts)
        ),
    ),
    cuts=st.lists(st.integers(0, 120), max_size=6),
)
@example(data=b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET /", cuts=[30, 31])
@example(data=b"PROXY UNKNOWN a\rb\r\n", cuts=[16])
def test_any_split_gives_the_same_and_nothing_else_is_raised(data: bytes, cuts: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> object:
        reader = ProxyHeaderReader()
        for index, piece in enumerate(pieces):
            try:
                if reader.feed(piece) is not None:
                    return (reader.header, reader.rest + b"".join(pieces[index + 1 :]))
            except ProxyHeaderError as error:
                return error.is_missing
        return "incomplete"

    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in zip(places, places[1:], strict=False)]
    assert outcome(pieces) == outcome([data])


@given(data=st.binary(min_size=1, max_size=30))
def test_bytes_that_begin_like_no_header_are_refused_as_missing(data: bytes) -> None:
    begins = any(mark.startswith(data[: len(mark)]) for mark in (b"PROXY ", SIGNATURE))
    if not begins:
        with pytest.raises(ProxyHeaderError) as caught:
            ProxyHeaderReader().feed(data)
        assert caught.value.is_missing


@pytest.mark.parametrize(
    ("line", "header"),
    [
        (b"PROXY TCP4 192.0.2.7 198.51.100.9 56324 443\r\n", ProxyHeader(1, V4, V4_OTHER)),
        (
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            ProxyHeader(1, ("255.255.255.255", 65535), ("255.255.255.255", 65535)),
        ),
        (b"PROXY TCP6 2001:db8:0:0::7 2001:DB8::9 1 65535\r\n", ProxyHeader(1, V6, V6_OTHER)),
        (b"PROXY UNKNOWN\r\n", ProxyHeader(1)),
        (b"PROXY UNKNOWN ffff::1 whatever this is\r\n", ProxyHeader(1)),
        (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", ProxyHeader(1)),
    ],
)
def test_a_line_of_version_1_is_read(line: bytes, header: ProxyHeader) -> None:
    assert read(line + b"GET / HTTP/1.1\r\n") == (header, b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP5 192.0.2.7 198.51.100.9 1 2\r\n",
        b"PROXY tcp4 192.0.2.7 198.51.100.9 1 2\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY TCP4  192.0.2.7 198.51.100.9 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 1 2 \r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 1\r\n",
        b"PROXY TCP4 192.0.2.07 198.51.100.9 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 198.51.100.9 1 2\r\n",
        b"PROXY TCP4 192.0.2 198.51.100.9 1 2\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::9 1 2\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.9 1 2\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.7\x00 198.51.100.9 1 2\r\n",
        b"PROXY TCP4 192.0.2.\xb2 198.51.100.9 1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 01 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 -1 2\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 1 65536\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 1 2\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.9 1 2\rX",
        b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
        b"PROXY UNKNOWN " + b"f" * 200,
    ],
)
def test_another_line_is_malformed(line: bytes) -> None:
    with pytest.raises(ProxyHeaderError) as caught:
        read(line)
    assert not caught.value.is_missing


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (v2(block=BLOCK), ProxyHeader(2, V4, V4_OTHER)),
        (v2(block=BLOCK + extension(0x04, b"") + extension(0x01, b"h2")), ProxyHeader(2, V4, V4_OTHER)),
        (checked(extension(0x02, b"shop.example"), after=extension(0x04, bytes(3))), ProxyHeader(2, V4, V4_OTHER)),
        (v2(command=0x20, family=0x00), ProxyHeader(2)),
        (v2(command=0x20, family=0x11, block=BLOCK), ProxyHeader(2)),
        (v2(command=0x20, family=0x77, block=b"whatever"), ProxyHeader(2)),
        (v2(family=0x00), ProxyHeader(2)),
        (v2(family=0x00, block=b"\xff" * 5), ProxyHeader(2)),
        (v2(family=0x31, block=bytes(216)), ProxyHeader(2)),
    ],
)
def test_a_header_of_version_2_is_read(data: bytes, header: ProxyHeader) -> None:
    assert read(data + b"\x16\x03\x01") == (header, b"\x16\x03\x01")


WRONG_SUM = checked()[:-1] + bytes((checked()[-1] ^ 1,))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (v2(command=0x11, block=BLOCK), "version 1 behind"),
        (v2(command=0x22, block=BLOCK), "unknown command"),
        (v2(family=0x12, block=BLOCK), "unknown family"),
        (v2(family=0x41, block=BLOCK), "unknown family"),
        (v2(block=BLOCK[:-1]), "too few"),
        (v2(family=0x21, block=bytes(35)), "too few"),
        (v2(family=0x31, block=bytes(215)), "too few"),
        (v2(length=LONGEST_V2 + 1), "more than"),
        (v2(block=BLOCK + b"\x04\x00"), "cut off"),
        (v2(block=BLOCK + b"\x04\x00\x01"), "longer than what is left"),
        (v2(block=BLOCK + extension(0x03, b"abc")), "4 bytes"),
        (WRONG_SUM, "checksum of version 2 is wrong"),
        (v2(block=checked()[16:] + checked()[-7:]), "checksum"),
    ],
)
def test_another_header_is_malformed(data: bytes, word: str) -> None:
    with pytest.raises(ProxyHeaderError, match=word) as caught:
        read(data)
    assert not caught.value.is_missing


def test_a_wrong_version_is_known_before_the_rest_comes() -> None:
    with pytest.raises(ProxyHeaderError):
        ProxyHeaderReader().feed(SIGNATURE + b"\x31")


def test_checksum_is_castagnoli_s() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize(("version", "data"), [(1, b"PROXY UNKNOWN\r\n"), (2, SIGNATURE + b"\x20\x00\x00\x00")])
def test_without_a_caller_the_header_says_so(version: int, data: bytes) -> None:
    assert write_header(version, None, None) == data


@pytest.mark.parametrize("version", [1, 2])
def test_a_caller_of_the_other_family_is_mapped_and_a_zone_left_out(version: int) -> None:
    header, _ = read(write_header(version, ("fe80::1%eth0", 1), ("192.0.2.7", 2)))
    assert header == ProxyHeader(version, ("fe80::1", 1), ("::ffff:192.0.2.7", 2))
