"""The admin server on twisted.web: paths, methods, security, limits; the views themselves are in ``admin.api``.

Source: linkerd-config spec 2.2 and 2.3. A request may have 1 MiB and 30 seconds; a view that fails is answered with 500 and logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from meshgw.admin import api
from meshgw.admin.access import AccessView
from meshgw.admin.api import Answer, GatewayView, Query, View
from meshgw.admin.assets import is_current, packaged
from meshgw.admin.authentication import CHALLENGES, Access, Authentication, authentication
from meshgw.admin.delegator import DelegatorView
from meshgw.admin.diagnostics import AddressesView, ProfileView, RegistryView, SmallViews, ThreadViews, wall_clock
from meshgw.admin.errors import relayed
from meshgw.admin.lint import LintViews
from meshgw.admin.pages import PAGE_HEADERS, Dashboard
from meshgw.admin.readiness import ReadyViews
from meshgw.admin.requests import RequestsView
from meshgw.admin.security import AdminSecurity, rebinding, refusal
from meshgw.config.models import AdminConfig
from meshgw.core.logger import make_logger
from meshgw.core.slices import Slices
from meshgw.errors import MeshError

MAX_BODY = 1 << 20
TIMEOUT_SECONDS = 30.0
MAX_PARAMETERS = 100


@attrs.frozen
class Route:
    """A path's view; ``methods`` besides HEAD, which goes with GET. ``changes`` are the methods that change something.

    ``is_open`` routes never need a token; ``needs_token`` ones are refused where no authentication is configured. What ``is_costly`` a page
    of another site may not ask for, although it changes nothing and that page could not read it.
    """

    view: View
    methods: tuple[str, ...] = ("GET",)
    changes: tuple[str, ...] = ()
    is_open: bool = False
    needs_token: bool = False
    is_costly: bool = False


_DESCRIBED = re.compile(r"/namer_state/.+\.json|/[^/]+/(interpreter|identifier)_state/.+\.json|/announcer_state\.json")
"""Where something may describe itself, for which there is one view."""


class AdminResource(Resource):
    """Dispatches by the whole path, after what guards it: categories of paths, tokens, the defence of browsers."""

    isLeaf = True
    log = make_logger()

    def __init__(
        self,
        routes: Mapping[str, Route],
        description: Route,
        security: AdminSecurity,
        authentication: Authentication | None = None,
        names: Collection[str] = (),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # twisted.web has no annotations here
        self._routes, self._description, self._security, self._authentication = routes, description, security, authentication
        self._names = frozenset(name.lower() for name in names)

    def render(self, request: Request) -> int:
        """Answer the request, now or later."""
        working = Deferred.fromCoroutine(self._answered(request))
        gone: list[bool] = []

        def lost(_reason: object) -> None:
            gone.append(True)
            working.cancel()

        def finish(answer: Answer) -> None:
            if not gone:
                _send(request, answer)

        def failed(failure: Any) -> None:
            if not gone or not failure.check(CancelledError):
                self.log.failure("admin request {path} failed", failure=failure, path=request.path)
            if not gone:  # else the caller would wait for an answer that does not come
                request.loseConnection()  # type: ignore[no-untyped-call]  # twisted.web has no annotations here

        request.notifyFinish().addErrback(lost)
        working.addCallback(finish).addErrback(failed)
        return NOT_DONE_YET

    async def _answered(self, request: Request) -> Answer:
        try:
            return await self._looked_up(request)
        except CancelledError:
            raise
        except (MeshError, TimeoutError) as error:
            told = relayed(error)
            return Answer(told.text, status=told.code)
        except Exception:  # noqa: BLE001 - the rim: views call into interpreters and telemeters, which may be plug-ins
            self.log.failure("the admin view {path} failed", path=request.path)
            return Answer("internal error; the log has the details\n", status=500)

    async def _looked_up(self, request: Request) -> Answer:
        path, method = request.path.decode("latin-1"), request.method.decode("latin-1")
        if not self._security.serves(path):
            return Answer("", status=404)
        route = self._routes.get(path) or (self._description if _DESCRIBED.fullmatch(path) else None)
        refused = self._refused(request, route, is_change=route is not None and method in route.changes)
        if refused is not None:
            return refused
        if route is None:
            return Answer("not found; /admin lists what there is\n", status=404)
        if ("GET" if method == "HEAD" else method) not in route.methods:
            return Answer("method not allowed\n", status=405, headers=(("Allow", ", ".join(_allowed(route))),))
        try:
            query = _query(request, method, path)
        except ValueError as error:
            return Answer(f"malformed parameters: {error}\n", status=400)
        answer = route.view(query)
        return answer if isinstance(answer, Answer) else await answer

    def _refused(self, request: Request, route: Route | None, *, is_change: bool) -> Answer | None:
        """The answer to a request that may not be made, or not by this caller."""

        def header(name: str) -> str | None:
            return _header(request, name)

        is_guarded = is_change or (route is not None and route.is_costly)
        why = refusal(header("host") or "", header("origin"), header("sec-fetch-site"), self._names) if is_guarded else None
        if why is not None:
            return Answer(f"refused: {why}\n", status=403)
        is_open = route is not None and route.is_open
        needed = Access.OPERATOR if is_change else Access.NOBODY if is_open else Access.READER
        authentication = self._authentication
        if authentication is not None and needed > authentication.least:
            return self._unauthorized(request, authentication, needed)
        why = rebinding(header, self._names)
        if why is None and is_change and route is not None and route.needs_token:
            why = "this needs an authenticated operator; set admin.authentication.operatorTokenFile"
        return Answer(f"refused: {why}\n", status=403) if why is not None else None

    def _unauthorized(self, request: Request, authentication: Authentication, needed: Access) -> Answer | None:
        fields = [str(value) for value in request.requestHeaders.getRawHeaders("authorization") or ()]
        peer = request.getClientAddress()  # type: ignore[no-untyped-call]  # twisted.web has no annotations here
        access = authentication.access(fields, str(getattr(peer, "host", None) or "an unnamed peer"))
        if access >= needed:
            return None
        if access is Access.READER:  # known, but not for this: asking again would not help
            return Answer("refused: this needs the operator's token\n", status=403)
        return Answer(f"a token is required: the {needed.name.lower()}'s\n", status=401, headers=CHALLENGES)


def _allowed(route: Route) -> list[str]:
    return [*route.methods, "HEAD"] if "GET" in route.methods else list(route.methods)


def _header(request: Request, name: str) -> str | None:
    value = request.getHeader(name)
    return value if value is None or isinstance(value, str) else value.decode("latin-1")


def _query(request: Request, method: str, path: str) -> Query:
    media_type = (_header(request, "content-type") or "").partition(";")[0].strip().lower()
    body = request.content.read() if request.content is not None else b""
    args = _parameters(request.uri.partition(b"?")[2])
    if media_type == "application/x-www-form-urlencoded":
        for name, values in _parameters(body).items():
            args.setdefault(name, []).extend(values)
    return Query(method=method, path=path, args=args, body=body, media_type=media_type, host=_header(request, "host") or "")


def _parameters(text: bytes) -> dict[str, list[str]]:
    return parse_qs(text.decode("latin-1"), keep_blank_values=True, errors="replace", max_num_fields=MAX_PARAMETERS)


def _is_had(request: Request, answer: Answer) -> bool:
    """Whether the client has what is to be sent."""
    etags = [value for name, value in answer.headers if name == "ETag"]
    fields = [str(value) for value in request.requestHeaders.getRawHeaders("if-none-match") or ()]
    return bool(etags and fields) and is_current(etags[0], fields)


def _send(request: Any, answer: Answer) -> None:  # Any: what is called of the request has no annotations
    body = answer.body.encode("utf-8", "backslashreplace") if isinstance(answer.body, str) else answer.body
    is_had = _is_had(request, answer)
    request.setResponseCode(304 if is_had else answer.status)
    headers = request.responseHeaders
    headers.removeHeader("server")
    headers.setRawHeaders("Content-Type", [answer.content_type])
    headers.setRawHeaders("Content-Length", [str(len(body))])
    headers.setRawHeaders("X-Content-Type-Options", ["nosniff"])
    extra = answer.headers + (PAGE_HEADERS if answer.content_type == api.HTML else ())
    if not any(name == "Cache-Control" for name, _ in extra):
        headers.setRawHeaders("Cache-Control", ["no-store"])
    for name, value in extra:
        headers.addRawHeader(name, value)
    request.write(b"" if is_had else body)
    request.finish()


class AdminRequest(Request):
    """A request whose body is limited, and which must have arrived completely within the time limit."""

    def __init__(self, channel: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)  # type: ignore[no-untyped-call]  # twisted.web has no annotations here
        self._length, self._is_refused = 0, False
        # The channel's own timeout begins anew with every line; this one does not, so that trickling does not hold a connection.
        self._deadline: IDelayedCall = channel.callLater(TIMEOUT_SECONDS, self._refuse, 408)

    def gotLength(self, length: int | None) -> None:
        """Refuse a body that is announced as too long."""
        if length is not None and length > MAX_BODY:
            self._refuse(413)
        super().gotLength(0 if self._is_refused else length)  # type: ignore[no-untyped-call]  # as above

    def handleContentChunk(self, data: bytes) -> None:
        """Refuse a body that turns out to be too long."""
        self._length += len(data)
        if self._length > MAX_BODY:
            self._refuse(413)
        if not self._is_refused:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]  # as above

    def process(self) -> None:
        """The request is complete."""
        self._end_deadline()
        if not self._is_refused:
            super().process()  # type: ignore[no-untyped-call]  # as above

    def connectionLost(self, reason: Any) -> None:
        """The client is gone."""
        self._end_deadline()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]  # as above

    def _end_deadline(self) -> None:
        if self._deadline.active():
            self._deadline.cancel()

    def _refuse(self, status: int) -> None:
        if self._is_refused:
            return
        self._is_refused = True
        self._end_deadline()
        reason = http.RESPONSES[status]
        channel: Any = self.channel
        channel.transport.write(b"HTTP/1.1 %d %b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % (status, reason))
        channel.loseConnection()


class AdminSite(Site):
    """The factory to listen with on the admin port.

    ``names`` are host names by which browsers reach this server; addresses and ``localhost`` need none.
    """

    noisy = False  # no log lines of twisted.web when it starts and stops

    def __init__(
        self,
        view: GatewayView,
        *,
        security: AdminSecurity,
        reactor: IReactorTime,
        authentication: Authentication | None = None,
        names: Collection[str] = (),
    ) -> None:
        description = Route(api.StateViews(view, reactor).description)
        resource = AdminResource(_routes(view, reactor), description, security, authentication, names)
        # The admin port may carry only HTTP/1.1 and no form parsing by twisted.web: its multipart parser is not needed.
        options: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "reactor": reactor, "parsePOSTFormSubmission": False}
        super().__init__(resource, AdminRequest, **options)  # type: ignore[no-untyped-call]  # twisted.web has no annotations here

    def startFactory(self) -> None:
        """Without the access log of twisted.web, and without the timer that it keeps running every second."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: http.Request) -> None:
        """Admin requests are not logged: most are scrapes and health checks."""

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 only; the request's limits speak it."""
        return [b"http/1.1"]


