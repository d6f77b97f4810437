"""Telemeters that tell of all processes together, in the one that serves admin while others serve the routers.

Workers tell by themselves what adds up wherever it is told. What does not, such as StatsD's gauges, is told here, from the figures of all.
A telemeter of this sort has ``joined(runtime, read)``, which gives the service that does so, and ``leave_gauges()``, after which its own
process leaves that to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import attrs
from twisted.application.service import MultiService
from twisted.internet.defer import maybeDeferred

from meshgw.config.models import Config
from meshgw.kinds import Runtime
from meshgw.namers.dns import Resolver
from meshgw.namers.resolvconf import SystemServers
from meshgw.telemetry.metrics import Snapshot


class JoinedTelemetry:
    """Runs what the telemeters of one configuration after another tell of all processes."""

    def __init__(self, runtime: Runtime, read: Callable[[], Awaitable[Snapshot]]) -> None:
        """``runtime`` is that of this process, which need not resolve names; ``read`` gives the figures of all processes."""
        self._runtime, self._read = runtime, read
        self._services: MultiService | None = None

    async def update(self, config: Config) -> None:
        """Tell what the telemeters of ``config`` say, and no more what others said."""
        await self.stop()
        runtime = self._runtime
        telemeters = [chosen.kind.build(chosen.config, runtime) for chosen in config.telemetry]
        telling = [telemeter for telemeter in telemeters if hasattr(telemeter, "joined")]
        if telling:
            services = self._services = MultiService()  # type: ignore[no-untyped-call]
            resolver = Resolver(runtime.reactor, SystemServers(runtime.reactor), runtime.random, runtime.metrics)
            resolver.setServiceParent(services)  # type: ignore[no-untyped-call]
            for telemeter in telling:
                service = telemeter.joined(attrs.evolve(runtime, resolve=resolver.resolve), self._read)
                service.setServiceParent(services)
            services.startService()  # type: ignore[no-untyped-call]

    async def stop(self) -> None:
        """Tell nothing."""
        services, self._services = self._services, None
        if services is not None:
            await maybeDeferred(services.stopService)


def leave_to_master(telemeters: Sequence[Any]) -> None:
    """These are of a process with a master, which tells of all."""
    for telemeter in telemeters:
        if hasattr(telemeter, "leave_gauges"):
            telemeter.leave_gauges()
