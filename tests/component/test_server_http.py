from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from fakes.transport import FakeConnection, FakeWalk
from meshgw.core.exchange import Exchange
from meshgw.core.timers import Wheel
from meshgw.server.http import READ_AHEAD, HttpParameters, HttpServer
from meshgw.wire.headers import FieldTable, Headers

GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


class Served:
    """One caller's connection served over a fake one."""

    def __init__(self, walk: FakeWalk | None = None, *, max_line: int = 4096, max_headers: int = 8192, max_body: int | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.walk = walk or FakeWalk()
        self.connection = FakeConnection()
        self.closed = 0
        parameters = HttpParameters(
            walk=self.walk,
            table=FieldTable(taken=(b"via",)),
            wheel=Wheel(self.clock),
            clock=self.clock.seconds,
            max_line=max_line,
            max_headers=max_headers,
            max_body=max_body,
            on_closed=self._on_closed,
        )
        self.server = HttpServer(self.connection, parameters, ("192.0.2.1", 1), ("192.0.2.2", 2))  # type: ignore[arg-type]
        self.connection.receiver = self.server
        self.server.start()
        self._check(parameters.check)

    def _check(self, seconds: float) -> None:
        """What its listener does for every connection it has."""
        if not self.closed:
            self.clock.callLater(seconds, self._check, seconds)
            if self.clock.seconds():
                self.server.check()

    def _on_closed(self, _server: HttpServer) -> None:
        self.closed += 1

    def receive(self, *pieces: bytes) -> Served:
        for piece in pieces:
            if self.connection.ending:
                break
            self.server.data_received(piece)
        return self

    @property
    def story(self) -> tuple[object, ...]:
        """All that must not depend on how the input was split."""
        return (self.walk.requests, self.walk.headers, self.walk.verdicts, self.connection.written, self.connection.ending)


def holding() -> FakeWalk:
    """A walk that never answers on its own."""
    return FakeWalk(lambda _ex: None)


def answer(ex: Exchange, body: bytes, *, length: int, done: bool = True, status: int = 200, lines: tuple[bytes, ...] = ()) -> None:
    ex.status, ex.status_line, ex.response, ex.response_length = status, b"HTTP/1.1 %d X" % status, Headers(list(lines)), length
    ex.caller.respond(ex, body, done=done)


def answering(body: bytes = b"hello", *, length: int = 5, status: int = 200) -> FakeWalk:
    return FakeWalk(lambda ex: answer(ex, body, length=length, status=status))


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

HOST = b"Host: web\r\n"


def post(fields: bytes, body: bytes = b"", *, version: bytes = b"1.1") -> bytes:
    return b"POST / HTTP/%b\r\n%b%b\r\n%b" % (version, HOST, fields, body)


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


# --- connections


def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order() -> None:
    walk = FakeWalk(lambda ex: answer(ex, ex.target, length=len(ex.target)))
    served = Served(walk).receive(b"".join(b"GET /%d HTTP/1.1\r\nHost: web\r\n\r\n" % number for number in range(50)))
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in served.connection.written.split(b"HTTP/1.1 200 X")[1:]]
    assert bodies == [b"/%d" % number for number in range(50)]
    assert served.connection.ending == ""


