"""The StatsD telemeter under a Clock, with a UDP port that records what is sent and refuses on demand."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from meshgw.core.address import ADDR_NEG, Addr, Address, Replicas
from meshgw.core.live import Live, Source
from meshgw.core.slices import Work
from meshgw.errors import NamerError
from meshgw.kinds import Runtime
from meshgw.telemetry.metrics import Metrics, Snapshot
from meshgw.telemetry.statsd import KIND, Statsd, StatsdConfig


class Port:
    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.refusal: Exception | None = None
        self.is_open = True

    def write(self, packet: bytes, address: tuple[str, int]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.sent.append((packet, address))

    def stopListening(self) -> None:
        self.is_open = False


class Udp(Clock):
    """A clock with UDP ports."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[tuple[str, Port]] = []

    def listenUDP(self, port: int, protocol: Any, interface: str = "") -> Port:
        assert port == 0
        self.ports.append((interface, Port()))
        return self.ports[-1][1]


class World:
    """A telemeter of a tree of metrics, and the address of its server."""

    def __init__(self, **options: Any) -> None:
        self.reactor, self.metrics = Udp(), Metrics()
        self.server: Source[Addr] = Source()
        self.asked: list[tuple[str, int]] = []
        self.runtime = runtime = Runtime(
            reactor=self.reactor, metrics=self.metrics, random=Random(1), spawn=lambda *_: lambda: None, resolve=self.resolve
        )
        self.telemeter: Statsd = KIND.build(StatsdConfig(**{"sample_rate": 1.0, **options}), runtime)

    def resolve(self, host: str, port: int) -> Live[Addr]:
        self.asked.append((host, port))
        return self.server

    def is_at(self, *hosts: str) -> None:
        self.server.set(Replicas(tuple(Address(host, 8125) for host in hosts)))

    @property
    def port(self) -> Port:
        return self.reactor.ports[-1][1]

    def told(self) -> list[str]:
        """The lines sent since this was asked last, without those about the telemeter itself."""
        lines = [line for packet, _ in self.port.sent for line in packet.decode().split("\n")]
        self.port.sent.clear()
        return [line for line in lines if not line.startswith(("linkerd.telemetry.", "linkerd.metrics."))]


