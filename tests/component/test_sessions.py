from __future__ import annotations

from fakes.answers import GET, assert_nothing_left, pass_time
from transcript import DONE, OK, Mesh, asked


def server_counter(mesh: Mesh, name: str) -> int:
    return mesh.counter(f"server/127.0.0.1/{mesh.port}/{name}")


# --- connections to services


def test_an_idle_connection_to_a_service_is_closed_after_its_idle_time() -> None:
    with Mesh("client: {clientSession: {idleTimeMs: 1000}}") as mesh:
        caller, upstream, service = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        pass_time(mesh, 0.9)
        assert upstream.ending == ""
        pass_time(mesh, 1.2)
        assert upstream.ending == "eof"
        assert mesh.counter("client/#/web/closes") == 1
        assert_nothing_left(mesh)
        caller.send(GET)
        service.accept().send(OK)
        caller.expect(DONE, 2)


def test_a_request_longer_than_the_idle_time_is_not_cut() -> None:
    with Mesh("client: {clientSession: {idleTimeMs: 1000}}") as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        pass_time(mesh, 0.5)
        caller.send(GET)
        upstream.expect(b"GET /", 2)
        pass_time(mesh, 5.0, step=0.5)
        assert upstream.ending == ""
        upstream.send(OK)
        caller.expect(DONE, 2)


def test_a_connection_to_a_service_that_is_used_lives_until_its_life_time_and_no_answer_is_cut() -> None:
    with Mesh("client: {clientSession: {lifeTimeMs: 2000}}") as mesh:
        caller, upstream, service = asked(mesh)
        for number in range(1, 4):
            pass_time(mesh, 0.5)
            upstream.send(OK)
            caller.expect(DONE, number)
            caller.send(GET)
            upstream.expect(b"GET /", number + 1)
        pass_time(mesh, 3.0, step=0.5)
        assert upstream.ending == ""
        upstream.send(OK)
        caller.expect(DONE, 4)
        assert upstream.expect_end() == "eof"
        caller.send(GET)
        fresh = service.accept()
        fresh.expect(b"GET /")
        fresh.send(OK)
        caller.expect(DONE, 5)
        assert_nothing_left(mesh, connections=1)


def test_an_idle_connection_to_a_service_does_not_outlive_its_life_time() -> None:
    with Mesh("client: {clientSession: {lifeTimeMs: 2000}}") as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        pass_time(mesh, 4.5, step=0.5)
        assert upstream.ending == "eof"
        assert_nothing_left(mesh)


# --- connections of callers


def test_an_idle_caller_is_closed_after_its_idle_time_and_counted() -> None:
    with Mesh("", "serverSession: {idleTimeMs: 1000}") as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        pass_time(mesh, 0.7)
        assert caller.ending == ""
        pass_time(mesh, 0.9)
        assert caller.ending == "eof"
        assert server_counter(mesh, "idle") == 1
        assert server_counter(mesh, "closes") == 1
        assert server_counter(mesh, "lifetime") == 0
        assert mesh.router.connections == 0


def test_a_request_longer_than_the_callers_idle_time_is_not_cut() -> None:
    with Mesh("", "serverSession: {idleTimeMs: 1000}") as mesh:
        caller, upstream, _ = asked(mesh)
        pass_time(mesh, 5.0, step=0.5)
        upstream.send(OK)
        caller.expect(DONE)
        assert caller.ending == ""
        assert server_counter(mesh, "idle") == 0


def test_requests_keep_a_caller_from_being_idle() -> None:
    with Mesh("", "serverSession: {idleTimeMs: 1000}") as mesh:
        caller, upstream, _ = asked(mesh)
        for number in range(1, 8):
            upstream.send(OK)
            caller.expect(DONE, number)
            pass_time(mesh, 0.6, step=0.1)
            caller.send(GET)
            upstream.expect(b"GET /", number + 1)
        assert caller.ending == ""


def test_a_caller_is_closed_at_the_end_of_its_life_when_idle() -> None:
    with Mesh("", "serverSession: {lifeTimeMs: 1000}") as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        pass_time(mesh, 0.95)
        assert caller.ending == ""
        pass_time(mesh, 0.2)
        assert caller.ending == "eof"
        assert server_counter(mesh, "lifetime") == 1
        assert server_counter(mesh, "idle") == 0


def test_a_request_under_way_at_the_end_of_life_is_answered_and_told_that_it_is_the_last() -> None:
    with Mesh("", "serverSession: {lifeTimeMs: 1000}") as mesh:
        caller, upstream, _ = asked(mesh)
        pass_time(mesh, 3.0, step=0.5)
        upstream.send(OK)
        assert b"\r\nConnection: close\r\n" in caller.expect(DONE)
        assert caller.expect_end() == "eof"
        assert server_counter(mesh, "lifetime") == 1
        assert_nothing_left(mesh, connections=1)


def test_an_answer_that_has_begun_at_the_end_of_life_is_whole() -> None:
    with Mesh("", "serverSession: {lifeTimeMs: 1000}") as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK[:-1])
        caller.expect(b"\r\n\r\no")
        pass_time(mesh, 2.0, step=0.5)
        assert caller.ending == ""
        upstream.send(OK[-1:])
        caller.expect(DONE)
        assert caller.expect_end() == "eof"


def test_a_caller_that_left_before_the_end_of_its_life_does_not_count() -> None:
    with Mesh("", "serverSession: {lifeTimeMs: 1000}") as mesh:
        caller, upstream, _ = asked(mesh)
        upstream.send(OK)
        caller.expect(DONE)
        caller.close()
        mesh.settle()
        pass_time(mesh, 2.0, step=0.5)
        assert server_counter(mesh, "lifetime") == 0
