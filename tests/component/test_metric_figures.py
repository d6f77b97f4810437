"""Figures of a router that are worked out from what it does: sizes, waits, local dtabs, time limits, and what stays when a name goes."""

from __future__ import annotations

import pytest

from fakes.answers import GET, pass_time
from meshgw.app.figures import TIMED_EACH
from meshgw.telemetry.histogram import Window
from transcript import DONE, OK, Mesh, Side, asked

IMPATIENT = "headTimeoutMs: 3000\nbodyTimeoutMs: 3000"
ONE_CONNECTION = "client: {hostConnectionPool: {maxSize: 1}}"


def window(mesh: Mesh, name: str) -> Window:
    """The histogram of that name below ``rt/<label>``, of the interval that ended just now."""
    found = [value for names, value in mesh.snapshot().histograms.items() if "/".join(names[2:]) == name]
    assert found, name
    return found[0]


def server(mesh: Mesh, name: str) -> str:
    return f"server/127.0.0.1/{mesh.port}/{name}"


def served(mesh: Mesh, request: bytes = GET) -> tuple[Side, Side]:
    """A caller that has its answer, and the connection that it came from."""
    caller, upstream, _ = asked(mesh, request)
    upstream.send(OK)
    caller.expect(DONE)
    return caller, upstream


