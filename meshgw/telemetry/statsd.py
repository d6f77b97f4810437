"""``io.l5d.statsd``: metrics as datagrams to a StatsD server.

Source: linkerd-config spec 9.3. Linkerd sends a datagram for each event, which costs every request a system call and loses most events by
sampling. Here counters are told exactly, as what was added each second, and values of histograms are drawn from each finished interval and
sent evenly over the next. Each process of a gateway tells its own, which StatsD adds up; gauges, which it does not, are told by one process
for all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from meshgw.config.document import at_least, between, option
from meshgw.config.values import Port
from meshgw.core.address import Addr, Address, Replicas
from meshgw.core.live import Observation, Ok, State
from meshgw.core.logger import make_logger
from meshgw.core.slices import Slices, Work
from meshgw.kinds import Kind, Runtime
from meshgw.telemetry.histogram import Window
from meshgw.telemetry.metrics import Snapshot
from meshgw.telemetry.statsd_lines import StatsdLines, packets

TICK_SECONDS = 1.0
_log = make_logger()


class StatsdServer:
    """Where the server is, as long as this is known, and the way of packets there."""

    def __init__(self, config: StatsdConfig, runtime: Runtime) -> None:
        self._config, self._reactor, self._resolve = config, runtime.reactor, runtime.resolve
        scope = runtime.metrics.scope("telemetry", KIND.id)
        self._sent, self._dropped = scope.counter("sent"), scope.counter("dropped")
        self.sizes = scope.histogram("packet_bytes")
        self._address: Address | None = None
        self._observation: Observation | None = None
        self._port: Any = None

    def start(self) -> None:
        """Look for it."""
        self._observation = self._resolve(self._config.hostname, self._config.port).observe(self._resolved)

    def stop(self) -> None:
        """Look for it no more."""
        if self._observation is not None:
            self._observation.close()
        self._close()

    @property
    def is_known(self) -> bool:
        """Whether there is an address to send to."""
        return self._address is not None

    def _resolved(self, state: State[Addr]) -> None:
        """The server's address is known or another one; while there is none, what is counted waits."""
        found = state.value if isinstance(state, Ok) else None
        addresses = found.addresses if isinstance(found, Replicas) else ()
        if self._address is not None and self._address in addresses:
            return
        self._close()
        self._address = addresses[0] if addresses else None
        if self._address is not None:
            interface = "::" if ":" in self._address.host else ""
            self._port = self._reactor.listenUDP(0, DatagramProtocol(), interface=interface)

    def _close(self) -> None:
        if self._port is not None:
            self._port.stopListening()
            self._port = self._address = None

    def sending(self, lines: Iterable[str]) -> Work[None]:
        """The work of sending them."""
        for packet, count in packets(lines):
            self._send(packet, count)
            yield

    def _send(self, packet: bytes, count: int) -> None:
        """A packet that cannot be sent at once is lost, as any datagram may be; nobody waits for it."""
        address = self._address
        try:
            if address is None or not packet:
                self._dropped.incr(count)
                return
            self._port.write(packet, (address.host, address.port))
        except (OSError, MessageLengthError):
            self._dropped.incr(count)
        else:
            self._sent.incr(count)
            self.sizes.add(len(packet))


