"""``io.l5d.consul``: names are services of Consul's catalog, followed by blocking queries.

Source: linkerd-config spec 3.4 and 5.6 (authority). Unlike Linkerd, no failure ends the polling, the waits are short (see
``backends.consul``), and what cannot be had is told: in metrics, the log, ``/namer_state`` and the errors of requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from random import Random
from typing import Any, Final, cast
from urllib.parse import quote, urlencode

import attrs
from twisted.application.service import MultiService

from meshgw.backends.connecting import Connector
from meshgw.backends.consul import CONSISTENCY_FLAGS, ConsulApi, Listing, Node, OwnAgent, ServiceQuery, next_index, node_entries
from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoint, Endpoints, Found, NoEndpoints, Resolve, show_found
from meshgw.backends.http_client import ApiClient
from meshgw.backends.json_entries import Entries
from meshgw.backends.turns import Turns
from meshgw.backends.watching import Watch, Watches
from meshgw.config.document import Check, Chosen, Notice, at_least, option
from meshgw.config.tls import ClientTls, backend_tls_notice
from meshgw.config.values import Port
from meshgw.core.address import NO_META, WEIGHT_KEY, Bound
from meshgw.core.kept import Kept
from meshgw.core.live import Live, constant
from meshgw.kinds import Kind, Runtime
from meshgw.namers.watched import bound_name
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, NameTree
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.outcomes import Outcomes

LOCAL: Final = ".local"
"""The datacenter of the agent that is asked."""
LEAST_SECONDS: Final = 0.2
"""From one question for a service to the next: many changes at once become one answer, and are still seen well within a second."""
DULL_SECONDS: Final = 1.0
"""The same after an answer without news, and for a service that does not exist: any change of the catalog ends Consul's wait for it."""
TURNLESS_SECONDS: Final = 5.0
"""The same, give or take a tenth, for a service that has no turn at blocking queries."""
RESERVED_META: Final = frozenset({"authority", WEIGHT_KEY, "namer_nametree_weight"})
"""What metadata of Consul must not decide: whoever registers a service does not choose the Host that another one is sent."""
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._-]+")

# Configuration


def _consistency(value: Any) -> str | None:
    return None if value in CONSISTENCY_FLAGS else f"Illegal Consul consistency mode level: {value}"


def _statuses(value: Any) -> str | None:
    unknown = [status for status in value if status not in ("passing", "warning", "critical", "maintenance")]
    return f"Illegal Consul health status: {unknown[0]}" if unknown else None


def _small_buffer(value: Any) -> str | None:
    if value is None or value >= 1024:
        return None
    return f"answers of more than {value} KB will be refused; Linkerd takes the number as megabytes, here it is kilobytes as documented"


def _no_effect(why: str) -> Notice:
    def notice(value: Any) -> str | None:
        return None if value is None else f"has no effect: {why} (Linkerd has the option in 1.6.4 only)"

    return notice


_POSITIVE: Final[Check] = at_least(1)


@attrs.frozen(kw_only=True)
class TagWeight:
    """A weight for the instances with a tag."""

    tag: str = option(doc="The tag.")
    weight: float = option(doc="Their weight in load balancing.", check=at_least(0))


