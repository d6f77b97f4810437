"""Peak EWMA: of two random nodes the one with the lower expected latency.

Source: linkerd-config spec 10.6 (Finagle's PeakEwma). A node's cost follows its latency: at once upwards, and downwards with the time
constant ``decayTimeMs``; it decays while the node is idle too, so that a node avoided for its slowness is tried again. Its load is the
cost times the requests it would have under way. Time is monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Any

import attrs

from meshgw.balance.nodes import E, Node
from meshgw.balance.pickers import MAX_EFFORT, DrawingConfig, Random, TwoChoices
from meshgw.config.document import at_least, option
from meshgw.kinds import Kind, Runtime

PENALTY = 1e9
"""Seconds: what a node without history costs while its first answers are outstanding, so that it gets one request to begin with."""

LEAST_LATENCY = 1e-9
"""Seconds: an answer within the clock's resolution is history too, and must not look like none."""


@attrs.frozen(kw_only=True)
class EwmaConfig(DrawingConfig):
    """Peak EWMA: of two random endpoints, the one with the lower latency times requests under way is used."""

    decay_time_ms: int = option(
        default=10000, doc="Milliseconds in which the memory of a latency falls to 1/e (Finagle's 10 s).", check=at_least(1)
    )


class PeakEwma(TwoChoices):
    """Picks by latency. Tell it the end of every request, also of failed ones: they count with their duration."""

    __slots__ = ("_clock", "_decay")
    algorithm = "p2c_peak_ewma"

    def __init__(
        self, random: Random, clock: Callable[[], float], decay: float, max_effort: int = MAX_EFFORT, *, probation: bool = False
    ) -> None:
        """``decay`` is the time constant in seconds."""
        super().__init__(random, max_effort, probation=probation)
        self._clock, self._decay = clock, decay
        self.on_end = self._observe

    def load(self, node: Node[Any]) -> float:
        """The seconds that a request sent to the node now is expected to take, in proportion."""
        return self._load(node, self._clock())

    def _load(self, node: Node[Any], now: float) -> float:
        cost = node.cost
        if not cost:
            return PENALTY + node.load if node.load else 0.0
        return cost * exp((node.stamp - now) / self._decay) * (node.load + 1)

    def _prefer(self, one: Node[E], other: Node[E]) -> bool:
        now = self._clock()
        return self._load(one, now) < self._load(other, now)

    def _observe(self, node: Node[Any], seconds: float, _failed: bool) -> None:
        """A request to the node took ``seconds``."""
        now = self._clock()
        rtt = seconds if seconds > LEAST_LATENCY else LEAST_LATENCY
        if rtt > node.cost:
            node.cost = rtt
        else:
            kept = exp((node.stamp - now) / self._decay)
            node.cost = node.cost * kept + rtt * (1.0 - kept)
        node.stamp = now


def build_ewma(config: EwmaConfig, runtime: Runtime) -> PeakEwma:
    """The balancer of one bound name."""
    return PeakEwma(
        runtime.random.random,
        runtime.reactor.seconds,
        config.decay_time_ms / 1000,
        config.max_effort,
        probation=config.enable_probation,
    )


EWMA = Kind(id="ewma", config=EwmaConfig, build=build_ewma)
