"""``io.l5d.dnssrv``: names are those of SRV records, addresses are the hosts and ports that the records tell.

Source: linkerd-config spec 3.9, RFC 2782. Records are asked for at each interval whatever their time to live; the hosts in them are
resolved as any host is, so their addresses follow DNS between two questions. Priorities and weights do not count, as in Linkerd. Unlike
there, a name server's failure leaves the last good endpoints in use; before any good answer the name is neg, and the error is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs
from twisted.application.service import MultiService

from meshgw.backends.dns_client import NameServerClient, Server
from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoint, Endpoints, Found, NoEndpoints, Resolve, show_found
from meshgw.backends.watching import Pace, Watch, Watches
from meshgw.config.document import Chosen, at_least, option
from meshgw.core.address import Addr, Bound, Replicas
from meshgw.core.live import Constant, Failed, Live, Ok, Source, State, constant
from meshgw.errors import BackendError, BackendRefused
from meshgw.kinds import Kind, Runtime
from meshgw.namers.dns import HostState, Resolver
from meshgw.namers.resolvconf import FixedServers, SystemServers, literal_address, valid_name
from meshgw.namers.watched import bound_name
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, NameTree
from meshgw.wire import dns as wire

SILENCE_SECONDS: Final = 60.0
"""Beyond the time between two questions, each of which has a limit of its own."""
_WITH_PORT: Final = re.compile(r"(?:\[(?P<bracketed>[^\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>\d{1,5}))?")


@attrs.frozen
class NameServer:
    """A name server as ``dnsHosts`` has it: ``host``, ``host:port`` or ``[IPv6 address]:port``."""

    host: str
    port: int = 53

    @classmethod
    def read(cls, text: str) -> NameServer:
        """Read it. Raises ValueError."""
        literal = literal_address(text)
        if literal is not None:  # an IPv6 address needs no brackets if no port follows
            return cls(literal)
        match = _WITH_PORT.fullmatch(text)
        host, port = (match["bracketed"] or match["host"], int(match["port"] or 53)) if match is not None else ("", 0)
        known = literal_address(host) or valid_name(host or "")
        if known is None or not 1 <= port <= 65535:
            raise ValueError(f"expected the host or host:port of a name server, found {text!r}")
        return cls(known, port)

    def show(self) -> str:
        """As it is written in the file."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen(kw_only=True)
class DnsSrvConfig:
    """Services found in SRV records of DNS."""

    refresh_interval_seconds: float = option(
        default=5.0,
        check=at_least(0.1),
        doc="Seconds between two questions for the records of a service, give or take a tenth; the records' time to live does not count.",
    )
    dns_hosts: tuple[NameServer, ...] = option(
        default=(),
        doc="Name servers to ask, `host` or `host:port`, for the records and for the hosts in them; the next is asked when one fails. "
        "None given means those of the system, in /etc/resolv.conf.",
    )
    prefix: Path = option(factory=lambda: Path.read("/io.l5d.dnssrv"), doc="The namer answers names under `/#` followed by this path.")
    transformers: tuple[Chosen, ...] = option(
        default=(), doc="Transformers applied in the listed order to what this namer finds.", kinds="transformers"
    )


def found_in(answer: wire.Answer) -> Found:
    """The endpoints that an answer tells. Sorted, as servers rotate records, which must not look like a change."""
    endpoints = set()
    for record in answer.answers:
        if isinstance(record.data, wire.Srv) and record.data.port:
            host = valid_name(record.data.target)  # the root, "not available here" (RFC 2782), is no valid name
            if host is not None:
                endpoints.add((host, record.data.port))
    return Endpoints(tuple(Endpoint(*one) for one in sorted(endpoints))) if endpoints else NO_ENDPOINTS


