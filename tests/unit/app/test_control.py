from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from fakes.workers import Wire
from meshgw.admin.errors import CannotDelegate, NoAnswer, Relayed
from meshgw.app import control
from meshgw.app.control import PART, Channel, Part
from meshgw.app.plane import Large
from meshgw.errors import MeshError


class Pair:
    """A master and a worker; the worker answers with what ``answer`` gives for the word, or raises it."""

    def __init__(self, **answers: Any) -> None:
        self.clock = Clock()
        self.asked: list[tuple[str, Any]] = []
        self.answers = answers
        self.lost: list[str] = []
        self.master = Channel("worker one", self._unasked, self.clock, lambda: self.lost.append("worker"))
        self.worker = Channel("the master", self._answer, self.clock, lambda: self.lost.append("master"))
        self.wire = Wire(self.master, self.worker)

    async def _unasked(self, word: str, argument: Any) -> Any:
        return [word, argument]

    async def _answer(self, word: str, argument: Any) -> Any:
        self.asked.append((word, argument))
        answer = self.answers[word]
        if isinstance(answer, Exception):
            raise answer
        return await answer if isinstance(answer, Deferred) else answer

    def ask(self, word: str, argument: Any = None, *, seconds: float = 5.0) -> list[Any]:
        """What became of it: a list that is empty while there is no answer."""
        got: list[Any] = []
        Deferred.fromCoroutine(self.master.ask(word, argument, seconds=seconds)).addBoth(got.append)
        self.flush()
        return got

    def flush(self) -> None:
        while self.wire.flush():
            pass


def error_of(got: list[Any]) -> Exception:
    assert len(got) == 1
    assert isinstance(got[0], Failure)
    found = got[0].value
    assert isinstance(found, Exception)
    return found


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(plain, plain)
def test_question_and_answer_arrive_as_they_were_sent(question: Any, answer: Any) -> None:
    pair = Pair(word=answer)
    assert pair.ask("word", question) == [answer]
    assert pair.asked == [("word", question)]


@given(plain)
def test_large_answer_arrives_as_it_was_sent(answer: Any) -> None:
    assert Pair(word=Large(answer)).ask("word") == [answer]


@pytest.mark.parametrize("length", [PART - 10, PART, PART + 1, 5 * PART, 1_000_000])
def test_a_message_longer_than_amp_allows_travels_in_parts(length: int) -> None:
    text = "é" + "x" * length
    pair = Pair(echo=text)
    assert pair.ask("echo", text) == [text]
    assert pair.asked == [("echo", text)]


def test_both_sides_may_ask_at_the_same_time() -> None:
    pair = Pair(one=Deferred())
    first = pair.ask("one")
    back: list[Any] = []
    Deferred.fromCoroutine(pair.worker.ask("farewell", 7)).addBoth(back.append)
    pair.flush()
    assert (first, back) == ([], [["farewell", 7]])
    pair.answers["one"].callback("late")
    pair.flush()
    assert first == ["late"]


def test_work_on_a_question_that_is_cancelled_is_cancelled_too() -> None:
    ended: list[str] = []
    pair = Pair(profile=Deferred(lambda _: ended.append("profile")), other=Deferred(lambda _: ended.append("other")))
    asked = Deferred.fromCoroutine(pair.master.ask("profile"))
    other = pair.ask("other")
    pair.flush()
    asked.addErrback(lambda failure: failure.trap(CancelledError))
    asked.cancel()
    pair.flush()
    assert ended == ["profile"]
    pair.answers["other"].callback(1)
    pair.flush()
    assert other == [1]


def test_a_question_may_be_cancelled_after_its_answer_has_begun_to_travel() -> None:
    pair = Pair(word="late")
    asked = Deferred.fromCoroutine(pair.master.ask("word"))
    asked.addErrback(lambda failure: failure.trap(CancelledError))
    asked.cancel()
    pair.flush()
    assert pair.asked == [("word", None)]
    assert pair.ask("word") == ["late"]


