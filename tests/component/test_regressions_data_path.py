from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from twisted.internet.task import Clock

from fakes.transport import HandPoller
from meshgw.core.address import Address, Replicas
from meshgw.core.connecting import Connecting
from meshgw.core.exchange import Exchange
from meshgw.core.stack import WAIT, Pipeline, Role, Wait
from meshgw.core.timers import Wheel
from meshgw.core.transport import HIGH_WATER, Connection, SocketOptions
from meshgw.filters.timeouts import AttemptTimeout
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG
from transcript import DONE, OK, Mesh, Side, asked, gauge, idle

CHUNK = b"8000\r\n" + b"y" * 0x8000 + b"\r\n"
LAST = b"0\r\n\r\n"
UNREADABLE = "fe80::1%none"
"""A literal address of a zone that no machine has: the system refuses it before anything is sent."""


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Mesh() as found:
        yield found


# --- callers that do not read


def waiting(mesh: Mesh) -> int:
    """Bytes that wait for the only caller."""
    [served] = mesh.router.listeners[0]._open
    return sum(map(len, served._connection._out))  # type: ignore[attr-defined]


def test_pipelined_requests_are_not_taken_on_while_their_caller_reads_no_answers(mesh: Mesh) -> None:
    service, count, body = mesh.service("web"), 300, b"x" * 60_000
    caller = mesh.caller().send(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n" * count)
    caller.is_reading = False
    upstream = service.accept()
    answered = 0
    while True:
        mesh.settle()
        if upstream.got.count(b"\r\n\r\n") == answered:
            break
        answered += 1
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert waiting(mesh) <= HIGH_WATER + len(body) + 200
    assert answered < count
    caller.is_reading, caller.last_only = True, True
    while answered < count:
        upstream.expect(b"\r\n\r\n", answered + 1)
        answered += 1
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    mesh.until(lambda: caller.total > count * len(body))
    assert caller.ending == ""


def answer_that_waits(mesh: Mesh, meanwhile: Callable[[], object]) -> Side:
    """A caller for whom the end of its whole answer still waits to be sent; ``meanwhile`` is called while the answer is under way."""
    caller, upstream, _ = asked(mesh)
    caller.is_reading = False
    upstream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    mesh.settle()
    meanwhile()
    while not waiting(mesh):
        upstream.send(CHUNK)
        mesh.pump()
    upstream.send(LAST)
    mesh.settle()
    return caller


def test_an_answer_that_began_before_draining_is_sent_to_its_end(mesh: Mesh) -> None:
    caller = answer_that_waits(mesh, mesh.router.stop_accepting)
    caller.is_reading = True
    assert caller.expect_end() == "eof"
    assert caller.got.endswith(LAST)


def test_draining_does_not_cut_an_answer_that_waits_to_be_read(mesh: Mesh) -> None:
    caller = answer_that_waits(mesh, lambda: None)
    mesh.router.stop_accepting()
    caller.is_reading = True
    assert caller.expect_end() == "eof"
    assert caller.got.endswith(LAST)


def test_a_caller_that_half_closes_gets_the_rest_of_its_answer(mesh: Mesh) -> None:
    caller = answer_that_waits(mesh, lambda: None)
    caller.end()
    mesh.settle()
    caller.is_reading = True
    assert caller.expect_end() == "eof"
    assert caller.got.endswith(LAST)


# --- names that callers choose


def ask_for(mesh: Mesh, names: list[bytes]) -> None:
    """One request for each name, all of which lead to the same client."""
    service = mesh.service()
    mesh.names.addr("/#/all").set(Replicas((Address("127.0.0.1", service.port),)))
    caller = mesh.caller()
    upstream: Side | None = None
    for number, name in enumerate(names):
        mesh.names.tree(Path.of("svc", name.decode())).set(mesh.names.leaf("/#/all"))
        caller.get(host=name)
        upstream = upstream or service.accept()
        upstream.expect(b"\r\n\r\n", number + 1)
        upstream.send(OK)
        caller.expect(DONE, number + 1)


def scopes(mesh: Mesh, *place: str) -> set[str]:
    """The names found in the metrics behind ``place``."""
    names, length = mesh.snapshot().counters, len(place)
    return {found[length] for found in names if len(found) > length and found[:length] == place}


def test_metrics_of_names_that_have_no_route_any_more_are_gone_from_the_client_too() -> None:
    with Mesh("bindingCache: {paths: 3}") as mesh:
        ask_for(mesh, [b"name-%d" % number for number in range(20)])
        latest = {f"svc/name-{number}" for number in (17, 18, 19)}
        assert scopes(mesh, "rt", "http", "service") == latest
        assert scopes(mesh, "rt", "http", "client", "#/all", "service") == latest


def test_nothing_is_kept_of_names_that_found_no_place_in_the_cache() -> None:
    with Mesh("bindingCache: {paths: 2}") as mesh:
        for name in (b"pending-1", b"pending-2"):
            mesh.caller().get(host=name)
        mesh.settle()
        ask_for(mesh, [b"name-%d" % number for number in range(20)])
        assert scopes(mesh, "rt", "http", "bindcache", "path") == {"evicts", "expires", "misses", "oneshots"}
        assert mesh.counter("bindcache/path/oneshots") == 20
        assert scopes(mesh, "rt", "http", "service") == {"svc/pending-1", "svc/pending-2"}
        assert len(mesh.router._services) == 2


def test_a_name_keeps_its_metrics_when_its_own_other_route_is_evicted_for_it() -> None:
    with Mesh("bindingCache: {paths: 1}") as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        caller.get(fields=b"l5d-dtab: /x => /y\r\n")
        upstream.expect(b"\r\n\r\n", 2)
        upstream.send(OK)
        caller.expect(DONE, 2)
        assert mesh.counter("bindcache/path/evicts") == 1
        assert mesh.counter("service/svc/web/requests") == 2


def test_a_route_that_was_used_after_it_was_chosen_for_eviction_stays() -> None:
    with Mesh("bindingCache: {paths: 64}") as mesh:
        names = [b"name-%02d" % number for number in range(64)]
        ask_for(mesh, names)
        for number, name in enumerate(names):  # a clock moved by hand stands still between two requests
            mesh.router.caches.routes[Path.of("svc", name.decode())].used = mesh.clock.seconds() + number
        mesh.clock.advance(100.0)
        mesh.caller().get(host=b"new-1")
        mesh.settle()
        mesh.caller().get(host=b"name-01")
        mesh.settle()
        mesh.caller().get(host=b"new-2")
        mesh.settle()
        gone = {name.decode() for name in names if Path.of("svc", name.decode()) not in mesh.router.caches.routes}
        assert gone == {"name-00", "name-02"}


def test_a_name_whose_binding_raised_is_bound_again_by_the_next_request(mesh: Mesh) -> None:
    bind, mesh.names.bind = mesh.names.bind, _raise  # type: ignore[method-assign, assignment]
    mesh.caller().get().expect(b"HTTP/1.1 500 ")
    mesh.names.bind = bind  # type: ignore[method-assign]
    caller, upstream, _ = asked(mesh)
    upstream.send(OK)
    caller.expect(DONE)


def _raise(*_: object) -> None:
    raise RuntimeError("a defect of an interpreter")


# --- endpoints


def test_an_address_that_the_system_cannot_read_fails_as_a_connect_does(mesh: Mesh) -> None:
    mesh.names.addr("/#/web").set(Replicas((Address(UNREADABLE, 80),)))
    mesh.names.tree(Path.of("svc", "web")).set(mesh.names.leaf("/#/web"))
    answer = mesh.caller().get().expect(b"reason: ")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert idle(mesh)
    assert gauge(mesh, "pool_size") == 0


def test_a_connect_that_was_given_up_tells_nothing_although_it_failed_at_once() -> None:
    clock, poller = Clock(), HandPoller()
    outcomes: list[str] = []

    def done(connection: Connection | None, reason: str) -> None:
        outcomes.append(reason)

    attempt = Connecting(poller, Wheel(clock), done)
    attempt.start(UNREADABLE, 80, 1.0, SocketOptions())
    attempt.cancel()
    clock.advance(2.0)
    poller.close()
    assert outcomes == []


def test_a_request_that_cannot_be_sent_twice_does_not_meet_a_connection_that_was_just_closed(mesh: Mesh) -> None:
    caller, upstream, service = asked(mesh)
    upstream.send(OK)
    caller.expect(DONE)
    mesh.settle()
    upstream.close()
    [served] = mesh.router.listeners[0]._open
    served.data_received(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi")  # type: ignore[attr-defined]  # in the same round
    fresh = service.accept()
    assert fresh.expect(b"hi").startswith(b"POST / ")
    fresh.send(OK)
    caller.expect(DONE, 2)


def test_short_deadlines_of_callers_do_not_make_an_endpoint_look_dead(mesh: Mesh) -> None:
    mesh.service("web")
    for _ in range(8):
        ends = int((mesh.clock.seconds() + 0.1) * 1e9)
        caller = mesh.caller().get(fields=b"l5d-ctx-deadline: 1 %d\r\n" % ends)
        mesh.settle()
        mesh.clock.advance(0.2)
        caller.expect(b"HTTP/1.1 503 ")
    [client] = mesh.router.caches.clients()
    [node] = client.nodes.all()
    assert node.is_available
    assert mesh.counter("client/#/web/failure_accrual/removals") == 0


def test_an_authority_applies_to_its_attempt_only() -> None:
    with Mesh("service: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}") as mesh:
        service = mesh.service()
        mesh.names.addr("/#/web").set(Replicas((Address("127.0.0.1", service.port),), meta={"authority": "inside.example"}))
        mesh.names.tree(Path.of("svc", "web")).set(mesh.names.leaf("/#/web"))
        caller = mesh.caller().get()
        upstream = service.accept()
        upstream.expect(b"\r\n\r\n")
        upstream.send(b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n")
        assert upstream.expect(b"\r\n\r\n", 2).count(b"inside.example") == 2
        upstream.send(b"HTTP/1.1 302 Found\r\nLocation: http://inside.example/a\r\nContent-Length: 0\r\n\r\n")
        assert b"ocation: http://web/a\r\n" in caller.expect(b"\r\n\r\n").replace(b"location", b"Location")


# --- heads of answers made here


def head_size(answer: bytes) -> int:
    return answer.index(b"\r\n\r\n")


def test_an_error_with_a_long_text_fits_the_limits_of_a_gateway_in_front() -> None:
    dtab = "".join(f"/a{number} => /{'b' * 60};" for number in range(200))
    with Mesh(f"dtab: {dtab}") as mesh:
        mesh.names.tree(Path.of("svc", "web")).set(NEG)
        assert head_size(mesh.caller().get().expect(b"outcome: ")) <= 8192


def test_the_complaint_about_a_long_dtab_fits_the_limits_of_a_gateway_in_front(mesh: Mesh) -> None:
    answer = mesh.caller().get(fields=b"l5d-dtab: /a => " + b"!" * 7000 + b"\r\n").expect(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert head_size(answer) <= 8192


@pytest.mark.parametrize("line", [b"Set-Cookie: session=hidden\x01", b" hidden=1", b"Set-Cookie : session=hidden"])
def test_a_complaint_about_a_field_does_not_repeat_its_value(mesh: Mesh, line: bytes) -> None:
    caller, upstream, _ = asked(mesh)
    upstream.send(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n" + line + b"\r\n\r\n")
    answer = caller.expect(b"invalid response")
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"hidden" not in answer


# --- heads of requests


def test_a_header_section_beyond_its_limit_is_refused_where_the_line_may_be_longer() -> None:
    with Mesh("maxHeadersKB: 1\nmaxInitialLineKB: 4") as mesh:
        mesh.service("web")
        mesh.caller().get(fields=b"X-A: " + b"a" * 2000 + b"\r\n").expect(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket, h2c", b"H2C,websocket"])
def test_no_list_of_protocols_hides_an_upgrade_to_http2(mesh: Mesh, upgrade: bytes) -> None:
    fields = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + upgrade + b"\r\nHTTP2-Settings: AAMAAABk\r\n"
    _, upstream, _ = asked(mesh, b"GET / HTTP/1.1\r\nHost: web\r\n" + fields + b"\r\n")
    assert b"upgrade" not in upstream.got.lower()


# --- filters with defects


class Raising:
    """A filter with a defect."""

    def on_request(self, ex: Exchange) -> None:
        raise RuntimeError("a defect of a filter")


class Waiting:
    """A filter that lets every request wait."""

    def __init__(self) -> None:
        self.held: list[Exchange] = []

    def on_request(self, ex: Exchange) -> Wait:
        self.held.append(ex)
        return WAIT


def test_the_limit_of_an_attempt_ends_with_it_when_a_later_filter_raises(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh)
    upstream.send(OK)
    caller.expect(DONE)
    [route] = mesh.router.caches.routes.values()
    choice = route.choices.only
    sound, choice.pipeline = (
        choice.pipeline,
        Pipeline([(Role.TIMEOUT, AttemptTimeout(mesh.wheel, mesh.clock.seconds, 0.5)), (Role.AUTHORITY, Raising())]),
    )
    caller.get().expect(b"HTTP/1.1 500 ")
    choice.pipeline = sound
    caller.get()
    upstream.expect(b"\r\n\r\n", 2)
    mesh.clock.advance(1.0)
    upstream.send(OK)
    caller.expect(DONE, 2)


def test_a_filter_that_raises_after_another_has_waited_is_answered(mesh: Mesh) -> None:
    caller, upstream, _ = asked(mesh)
    upstream.send(OK)
    caller.expect(DONE)
    [route] = mesh.router.caches.routes.values()
    filter_ = Waiting()
    route.pipeline = Pipeline([(Role.FAULTS, filter_), (Role.SUCCESS_CLASS, Raising())])
    caller.get()
    mesh.until(lambda: filter_.held)
    ex = filter_.held[0]
    mesh.wheel.soon(lambda: ex.walk.resume(ex, None))
    caller.expect(b"HTTP/1.1 500 ")
    assert idle(mesh)
