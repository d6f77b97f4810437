"""Questions to name servers as bytes, and what is taken for their answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.names import dns

from fakes.name_server import answer, question_in, srv
from meshgw.backends.dns_client import PAYLOAD, Question

NAME = "_http._tcp.web.test"


def asked(name: str = NAME) -> Question:
    return Question(name, dns.SRV)


def test_question_offers_larger_datagrams_where_servers_know_them() -> None:
    message = question_in(asked().encode(edns=True))
    (option,) = message.additional
    assert (option.type, option.cls, option.name.name) == (41, PAYLOAD, b"")
    assert not question_in(asked().encode(edns=False)).additional
    assert (message.recDes, message.queries[0].name.name, message.queries[0].type) == (1, NAME.encode(), dns.SRV)


def test_questions_have_different_numbers() -> None:
    assert len({asked().id for _ in range(100)}) > 90


def test_answer_is_read_whatever_the_case_of_its_name() -> None:
    question = asked()
    said = question_in(question.encode(edns=True))
    said.queries[0].name.name = NAME.upper().encode()
    message = question.decode(answer(said, srv("a.test", 80)))
    assert message is not None
    assert [record.type for record in message.answers] == [dns.SRV]


def test_thousand_records_are_read() -> None:
    question = asked()
    records = [srv(f"n{number}.test", 80) for number in range(1300)]
    message = question.decode(answer(question_in(question.encode(edns=True)), *records))
    assert message is not None
    assert len(message.answers) == 1300


@pytest.mark.parametrize("change", ["id", "name", "kind", "no answer"])
def test_what_answers_another_question_is_no_answer(change: str) -> None:
    question = asked()
    other = question_in(question.encode(edns=True))
    if change == "id":
        other.id = question.id ^ 1
    elif change == "name":
        other.queries[0].name.name = b"evil.test"
    elif change == "kind":
        other.queries[0].type = dns.A
    data = question.encode(edns=True) if change == "no answer" else answer(other, srv("evil.test", 80))
    assert question.decode(data) is None


def test_cut_answer_is_refused_wherever_it_is_cut() -> None:
    question = asked()
    whole = answer(question_in(question.encode(edns=True)), srv("a.test", 80), srv("b.test", 80))
    for length in range(len(whole)):
        with pytest.raises(ValueError):
            question.decode(whole[:length])


def test_name_that_points_to_itself_is_refused() -> None:
    question = asked()
    head = question.id.to_bytes(2, "big") + b"\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00"
    with pytest.raises(ValueError):
        question.decode(head + b"\xc0\x0c\x00\x21\x00\x01")


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    question = asked()
    for message in (data, question.id.to_bytes(2, "big") + data):
        try:
            question.decode(message)
        except ValueError:
            pass
