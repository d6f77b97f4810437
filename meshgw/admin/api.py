"""The views of the admin server: each turns a parsed request into an answer, without knowing how either travels.

Source: linkerd-config spec 2.3 and 2.4. :class:`GatewayView` is what the application has to offer; nothing else of it is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from meshgw.bind.delegate import with_addresses
from meshgw.core.live import Failed, Live, Ok, State
from meshgw.errors import MeshError
from meshgw.kinds import Interpreter
from meshgw.naming.dtab import Delegation, Dtab
from meshgw.naming.path import Path
from meshgw.telemetry.export import NoSuchSubtree, metrics_json
from meshgw.telemetry.logs import LogLevels
from meshgw.telemetry.metrics import Snapshot

JSON = "application/json;charset=UTF-8"
TEXT = "text/plain;charset=UTF-8"
HTML = "text/html;charset=UTF-8"
DELEGATION_SECONDS = 2.0  # spec 2.4

DelegationJson = Callable[[Delegation], Mapping[str, Any]]

_TRUE = frozenset({"true", "1", "t", "yes"})
_DURATION = re.compile(r"(\d+)\.(millisecond|second|minute|hour)s?")
_SECONDS = {"millisecond": 0.001, "second": 1.0, "minute": 60.0, "hour": 3600.0}


@attrs.frozen(kw_only=True)
class Query:
    """A request: ``args`` has the parameters of the query string and of a form body, ``media_type`` is that of the body."""

    method: str
    path: str
    args: Mapping[str, Sequence[str]]
    body: bytes = b""
    media_type: str = ""

    def first(self, name: str) -> str | None:
        """The first value of a parameter."""
        values = self.args.get(name)
        return values[0] if values else None

    def flag(self, name: str) -> bool:
        """Whether a boolean parameter is true."""
        return (self.first(name) or "").lower() in _TRUE


@attrs.frozen
class Answer:
    """A response."""

    body: str | bytes
    content_type: str = TEXT
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class RouterView:
    """A router as the admin server sees it. ``interpreter`` may have ``delegate`` (:class:`meshgw.kinds.Delegator`)."""

    label: str
    dtab: Dtab
    interpreter: Interpreter


class Telemeter(Protocol):
    """A telemeter that is read from the admin server."""

    @property
    def path(self) -> str:
        """Where it is served."""
        ...

    @property
    def content_type(self) -> str:
        """The type of what it renders."""
        ...

    def render(self, snapshot: Snapshot) -> bytes:
        """The body."""
        ...


class GatewayView(Protocol):
    """What the application tells the admin server; every method answers at once, from what is known."""

    @property
    def routers(self) -> Mapping[str, RouterView]:
        """The routers by label, in the order of the configuration."""
        ...

    @property
    def default_interpreter(self) -> Interpreter:
        """An interpreter without configured namers (spec 2.4), for delegations that name no router or an unknown one."""
        ...

    @property
    def telemeters(self) -> Sequence[Telemeter]:
        """The telemeters to serve; read once, when the admin server is made."""
        ...

    def config_json(self) -> str:
        """The parsed configuration as JSON text, without secrets."""
        ...

    def snapshot(self) -> Snapshot:
        """All metrics, merged over the processes."""
        ...

    def bound_names(self) -> Sequence[str]:
        """The names that enumerating namers know."""
        ...

    def client_state(self) -> Mapping[str, Any]:
        """Client name → ``{"state": …, "addresses": […]}``."""
        ...

    def server_info(self) -> Mapping[str, Any]:
        """Name, version, build, start time, uptime."""
        ...

    def shutdown(self, grace_seconds: float | None) -> None:
        """Begin the graceful end, within ``grace_seconds`` or the configured time; returns before it happens."""
        ...


def json_answer(content: object, status: int = 200) -> Answer:
    """Any plain data as JSON."""
    return Answer(json.dumps(content), JSON, status)


def ping(query: Query) -> Answer:
    """``/admin/ping``."""
    return Answer("pong")


class StateViews:
    """The views that read the application's state, and shutdown."""

    def __init__(self, view: GatewayView) -> None:
        self._view = view

    def config(self, query: Query) -> Answer:
        """``/config.json``."""
        return Answer(self._view.config_json(), JSON)

    def server_info(self, query: Query) -> Answer:
        """``/admin/server_info``."""
        return json_answer(dict(self._view.server_info()))

    def bound_names(self, query: Query) -> Answer:
        """``/bound-names.json``; an empty set is ``[]`` (Linkerd gives ``[""]``, which is the name of nothing)."""
        return json_answer(list(self._view.bound_names()))

    def client_state(self, query: Query) -> Answer:
        """``/client_state.json``."""
        return json_answer(dict(self._view.client_state()))

    def metrics(self, query: Query) -> Answer:
        """``/admin/metrics.json``."""
        try:
            text = metrics_json(self._view.snapshot(), tree=query.flag("tree"), pretty=query.flag("pretty"), subtree=query.first("q") or "")
        except NoSuchSubtree as error:
            return json_answer({"error": str(error)}, 404)
        return Answer(text, JSON)

    def telemeter(self, telemeter: Telemeter) -> Callable[[Query], Answer]:
        """The view of one telemeter."""
        return lambda query: Answer(telemeter.render(self._view.snapshot()), telemeter.content_type)

    def shutdown(self, query: Query) -> Answer:
        """``/admin/shutdown``; ``grace`` is a duration such as ``10.seconds``."""
        text = query.first("grace")
        grace: float | None = None
        if text is not None:
            match = _DURATION.fullmatch(text.strip().lower())
            if match is None:
                return Answer(f"Invalid grace: {text!r} is not a duration such as 10.seconds or 500.milliseconds", status=400)
            grace = int(match[1]) * _SECONDS[match[2]]
        self._view.shutdown(grace)
        return Answer("quitting")


