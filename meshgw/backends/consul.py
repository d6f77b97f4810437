"""Consul's HTTP API at one agent: services by catalog or health, the agent itself, blocking queries and their index.

Source: linkerd-config spec 3.4; Consul's documentation of its HTTP API ("Blocking Queries", "Health", "Catalog", "Agent"). Answers are
read leniently in what Consul leaves out and strictly in what they are. What a service means to the mesh is the namer's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError
from twisted.python.failure import Failure

from meshgw.backends.http_client import ApiAnswer, ApiClient, Query, api_path
from meshgw.backends.json_entries import Entries
from meshgw.core.address import NO_META
from meshgw.core.slices import Slices
from meshgw.errors import BackendRefused, BackendSilent

ANSWER_SECONDS: Final = 9.0
"""For an answer that Consul gives at once: under the 10 s binding timeout, so that a waiting request is told the cause (spec 4.1)."""
WAIT_SECONDS: Final = 60
"""How long Consul may hold a blocking query. Linkerd leaves it to Consul (5 min) and gives up after 10 min; with this, a connection that
is dead without anybody knowing, and an index that Consul forgot, are found out within a minute or so.
"""
LATE_SECONDS: Final = WAIT_SECONDS * 17 / 16 + 10
"""When such a query counts as unanswered: Consul adds up to a sixteenth to the wait."""
MOST_QUESTIONS: Final = 50
"""Questions for an answer at once that are under way together: a gateway that starts asks for all its services in one moment, and Consul
closes connections beyond those it grants an address (see ``backends.turns``). The others wait their turn, which takes milliseconds.
"""
DEFAULT_DOMAIN: Final = "consul"

CONSISTENCY_FLAGS: Final[Mapping[str, Query]] = {"default": (), "stale": (("stale", "true"),), "consistent": (("consistent", "true"),)}
MAINTENANCE: Final = ("_node_maintenance", "_service_maintenance:")
"""How the ids of the checks begin that `consul maint` makes. Their status is "critical"."""
_SEVERITY: Final[Mapping[str, int]] = {"passing": 0, "warning": 1, "critical": 2, "maintenance": 3}
_INDEX: Final = re.compile(r"[0-9]{1,20}")


@attrs.frozen(kw_only=True)
class Node:
    """One instance of a service. ``status`` is the worst of its checks, where they were asked for."""

    address: str
    service_address: str = ""
    port: int = 0
    tags: tuple[str, ...] = ()
    service_meta: Mapping[str, str] = attrs.field(default=NO_META, hash=False)
    node_meta: Mapping[str, str] = attrs.field(default=NO_META, hash=False)
    status: str = "passing"


@attrs.frozen(kw_only=True)
class Listing:
    """The instances of a service at ``index``; ``nodes`` is None when the caller has them already."""

    index: int
    nodes: tuple[Node, ...] | None
    unreadable: int = 0
    """Entries that were left out as they are no instances."""
    has_leader: bool = True


@attrs.frozen(kw_only=True)
class AgentSelf:
    """What the agent says of itself: its datacenter, and the domain of its DNS without dots around it."""

    datacenter: str
    domain: str


@attrs.frozen(kw_only=True)
class ServiceQuery:
    """Which instances are asked for. ``passing`` is what the health API is told to filter by; None asks the catalog."""

    service: str
    datacenter: str
    tag: str | None = None
    passing: bool | None = None

    @property
    def path(self) -> str:
        """The path of the API."""
        return api_path("v1", "catalog" if self.passing is None else "health", "service", self.service)

    def parameters(self, index: int | None) -> list[tuple[str, str]]:
        """The query; with ``index`` it is a blocking one."""
        found = [] if index is None else [("index", str(index)), ("wait", f"{WAIT_SECONDS}s")]
        found.append(("dc", self.datacenter))
        if self.tag is not None:
            found.append(("tag", self.tag))
        if self.passing is not None:
            found.append(("passing", "true" if self.passing else "false"))
        return found

    def show(self) -> str:
        """For messages."""
        tagged = f" tagged {self.tag}" if self.tag is not None else ""
        return f"service {self.service}{tagged} in {self.datacenter}"


def next_index(known: int | None, seen: int) -> int | None:
    """The index to wait on after an answer with ``seen``; None, to ask afresh, when it shows that Consul's state is another one."""
    return None if seen == 0 or (known is not None and seen < known) else seen


