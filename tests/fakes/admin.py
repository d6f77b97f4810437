"""An admin site over in-memory connections, and the gateway behind it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from meshgw.admin.api import RouterView
from meshgw.admin.authentication import Authentication
from meshgw.admin.delegations import Delegations
from meshgw.admin.errors import NotDescribed
from meshgw.admin.security import AdminSecurity
from meshgw.admin.site import AdminSite
from meshgw.config.models import Config
from meshgw.core.live import Live, constant
from meshgw.core.slices import finished
from meshgw.naming.delegation import DelegateNeg, Delegation
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.telemetry.logs import LogLevels
from meshgw.telemetry.metrics import Metrics, Snapshot
from meshgw.telemetry.prometheus import Prometheus

HOST = "127.0.0.1:9990"


class Explains:
    """An interpreter that records what it is asked and answers with a live value of the test's choice."""

    def __init__(self, answer: Callable[[Path], Live[Delegation]]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []

    def bind(self, dtab: Dtab, path: Path) -> Any:
        raise NotImplementedError

    def delegate(self, dtab: Dtab, path: Path) -> Live[Delegation]:
        self.asked.append((dtab.show(), path.show()))
        return self.answer(path)


class BindsOnly:
    def bind(self, dtab: Dtab, path: Path) -> Any:
        raise NotImplementedError


def neg(path: Path) -> Live[Delegation]:
    return constant(DelegateNeg(path, None))


def node_json(node: Delegation) -> Mapping[str, Any]:
    return {"type": type(node).__name__, "path": node.path.show()}


class Gateway:
    """A gateway of one process with two routers, which records how it is ended and what it reloads."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.metrics.counter("rt", "http", "x").incr(3)
        self.first, self.default = Explains(neg), Explains(neg)
        dtab = Dtab.read("/svc=>/#/io.l5d.fs")
        self.interpreters: dict[str, Any] = {"one": self.first, "<two>": BindsOnly()}
        self.routers: Mapping[str, RouterView] = {label: RouterView(label, dtab) for label in self.interpreters}
        self.telemeters: Sequence[Any] = [Prometheus("/admin/metrics/prometheus", "")]
        self.names: list[str] = []
        self.states: Any = {"/namer_state/io.l5d.consul.json": {"/dc1/web": {"state": {"running": True}, "poll": {}}}}
        self.ended: list[float | None] = []
        self.clock, self.levels = Clock(), LogLevels(known=["meshgw"])
        self.reloads: list[Deferred[Sequence[str]]] = []
        self.config, self.is_ending = Config(routers=()), False
        self.remarks: list[str] = []
        self.processes: list[list[str]] = [["main"]]
        self.answers: dict[str, Mapping[str, Any]] = {"ready": {"main": {"pending": [], "waiting": []}}, "problems": {"main": []}}
        self.diagnosed: list[tuple[str, Any, float]] = []
        self.is_traced = True
        self.announced: dict[str, Any] = {}
        self.requests: list[Mapping[str, Any]] | None = None

    async def tracing(self) -> bool:
        return self.is_traced

    async def set_tracing(self, enabled: bool) -> None:
        self.is_traced = enabled

    def groups(self) -> Sequence[Sequence[str]]:
        return self.processes

    async def diagnose(self, word: str, argument: Any = None, *, seconds: float = 5.0) -> Mapping[str, Any]:
        self.diagnosed.append((word, argument, seconds))
        return self.answers[word]

    def announcements(self) -> Mapping[str, Any]:
        return self.announced

    def config_json(self) -> str:
        return '{"routers":[]}'

    def server_info(self) -> Mapping[str, Any]:
        return {"name": "meshgw", "version": "1<2"}

    def shutdown(self, grace_seconds: float | None) -> None:
        self.ended.append(grace_seconds)

    async def snapshot(self, below: str = "") -> Snapshot:
        return finished(self.metrics.reading(below))

    async def bound_names(self) -> Sequence[str]:
        return self.names

    async def client_state(self) -> Mapping[str, Any]:
        return {"/#/x": {"state": "bound", "addresses": ["127.0.0.1:80"]}}

    async def recent_requests(self) -> Sequence[Mapping[str, Any]] | None:
        return self.requests

    async def described(self) -> Sequence[str]:
        if isinstance(self.states, Exception):
            raise self.states
        return sorted(self.states)

    async def description(self, path: str) -> Mapping[str, Any]:
        known = await self.described()
        if path not in known:
            raise NotDescribed(path=path, known=tuple(known))
        return self.states[path]

    async def loggers(self) -> Sequence[tuple[str, str]]:
        return self.levels.loggers()

    async def set_level(self, logger: str, level: str) -> None:
        self.levels.set(logger, level)

    async def delegate(self, namespace: str | None, dtab: Dtab, path: Path) -> Mapping[str, Any]:
        delegations = Delegations(self.interpreters, self.default, node_json, self.clock)
        return await delegations.delegate(namespace, dtab, path)

    async def reload(self) -> Sequence[str]:
        self.reloads.append(Deferred())
        return await self.reloads[-1]


@attrs.frozen
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class Browser:
    """Sends requests to an admin site over an in-memory connection each."""

    def __init__(
        self,
        gateway: Gateway | None = None,
        security: AdminSecurity | None = None,
        authentication: Authentication | None = None,
        names: Collection[str] = (),
    ) -> None:
        self.gateway = gateway or Gateway()
        self.clock, self.levels = self.gateway.clock, self.gateway.levels
        self.site = AdminSite(
            self.gateway, security=security or AdminSecurity(), reactor=self.clock, authentication=authentication, names=names
        )

    def connect(self) -> tuple[Any, StringTransport]:
        transport = StringTransport()
        protocol: Any = self.site.buildProtocol(None)
        protocol.makeConnection(transport)
        return protocol, transport

    def send(self, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[Any, StringTransport]:
        protocol, transport = self.connect()
        fields = {"Host": HOST} | {name.replace("_", "-"): value for name, value in headers.items()}
        if body:
            fields["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        protocol.dataReceived(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        return protocol, transport

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Reply:
        return read(self.send(method, target, body, **headers)[1])

    def get(self, target: str, **headers: str) -> Reply:
        return self.ask("GET", target, **headers)

    def post(self, target: str, body: bytes = b"", **headers: str) -> Reply:
        return self.ask("POST", target, body, **headers)


def read(transport: StringTransport) -> Reply:
    head, _, body = transport.value().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = (line.partition(": ") for line in lines)
    return Reply(int(first.split()[1]), {name.lower(): value for name, _, value in fields}, body)
