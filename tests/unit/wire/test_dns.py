"""DNS messages: questions as another implementation reads them, answers as it writes them, and bytes that are neither."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.names import dns as names

from fakes.name_server import answer, question_in, srv
from meshgw.wire.dns import (
    AAAA,
    CNAME,
    NO_SUCH_NAME,
    SOA,
    SRV,
    A,
    DnsSyntaxError,
    Record,
    Srv,
    encode_question,
    read_answer,
)

NAME = "_http._tcp.web.test"
QUESTION = encode_question(7, NAME, SRV, payload=2048)


def test_question_is_read_by_others() -> None:
    message = question_in(QUESTION)
    (option,) = message.additional
    assert (option.type, option.cls, option.name.name) == (41, 2048, b"")
    assert (message.id, message.recDes, message.queries[0].name.name, message.queries[0].type) == (7, 1, NAME.encode(), SRV)
    assert not question_in(encode_question(7, NAME, A, payload=None)).additional


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64, "ü.test", ".".join(["x" * 60] * 5)])
def test_what_is_no_name_is_not_asked_for(name: str) -> None:
    with pytest.raises(ValueError):
        encode_question(1, name, A, payload=None)


def test_records_of_others_are_read() -> None:
    records = [
        names.RRHeader(NAME, CNAME, names.IN, 9, names.Record_CNAME("real.test", 9)),
        srv("One.Test", 80, priority=1, weight=2, ttl=30),
        srv("", 0),
        names.RRHeader(NAME, A, names.IN, 60, names.Record_A("192.0.2.1", 60)),
        names.RRHeader(NAME, AAAA, names.IN, 60, names.Record_AAAA("2001:db8::1", 60)),
        names.RRHeader(NAME, 16, names.IN, 60, names.Record_TXT(b"text", ttl=60)),
    ]
    found = read_answer(answer(question_in(QUESTION), *records))
    assert (found.id, found.asked, found.is_answer, found.is_truncated, found.can_recurse) == (7, (NAME, SRV), True, False, True)
    assert found.answers == (
        Record(CNAME, 9, None),
        Record(SRV, 30, Srv(1, 2, 80, "one.test")),
        Record(SRV, 60, Srv(0, 0, 0, "")),
        Record(A, 60, bytes((192, 0, 2, 1))),
        Record(AAAA, 60, bytes.fromhex("20010db8000000000000000000000001")),
    )


def test_absence_is_read_with_its_time() -> None:
    message = names.Message(id=7, answer=1, rCode=names.ENAME, maxSize=0)
    soa = names.Record_SOA("ns.test", "root.test", 1, 2, 3, 4, 77, 900)
    message.authority = [names.RRHeader("test", SOA, names.IN, 900, soa)]
    found = read_answer(message.toStr())
    assert (found.code, found.authority) == (NO_SUCH_NAME, (Record(SOA, 900, 77),))


def test_records_of_other_classes_are_passed_over() -> None:
    record = names.RRHeader(NAME, A, names.CH, 60, names.Record_A("192.0.2.1", 60))
    assert read_answer(answer(question_in(QUESTION), record, srv("a.test", 80))).answers == (Record(SRV, 60, Srv(0, 0, 80, "a.test")),)


def test_thousand_records_are_read() -> None:
    found = read_answer(answer(question_in(QUESTION), *(srv(f"n{number}.test", 80) for number in range(1300))))
    assert len(found.answers) == 1300


def test_message_that_is_cut_is_refused_wherever_it_is_cut() -> None:
    whole = answer(question_in(QUESTION), srv("a.test", 80), srv("b.test", 80))
    for length in range(len(whole)):
        with pytest.raises(DnsSyntaxError):
            read_answer(whole[:length])


def test_message_that_says_so_may_be_cut() -> None:
    whole = answer(question_in(QUESTION), srv("a.test", 80), srv("b.test", 80), truncated=True)
    for length in range(12, len(whole)):
        assert read_answer(whole[:length]).is_truncated


def message_with(name: bytes, *, kind: int = A, data: bytes = b"\x01\x02\x03\x04") -> bytes:
    """An answer with one record whose owner has this name."""
    return struct.pack("!6H", 7, 0x8180, 0, 1, 0, 0) + name + struct.pack("!2HIH", kind, 1, 60, len(data)) + data


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"\xc0\x0c", "a name that points forwards"),
        (b"\xc0\x20", "a name that points forwards"),
        (b"\x01a\xc0\x0c", "a name that points forwards"),
        (b"\x40a\x00", "a label of an unknown form"),
        ((b"\x3f" + b"a" * 63) * 4 + b"\x00", "a name that is too long"),
    ],
)
def test_names_that_cannot_be_are_refused(name: bytes, reason: str) -> None:
    with pytest.raises(DnsSyntaxError, match=reason):
        read_answer(message_with(name))


@pytest.mark.parametrize(
    ("kind", "data"), [(A, b"123"), (A, b"12345"), (AAAA, b"1234"), (SRV, b"\0\0\0\0\0\x50\x01a\0\0"), (SOA, b"\0\0\0\0")]
)
def test_data_of_the_wrong_length_is_refused(kind: int, data: bytes) -> None:
    with pytest.raises(DnsSyntaxError):
        read_answer(message_with(b"\0", kind=kind, data=data))


def test_dot_within_a_label_separates_none() -> None:
    data = b"\0\0\0\0\0\x50" + b"\x03a.b\x04test\0"
    (record,) = read_answer(message_with(b"\0", kind=SRV, data=data)).answers
    assert record.data == Srv(0, 0, 80, "a\\.b.test")


@pytest.mark.parametrize(("pointers", "is_read"), [(127, True), (128, False)])
def test_pointers_to_pointers_are_followed_for_a_while(pointers: int, is_read: bool) -> None:
    names_of_questions = b"\0\0\x01\0\x01"
    for number in range(pointers):
        names_of_questions += struct.pack("!3H", 0xC000 | 12 + (5 + 6 * (number - 1) if number else 0), 1, 1)
    message = struct.pack("!6H", 7, 0x8180, pointers + 1, 0, 0, 0) + names_of_questions
    if is_read:
        assert read_answer(message).asked == ("", A)
    else:
        with pytest.raises(DnsSyntaxError, match="too many pointers"):
            read_answer(message)


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for message in (data, struct.pack("!6H", 7, 0x8180, 1, 3, 2, 0) + data):
        try:
            read_answer(message)
        except DnsSyntaxError:
            pass


_LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)


@given(st.lists(st.tuples(st.lists(_LABEL, min_size=1, max_size=5), st.integers(0, 65535)), max_size=10))
def test_services_are_read_as_they_were_written(services: list[tuple[list[str], int]]) -> None:
    found = read_answer(answer(question_in(QUESTION), *(srv(".".join(labels), port) for labels, port in services)))
    read = [(record.data.target, record.data.port) for record in found.answers if isinstance(record.data, Srv)]
    assert read == [(".".join(labels), port) for labels, port in services]