def test_sizes_of_bodies_count_for_each_request() -> None:
    with Mesh() as mesh:
        caller, upstream = served(mesh, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello")
        caller.take()
        caller.send(GET)
        upstream.expect(b"\r\n\r\n", 2)
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n" + b"x" * 300)
        caller.expect(b"x" * 300)
        mesh.metrics.rotate()
        asked_for, answered = window(mesh, server(mesh, "request_payload_bytes")), window(mesh, server(mesh, "response_payload_bytes"))
        assert (asked_for.count, asked_for.total) == (2, 5)
        assert (answered.count, answered.total) == (2, 300 + len(OK.partition(b"\r\n\r\n")[2]))


def test_a_caller_that_goes_has_got_no_answer_of_any_size() -> None:
    with Mesh() as mesh:
        caller, _, _ = asked(mesh)
        caller.close()
        mesh.settle()
        mesh.metrics.rotate()
        assert window(mesh, server(mesh, "request_payload_bytes")).count == 1
        assert window(mesh, server(mesh, "response_payload_bytes")).count == 0


def test_some_requests_are_timed_until_they_are_sent_on() -> None:
    with Mesh() as mesh:
        caller, upstream = served(mesh)
        for number in range(2, TIMED_EACH * 2 + 1):
            caller.send(GET)
            upstream.expect(b"\r\n\r\n", number)
            upstream.send(OK)
            caller.expect(DONE, number)
        mesh.metrics.rotate()
        assert window(mesh, server(mesh, "handletime_us")).count == 2


def test_local_dtabs_count_where_there_are_any() -> None:
    with Mesh() as mesh:
        caller, upstream = served(mesh, b"GET / HTTP/1.1\r\nHost: web\r\nl5d-dtab: /a => /b; /c => /d\r\n\r\n")
        caller.send(GET)
        upstream.expect(b"\r\n\r\n", 2)
        upstream.send(OK)
        caller.expect(DONE, 2)
        mesh.metrics.rotate()
        for name in (server(mesh, "dtab/size"), "client/#/web/dtab/size"):
            found = window(mesh, name)
            assert (found.count, found.total) == (1, 2), name


def test_the_way_of_a_request_counts_from_when_its_deadline_was_set() -> None:
    with Mesh() as mesh:
        now = mesh.clock.seconds()
        stamp, ends = int((now - 0.25) * 1e9), int((now + 30) * 1e9)
        served(mesh, b"GET / HTTP/1.1\r\nHost: web\r\nl5d-ctx-deadline: %d %d\r\n\r\n" % (stamp, ends))
        mesh.metrics.rotate()
        found = window(mesh, server(mesh, "transit_latency_ms"))
        assert (found.count, round(found.total)) == (1, 250)


def test_who_waits_for_a_connection_is_told_apart_from_who_does_not() -> None:
    with Mesh(ONE_CONNECTION) as mesh:
        first, upstream, _ = asked(mesh)
        second = mesh.caller().send(GET)
        mesh.settle()
        pass_time(mesh, 0.5)
        upstream.send(OK)
        first.expect(DONE)
        upstream.expect(b"\r\n\r\n", 2)
        upstream.send(OK)
        second.expect(DONE)
        first.take()
        first.send(GET)
        upstream.expect(b"\r\n\r\n", 3)
        upstream.send(OK)
        first.expect(DONE)
        mesh.metrics.rotate()
        found = window(mesh, "client/#/web/service_creation/service_acquisition_latency_ms")
        assert found.count == 3
        assert round(found.total) == 500


def test_who_left_while_it_waited_has_got_no_connection() -> None:
    with Mesh(ONE_CONNECTION) as mesh:
        first, upstream, _ = asked(mesh)
        second = mesh.caller().send(GET)
        mesh.settle()
        second.close()
        mesh.settle()
        upstream.send(OK)
        first.expect(DONE)
        mesh.metrics.rotate()
        assert window(mesh, "client/#/web/service_creation/service_acquisition_latency_ms").count == 1


@pytest.mark.parametrize("ends", ["caller leaves", "attempt times out"])
def test_who_only_waited_for_a_connection_is_no_request_of_the_client(ends: str) -> None:
    limited = ONE_CONNECTION.replace("client: {", "client: {requestAttemptTimeoutMs: 1000, ", 1)
    with Mesh(limited) as mesh:
        first, upstream, _ = asked(mesh)
        upstream.send(OK.replace(b"Content-Length: 2", b"Content-Length: 4"))  # begun, so that no time limit ends it
        first.expect(b"ok")
        second = mesh.caller().send(GET)
        mesh.settle()
        if ends == "caller leaves":
            second.close()
            mesh.settle()
        else:
            pass_time(mesh, 1.1)
            second.expect(b"HTTP/1.1 50")
        upstream.send(b"ay")
        first.expect(b"okay")
        assert mesh.counter("service/svc/web/requests") == 2
        assert mesh.counter("client/#/web/requests") == mesh.counter("client/#/web/service/svc/web/requests") == 1
        assert mesh.counter("client/#/web/status/200") == 1
        assert mesh.counter("client/#/web/failures") == 0


@pytest.mark.parametrize("begun", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhel"])
def test_what_does_not_come_in_time_counts_as_a_read_timeout(begun: bytes) -> None:
    with Mesh("", IMPATIENT) as mesh:
        mesh.service("web")
        mesh.caller().send(begun)
        mesh.settle()
        pass_time(mesh, 12.0, step=1.0)
        mesh.settle()
        assert mesh.counter(server(mesh, "read_timeout")) == 1
        assert mesh.counter(server(mesh, "write_timeout")) == 0


def test_a_caller_that_does_not_take_its_answer_counts_as_a_write_timeout() -> None:
    with Mesh("", IMPATIENT) as mesh:
        caller, upstream, _ = asked(mesh)
        caller.is_reading = False
        upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 90000000\r\n\r\n")
        upstream.offer(b"x" * 90_000_000)
        pass_time(mesh, 12.0, step=1.0)
        mesh.settle()
        assert mesh.counter(server(mesh, "write_timeout")) == 1
        assert 3000 <= mesh.counter(server(mesh, "socket_unwritable_ms")) <= 12_000


def test_what_a_name_had_in_the_tree_goes_with_its_route() -> None:
    with Mesh("bindingCache: {idleTtlSecs: 10}") as mesh:
        served(mesh, b"GET / HTTP/1.1\r\nHost: web\r\nl5d-dtab: /a => /b\r\n\r\n")
        before = mesh.snapshot().gauges["metrics", "nodes"]
        mesh.service("other")
        caller = mesh.caller().send(b"GET / HTTP/1.1\r\nHost: other\r\n\r\n")
        mesh.settle()
        caller.close()
        mesh.settle()
        grown = mesh.snapshot().gauges["metrics", "nodes"]
        pass_time(mesh, 60.0, step=1.0)
        mesh.settle()
        snapshot = mesh.snapshot()
        assert not [names for names in (*snapshot.counters, *snapshot.gauges) if names[2:3] in (("service",), ("client",))]
        assert snapshot.gauges["metrics", "nodes"] < before < grown
