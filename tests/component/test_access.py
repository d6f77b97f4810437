from __future__ import annotations

import threading
from pathlib import Path

import pytest

from meshgw.telemetry.access import AccessLog
from meshgw.telemetry.rolling import LogFileError, RollPolicy


def log_of(path: Path) -> AccessLog:
    return AccessLog(str(path), roll=RollPolicy(), append=True, rotate_count=-1, clock=lambda: 0.0)


def test_stop_writes_everything_in_order(tmp_path: Path) -> None:
    log = log_of(tmp_path / "a.log")
    log.start()
    expected = [b"line %d" % number for number in range(20_000)]
    for line in expected:
        log.write(line)
    log.stop()
    assert (tmp_path / "a.log").read_bytes().splitlines() == expected
    assert log.dropped == 0


def test_stop_ends_the_thread_and_may_be_repeated(tmp_path: Path) -> None:
    before = threading.active_count()
    log = log_of(tmp_path / "a.log")
    log.start()
    log.stop()
    log.stop()
    assert threading.active_count() == before


def test_log_can_be_started_again(tmp_path: Path) -> None:
    log = log_of(tmp_path / "a.log")
    for text in (b"one", b"two"):
        log.start()
        log.write(text)
        log.stop()
    assert (tmp_path / "a.log").read_bytes() == b"one\ntwo\n"


def test_start_reports_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(LogFileError):
        log_of(tmp_path / "none" / "a.log").start()
