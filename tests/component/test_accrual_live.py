from __future__ import annotations

import socket
from typing import Any

import pytest

from fakes.answers import FAILED, answer_of, assert_nothing_left, pass_time
from meshgw.core.address import Address, Replicas
from transcript import DONE, OK, Mesh, Service, Side, gauge

SHORT = "backoff: {kind: constant, ms: 2000}"
CLOSING = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
CLOSING_FAILED = FAILED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class Pair:
    """Two services behind one name. ``ask`` sends a request and lets the services answer it, the ill ones with 500 (or by a reset)."""

    def __init__(self, mesh: Mesh, count: int = 2) -> None:
        self.mesh = mesh
        self.services = [mesh.service() for _ in range(count)]
        self.ill: set[int] = set()
        self.got = [0] * count
        self.fault = CLOSING_FAILED
        mesh.names.lead("web", *(service.port for service in self.services))

    def arrived(self) -> tuple[int, Side]:
        found: list[tuple[int, Side]] = []

        def look() -> bool:
            for number, service in enumerate(self.services):
                try:
                    sock, _ = service._listener.accept()
                except BlockingIOError:
                    continue
                found.append((number, self.mesh._side(sock)))
                return True
            return False

        self.mesh.until(look)
        return found[0]

    def ask(self) -> int:
        """Which service answered."""
        caller = self.mesh.caller().get()
        number, upstream = self.arrived()
        upstream.expect(b"GET /")
        self.got[number] += 1
        if number in self.ill:
            upstream.send(self.fault)
            answer_of(caller, 500)
        else:
            upstream.send(CLOSING)
            caller.expect(DONE)
        caller.close()
        self.mesh.settle()
        return number

    def until_dead(self, number: int) -> int:
        """Make a service ill and ask until it is avoided; how many failures that took."""
        self.ill.add(number)
        before = self.got[number]
        while self.state(number)["status"] == "open":
            self.ask()
            assert self.got[number] - before < 50
        return self.got[number] - before

    def state(self, number: int) -> dict[str, Any]:
        """What ``/client_state.json`` shows of a service."""
        (client,) = self.mesh.router.caches.clients()
        found: dict[str, Any] = next(
            item for item in client.state()["endpoints"] if item["address"] == f"127.0.0.1:{self.services[number].port}"
        )
        return found

    def counters(self) -> list[int]:
        return [self.mesh.counter(f"client/#/web/failure_accrual/{name}") for name in ("removals", "probes", "revivals")]


def accrual(text: str) -> str:
    return f"client: {{failureAccrual: {{{text}}}}}"


def test_five_failures_in_a_row_take_an_endpoint_out_by_default() -> None:
    with Mesh() as mesh:
        pair = Pair(mesh)
        pair.ask()
        assert pair.until_dead(0) == 5
        assert pair.counters() == [1, 0, 0]
        shown = pair.state(0)
        assert shown["busyFor"] == ["accrual"]
        assert shown["failureAccrual"]["state"] == "dead"
        assert 0 < shown["failureAccrual"]["secondsUntilProbe"] <= 5.0
        assert [pair.ask() for _ in range(12)] == [1] * 12
        assert gauge(mesh, "loadbalancer/busy") == 1
        assert gauge(mesh, "loadbalancer/available") == 1


def test_a_success_between_failures_starts_the_count_anew() -> None:
    with Mesh(accrual(f"kind: io.l5d.consecutiveFailures, failures: 3, {SHORT}")) as mesh:
        pair = Pair(mesh, count=1)
        for _ in range(4):
            pair.ill = {0}
            pair.ask()
            pair.ask()
            pair.ill = set()
            pair.ask()
        assert pair.counters() == [0, 0, 0]


def test_a_dead_endpoint_gets_one_probe_after_its_backoff_and_is_back_when_it_succeeds() -> None:
    with Mesh(accrual(f"kind: io.l5d.consecutiveFailures, failures: 3, {SHORT}")) as mesh:
        pair = Pair(mesh)
        pair.ask()
        assert pair.until_dead(0) == 3
        pair.ill.clear()
        pass_time(mesh, 1.9, step=0.1)
        assert pair.state(0)["status"] == "busy"
        pass_time(mesh, 0.2)
        assert pair.state(0)["failureAccrual"]["state"] == "probeOpen"
        probe = mesh.caller().get()
        others = []
        while True:  # until the probe is the one that is sent there
            number, upstream = pair.arrived()
            if number == 0:
                break
            upstream.expect(b"GET /")
            upstream.send(CLOSING)
            probe.expect(DONE)
            probe = mesh.caller().get()
        upstream.expect(b"GET /")
        assert pair.state(0)["failureAccrual"]["state"] == "probeClosed"
        for _ in range(8):
            others.append(pair.ask())
        assert set(others) == {1}, "while the probe is under way nobody else is sent there"
        upstream.send(CLOSING)
        probe.expect(DONE)
        mesh.settle()
        assert pair.state(0)["failureAccrual"] == {"state": "alive", "failuresInARow": 0}
        assert pair.counters() == [1, 1, 1]
        assert 2000 <= mesh.counter("client/#/web/failure_accrual/removed_for_ms") <= 2300
        assert {pair.ask() for _ in range(16)} == {0, 1}
        assert_nothing_left(mesh)