def test_a_second_request_waits_for_the_first_answer() -> None:
    held: list[Exchange] = []
    served = Served(FakeWalk(held.append)).receive(GET + GET.replace(b"/ ", b"/2 "))
    assert served.walk.begun == 1
    answer(held[0], b"", length=0)
    assert [request[1] for request in served.walk.requests] == [b"/", b"/2"]


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: Close\r\n", False),
        (b"1.1", b"Connection: x, close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_a_connection_is_kept_as_version_and_options_say(version: bytes, connection: bytes, kept: bool) -> None:
    served = Served(answering()).receive(b"GET / HTTP/%b\r\nHost: web\r\n%b\r\n" % (version, connection))
    assert (served.connection.ending == "") is kept
    assert (b"Connection: close" in served.connection.written) is not kept
    assert (b"Connection: keep-alive" in served.connection.written) is (kept and version == b"1.0")


@pytest.mark.parametrize(
    ("method", "status", "body"), [(b"HEAD", 200, False), (b"GET", 204, False), (b"GET", 304, False), (b"GET", 200, True)]
)
def test_only_answers_that_have_a_body_send_one(method: bytes, status: int, body: bool) -> None:
    served = Served(answering(status=status)).receive(b"%b / HTTP/1.1\r\nHost: web\r\n\r\n" % method)
    assert served.connection.written.endswith(b"\r\n\r\nhello" if body else b"\r\n\r\n")


def test_an_answer_of_unknown_length_is_chunked_for_http11_with_its_trailers() -> None:
    held: list[Exchange] = []
    served = Served(FakeWalk(held.append)).receive(GET)
    answer(held[0], b"one", length=-1, done=False)
    held[0].caller.send_body(b"two!")
    held[0].caller.send_end([b"X-Sum: 7"])
    head, _, body = served.connection.written.partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert body == b"3\r\none\r\n4\r\ntwo!\r\n0\r\nX-Sum: 7\r\n\r\n"
    assert served.connection.ending == ""


def test_an_answer_of_unknown_length_ends_with_the_connection_for_http10() -> None:
    held: list[Exchange] = []
    served = Served(FakeWalk(held.append)).receive(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    answer(held[0], b"one", length=-1, done=False)
    held[0].caller.send_end([b"X-Sum: 7"])
    head, _, body = served.connection.written.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"Connection: close" in head
    assert body == b"one"
    assert served.connection.ending == "close"


def test_an_answer_before_the_end_of_the_request_closes_the_connection_after_it() -> None:
    held: list[Exchange] = []

    class Early(FakeWalk):
        def begin(self, ex: Exchange) -> None:
            super().begin(ex)
            held.append(ex)

    served = Served(Early()).receive(post(b"Content-Length: 10\r\n", b"abc"))
    answer(held[0], b"no", length=2, status=403)
    assert served.connection.written.endswith(b"Connection: close\r\n\r\nno")
    assert served.connection.ending == "close"


def test_interim_answers_reach_http11_callers_only() -> None:
    for version, passed in ((b"1.1", True), (b"1.0", False)):
        held: list[Exchange] = []
        served = Served(FakeWalk(held.append)).receive(b"GET / HTTP/%b\r\nHost: web\r\n\r\n" % version)
        held[0].caller.inform(held[0], b"HTTP/1.1 103 Early Hints", Headers([b"Link: </a>"]))
        assert served.connection.written == (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" if passed else b"")


def test_hop_by_hop_fields_and_those_listed_in_connection_are_left_out() -> None:
    fields = b"Connection: X-Private, close\r\nX-Private: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\nX-Kept: 2\r\n"
    served = Served().receive(b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n")
    assert served.walk.headers == [[b"Host: web", b"X-Kept: 2"]]


def test_an_absolute_target_becomes_origin_form_and_its_authority_the_host() -> None:
    served = Served().receive(b"GET http://other:81/a?b HTTP/1.1\r\nHost: web\r\n\r\n")
    assert served.walk.requests[0][:2] == (b"GET", b"/a?b")
    assert served.walk.headers == [[b"host: other:81"]]


# --- pressure


def test_input_read_ahead_is_bounded() -> None:
    held: list[Exchange] = []
    served = Served(FakeWalk(held.append)).receive(GET)
    served.receive(b"x" * READ_AHEAD)
    assert not served.connection.is_paused
    served.receive(b"x")
    assert served.connection.is_paused


def test_a_body_that_nobody_takes_yet_is_bounded_and_resumes_when_taken() -> None:
    class Waiting(FakeWalk):
        def begin(self, ex: Exchange) -> None:
            self.ex = ex

    walk = Waiting()
    served = Served(walk).receive(post(b"Content-Length: 1000000\r\n"), b"x" * READ_AHEAD)
    assert not served.connection.is_paused
    served.receive(b"x")
    assert served.connection.is_paused
    assert sum(map(len, walk.ex.body or [])) == READ_AHEAD + 1
    walk.ex.caller.resume_body()
    assert not served.connection.is_paused


# --- ends


def test_a_caller_that_closes_cancels_its_request() -> None:
    served = Served(holding()).receive(GET)
    served.server.eof_received()
    assert served.walk.gone == 1
    assert served.connection.ending == "close_now"
    assert served.closed == 1


def test_a_head_that_does_not_arrive_in_time_is_answered_408() -> None:
    served = Served().receive(b"GET / HTTP/1.1\r\nHo")
    served.clock.pump([0.1] * 300)
    assert served.walk.verdicts == []
    for _ in range(120):
        served.receive(b"x")  # a byte now and then does not help
        served.clock.advance(0.1)
    assert served.walk.verdicts == [408]
    assert served.connection.ending == "close"


def test_an_idle_connection_is_closed_after_ten_minutes_without_an_answer() -> None:
    served = Served().receive(GET)
    served.connection.take()
    served.clock.pump([0.5] * 1200)
    assert served.connection.ending == ""
    served.clock.pump([0.5] * 100)
    assert served.connection.ending == "close_now"
    assert served.connection.written == b""


def test_draining_closes_idle_connections_now_and_busy_ones_after_the_answer() -> None:
    idle, held = Served(), list[Exchange]()
    idle.server.drain()
    assert idle.connection.ending == "close_now"
    busy = Served(FakeWalk(held.append)).receive(GET)
    busy.server.drain()
    assert busy.connection.ending == ""
    answer(held[0], b"hello", length=5)
    assert b"Connection: close" in busy.connection.written
    assert busy.connection.ending == "close"


# --- tunnels


class Peer:
    """The other side of a tunnel."""

    def __init__(self) -> None:
        self.received, self.is_full, self.is_ended = b"", False, False

    def send_body(self, data: bytes) -> None:
        self.received += data

    def send_end(self, trailers: list[bytes]) -> None:
        self.is_ended = True


UPGRADE = b"GET / HTTP/%b\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def tunneled(*early: bytes) -> tuple[Served, Peer, Exchange]:
    held: list[Exchange] = []
    served = Served(FakeWalk(held.append)).receive(UPGRADE % b"1.1", *early)
    ex, peer = held[0], Peer()
    assert ex.upgrade == b"websocket"
    ex.status, ex.status_line, ex.response = 101, b"HTTP/1.1 101 Switching Protocols", Headers()
    ex.caller.tunnel(ex, peer, b"first")  # type: ignore[arg-type]
    return served, peer, ex


def test_a_tunnel_passes_early_bytes_of_both_sides() -> None:
    served, peer, _ = tunneled(b"early")
    assert served.connection.written.endswith(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
    served.receive(b" more")
    assert peer.received == b"early more"


def test_a_caller_held_back_before_its_tunnel_is_read_again() -> None:
    served, peer, _ = tunneled(b"x" * (READ_AHEAD + 1))
    assert len(peer.received) == READ_AHEAD + 1
    assert not served.connection.is_paused


def test_a_tunnel_stays_open_until_both_sides_ended() -> None:
    for first_is_caller in (True, False):
        served, peer, ex = tunneled()
        ends = [served.server.eof_received, lambda ex=ex: ex.caller.send_end([])]
        for end in ends if first_is_caller else reversed(ends):
            assert served.connection.ending == ""
            end()
        assert peer.is_ended
        assert served.connection.is_half_closed
        assert served.connection.ending == "close"
        assert served.walk.ended == 1


def test_bytes_in_a_half_closed_tunnel_are_never_read_as_a_request() -> None:
    served, peer, ex = tunneled()
    ex.caller.send_end([])
    served.receive(GET)
    assert peer.received == GET
    assert served.walk.begun == 1


def test_a_full_tunnel_holds_its_caller_back() -> None:
    served, peer, ex = tunneled()
    peer.is_full = True
    served.receive(b"x")
    assert served.connection.is_paused
    ex.caller.resume_body()
    assert not served.connection.is_paused


def test_upgrade_in_http10_is_ignored() -> None:
    held: list[Exchange] = []
    Served(FakeWalk(held.append)).receive(UPGRADE % b"1.0")
    assert held[0].upgrade is None
