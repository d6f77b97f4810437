from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fakes.workers import FakeWorker, WorkerReactor, open_files, settings
from meshgw.admin.errors import Relayed
from meshgw.app.job import Job
from meshgw.app.member import END_MARGIN, FASTEST, FIRST_FD, LONGEST_LINE, SLOWEST, START_SECONDS, STEADY_SECONDS, Member
from meshgw.errors import MeshError
from meshgw.telemetry.metrics import Metrics, Snapshot
from meshgw.telemetry.spans import TracingSwitch
from meshgw.telemetry.transfer import to_plain


class Place:
    """One member of a group, with sockets to give to its processes."""

    def __init__(self, **answers: Any) -> None:
        self.reactor = WorkerReactor(**answers)
        self.lines: list[str] = []
        self.levels = {"root": "INFO"}
        self.tracing = TracingSwitch()
        self.restarts = Metrics().counter("restarts")
        self.vacated: list[Member] = []
        self.sockets = [socket.socket() for _ in range(3)]
        job = Job(
            text="routers: []",
            file="m.yml",
            routers=["http"],
            sockets={f"router/http/{index}": sock.fileno() for index, sock in enumerate(self.sockets[:2])},
            shares=(self.sockets[2].fileno(), 2, 1),
            is_first=True,
            user=None,
            levels={},
        )
        self.member = Member(
            "shared-1",
            job,
            settings(self.reactor, self.lines),
            levels=lambda: self.levels,
            tracing=self.tracing,
            restarts=self.restarts,
            vacated=self.vacated.append,
        )

    def start(self) -> list[Any]:
        got: list[Any] = []
        Deferred.fromCoroutine(self.member.start()).addBoth(got.append)
        self.reactor.settle()
        return got

    def end(self, grace: float = 10.0, *, close_idle: bool = False) -> list[Any]:
        got: list[Any] = []
        self.member.end(grace, close_idle=close_idle).addBoth(got.append)
        self.reactor.settle()
        return got

    @property
    def last(self) -> FakeWorker:
        return self.reactor.workers[-1]

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


def waits(place: Place, count: int) -> list[float]:
    """How long the member waits before each of the next ``count`` starts, when its processes end at once."""
    found = []
    for _ in range(count):
        known = len(place.reactor.workers)
        place.last.end(1)
        began = place.reactor.seconds()
        while len(place.reactor.workers) == known:
            place.reactor.pass_time(0.01)
            assert place.reactor.seconds() - began < SLOWEST + 1
        assert len(place.reactor.workers) == known + 1
        found.append(place.reactor.seconds() - began)
    return found


def test_a_worker_gets_descriptors_under_its_own_numbers_and_a_job_that_tells_them(place: Place) -> None:
    assert place.start() == [None]
    worker = place.last
    first, second, shares = (sock.fileno() for sock in place.sockets)
    assert worker.child_fds.keys() == {0, 1, 2, FIRST_FD, 4, 5, 6}
    assert (worker.child_fds[4], worker.child_fds[5], worker.child_fds[6]) == (first, second, shares)
    word, job = worker.asked[0]
    assert word == "begin"
    assert job["sockets"] == {"router/http/0": 4, "router/http/1": 5}
    assert job["shares"] == [6, 2, 1]
    assert (job["text"], job["routers"], job["is_first"]) == ("routers: []", ["http"], True)
    assert place.member.is_running
    assert place.member.channel is not None


def test_a_process_that_cannot_be_made_is_an_error(place: Place) -> None:
    place.reactor.refusal = OSError(11, "Resource temporarily unavailable")
    (failure,) = place.start()
    assert isinstance(failure.value, MeshError)
    assert "worker shared-1 cannot be started: [Errno 11]" in str(failure.value)
    assert not place.member.is_running
    assert place.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("cut_first", [True, False], ids=["connection-first", "process-first"])
def test_a_process_that_ends_while_it_starts_is_an_error_and_nothing_follows(place: Place, cut_first: bool) -> None:
    place.reactor.answers["begin"] = Deferred()
    got = place.start()
    place.last.end(1, cut_first=cut_first)
    place.reactor.pass_time(60)
    assert isinstance(got[0], Failure)
    assert "worker shared-1" in str(got[0].value)
    assert len(place.reactor.workers) == 1
    assert place.restarts.value == 0
    assert place.vacated == [place.member]


