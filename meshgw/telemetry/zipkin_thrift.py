"""Spans for Zipkin's Scribe collector: Zipkin's v1 span in Thrift's binary protocol, and the call ``Log`` of Scribe that carries it.

Source: linkerd-config spec 9.6; zipkinCore.thrift and scribe.thrift of OpenZipkin; Thrift's binary protocol and framed transport. Pure:
bytes in, bytes out. Only what this one call needs of Thrift is here.
"""

from __future__ import annotations

import struct
from binascii import b2a_base64
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from meshgw.telemetry.span_words import ERROR, error_of, extent, is_debug, microseconds, parent_of, utf8
from meshgw.telemetry.spans import Endpoint, Span

CATEGORY: Final = b"zipkin"
LARGEST_REPLY: Final = 64 << 10
"""Bytes; a result takes 30, and an exception a sentence."""

OK: Final = 0
TRY_LATER: Final = 1

_VERSION: Final = 0x80010000
_CALL, _REPLY, _EXCEPTION = 1, 2, 3
_STOP, _BOOL, _I16, _I32, _I64, _STRING, _STRUCT, _LIST = 0, 2, 6, 8, 10, 11, 12, 15
_KIND_BOOL, _KIND_STRING = 0, 6  # of a binary annotation's value

_FIELD = struct.Struct(">bh").pack
_LENGTH = struct.Struct(">i").pack
_LONG = struct.Struct(">bhq").pack
_UNSIGNED = struct.Struct(">bhQ").pack
_ITEMS = struct.Struct(">bhbi").pack


class MalformedReply(ValueError):
    """What came back is no reply to the call."""


# --- the span


def encode_span(span: Span) -> bytes:
    """The struct ``Span`` of zipkinCore.thrift."""
    trace, (started, duration) = span.trace, extent(span)
    local = _endpoint(span.local, span.router)
    parent = parent_of(trace)
    begin, end, other = ("cs", "cr", b"sa") if span.is_client else ("sr", "ss", b"ca")
    moments = [(started, begin), *[(microseconds(moment), word) for moment, word in span.events], (started + duration, end)]
    facts = [_fact(name, value, local) for name, value in span.tags.items()]
    error = error_of(span)
    if error and ERROR not in span.tags:
        facts.append(_fact(ERROR, error, local))
    if span.peer is not None:
        facts.append(_peer(other, span.peer))
    parts = [
        _UNSIGNED(_I64, 1, trace.trace),
        _name(span.name),
        _UNSIGNED(_I64, 4, trace.span),
        _UNSIGNED(_I64, 5, parent) if parent is not None else b"",
        _ITEMS(_LIST, 6, _STRUCT, len(moments)),
        *[_LONG(_I64, 1, moment) + _word(word, local) for moment, word in moments],
        _ITEMS(_LIST, 8, _STRUCT, len(facts)),
        *facts,
        _DEBUGGED if is_debug(trace) else b"",
        _LONG(_I64, 10, started),
        _LONG(_I64, 11, duration),
        _UNSIGNED(_I64, 12, trace.high) if trace.high else b"",
        b"\0",
    ]
    return b"".join(parts)


def _text(field: int, value: bytes) -> bytes:
    return _FIELD(_STRING, field) + _LENGTH(len(value)) + value


_KIND_OF_BOOL: Final = _FIELD(_I32, 3) + _LENGTH(_KIND_BOOL)
_KIND_OF_STRING: Final = _FIELD(_I32, 3) + _LENGTH(_KIND_STRING)
_DEBUGGED: Final = _FIELD(_BOOL, 9) + b"\x01"

# Most parts of spans repeat themselves from one to the next: what is remembered takes half of the time. Spans bound the lengths of texts.


@lru_cache(maxsize=64)
def _name(name: str) -> bytes:
    return _text(3, utf8(name))


@lru_cache(maxsize=256)
def _word(word: str, host: bytes) -> bytes:
    """An annotation but for its moment."""
    return _text(2, utf8(word)) + host + b"\0"


