from __future__ import annotations

from fakes.answers import GET, answer_of, assert_nothing_left, pass_time
from transcript import DONE, OK, Mesh, asked, gauge


def server_figure(mesh: Mesh, name: str) -> float:
    snapshot = mesh.snapshot()
    return snapshot.gauges[("rt", "http", "server", f"127.0.0.1/{mesh.port}", name)]


# --- maxConcurrentRequests


def test_requests_beyond_the_limit_are_nacked_at_once() -> None:
    with Mesh("", "maxConcurrentRequests: 2") as mesh:
        service = mesh.service("web")
        callers = [mesh.caller().get() for _ in range(2)]
        upstreams = [service.accept() for _ in callers]
        assert server_figure(mesh, "request_concurrency") == 2
        third = mesh.caller().get()
        fields, body = answer_of(third, 503)
        assert body == "more than 2 concurrent requests (maxConcurrentRequests)"
        assert fields["finagle-http-nack"] == "true"
        assert fields["retry-after"] == "0"
        assert fields["l5d-retryable"] == "true"
        assert third.ending == ""
        assert mesh.counter(f"server/127.0.0.1/{mesh.port}/failures") == 1
        assert server_figure(mesh, "request_concurrency") == 2
        for upstream, caller in zip(upstreams, callers, strict=True):
            upstream.expect(b"GET /")
            upstream.send(OK)
            caller.expect(DONE)
        assert server_figure(mesh, "request_concurrency") == 0
        third.send(GET)
        upstreams[1].expect(b"GET /", 2)
        upstreams[1].send(OK)
        third.expect(DONE)
        assert_nothing_left(mesh, connections=2)


def test_a_request_that_is_given_up_frees_its_place() -> None:
    with Mesh("", "maxConcurrentRequests: 1\ntimeoutMs: 500") as mesh:
        service = mesh.service("web")
        gone = mesh.caller().get()
        service.accept().expect(b"GET /")
        gone.reset()
        mesh.settle()
        assert server_figure(mesh, "request_concurrency") == 0
        late = mesh.caller().get()
        service.accept()
        pass_time(mesh, 0.6)
        answer_of(late, 503)
        assert server_figure(mesh, "request_concurrency") == 0


def test_the_nack_is_sent_to_another_endpoint_by_a_gateway_in_front() -> None:
    with Mesh("", "maxConcurrentRequests: 1") as behind:
        asked(behind)
        refused = behind.caller().get()
        answer_of(refused, 503)
        refused.got = b""
        refused.get()
        nack = refused.expect(b"(maxConcurrentRequests)")
    with Mesh() as front:
        caller, upstream, _ = asked(front, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\n\r\nhi", b"hi")
        upstream.send(nack)
        assert upstream.expect(b"hi", 2).count(b"POST /") == 2
        upstream.send(OK)
        caller.expect(DONE)
        assert front.counter("client/#/web/retries/requeues") == 1
        assert front.counter("service/svc/web/retries/total") == 0
        assert_nothing_left(front, connections=1)


# --- the pool of one endpoint


def test_a_full_pool_lets_requests_wait_in_order_and_refuses_beyond_its_queue() -> None:
    with Mesh("client: {hostConnectionPool: {maxSize: 1, maxWaiters: 2}}") as mesh:
        first, upstream, service = asked(mesh)
        waiting = []
        for number in (1, 2):
            waiting.append(mesh.caller().get(b"/%d" % number))
            mesh.settle()
        assert gauge(mesh, "pool_waiters") == 2
        refused = mesh.caller().get()
        fields, body = answer_of(refused, 502)
        assert body == f"127.0.0.1:{service.port}: all pooled connections are busy and 2 requests are waiting already"
        assert fields["l5d-retryable"] == "true"
        assert mesh.counter("client/#/web/pool_num_too_many_waiters") == 1
        assert mesh.counter("service/svc/web/failures/TooManyWaiters") == 1
        assert mesh.counter("client/#/web/pool_num_waited") == 2
        upstream.send(OK)
        first.expect(DONE)
        for number, caller in enumerate(waiting, 1):
            upstream.expect(b"GET /%d " % number)
            upstream.send(OK)
            caller.expect(DONE)
        assert not service.has_more()
        assert_nothing_left(mesh, connections=1)


def test_a_full_pool_sends_requests_to_other_endpoints() -> None:
    with Mesh("client: {hostConnectionPool: {maxSize: 1, maxWaiters: 0}}") as mesh:
        services = [mesh.service() for _ in range(3)]
        mesh.names.lead("web", *(service.port for service in services))
        callers = []
        for _ in services:
            callers.append(mesh.caller().get())
            mesh.settle()
        for service in services:
            service.accept().expect(b"GET /")
        assert gauge(mesh, "available") == 0
        answer_of(mesh.caller().get(), 502)
        for caller in callers:
            caller.reset()
        assert_nothing_left(mesh)
        assert gauge(mesh, "available") == 3


def test_a_waiter_is_served_by_a_new_connection_when_the_busy_one_breaks() -> None:
    with Mesh("client: {hostConnectionPool: {maxSize: 1}}") as mesh:
        first, upstream, service = asked(mesh)
        second = mesh.caller().get(b"/second")
        mesh.settle()
        upstream.reset()
        answer_of(first, 502)
        other = service.accept()
        other.expect(b"GET /second")
        other.send(OK)
        second.expect(DONE)
        assert_nothing_left(mesh, connections=1)


def test_a_waiter_that_goes_away_leaves_its_place_to_others() -> None:
    with Mesh("client: {hostConnectionPool: {maxSize: 1, maxWaiters: 1}}") as mesh:
        first, upstream, _ = asked(mesh)
        gone = mesh.caller().get(b"/gone")
        mesh.settle()
        gone.reset()
        mesh.settle()
        assert gauge(mesh, "pool_waiters") == 0
        stays = mesh.caller().get(b"/stays")
        mesh.settle()
        upstream.send(OK)
        first.expect(DONE)
        upstream.expect(b"GET /stays")
        upstream.send(OK)
        stays.expect(DONE)
        assert b"/gone" not in upstream.got
        assert_nothing_left(mesh, connections=1)


def test_idle_connections_above_the_least_are_closed_and_the_others_kept() -> None:
    with Mesh("client: {hostConnectionPool: {minSize: 1, idleTimeMs: 2000}}") as mesh:
        service = mesh.service("web")
        callers = [mesh.caller().get() for _ in range(3)]
        upstreams = [service.accept() for _ in callers]
        for upstream in upstreams:
            upstream.expect(b"GET /")
            upstream.send(OK)
        for caller in callers:
            caller.expect(DONE)
        assert gauge(mesh, "pool_cached") == 3
        pass_time(mesh, 1.9, step=0.5)
        assert gauge(mesh, "pool_cached") == 3
        pass_time(mesh, 2.5, step=0.5)
        assert gauge(mesh, "pool_cached") == 1
        assert sum(bool(upstream.ending) for upstream in upstreams) == 2
        assert mesh.counter("client/#/web/closes") == 2
        pass_time(mesh, 60.0, step=5.0)
        assert_nothing_left(mesh, connections=1)