def test_a_process_that_refuses_its_job_is_killed_and_its_reason_told(place: Place) -> None:
    place.reactor.answers["begin"] = Relayed(code=500, text="cannot open log file x")
    (failure,) = place.start()
    assert str(failure.value) == "cannot open log file x"
    assert place.last.killed == 1
    assert place.last.is_gone


def test_a_process_that_does_not_serve_in_time_is_killed(place: Place) -> None:
    place.reactor.answers["begin"] = Deferred()
    got = place.start()
    place.reactor.pass_time(START_SECONDS - 0.1)
    assert got == []
    place.reactor.pass_time(0.2)
    assert place.last.killed == 1
    assert isinstance(got[0], Failure)


def test_a_process_that_ended_before_its_answer_was_read_does_not_serve(place: Place) -> None:
    place.reactor.answers["begin"] = answer = Deferred[int]()
    got = place.start()
    worker = place.last
    answer.callback(7)
    worker._protocol.processEnded(Failure(MeshError("x")))  # its answer is still on the way
    place.reactor.settle()
    assert isinstance(got[0], Failure)
    assert place.member.channel is None


@pytest.mark.parametrize("cut_first", [True, False], ids=["connection-first", "process-first"])
def test_a_crashed_worker_is_replaced_once(place: Place, cut_first: bool) -> None:
    place.start()
    place.last.end(killed_by=9, cut_first=cut_first)
    assert place.member.channel is None
    assert place.vacated == [place.member]
    place.reactor.pass_time(SLOWEST)
    assert len(place.reactor.workers) == 2
    assert place.member.channel is not None
    assert place.restarts.value == 1
    assert place.last.asked[0][1]["is_first"] is False, "its files were begun anew by the first"


@pytest.mark.parametrize("cut_first", [True, False], ids=["connection-first", "process-first"])
def test_a_replacement_that_does_not_start_is_followed_by_exactly_one(place: Place, cut_first: bool) -> None:
    place.start()
    place.reactor.answers["begin"] = Deferred()
    place.last.end(1)
    for count in (2, 3, 4):
        place.reactor.pass_time(SLOWEST)
        assert len(place.reactor.workers) == count
        assert len(place.reactor.living) == 1
        place.last.end(1, cut_first=cut_first)
    place.reactor.answers["begin"] = 5
    place.reactor.pass_time(SLOWEST)
    assert len(place.reactor.living) == 1
    assert place.member.channel is not None
    assert place.restarts.value == 4


def test_waits_grow_up_to_a_bound_while_a_worker_keeps_ending(place: Place) -> None:
    place.start()
    found = waits(place, 12)
    assert found[0] == pytest.approx(FASTEST, abs=0.02)
    assert all(later > 1.3 * former for former, later in zip(found[:5:2], found[2:7:2], strict=True))
    assert all(SLOWEST / 2 <= wait <= SLOWEST + 0.02 for wait in found[9:])


def test_a_worker_that_lived_for_a_while_is_replaced_soon(place: Place) -> None:
    place.start()
    waits(place, 8)
    place.reactor.pass_time(STEADY_SECONDS)
    assert waits(place, 2)[0] == pytest.approx(FASTEST, abs=0.02)


def test_a_worker_that_is_told_to_end_finishes_and_has_no_successor(place: Place) -> None:
    place.start()
    got = place.end(10.0)
    assert place.last.asked[-1] == ("retire", 10.0)
    place.reactor.pass_time(9.0)
    assert got == []
    place.last.end()
    place.reactor.pass_time(60.0)
    assert got == [None]
    assert (len(place.reactor.workers), place.last.killed, place.restarts.value) == (1, 0, 0)


def test_a_worker_that_crashes_while_it_ends_has_no_successor(place: Place) -> None:
    place.start()
    got = place.end(10.0, close_idle=True)
    assert place.last.asked[-1] == ("stop", 10.0)
    place.last.end(killed_by=11)
    place.reactor.pass_time(60.0)
    assert (got, len(place.reactor.workers)) == ([None], 1)


