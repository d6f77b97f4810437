"""What one process tells of itself when admin asks: is it ready, what do its threads do, what is wrong with it, where do its names lead.

Source: linkerd-config spec 2.3. Answers are plain JSON data, so that workers can give them to their master. The words are those of
:data:`WORDS`; of how answers of several processes are put together ``admin.diagnostics`` knows.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from twisted.internet.threads import deferToThreadPool

from meshgw.admin.errors import ProfileUnderWay, Relayed
from meshgw.app.client import BoundClient
from meshgw.app.gateway import Gateway
from meshgw.app.request_router import RequestRouter
from meshgw.app.router import Choice
from meshgw.bind.route import Phase, Route
from meshgw.core.slices import Slices, Work
from meshgw.telemetry.stacks import FASTEST_HZ, LONGEST_SECONDS, sample, threads
from meshgw.telemetry.stalls import Stalls

WORDS: Final = ("ready", "threads", "profile", "problems", "addresses", "stacks")
OF_PROCESSES: Final = frozenset({"threads", "profile", "problems"})
"""Those that a master answers for itself, too."""
MOST_WAITING: Final = 100
"""Names that requests wait for which are told of."""
MOST_PROBLEMS: Final = 1000
EXPIRES_DAYS: Final = 14
"""A certificate that ends in this time is a problem: renewals are due well before."""
STALL_SECONDS: Final = 0.25
"""A stall that callers notice."""
DESCRIPTORS_SHARE: Final = 0.8


class Diagnosis:
    """Answers for this process; ``gateway`` is None in a master, which serves nothing itself."""

    def __init__(self, reactor: Any, gateway: Gateway | None, stalls: Stalls, slices: Slices) -> None:
        self._reactor, self._gateway, self._stalls, self._slices = reactor, gateway, stalls, slices
        self._profiling: threading.Event | None = None

    async def answer(self, word: str, argument: Any = None) -> Any:
        """The answer to one of :data:`WORDS`."""
        match word:
            case "threads":
                return {"threads": threads(), "reactor": self._stalls.describe()}
            case "profile":
                return await self._profile(*argument)
            case "problems":
                return await self._slices.run(self._problems())
            case "ready":
                return self._ready()
            case "addresses":
                return await self._slices.run(self._addresses(*argument))
            case "stacks":
                return {label: _stacks(router) for label, router in self._routers().items()}
        raise Relayed(code=501, text=f"{word!r} is not a question that this process knows")

    def _routers(self) -> Mapping[str, RequestRouter]:
        return {} if self._gateway is None else self._gateway.routers

    # --- readiness

    def _ready(self) -> dict[str, list[str]]:
        """``pending`` keeps every request of a router from being served; ``waiting`` are names that only some requests want."""
        pending: list[str] = []
        waiting: list[str] = []
        for label, router in self._routers().items():
            pending += [f"router {label}: {reason}" for reason in _pending(router)]
            waiting += [f"router {label}: {reason}" for reason in _waiting(router)]
        return {"pending": pending, "waiting": waiting[:MOST_WAITING]}

    # --- what is wrong

    def _problems(self) -> Work[list[list[str]]]:
        """Pairs of a rule's id (``admin.lint``) and a sentence."""
        found: list[list[str]] = []
        for label, router in self._routers().items():
            found += [["certificates", f"router {label}: {text}"] for text in expiring(router.certificates(), datetime.now(UTC))]
            for client in router.caches.clients():
                if len(found) < MOST_PROBLEMS:
                    found += _client_problems(client)
                yield
        recent = self._stalls.recent
        if recent >= STALL_SECONDS:
            found.append(["stalls", f"the reactor was kept from its work for {recent * 1000:.0f} ms in the last minute"])
        used, limit = _descriptors()
        if limit and used > DESCRIPTORS_SHARE * limit:
            found.append(["descriptors", f"{used} of {limit} file descriptors are in use"])
        return found

    # --- profile

    async def _profile(self, seconds: float, hz: int) -> dict[str, int]:
        if self._profiling is not None:
            raise ProfileUnderWay
        stopped = self._profiling = threading.Event()
        seconds, hz = min(seconds, LONGEST_SECONDS), min(hz, FASTEST_HZ)
        try:
            found: dict[str, int] = await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), sample, seconds, hz, stopped)
            return found
        finally:
            stopped.set()
            self._profiling = None

    # --- addresses

    def _addresses(self, router: str | None, service: str | None) -> Work[list[dict[str, Any]]]:
        found = []
        for label, one in self._routers().items():
            routes = list(one.caches.routes.values()) if router in (None, label) else []
            for route in routes:
                if service in (None, route.name.show()):
                    found.append({"router": label, **_route(route)})
                    yield
        return found


