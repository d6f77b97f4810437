from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from meshgw.admin.authentication import Access, Authentication, TokenFile, UnusableToken, authentication
from meshgw.config.models import AdminAuthentication

OPERATOR, READER = "operator-0123456789", "reader-0123456789abc"
PEER = "192.0.2.1"


class Guard:
    """An authentication over two files, with a clock of its own, that counts and keeps what it logs."""

    def __init__(self, directory: Path, *, reader: bool = True) -> None:
        self.operator, self.reader = directory / "operator", directory / "reader"
        self.operator.write_text(f"{OPERATOR}\n")
        self.reader.write_text(f"  {READER}\n")
        self.clock, self.failures = Clock(), 0
        config = AdminAuthentication(operator_token_file=str(self.operator), reader_token_file=str(self.reader) if reader else None)
        self.authentication: Authentication = authentication(config, seconds=self.clock.seconds, failed=self.fail)

    def fail(self) -> None:
        self.failures += 1

    def access(self, *fields: str) -> Access:
        return self.authentication.access(fields, PEER)

    def logged(self, *fields: str) -> list[str]:
        """What a request with these fields makes it log."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        try:
            self.access(*fields)
        finally:
            globalLogPublisher.removeObserver(events.append)
        return [formatEvent(event) for event in events]


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def test_bearer_and_basic_show_the_token(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    shown = [f"Bearer {OPERATOR}", f"bearer   {READER} ", basic("anybody", OPERATOR), basic("", READER)]
    assert [guard.access(field) for field in shown] == [Access.OPERATOR, Access.READER, Access.OPERATOR, Access.READER]
    assert guard.failures == 0


@pytest.mark.parametrize(
    "field",
    [
        "",
        "Bearer",
        "Bearer wrong-token-0123456789",
        f"Bearer {OPERATOR}x",
        f"Bearer {OPERATOR[:-1]}",
        OPERATOR,
        f"Digest {OPERATOR}",
        "Basic ***",
        "Basic " + b64encode(OPERATOR.encode()).decode(),
        basic(OPERATOR, ""),
        "Bearer \u20ac\u0100",
    ],
)
def test_anything_else_is_nobody_and_counted(tmp_path: Path, field: str) -> None:
    guard = Guard(tmp_path)
    assert guard.access(field) is Access.NOBODY
    assert guard.failures == 1


def test_two_headers_are_refused_although_one_is_right(tmp_path: Path) -> None:
    assert Guard(tmp_path).access(f"Bearer {OPERATOR}", "Bearer other") is Access.NOBODY


def test_no_header_is_no_failure(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    assert guard.access() is Access.NOBODY
    assert guard.failures == 0


def test_everybody_may_read_without_a_readers_token(tmp_path: Path) -> None:
    assert Guard(tmp_path, reader=False).authentication.least is Access.READER
    assert Guard(tmp_path).authentication.least is Access.NOBODY


def test_rotated_token_counts_at_once(tmp_path: Path) -> None:
    guard, fresh = Guard(tmp_path), "fresh-0123456789abcd"
    guard.operator.write_text(fresh)
    assert guard.access(f"Bearer {OPERATOR}") is Access.NOBODY
    assert guard.access(f"Bearer {fresh}") is Access.OPERATOR


def test_token_behind_a_swapped_link_counts_at_once(tmp_path: Path) -> None:
    for name, token in (("old", "old-0123456789abcdef"), ("new", "new-0123456789abcdef")):
        (tmp_path / name).write_text(token)
    link = tmp_path / "token"
    link.symlink_to("old")
    token_file = TokenFile("option", str(link))
    assert token_file.matches(b"old-0123456789abcdef")
    (tmp_path / "fresh").symlink_to("new")
    (tmp_path / "fresh").rename(link)
    assert token_file.matches(b"new-0123456789abcdef") and not token_file.matches(b"old-0123456789abcdef")


@pytest.mark.parametrize("content", [None, "", "short"])
def test_last_good_token_stays_when_the_file_goes_bad(tmp_path: Path, content: str | None) -> None:
    guard = Guard(tmp_path)
    guard.operator.unlink()
    if content is not None:
        guard.operator.write_text(content)
    first = guard.logged(f"Bearer {OPERATOR}")
    assert len(first) == 1 and "the last good token stays valid" in first[0] and str(guard.operator) in first[0]
    assert guard.logged(f"Bearer {OPERATOR}") == [], "the same trouble is told once"
    assert guard.access(f"Bearer {OPERATOR}") is Access.OPERATOR


def test_recovered_file_is_complained_of_again_when_it_breaks_again(tmp_path: Path) -> None:
    guard = Guard(tmp_path)
    lines = []
    for content in ("short", OPERATOR, "short"):
        guard.operator.write_text(content)
        lines.append(len(guard.logged(f"Bearer {OPERATOR}")))
    assert lines == [1, 0, 1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "16 to 4096 characters"),
        (b"  123456789012345 \n", "16 to 4096 characters"),
        (b"x" * 4097, "16 to 4096 characters"),
        (b"two words 0123456789", "without spaces"),
        (b"\xff" * 20, "printable ASCII"),
    ],
)
def test_bad_file_ends_the_start_naming_file_and_option_but_not_its_content(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    config = AdminAuthentication(operator_token_file=str(file))
    with pytest.raises(UnusableToken) as caught:
        authentication(config, seconds=Clock().seconds, failed=list)
    text = str(caught.value)
    assert text.startswith(f"admin.authentication.operatorTokenFile: {file}: ") and reason in text
    assert not content or content.decode("latin-1").strip() not in text


def test_readers_file_is_read_at_the_start_too(tmp_path: Path) -> None:
    (tmp_path / "operator").write_text(OPERATOR)
    config = AdminAuthentication(operator_token_file=str(tmp_path / "operator"), reader_token_file=str(tmp_path / "none"))
    with pytest.raises(UnusableToken, match=r"admin\.authentication\.readerTokenFile"):
        authentication(config, seconds=Clock().seconds, failed=list)


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnusableToken, match="not a regular file"):
        TokenFile("option", str(tmp_path / "pipe")).load()


def test_file_that_was_never_read_matches_nothing(tmp_path: Path) -> None:
    assert not TokenFile("option", str(tmp_path / "none")).matches(b"")


def test_wrong_tokens_are_logged_once_a_second_without_the_token(tmp_path: Path) -> None:
    guard, wrong = Guard(tmp_path), "guessed-token-0123456789"
    lines = [guard.logged(f"Bearer {wrong}") for _ in range(3)]
    assert lines == [[f"admin requests with a wrong token: 1, the last from {PEER}"], [], []]
    guard.clock.advance(1.0)
    assert guard.logged(f"Bearer {wrong}") == [f"admin requests with a wrong token: 3, the last from {PEER}"]
    assert guard.failures == 4


def test_clock_that_was_set_back_does_not_silence_the_log(tmp_path: Path) -> None:
    guard, now = Guard(tmp_path), [1000.0]
    guard.authentication = authentication(
        AdminAuthentication(operator_token_file=str(guard.operator)), seconds=lambda: now[0], failed=guard.fail
    )
    assert len(guard.logged("Bearer x")) == 1
    now[0] = 5.0
    assert len(guard.logged("Bearer x")) == 1