@attrs.frozen(kw_only=True)
class ConsulConfig:
    """Services of Consul. A name is `/DATACENTER/SERVICE`, with includeTag `/DATACENTER/TAG/SERVICE`; `.local` is the agent's own."""

    host: str = option(default="localhost", doc="Host of the agent or server.")
    port: Port = option(default=Port(8500), doc="Port of its HTTP API.")
    prefix: Path = option(factory=lambda: Path.read("/io.l5d.consul"), doc="The namer answers names under `/#` followed by this path.")
    include_tag: bool = option(default=False, doc="Names have a tag before the service, which its instances must have.")
    use_health_check: bool = option(default=False, doc="Ask the health API and not the catalog; see healthStatuses.")
    health_statuses: tuple[str, ...] = option(
        default=("passing",),
        doc="With useHealthCheck: instances whose worst check is passing, warning, critical or maintenance, as listed, are used.",
        check=_statuses,
    )
    token: str | None = option(default=None, doc="ACL token that every request carries.", secret=True)
    set_host: bool = option(
        default=False, doc="Requests get the service's DNS name in Consul as their Host, and redirects of the answers are turned back."
    )
    consistency_mode: str = option(
        default="default", doc="Consul's consistency mode for reads: default, stale or consistent.", check=_consistency
    )
    fail_fast: bool = option(default=False, doc="After a failed connect to Consul no other is tried for a while, from 1 s to 32 s.")
    prefer_service_address: bool = option(
        default=True, doc="Use the address that an instance was registered with, if it has one, and not that of its node."
    )
    weights: tuple[TagWeight, ...] = option(default=(), doc="Weights by tag; the highest that matches counts, without any it is 1.")
    transfer_metadata: bool = option(
        default=False, doc="Carry the metadata of the first instance's service, and that of each node, as metadata of the addresses."
    )
    tls: ClientTls | None = option(default=None, doc="TLS to Consul.", effective="off", notice=backend_tls_notice)
    fixed_length_streamed_after_kb: int = option(
        name="fixedLengthStreamedAfterKB",
        default=5120,
        doc="The longest answer of Consul that is read, in kilobytes; a longer one counts as a failure.",
        check=_POSITIVE,
        notice=_small_buffer,
    )
    max_response_kb: int | None = option(
        name="maxResponseKB", default=None, doc="The same limit as in Linkerd 1.6.4; the smaller counts.", check=_POSITIVE, effective="none"
    )
    max_request_kb: int | None = option(
        name="maxRequestKB",
        default=None,
        doc="Of Linkerd 1.6.4; has no effect.",
        check=_POSITIVE,
        effective="none",
        notice=_no_effect("requests to Consul have no body"),
    )
    max_headers_kb: int | None = option(
        name="maxHeadersKB",
        default=None,
        doc="Of Linkerd 1.6.4; has no effect.",
        check=_POSITIVE,
        effective="16 for a line",
        notice=_no_effect("each header line of Consul may have 16 KB"),
    )
    max_initial_line_kb: int | None = option(
        name="maxInitialLineKB",
        default=None,
        doc="Of Linkerd 1.6.4; has no effect.",
        check=_POSITIVE,
        effective="16",
        notice=_no_effect("the status line of Consul may have 16 KB"),
    )
    max_blocking_queries: int = option(
        default=100,
        doc="How many services, in each process, are followed by a query that Consul holds until there is news; the others are asked for "
        "every 5 s. Each is a connection, of which Consul takes 200 from an address (`http_max_conns_per_client`). meshgw's own option.",
        check=at_least(0),
    )
    transformers: tuple[Chosen, ...] = option(
        default=(), doc="Transformers applied in the listed order to what this namer finds.", kinds="transformers"
    )

    @property
    def largest_answer(self) -> int:
        """Bytes."""
        return 1024 * min(self.fixed_length_streamed_after_kb, self.max_response_kb or self.fixed_length_streamed_after_kb)


# Meaning of answers


@attrs.frozen
class ServiceKey:
    """A service as Consul is asked for it."""

    datacenter: str
    service: str
    tag: str | None = None

    def show(self) -> str:
        """As the name's path."""
        return "/" + "/".join(part for part in (self.datacenter, self.tag, self.service) if part is not None)


def read_key(path: Path, *, has_tag: bool) -> ServiceKey | None:
    """The service of a name, None if it has too few labels, or one that is no text. Consul's DNS names are lower-case, so are ours."""
    try:
        labels = [label.decode("utf-8") for label in path.take(3 if has_tag else 2)]
    except UnicodeDecodeError:
        return None
    if len(labels) < (3 if has_tag else 2):
        return None
    datacenter, *tags, service = labels
    return ServiceKey(datacenter, service.lower(), tags[0].lower() if tags else None)


def authority_of(key: ServiceKey, datacenter: str, domain: str) -> str | None:
    """The service's name in Consul's DNS; None if it can have none, as what is no host name must not become a Host field."""
    labels = [*((key.tag,) if key.tag is not None else ()), key.service, "service", datacenter, domain]
    authority = ".".join(labels)
    return authority if _AUTHORITY.fullmatch(authority) else None