def test_a_failed_probe_means_the_next_wait_and_no_other_removal() -> None:
    with Mesh(accrual(f"kind: io.l5d.consecutiveFailures, failures: 2, {SHORT}")) as mesh:
        pair = Pair(mesh)
        pair.ask()
        pair.until_dead(0)
        for probes in (1, 2):
            pass_time(mesh, 2.1, step=0.1)
            while pair.counters()[1] < probes:
                pair.ask()
            assert pair.state(0)["failureAccrual"]["state"] == "dead"
        assert pair.counters() == [1, 2, 0]


def test_a_probe_whose_caller_goes_away_is_followed_by_another() -> None:
    with Mesh(accrual(f"kind: io.l5d.consecutiveFailures, failures: 1, {SHORT}")) as mesh:
        pair = Pair(mesh, count=1)
        pair.ill = {0}
        pair.ask()
        pass_time(mesh, 2.1, step=0.1)
        gone = mesh.caller().get()
        pair.arrived()[1].expect(b"GET /")
        assert pair.state(0)["failureAccrual"]["state"] == "probeClosed"
        gone.reset()
        mesh.settle()
        assert pair.state(0)["failureAccrual"]["state"] == "probeOpen"


def test_a_rate_of_success_below_the_least_takes_an_endpoint_out() -> None:
    with Mesh(accrual(f"kind: io.l5d.successRate, successRate: 0.8, requests: 10, {SHORT}")) as mesh:
        pair = Pair(mesh, count=1)
        for _ in range(9):
            pair.ask()
        pair.ill = {0}
        asked = 0
        while pair.state(0)["status"] == "open":
            pair.ask()
            asked += 1
            assert asked < 10
        assert 2 <= asked <= 4


def test_a_window_is_judged_when_it_has_passed_with_enough_requests() -> None:
    with Mesh(accrual(f"kind: io.l5d.successRateWindowed, successRate: 0.8, window: 10, {SHORT}")) as mesh:
        pair = Pair(mesh, count=1)
        pair.ill = {0}
        for _ in range(8):
            pair.ask()
        assert pair.state(0)["status"] == "open"
        pass_time(mesh, 10.5, step=1.0)
        pair.ask()
        assert pair.state(0)["status"] == "busy"


def test_without_accrual_no_failure_counts() -> None:
    with Mesh(accrual("kind: none")) as mesh:
        pair = Pair(mesh, count=1)
        pair.ill = {0}
        for _ in range(12):
            pair.ask()
        assert pair.state(0)["status"] == "open"
        assert "failureAccrual" not in pair.state(0)


def test_what_the_classifier_calls_a_success_is_none_of_the_breakers_failures() -> None:
    router = (
        f"service: {{responseClassifier: {{kind: io.l5d.http.allSuccessful}}}}\n{accrual('kind: io.l5d.consecutiveFailures, failures: 1')}"
    )
    with Mesh(router) as mesh:
        pair = Pair(mesh, count=1)
        pair.ill = {0}
        for _ in range(5):
            pair.ask()
        assert pair.state(0)["status"] == "open"


def test_a_reset_and_a_timeout_are_failures() -> None:
    with Mesh(
        f"client: {{requestAttemptTimeoutMs: 300, failureAccrual: {{kind: io.l5d.consecutiveFailures, failures: 2, {SHORT}}}}}"
    ) as mesh:
        pair = Pair(mesh, count=1)
        caller = mesh.caller().get()
        pair.arrived()[1].expect(b"GET /")
        pass_time(mesh, 0.4)
        answer_of(caller, 503)
        assert pair.state(0)["failureAccrual"]["failuresInARow"] == 1
        caller.get()
        upstream = pair.arrived()[1]
        upstream.expect(b"GET /")
        upstream.reset()
        answer_of(caller, 502)
        mesh.settle()
        assert pair.state(0)["failureAccrual"]["state"] == "dead"


