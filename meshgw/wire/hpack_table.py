"""What both directions of header compression share: the static table, integers, and what a field counts for.

Source: RFC 7541 sections 2.3.1, 4.1, 5.1 and appendix A.
"""

from __future__ import annotations

from typing import Final

STATIC_FIELDS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    *((b":status", status) for status in (b"200", b"204", b"206", b"304", b"400", b"404", b"500")),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    *((b"accept-" + what, b"") for what in (b"language", b"ranges")),
    *(
        (name, b"")
        for name in (
            *(b"accept", b"access-control-allow-origin", b"age", b"allow", b"authorization", b"cache-control"),
            *(b"content-disposition", b"content-encoding", b"content-language", b"content-length", b"content-location"),
            *(b"content-range", b"content-type", b"cookie", b"date", b"etag", b"expect", b"expires", b"from", b"host"),
            *(b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since", b"last-modified"),
            *(b"link", b"location", b"max-forwards", b"proxy-authenticate", b"proxy-authorization", b"range", b"referer"),
            *(b"refresh", b"retry-after", b"server", b"set-cookie", b"strict-transport-security", b"transfer-encoding"),
            *(b"user-agent", b"vary", b"via", b"www-authenticate"),
        )
    ),
)
"""The fields that both sides know from the beginning; the first has index 1."""
STATIC: Final = len(STATIC_FIELDS)
FIELD_OVERHEAD: Final = 32
"""Bytes that each field counts for beside its own (RFC 7541, 4.1; RFC 9113, 6.5.2)."""


def integer(value: int, mask: int, flags: int = 0) -> bytes:
    """An integer that begins in the low bits of a byte, which ``mask`` covers, beside the ``flags`` of that byte."""
    if value < mask:
        return bytes((flags | value,))
    rest, coded = value - mask, bytearray((flags | mask,))
    while rest > 0x7F:
        coded.append(rest & 0x7F | 0x80)
        rest >>= 7
    coded.append(rest)
    return bytes(coded)


def string(value: bytes) -> bytes:
    """A string that is not Huffman-coded."""
    return integer(len(value), 0x7F) + value
