from __future__ import annotations

import re
from typing import Any

import pytest

from fakes.heads import request
from meshgw.core.exchange import UNKNOWN_LENGTH, Exchange
from meshgw.filters.access import AccessRecord
from meshgw.wire.headers import Headers


class Log:
    zone = "%Z"

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.lines.append(line)


def line(*, status: int = 200, length: int = 5, method: bytes = b"GET", target: bytes = b"/a", **seen: bytes) -> bytes:
    log: Any = Log()
    ex = Exchange()
    ex.peer, ex.method, ex.target, ex.version = ("192.0.2.1", 9), method, target, b"1.1"
    ex.status, ex.response_length = status, length
    ex.headers = Headers([], {name.replace("_", "-").encode(): value for name, value in seen.items()})
    AccessRecord(log, lambda: 0.0).on_end(ex)
    (written,) = log.lines
    return bytes(written)


def test_an_answered_request_has_the_line_of_linkerd() -> None:
    found = line(host=b"web", referer=b"/r", user_agent=b"curl/8")
    assert found.startswith(b"web 192.0.2.1 - - [")
    assert found.endswith(b'] "GET /a HTTP/1.1" 200 5 "/r" "curl/8"')


@pytest.mark.parametrize(
    ("status", "length", "end"),
    [(502, 40, b" 502 40 "), (200, UNKNOWN_LENGTH, b" 200 - "), (0, 0, b" 499 "), (101, UNKNOWN_LENGTH, b" 101 - ")],
    ids=["error", "unknown length", "aborted", "tunnel"],
)
def test_every_kind_of_end_is_told(status: int, length: int, end: bytes) -> None:
    assert end in line(status=status, length=length)


def test_a_request_that_could_not_be_read_has_dashes() -> None:
    found = line(status=400, method=b"", target=b"")
    assert found.startswith(b"- 192.0.2.1 ")
    assert b'"- - HTTP/1.1" 400' in found
    assert found.endswith(b'"-" "-"')


def test_a_caller_cannot_forge_a_line() -> None:
    found = line(host=b"a b", user_agent=b'x" 200 "\\', target=b"/\xff")
    assert found.startswith(b"a\\x20b ")
    assert b"/\\xFF" in found
    assert found.count(b'"') == 6


def test_the_time_is_that_of_the_second_in_which_the_request_ended() -> None:
    log: Any = Log()
    now = [1_700_000_000.75]
    record = AccessRecord(log, lambda: now[0])
    ex = Exchange()
    ex.peer, ex.status = ("192.0.2.1", 9), 200
    for passed in (0.0, 0.2, 0.3, 1.4):
        ex.ended = 50.0 + passed
        now[0] = 1_700_000_000.75 + passed
        record.on_end(ex)
    seconds = [int(re.findall(rb":(\d\d) ", line)[0]) for line in log.lines]
    assert [second - seconds[0] for second in seconds] == [0, 0, 1, 2]


def test_the_line_of_an_ordinary_request_is_logged_unless_its_target_was_changed() -> None:
    log: Any = Log()
    record = AccessRecord(log, lambda: 0.0)
    ex = request(b"GET /a/b HTTP/1.1\r\nHost: web")
    ex.peer, ex.status = ("192.0.2.1", 9), 200
    record.on_end(ex)
    ex.target = b"/b"
    record.on_end(ex)
    assert [line.split(b'"')[1] for line in log.lines] == [b"GET /a/b HTTP/1.1", b"GET /b HTTP/1.1"]