class Slowly:
    """Metrics whose reading takes time."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics, self._clock = metrics, clock

    def reading(self) -> Work[Snapshot]:
        work = self._metrics.reading()
        while True:
            try:
                next(work)
            except StopIteration as ended:
                found: Snapshot = ended.value
                return found
            self._clock.rightNow += 0.001
            yield


@pytest.fixture
def world() -> Iterator[World]:
    one = World()
    one.telemeter.startService()
    yield one
    if one.telemeter.running:
        one.telemeter.stopService()


def test_counters_are_told_each_second(world: World) -> None:
    world.is_at("127.0.0.1")
    counter = world.metrics.counter("a", "x")
    counter.incr(3)
    world.reactor.advance(1)
    assert world.told() == ["linkerd.a.x:3|c"]
    assert world.asked == [("127.0.0.1", 8125)]
    world.reactor.advance(1)
    assert world.told() == []
    counter.incr()
    world.reactor.advance(1)
    assert world.told() == ["linkerd.a.x:1|c"]


def test_what_is_counted_before_the_server_is_known_waits(world: World) -> None:
    world.metrics.counter("a", "x").incr(3)
    world.reactor.advance(5)
    assert world.reactor.ports == []
    world.is_at("10.0.0.9")
    world.reactor.advance(1)
    assert [address for _, address in world.port.sent] == [("10.0.0.9", 8125)] * len(world.port.sent)
    assert world.told() == ["linkerd.a.x:3|c"]


def test_gauges_are_told_by_their_own_interval() -> None:
    world = World(gauge_interval_ms=3000)
    world.metrics.gauge("g").set(2.5)
    world.telemeter.startService()
    world.is_at("127.0.0.1")
    seen = []
    for _ in range(7):
        world.reactor.advance(1)
        seen.append("linkerd.g:2.5|g" in world.told())
    assert seen == [False, False, True, False, False, True, False]
    world.telemeter.stopService()


def test_a_process_with_a_master_tells_what_adds_up_and_no_gauges(world: World) -> None:
    world.is_at("127.0.0.1")
    world.telemeter.leave_gauges()
    world.metrics.gauge("g").set(2.5)
    world.metrics.counter("a").incr()
    world.reactor.advance(1)
    assert world.told() == ["linkerd.a:1|c"]
    world.reactor.pump([1.0] * 30)
    assert world.told() == []


def test_the_master_tells_the_gauges_of_all_processes_and_nothing_else() -> None:
    world = World(gauge_interval_ms=3000)
    figures = Snapshot(counters={("a",): 7}, gauges={("g",): 5.0, ("below",): -1.0})
    reading: list[Deferred[Snapshot]] = []

    async def read() -> Snapshot:
        reading.append(Deferred())
        return await reading[-1]

    gauges = world.telemeter.joined(world.runtime, read)
    gauges.startService()
    world.reactor.advance(3)
    assert reading == []
    world.is_at("127.0.0.1")
    world.reactor.advance(2.9)
    assert reading == []
    world.reactor.advance(0.1)
    assert world.told() == []
    reading[0].callback(figures)
    assert world.told() == ["linkerd.g:5|g", "linkerd.below:0|g", "linkerd.below:-1|g"]
    world.reactor.advance(3)
    cancelled = reading[1]
    gauges.stopService()
    cancelled.addErrback(lambda failure: failure.trap(CancelledError))  # type: ignore[arg-type]
    assert world.told() == [] and not world.server.is_observed and not world.reactor.getDelayedCalls()


def test_a_failed_reading_is_not_the_last(world: World) -> None:
    outcomes: list[Any] = [NamerError(detail="no"), Snapshot(gauges={("g",): 1.0})]

    async def read() -> Snapshot:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        found: Snapshot = outcome
        return found

    gauges = world.telemeter.joined(world.runtime, read)
    world.is_at("127.0.0.1")
    gauges.startService()
    world.reactor.advance(10)
    world.told()
    world.reactor.advance(10)
    assert "linkerd.g:1|g" in world.told()
    gauges.stopService()


def test_values_of_a_finished_interval_are_spread_over_the_next(world: World) -> None:
    world.is_at("127.0.0.1")
    histogram = world.metrics.histogram("h")
    for _ in range(100):
        histogram.add(7)
    for _ in range(10):
        world.reactor.advance(1)
    assert not [line for line in world.told() if line.startswith("linkerd.h")]
    world.metrics.rotate()
    told = []
    for _ in range(10):
        world.reactor.advance(1)
        told.append(world.told().count("linkerd.h:7|ms"))
    assert sum(told) == 100 and max(told) <= 12
    world.metrics.rotate()
    world.reactor.advance(1)
    assert world.told() == []


def test_the_server_may_move_and_go(world: World) -> None:
    world.is_at("10.0.0.1", "10.0.0.2")
    first = world.port
    world.is_at("10.0.0.1", "10.0.0.3")
    assert len(world.reactor.ports) == 1 and first.is_open
    world.is_at("::1")
    assert not first.is_open and world.reactor.ports[-1][0] == "::"
    second = world.port
    world.server.set(ADDR_NEG)
    assert not second.is_open
    world.metrics.counter("a").incr()
    world.reactor.advance(1)
    assert second.sent == []


@pytest.mark.parametrize("refusal", [BlockingIOError(11, "full"), MessageLengthError("long"), OSError(101, "no network")])
def test_what_cannot_be_sent_is_counted(world: World, refusal: Exception) -> None:
    world.is_at("127.0.0.1")
    world.port.refusal = refusal
    world.metrics.counter("a").incr()
    world.reactor.advance(1)
    dropped = world.metrics.counter("telemetry", "io.l5d.statsd", "dropped")
    assert dropped.value >= 1
    world.port.refusal = None
    world.metrics.counter("a").incr()
    world.reactor.advance(1)
    assert world.told() == ["linkerd.a:1|c"]


def test_what_was_counted_in_the_last_second_is_told_at_the_end(world: World) -> None:
    world.is_at("127.0.0.1")
    counter = world.metrics.counter("a")
    counter.incr()
    world.reactor.advance(1)
    counter.incr(2)
    assert world.told() == ["linkerd.a:1|c"]
    concluded = Deferred.fromCoroutine(world.telemeter.conclude())
    assert concluded.called
    assert world.told() == ["linkerd.a:2|c"]
    world.telemeter.stopService()
    assert not world.reactor.getDelayedCalls()


def test_a_telling_under_way_comes_to_its_end_before_the_last_one(world: World) -> None:
    world.is_at("127.0.0.1")
    for number in range(100):
        world.metrics.counter(f"a{number}").incr()
    world.telemeter._metrics = Slowly(world.metrics, world.reactor)  # type: ignore[assignment]
    world.reactor.advance(1)
    world.metrics.counter("a0").incr()
    concluded = Deferred.fromCoroutine(world.telemeter.conclude())
    assert not concluded.called
    while world.reactor.getDelayedCalls():
        world.reactor.advance(0)
    assert concluded.called
    told = world.told()
    assert sum(line.startswith("linkerd.a0:") for line in told) in (1, 2)
    assert sum(int(line.partition(":")[2].partition("|")[0]) for line in told) == 101


def test_nothing_is_sent_after_the_end(world: World) -> None:
    world.is_at("127.0.0.1")
    port = world.port
    world.telemeter.stopService()
    assert not port.is_open and not world.server.is_observed
    world.metrics.counter("a").incr()
    world.reactor.advance(10)
    assert port.sent == [] and not world.reactor.getDelayedCalls()


def test_it_says_that_it_is_deprecated() -> None:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    world = World()
    world.telemeter.startService()
    globalLogPublisher.removeObserver(events.append)
    world.telemeter.stopService()
    assert any("deprecated" in event.get("log_format", "") and event["log_level"].name == "warn" for event in events)


def test_building_opens_nothing() -> None:
    world = World()
    assert (world.asked, world.reactor.ports, world.reactor.getDelayedCalls()) == ([], [], [])
