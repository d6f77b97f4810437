from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.telemetry.rolling import LogFile, LogFileError, RollPolicy

DAY = 86400
NOON = 1_700_049_600.0  # 2023-11-15 12:00 UTC, a Wednesday


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def opened(path: Path, now: list[float], policy: str = "never", *, append: bool = True, keep: int = -1) -> LogFile:
    file = LogFile(str(path), roll=RollPolicy.read(policy), append=append, rotate_count=keep, clock=lambda: now[0])
    file.open()
    return file


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("never", RollPolicy()),
        ("HOURLY", RollPolicy(every="hourly")),
        ("Daily", RollPolicy(every="daily")),
        ("weekly(3)", RollPolicy(every="weekly", weekday=3)),
        ("3.megabytes", RollPolicy(every="size", size=3 << 20)),
        ("1.Gigabyte", RollPolicy(every="size", size=1 << 30)),
    ],
)
def test_policy_is_read_in_any_case(text: str, policy: RollPolicy) -> None:
    assert RollPolicy.read(text) == policy


@given(st.text())
def test_other_policies_are_value_errors(text: str) -> None:
    try:
        RollPolicy.read(text)
    except ValueError as error:
        assert "expected never, hourly" in str(error)


def test_size_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="roll policy '0.bytes'"):
        RollPolicy.read("0.bytes")


def test_week_begins_on_the_chosen_day() -> None:
    policy = RollPolicy.read("weekly(4)")  # Wednesday
    assert policy.period(NOON) == (2023, 11, 15)
    assert policy.period(NOON - DAY) == (2023, 11, 8)
    assert policy.period(NOON + 6 * DAY) == (2023, 11, 15)


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"old\n")
    file = opened(path, [NOON])
    file.write([b"a", b"b"])
    file.close()
    assert path.read_bytes() == b"old\na\nb\n"


def test_without_append_the_file_is_truncated_at_start_only(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"old\n")
    file = opened(path, [NOON], append=False)
    file.write([b"a"])
    file.close()
    file.write([b"b"])
    file.close()
    assert path.read_bytes() == b"a\nb\n"


def test_daily_file_is_named_after_its_day(tmp_path: Path) -> None:
    now = [NOON]
    file = opened(tmp_path / "access.log", now, "daily")
    file.write([b"today"])
    now[0] += DAY
    file.write([b"tomorrow"])
    file.close()
    assert (tmp_path / "access-20231115.log").read_bytes() == b"today\n"
    assert (tmp_path / "access.log").read_bytes() == b"tomorrow\n"


def test_file_of_yesterday_is_rolled_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(b"old\n")
    os.utime(path, (NOON - DAY, NOON - DAY))
    file = opened(path, [NOON], "daily")
    file.write([b"new"])
    file.close()
    assert (tmp_path / "access-20231114.log").read_bytes() == b"old\n"
    assert path.read_bytes() == b"new\n"


def test_size_limit_rolls_before_it_is_exceeded(tmp_path: Path) -> None:
    file = opened(tmp_path / "access.log", [NOON], "10.bytes")
    for line in (b"12345", b"678", b"abc"):
        file.write([line])
    file.close()
    assert (tmp_path / "access-20231115-120000.log").read_bytes() == b"12345\n678\n"
    assert (tmp_path / "access.log").read_bytes() == b"abc\n"


def test_rolled_names_do_not_collide(tmp_path: Path) -> None:
    file = opened(tmp_path / "access", [NOON], "4.bytes")
    for line in (b"abc", b"def", b"ghi"):
        file.write([line])
    file.close()
    assert {path.name for path in tmp_path.iterdir()} == {"access", "access-20231115-120000", "access-20231115-120000-1"}


def test_rotate_count_keeps_the_newest(tmp_path: Path) -> None:
    (tmp_path / "access-notes.log").write_bytes(b"not ours")
    now = [NOON]
    file = opened(tmp_path / "access.log", now, "daily", keep=2)
    for day in range(5):
        now[0] = NOON + day * DAY
        file.write([b"x"])
        os.utime(tmp_path / "access.log", (now[0], now[0]))
    file.close()
    assert {path.name for path in tmp_path.iterdir()} == {"access.log", "access-20231117.log", "access-20231118.log", "access-notes.log"}


@pytest.mark.parametrize("removed", [False, True])
def test_file_moved_away_is_opened_anew(tmp_path: Path, removed: bool) -> None:
    path = tmp_path / "access.log"
    file = opened(path, [NOON])
    file.write([b"a"])
    path.rename(tmp_path / "access.log.1")
    if not removed:
        path.touch()
    file.write([b"b"])
    file.close()
    assert path.read_bytes() == b"b\n"


def test_folder_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LogFileError, match="cannot open log file .*/none/access.log: No such file or directory; its folder must exist"):
        opened(tmp_path / "none" / "access.log", [NOON])


def test_standard_output_is_a_target(capfd: pytest.CaptureFixture[str]) -> None:
    file = LogFile("/dev/stdout", roll=RollPolicy.read("1.byte"), append=True, rotate_count=-1, clock=lambda: NOON)
    file.open()
    file.write([b"a", b"b"])
    file.close()
    assert capfd.readouterr().out == "a\nb\n"
