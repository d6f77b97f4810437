"""Bridges: HTTP/2 in front of services of HTTP/1.1, and HTTP/1.1 in front of those of HTTP/2. Each side is looked at as bytes."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import attrs
import pytest

from support import h2_frames as f
from support import h2_peer
from support.gateways import LOOPBACK, SECONDS, Gateway, gateway, read_all, read_until
from support.h2_gateways import assert_at_rest, h2_gateway
from support.h2_peer import Wire
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration

END = b"\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
RETRYING = {"service": {"responseClassifier": {"kind": "io.l5d.h2.retryableAll5XX"}, "totalTimeoutMs": 8000}}


@pytest.fixture(scope="module")
def module_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("bridge")) as programs:
        yield programs


@pytest.fixture(scope="module")
def downward(module_running: Running) -> Iterator[Gateway]:
    """HTTP/2 to callers, HTTP/1.1 to services."""
    log = module_running.directory / "access.log"
    router = {"client": {"protocol": "http/1.1"}, "h2AccessLog": str(log), **RETRYING}
    gw = h2_gateway(module_running, {}, router=router, name="downward")
    yield gw
    assert_at_rest(gw)
    assert "Traceback" not in gw.process.output()


@pytest.fixture(scope="module")
def upward(module_running: Running) -> Iterator[Gateway]:
    """HTTP/1.1 to callers, HTTP/2 to services."""
    gw = gateway(module_running, {}, router={"client": {"protocol": "h2"}}, name="upward")
    yield gw
    assert "Traceback" not in gw.process.output()


@attrs.define
class Service:
    """A service of HTTP/1.1 whose connections the test serves by hand."""

    listener: socket.socket

    def accept(self) -> socket.socket:
        """The next connection of the gateway."""
        sock = self.listener.accept()[0]
        sock.settimeout(SECONDS)
        return sock

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self.listener.getsockname()[1]
        return port

    def is_asked(self, seconds: float = 0.3) -> bool:
        """Whether somebody connects within that time."""
        self.listener.settimeout(seconds)
        try:
            self.listener.accept()[0].close()
        except TimeoutError:
            return False
        return True


@pytest.fixture
def service() -> Iterator[Service]:
    with closing(socket.create_server((LOOPBACK, 0))) as listener:
        listener.settimeout(SECONDS)
        yield Service(listener)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name of the test's own."""
    return re.sub(r"[^a-z0-9]+", "-", str(request.node.name).lower()).strip("-")


