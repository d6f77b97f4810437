"""What gRPC says in HTTP/2: which requests are calls, statuses and their trailers, timeouts.

Source: the gRPC protocol over HTTP/2 (PROTOCOL-HTTP2), its status codes and its mapping of HTTP statuses.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote_plus

from meshgw.errors import AttemptTimeout, MeshError
from meshgw.wire.headers import Headers

CONTENT_TYPE: Final = b"application/grpc"
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])\Z")
_UNITS: Final = {b"H": 3_600_000_000_000, b"M": 60_000_000_000, b"S": 1_000_000_000, b"m": 1_000_000, b"u": 1000, b"n": 1}
_IN_MICROS: Final = range(100_000_000, 99_999_999_001)
"""Nanoseconds that are told in microseconds: more than eight digits can say, and fewer than need a larger unit."""
_STATUS: Final = re.compile(rb"[0-9]{1,9}\Z")
LONGEST_MESSAGE: Final = 1024


class Status(IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_WRITTEN: Final = {b"grpc-status: %d" % status: int(status) for status in Status}
"""The statuses by the lines that nearly all services tell them in."""

_OF_HTTP: Final = {
    400: Status.INTERNAL,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.UNIMPLEMENTED,
    413: Status.RESOURCE_EXHAUSTED,
    429: Status.UNAVAILABLE,
    431: Status.RESOURCE_EXHAUSTED,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
    504: Status.UNAVAILABLE,
}


def is_grpc(headers: Headers) -> bool:
    """Whether a request is a gRPC call, by its content-type."""
    value = headers.get(b"content-type")
    return value is not None and value.startswith(CONTENT_TYPE) and value[16:17] in (b"", b"+", b";")


def status_of(error: MeshError, http: int) -> Status:
    """The status for an error that is answered with ``http`` otherwise."""
    if error.phase == "time" or isinstance(error, AttemptTimeout):
        return Status.DEADLINE_EXCEEDED
    return _OF_HTTP.get(http, Status.UNKNOWN)


def error_lines(error: MeshError, http: int, response: Headers) -> list[bytes]:
    """The answer to a call that failed here: headers and trailers in one section. The message is what the answer tells anyway."""
    told = response.get(b"l5d-err")
    message = unquote_plus(told.decode("latin-1")) if told is not None else f"HTTP status {http}"
    coded = quote(message[:LONGEST_MESSAGE], safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode("ascii")
    return [b":status: 200", b"content-type: " + CONTENT_TYPE, b"grpc-status: %d" % status_of(error, http), b"grpc-message: " + coded]


def broken_off(error: MeshError) -> list[bytes]:
    """The trailers of an answer that broke off here; how is nobody's business outside."""
    return [b"grpc-status: %d" % status_of(error, error.status), b"grpc-message: the answer broke off"]


def status_in(lines: list[bytes]) -> int | None:
    """The ``grpc-status`` among trailers, as lines; None without a well-formed one."""
    for line in lines:
        status = _WRITTEN.get(line)
        if status is not None:
            return status
        if line[:12].lower() == b"grpc-status:":
            value = line[12:].strip(b" \t")
            return int(value) if _STATUS.match(value) else None
    return None


@lru_cache(maxsize=1024)  # each is asked for twice, and most callers say the same in all their calls
def timeout_ns(value: bytes) -> int | None:
    """The nanoseconds of a ``grpc-timeout``; None for a malformed one."""
    match = _TIMEOUT.match(value)
    return None if match is None else int(match[1]) * _UNITS[match[2]]


def show_timeout(ns: int) -> bytes:
    """The text of a ``grpc-timeout``, rounded up to what eight digits can say."""
    if ns in _IN_MICROS:  # nearly always
        return b"%du" % -(-ns // 1000)
    for unit in (b"n", b"u", b"m", b"S", b"M", b"H"):
        value = -(-ns // _UNITS[unit])
        if value < 100_000_000:
            return b"%d%b" % (value, unit)
    return b"99999999H"