class ConsulApi:
    """An agent or server; errors are those of ``client``. ``consistency`` is a key of :data:`CONSISTENCY_FLAGS`."""

    def __init__(self, client: ApiClient, *, consistency: str = "default") -> None:
        self._client = client
        self._flags = tuple(CONSISTENCY_FLAGS[consistency])
        self._questions = DeferredSemaphore(MOST_QUESTIONS)
        self._slices = Slices(client.clock)

    def parameters(self, query: ServiceQuery, index: int | None) -> list[tuple[str, str]]:
        """The parameters that :meth:`nodes` asks with."""
        return [*query.parameters(index), *self._flags]

    async def nodes(self, query: ServiceQuery, index: int | None, known: int | None, entries: Entries[Node | None]) -> Listing:
        """The instances of a service, once they differ from those at ``index`` or the time for that is over; at once without an index.

        The caller has those of the index ``known`` already. ``entries`` are those of :func:`node_entries` for all questions about the
        service: instances that stay as they are are the same objects as before. Raises :class:`meshgw.errors.BackendError`.
        """
        asked, parameters = query.show(), self.parameters(query, index)
        if index is None:
            answer = await self._ask(query.path, parameters, asked)
        else:
            answer = await self._client.get(query.path, parameters, seconds=LATE_SECONDS, asked=asked)
        if not answer.is_good:
            raise self._client.refused(answer, asked)
        seen = self._index(answer, asked)
        has_leader = answer.headers.get("x-consul-knownleader", "true") != "false"
        if seen == known:
            return Listing(index=seen, nodes=None, has_leader=has_leader)
        nodes, unreadable = await self._read(answer.body, asked, entries)
        if not nodes and answer.headers.get("x-consul-results-filtered-by-acls") == "true":
            # newer Consul tells an empty answer from one that the token may not see: instances are not gone for that
            raise BackendRefused(backend=self._client.name, reason="ACLs hide all results from the token", asked=asked, code=403)
        return Listing(index=seen, nodes=nodes, unreadable=unreadable, has_leader=has_leader)

    async def agent(self) -> AgentSelf:
        """What the agent says of itself. Raises :class:`meshgw.errors.BackendError`."""
        asked = "the agent itself"
        answer = await self._ask("/v1/agent/self", (), asked)
        if not answer.is_good:
            raise self._client.refused(answer, asked)
        found = read_agent(self._client.read_json(answer.body, asked))
        if found is None:
            raise self._client.malformed("a description of itself without Config.Datacenter", asked)
        return found

    async def _ask(self, path: str, parameters: Query, asked: str) -> ApiAnswer:
        """A question that is answered at once, when it is its turn; both within :data:`ANSWER_SECONDS`."""
        clock = self._client.clock
        began = clock.seconds()
        try:
            await self._questions.acquire().addTimeout(ANSWER_SECONDS, clock)
        except TimeoutError as error:
            reason = f"the {MOST_QUESTIONS} questions before have taken more than {ANSWER_SECONDS:g} s"
            raise BackendSilent(backend=self._client.name, reason=reason, asked=asked) from error
        try:
            return await self._client.get(path, parameters, seconds=ANSWER_SECONDS - (clock.seconds() - began), asked=asked)
        except BackendSilent as error:  # what was left of the time is another each time, and must not look like another outage
            raise attrs.evolve(error, reason=f"no complete answer within {ANSWER_SECONDS:g} s") from error
        finally:
            self._questions.release()

    def _index(self, answer: ApiAnswer, asked: str) -> int:
        text = answer.headers.get("x-consul-index")
        if text is None or not _INDEX.fullmatch(text):
            raise self._client.malformed("no X-Consul-Index" if text is None else "an X-Consul-Index that is no number", asked)
        return int(text)

    async def _read(self, body: bytes, asked: str, entries: Entries[Node | None]) -> tuple[tuple[Node, ...], int]:
        """In slices: services change while requests are served, and large ones take milliseconds to read."""
        try:
            read = await self._slices.run(entries.of(body))
        except (ValueError, RecursionError) as error:
            raise self._client.not_json(error, asked) from error
        if read is None:
            raise self._client.malformed("JSON that is no list of instances", asked)
        nodes = tuple([node for node in read if node is not None])
        if read and not nodes:
            raise self._client.malformed("a list of what are no instances", asked)
        return nodes, len(read) - len(nodes)


