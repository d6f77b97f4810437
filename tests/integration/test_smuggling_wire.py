"""Requests that two parsers could read in two ways, sent raw to a running gateway: each is refused, and the service behind sees nothing."""

from __future__ import annotations

import re
import socket
from contextlib import closing

import pytest

from support.gateways import LOOPBACK, SECONDS, Nginx, gateway, parse_answer, read_all, read_until, talk
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n"
POST = b"POST /first HTTP/1.1\r\nHost: web\r\n"
REFUSED_HEADS = {
    "both lengths": (400, POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "both lengths, the other order": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    "two lengths": (400, POST + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n"),
    "two equal lengths": (400, POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
    "listed lengths": (400, POST + b"Content-Length: 0, 0\r\n\r\n"),
    "length with a sign": (400, POST + b"Content-Length: +0\r\n\r\n"),
    "negative length": (400, POST + b"Content-Length: -1\r\n\r\n"),
    "length in hexadecimal": (400, POST + b"Content-Length: 0x0\r\n\r\n"),
    "length without digits": (400, POST + b"Content-Length: \r\n\r\n"),
    "space before the colon": (400, POST + b"Content-Length : 0\r\n\r\n"),
    "space before the colon of the coding": (400, POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    "folded line": (400, POST + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n"),
    "folded coding": (400, POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    "bare line feed": (400, POST + b"X: a\nContent-Length: 40\r\n\r\n"),
    "bare carriage return": (400, POST + b"X: a\rContent-Length: 40\r\n\r\n"),
    "zero byte": (400, POST + b"X: a\0b\r\n\r\n"),
    "line without colon": (400, POST + b"nonsense\r\n\r\n"),
    "empty name": (400, POST + b": nonsense\r\n\r\n"),
    "doubled coding": (501, POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    "coding on two lines": (501, POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
    "unknown coding": (501, POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    "identity": (501, POST + b"Transfer-Encoding: identity\r\n\r\n"),
    "vertical tab before the coding": (400, POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    "coding in HTTP/1.0": (400, b"POST / HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: web\r\nHost: other\r\n\r\n"),
    "host with a path": (400, b"GET / HTTP/1.1\r\nHost: web/x\r\n\r\n"),
    "space in the target": (400, b"GET /a b HTTP/1.1\r\nHost: web\r\n\r\n"),
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: web\r\n\r\n"),
    "space before the request line": (400, b" GET / HTTP/1.1\r\nHost: web\r\n\r\n"),
    "lower-case version": (400, b"GET / http/1.1\r\nHost: web\r\n\r\n"),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "tunnel": (405, b"CONNECT web:443 HTTP/1.1\r\nHost: web\r\n\r\n"),
    "long line": (414, b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: web\r\n\r\n"),
    "long headers": (431, b"GET / HTTP/1.1\r\nHost: web\r\nX: " + b"a" * 9000 + b"\r\n\r\n"),
}
CHUNKS = POST + b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED_BODIES = {
    "negative chunk": CHUNKS + b"-1\r\n\r\n",
    "chunk size with a prefix": CHUNKS + b"0x1\r\na\r\n0\r\n\r\n",
    "chunk size with a space before": CHUNKS + b" 1\r\na\r\n0\r\n\r\n",
    "chunk size with an underscore": CHUNKS + b"1_0\r\na\r\n0\r\n\r\n",
    "huge chunk": CHUNKS + b"FFFFFFFFFFFFFFFFF\r\n",
    "chunk longer than its size": CHUNKS + b"1\r\nab\r\n0\r\n\r\n",
    "chunk ended by a line feed": CHUNKS + b"1\r\na\n0\r\n\r\n",
    "size ended by a line feed": CHUNKS + b"1\na\r\n0\r\n\r\n",
    "line feed in an extension": CHUNKS + b"1;x\n\r\na\r\n0\r\n\r\n",
    "empty size": CHUNKS + b"\r\n\r\n",
    "malformed trailer": CHUNKS + b"0\r\nX : y\r\n\r\n",
}


def test_ambiguous_requests_are_refused_and_nothing_reaches_the_service(running: Running) -> None:
    nginx = Nginx(running, 'location / { return 200 "hello"; }')
    gw = gateway(running, {"web": nginx.port, "other": nginx.port})
    wrong = {}
    cases = REFUSED_HEADS | {name: (400, data) for name, data in REFUSED_BODIES.items()}
    for name, (status, data) in cases.items():
        got = talk(gw.port, data + SMUGGLED)
        lines = got.split(b"\r\n\r\n")[0].lower().split(b"\r\n")
        if len(re.findall(rb"HTTP/1\.1 \d{3} ", got)) != 1 or parse_answer(got).status != status or b"connection: close" not in lines:
            wrong[name] = got
    assert wrong == {}
    assert gw.get("web", "/last").status == 200
    lines = [line["uri"] for line in nginx.wait_seen(1)]
    assert "/smuggled" not in lines
    assert set(lines) <= {"/first", "/last"}, "at most the beginning of a request whose body broke later"
    assert wait_until(lambda: gw.server_metric("connections") == 0, SECONDS)
    assert "Traceback" not in gw.process.output()


def test_a_request_whose_body_breaks_is_never_completed_upstream(running: Running) -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as service:
        gw = gateway(running, {"web": service.getsockname()[1]})
        with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
            caller.sendall(CHUNKS + b"1\r\na\r\n")
            upstream = service.accept()[0]
            upstream.settimeout(SECONDS)
            with closing(upstream):
                begun = read_until(upstream, b"1\r\na\r\n")
                caller.sendall(b"zz\r\n" + SMUGGLED)
                rest = read_all(upstream)
            answer = read_all(caller)
    assert parse_answer(answer).status == 400
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"0\r\n\r\n" not in begun + rest
    assert b"smuggled" not in begun + rest


def test_well_formed_pipelined_requests_are_answered_in_order(running: Running) -> None:
    nginx = Nginx(running, 'location / { return 200 "$request_uri."; }')
    gw = gateway(running, {"web": nginx.port})
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: web\r\n\r\n" % number for number in range(50))
    got = talk(
        gw.port,
        requests
        + b"POST /p HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabcGET /end HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n",
    )
    places = [got.find(b"\r\n\r\n/%d." % number) for number in range(50)] + [got.find(b"/p."), got.find(b"/end.")]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nab",
        b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 0\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ],
    ids=["both lengths", "two lengths", "line feeds", "space before colon", "not HTTP", "switch without being asked"],
)
def test_an_ambiguous_answer_is_a_502_and_its_connection_is_not_used_again(running: Running, answer: bytes) -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as service:
        gw = gateway(running, {"web": service.getsockname()[1]})
        with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            upstream = service.accept()[0]
            upstream.settimeout(SECONDS)
            with closing(upstream):
                read_until(upstream, b"\r\n\r\n")
                upstream.sendall(answer)
                upstream.shutdown(socket.SHUT_WR)
                assert read_all(upstream) == b""
            assert parse_answer(read_all(caller)).status == 502


def test_bytes_after_an_answer_are_not_taken_for_the_next_one(running: Running) -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as service:
        gw = gateway(running, {"web": service.getsockname()[1]})
        with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
            caller.sendall(b"GET /1 HTTP/1.1\r\nHost: web\r\n\r\n")
            first = service.accept()[0]
            first.settimeout(SECONDS)
            with closing(first):
                read_until(first, b"\r\n\r\n")
                poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
                first.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + poison)
                read_until(caller, b"ok")
                caller.sendall(b"GET /2 HTTP/1.1\r\nHost: web\r\n\r\n")
                second = service.accept()[0]
                with closing(second):
                    assert read_until(second, b"\r\n\r\n").startswith(b"GET /2 ")
                    second.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
                    assert read_until(caller, b"\r\n\r\ngood").endswith(b"good")