@attrs.frozen(kw_only=True)
class Selection:
    """How instances become endpoints."""

    prefer_service_address: bool = True
    statuses: frozenset[str] | None = None
    """Those to take; None takes all."""
    weights: Mapping[str, float] = attrs.field(factory=dict, hash=False)
    transfer_metadata: bool = False

    def weight(self, tags: Sequence[str]) -> float:
        """The highest weight of the tags."""
        return max((self.weights[tag] for tag in tags if tag in self.weights), default=1.0)

    def endpoint(self, node: Node) -> Endpoint | None:
        """The endpoint that an instance is; None if it is not to be used."""
        if self.statuses is not None and node.status not in self.statuses:
            return None
        host = (node.service_address if self.prefer_service_address else "") or node.address
        if not host or not node.port:
            return None
        return Endpoint(host, node.port, self.weight(node.tags), _free(node.node_meta) if self.transfer_metadata else NO_META)


class Instances:
    """The endpoints of one service, followed through its answers: the endpoint of an instance that stays is the same object."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._endpoints: Kept[Node, Endpoint | None] = Kept(selection.endpoint)

    def found(self, nodes: Sequence[Node], authority: str | None) -> Found:
        """What these instances are; without any endpoint the service does not exist (spec 3.4)."""
        endpoints: dict[tuple[str, int], Endpoint] = {}
        first: Node | None = None
        for node, endpoint in zip(nodes, self._endpoints.of(nodes), strict=True):
            if endpoint is None:
                continue
            first = first or node
            key = endpoint.host, endpoint.port
            known = endpoints.get(key)
            if known is None or endpoint.weight > known.weight:  # one for an address, however many instances have it
                endpoints[key] = endpoint
        if first is None:
            return NO_ENDPOINTS
        meta: dict[str, Any] = _free(first.service_meta) if self._selection.transfer_metadata else {}
        if authority is not None:
            meta["authority"] = authority
        return Endpoints(tuple(endpoints.values()), meta)


def _free(meta: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in meta.items() if key not in RESERVED_META}


# The namer


class ConsulNamer(MultiService):
    """The namer of one agent; ``prefix`` is its full mount point with ``/#``."""

    def __init__(
        self, config: ConsulConfig, prefix: Path, connector: Connector, *, clock: Any, metrics: Metrics, random: Random, resolve: Resolve
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._config, self._prefix, self._connector, self._clock, self._resolve = config, prefix, connector, clock, resolve
        client = _client(config, connector, clock, metrics.outcomes("client"))
        self._api = ConsulApi(client, consistency=config.consistency_mode)
        self._agent = OwnAgent(self._api.agent)
        self._turns = Turns(config.max_blocking_queries)
        self._random = random
        self._selection = _selection(config)
        self._passing = None if self._selection.statuses is None else self._selection.statuses == {"passing"}
        self._lookups = metrics.counter("lookups")
        scope = metrics.scope("service")
        scope.gauge("blocking", function=lambda: float(self._turns.taken))
        self._watches: Watches[ServiceKey, Found] = Watches(
            clock,
            random,
            scope,
            backend=client.name,
            follow=self._follow,
            show=ServiceKey.show,
            show_value=show_found,
            absent=cast("Found", NO_ENDPOINTS),  # an alternative is tried and nobody waits, while Consul has never answered (spec 3.4)
        )
        self._watches.setServiceParent(self)  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Be ready to ask."""
        self._connector.start()
        super().startService()  # type: ignore[no-untyped-call]

    def stopService(self) -> Any:
        """End all queries; the last state stays."""
        ended = super().stopService()  # type: ignore[no-untyped-call]
        self._agent.stop()
        self._connector.stop()
        return ended

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """The service of the first labels, the rest as residual; neg while it has no instance."""
        self._lookups.incr()
        key = read_key(path, has_tag=self._config.include_tag)
        if key is None:
            return constant(NEG)
        length = 2 if key.tag is None else 3
        id = self._prefix + path.take(length)  # in the caller's spelling (spec 3.4)
        return bound_name(self._watches, key, id=id, residual=path.drop(length), resolve=self._resolve)

    def describe(self) -> dict[str, Any]:
        """What is watched, for ``/namer_state``."""
        return self._watches.describe()

    async def _follow(self, watch: Watch[ServiceKey, Found]) -> None:
        """One session: from an answer without index through blocking queries until one fails (spec 3.4)."""
        key, authority = watch.key, None
        datacenter = key.datacenter
        if datacenter == LOCAL or self._config.set_host:
            agent = await self._agent.get()
            datacenter = agent.datacenter if datacenter == LOCAL else datacenter
            authority = authority_of(key, datacenter, agent.domain) if self._config.set_host else None
        query = ServiceQuery(service=key.service, datacenter=datacenter, tag=key.tag, passing=self._passing)
        entries, instances = node_entries(query), Instances(self._selection)
        known: int | None = None
        nodes: tuple[Node, ...] = ()
        found: Found = NO_ENDPOINTS
        while True:
            began = self._clock.seconds()
            turn = nullcontext(True) if known is None else self._turns.turn(is_absent=isinstance(found, NoEndpoints))
            with turn as has_turn:
                listing = await self._ask(watch, query, known if has_turn else None, known, entries)
            before = found
            if listing.nodes is not None and listing.nodes != nodes:
                nodes = listing.nodes
                found = instances.found(nodes, authority)
            watch.good(found)
            known = next_index(known, listing.index)
            is_news = known is not None and found != before and not isinstance(found, NoEndpoints)
            pause = self._pause(is_news=is_news, has_turn=has_turn) - (self._clock.seconds() - began)
            if pause > 0:
                await watch.sleep(pause)

    async def _ask(
        self, watch: Watch[ServiceKey, Found], query: ServiceQuery, index: int | None, known: int | None, entries: Entries[Node | None]
    ) -> Listing:
        when, seconds = self._watches.when, self._clock.seconds
        watch.facts["request"] = partial(self._request, query, index)
        watch.facts["lastRequestAt"] = partial(when, seconds())
        listing = await self._api.nodes(query, index, known, entries)
        watch.facts["lastResponseAt"] = partial(when, seconds())
        response: dict[str, object] = {"index": listing.index, "hasLeader": listing.has_leader}
        if listing.unreadable:
            response["unreadableEntries"] = listing.unreadable
        watch.facts["response"] = response
        return listing

    def _request(self, query: ServiceQuery, index: int | None) -> str:
        return f"GET {query.path}?{urlencode(self._api.parameters(query, index), quote_via=quote)}"

    def _pause(self, *, is_news: bool, has_turn: bool) -> float:
        """Seconds from the last question to the next."""
        if not has_turn:
            return TURNLESS_SECONDS * self._random.uniform(0.9, 1.1)
        return LEAST_SECONDS if is_news else DULL_SECONDS


def _client(config: ConsulConfig, connector: Connector, clock: Any, outcomes: Outcomes) -> ApiClient:
    where = f"[{config.host}]:{config.port}" if ":" in config.host else f"{config.host}:{config.port}"
    return ApiClient(
        connector.agent,
        clock,
        name=f"Consul at {where}",
        base=connector.base,
        headers={"X-Consul-Token": config.token} if config.token is not None else None,
        largest=config.largest_answer,
        explain=connector.refusal,
        outcomes=outcomes,
    )


def _selection(config: ConsulConfig) -> Selection:
    weights: dict[str, float] = {}
    for one in config.weights:
        weights[one.tag] = max(one.weight, weights.get(one.tag, 0.0))
    return Selection(
        prefer_service_address=config.prefer_service_address,
        statuses=frozenset(config.health_statuses) if config.use_health_check else None,
        weights=weights,
        transfer_metadata=config.transfer_metadata,
    )


def build_consul(config: ConsulConfig, runtime: Runtime) -> ConsulNamer:
    """The namer for a configuration block."""
    connector = Connector(runtime.reactor, runtime.resolve, config.host, config.port, tls=config.tls, fail_fast=config.fail_fast)
    return ConsulNamer(
        config,
        Path.of("#") + config.prefix,
        connector,
        clock=runtime.reactor,
        metrics=runtime.metrics,
        random=runtime.random,
        resolve=runtime.resolve,
    )


KIND = Kind(id="io.l5d.consul", config=ConsulConfig, build=build_consul)
