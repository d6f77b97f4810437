"""Which requests are traced, and where their spans begin and end: at a listener, and around each attempt on a bound name.

Source: linkerd-config spec 7.2, 9.4 to 9.7; ARCHITECTURE.md section 3. What is noted of a request is ``filters.recording``'s business.
Where no telemeter takes spans nothing of this is there; a request that none wants costs a multiplication and a comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshgw.core.exchange import Exchange
from meshgw.filters.recording import LONGEST_TAG, Recording, Setting
from meshgw.naming.path import Path
from meshgw.telemetry.spans import Tracer, TracingSwitch
from meshgw.wire.context import HALF, SAMPLED, SAMPLING_KNOWN, SCATTER, TraceId, scatter, threshold


class Sampler:
    """Says which tracers want a trace, and decides for those behind where a tracer here may."""

    __slots__ = ("_all", "_bands", "_deciding", "_least", "_looking", "most", "salt", "unwanted")

    def __init__(self, tracers: Sequence[Tracer], salt: int) -> None:
        """``salt`` spreads sampling over processes; the routers of one have the same, so that they choose the same traces."""
        self.salt = salt
        self._all = tuple(tracers)
        self._least = tuple((threshold(tracer.rate), tracer) for tracer in tracers)
        self._looking = tuple(each for each in self._least if not each[1].decides)
        self.most = max((least for least, _ in self._least), default=0)
        """A trace that nobody has decided about, and whose :func:`scatter` is not below this, is wanted by nobody."""
        self._deciding = max((least for least, tracer in self._least if tracer.decides), default=None)
        self.unwanted = 0 if self._deciding is None else SAMPLING_KNOWN
        """The flags of a trace that begins here and that nobody wants."""
        self._bands = tuple(self._band(least) for least in sorted({least for least, _ in self._least}))

    def _band(self, least: int) -> tuple[int, tuple[Tracer, ...], int]:
        takers = tuple(tracer for mine, tracer in self._least if mine >= least)
        is_sampled = self._deciding is not None and self._deciding >= least
        return least, takers, self.unwanted | (SAMPLED if is_sampled else 0)

    def chosen(self, at: int) -> tuple[tuple[Tracer, ...], int]:
        """Those who want a trace that nobody has decided about, and the flags that it gets, by its :func:`scatter`."""
        for least, takers, flags in self._bands:
            if at < least:
                return takers, flags
        return (), self.unwanted

    def takers(self, trace: TraceId) -> tuple[Tracer, ...]:
        """Those who want it. Where nobody has decided and somebody here may, ``trace`` has a decision afterwards."""
        is_sampled = trace.is_sampled
        if is_sampled:
            return self._all
        at = scatter(trace.trace, self.salt)
        if is_sampled is None:
            takers, flags = self.chosen(at)
            if flags:
                trace.decide(bool(flags & SAMPLED))
            return takers
        return tuple(tracer for least, tracer in self._looking if at < least)


class ServerTracing:
    """Begins the recording of a listener's requests; the walk ends it."""

    __slots__ = ("_most", "_sampler", "_salt", "_setting", "_switch", "_unwanted")

    def __init__(self, sampler: Sampler, switch: TracingSwitch, setting: Setting) -> None:
        self._sampler, self._switch, self._setting = sampler, switch, setting
        self._salt, self._most, self._unwanted = sampler.salt, sampler.most, sampler.unwanted

    def on_request(self, ex: Exchange) -> None:
        """Ask the tracers. Most requests begin a trace that nobody wants, and need no object for it."""
        root = ex.root
        if root and self._switch.enabled:
            at = ((root ^ self._salt) * SCATTER >> 32) & HALF  # scatter() in line
            if at >= self._most:
                ex.root_flags = self._unwanted
            else:
                takers, ex.root_flags = self._sampler.chosen(at)
                ex.recording = Recording(self._setting, ex, None, takers)
        else:
            self._join(ex)

    def _join(self, ex: Exchange) -> None:
        """It belongs to a trace that began elsewhere, or nothing is traced."""
        if ex.root:
            ex.root_flags = 0
        elif ex.trace is not None and self._switch.enabled:
            takers = self._sampler.takers(ex.trace)
            if takers:
                ex.recording = Recording(self._setting, ex, ex.trace, takers)


def route_tags(service: Path, client: Path, residual: Path) -> Mapping[str, str]:
    """What the spans of attempts on one bound name tell of it."""
    route = {"service": service, "client": client, **({"residual": residual} if residual else {})}
    return {tag: path.show()[:LONGEST_TAG] for tag, path in route.items()}


class AttemptTracing:
    """Tells the recording of attempts whose endpoints are told nothing; of the others ``filters.destination`` does, with what it tells.

    The walk tells of their answers and ends, without a call where there is no recording.
    """

    __slots__ = ("_route",)

    def __init__(self, route: Mapping[str, str]) -> None:
        self._route = route

    def on_request(self, ex: Exchange) -> None:
        """An attempt begins."""
        if ex.recording is not None:
            ex.recording.begin(ex, self._route, told=False)