def _routes(view: GatewayView, reactor: IReactorTime) -> dict[str, Route]:
    state = api.StateViews(view, reactor)
    both = ("GET", "POST")
    routes: dict[str, Route] = {
        "/admin/ping": Route(api.ping, is_open=True),
        "/admin/reload": Route(api.ReloadView(view, reactor), ("POST",), ("POST",), needs_token=True),
        "/admin/shutdown": Route(state.shutdown, ("POST",), ("POST",)),
        "/admin/server_info": Route(state.server_info),
        "/admin/metrics.json": Route(state.metrics),
        "/config.json": Route(state.config),
        "/bound-names.json": Route(state.bound_names),
        "/client_state.json": Route(state.client_state),
        "/access.json": Route(AccessView(view)),
        "/requests.json": Route(RequestsView(view, reactor)),
        "/delegator.json": Route(DelegatorView(view, reactor), both),
        "/admin/tracing": Route(api.TracingView(view), both, ("POST",)),
        "/logging.json": Route(api.LoggingView(view), both, ("POST",)),
        **_diagnostics(view, Slices(reactor)),
    }
    if view.config.usage.enabled:
        routes["/admin/metrics/usage"] = Route(SmallViews(view).usage)
    for telemeter in view.telemeters:
        for path in (telemeter.path, *telemeter.aliases):
            routes.setdefault(path, Route(state.telemeter(telemeter)))

    async def described() -> Sequence[str]:
        try:
            return await view.described()
        except MeshError:  # a list without them is better than none
            return ()

    async def index_text(query: Query) -> Answer:
        return Answer("\n".join(sorted((*routes, *await described()))) + "\n")

    def readable() -> list[str]:
        return sorted(path for path, route in routes.items() if "GET" in route.methods and path not in ("/", "/delegator.json"))

    dashboard = Dashboard(view, packaged(), readable)
    routes["/admin"] = routes["/admin/index.txt"] = Route(index_text)
    routes.update((path, Route(page)) for path, page in dashboard.pages().items())
    return {**{path: Route(file) for path, file in dashboard.files().items()}, **routes}  # the lists above are without the files