class Teller(Service):
    """Tells a StatsD server something again and again. Subclasses say what and how often, in seconds."""

    def __init__(self, config: StatsdConfig, runtime: Runtime, interval: float) -> None:
        self._config, self._every = config, interval
        self._slices, self._server = Slices(runtime.reactor), StatsdServer(config, runtime)
        self._lines = StatsdLines(config.prefix, config.sample_rate, runtime.random)
        self._telling: Deferred[None] | None = None
        self._loop = LoopingCall(self._tick)
        self._loop.clock = runtime.reactor

    def startService(self) -> None:
        """Look for the server, and tell it more every interval from when it is found."""
        super().startService()  # type: ignore[no-untyped-call]
        self._server.start()
        self._loop.start(self._every, now=False)

    def stopService(self) -> None:
        """Send no more."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._loop.running:
            self._loop.stop()
        if self._telling is not None:
            self._telling.cancel()
        self._server.stop()

    def _tick(self) -> Deferred[None]:
        telling = self._telling = Deferred.fromCoroutine(self._tell())
        return telling.addErrback(self._not_told)

    def _not_told(self, failure: Failure) -> None:
        if not failure.check(CancelledError):  # type: ignore[no-untyped-call]
            _log.failure("defect in telling StatsD; it goes on with the next interval", failure=failure)

    async def _tell(self) -> None:
        """Tell it what there is now."""
        raise NotImplementedError  # pragma: no cover - abstract


class Statsd(Teller):
    """Tells a StatsD server what changes in this process."""

    def __init__(self, config: StatsdConfig, runtime: Runtime) -> None:
        super().__init__(config, runtime, min(TICK_SECONDS, config.gauge_interval_ms / 1000))
        self._reactor, self._metrics = runtime.reactor, runtime.metrics
        self._tells_gauges = True
        self._interval: Window | None = None
        """That of our own histogram: when it is another one, all histograms have finished an interval."""
        self._ticks = self._samples_per_tick = 0
        """Ticks since the interval began, which tell how long the next one is likely to be."""
        self._gauges_due = 0.0

    # --- where several processes serve

    def leave_gauges(self) -> None:
        """Tell only what adds up from now on: of a gauge of one name StatsD keeps whatever it is told last."""
        self._tells_gauges = False

    def joined(self, runtime: Runtime, read: Callable[[], Awaitable[Snapshot]]) -> StatsdGauges:
        """What tells the gauges instead, in the one process that can ``read`` those of all."""
        return StatsdGauges(self._config, runtime, read)

    # --- life cycle

    def startService(self) -> None:
        """Look for the server, and tell it more every second from when it is found."""
        super().startService()
        _log.warn(
            "the telemeter {kind} is deprecated, as it is in Linkerd: prefer io.l5d.prometheus; sending to {host}:{port}",
            kind=KIND.id,
            host=self._config.hostname,
            port=self._config.port,
        )
        self._gauges_due = self._reactor.seconds() + self._config.gauge_interval_ms / 1000

    # --- telling

    async def conclude(self) -> None:
        """Nothing is served any more: tell what was counted since the last time, before what belongs to names goes with them."""
        if not self._loop.running:
            return
        self._loop.stop()
        if self._telling is not None and not self._telling.called:
            told: Deferred[None] = Deferred()
            self._telling.addBoth(told.callback)
            await told
        await self._tick()

    async def _tell(self) -> None:
        if self._server.is_known:
            snapshot = await self._slices.run(self._metrics.reading())
            await self._slices.run(self._send_all(snapshot))

    def _send_all(self, snapshot: Snapshot) -> Work[None]:
        self._ticks += 1
        if self._server.sizes.window is not self._interval:
            self._interval, ticks = self._server.sizes.window, self._ticks
            yield from self._lines.take_interval(snapshot.histograms)
            self._ticks, self._samples_per_tick = 0, -(-self._lines.samples_left // max(1, ticks - 1))
        yield from self._server.sending(self._due(snapshot))

    def _due(self, snapshot: Snapshot) -> Iterator[str]:
        yield from self._lines.counters(snapshot.counters)
        if self._tells_gauges and self._reactor.seconds() >= self._gauges_due:
            self._gauges_due = self._reactor.seconds() + self._config.gauge_interval_ms / 1000
            yield from self._lines.gauges(snapshot.gauges)
        yield from self._lines.timings(self._samples_per_tick)


class StatsdGauges(Teller):
    """Tells a StatsD server the gauges of all processes, as admin shows them."""

    def __init__(self, config: StatsdConfig, runtime: Runtime, read: Callable[[], Awaitable[Snapshot]]) -> None:
        super().__init__(config, runtime, config.gauge_interval_ms / 1000)
        self._read = read

    async def _tell(self) -> None:
        if self._server.is_known:
            snapshot = await self._read()
            await self._slices.run(self._server.sending(self._lines.gauges(snapshot.gauges)))


def _prefix(value: str) -> str | None:
    return "must have no whitespace and none of : | @" if any(letter in ":|@" or letter.isspace() for letter in value) else None


@attrs.frozen(kw_only=True)
class StatsdConfig:
    """Sends metrics to a StatsD server. Deprecated, as in Linkerd: prefer `io.l5d.prometheus`."""

    prefix: str = option(default="linkerd", doc="First part of every name (Linkerd's default).", check=_prefix)
    hostname: str = option(default="127.0.0.1", doc="Name or address of the server.")
    port: Port = option(default=Port(8125), doc="Its UDP port.")
    gauge_interval_ms: int = option(
        default=10_000, doc="Milliseconds between values of a gauge; counters are told each second.", check=at_least(100)
    )
    sample_rate: float = option(
        default=0.01,
        doc="Part of the values of histograms that is sent, 0 to 1; less where there are more than 10,000 a minute. Counters are exact.",
        check=between(0, 1),
    )


def build_statsd(config: StatsdConfig, runtime: Runtime) -> Statsd:
    """Make the telemeter."""
    return Statsd(config, runtime)


KIND = Kind(id="io.l5d.statsd", config=StatsdConfig, build=build_statsd, experimental=True)
