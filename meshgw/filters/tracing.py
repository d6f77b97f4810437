"""Which requests are traced, and where their spans begin and end: at a listener, and around each attempt on a bound name.

Source: linkerd-config spec 7.2, 9.4 to 9.7; ARCHITECTURE.md section 3. The spans themselves are made by ``filters.recording``. Where no
telemeter takes spans neither filter is there; a request that none wants costs a multiplication and a comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshgw.core.exchange import Exchange
from meshgw.filters.recording import LONGEST_TAG, Recording, Setting
from meshgw.naming.path import Path
from meshgw.telemetry.spans import Tracer, TracingSwitch
from meshgw.wire.context import SAMPLING_KNOWN, TraceId, scatter, threshold


class Sampler:
    """Says which tracers want a trace, and decides for those behind where a tracer here may."""

    __slots__ = ("_all", "_deciding", "_least", "_looking", "_most", "_salt", "unwanted")

    def __init__(self, tracers: Sequence[Tracer], salt: int) -> None:
        """``salt`` spreads sampling over processes; the routers of one have the same, so that they choose the same traces."""
        self._salt = salt
        self._all = tuple(tracers)
        self._least = tuple((threshold(tracer.rate), tracer) for tracer in tracers)
        self._looking = tuple(each for each in self._least if not each[1].decides)
        self._most = max((least for least, _ in self._least), default=0)
        self._deciding = max((least for least, tracer in self._least if tracer.decides), default=None)
        self.unwanted = 0 if self._deciding is None else SAMPLING_KNOWN
        """The flags of a trace that begins here and that nobody wants."""

    def wants(self, root: int) -> bool:
        """Whether anybody here wants the trace that begins with a request, of that id; nobody has decided about it."""
        return scatter(root, self._salt) < self._most

    def takers(self, trace: TraceId) -> tuple[Tracer, ...]:
        """Those who want it. Where nobody has decided and somebody here may, ``trace`` has a decision afterwards."""
        wanted, is_sampled = self._least, trace.is_sampled
        if is_sampled:
            return self._all
        at = scatter(trace.trace, self._salt)
        if is_sampled is None:
            if self._deciding is not None:
                trace.decide(at < self._deciding)
        else:
            wanted = self._looking
        if at >= self._most:
            return ()
        return tuple(tracer for least, tracer in wanted if at < least)


class ServerTracing:
    """Begins the recording of a listener's requests; the walk ends it."""

    __slots__ = ("_sampler", "_setting", "_switch")

    def __init__(self, sampler: Sampler, switch: TracingSwitch, setting: Setting) -> None:
        self._sampler, self._switch, self._setting = sampler, switch, setting

    def on_request(self, ex: Exchange) -> None:
        """Ask the tracers. Most requests begin a trace that nobody wants, and need no object for it."""
        sampler, root = self._sampler, ex.root
        is_enabled = self._switch.enabled
        if root:
            if not (is_enabled and sampler.wants(root)):
                ex.root_flags = sampler.unwanted if is_enabled else 0
                return
            ex.root_flags = 0
        trace = ex.trace
        if trace is None or not is_enabled:
            return
        takers = sampler.takers(trace)
        if takers or trace.flags:
            ex.trace = trace  # from now on what is told is what was decided
        if takers:
            ex.recording = Recording(self._setting, ex, trace, takers)


class AttemptTracing:
    """Tells the recording of attempts on one bound name. The walk tells of their answers and ends, without a call where there is none."""

    __slots__ = ("_route", "_told")

    def __init__(self, service: Path, client: Path, residual: Path, *, told: bool) -> None:
        """``told`` is whether endpoints get the context."""
        self._told = told
        route = {"service": service, "client": client, **({"residual": residual} if residual else {})}
        self._route = {tag: path.show()[:LONGEST_TAG] for tag, path in route.items()}

    def on_request(self, ex: Exchange) -> None:
        """An attempt begins."""
        if ex.recording is not None:
            ex.recording.begin(self._route, told=self._told)