class DnsSrvNamer(MultiService):
    """The namer; ``prefix`` is its full mount point with ``/#``. ``client`` asks for the records, ``resolve`` for the hosts in them."""

    def __init__(
        self, runtime: Runtime, client: NameServerClient, resolve: Resolve, *, prefix: Path, interval: float, backend: str
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._runtime, self._client, self._prefix, self._interval = runtime, client, prefix, interval
        metrics = self._metrics = runtime.metrics
        self._resolve = _Unknown(resolve, metrics.counter("unknown_srv_hosts_results_total").incr).resolve
        self._lookups = metrics.counter("lookups")
        self._successes, self._failures = metrics.counter("lookup_successes_total"), metrics.counter("lookup_failures_total")
        self._empty, self._unexpected = metrics.counter("lookup_zero_results_total"), metrics.counter("unexpected_code_total")
        self._duration = metrics.histogram("request_duration_ms")
        self._watches: Watches[str, Found] = Watches(
            runtime.reactor,
            runtime.random,
            metrics.scope("service"),
            backend=backend,
            follow=self._follow,
            show=str,
            show_value=show_found,
            absent=NO_ENDPOINTS,
            pace=Pace(most=max(interval, 5.0), lasting_most=max(interval, 30.0), silence=2 * interval + SILENCE_SECONDS),
        )
        self._watches.setServiceParent(self)  # type: ignore[no-untyped-call]

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """The service whose SRV name is the first label, the rest as residual."""
        self._lookups.incr()
        name = valid_name(path[0].decode("utf-8", "replace")) if path else None
        if name is None:
            return constant(NEG)
        name = name.removesuffix(".")
        id = self._prefix + path.take(1)
        return bound_name(self._watches, name, id=id, residual=path.drop(1), resolve=self._resolve, needs_address=True)

    def describe(self) -> dict[str, Any]:
        """What is watched, for ``/namer_state``; with name servers of its own also the hosts that they were asked for."""
        described: dict[str, Any] = {"dnssrv": self._watches.describe()}
        for part in self:
            if isinstance(part, Resolver):
                described["hosts"] = {host.host: _host(host) for host in part.states()}
        return described

    async def _follow(self, watch: Watch[str, Found]) -> None:
        iterations = self._metrics.scope("lookup_dns", "iteration")
        count = iterations.counter(watch.key)
        try:
            while True:
                count.incr()
                watch.good(await self._ask(watch))
                await watch.sleep(self._interval * self._runtime.random.uniform(0.9, 1.1))
        finally:
            iterations.remove(watch.key)  # names come from callers, and must not fill the tree

    async def _ask(self, watch: Watch[str, Found]) -> Found:
        began = self._runtime.reactor.seconds()
        try:
            answer = await self._client.ask(watch.key, wire.SRV)
        except BackendError as error:
            self._failures.incr()
            if isinstance(error, BackendRefused):
                self._unexpected.incr()
            raise
        finally:
            self._duration.add(1000 * (self._runtime.reactor.seconds() - began))
        found = found_in(answer)
        self._successes.incr()
        if isinstance(found, NoEndpoints):
            self._empty.incr()
            watch.facts["answer"] = "no such name" if answer.code == wire.NO_SUCH_NAME else "no SRV record with a host and port"
        else:
            watch.facts["answer"] = f"{len(answer.answers)} records"
        return found


class _Unknown:
    """Resolves hosts, and counts each time that one turns out to be unknown."""

    def __init__(self, resolve: Resolve, count: Callable[[], None]) -> None:
        self._resolve, self._count = resolve, count

    def resolve(self, host: str, port: int) -> Live[Addr]:
        """As the function given."""
        live = self._resolve(host, port)
        return live if isinstance(live, Constant) else Source(partial(self._follow, live), forget=True)

    def _follow(self, live: Live[Addr], out: Source[Addr]) -> Callable[[], None]:
        def notify(state: State[Addr]) -> None:
            if isinstance(state, Failed) or (isinstance(state, Ok) and not isinstance(state.value, Replicas)):
                self._count()
            out.put(state)

        return live.observe(notify).close


def _host(state: HostState) -> dict[str, object]:
    age = None if state.age is None else round(state.age, 3)
    return {"addresses": list(state.addresses), "ageSeconds": age, "error": state.error or None}


def build_dnssrv(config: DnsSrvConfig, runtime: Runtime) -> DnsSrvNamer:
    """The namer for a configuration block."""
    prefix, interval = Path.of("#") + config.prefix, config.refresh_interval_seconds
    if not config.dns_hosts:
        client = SystemServers(runtime.reactor).client()
        return DnsSrvNamer(runtime, client, runtime.resolve, prefix=prefix, interval=interval, backend="DNS")
    hosts: tuple[Server, ...] = tuple((one.host, one.port) for one in config.dns_hosts)
    client = NameServerClient(runtime.reactor, lambda: hosts, runtime.resolve)
    # The hosts in the records are often known to these servers only, as those of Consul are; the machine's own files do not count.
    resolver = Resolver(runtime.reactor, FixedServers(client), runtime.random, runtime.metrics, hosts_file=os.devnull)
    backend = f"DNS at {', '.join(one.show() for one in config.dns_hosts)}"
    namer = DnsSrvNamer(runtime, client, resolver.resolve, prefix=prefix, interval=interval, backend=backend)
    resolver.setServiceParent(namer)  # type: ignore[no-untyped-call]
    return namer


KIND = Kind(id="io.l5d.dnssrv", config=DnsSrvConfig, build=build_dnssrv, experimental=True)
