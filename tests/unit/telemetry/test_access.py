from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.telemetry.access import AccessLog, ClfClock, ClfFormat
from meshgw.telemetry.rolling import RollPolicy

NOW = b"15/11/2023:12:00:00 UTC"
FORM = re.compile(rb'\S+ \S+ - - \[[^]]+\] "[^"\\]*(?:\\x[0-9A-F]{2}[^"\\]*)*" \d+ (?:\d+|-) "[^"]*" "[^"]*"')


def log_of(path: Path, limit: int = 1000) -> AccessLog:
    return AccessLog(str(path), roll=RollPolicy(), append=True, rotate_count=-1, clock=lambda: 0.0, queue_limit=limit)


def line(
    host: bytes | None, method: bytes, target: bytes, status: int, length: int, referer: bytes | None, agent: bytes | None, known: ClfFormat
) -> bytes:
    origin, request = known.origin(host, "10.0.0.1"), known.request(method, target, b"1.1")
    return origin + NOW + b'] "' + request + known.answer(status, length) + known.agent(referer, agent)


def test_line_has_the_form_of_the_spec() -> None:
    found = line(b"web", b"GET", b"/a?b=c", 200, 12, b"http://x/", b"curl/8", ClfFormat())
    assert found == b'web 10.0.0.1 - - [15/11/2023:12:00:00 UTC] "GET /a?b=c HTTP/1.1" 200 12 "http://x/" "curl/8"'


def test_missing_parts_are_dashes() -> None:
    found = line(None, b"GET", b"/", 204, -1, None, b"", ClfFormat())
    assert found == b'- 10.0.0.1 - - [15/11/2023:12:00:00 UTC] "GET / HTTP/1.1" 204 - "-" "-"'


def test_quotes_and_line_ends_are_escaped() -> None:
    found = line(b"a b", b"GET", b"/", 200, 0, b'x" 200', b"a\r\nforged\\", ClfFormat())
    assert found.startswith(b"a\\x20b ")
    assert found.endswith(b'"x\\x22 200" "a\\x0D\\x0Aforged\\x5C"')


@given(st.binary(), st.binary(), st.binary(), st.binary(), st.binary())
def test_no_request_can_forge_a_line(host: bytes, method: bytes, target: bytes, referer: bytes, agent: bytes) -> None:
    found = line(host, method, target, 200, 1, referer, agent, ClfFormat())
    assert FORM.fullmatch(found) and found.isascii() and found.decode().isprintable()


def test_what_callers_repeat_is_remembered_within_bounds() -> None:
    known = ClfFormat()
    for number in range(5000):
        line(b"h%d" % number, b"GET", b"/%d" % number, 200, number, b"r", b"a%d" % number, known)
    line(b"h" * 600, b"GET", b"/" * 600, 200, 1, b"r", b"a" * 600, known)
    assert known.agents[b"r", b"a4999"] == b'r" "a4999"'
    assert known.requests[b"GET", b"/4999", b"1.1"] == b"GET /4999 HTTP/1.1"
    assert all(0 < len(parts) <= 1024 for parts in (known.origins, known.requests, known.answers, known.agents))
    assert not [part for part in (*known.origins.values(), *known.requests.values(), *known.agents.values()) if len(part) > 600]


def test_clock_is_in_the_system_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    try:
        clock = ClfClock()
        assert clock.at(1_700_049_600.9) == b"15/11/2023:13:00:00 CET"
        assert clock.at(1_700_049_601.0) == b"15/11/2023:13:00:01 CET"
        assert clock.at(1_700_049_600.0) == b"15/11/2023:13:00:00 CET"
        assert ClfClock("%z").at(1_700_049_600.0) == b"15/11/2023:13:00:00 +0100"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_lines_wait_until_they_are_flushed(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    log = log_of(path)
    log.write(b"one")
    log.write(b"two")
    assert not path.exists()
    log.flush()
    assert path.read_bytes() == b"one\ntwo\n"


def test_full_queue_drops_and_counts(tmp_path: Path) -> None:
    log = log_of(tmp_path / "a.log", limit=20)
    for _ in range(10):
        log.write(b"123456789")
    assert log.dropped == 7
    log.flush()
    log.write(b"again")
    log.flush()
    assert (tmp_path / "a.log").read_bytes() == b"123456789\n" * 3 + b"again\n"


def test_unwritable_file_loses_lines_but_never_raises(tmp_path: Path) -> None:
    log = log_of(tmp_path / "none" / "a.log")
    log.write(b"lost")
    log.flush()
    (tmp_path / "none").mkdir()
    log.write(b"kept")
    log.flush()
    assert (tmp_path / "none" / "a.log").read_bytes() == b"kept\n"