def test_when_all_endpoints_are_dead_requests_still_try_and_a_good_answer_brings_the_probe_forward() -> None:
    with Mesh(accrual("kind: io.l5d.consecutiveFailures, failures: 1, backoff: {kind: constant, ms: 100000}")) as mesh:
        pair = Pair(mesh)
        pair.ill = {0, 1}
        while pair.counters()[0] < 2:
            pair.ask()
        assert gauge(mesh, "available") == 0
        pair.ill.clear()
        number = pair.ask()
        assert mesh.counter("client/#/web/loadbalancer/max_effort_exhausted") >= 1 or gauge(mesh, "loadbalancer/max_effort_exhausted") >= 1
        assert pair.state(number)["failureAccrual"]["state"] == "probeOpen"
        pair.ask()
        assert pair.state(number)["failureAccrual"]["state"] == "alive"
        assert pair.counters()[2] == 1


def test_when_all_are_dead_and_gone_the_502_tells_why_each_is_avoided() -> None:
    with Mesh(
        "client: {failFast: true, failureAccrual: {kind: io.l5d.consecutiveFailures, failures: 1, backoff: {kind: constant, ms: 30000}}}"
    ) as mesh:
        pair = Pair(mesh)
        for service in pair.services:
            service.close()
        answer_of(mesh.caller().get(), 502)
        text = answer_of(mesh.caller().get(), 502)[1]
        for service in pair.services:
            assert f"127.0.0.1:{service.port} (accrual, failFast, next probe in 30.0 s)" in text
        assert_nothing_left(mesh)


@pytest.mark.parametrize("change", ["one more", "one less"])
def test_a_change_of_discovery_lets_dead_endpoints_probe_at_once(change: str) -> None:
    with Mesh(accrual("kind: io.l5d.consecutiveFailures, failures: 1, backoff: {kind: constant, ms: 100000}")) as mesh:
        pair = Pair(mesh)
        pair.ask()
        pair.until_dead(0)
        first, second = (Address("127.0.0.1", service.port) for service in pair.services)
        mesh.names.addr("/#/web").set(Replicas((first, second)))
        assert pair.state(0)["failureAccrual"]["state"] == "dead", "the same set again is no news"
        third = Address("127.0.0.1", mesh.service().port)
        mesh.names.addr("/#/web").set(Replicas((first, second, third) if change == "one more" else (first,)))
        assert pair.state(0)["failureAccrual"]["state"] == "probeOpen"


def test_a_removed_endpoint_finishes_its_requests_and_gets_no_more() -> None:
    with Mesh() as mesh:
        pair = Pair(mesh)
        caller = mesh.caller().get()
        number, upstream = pair.arrived()
        upstream.expect(b"GET /")
        other = 1 - number
        mesh.names.addr("/#/web").set(Replicas((Address("127.0.0.1", pair.services[other].port),)))
        assert [pair.ask() for _ in range(6)] == [other] * 6
        upstream.send(OK)
        caller.expect(DONE)
        assert upstream.expect_end() == "eof"
        assert_nothing_left(mesh)


# --- failFast


def refusing(mesh: Mesh) -> tuple[Service, int]:
    """A name with a service that works and one whose port refuses."""
    working, closed = mesh.service(), mesh.service()
    closed.close()
    mesh.names.lead("web", working.port, closed.port)
    return working, closed.port


def test_fail_fast_avoids_an_endpoint_after_one_refused_connect_and_tries_it_in_the_background() -> None:
    with Mesh("client: {failFast: true}") as mesh:
        working, port = refusing(mesh)
        while not mesh.counter("client/#/web/failfast/marked_dead"):
            caller = mesh.caller().get()
            upstream = working.accept()
            upstream.expect(b"GET /")
            upstream.send(CLOSING)
            caller.expect(DONE)
        (client,) = mesh.router.caches.clients()
        shown = {item["address"]: item for item in client.state()["endpoints"]}
        assert shown[f"127.0.0.1:{port}"]["busyFor"] == ["failFast"]
        failed = mesh.counter("client/#/web/service_creation/failures")
        for _ in range(10):
            caller = mesh.caller().get()
            upstream = working.accept()
            upstream.expect(b"GET /")
            upstream.send(CLOSING)
            caller.expect(DONE)
        assert mesh.counter("client/#/web/service_creation/failures") == failed
        pass_time(mesh, 1.1, step=0.1)
        assert mesh.counter("client/#/web/service_creation/failures") == failed + 1
        pass_time(mesh, 2.1, step=0.1)
        assert mesh.counter("client/#/web/service_creation/failures") == failed + 2
        with socket.create_server(("127.0.0.1", port)):
            pass_time(mesh, 4.2, step=0.1)
            mesh.until(lambda: mesh.counter("client/#/web/failfast/marked_available") == 1)
            assert gauge(mesh, "available") == 2
