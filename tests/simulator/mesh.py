"""A client of the gateway in a simulated world: scripted backends behind the real balancers, breakers and retry budgets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from meshgw.balance.nodes import ACCRUAL, Node, Nodes, Picker
from meshgw.core.address import Address
from meshgw.filters.accrual import Breaker, Policy
from meshgw.filters.budget import RetryBudget
from simulator.world import World


class Backend:
    """A server with a number of workers; requests beyond them queue. ``latency`` and ``fails`` may be changed while it runs."""

    def __init__(self, world: World, latency: float, workers: int) -> None:
        self._world, self.latency, self._workers = world, latency, workers
        self.fails = False
        self.begun = 0
        self._busy = 0
        self._queue: deque[Callable[[bool], None]] = deque()

    def serve(self, ended: Callable[[bool], None]) -> None:
        """Work on a request; ``ended`` is told whether it succeeded. Work takes a random time around ``latency``."""
        self.begun += 1
        if self._busy < self._workers:
            self._work(ended)
        else:
            self._queue.append(ended)

    def _work(self, ended: Callable[[bool], None]) -> None:
        self._busy += 1

        def done() -> None:
            self._busy -= 1
            if self._queue:
                self._work(self._queue.popleft())
            ended(not self.fails)

        self._world.after(self.latency * self._world.random.uniform(0.8, 1.2), done)


class SimulatedEndpoint:
    """A backend and the breaker before it."""

    def __init__(self, backend: Backend, policy: Policy | None, mesh: Mesh) -> None:
        self.backend, self._policy, self._mesh = backend, policy, mesh
        self.breaker: Breaker | None = None

    def attach(self, node: Node[Any]) -> None:
        world = self._mesh.world
        if self._policy is not None:
            self.breaker = Breaker(
                self._policy,
                after=world.after,
                clock=world.seconds,
                stats=self._mesh,
                on_change=lambda available: node.mark(ACCRUAL, not available),
            )

    def retire(self) -> None:
        if self.breaker is not None:
            self.breaker.stop()

    def revive(self) -> None:
        if self.breaker is not None:
            self.breaker.rediscovered()


class Mesh:
    """Sends requests as the gateway does: pick, count, tell breaker and balancer, retry within the budget."""

    def __init__(
        self,
        world: World,
        backends: list[Backend],
        picker: Picker,
        *,
        policy: Callable[[], Policy] | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        self.world, self.backends, self.picker = world, backends, picker
        self._policy, self._budget = policy, budget
        self.nodes: Nodes[SimulatedEndpoint] = Nodes(self._endpoint, probation=picker.probation)
        self.nodes.update([Address(f"10.0.{index // 256}.{index % 256}", 80) for index in range(len(backends))])
        self.times: list[float] = []
        self.requests = self.attempts = self.succeeded = self.given_up = 0
        self.removals = self.revivals = self.probes = 0
        self.dead_seconds = 0.0

    def _endpoint(self, address: Address) -> SimulatedEndpoint:
        high, low = address.host.split(".")[2:]
        return SimulatedEndpoint(self.backends[int(high) * 256 + int(low)], self._policy() if self._policy else None, self)

    def removed(self) -> None:
        self.removals += 1

    def revived(self) -> None:
        self.revivals += 1

    def probed(self) -> None:
        self.probes += 1

    def removed_for(self, seconds: float) -> None:
        self.dead_seconds += seconds

    def request(self) -> None:
        """A caller sends a request."""
        self.requests += 1
        if self._budget is not None:
            self._budget.deposit()
        self._attempt(self.world.seconds())

    def _attempt(self, arrived: float) -> None:
        node = self.picker.pick(self.nodes)
        assert node is not None
        self.attempts += 1
        node.load += 1
        if self.picker.on_begin is not None:
            self.picker.on_begin(node)
        breaker, sent = node.endpoint.breaker, self.world.seconds()
        if breaker is not None and not breaker.is_alive:
            breaker.begun()

        def ended(success: bool) -> None:
            node.load -= 1
            if self.picker.on_end is not None:
                self.picker.on_end(node, self.world.seconds() - sent, not success)
            if breaker is not None:
                (breaker.succeeded if success else breaker.failed)()
            self._ended(arrived, success)

        node.endpoint.backend.serve(ended)

    def _ended(self, arrived: float, success: bool) -> None:
        if not success and self._budget is not None and self._budget.try_withdraw():
            self._attempt(arrived)
            return
        self.times.append(self.world.seconds() - arrived)
        if success:
            self.succeeded += 1
        else:
            self.given_up += 1


def percentile(times: list[float], part: float) -> float:
    """The time within which this part of the requests ended."""
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