def _diagnostics(view: GatewayView, slices: Slices) -> dict[str, Route]:
    ready, threads, lint = ReadyViews(view), ThreadViews(view), LintViews(view, slices)
    return {
        "/admin/ready": Route(ready.text, is_open=True),
        "/admin/ready.json": Route(ready.json),
        "/admin/threads": Route(threads.text),
        "/admin/threads.json": Route(threads.json),
        "/admin/contention": Route(threads.contention),
        "/admin/pprof/profile": Route(ProfileView(view, wall_clock), is_costly=True),
        "/admin/addresses.json": Route(AddressesView(view, slices)),
        "/admin/registry.json": Route(RegistryView(view)),
        "/admin/announcer": Route(SmallViews(view).announcer),
        "/admin/lint": Route(lint.text),
        "/admin/lint.json": Route(lint.json),
    }


def admin_site(
    config: AdminConfig, view: GatewayView, reactor: IReactorTime, *, own_name: str = "", failed: Callable[[], object] = lambda: None
) -> AdminSite:
    """The site of a configuration. ``own_name`` is the machine's host name; ``failed`` counts the wrong tokens shown.

    Raises :class:`UnusableToken`.
    """
    security, block = AdminSecurity(), config.security
    if block is not None:
        security = AdminSecurity(
            ui_enabled=block.ui_enabled,
            control_enabled=block.control_enabled,
            diagnostics_enabled=block.diagnostics_enabled,
            whitelist=[pattern.pattern for pattern in block.path_whitelist],
            blacklist=[pattern.pattern for pattern in block.path_blacklist],
        )
    names = {*config.host_names, own_name, own_name.partition(".")[0]} - {""}
    tokens = None
    if config.authentication is not None:
        tokens = authentication(config.authentication, seconds=reactor.seconds, failed=failed)
    return AdminSite(view, security=security, reactor=reactor, authentication=tokens, names=names)