def asking(name: str, method: str = "GET", path: str = "/", *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return ((":method", method), (":scheme", "http"), (":path", path), (":authority", name), *more)


@attrs.define
class Bridge:
    """A caller of HTTP/2 and the service's end of the connection that serves it."""

    wire: Wire
    sock: socket.socket
    head: bytes

    @property
    def lines(self) -> list[str]:
        """The request's lines as the service got them."""
        return self.head.partition(END)[0].decode("latin-1").split("\r\n")

    def field(self, name: str) -> list[str]:
        """The values of a field, in any spelling."""
        pairs = (line.partition(": ") for line in self.lines[1:])
        return [value for key, _, value in pairs if key.lower() == name]

    def answer(self, data: bytes, stream: int = 1) -> dict[str, str]:
        """The service answers; the fields that the caller gets with the end of its stream."""
        self.sock.sendall(data)
        assert self.wire.until(lambda wire: wire.ended(stream)), self.wire.describe()
        return self.wire.fields[stream][-1]


@pytest.fixture
def bridges(downward: Gateway, service: Service, name: str) -> Iterator[list[Bridge]]:
    found: list[Bridge] = []
    downward.serve(name, service.port)
    yield found
    for bridge in found:
        bridge.wire.sock.close()
        bridge.sock.close()


def begin(downward: Gateway, service: Service, bridges: list[Bridge], data: bytes, mark: bytes = END) -> Bridge:
    """Send frames as a caller, and take what comes of them at the service up to ``mark``."""
    wire = Wire.connect(downward.port).send(data)
    sock = service.accept()
    bridges.append(Bridge(wire, sock, b""))
    bridges[-1].head = read_until(sock, mark)
    return bridges[-1]


# --- HTTP/2 in front of HTTP/1.1: requests


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH"])
def test_a_request_without_a_body_keeps_method_and_target(
    method: str, downward: Gateway, service: Service, bridges: list[Bridge], name: str
) -> None:
    found = begin(downward, service, bridges, f.headers(1, asking(name, method, "/a%20b?c=d&e", ("x-a", "1"), ("x-a", "2"))))
    assert found.lines[0] == f"{method} /a%20b?c=d&e HTTP/1.1"
    assert (found.field("host"), found.field("x-a"), found.field("via")) == ([name], ["1", "2"], ["h2 linkerd"])
    assert found.field("l5d-dst-service") == [f"/svc/{name}"]
    assert found.field("content-length") == found.field("transfer-encoding") == []
    told = found.answer(OK)
    assert (told[":status"], told["content-length"], told["via"]) == ("200", "2", "1.1 linkerd")
    assert found.wire.body(1) == b"ok"


def test_a_body_of_known_length_keeps_it(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    data = f.headers(1, asking(name, "POST", "/", ("content-length", "7")), ends=False) + f.data(1, b"1234") + f.data(1, b"567", ends=True)
    found = begin(downward, service, bridges, data, b"1234567")
    assert (found.field("content-length"), found.field("transfer-encoding")) == (["7"], [])
    assert found.head.endswith(END + b"1234567")
    found.answer(OK)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_body_of_unknown_length_is_chunked(method: str, downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    data = f.headers(1, asking(name, method), ends=False) + f.data(1, b"1234", padding=9) + f.data(1, ends=True)
    found = begin(downward, service, bridges, data, b"0\r\n\r\n")
    assert (found.field("content-length"), found.field("transfer-encoding")) == ([], ["chunked"])
    assert re.sub(rb"\r\n", b"", found.head.partition(END)[2]) == b"412340"
    found.answer(OK)


def test_trailers_of_a_request_are_those_of_its_chunked_body(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    trailers = (("x-sum", "42"), ("content-length", "9"), ("x-sum", "43"))
    data = f.headers(1, asking(name, "POST"), ends=False) + f.data(1, b"1234") + f.headers(1, trailers)
    found = begin(downward, service, bridges, data, b"0\r\nx-sum: 42\r\nx-sum: 43\r\n\r\n")
    found.answer(OK)


def test_cookies_are_one_field_again(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    crumbs = (("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3; d=4"))
    found = begin(downward, service, bridges, f.headers(1, asking(name, "GET", "/", *crumbs)))
    assert found.field("cookie") == ["a=1; b=2; c=3; d=4"]
    found.answer(OK)


def test_fields_of_the_hop_stay_behind(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    fields = (("te", "trailers"), ("trailer", "x-sum"), ("proxy-authorization", "Basic eDp5"), ("via", "1.1 edge"))
    found = begin(downward, service, bridges, f.headers(1, asking(name, "GET", "/", *fields)))
    assert [found.field(one) for one in ("te", "trailer", "proxy-authorization", "connection")] == [[], [], [], []]
    assert found.field("via") == ["1.1 edge, h2 linkerd"]
    found.answer(OK)


def test_large_sections_pass_both_ways(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    large = tuple((f"x-{number}", "v" * 1000) for number in range(55))
    block = f.block(asking(name, "GET", "/", *large))
    data = f.headers(1, block[:16000], flags=0)
    rest = [block[at : at + 16000] for at in range(16000, len(block), 16000)]
    data += b"".join(f.continuation(1, part, ends=part is rest[-1]) for part in rest)
    found = begin(downward, service, bridges, data)
    assert sum(line.startswith("x-") for line in found.lines) == 55
    told = found.answer(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + b"".join(b"y-%d: %b\r\n" % (n, b"w" * 1000) for n in range(55)) + b"\r\n"
    )
    assert sum(key.startswith("y-") for key in told) == 55


# --- HTTP/2 in front of HTTP/1.1: answers


def test_chunks_become_data_and_trailers_stay_such(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    found = begin(downward, service, bridges, f.headers(1, asking(name, "GET", "/", ("te", "trailers"))))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nX-Kept: Yes\r\n\r\n"
    trailers = found.answer(head + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 42\r\nContent-Length: 7\r\n\r\n")
    assert found.wire.body(1) == b"abcde"
    assert trailers["x-sum"] == "42"
    assert "content-length" not in trailers
    first = found.wire.fields[1][0]
    assert first["x-kept"] == "Yes"
    assert not {"transfer-encoding", "trailer", "connection", "content-length"} & first.keys()


def test_a_body_that_ends_with_its_connection_ends_its_stream(
    downward: Gateway, service: Service, bridges: list[Bridge], name: str
) -> None:
    found = begin(downward, service, bridges, f.headers(1, asking(name)))
    found.sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end")
    found.sock.shutdown(socket.SHUT_WR)
    assert found.wire.until(lambda wire: wire.ended(1)), found.wire.describe()
    assert found.wire.body(1) == b"until the end"


@pytest.mark.parametrize(
    ("method", "answer", "status", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", "200", "1234"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200", None),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", "204", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n", "304", "1234"),
        ("GET", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", "205", "0"),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "200", "0"),
    ],
)
def test_an_answer_without_a_body_is_one_section(
    method: str,
    answer: bytes,
    status: str,
    length: str | None,
    downward: Gateway,
    service: Service,
    bridges: list[Bridge],
    name: str,
) -> None:
    found = begin(downward, service, bridges, f.headers(1, asking(name, method)))
    told = found.answer(answer)
    assert (told[":status"], told.get("content-length")) == (status, length)
    assert not found.wire.has(f.DATA)


def test_interim_answers_pass_and_a_caller_may_wait_for_one(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    fields = asking(name, "POST", "/", ("expect", "100-continue"), ("content-length", "4"))
    found = begin(downward, service, bridges, f.headers(1, fields, ends=False))
    assert found.field("expect") == ["100-continue"]
    found.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert found.wire.until(lambda wire: 1 in wire.fields)
    assert found.wire.fields[1][0][":status"] == "100"
    found.wire.send(f.data(1, b"body", ends=True))
    assert read_until(found.sock, b"body").endswith(b"body")
    told = found.answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
    assert [section[":status"] for section in found.wire.fields[1]] == ["100", "103", "200"]
    assert found.wire.fields[1][1]["link"] == "</a>"
    assert told[":status"] == "200"


def test_a_service_that_switches_protocols_unasked_is_not_believed(
    downward: Gateway, service: Service, bridges: list[Bridge], name: str
) -> None:
    found = begin(downward, service, bridges, f.headers(1, asking(name, "POST", "/", ("content-length", "0"))))
    service.listener.close()  # nobody is there for a retry
    told = found.answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
    assert told[":status"] == "502"


# --- HTTP/2 in front of HTTP/1.1: what breaks off


def test_an_early_answer_ends_the_request(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    found = begin(downward, service, bridges, f.headers(1, asking(name, "POST"), ends=False) + f.data(1, b"x"), b"1\r\nx\r\n")
    told = found.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert told[":status"] == "413"
    assert found.wire.until(lambda wire: wire.reset(1) is not None)
    assert found.wire.reset(1) == f.NO_ERROR
    found.wire.send(f.data(1, b"late"))
    assert read_all(found.sock) == b""
    found.wire.send(f.ping())
    assert found.wire.until(lambda wire: wire.pongs()), found.wire.describe()


def test_a_caller_that_gives_up_frees_the_service(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    found = begin(downward, service, bridges, f.headers(1, asking(name)))
    found.wire.send(f.rst_stream(1, f.CANCEL))
    assert read_all(found.sock) == b""


def test_an_answer_that_breaks_off_resets_the_stream(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    found = begin(downward, service, bridges, f.headers(1, asking(name)))
    found.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    assert found.wire.until(lambda wire: wire.body(1) == b"half")
    found.sock.close()
    assert found.wire.until(lambda wire: wire.reset(1) is not None), found.wire.describe()
    assert found.wire.reset(1) == f.INTERNAL_ERROR


@pytest.mark.parametrize(
    "broken",
    [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"],
)
def test_no_answer_is_one_of_our_own(broken: bytes, downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    found = begin(downward, service, bridges, f.headers(1, asking(name, "POST", "/", ("content-length", "0"))))
    found.sock.sendall(broken)
    found.sock.close()
    service.listener.close()  # nobody is there for a retry
    assert found.wire.until(lambda wire: wire.ended(1)), found.wire.describe()
    told = found.wire.fields[1][0]
    assert told[":status"] == "502"
    assert told["content-type"] == "text/plain"
    assert "l5d-err" in told
    assert int(told["content-length"]) == len(found.wire.body(1)) > 0


# --- HTTP/2 in front of HTTP/1.1: again, in time, and noted


def test_a_retry_sends_the_same_body_again(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    data = f.headers(1, asking(name, "POST"), ends=False) + f.data(1, b"1234") + f.headers(1, (("x-sum", "42"),))
    found = begin(downward, service, bridges, data, b"x-sum: 42\r\n\r\n")
    found.sock.sendall(b"HTTP/1.1 503 Not Now\r\nContent-Length: 0\r\n\r\n")
    again = read_until(found.sock, b"x-sum: 42\r\n\r\n")
    assert re.sub(rb"l5d-ctx-trace: \S+", b"", again) == re.sub(rb"l5d-ctx-trace: \S+", b"", found.head)
    assert found.answer(OK)[":status"] == "200"


def test_an_endpoint_that_cannot_be_reached_is_left_for_another(downward: Gateway, service: Service, name: str) -> None:
    with closing(socket.create_server((LOOPBACK, 0))) as gone:
        dead = gone.getsockname()[1]
    downward.serve(name, dead, service.port)
    with Wire.connect(downward.port) as wire:
        for stream in range(1, 17, 2):
            wire.send(f.headers(stream, asking(name, "POST"), ends=False) + f.data(stream, b"1234", ends=True))
        served = 0
        while served < 8:
            sock = service.accept()
            assert b"1234" in read_until(sock, b"0\r\n\r\n")
            sock.sendall(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            sock.close()
            served += 1
        assert wire.until(lambda wire: all(wire.status(stream) == 200 for stream in range(1, 17, 2))), wire.describe()


def test_a_deadline_ends_the_request_on_both_sides(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    now = time.time_ns()
    found = begin(downward, service, bridges, f.headers(1, asking(name, "GET", "/", ("l5d-ctx-deadline", f"{now} {now + 500_000_000}"))))
    assert found.wire.until(lambda wire: wire.status(1)), found.wire.describe()
    assert found.wire.status(1) == 503
    assert read_all(found.sock) == b""


def test_the_access_log_tells_the_authority_and_the_protocol(
    downward: Gateway, service: Service, bridges: list[Bridge], name: str, module_running: Running
) -> None:
    fields = asking(name, "POST", '/a"b?c', ("user-agent", "agent/1"), ("referer", "http://x/"), ("content-length", "0"))
    begin(downward, service, bridges, f.headers(1, fields)).answer(OK)
    log = module_running.directory / "access.log"

    def line() -> str:
        return next((each for each in log.read_text().splitlines() if each.startswith(name + " ")), "")

    assert wait_until(lambda: bool(line()), SECONDS)
    time = r"\[\d\d/\d\d/\d{4}:\d\d:\d\d:\d\d \S+\]"
    assert re.fullmatch(rf'{name} 127\.0\.0\.1 - - {time} "POST /a\\x22b\?c HTTP/2" 200 2 "http://x/" "agent/1"', line()), line()


# --- HTTP/2 in front of HTTP/1.1: smuggling

SMUGGLED = "x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n"
HOSTILE: dict[str, tuple[tuple[str, str], ...]] = {
    "line end in a value": (("x-a", SMUGGLED),),
    "line feed in a value": (("x-a", "b\nx-c: d"),),
    "carriage return in a value": (("x-a", "b\rx-c: d"),),
    "zero byte in a value": (("x-a", "b\0c"),),
    "space before a value": (("x-a", " b"),),
    "tab behind a value": (("x-a", "b\t"),),
    "line end in a name": (("x-a: b\r\nx-c", "d"),),
    "colon in a name": (("x-a:b", "c"),),
    "space in a name": (("x a", "b"),),
    "upper-case name": (("X-A", "b"),),
    "empty name": (("", "b"),),
    "byte above 127 in a name": (("x-\xe9", "b"),),
    "coding": (("transfer-encoding", "chunked"),),
    "coding with a space": (("transfer-encoding ", "chunked"),),
    "coding in upper case": (("Transfer-Encoding", "chunked"),),
    "connection": (("connection", "close, x-a"),),
    "upgrade": (("upgrade", "h2c"),),
    "te": (("te", "trailers, chunked"),),
    "two lengths": (("content-length", "0"), ("content-length", "40")),
    "two equal lengths": (("content-length", "0"), ("content-length", "0")),
    "length with a sign": (("content-length", "+0"),),
    "listed lengths": (("content-length", "0, 0"),),
    "length of a body that is not there": (("content-length", "40"),),
    "another host": (("host", "other"),),
    "two hosts": (("host", "web"), ("host", "web")),
    "line end in a cookie": (("cookie", "a=b\r\nx-c: d"),),
    "line end in a cookie's second crumb": (("cookie", "a=b"), ("cookie", "c\r\nx-d: e")),
    "line feed in a context": (("l5d-ctx-dtab", "/a=>/b\nx-c: d"),),
    "pseudo-header field behind others": (("x-a", "b"), (":path", "/other")),
}
PSEUDO = {
    "line end in the method": {":method": "GET / HTTP/1.1\r\nHost: web\r\n\r\nGET"},
    "space in the method": {":method": "GET /smuggled"},
    "empty method": {":method": ""},
    "line end in the path": {":path": "/ HTTP/1.1\r\nHost: web\r\n\r\nGET /smuggled"},
    "space in the path": {":path": "/a HTTP/1.1"},
    "tab in the path": {":path": "/a\tb"},
    "zero byte in the path": {":path": "/a\0"},
    "path without a slash": {":path": "smuggled"},
    "empty path": {":path": ""},
    "line end in the authority": {":authority": "web\r\nx-c: d"},
    "space in the authority": {":authority": "web x"},
    "path in the authority": {":authority": "web/x"},
    "user in the authority": {":authority": "user@web"},
    "line end in the scheme": {":scheme": "http\r\nx: y"},
    "line end in an absolute path": {":path": "http://web/\r\nx: y"},
    "unknown pseudo-header field": {":x": "y"},
    "status": {":status": "200"},
}


def test_nothing_hostile_reaches_the_service_behind_a_bridge(downward: Gateway, service: Service) -> None:
    downward.serve("web", service.port)
    downward.serve("other", service.port)
    wrong = {}
    cases = {case: (*asking("web", "POST"), *more) for case, more in HOSTILE.items()}
    cases |= {case: tuple((dict(asking("web", "POST")) | changed).items()) for case, changed in PSEUDO.items()}
    for case, fields in cases.items():
        with Wire.connect(downward.port) as wire:
            wire.send(f.headers(1, f.plain(fields)))
            wire.until(lambda wire: wire.status(1) or wire.reset(1) is not None or wire.goaway())
            if wire.status(1) not in (0, 400) or not (wire.status(1) or wire.reset(1) == f.PROTOCOL_ERROR):
                wrong[case] = wire.describe()
    assert wrong == {}
    assert not service.is_asked()


def test_hostile_trailers_break_the_request_off(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    for hostile in ((("x-a", SMUGGLED),), (("x-a: b\r\nx-c", "d"),), ((":path", "/"),), (("transfer-encoding", "chunked"),)):
        found = begin(downward, service, bridges, f.headers(1, asking(name, "POST"), ends=False) + f.data(1, b"1"), b"1\r\n1\r\n")
        found.wire.send(f.headers(1, f.plain(hostile)))
        assert found.wire.until(lambda wire: wire.reset(1) == f.PROTOCOL_ERROR), found.wire.describe()
        assert read_all(found.sock) == b""


def test_a_body_shorter_than_it_said_is_never_completed(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    for rest in (f.data(1, b"", ends=True), f.data(1, b"12345678", ends=True), f.headers(1, (("x-a", "b"),))):
        data = f.headers(1, asking(name, "POST", "/", ("content-length", "5")), ends=False) + f.data(1, b"12")
        found = begin(downward, service, bridges, data, b"12")
        found.wire.send(rest)
        assert found.wire.until(lambda wire: wire.reset(1) == f.PROTOCOL_ERROR), found.wire.describe()
        assert read_all(found.sock) == b""


# --- HTTP/1.1 in front of HTTP/2


@attrs.define
class Upward:
    """A caller of HTTP/1.1 and the service's end of the connection that serves it."""

    caller: socket.socket
    wire: Wire

    @property
    def asked(self) -> dict[str, str]:
        """The fields of the first request."""
        assert self.wire.until(lambda wire: wire.fields), self.wire.describe()
        return next(iter(self.wire.fields.values()))[0]

    def answer(self, *frames: bytes, mark: bytes = END) -> bytes:
        """What the caller gets up to ``mark`` when the service sends these frames."""
        self.wire.send(b"".join(frames))
        return read_until(self.caller, mark)


@pytest.fixture
def up(upward: Gateway, service: Service, name: str) -> Iterator[Upward]:
    """The caller's head is still to be sent: the connection to the service is made by a first, answered request."""
    upward.serve(name, service.port)
    with closing(socket.create_connection((LOOPBACK, upward.port), timeout=SECONDS)) as caller:
        caller.sendall(b"GET /first HTTP/1.1\r\nHost: %b\r\n\r\n" % name.encode())
        wire = h2_peer.accept(service.listener)
        assert wire.until(lambda wire: 1 in wire.fields)
        wire.send(f.headers(1, ((":status", "204"),)))
        read_until(caller, END)
        wire.fields.clear()
        wire.frames.clear()
        with wire:
            yield Upward(caller, wire)


def head(name: str, method: str = "GET", path: str = "/", *lines: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {name}", *lines, "", "")).encode("latin-1")


def test_a_request_becomes_fields_in_lower_case(up: Upward, name: str) -> None:
    lines = ("X-Kept: Value", "Connection: close, X-Hop", "X-Hop: 1", "TE: trailers", "Keep-Alive: 5", "Proxy-Connection: close")
    up.caller.sendall(head(name, "PROPFIND", "/a?b", *lines))
    asked = up.asked
    assert (asked[":method"], asked[":path"], asked[":scheme"], asked[":authority"]) == ("PROPFIND", "/a?b", "http", name)
    assert (asked["x-kept"], asked["via"], asked["l5d-dst-service"]) == ("Value", "1.1 linkerd", f"/svc/{name}")
    assert not {"host", "connection", "x-hop", "keep-alive", "proxy-connection", "transfer-encoding"} & asked.keys()
    told = up.answer(f.headers(3, ((":status", "404"), ("x-a", "b"))))
    assert told.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"\r\nx-a: b\r\n" in told
    assert b"\r\nVia: h2 linkerd\r\n" in told


def test_a_body_keeps_its_length(up: Upward, name: str) -> None:
    up.caller.sendall(head(name, "POST", "/", "Content-Length: 4") + b"body")
    assert up.asked["content-length"] == "4"
    assert up.wire.until(lambda wire: wire.ended(3) and wire.body(3) == b"body")
    told = up.answer(f.headers(3, ((":status", "200"), ("content-length", "2")), ends=False), f.data(3, b"ok", ends=True), mark=b"ok")
    assert b"\r\ncontent-length: 2\r\n" in told.lower()


def test_chunks_become_data_and_trailers_stay_such_upward(up: Upward, name: str) -> None:
    up.caller.sendall(head(name, "POST", "/", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n1\r\nd\r\n0\r\nX-Sum: 42\r\n\r\n")
    assert "content-length" not in up.asked
    assert up.wire.until(lambda wire: wire.ended(3))
    assert up.wire.body(3) == b"abcd"
    assert up.wire.fields[3][1] == {"x-sum": "42"}
    frames = f.headers(3, ((":status", "200"),), ends=False), f.data(3, b"xyz"), f.headers(3, (("x-sum", "43"),))
    told = up.answer(*frames, mark=b"x-sum: 43\r\n\r\n")
    assert b"\r\ntransfer-encoding: chunked\r\n" in told.lower()
    assert told.endswith(b"\r\n\r\n3\r\nxyz\r\n0\r\nx-sum: 43\r\n\r\n")


@pytest.mark.parametrize(("method", "status", "length"), [("HEAD", "200", "1234"), ("GET", "204", None), ("GET", "304", "1234")])
def test_an_answer_without_a_body_has_none_upward(method: str, status: str, length: str | None, up: Upward, name: str) -> None:
    up.caller.sendall(head(name, method))
    fields = ((":status", status), *((("content-length", length),) if length else ()))
    assert up.asked[":method"] == method
    told = up.answer(f.headers(3, fields)).lower()
    assert (b"\r\ncontent-length: 1234\r\n" in told) is (length is not None)
    up.caller.sendall(head(name, "GET", "/next", "Connection: close"))
    assert up.wire.until(lambda wire: 5 in wire.fields)
    up.wire.send(f.headers(5, ((":status", "200"), ("content-length", "2")), ends=False) + f.data(5, b"ok", ends=True))
    assert read_all(up.caller).startswith(b"HTTP/1.1 200 OK\r\n"), "nothing of a body came before"


def test_interim_answers_pass_upward(up: Upward, name: str) -> None:
    up.caller.sendall(head(name, "POST", "/", "Content-Length: 4", "Expect: 100-continue"))
    assert up.asked["expect"] == "100-continue"
    assert up.answer(f.headers(3, ((":status", "100"),), ends=False)).startswith(b"HTTP/1.1 100 ")
    up.caller.sendall(b"body")
    assert up.wire.until(lambda wire: wire.ended(3))
    hints = up.answer(f.headers(3, ((":status", "103"), ("link", "</a>")), ends=False))
    assert hints.startswith(b"HTTP/1.1 103 ") and b"\r\nlink: </a>\r\n" in hints
    assert up.answer(f.headers(3, ((":status", "200"), ("content-length", "0")))).startswith(b"HTTP/1.1 200 ")


def test_a_stream_that_was_not_looked_at_is_sent_again(up: Upward, name: str) -> None:
    up.caller.sendall(head(name, "POST", "/", "Content-Length: 4") + b"body")
    assert up.wire.until(lambda wire: wire.ended(3))
    up.wire.send(f.rst_stream(3, f.REFUSED_STREAM))
    assert up.wire.until(lambda wire: wire.ended(5)), up.wire.describe()
    assert up.wire.body(5) == b"body"
    assert up.answer(f.headers(5, ((":status", "200"), ("content-length", "0")))).startswith(b"HTTP/1.1 200 ")


def test_a_reset_before_an_answer_is_an_error_and_within_one_breaks_it_off(up: Upward, name: str) -> None:
    up.caller.sendall(head(name, "POST", "/", "Content-Length: 0"))
    assert up.asked
    told = up.answer(f.rst_stream(3, f.INTERNAL_ERROR))
    assert told.startswith(b"HTTP/1.1 502 ") and b"l5d-err: " in told
    size = int(re.search(rb"(?i)content-length: (\d+)", told)[1])  # type: ignore[index]  # the assertion is that it is there
    body = told.partition(END)[2]
    while len(body) < size:
        body += up.caller.recv(size - len(body))
    up.caller.sendall(head(name))
    assert up.wire.until(lambda wire: 5 in wire.fields)
    up.wire.send(f.headers(5, ((":status", "200"), ("content-length", "10")), ends=False) + f.data(5, b"half") + f.rst_stream(5, f.CANCEL))
    assert read_all(up.caller).endswith(END + b"half")


def test_a_caller_that_leaves_resets_its_stream(up: Upward, name: str) -> None:
    up.caller.sendall(head(name))
    assert up.asked
    up.caller.close()
    assert up.wire.until(lambda wire: wire.reset(3) == f.CANCEL), up.wire.describe()


HOSTILE_ANSWERS: dict[str, tuple[tuple[str, str], ...]] = {
    "line end in a value": ((":status", "200"), ("x-a", "b\r\nx-c: d")),
    "line feed in a value": ((":status", "200"), ("x-a", "b\nx-c: d")),
    "line end in a name": ((":status", "200"), ("x-a: b\r\nx-c", "d")),
    "colon in a name": ((":status", "200"), ("x-a:b", "c")),
    "coding": ((":status", "200"), ("transfer-encoding", "chunked")),
    "connection": ((":status", "200"), ("connection", "close")),
    "two lengths": ((":status", "200"), ("content-length", "0"), ("content-length", "4")),
    "length of a body that is not there": ((":status", "200"), ("content-length", "4")),
    "status with a line end": ((":status", "200 OK\r\nx-a: b"),),
    "status of four digits": ((":status", "2000"),),
    "no status": (("x-a", "b"),),
    "switch of protocols": ((":status", "101"), ("x-a", "b")),
}


@pytest.mark.parametrize("case", HOSTILE_ANSWERS)
def test_nothing_hostile_of_a_service_reaches_the_caller(case: str, up: Upward, name: str) -> None:
    up.caller.sendall(head(name, "POST", "/", "Content-Length: 0"))
    assert up.asked
    told = up.answer(f.headers(3, f.plain(HOSTILE_ANSWERS[case])))
    assert told.startswith(b"HTTP/1.1 502 ")
    assert b"\r\nx-a" not in told.lower() and b"\r\nx-c" not in told.lower()
    assert up.wire.until(lambda wire: wire.reset(3) == f.PROTOCOL_ERROR), up.wire.describe()


# --- pressure

BULK = 64 << 20
ROOM = 24 << 20
"""Bytes that the process may grow by while a body of many times that passes."""


def test_a_slow_caller_holds_a_fast_service_back(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    found = begin(downward, service, bridges, f.headers(1, asking(name)))
    before = downward.resident()
    found.sock.settimeout(0.5)
    found.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BULK)
    sent = 0
    with pytest.raises(TimeoutError):  # nobody gives credit
        while sent < BULK:
            sent += found.sock.send(bytes(1 << 16))
    assert sent < ROOM
    assert downward.resident() - before < ROOM
    with Wire.connect(downward.port) as other:  # nobody else is held up
        other.send(f.headers(1, asking(name)))
        sock = service.accept()
        read_until(sock, END)
        sock.sendall(OK)
        sock.close()
        assert other.until(lambda wire: wire.status(1) == 200)
    found.wire.send(f.rst_stream(1))


def test_a_slow_service_holds_a_fast_caller_back(downward: Gateway, service: Service, bridges: list[Bridge], name: str) -> None:
    found = begin(downward, service, bridges, f.headers(1, asking(name, "POST"), ends=False))
    before = downward.resident()
    sent = [0]
    while found.wire.until(lambda wire: sent[0] < credit(wire), 1.0):
        size = min(16384, credit(found.wire) - sent[0])
        found.wire.send(f.data(1, bytes(size)))
        sent[0] += size
    assert 65535 < sent[0] < ROOM, "credit ends once the service does not read"
    assert downward.resident() - before < ROOM
    found.wire.send(f.rst_stream(1))


def credit(wire: Wire) -> int:
    """How much may be sent on stream 1 by now; that of the connection is larger."""
    return 65535 + sum(frame.number for frame in wire.frames if frame.kind == f.WINDOW_UPDATE and frame.stream == 1)