@lru_cache(maxsize=1024)
def _fact(name: str, value: str, host: bytes) -> bytes:
    return _text(1, utf8(name)) + _text(2, utf8(value)) + _KIND_OF_STRING + _at(4, host) + b"\0"


@lru_cache(maxsize=1024)
def _peer(name: bytes, endpoint: Endpoint) -> bytes:
    """The binary annotation that tells the address of the other side."""
    return _text(1, name) + _text(2, b"\x01") + _KIND_OF_BOOL + _endpoint(endpoint, "", 4) + b"\0"


def _at(field: int, endpoint: bytes) -> bytes:
    """The encoded endpoint as another field."""
    return _FIELD(_STRUCT, field) + endpoint[3:]


@lru_cache(maxsize=1024)
def _endpoint(endpoint: Endpoint | None, service: str, field: int = 3) -> bytes:
    """The struct ``Endpoint`` as a field; an address that is not known is 0.0.0.0."""
    host, port = endpoint if endpoint is not None else ("", 0)
    v4, v6 = b"\0\0\0\0", b""
    try:
        packed = ip_address(host).packed
    except ValueError:
        packed = v4
    if len(packed) == 4:
        v4 = packed
    else:
        v6 = _text(4, packed)
    # the port is a signed number of 16 bits there
    fields = _FIELD(_I32, 1) + v4 + _FIELD(_I16, 2) + port.to_bytes(2, "big") + _text(3, utf8(service)) + v6
    return _FIELD(_STRUCT, field) + fields + b"\0"


# --- the call

_CATEGORY: Final = _text(1, CATEGORY)


def encode_call(spans: Sequence[Span], sequence: int) -> bytes:
    """The frame that calls ``Log`` with these spans."""
    entries = [b"%b%b\0" % (_CATEGORY, _text(2, b2a_base64(encode_span(span), newline=False))) for span in spans]
    head = struct.pack(">I", _VERSION | _CALL) + _LENGTH(3) + b"Log" + struct.pack(">i", sequence)
    body = b"".join((head, _ITEMS(_LIST, 1, _STRUCT, len(entries)), *entries, b"\0"))
    return _LENGTH(len(body)) + body


def decode_reply(body: bytes, sequence: int) -> int:
    """The result code in a frame's body. Raises :class:`MalformedReply`, also with what the collector says of an exception."""
    reader = _Reader(body)
    version = reader.number(">I")
    if version & 0xFFFF0000 != _VERSION:
        raise MalformedReply("it is not a message of Thrift's strict binary protocol")
    reader.text()
    if reader.number(">i") != sequence:
        raise MalformedReply("it answers another call")
    fields = reader.fields()
    if version & 0xFF == _EXCEPTION:
        message = fields.get(1)
        raise MalformedReply(f"the collector says: {_shown(message)}")
    result = fields.get(0)
    if version & 0xFF != _REPLY or not isinstance(result, int):
        raise MalformedReply("it has no result")
    return result


def _shown(message: object) -> str:
    text = message.decode("utf-8", "replace") if isinstance(message, bytes) else "an exception"
    return "".join([letter if letter.isprintable() else " " for letter in text[:160]])


class _Reader:
    """Reads the fields of a flat struct."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise MalformedReply("it ends too early")
        taken, self._at = self._data[self._at : end], end
        return taken

    def number(self, form: str) -> int:
        """A number of fixed size."""
        found: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return found

    def text(self) -> bytes:
        """A string."""
        return self._take(self.number(">i"))

    def fields(self) -> dict[int, int | bytes]:
        """The fields up to the stop: numbers and strings, which is all that a reply has."""
        found: dict[int, int | bytes] = {}
        while (kind := self.number(">b")) != _STOP:
            field = self.number(">h")
            if kind == _STRING:
                found[field] = self.text()
            elif kind in _NUMBERS:
                found[field] = self.number(_NUMBERS[kind])
            else:
                raise MalformedReply(f"it has a field of type {kind}")
        return found


_NUMBERS: Final = {_BOOL: ">b", _I16: ">h", _I32: ">i", _I64: ">q"}
