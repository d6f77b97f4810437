from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.served import GET, Served, post
from fakes.transport import FakeWalk
from meshgw.core.exchange import Exchange

# --- any split of the input gives the same story

NAMES = st.sampled_from([b"X-A", b"Accept", b"Cookie", b"Via", b"X-Long"])
VALUES = st.sampled_from([b"", b"1", b"a, b", b"x" * 40, b"caf\xc3\xa9", b"a\tb"])
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4).map(lambda found: b"".join(b"%b: %b\r\n" % field for field in found))
BODIES = st.binary(max_size=30)
TRAILERS = st.sampled_from([b"", b"X-Sum: 9\r\n", b"Content-Length: 3\r\n", b"X-Sum: 9\r\nHost: evil\r\n"])


def coded(pieces: list[bytes], trailers: bytes, extension: bytes) -> bytes:
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece)
    return chunks + b"0\r\n" + trailers + b"\r\n"


chunked_bodies = st.builds(coded, st.lists(BODIES, max_size=3), TRAILERS, st.sampled_from([b"", b";a=b", b' ;q="x"']))
METHODS = st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"PURGE"])
TARGETS = st.sampled_from([b"/", b"/a?b=c", b"http://other/x", b"//", b"/%2e%2e/\xc3\xa9"])
VERSIONS = st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"])


def plain(method: bytes, target: bytes, version: bytes, fields: bytes, body: bytes) -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    keep = b"Connection: keep-alive\r\n" if version == b"1.0" else b""
    return b"%b %b HTTP/%b\r\nHost: web\r\n%b%b%b\r\n%b" % (method, target, version, keep, fields, length, body)


def chunked(method: bytes, target: bytes, fields: bytes, body: bytes) -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n%b\r\n%b" % (method, target, fields, body)


