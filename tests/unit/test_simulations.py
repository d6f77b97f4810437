"""What balancing, failure accrual and retry budgets do over minutes, in a simulated world; every simulation is decided by its seed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import repeat

import pytest

from meshgw.balance.aperture import Aperture, LoadBand
from meshgw.balance.ewma import PeakEwma
from meshgw.balance.heap import HeapLeastLoaded
from meshgw.balance.nodes import Picker
from meshgw.balance.pickers import P2cLeastLoaded
from meshgw.balance.round_robin import RoundRobin
from meshgw.filters.accrual import ConsecutiveFailures
from meshgw.filters.budget import RetryBudget
from simulator.mesh import Backend, Mesh, percentile
from simulator.world import World

PICKERS: dict[str, Callable[[World], Picker]] = {
    "p2c": lambda world: P2cLeastLoaded(world.random.random),
    "ewma": lambda world: PeakEwma(world.random.random, world.seconds, 10.0),
    "heap": lambda world: HeapLeastLoaded(world.random.random),
    "aperture": lambda world: Aperture(world.random.random, world.seconds, LoadBand()),
    "roundRobin": lambda world: RoundRobin(world.random.random),
}


def report(figures: str) -> None:
    """Shown by `pytest -rP` or `-s`."""
    sys.stdout.write(figures + "\n")


def backends(world: World, count: int, latency: float = 0.01, workers: int = 1000) -> list[Backend]:
    return [Backend(world, latency, workers) for _ in range(count)]


def test_a_simulation_is_decided_by_its_seed() -> None:
    def times(seed: int) -> list[float]:
        world = World(seed)
        mesh = Mesh(world, backends(world, 5), PICKERS["p2c"](world))
        world.arrivals(100, 5, mesh.request)
        world.run(6)
        return mesh.times

    assert times(7) == times(7)
    assert times(7) != times(8)


def test_ewma_leaves_a_slow_node_within_a_second_and_returns() -> None:
    world = World()
    servers = backends(world, 10, workers=4)
    mesh = Mesh(world, servers, PeakEwma(world.random.random, world.seconds, 2.0))
    world.arrivals(500, 60, mesh.request)

    def share(seconds: float) -> float:
        before, total = servers[0].begun, mesh.attempts
        world.run(world.seconds() + seconds)
        return (servers[0].begun - before) / (mesh.attempts - total)

    world.run(5)
    fair = share(5)
    servers[0].latency = 0.5
    world.run(world.seconds() + 1)
    left = share(5)
    servers[0].latency = 0.01
    world.run(world.seconds() + 10)
    returned = share(10)
    report(
        f"share of one node in ten: {fair:.3f} at its best, {left:.4f} from 1 s after it became slow, {returned:.3f} when it had recovered"
    )
    assert 0.05 < fair < 0.2
    assert left < 0.01
    assert returned > fair / 2


def test_an_aperture_grows_and_shrinks_with_the_load() -> None:
    world = World()
    picker = Aperture(world.random.random, world.seconds, LoadBand())
    mesh = Mesh(world, backends(world, 20, latency=0.1), picker)
    world.arrivals(8, 300, mesh.request)  # 0.8 requests under way
    world.run(60)
    quiet = picker.width
    used = [server.begun for server in mesh.backends]
    world.arrivals(192, 180, mesh.request)  # 20 under way
    world.run(180)
    busy = picker.width
    world.run(300)
    report(f"aperture of 20 nodes: {quiet} at 0.8 requests under way, {busy} at 20, {picker.width} at 0.8 again")
    assert sum(1 for count in used if count) <= 3
    assert quiet <= 3
    # Between lowLoad 0.5 and highLoad 2.0 requests under way per endpoint.
    assert 8 <= busy <= 20
    assert picker.width <= 3


@pytest.mark.parametrize("kind", ["p2c", "ewma", "heap", "aperture"])
def test_balancing_by_load_beats_round_robin_at_p99_with_one_slow_node_out_of_ten(kind: str) -> None:
    def p99(name: str) -> float:
        world = World()
        servers = backends(world, 10)
        servers[3].latency = 1.0
        mesh = Mesh(world, servers, PICKERS[name](world))
        world.arrivals(600, 30, mesh.request)
        world.run(60)
        assert len(mesh.times) == mesh.requests
        return percentile(mesh.times, 0.99)

    measured, round_robin = p99(kind), p99("roundRobin")
    report(f"p99 with one node of ten 100 times slower: {kind} {measured * 1000:.1f} ms, roundRobin {round_robin * 1000:.1f} ms")
    assert measured < round_robin / 10


@pytest.mark.parametrize("percent", [0.0, 0.2, 1.0])
def test_a_retry_budget_caps_amplification_in_a_total_outage(percent: float) -> None:
    world = World()
    servers = backends(world, 5)
    mesh = Mesh(world, servers, PICKERS["p2c"](world), budget=RetryBudget(10, 10, percent, world.seconds))
    world.arrivals(500, 70, mesh.request)
    world.run(10)
    for server in servers:
        server.fails = True
    before, begun = mesh.attempts, mesh.requests
    world.run(70)
    requests = mesh.requests - begun
    amplification = (mesh.attempts - before) / requests
    configured = 1 + percent + 10 / 500
    report(f"requests to the service per request of a caller in an outage: {amplification:.3f}, configured {configured:.3f}")
    # The retries of the first window may use what was saved before the outage: one window's worth in six.
    assert amplification <= configured + 0.02 + (percent + 10 / 500) / 6
    assert amplification > 1 + percent * 0.8
    assert mesh.given_up >= requests - 100


def test_accrual_ejects_after_the_stated_failures_and_revives_after_its_backoff() -> None:
    world = World()
    servers = backends(world, 4)
    mesh = Mesh(world, servers, PICKERS["p2c"](world), policy=lambda: ConsecutiveFailures(3, lambda: repeat(5.0)))
    servers[0].fails = True
    world.arrivals(200, 40, mesh.request)
    world.run(4)
    assert mesh.removals == 1
    # Besides the three, only those that were under way when the third failed.
    assert 3 <= servers[0].begun <= 5
    sent = servers[0].begun
    world.run(20)
    # Its death lasts 5 s: three probes, one request each.
    assert servers[0].begun - sent == mesh.probes == 3
    assert mesh.revivals == 0
    assert mesh.given_up == servers[0].begun
    servers[0].fails = False
    world.run(30)
    assert mesh.revivals == 1
    sent, begun = servers[0].begun, mesh.requests
    world.run(40)
    assert (servers[0].begun - sent) / (mesh.requests - begun) == pytest.approx(0.25, abs=0.05)
    assert mesh.removals == 1


@pytest.mark.parametrize("kind", list(PICKERS))
def test_no_request_is_sent_to_a_dead_endpoint_while_another_is_alive(kind: str) -> None:
    world = World()
    servers = backends(world, 6)
    mesh = Mesh(world, servers, PICKERS[kind](world), policy=lambda: ConsecutiveFailures(1, lambda: repeat(1000.0)))
    servers[2].fails = True
    world.arrivals(300, 60, mesh.request)
    world.run(61)
    # An aperture may not have come to the sixth endpoint at all.
    assert mesh.given_up == servers[2].begun <= 3
    assert mesh.succeeded == mesh.requests - mesh.given_up


@pytest.mark.parametrize("kind", list(PICKERS))
def test_endpoints_that_come_and_go_leave_no_load_behind(kind: str) -> None:
    world = World()
    servers = backends(world, 30, latency=0.3)
    mesh = Mesh(world, servers, PICKERS[kind](world), policy=lambda: ConsecutiveFailures(5, lambda: repeat(1.0)))
    addresses = [node.address for node in mesh.nodes.all()]
    known = set(mesh.nodes.all())

    def change() -> None:
        mesh.nodes.update(world.random.sample(addresses, world.random.randint(1, 30)))
        known.update(mesh.nodes.all())
        assert all(node.load >= 0 for node in known)
        world.after(0.1, change)

    world.after(1, change)
    world.arrivals(300, 30, mesh.request)
    world.run(40)
    assert mesh.succeeded == mesh.requests
    assert [node.load for node in known] == [0] * len(known)
    assert mesh.nodes.leaving() == []
