"""Bodies of answers as they come in: whole ones within a limit, and lines, however they are split on the way."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss

from meshgw.backends.http_bodies import LINE_COST, LONGEST_LINE, MOST_BUFFERED, Body, Lines, Stopped, TooLong


class Sender:
    """The transport of a body."""

    def __init__(self) -> None:
        self.is_paused = self.is_lost = False
        self.pauses = 0

    def pauseProducing(self) -> None:
        self.is_paused = True
        self.pauses += 1

    def resumeProducing(self) -> None:
        self.is_paused = False

    def loseConnection(self) -> None:
        self.is_lost = True


def lines() -> tuple[Lines, Sender]:
    reader, sender = Lines(), Sender()
    reader.makeConnection(sender)  # type: ignore[arg-type]
    return reader, sender


def taken(reader: Lines) -> list[bytes]:
    found = []
    while (line := reader.take()) is not None:
        found.append(line)
    return found


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in zip(places, places[1:], strict=False)]


TEXT = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b"\r", b""]), max_size=30).map(b"".join)


@given(TEXT, st.lists(st.integers(0, 100)))
@example(b"a\r\nb", [2])
@example(b"\n\n", [1])
def test_any_split_gives_the_same_lines(data: bytes, cuts: list[int]) -> None:
    whole, _ = lines()
    whole.dataReceived(data)
    whole.connectionLost(Failure(ResponseDone()))
    parts, _ = lines()
    found = []
    for part in split(data, cuts):
        parts.dataReceived(part)
        found += taken(parts)
    parts.connectionLost(Failure(ResponseDone()))
    found += taken(parts)
    assert found == taken(whole)
    assert b"\n".join(found) == data.replace(b"\r\n", b"\n").removesuffix(b"\n").removesuffix(b"\r" if data.endswith(b"\r") else b"")


@given(TEXT)
def test_what_has_no_end_counts_only_if_the_body_is_complete(data: bytes) -> None:
    complete, broken, unsure = lines()[0], lines()[0], lines()[0]
    for reader, reason in ((complete, ResponseDone()), (broken, ResponseFailed([])), (unsure, PotentialDataLoss())):
        reader.dataReceived(data)
        reader.connectionLost(Failure(reason))
        assert reader.ended is reason
    ended = data.count(b"\n")
    assert len(taken(broken)) == len(taken(unsure)) == ended
    assert len(taken(complete)) == ended + (bool(data) and not data.endswith(b"\n"))


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=300), st.integers(1, 50))
def test_a_sender_is_held_back_by_what_waits_and_let_go_when_it_is_taken(sizes: list[int], most: int) -> None:
    reader, sender = lines()
    for size in sizes * most:
        if sender.is_paused:
            assert len(reader.lines) * (LINE_COST + 3000) >= MOST_BUFFERED
            taken(reader)
            assert not sender.is_paused
        reader.dataReceived(b"x" * size + b"\n")
        assert sum(len(line) + LINE_COST for line in reader.lines) <= MOST_BUFFERED + 3000 + LINE_COST
    taken(reader)
    assert reader._buffered == 0


def test_a_waiting_reader_is_woken_once_by_a_line_and_by_the_end() -> None:
    reader, _ = lines()
    woken: list[object] = []
    reader.more().addCallback(woken.append)
    reader.dataReceived(b"a")
    assert woken == []
    reader.dataReceived(b"\nb\n")
    assert woken == [None] and taken(reader) == [b"a", b"b"]
    reader.more().addCallback(woken.append)
    reader.connectionLost(Failure(ConnectionLost()))
    assert len(woken) == 2 and isinstance(reader.ended, ConnectionLost)


def test_after_the_end_nothing_is_taken_in() -> None:
    reader, sender = lines()
    reader.dataReceived(b"a\npart")
    reader.stop()
    assert sender.is_lost and isinstance(reader.ended, Stopped)
    reader.dataReceived(b"b\n")
    reader.connectionLost(Failure(ResponseDone()))
    assert taken(reader) == [b"a"] and isinstance(reader.ended, Stopped)


def test_a_line_that_is_too_long_ends_it_and_one_that_is_not_does_not() -> None:
    reader, sender = lines()
    reader.dataReceived(b"x" * LONGEST_LINE)
    assert reader.ended is None
    reader.dataReceived(b"x")
    assert isinstance(reader.ended, TooLong) and sender.is_lost and reader.take() is None


def body(most: int) -> tuple[Body, Sender, list[object]]:
    reader, sender, got = Body(most), Sender(), list[object]()
    reader.makeConnection(sender)  # type: ignore[arg-type]
    reader.done.addBoth(got.append)
    return reader, sender, got


@given(st.binary(max_size=50), st.lists(st.integers(0, 100)))
def test_a_body_is_whole_however_it_is_split(data: bytes, cuts: list[int]) -> None:
    reader, _, got = body(50)
    for part in split(data, cuts):
        reader.dataReceived(part)
    assert got == []
    reader.connectionLost(Failure(ResponseDone()))
    assert got == [data]


@pytest.mark.parametrize("most", [0, 10])
def test_a_body_beyond_its_limit_is_refused_at_once_and_only_once(most: int) -> None:
    reader, sender, got = body(most)
    reader.dataReceived(b"x" * (most + 1))
    (failure,) = got
    assert isinstance(failure, Failure) and isinstance(failure.value, TooLong) and sender.is_lost
    reader.dataReceived(b"x")
    reader.connectionLost(Failure(ResponseDone()))
    assert len(got) == 1


def test_a_body_that_nobody_wants_any_more_is_not_read_on() -> None:
    reader, sender, got = body(10)
    reader.done.cancel()
    assert sender.is_lost and len(got) == 1
    reader.dataReceived(b"x" * 11)
    reader.connectionLost(Failure(ResponseFailed([])))
    assert len(got) == 1
