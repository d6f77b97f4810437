"""Requests to a router whose identifier does not know its rules yet: they wait, within the binding timeout."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from twisted.application.service import Service

from h2_dialogue import CALL, H2Mesh
from meshgw.core.exchange import Exchange
from meshgw.errors import RulesUnknown
from meshgw.identify.request import Chain, HeaderToken, Static, UriPath
from meshgw.kinds import Identified, NotYet
from meshgw.naming.path import Path
from support import h2_frames as f
from transcript import DONE, OK, Mesh, idle

SVC = Path.read("/svc")
GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


class Late(Service):
    """Knows nothing until it is told; then it names requests by their Host, or declines, or cannot be asked at all."""

    kind = "late"
    header_names = (b"host",)

    def __init__(self) -> None:
        self.not_yet = NotYet("the list of rules")
        self.state = "wait"
        self.token = HeaderToken(SVC)
        self.asked = 0

    def identify(self, ex: Exchange) -> Identified:
        self.asked += 1
        if self.state == "wait":
            return self.not_yet
        if self.state == "broken":
            raise RulesUnknown(waiting_for="403 from the API")
        return self.token.identify(ex) if self.state == "known" else "no rule"

    def tell(self, state: str) -> None:
        self.state = state
        self.not_yet.resume()

    @property
    def waiting(self) -> int:
        return len(self.not_yet._waiters)


Make = Callable[..., tuple[Mesh, Late]]


@pytest.fixture
def unready() -> Iterator[Make]:
    made: list[Mesh] = []

    def make(router: str = "", server: str = "") -> tuple[Mesh, Late]:
        late = Late()
        made.append(Mesh(router, server, identifier=late))
        return made[-1], late

    yield make
    for mesh in made:
        mesh.__exit__()


def pass_time(mesh: Mesh, seconds: float) -> None:
    for _ in range(round(seconds * 10)):
        mesh.clock.advance(0.1)
    mesh.settle()


def test_a_request_waits_and_then_goes_its_way(unready: Make) -> None:
    mesh, late = unready()
    service = mesh.service("web")
    caller = mesh.caller().send(GET)
    mesh.until(lambda: late.waiting)
    pass_time(mesh, 5.0)
    assert not caller.got
    late.tell("known")
    upstream = service.accept()
    assert b"l5d-dst-service: /svc/web\r\n" in upstream.expect(b"\r\n\r\n")
    upstream.send(OK)
    caller.expect(DONE)
    assert idle(mesh)
    assert mesh.counter("client/#/web/success") == 1
    assert late.asked == 2


def test_a_body_that_comes_meanwhile_is_passed_on_whole(unready: Make) -> None:
    mesh, late = unready()
    service = mesh.service("web")
    size = 30_000_000
    caller = mesh.caller()
    caller.send(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % size)
    mesh.until(lambda: late.waiting)
    taken = caller.offer(b"x" * size)
    assert taken < size, "a request that waits must not be held in memory"
    late.tell("known")
    upstream = service.accept()
    upstream.last_only = True
    caller.send(b"x" * (size - taken))
    mesh.until(lambda: upstream.total >= size)
    upstream.send(OK)
    caller.expect(DONE)


def test_many_wait_and_all_are_answered(unready: Make) -> None:
    mesh, late = unready()
    service = mesh.service("web")
    callers = [mesh.caller().send(GET) for _ in range(20)]
    mesh.until(lambda: late.waiting == 20)
    late.tell("known")
    for _ in callers:
        service.accept().send(OK)
    for caller in callers:
        caller.expect(DONE)


def test_after_the_binding_timeout_it_is_answered_503_with_what_is_awaited(unready: Make) -> None:
    mesh, late = unready("bindingTimeoutMs: 2000")
    caller = mesh.caller().send(GET)
    mesh.until(lambda: late.waiting)
    pass_time(mesh, 1.8)
    assert not caller.got
    pass_time(mesh, 0.4)
    head = caller.expect(b"requests: the list of rules")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Exceeded 2.seconds binding timeout while waiting for the rules that name requests: the list of rules" in head
    assert late.waiting == 0
    late.tell("known")
    mesh.service("web")
    caller.take()
    caller.send(GET)
    mesh.settle()
    assert not caller.ending, "the connection goes on"


def test_time_spent_waiting_counts_for_what_comes_after(unready: Make) -> None:
    mesh, late = unready("bindingTimeoutMs: 2000")
    caller = mesh.caller().send(GET)
    mesh.until(lambda: late.waiting)
    pass_time(mesh, 1.5)
    late.tell("known")  # the name is not bound
    pass_time(mesh, 0.4)
    assert not caller.got
    pass_time(mesh, 0.2)
    assert b"binding timeout while resolving name: /svc/web" in caller.expect(b"/svc/web")


def test_once_it_has_its_name_the_wait_is_over_for_filters_that_wait_themselves(unready: Make) -> None:
    mesh, late = unready("bindingTimeoutMs: 2000\nservice: {faults: {delay: {percent: 100, ms: 1000}}}")
    service = mesh.service("web")
    caller = mesh.caller().send(GET)
    mesh.until(lambda: late.waiting)
    pass_time(mesh, 1.5)
    late.tell("known")
    pass_time(mesh, 1.2)
    service.accept().send(OK)
    caller.expect(DONE)


def test_what_no_rule_fits_is_a_400_and_what_cannot_be_known_a_503(unready: Make) -> None:
    for state, status, reason in (
        ("declined", b"400 Bad Request", b"no rule"),
        ("broken", b"503 Service Unavailable", b"403 from the API"),
    ):
        mesh, late = unready()
        caller = mesh.caller().send(GET)
        mesh.until(lambda late=late: late.waiting)
        late.tell(state)
        assert caller.expect(reason).startswith(b"HTTP/1.1 " + status)


def test_rules_that_are_still_unknown_keep_it_waiting_within_the_same_time(unready: Make) -> None:
    mesh, late = unready("bindingTimeoutMs: 2000")
    caller = mesh.caller().send(GET)
    mesh.until(lambda: late.waiting)
    for _ in range(3):
        pass_time(mesh, 0.6)
        late.tell("wait")
        assert late.waiting == 1
    pass_time(mesh, 0.4)
    caller.expect(b"503 Service Unavailable")


def test_a_caller_that_leaves_is_forgotten(unready: Make) -> None:
    mesh, late = unready()
    caller = mesh.caller().send(GET)
    mesh.until(lambda: late.waiting)
    caller.reset()
    mesh.until(lambda: not late.waiting)
    late.tell("known")
    assert idle(mesh)


def test_the_servers_own_timeout_ends_the_wait(unready: Make) -> None:
    mesh, late = unready(server="timeoutMs: 500")
    caller = mesh.caller().send(GET)
    mesh.until(lambda: late.waiting)
    pass_time(mesh, 0.7)
    caller.expect(b"503 Service Unavailable")
    assert late.waiting == 0


def test_what_waits_at_the_end_is_answered_before_the_connection_closes(unready: Make) -> None:
    mesh, late = unready()
    caller = mesh.caller().send(GET)
    mesh.until(lambda: late.waiting)
    mesh.router.stop_accepting()
    mesh.names.lead("web")
    late.tell("declined")
    caller.expect(b"400 Bad Request")
    assert caller.expect_end() == "eof"


def test_a_stream_that_is_reset_waits_no_longer() -> None:
    late = Late()
    with H2Mesh(identifier=late) as mesh:
        caller = mesh.calling().send(f.headers(1, CALL) + f.headers(3, CALL))
        mesh.until(lambda: late.waiting == 2)
        caller.send(f.rst_stream(1))
        mesh.until(lambda: late.waiting == 1)
        late.tell("declined")
        assert caller.until(lambda side: 3 in side.sections).sections[3][0]["grpc-status"] != "0"
        assert 1 not in caller.sections


def test_the_identifier_is_started_and_stopped_with_its_router(unready: Make) -> None:
    mesh, late = unready()
    assert late.running
    mesh.router.stop()
    assert not late.running


def test_in_a_chain_one_that_cannot_tell_yet_is_waited_for_where_it_stands(unready: Make) -> None:
    late = Late()
    ex = Exchange()
    ex.target, ex.method, ex.version = b"/", b"GET", b"1.1"
    static = Static(SVC, Path.read("/static"))
    assert Chain([UriPath(SVC), late, static]).identify(ex) is late.not_yet
    assert Chain([static, late]).identify(ex) == Path.read("/svc/static")
    late.state = "declined"
    assert Chain([UriPath(SVC), late, static]).identify(ex) == Path.read("/svc/static")