# Reading


def node_entries(query: ServiceQuery) -> Entries[Node | None]:
    """What :meth:`ConsulApi.nodes` is to be given for the answers to one query."""
    return Entries(read_catalog_node if query.passing is None else read_health_node)


def read_catalog_node(entry: object) -> Node | None:
    """An entry of ``/v1/catalog/service``; None if it is none."""
    if not isinstance(entry, dict) or not isinstance(entry.get("Address"), str):
        return None
    return Node(
        address=entry["Address"],
        service_address=_text(entry.get("ServiceAddress")),
        port=_port(entry.get("ServicePort")),
        tags=_texts(entry.get("ServiceTags")),
        service_meta=_mapping(entry.get("ServiceMeta")),
        node_meta=_mapping(entry.get("NodeMeta")),
    )


def read_health_node(entry: object) -> Node | None:
    """An entry of ``/v1/health/service``; None if it is none."""
    if not isinstance(entry, dict):
        return None
    node, service = entry.get("Node"), entry.get("Service")
    if not isinstance(node, dict) or not isinstance(service, dict) or not isinstance(node.get("Address"), str):
        return None
    return Node(
        address=node["Address"],
        service_address=_text(service.get("Address")),
        port=_port(service.get("Port")),
        tags=_texts(service.get("Tags")),
        service_meta=_mapping(service.get("Meta")),
        node_meta=_mapping(node.get("Meta")),
        status=worst_status(entry.get("Checks")),
    )


def worst_status(checks: object) -> str:
    """The worst status of some checks. None, or of an unknown one, is passing (spec 3.4)."""
    worst = "passing"
    for check in checks if isinstance(checks, list) else ():
        if isinstance(check, dict):
            is_maintenance = _text(check.get("CheckID")).startswith(MAINTENANCE)
            status = "maintenance" if is_maintenance else _text(check.get("Status"))
            if _SEVERITY.get(status, 0) > _SEVERITY[worst]:
                worst = status
    return worst


def read_agent(said: object) -> AgentSelf | None:
    """The answer to ``/v1/agent/self``; None if it does not tell the datacenter."""
    config = said.get("Config") if isinstance(said, dict) else None
    debug = said.get("DebugConfig") if isinstance(said, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("Datacenter"), str) or not config["Datacenter"]:
        return None
    domain = _text(config.get("Domain"))  # Consul has it there before 1.0 only
    if not domain and isinstance(debug, dict):
        domain = _text(debug.get("DNSDomain"))
    return AgentSelf(datacenter=config["Datacenter"], domain=domain.strip(".") or DEFAULT_DOMAIN)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _port(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 65535 else 0


def _texts(value: object) -> tuple[str, ...]:
    return tuple([item for item in value if isinstance(item, str)]) if isinstance(value, list) else ()


def _mapping(value: object) -> Mapping[str, str]:
    return {key: text for key, text in value.items() if isinstance(text, str)} if value and isinstance(value, dict) else NO_META


# Sharing


class OwnAgent:
    """What the agent says of itself, asked for when it is first wanted and kept; all that wait share one question.

    When it fails they are told, and the next that wants it asks anew.
    """

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, AgentSelf]]) -> None:
        self._ask = ask
        self._known: AgentSelf | None = None
        self._waiting: list[Deferred[AgentSelf]] = []
        self._asking: Deferred[None] | None = None

    async def get(self) -> AgentSelf:
        """The answer. Raises :class:`meshgw.errors.BackendError`."""
        if self._known is not None:
            return self._known
        waiter: Deferred[AgentSelf] = Deferred(self._waiting.remove)
        self._waiting.append(waiter)
        if self._asking is None:
            asking = Deferred.fromCoroutine(self._ask()).addBoth(self._told)
            if not asking.called:
                self._asking = asking
        return await waiter

    def stop(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()

    def _told(self, outcome: AgentSelf | Failure) -> None:
        self._asking = None
        waiting, self._waiting = self._waiting, []
        if isinstance(outcome, Failure):
            for waiter in waiting:
                waiter.errback(outcome)
            return
        self._known = outcome
        for waiter in waiting:
            waiter.callback(outcome)
