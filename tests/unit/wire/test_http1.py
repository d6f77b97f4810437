from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.heads import request
from meshgw.core.exchange import Exchange
from meshgw.errors import BadRequest
from meshgw.wire import http1
from meshgw.wire.headers import FieldTable
from meshgw.wire.http1 import CHUNKED, ChunkedBody, FixedBody, ResponseTable, chunk, last_chunk, read_request, read_response, violation

pieces = st.lists(st.binary(min_size=1, max_size=20), max_size=5)


@given(pieces, st.lists(st.sampled_from([b"X-A: 1", b"X-B: 2"]), max_size=2), st.binary(max_size=9), st.integers(1, 9))
def test_what_is_chunked_is_read_back_whatever_the_split(parts: list[bytes], trailers: list[bytes], rest: bytes, size: int) -> None:
    data = b"".join(map(chunk, parts)) + last_chunk(trailers) + rest
    body, found = ChunkedBody(FieldTable()), b""
    for at in range(0, len(data), size):
        found += body.feed(data[at : at + size])
        if body.done:
            assert body.rest + data[at + size :] == rest
            break
    assert body.done
    assert (found, body.trailers, body.error) == (b"".join(parts), trailers, None)


@given(st.binary(max_size=60), st.integers(1, 7))
def test_any_chunked_bytes_give_the_same_body_and_verdict_whatever_the_split(data: bytes, size: int) -> None:
    whole, split = ChunkedBody(FieldTable()), ChunkedBody(FieldTable())
    expected, found = whole.feed(data), b""
    for at in range(0, len(data), size):
        if split.done or split.error:
            break
        found += split.feed(data[at : at + size])
    assert (found, split.done) == (expected, whole.done)
    assert whole.error is None or split.error is not None


def test_framing_and_routing_fields_never_come_in_trailers() -> None:
    body = ChunkedBody(FieldTable(taken=(b"via",)))
    body.feed(b"0\r\nHost: evil\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nVia: x\r\nX-Sum: 1\r\n\r\n")
    assert body.done
    assert body.trailers == [b"X-Sum: 1"]


@given(st.integers(0, 50), st.lists(st.binary(max_size=20), max_size=6))
def test_a_fixed_body_takes_its_bytes_and_leaves_the_rest(length: int, parts: list[bytes]) -> None:
    body, found, data = FixedBody(length), b"", b"".join(parts)
    for at, part in enumerate(parts):
        if not body.done:
            found += body.feed(part)
            if body.done:
                assert body.rest + b"".join(parts[at + 1 :]) == data[length:]
    assert found == data[:length]
    assert body.done is (len(data) >= length)


@given(st.binary(max_size=80))
def test_any_head_is_read_or_refused(block: bytes) -> None:
    try:
        request(block)
    except BadRequest as error:
        assert error.status in (400, 405, 501, 505)
    try:
        read_response(block, ResponseTable(), b"GET", Exchange())
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("status", "method", "length"),
    [(b"200", b"GET", CHUNKED), (b"200", b"HEAD", 0), (b"204", b"GET", 0), (b"304", b"GET", 0), (b"103", b"GET", 0)],
)
def test_some_answers_never_have_a_body(status: bytes, method: bytes, length: int) -> None:
    ex = Exchange()
    read_response(b"HTTP/1.1 " + status + b" X\r\nTransfer-Encoding: chunked", ResponseTable(), method, ex)
    assert ex.response_length == length


def test_an_answer_is_read_alike_when_its_lines_were_seen_before() -> None:
    table = ResponseTable()
    block = b"HTTP/1.0 404 Nope\r\nContent-Length: 7\r\nConnection: keep-alive"
    for _ in range(2):
        ex = Exchange()
        assert read_response(block, table, b"GET", ex)
        assert (ex.status, ex.status_line, ex.response_length) == (404, b"HTTP/1.1 404 Nope", 7)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nA: b\r\n\r", None),
        (b"GET / HTTP/1.1\r", None),
        (b"GET / HTTP/1.1\rA", 400),
        (b"GET /\n", 400),
        (b"G" * 41, 414),
        (b"G" * 40 + b"\r", None),
        (b"G" * 50 + b"\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"a" * 34, 431),
        (b"GET / HTTP/1.1\r\n" + b"a" * 33, None),
        (b"GET / HTTP/1.1\r\nab\nc", 400),
    ],
)
def test_the_first_violation_in_byte_order_is_the_verdict(data: bytes, status: int | None) -> None:
    error = violation(data, -1, 40, 30)
    assert (None if error is None else error.status) == status


METHODS = st.sampled_from([b"GET", b"DELETE", b"OPTIONS", b"CONNECT", b"GE", b"FOOBARS", b"get", b"G.T", b""])
TARGETS = st.sampled_from([b"/", b"/a?b=%20", b"*", b"", b"a", b"http://h/x", b'/"', b"/\\", b"/\xff", b"/\x7f", b"/\x00", b"/\t", b"/a#b"])
PROTOCOLS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.10", b"HTTP/2.0", b"HTTP/1.1 ", b"HTTP/1.1\n", b"http/1.1", b""])
FIELDS = st.lists(
    st.sampled_from([b"Host: h", b"Connection: close", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"A b: c"]), max_size=4
)


@given(METHODS, st.sampled_from([b" ", b"  "]), TARGETS, PROTOCOLS, FIELDS)
def test_ordinary_request_lines_are_read_as_if_judged_piece_by_piece(
    method: bytes, blank: bytes, target: bytes, protocol: bytes, fields: list[bytes]
) -> None:
    line = method + blank + target + b" " + protocol

    def outcome(read: Callable[[Exchange], bool]) -> object:
        ex = Exchange()
        try:
            keep = read(ex)
        except BadRequest as error:
            return (error.status, str(error))
        assert ex.line in (b"", line)
        return (keep, ex.method, ex.target, ex.version, ex.scheme, ex.length, ex.headers.lines, ex.headers.seen)

    whole = b"\r\n".join((line, *fields))
    assert outcome(lambda ex: read_request(whole, FieldTable(), ex)) == outcome(
        lambda ex: http1._read_unusual(line, list(fields), FieldTable(), ex)
    )
