"""The walk of a request: down through the stacks to an endpoint, and its answer up again. One walk per router and listener.

Source: ARCHITECTURE.md sections 2 and 3. Every step runs to its end in one call; where a request has to wait (an unbound name, no address, no
connection) it is parked on what it waits for, within the binding timeout, and the walk is entered again at that step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

from meshgw.app.replies import ErrorReplies
from meshgw.bind.route import Phase, Route
from meshgw.core.exchange import Exchange, Upstream
from meshgw.core.stack import EndHook, Pipeline, Reply, ResponseHook, reply_headers
from meshgw.core.timers import Wheel
from meshgw.errors import (
    BindingTimeout,
    CallerGone,
    ConnectFailed,
    InternalError,
    MeshError,
    NoEndpoint,
    Refused,
    Unbound,
)
from meshgw.identify.request import unidentified
from meshgw.kinds import Identifier
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.telemetry.histogram import bucket_of
from meshgw.wire.headers import Headers

MOST_CONNECT_ATTEMPTS = 25
"""How often another endpoint is tried after a connect failed (Finagle's limit for acquiring a session, spec 10.2)."""
_SERVER, _PATH, _BOUND, _ENDPOINT = 1, 2, 3, 4
_log = Logger()


class Routes(Protocol):
    """Where routes come from."""

    def bind(self, name: Path, dtab: Dtab | None) -> Route:
        """The route of a name that is not in the cache; it may still be pending."""
        ...

    def explain(self, route: Route) -> Unbound:
        """Why the route leads nowhere."""
        ...


class Walk:
    """Moves exchanges on. ``cache`` is the router's path cache: ``name`` or ``(name, local dtab)`` → route."""

    def __init__(
        self,
        *,
        server: Pipeline,
        identifier: Identifier,
        cache: dict[Any, Route],
        routes: Routes,
        replies: ErrorReplies,
        wheel: Wheel,
        clock: Callable[[], float],
        random: Callable[[], float],
        binding_timeout: float,
        begin_stats: EndHook | None = None,
    ) -> None:
        """``begin_stats`` counts the beginning of a request whose head could not be read. Times are seconds."""
        self._begin_stats = begin_stats
        self._server, self._identify = server, identifier.identify
        self._cache, self._routes, self._replies = cache, routes, replies
        self._wheel, self._clock, self._random, self._binding_timeout = wheel, clock, random, binding_timeout

    # --- down

    def begin(self, ex: Exchange) -> None:
        """A head was read: run the server stack and identify. Plug-in defects end in a 500, not in a hung request."""
        try:
            server = self._server
            for hook in server.requests:
                reply = hook(ex)
                if reply is not None:
                    self._answer_early(ex, reply, _SERVER, server, hook)
                    return
            ex.depth = _SERVER
            name = self._identify(ex)
            if isinstance(name, str):
                self._fail(ex, unidentified(ex, name))
                return
            ex.name = name
            route = self._cache.get(name if ex.dtab is None else (name, ex.dtab))
            if route is None:
                route = self._routes.bind(name, ex.dtab)
            route.used = ex.arrived
            route.in_flight += 1
            ex.route = route
            for hook in route.pipeline.requests:
                reply = hook(ex)
                if reply is not None:
                    self._answer_early(ex, reply, _PATH, route.pipeline, hook)
                    return
            ex.depth = _PATH
            self._choose(ex)
        except MeshError as error:
            self._fail(ex, error)
        except Exception:  # noqa: BLE001 - the rim around filters and identifiers, which plug-ins provide
            self._defect(ex)

    def _choose(self, ex: Exchange) -> None:
        """Take one of the route's bound names."""
        route = ex.route
        choices = route.choices
        if choices is None:
            self._no_choice(ex, route)
            return
        bound = choices.only
        if bound is None:
            bound = choices.choose(self._random)
            if bound is None:
                self._fail(ex, self._routes.explain(route))
                return
        ex.bound = bound
        for hook in bound.pipeline.requests:
            reply = hook(ex)
            if reply is not None:
                self._answer_early(ex, reply, _BOUND, bound.pipeline, hook)
                return
        ex.depth = _BOUND
        self._balance(ex)

    def _no_choice(self, ex: Exchange, route: Route) -> None:
        if route.phase is Phase.PENDING:
            route.waiters.append(ex)
            self._wait(ex, route.waiters)
        elif route.phase is Phase.FAILED and route.error is not None:
            self._fail(ex, route.error)
        else:
            self._fail(ex, self._routes.explain(route))

    def _balance(self, ex: Exchange) -> None:
        """Pick an endpoint and take a connection to it."""
        client = ex.bound.client
        node = client.pick()
        if node is None:
            if client.is_pending:
                client.waiters.append(ex)
                self._wait(ex, client.waiters)
            else:
                self._fail(ex, client.error or NoEndpoint(service=ex.name.show() if ex.name else "", bound=client.label))
            return
        ex.node = node
        node.load += 1
        ex.depth = _ENDPOINT
        upstream = node.endpoint.acquire(ex)
        if upstream is None:
            self._wait(ex, node.endpoint)
        else:
            ex.upstream = upstream
            upstream.send(ex)

    # --- waiting

    def _wait(self, ex: Exchange, place: Any) -> None:
        ex.waiting = place
        if ex.timer is None:
            ex.timer = self._wheel.after(max(0.0, ex.arrived + self._binding_timeout - self._clock()), lambda: self._waited_too_long(ex))

    def _stop_waiting(self, ex: Exchange) -> None:
        place, ex.waiting = ex.waiting, None
        if isinstance(place, list):
            if ex in place:
                place.remove(ex)
        elif place is not None:
            place.forget(ex)

    def _clear_timer(self, ex: Exchange) -> None:
        if ex.timer is not None:
            ex.timer.cancel()
            ex.timer = None

    def _waited_too_long(self, ex: Exchange) -> None:
        ex.timer = None
        self._stop_waiting(ex)
        name = ex.name.show() if ex.name is not None else ""
        if ex.depth == _ENDPOINT:
            what = f"a connection to {ex.node.address.show()} for client {ex.bound.client.label}"
        elif ex.depth == _BOUND:
            what = f"addresses of {ex.bound.client.label}"
        else:
            what = ex.route.waiting_for
        self._fail(ex, BindingTimeout(name=name, seconds=self._binding_timeout, waiting_for=what))

    def route_changed(self, ex: Exchange) -> None:
        """The route this one waited for got an answer."""
        ex.waiting = None
        self._guard(ex, self._choose)

    def addresses_known(self, ex: Exchange) -> None:
        """The client this one waited for knows its addresses."""
        ex.waiting = None
        self._guard(ex, self._balance)

    def _guard(self, ex: Exchange, step: Callable[[Exchange], None]) -> None:
        try:
            step(ex)
        except MeshError as error:
            self._fail(ex, error)
        except Exception:  # noqa: BLE001 - as in begin
            self._defect(ex)

    def _defect(self, ex: Exchange) -> None:
        _log.failure("defect on the way of {method} {target}", method=ex.method, target=ex.target)
        self._fail(ex, InternalError(where="the request's stack"))

    def connected(self, ex: Exchange, upstream: Upstream) -> None:
        """A connection for a waiting exchange."""
        ex.waiting = None
        self._clear_timer(ex)
        ex.upstream = upstream
        upstream.send(ex)
        if not ex.body_done and not upstream.is_full:
            ex.caller.resume_body()

    def connect_failed(self, ex: Exchange, error: MeshError) -> None:
        """Nothing was sent: another endpoint may do."""
        ex.waiting = None
        known = len(ex.bound.client.nodes)
        if ex.attempts < min(MOST_CONNECT_ATTEMPTS, 2 * known) and known:
            self._again(ex)
        else:
            self._fail(ex, self._with_names(ex, error))

    def _again(self, ex: Exchange) -> None:
        """Leave the endpoint and balance anew; the bound level's headers are in place already."""
        ex.attempts += 1
        ex.node.load -= 1
        ex.bound.client.stats.requeues.incr()
        ex.depth = _BOUND
        self._guard(ex, self._balance)

    def _with_names(self, ex: Exchange, error: MeshError) -> MeshError:
        if isinstance(error, ConnectFailed):
            client = ex.bound.client
            return ConnectFailed(
                selected=error.selected,
                reason=error.reason,
                service=ex.name.show() if ex.name else "",
                client=client.label,
                addresses=tuple(node.address.show() for node in client.nodes.all()[:20]),
            )
        return error

    # --- up

    def answered(self, ex: Exchange, body: bytes, *, done: bool) -> None:
        """The answer's head came: run the response hooks from inside out and hand it to the caller."""
        try:
            for pipeline in (ex.bound.pipeline, ex.route.pipeline, self._server):
                for hook in pipeline.responses:
                    reply = hook(ex)
                    if reply is not None:
                        self._abandon(ex)
                        self._take(ex, reply)
                        body, done = reply.body, True
        except Exception:  # noqa: BLE001 - as in begin
            self._abandon(ex)
            self._defect(ex)
            return
        ex.caller.respond(ex, body, done=done)

    def informed(self, ex: Exchange, line: bytes, headers: Headers) -> None:
        """An interim answer is passed on."""
        ex.caller.inform(ex, line, headers)

    def switched(self, ex: Exchange, upstream: Upstream, data: bytes) -> None:
        """The answer is 101: both connections become one tunnel."""
        for pipeline in (ex.bound.pipeline, ex.route.pipeline, self._server):
            for hook in pipeline.responses:
                hook(ex)
        ex.response_length = -1
        ex.caller.tunnel(ex, upstream, data)

    def failed(self, ex: Exchange, error: MeshError, *, resend: bool) -> None:
        """The endpoint gave no whole answer."""
        if ex.responded:
            ex.error = error
            ex.caller.cut()
        elif resend and ex.attempts < MOST_CONNECT_ATTEMPTS:
            self._again(ex)
        else:
            self._fail(ex, error)

    # --- ends

    def _answer_early(self, ex: Exchange, reply: Reply, level: int, pipeline: Pipeline, hook: Callable[[Exchange], Any]) -> None:
        """A filter answered: unwind exactly the filters that were passed, at its level and outside of it."""
        hooks, ex.partial = pipeline.partial[pipeline.requests.index(hook)]
        ex.depth = level
        if level > _PATH:
            hooks += ex.route.pipeline.responses
        if level > _SERVER:
            hooks += self._server.responses
        self._hand_over(ex, reply, hooks)

    def _fail(self, ex: Exchange, error: MeshError) -> None:
        """Answer with the error, or break the answer off when it has begun."""
        self._clear_timer(ex)
        ex.error = error
        if ex.responded:
            ex.caller.cut()
        else:
            self._hand_over(ex, self._replies.reply(error), self._server.responses)

    def _hand_over(self, ex: Exchange, reply: Reply, hooks: tuple[ResponseHook, ...]) -> None:
        self._take(ex, reply)
        for hook in hooks:
            other = hook(ex)
            if other is not None:
                self._take(ex, other)
                reply = other
        ex.caller.respond(ex, reply.body, done=True)

    def _take(self, ex: Exchange, reply: Reply) -> None:
        """Make the reply the exchange's answer."""
        if ex.error is None:
            ex.error = Refused(code=reply.status)
        ex.status_line = b""
        ex.status, ex.response, ex.response_length = reply.status, reply_headers(reply), len(reply.body)

    def refuse(self, ex: Exchange, error: MeshError) -> None:
        """Answer a head that could not be read; it counts as a request of the server's scope."""
        ex.depth = _SERVER
        if self._begin_stats is not None:
            self._begin_stats(ex)
        self._fail(ex, error)

    def caller_failed(self, ex: Exchange, error: MeshError) -> None:
        """The request became invalid while it was on its way."""
        self._stop_waiting(ex)
        self._abandon(ex)
        self._fail(ex, error)

    def caller_gone(self, ex: Exchange) -> None:
        """The caller vanished: cancel what is under way for it."""
        self._stop_waiting(ex)
        self._abandon(ex)
        if ex.error is None:
            ex.error = CallerGone()
        if not ex.responded:
            ex.status = 0
        self.finish(ex)

    def _abandon(self, ex: Exchange) -> None:
        upstream, ex.upstream = ex.upstream, None
        if upstream is not None:
            upstream.abandon()

    def finish(self, ex: Exchange) -> None:
        """The exchange is over, once: run the end hooks of every level passed, from inside out."""
        if ex.timer is not None:
            self._clear_timer(ex)
        depth, ex.depth = ex.depth, 0
        if not depth:
            return
        if ex.upstream is not None:
            self._abandon(ex)
        ex.ended = self._clock()
        ex.micros = micros = int((ex.ended - ex.arrived) * 1e6)
        ex.bucket = bucket_of(micros)
        partial = ex.partial
        if depth == _ENDPOINT:
            ex.node.load -= 1
        if depth >= _BOUND:
            for hook in ex.bound.pipeline.ends if partial is None or depth > _BOUND else partial:
                hook(ex)
        route = ex.route
        if route is not None:
            route.in_flight -= 1
        if depth >= _PATH:
            for hook in route.pipeline.ends if partial is None or depth > _PATH else partial:
                hook(ex)
        for hook in self._server.ends if partial is None or depth > _SERVER else partial:
            hook(ex)
        if route is not None and route.is_oneshot and not route.in_flight:
            route.close()

