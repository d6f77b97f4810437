"""What is taken for the answer to a question to a name server."""

from __future__ import annotations

import pytest

from fakes.name_server import answer, question_in, srv
from meshgw.backends.dns_client import PAYLOAD, Question
from meshgw.wire.dns import SRV, A, Srv

NAME = "_http._tcp.web.test"


def test_questions_have_different_numbers() -> None:
    assert len({Question(NAME, SRV).id for _ in range(100)}) > 90


def test_question_offers_larger_datagrams_if_it_should() -> None:
    question = Question(NAME, SRV)
    assert question_in(question.encode(edns=True)).additional[0].cls == PAYLOAD
    assert not question_in(question.encode(edns=False)).additional


def test_answer_is_ours_whatever_the_case_of_its_name() -> None:
    question = Question(NAME, SRV)
    said = question_in(question.encode(edns=True))
    said.queries[0].name.name = NAME.upper().encode()
    found = question.decode(answer(said, srv("a.test", 80)))
    assert found is not None
    assert [record.data for record in found.answers] == [Srv(0, 0, 80, "a.test")]


@pytest.mark.parametrize("change", ["id", "name", "kind", "no answer"])
def test_what_answers_another_question_is_no_answer(change: str) -> None:
    question = Question(NAME, SRV)
    other = question_in(question.encode(edns=True))
    if change == "id":
        other.id = question.id ^ 1
    elif change == "name":
        other.queries[0].name.name = b"evil.test"
    elif change == "kind":
        other.queries[0].type = A
    data = question.encode(edns=True) if change == "no answer" else answer(other, srv("evil.test", 80))
    assert question.decode(data) is None
