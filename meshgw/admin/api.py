"""The views of the admin server: each turns a parsed request into an answer, without knowing how either travels.

Source: linkerd-config spec 2.3 and 2.4. :class:`GatewayView` is what the application has to offer; nothing else of it is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import unquote

import attrs
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from meshgw.admin.errors import NoAnswer
from meshgw.config.access import AccessControl
from meshgw.config.models import Config
from meshgw.core.json_text import json_pieces
from meshgw.core.logger import make_logger
from meshgw.core.slices import Shared, Slices, collected
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.telemetry.export_json import MetricsJson, NoSuchSubtree
from meshgw.telemetry.metrics import Snapshot

JSON = "application/json;charset=UTF-8"
TEXT = "text/plain;charset=UTF-8"
HTML = "text/html;charset=UTF-8"
RELOAD_SECONDS = 75.0  # a reload may take a minute: it waits for workers to come up and take over

_TRUE = frozenset({"true", "1", "t", "yes"})
_DURATION = re.compile(r"([0-9]{1,9})\.(millisecond|second|minute|hour)s?")
_SECONDS = {"millisecond": 0.001, "second": 1.0, "minute": 60.0, "hour": 3600.0}
_log = make_logger()


@attrs.frozen(kw_only=True)
class Query:
    """A request: ``args`` has the parameters of the query string and of a form body, ``media_type`` is that of the body.

    ``host`` is the field of that name.
    """

    method: str
    path: str
    args: Mapping[str, Sequence[str]]
    body: bytes = b""
    media_type: str = ""
    host: str = ""

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
    """A router as the pages show it: its label, its own dtab, and its rules about who may call what."""

    label: str
    dtab: Dtab
    access: AccessControl | None = None


View = Callable[[Query], Answer | Awaitable[Answer]]


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

    @property
    def aliases(self) -> Sequence[str]:
        """Other paths where it is served, unless something else is there."""
        ...

    def render(self, snapshot: Snapshot, host: str) -> Iterator[bytes]:
        """The body in pieces, each the work of less than a millisecond; ``host`` is what the caller calls this server."""
        ...


class GatewayView(Protocol):
    """What the application tells the admin server.

    What other processes may have to be asked for is awaited. The view bounds each such wait: it raises :class:`NoAnswer` (or any
    other :class:`MeshError`) and the admin server answers with it. What is awaited is cancelled when the caller goes away.
    """

    @property
    def routers(self) -> Mapping[str, RouterView]:
        """The routers by label, in the order of the configuration."""
        ...

    @property
    def config(self) -> Config:
        """The configuration that is served."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """What was remarked on when it was read."""
        ...

    @property
    def is_ending(self) -> bool:
        """Whether the process drains."""
        ...

    def groups(self) -> Sequence[Sequence[str]]:
        """The names of the processes that serve the same routers, each group once; none while nothing is served."""
        ...

    async def diagnose(self, word: str, argument: Any = None, *, seconds: float = 5.0) -> Mapping[str, Any]:
        """What the processes answer to ``word`` (``app.diagnosis``), by their name; one that does not has ``{"error": …}``."""
        ...

    def announcements(self) -> Mapping[str, Any]:
        """By announced name and address, whether each is announced."""
        ...

    @property
    def telemeters(self) -> Sequence[Telemeter]:
        """The telemeters to serve; read once, when the admin server is made."""
        ...

    def config_json(self) -> str:
        """The parsed configuration as JSON text, without secrets."""
        ...

    def server_info(self) -> Mapping[str, Any]:
        """Name, version, build, start time, uptime."""
        ...

    def shutdown(self, grace_seconds: float | None) -> None:
        """Begin the graceful end, within ``grace_seconds`` or the configured time; returns before it happens."""
        ...

    async def snapshot(self, below: str = "") -> Snapshot:
        """All metrics, or at least those ``below`` a path, merged over the processes."""
        ...

    async def bound_names(self) -> Sequence[str]:
        """The names that enumerating namers know."""
        ...

    async def client_state(self) -> Mapping[str, Any]:
        """Client name → ``{"state": …, "addresses": […]}``."""
        ...

    async def recent_requests(self) -> Sequence[Mapping[str, Any]] | None:
        """The latest traced requests, the newest first, as ``telemetry.recent_requests`` shows them; None if none are kept."""
        ...

    async def described(self) -> Sequence[str]:
        """The paths below ``/namer_state`` and the like where something describes itself now."""
        ...

    async def description(self, path: str) -> Mapping[str, Any]:
        """What is shown at one of them, ready for ``json.dumps``. Raises :class:`NotDescribed`."""
        ...

    async def loggers(self) -> Sequence[tuple[str, str]]:
        """The known loggers with their level, by name."""
        ...

    async def set_level(self, logger: str, level: str) -> None:
        """Set the level of a logger everywhere; an unknown logger or level changes nothing (spec 2.4)."""
        ...

    async def tracing(self) -> bool:
        """Whether requests are traced."""
        ...

    async def set_tracing(self, enabled: bool) -> None:
        """Trace requests from now on, or no more, in all processes."""
        ...

    async def delegate(self, namespace: str | None, dtab: Dtab, path: Path) -> Mapping[str, Any]:
        """The delegation of ``path`` by ``dtab``, ready for ``json.dumps``; ``namespace`` is a router's label.

        Raises :class:`CannotDelegate`, ``TimeoutError`` or any :class:`MeshError` (see ``admin.delegations``).
        """
        ...

    async def reload(self) -> Sequence[str]:
        """Read the configuration again and put it to use; the problems that prevent it, none if it is done.

        May take up to a minute. It is not cancelled when the caller who asked goes away. Raises :class:`ReloadUnderWay` until the
        one before has ended, whoever asked for that.
        """
        ...


def json_answer(content: object, status: int = 200) -> Answer:
    """Any plain data as JSON."""
    return Answer(json.dumps(content), JSON, status)


def ping(query: Query) -> Answer:
    """``/admin/ping``."""
    return Answer("pong")


class StateViews:
    """The views that read the application's state, and shutdown."""

    def __init__(self, view: GatewayView, reactor: IReactorTime) -> None:
        self._view = view
        self._slices, self._json = Slices(reactor), MetricsJson()
        self._snapshots = Shared(view.snapshot)  # scrapes at the same time read the same figures

    def config(self, query: Query) -> Answer:
        """``/config.json``."""
        return Answer(self._view.config_json(), JSON)

    def server_info(self, query: Query) -> Answer:
        """``/admin/server_info``."""
        return json_answer(dict(self._view.server_info()))

    async def bound_names(self, query: Query) -> Answer:
        """``/bound-names.json``; an empty set is ``[]`` (Linkerd gives ``[""]``, which is the name of nothing)."""
        return json_answer(list(await self._view.bound_names()))

    async def client_state(self, query: Query) -> Answer:
        """``/client_state.json``."""
        return Answer(await self._slices.run(collected(json_pieces(await self._view.client_state()))), JSON)

    async def description(self, query: Query) -> Answer:
        """``/namer_state/<prefix>.json``, ``/<router label>/interpreter_state/<kind>.json`` and ``…/identifier_state/<kind>.json``."""
        return json_answer(dict(await self._view.description(unquote(query.path))))

    async def metrics(self, query: Query) -> Answer:
        """``/admin/metrics.json``."""
        tree, pretty, subtree = query.flag("tree"), query.flag("pretty"), (query.first("q") or "").strip("/")
        snapshot = await (self._view.snapshot(subtree) if subtree else self._snapshots.get())
        try:
            text = await self._slices.run(collected(self._json.pieces(snapshot, tree=tree, pretty=pretty, subtree=subtree)))
        except NoSuchSubtree as error:
            return json_answer({"error": str(error)}, 404)
        return Answer(text, JSON)

    def telemeter(self, telemeter: Telemeter) -> View:
        """The view of one telemeter."""

        async def rendered(query: Query) -> Answer:
            pieces = telemeter.render(await self._snapshots.get(), query.host)
            return Answer(await self._slices.run(collected(pieces)), telemeter.content_type)

        return rendered

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

    def __init__(self, view: GatewayView) -> None:
        self._view = view

    async def __call__(self, query: Query) -> Answer:
        """List the loggers; a POST sets a level first. Unknown loggers and levels change nothing (spec 2.4)."""
        if query.method == "POST":
            logger, level = query.first("logger"), query.first("level")
            if not logger or not level:
                return Answer("the parameters logger and level are required", status=400)
            await self._view.set_level(logger, level)
        return json_answer([{"logger": name, "level": level} for name, level in await self._view.loggers()])