def test_a_worker_that_does_not_end_is_killed_after_its_grace(place: Place) -> None:
    place.start()
    place.last.answers["retire"] = Deferred()  # stuck: it does not even answer
    got = place.end(10.0)
    place.reactor.pass_time(10.0 + END_MARGIN - 0.1)
    assert (got, place.last.killed) == ([], 0)
    place.reactor.pass_time(0.2)
    assert (got, place.last.killed) == ([None], 1)


def test_whoever_ends_a_worker_twice_hears_of_it_twice(place: Place) -> None:
    place.start()
    first, second = place.end(10.0), place.end(1.0, close_idle=True)
    assert place.last.words()[-2:] == ["retire", "stop"]
    place.last.end()
    assert (first, second) == ([None], [None])
    assert place.end() == [None], "it has ended already"


def test_ending_a_worker_that_starts_kills_it(place: Place) -> None:
    place.reactor.answers["begin"] = Deferred()
    started = place.start()
    assert place.end() == [None]
    assert isinstance(started[0], Failure)
    place.reactor.pass_time(60.0)
    assert len(place.reactor.workers) == 1


def test_ending_a_worker_that_waits_for_its_restart_cancels_that(place: Place) -> None:
    place.start()
    place.last.end(1)
    assert place.end() == [None]
    place.reactor.pass_time(60.0)
    assert len(place.reactor.workers) == 1


def test_what_a_worker_counted_is_told_at_its_end(place: Place) -> None:
    place.start()
    told: list[Any] = []
    snapshot = Snapshot(counters={("a",): 3})
    Deferred.fromCoroutine(place.last.channel.ask("farewell", to_plain(snapshot))).addBoth(told.append)
    place.reactor.settle()
    assert told == [None]
    assert place.member.snapshot == snapshot


def test_a_worker_may_ask_nothing_else(place: Place) -> None:
    place.start()
    told: list[Any] = []
    Deferred.fromCoroutine(place.last.channel.ask("begin", {})).addBoth(told.append)
    place.reactor.settle()
    assert (told[0].value.status, str(told[0].value)) == (501, "'begin' is not a question that a master knows")


def test_a_level_that_changes_while_a_worker_starts_reaches_it(place: Place) -> None:
    begin = place.reactor.answers["begin"] = Deferred()
    place.start()
    assert place.last.asked[0][1]["levels"] == {"root": "INFO"}
    place.levels = {"root": "INFO", "meshgw.bind": "DEBUG"}
    begin.callback(7)
    place.reactor.settle()
    assert place.last.asked[1:] == [("preset_level", ["meshgw.bind", "DEBUG"])]


def test_tracing_that_is_turned_off_while_a_worker_starts_is_off_there_too(place: Place) -> None:
    begin = place.reactor.answers["begin"] = Deferred()
    place.start()
    assert place.last.asked[0][1]["tracing"] is True
    place.tracing.enabled = False
    begin.callback(7)
    place.reactor.settle()
    assert place.last.asked[1:] == [("set_tracing", False)]


def test_output_is_passed_on_in_whole_lines_each_stream_by_itself(place: Place) -> None:
    place.start()
    worker = place.last
    worker.say(b"one\ntw", 1)
    worker.say(b"Trace", 2)
    worker.say(b"o\n", 1)
    worker.say(b"back\n", 2)
    assert place.lines == ["one\n", "two\n", "Traceback\n"]


def test_output_without_a_line_end_is_passed_on_when_the_process_ends(place: Place) -> None:
    place.start()
    place.last.say(b"last words")
    place.last.end(1)
    assert place.lines == ["last words\n"]


def test_output_without_line_ends_does_not_grow_without_bound(place: Place) -> None:
    place.start()
    for _ in range(3):
        place.last.say(b"x" * (LONGEST_LINE // 2 + 1))
    assert "".join(place.lines).strip() == "x" * (LONGEST_LINE + 2)


def test_no_descriptor_is_left_by_a_start_that_fails(place: Place) -> None:
    place.reactor.refusal = OSError(11, "x")
    before = open_files()
    for _ in range(5):
        place.start()
    assert len(os.listdir("/proc/self/fd")) == before