def test_answers_find_their_questions_in_any_order() -> None:
    pair = Pair(slow=Deferred(), quick=2)
    slow, quick = pair.ask("slow"), pair.ask("quick")
    assert (slow, quick) == ([], [2])
    pair.answers["slow"].callback("x" * 3 * PART)
    pair.flush()
    assert slow == ["x" * 3 * PART]


@pytest.mark.parametrize(
    ("raised", "status", "text"),
    [
        (Relayed(code=418, text="no"), 418, "no"),
        (CannotDelegate(namespace="web"), 501, "Name Interpreter for web cannot show delegations"),
        (MeshError("names cannot be resolved"), 500, "names cannot be resolved"),
        (TimeoutError(), 503, "Request timed out."),
    ],
)
def test_an_error_is_told_with_status_and_text(raised: Exception, status: int, text: str) -> None:
    error = error_of(Pair(word=raised).ask("word"))
    assert isinstance(error, Relayed)
    assert (error.status, str(error)) == (status, text)


def test_a_defect_is_told_without_its_details_and_leaves_the_connection_in_use() -> None:
    pair = Pair(bad=KeyError("secret"), good=1)
    error = error_of(pair.ask("bad"))
    assert isinstance(error, Relayed)
    assert (error.status, str(error)) == (500, "bad: internal error; the log has the details")
    assert pair.ask("good") == [1]


def test_what_is_not_json_is_refused_at_its_side() -> None:
    pair = Pair(good=1)
    assert "could not be asked" in str(error_of(pair.ask("good", object())))
    assert pair.asked == []
    assert pair.ask("good") == [1]


def test_no_answer_in_time_is_an_error_and_a_late_one_is_ignored() -> None:
    pair = Pair(slow=Deferred(), next=1)
    got = pair.ask("slow", seconds=3.0)
    pair.clock.advance(2.9)
    assert got == []
    pair.clock.advance(0.2)
    error = error_of(got)
    assert isinstance(error, NoAnswer)
    assert str(error) == "worker one did not answer within 3 s"
    pair.answers["slow"].callback("too late")
    pair.flush()
    assert len(got) == 1
    assert pair.ask("next") == [1]
    assert not pair.clock.getDelayedCalls(), "no timer is left"


def test_whoever_waits_hears_of_the_end_of_the_connection_and_later_questions_fail_at_once() -> None:
    pair = Pair(slow=Deferred())
    got = pair.ask("slow")
    pair.wire.cut()
    error = error_of(got)
    assert isinstance(error, Relayed)
    assert (error.status, str(error)) == (503, "worker one ended")
    assert str(error_of(pair.ask("slow"))) == "worker one is gone"
    assert sorted(pair.lost) == ["master", "worker"]
    assert not pair.clock.getDelayedCalls()


def test_an_answer_after_the_end_of_the_connection_is_dropped() -> None:
    pair = Pair(slow=Deferred())
    pair.ask("slow")
    pair.wire.cut()
    pair.answers["slow"].callback("x")  # a defect would be logged, and an unhandled one fail the test
    assert pair.wire.flush() is False


def test_too_long_a_message_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MOST_BYTES", 3 * PART)
    pair = Pair(word=None)
    got = pair.ask("word", "x" * 4 * PART)
    assert isinstance(error_of(got), Relayed)
    assert pair.asked == []
    assert pair.lost


def test_unfinished_messages_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MOST_BYTES", 3 * PART)
    pair = Pair()
    for number in range(1, 6):
        pair.master.callRemote(Part, number=number, data=b"x" * PART, last=False).addErrback(lambda _: None)
        pair.flush()
    assert pair.lost


@pytest.mark.parametrize("content", [[], 7, "x", {}, {"error": "x"}, [1, 2, 3]])
def test_a_malformed_message_ends_at_most_the_connection(content: Any) -> None:
    pair = Pair(slow=Deferred())
    pair.ask("slow")
    for number in (1, -1):
        pair.worker.callRemote(Part, number=number, data=json.dumps(content).encode(), last=True).addErrback(lambda _: None)
        pair.flush()
    got = pair.ask("slow", seconds=1.0)
    pair.clock.advance(1.0)
    assert isinstance(error_of(got), (Relayed, NoAnswer))