class LoggingView:
    """``/logging.json``."""

    def __init__(self, levels: LogLevels) -> None:
        self._levels = levels

    def __call__(self, query: Query) -> Answer:
        """List the loggers; a POST sets a level first. Unknown loggers and levels change nothing (spec 2.4)."""
        if query.method == "POST":
            logger, level = query.first("logger"), query.first("level")
            if not logger or not level:
                return Answer("the parameters logger and level are required", status=400)
            self._levels.set(logger, level)
        return json_answer([{"logger": name, "level": level} for name, level in self._levels.loggers()])


@attrs.frozen
class _Asked:
    namespace: str | None
    dtab: str
    path: str


class _Refused(Exception):
    """A delegation request that cannot be met; the argument is the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(text, status=status)


class DelegatorView:
    """``/delegator.json``: how a name is, or would be, resolved."""

    def __init__(self, view: GatewayView, as_json: DelegationJson, reactor: IReactorTime) -> None:
        self._view, self._as_json, self._reactor = view, as_json, reactor

    async def __call__(self, query: Query) -> Answer:
        """The delegation tree as JSON."""
        try:
            asked = _posted(query) if query.method == "POST" else _from_args(query)
            delegation = await self._delegation(asked)
        except _Refused as refused:
            return refused.answer
        except defer.TimeoutError:
            return Answer("Request timed out.", status=503)
        except MeshError as error:
            return Answer(str(error), status=500)
        return json_answer(self._as_json(delegation))

    async def _delegation(self, asked: _Asked) -> Delegation:
        try:
            dtab = Dtab.read(asked.dtab)
        except ValueError as error:
            raise _Refused(400, f"Invalid dtab: {error}") from error
        try:
            path = Path.read(asked.path)
        except ValueError as error:
            raise _Refused(400, f"Invalid path: {error}") from error
        namespace, interpreter = self._interpreter(asked.namespace)
        delegate = getattr(interpreter, "delegate", None)
        if delegate is None or not getattr(interpreter, "can_delegate", True):
            raise _Refused(501, f"Name Interpreter for {namespace} cannot show delegations")
        live: Live[Delegation] = with_addresses(delegate(dtab, path))  # else lazy sources would show as pending
        return await _settled(live, self._reactor, DELEGATION_SECONDS)

    def _interpreter(self, namespace: str | None) -> tuple[str, Interpreter]:
        routers = self._view.routers
        if namespace is None and len(routers) == 1:  # Linkerd uses one without namers, whose answer misleads where it is clear who is meant
            namespace = next(iter(routers))
        if namespace is not None and namespace in routers:
            return namespace, routers[namespace].interpreter
        return namespace or "default", self._view.default_interpreter


def _from_args(query: Query) -> _Asked:
    path = query.first("path")
    if path is None:
        raise _Refused(400, "Invalid path: the parameter path is required")
    return _Asked(query.first("namespace"), query.first("dtab") or "", path)


def _posted(query: Query) -> _Asked:
    if query.media_type != "application/json":
        raise _Refused(415, "expected a body with Content-Type: application/json")
    try:
        content = json.loads(query.body)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"Malformed delegation request: {error}") from error
    if not isinstance(content, dict):
        raise _Refused(400, "Malformed delegation request: expected a JSON object")
    namespace, dtab, path = content.get("namespace"), content.get("dtab"), content.get("path")
    if not isinstance(dtab, str) or not isinstance(path, str) or not isinstance(namespace, str | None):
        raise _Refused(400, "Malformed delegation request: dtab and path are required strings, namespace an optional one")
    return _Asked(namespace, dtab, path)


async def _settled(live: Live[Delegation], reactor: IReactorTime, seconds: float) -> Delegation:
    """The first good value or failure of ``live``. Raises ``TimeoutError`` if neither comes in time."""
    waiting: defer.Deferred[Delegation] = defer.Deferred()

    def notify(state: State[Delegation]) -> None:
        if waiting.called:
            return
        if isinstance(state, Ok):
            waiting.callback(state.value)
        elif isinstance(state, Failed):
            waiting.errback(state.error)

    observation = live.observe(notify)
    try:
        return await waiting.addTimeout(seconds, reactor)
    finally:
        observation.close()