def _pending(router: RequestRouter) -> Iterator[str]:
    if not router.is_listening:
        yield "it does not listen"
    for what, item in (("interpreter", router.interpreter), *(("identifier", one) for one in router.identifiers)):
        awaits = getattr(item, "awaits", "")
        if awaits:
            yield f"its {what} waits for {awaits}"


def _waiting(router: RequestRouter) -> Iterator[str]:
    for route in router.caches.routes.values():
        if route.phase is Phase.PENDING:
            yield f"{route.name.show()} is not bound yet{_for(route.waiting_for)}"
        elif route.phase is Phase.FAILED:
            yield f"{route.name.show()} cannot be bound: {route.error}"
    for client in router.caches.clients():
        if client.error is not None:
            yield f"the addresses of {client.label} are not known: {client.error}"
        elif client.is_pending:
            yield f"the addresses of {client.label} are not known yet{_for(client.waiting_for)}"


def _for(waiting_for: str) -> str:
    return f": waiting for {waiting_for}" if waiting_for else ""


def _client_problems(client: BoundClient) -> Iterator[list[str]]:
    if client.error is not None:
        yield ["stale-discovery", f"the addresses of {client.label} are not known: {client.error}"]
    elif client.stale is not None:
        yield ["stale-discovery", f"the addresses of {client.label} may be outdated: {client.stale}"]
    nodes = client.nodes.all()
    if nodes and not any(node.is_available for node in nodes):
        causes = sorted({cause for node in nodes for cause in node.holds})
        yield ["no-endpoint", f"every endpoint of {client.label} is avoided: {', '.join(causes)}"]


def _route(route: Route) -> dict[str, Any]:
    shown: dict[str, Any] = {"service": route.name.show(), "state": route.phase.value}
    if route.dtab is not None:
        shown["dtab"] = route.dtab.show()
    if route.waiting_for and route.phase is Phase.PENDING:
        shown["waitingFor"] = route.waiting_for
    if route.error is not None:
        shown["error"] = str(route.error)
    if route.stale is not None:
        shown["stale"] = str(route.stale)
    choices: list[tuple[float, Choice | None]] = [] if route.choices is None else list(route.choices.items)
    shown["clients"] = [{"client": one.client.label, "share": round(share, 6), **one.client.state()} for share, one in choices if one]
    return shown


def _stacks(router: RequestRouter) -> dict[str, Any]:
    """The roles of the filters at each level, as they were compiled for each place."""
    services: dict[str, list[str]] = {}
    clients: dict[str, list[str]] = {}
    for route in router.caches.routes.values():
        services[route.name.show()] = [role.value for role in route.pipeline.roles]
        for _, choice in () if route.choices is None else route.choices.items:
            if choice is not None:
                clients[choice.client.label] = [role.value for role in choice.pipeline.roles]
    return {"server": router.describe_servers(), "service": services, "client": clients}


def expiring(certificates: Mapping[str, datetime], now: datetime) -> Iterator[str]:
    """A sentence for each certificate that has ended or is about to; they are given with their end."""
    for origin, end in certificates.items():
        days = (end - now).total_seconds() / 86400
        if days <= 0:
            yield f"the certificate {origin} ended on {end:%Y-%m-%d}"
        elif days < EXPIRES_DAYS:
            yield f"the certificate {origin} ends in {days:.1f} days, on {end:%Y-%m-%d}"


def _descriptors() -> tuple[int, int]:
    """The file descriptors in use, and how many there may be; zeros where that cannot be told."""
    try:
        used = len(os.listdir("/proc/self/fd")) - 1  # listing it opens one
    except OSError:
        return 0, 0
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return used, 0 if limit == resource.RLIM_INFINITY else limit
