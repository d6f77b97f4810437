"""Writing into ingresses where they are served: ``status.loadBalancer.ingress``, which DNS controllers and people read.

Source: Kubernetes' API reference of Ingress. Only ingresses that name our class are written, and only when they say something else. Several
gateways may do so at once, as they write the same: each waits a moment, sees what another has written, and has nothing left to do. One
that somebody else keeps changing back is written less and less often.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from meshgw.backends.kubernetes import SERVICES, JsonObject, KubernetesApi, Name, Objects, Wanted
from meshgw.core.live import Failed, Observation, Ok, State
from meshgw.core.logger import make_logger
from meshgw.core.timers import Backoff, Spawner
from meshgw.errors import BackendError, BackendRefused
from meshgw.identify.ingress_source import IngressSource, Owned
from meshgw.telemetry.metrics import Metrics

FIRST_SECONDS: Final = (0.5, 3.0)
"""Before the first of several writes, drawn at random: of several gateways one is likely to be first, and the others see it."""
PACE_SECONDS: Final = 0.2
"""Between two writes: a restart in a cluster of a thousand ingresses must not be a burst."""
AGAIN_SECONDS: Final = (10.0, 600.0)
"""Before the same ingress is written again, doubling from the first to the second."""
CALM_SECONDS: Final = 3600.0
"""An ingress that stayed as we wrote it for so long is written at once again."""
REFUSED_SECONDS: Final = 300.0
"""Before anything is written again once that was forbidden."""
QUARREL: Final = 3
"""Writes of the same ingress after which others are said to change it."""
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")

Entry = tuple[str, str]
"""``ip`` or ``hostname``, and its value."""
_log = make_logger()


class Addresses:
    """What is to be written: given addresses, or those of a service, which is watched."""

    def __init__(self, api: KubernetesApi, given: Sequence[str], service: str | None) -> None:
        """``service`` is ``namespace/name``."""
        self._api, self._service = api, service
        self.entries: tuple[Entry, ...] = tuple(sorted(_entry(address) for address in given))
        """None means that nothing is known that could be written."""
        self.problem = "" if service is None else f"service {service} is awaited"
        self._observation: Observation | None = None

    @staticmethod
    def is_address(text: str) -> bool:
        """Whether it is an IP address or a host name."""
        return _entry(text)[0] == "ip" or bool(len(text) <= 253 and _HOST.fullmatch(text))

    def follow(self, changed: Callable[[], None]) -> None:
        """Tell of changes."""
        if self._service is None:
            return

        def notify(state: State[Objects]) -> None:
            self._take(state)
            changed()

        namespace, _, name = self._service.partition("/")
        self._observation = self._api.objects(Wanted(SERVICES, namespace, name)).observe(notify)

    def stop(self) -> None:
        """End that."""
        if self._observation is not None:
            self._observation.close()

    def _take(self, state: State[Objects]) -> None:
        if isinstance(state, Failed):
            self.problem = str(state.error)
        if not isinstance(state, Ok):
            return
        item = state.value.one()
        entries = _external(item) if item is not None else ()
        if entries:
            self.entries, self.problem = entries, ""
        else:  # what was written stays: an address that is being changed is no reason to take it from DNS
            missing = "has no external address" if item is not None else "does not exist"
            self.problem = f"service {self._service} {missing}, so no status is written"


def _entry(address: str) -> Entry:
    try:
        return "ip", str(ipaddress.ip_address(address))
    except ValueError:
        return "hostname", address


def _external(service: JsonObject) -> tuple[Entry, ...]:
    """Where a service is reached from outside."""
    spec, status = service.get("spec"), service.get("status")
    balancer = status.get("loadBalancer") if isinstance(status, Mapping) else None
    found = _entries(balancer)
    if isinstance(spec, Mapping) and isinstance(spec.get("externalIPs"), list):
        found += tuple(_entry(ip) for ip in spec["externalIPs"] if isinstance(ip, str))
    return tuple(sorted(set(found)))


def _entries(balancer: object) -> tuple[Entry, ...]:
    """The addresses of a ``loadBalancer`` block."""
    listed = balancer.get("ingress") if isinstance(balancer, Mapping) else None
    if not isinstance(listed, list):
        return ()
    found = [(kind, each[kind]) for each in listed if isinstance(each, Mapping) for kind in ("ip", "hostname") if each.get(kind)]
    return tuple(sorted((kind, value) for kind, value in found if isinstance(value, str)))


def written(item: JsonObject) -> tuple[Entry, ...]:
    """What an ingress says at present."""
    status = item.get("status")
    return _entries(status.get("loadBalancer")) if isinstance(status, Mapping) else ()


@attrs.define
class _Record:
    """Our writes of ``entries`` into one ingress; it may be written again when that is ``due``."""

    entries: tuple[Entry, ...]
    due: float
    count: int = 0
    at: float = 0.0


class StatusWriter(Service):
    """Writes the statuses of the source's ingresses, one at a time."""

    def __init__(self, source: IngressSource, addresses: Addresses, *, clock: IReactorTime, rng: Random, metrics: Metrics) -> None:
        """``metrics`` is the scope ``ingress/status`` of the router."""
        self._source, self._addresses, self._clock, self._rng = source, addresses, clock, rng
        self._records: dict[Name, _Record] = {}
        self._call: IDelayedCall | None = None
        self._is_writing = False
        self._not_before = 0.0
        self._error: BackendError | None = None
        self._backoff = Backoff(rng, least=1.0, most=60.0)
        self._spawner = Spawner()
        self._writes, self._failures = metrics.counter("writes"), metrics.counter("failures")
        metrics.gauge("outdated", function=lambda: float(sum(1 for _ in self._outdated())))

    def startService(self) -> None:
        """Begin to write."""
        super().startService()  # type: ignore[no-untyped-call]
        self._source.on_change.append(self._plan)
        self._addresses.follow(self._plan)
        self._plan()

    def stopService(self) -> None:
        """End that."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._source.on_change.remove(self._plan)
        self._addresses.stop()
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._spawner.stop()

    def _outdated(self) -> Iterable[Owned]:
        """The ingresses that say something else than they should."""
        entries = self._addresses.entries
        return (one for one in self._source.owned if written(one.item) != entries) if entries else ()

    def _plan(self) -> None:
        """See to it that the next one is written when it is due."""
        if not self.running or self._is_writing:
            return
        due = min((self._due(one) for one in self._outdated()), default=None)
        if self._call is not None:
            if due is not None and self._call.getTime() <= due:
                return
            self._call.cancel()
            self._call = None
        if due is not None:
            self._call = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._begin)

    def _due(self, one: Owned) -> float:
        key, entries = (one.ingress.namespace, one.ingress.name), self._addresses.entries
        record = self._records.get(key)
        if record is None or record.entries != entries:
            record = self._records[key] = _Record(entries, self._clock.seconds() + self._rng.uniform(*FIRST_SECONDS))
        return max(record.due, self._not_before)

    def _begin(self) -> None:
        self._call = None
        now = self._clock.seconds()
        names = {(one.ingress.namespace, one.ingress.name) for one in self._source.owned}
        self._records = {name: record for name, record in self._records.items() if name in names}
        one = next((one for one in self._outdated() if self._due(one) <= now), None)
        if one is None:
            self._plan()
            return
        self._is_writing = True
        self._spawner.spawn(self._write(one), f"status of ingress {one.ingress.label}")

    async def _write(self, one: Owned) -> None:
        resource, ingress = self._source.resource, one.ingress
        assert resource is not None
        listed = [dict([entry]) for entry in self._addresses.entries]
        body = {"status": {"loadBalancer": {"ingress": listed}}}
        try:
            await self._source.api.request("PATCH", resource, ingress.namespace, ingress.name, subresource="status", body=body)
        except BackendError as error:
            self._failed(one, error)
        else:
            self._note(one)
            self._writes.incr()
            self._error = None
            self._backoff.reset()
            self._not_before = self._clock.seconds() + PACE_SECONDS
        finally:
            self._is_writing = False
            self._plan()

    def _note(self, one: Owned) -> None:
        """When it may be written again; others may be at it, too."""
        if self._put_off(one) == QUARREL:
            _log.warn(
                "ingress {ingress}: its status is changed by others each time it is written; does another controller serve it, or another "
                "gateway with other addresses? It is written less and less often",
                ingress=one.ingress.label,
            )

    def _put_off(self, one: Owned) -> int:
        """Wait longer before this one is written again; how often it was tried."""
        now, (least, most) = self._clock.seconds(), AGAIN_SECONDS
        record = self._records[one.ingress.namespace, one.ingress.name]
        record.count = 1 if record.count and now - record.at > CALM_SECONDS else record.count + 1
        record.at, record.due = now, now + min(most, least * 2 ** min(record.count - 1, 10))
        return record.count

    def _failed(self, one: Owned, error: BackendError) -> None:
        self._failures.incr()
        is_its_own = isinstance(error, BackendRefused) and error.is_lasting and error.code not in (401, 403)
        if is_its_own:  # the others are written nevertheless
            self._put_off(one)
        wait = PACE_SECONDS if is_its_own else REFUSED_SECONDS if error.is_lasting else self._backoff.next()
        self._not_before = self._clock.seconds() + wait
        if isinstance(error, BackendRefused) and error.code == 404:
            return  # it was deleted a moment ago
        if self._error is None or self._error.summary != error.summary:  # which ingress it was about makes no difference
            _log.warn("statuses of ingresses cannot be written: {error}", error=str(error))
        self._error = error

    def describe(self) -> dict[str, Any]:
        """What is written and what is wrong, for admin."""
        problem = str(self._error) if self._error is not None else self._addresses.problem
        return {
            "addresses": [value for _, value in self._addresses.entries],
            "outdated": [one.ingress.label for one in self._outdated()][:20],
            "problem": problem or None,
        }