requests = (
    st.builds(plain, METHODS, TARGETS, VERSIONS, FIELDS, BODIES)
    | st.builds(chunked, METHODS, TARGETS, FIELDS, chunked_bodies)
    | st.just(b"\r\n")
)
pipelines = st.lists(requests, min_size=1, max_size=3).map(b"".join)
NOISE = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"Content-Length: 7\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"0\r\n\r\n",
        b"-",
        b"g",
        b"HTTP/2.0",
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A pipeline with some bytes put in, taken out or repeated."""
    data = draw(pipelines)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 3))
        data = data[:at] + draw(NOISE) + data[at + cut :]
    return data


@given(pipelines | mutated() | st.binary(max_size=80), st.lists(st.integers(0, 400), max_size=6))
def test_no_split_of_the_input_changes_what_is_understood(data: bytes, cuts: list[int]) -> None:
    whole = Served(max_body=40).receive(data).story
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges) if start < end]
    assert Served(max_body=40).receive(*pieces).story == whole
    assert Served(max_body=40).receive(*(data[at : at + 1] for at in range(len(data)))).story == whole


@given(pipelines)
def test_a_valid_pipeline_is_never_refused(data: bytes) -> None:
    served = Served().receive(data)
    assert served.walk.verdicts == []
    assert served.connection.ending == ""


PIPELINE = (
    b"POST /a HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc"
    b"\r\nPUT /b HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n"
    b"GET http://other/c?d HTTP/1.1\r\nHost: web\r\n\r\n"
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
)


def test_a_pipeline_split_in_two_at_every_byte_tells_the_same_story() -> None:
    whole = Served().receive(PIPELINE).story
    assert whole[2] == [400]
    for at in range(1, len(PIPELINE)):
        assert Served().receive(PIPELINE[:at], PIPELINE[at:]).story == whole, at


@pytest.mark.parametrize("size", range(1, 12))
def test_limits_judge_the_same_however_the_head_is_split(size: int) -> None:
    for length in range(40, 64):
        head = b"GET /" + b"a" * (length - 24) + b" HTTP/1.1\r\nHost: w\r\nX: " + b"b" * (length - 30) + b"\r\n\r\n"
        pieces = [head[at : at + size] for at in range(0, len(head), size)]
        whole = Served(max_line=44, max_headers=30).receive(head).story
        assert Served(max_line=44, max_headers=30).receive(*pieces).story == whole, length


# --- messages that could be read in two ways


def in_chunks(coding: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked\r\n", coding)


SMUGGLING = {
    "length and coding": (post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "coding and length": (post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"), 400),
    "equal lengths": (post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"abcde"), 400),
    "different lengths": (post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"abcde"), 400),
    "lengths spelled differently": (post(b"Content-Length: 5\r\ncontent-length: 5\r\n", b"abcde"), 400),
    "listed length": (post(b"Content-Length: 5, 5\r\n", b"abcde"), 400),
    "signed length": (post(b"Content-Length: +5\r\n", b"abcde"), 400),
    "negative length": (post(b"Content-Length: -5\r\n"), 400),
    "hexadecimal length": (post(b"Content-Length: 0x5\r\n", b"abcde"), 400),
    "empty length": (post(b"Content-Length:\r\n"), 400),
    "length with underscore": (post(b"Content-Length: 1_0\r\n", b"abcde"), 400),
    "length with a blank inside": (post(b"Content-Length: 1 0\r\n", b"abcde"), 400),
    "length beyond 64 bits": (post(b"Content-Length: 99999999999999999999\r\n"), 400),
    "length of arabic digits": (post("Content-Length: \u0665\r\n".encode()), 400),
    "folded line": (post(b"X: a\r\n b\r\n"), 400),
    "folded with tab": (post(b"X: a\r\n\tTransfer-Encoding: chunked\r\n"), 400),
    "fold after the request line": (b"GET / HTTP/1.1\r\n Host: web\r\n\r\n", 400),
    "bare CR in a value": (post(b"X: a\rTransfer-Encoding: chunked\r\n"), 400),
    "bare LF as line end": (b"GET / HTTP/1.1\nHost: web\n\n", 400),
    "bare LF in a value": (post(b"X: a\nTransfer-Encoding: chunked\r\n"), 400),
    "NUL in a value": (post(b"X: a\0b\r\n"), 400),
    "NUL in a name": (post(b"X\0: a\r\n"), 400),
    "DEL in a value": (post(b"X: a\x7fb\r\n"), 400),
    "blank before the colon": (post(b"Content-Length : 5\r\n", b"abcde"), 400),
    "tab before the colon": (post(b"Transfer-Encoding\t: chunked\r\n"), 400),
    "empty name": (post(b": x\r\n"), 400),
    "no colon": (post(b"Content-Length 5\r\n"), 400),
    "bytes above ASCII in a name": (post(b"\xc3\xa9: x\r\n"), 400),
    "chunked twice in one line": (post(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"), 501),
    "chunked in two lines": (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 501),
    "coding identity": (post(b"Transfer-Encoding: identity\r\n"), 501),
    "coding xchunked": (post(b"Transfer-Encoding: xchunked\r\n"), 501),
    "coding gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "coding in quotes": (post(b'Transfer-Encoding: "chunked"\r\n'), 501),
    "coding with parameter": (post(b"Transfer-Encoding: chunked;q=1\r\n"), 501),
    "coding after vertical tab": (post(b"Transfer-Encoding: \x0bchunked\r\n"), 400),
    "empty coding": (post(b"Transfer-Encoding:\r\n"), 501),
    "coding in HTTP/1.0": (post(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", version=b"1.0"), 400),
    "negative chunk": (in_chunks(b"-1\r\na\r\n0\r\n\r\n"), 400),
    "chunk with prefix": (in_chunks(b"0x1\r\na\r\n0\r\n\r\n"), 400),
    "chunk beyond 60 bits": (in_chunks(b"1" * 17 + b"\r\na\r\n0\r\n\r\n"), 400),
    "chunk with sign": (in_chunks(b"+1\r\na\r\n0\r\n\r\n"), 400),
    "chunk after a blank": (in_chunks(b" 1\r\na\r\n0\r\n\r\n"), 400),
    "chunk with underscore": (in_chunks(b"1_0\r\na\r\n0\r\n\r\n"), 400),
    "empty chunk size": (in_chunks(b"\r\na\r\n0\r\n\r\n"), 400),
    "extension without size": (in_chunks(b";a\r\na\r\n0\r\n\r\n"), 400),
    "no CRLF after the chunk": (in_chunks(b"1\r\nab\r\n0\r\n\r\n"), 400),
    "LF after the chunk": (in_chunks(b"1\r\na\n0\r\n\r\n"), 400),
    "LF after the chunk size": (in_chunks(b"1\na\r\n0\r\n\r\n"), 400),
    "NUL in an extension": (in_chunks(b"1;a=\0\r\na\r\n0\r\n\r\n"), 400),
    "LF in an extension": (in_chunks(b"1;a\nb\r\na\r\n0\r\n\r\n"), 400),
    "text after the size": (in_chunks(b"1 a\r\na\r\n0\r\n\r\n"), 400),
    "endless extension": (in_chunks(b"1;" + b"a" * 2000 + b"\r\na\r\n0\r\n\r\n"), 400),
    "malformed trailer": (in_chunks(b"0\r\nX : a\r\n\r\n"), 400),
    "LF in the trailers": (in_chunks(b"0\r\nX: a\n\r\n"), 400),
    "endless trailers": (in_chunks(b"0\r\n" + b"X: %b\r\n" % (b"a" * 100) * 200 + b"\r\n"), 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "host with blank": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "host with path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "host with user": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    "listed hosts": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "absolute target with user": (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "absolute target without authority": (b"GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "target without slash": (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "asterisk for GET": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tunnel": (b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
    "tunnel to a path": (b"CONNECT /a HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    "lower-case protocol": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "method with blank": (b"GE T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no method": (b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "method with delimiter": (b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "two blanks": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tab in the request line": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "blank in the target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "blank at the line's end": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "NUL in the target": (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "long request line": (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "endless request line": (b"GET /" + b"a" * 5000, 414),
    "large header section": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 2000 + b"\r\n", 431),
    "endless header section": (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000, 431),
}


@pytest.mark.parametrize(("data", "status"), SMUGGLING.values(), ids=SMUGGLING)
def test_an_ambiguous_request_is_refused_and_its_connection_closed(data: bytes, status: int) -> None:
    for pieces in ((data,), tuple(data[at : at + 1] for at in range(len(data)))):
        served = Served().receive(*pieces)
        assert served.walk.verdicts == [status]
        assert served.walk.requests == []
        assert served.connection.written.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nConnection: close\r\n" in served.connection.written
        assert served.connection.ending == "close"


def test_what_follows_a_refused_request_is_not_read() -> None:
    served = Served().receive(SMUGGLING["length and coding"][0] + GET)
    assert served.walk.verdicts == [400]
    assert served.walk.requests == []


def test_bodies_over_the_limit_are_answered_413_in_every_framing() -> None:
    known = post(b"Content-Length: 11\r\n", b"a" * 11)
    for data in (known, in_chunks(b"b\r\n" + b"a" * 11 + b"\r\n0\r\n\r\n"), in_chunks(b"6\r\naaaaaa\r\n6\r\naaaaaa\r\n0\r\n\r\n")):
        for pieces in ((data,), tuple(data[at : at + 1] for at in range(len(data)))):
            served = Served(max_body=10).receive(*pieces)
            assert served.walk.verdicts == [413]
            assert served.connection.ending == "close"


def test_a_body_at_the_limit_is_taken() -> None:
    served = Served(max_body=10).receive(in_chunks(b"a\r\n" + b"a" * 10 + b"\r\n0\r\n\r\n"))
    assert served.walk.requests[0][3] == b"a" * 10


def test_a_refusal_after_a_head_request_has_nothing_of_that_request() -> None:
    seen: list[bytes] = []

    class Watching(FakeWalk):
        def refuse(self, ex: Exchange, error: object) -> None:
            seen.append(ex.method + ex.target + ex.version)
            super().refuse(ex, error)  # type: ignore[arg-type]

    Served(Watching()).receive(b"HEAD /before HTTP/1.1\r\nHost: web\r\n\r\n", b"broken\r\n\r\n")
    assert seen == [b""]


def test_many_empty_lines_before_a_request_are_skipped_in_one_go() -> None:
    served = Served().receive(b"\r\n" * 32_000 + GET)
    assert len(served.walk.requests) == 1