class TracingView:
    """``/admin/tracing``. Linkerd changes it by GET; here that is a POST, which no link and no image of a page can make."""

    def __init__(self, view: GatewayView) -> None:
        self._view = view

    async def __call__(self, query: Query) -> Answer:
        """Tell whether requests are traced; ``enable=true`` or ``disable=true`` of a POST changes that first."""
        wanted = [value for name, value in (("enable", True), ("disable", False)) if query.flag(name)]
        if query.method != "POST" and wanted:
            return Answer("tracing is changed by POST, not by GET\n", status=405, headers=(("Allow", "POST"),))
        if query.method == "POST":
            if len(wanted) != 1:
                return Answer("either enable=true or disable=true is expected\n", status=400)
            await self._view.set_tracing(wanted[0])
        return Answer(f"tracing is {'enabled' if await self._view.tracing() else 'disabled'}\n")


class ReloadView:
    """``/admin/reload``: read the configuration again."""

    def __init__(self, view: GatewayView, reactor: IReactorTime) -> None:
        self._view, self._reactor = view, reactor

    async def __call__(self, query: Query) -> Answer:
        """``reloaded``, or the problems, one a line. A caller that goes away does not end what it has begun."""
        waiting: Deferred[Sequence[str]] = Deferred()
        Deferred.fromCoroutine(self._view.reload()).addBoth(_pass_on, waiting)
        try:
            problems = await waiting.addTimeout(RELOAD_SECONDS, self._reactor)
        except defer.TimeoutError as error:
            raise NoAnswer(who="the reload", seconds=RELOAD_SECONDS) from error
        return Answer("\n".join([*problems, ""]), status=422) if problems else Answer("reloaded\n")


def _pass_on(result: Sequence[str] | Failure, waiting: Deferred[Sequence[str]]) -> None:
    """Give the outcome of a reload to who waits for it; nobody does if the caller has gone or had to wait too long."""
    if isinstance(result, Failure) and waiting.called:
        _log.failure("the reload failed after its caller had gone", failure=result)
    elif isinstance(result, Failure):
        waiting.errback(result)
    elif not waiting.called:
        waiting.callback(result)
