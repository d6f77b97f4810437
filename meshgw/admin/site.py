"""The admin server on twisted.web: paths, methods, security, limits; the views themselves are in ``admin.api``.

Source: linkerd-config spec 2.2 and 2.3. A request may have 1 MiB and 30 seconds; a view that fails is answered with 500 and logged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, cast
from urllib.parse import parse_qs

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from meshgw.admin import api
from meshgw.admin.api import Answer, DelegationJson, GatewayView, Query
from meshgw.admin.pages import PAGE_HEADERS, index_page
from meshgw.admin.security import AdminSecurity, refusal
from meshgw.telemetry.logs import LogLevels

MAX_BODY = 1 << 20
TIMEOUT_SECONDS = 30.0
MAX_PARAMETERS = 100

View = Callable[[Query], Answer | Awaitable[Answer]]


@attrs.frozen
class Route:
    """A path's view; ``methods`` besides HEAD, which goes with GET. ``changes`` are the methods that change something."""

    view: View
    methods: tuple[str, ...] = ("GET",)
    changes: tuple[str, ...] = ()


class AdminResource(Resource):
    """Dispatches by the whole path."""

    isLeaf = True
    log = Logger()

    def __init__(self, routes: Mapping[str, Route], security: AdminSecurity, names: Collection[str] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # twisted.web has no annotations here
        self._routes, self._security, self._names = routes, security, names

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

        request.notifyFinish().addErrback(lost)
        working.addCallback(finish).addErrback(failed)
        return NOT_DONE_YET

    async def _answered(self, request: Request) -> Answer:
        try:
            return await self._looked_up(request)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the rim: views call into interpreters and telemeters, which may be plug-ins
            self.log.failure("the admin view {path} failed", path=request.path)
            return Answer("internal error; the log has the details\n", status=500)

    async def _looked_up(self, request: Request) -> Answer:
        path = request.path.decode("latin-1")
        if not self._security.serves(path):
            return Answer("", status=404)
        route = self._routes.get(path)
        if route is None:
            return Answer("not found; /admin lists what there is\n", status=404)
        method = request.method.decode("latin-1")
        if ("GET" if method == "HEAD" else method) not in route.methods:
            return Answer("method not allowed\n", status=405, headers=(("Allow", ", ".join(_allowed(route))),))
        if method in route.changes:
            why = refusal(_header(request, "host") or "", _header(request, "origin"), _header(request, "sec-fetch-site"), self._names)
            if why is not None:
                return Answer(f"refused: {why}\n", status=403)
        try:
            query = _query(request, method, path)
        except ValueError as error:
            return Answer(f"malformed parameters: {error}\n", status=400)
        answer = route.view(query)
        return answer if isinstance(answer, Answer) else await answer


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
    return Query(method=method, path=path, args=args, body=body, media_type=media_type)


def _parameters(text: bytes) -> dict[str, list[str]]:
    return parse_qs(text.decode("latin-1"), keep_blank_values=True, errors="replace", max_num_fields=MAX_PARAMETERS)


def _send(request: Any, answer: Answer) -> None:  # Any: what is called of the request has no annotations
    body = answer.body.encode() if isinstance(answer.body, str) else answer.body
    request.setResponseCode(answer.status)
    headers = request.responseHeaders
    headers.removeHeader("server")
    headers.setRawHeaders("Content-Type", [answer.content_type])
    headers.setRawHeaders("Content-Length", [str(len(body))])
    headers.setRawHeaders("X-Content-Type-Options", ["nosniff"])
    headers.setRawHeaders("Cache-Control", ["no-store"])
    extra = answer.headers + (PAGE_HEADERS if answer.content_type == api.HTML else ())
    for name, value in extra:
        headers.setRawHeaders(name, [value])
    request.write(body)
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

    ``as_json`` turns a delegation into plain data; ``names`` are host names by which browsers reach this server (spec 2.2 has no such
    option; addresses and ``localhost`` need none).
    """

    def __init__(
        self,
        view: GatewayView,
        *,
        security: AdminSecurity,
        levels: LogLevels,
        as_json: DelegationJson,
        reactor: IReactorTime,
        names: Collection[str] = (),
    ) -> None:
        routes = _routes(view, levels, as_json, reactor)
        resource = AdminResource(routes, security, names)
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


def _routes(view: GatewayView, levels: LogLevels, as_json: DelegationJson, reactor: IReactorTime) -> dict[str, Route]:
    state = api.StateViews(view)
    both = ("GET", "POST")
    routes: dict[str, Route] = {
        "/admin/ping": Route(api.ping),
        "/admin/shutdown": Route(state.shutdown, ("POST",), ("POST",)),
        "/admin/server_info": Route(state.server_info),
        "/admin/metrics.json": Route(state.metrics),
        "/config.json": Route(state.config),
        "/bound-names.json": Route(state.bound_names),
        "/client_state.json": Route(state.client_state),
        "/delegator.json": Route(api.DelegatorView(view, as_json, reactor), both),
        "/logging.json": Route(api.LoggingView(levels), both, ("POST",)),
    }
    for telemeter in view.telemeters:
        routes.setdefault(telemeter.path, Route(state.telemeter(telemeter)))
        routes.setdefault("/metrics", Route(state.telemeter(telemeter)))  # where scrapers look first; Linkerd has no such alias

    def index_text(query: Query) -> Answer:
        return Answer("\n".join(sorted(routes)) + "\n")

    def index_html(query: Query) -> Answer:
        paths = [path for path, route in sorted(routes.items()) if "GET" in route.methods and path not in ("/", "/delegator.json")]
        routers = [(label, router.dtab.show()) for label, router in view.routers.items()]
        return Answer(index_page(cast("Mapping[str, object]", view.server_info()), paths, routers), api.HTML)

    routes["/admin"] = routes["/admin/index.txt"] = Route(index_text)
    routes["/"] = Route(index_html)
    return routes
