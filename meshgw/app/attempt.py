"""The inner part of a request's walk: one attempt after another on the bound names of its route, until one ends it.

Source: linkerd-config spec 5.8, 10.1 to 10.3 and 10.8; ARCHITECTURE.md section 2, steps 6 to 12. A *requeue* repeats what certainly was not
delivered, on another endpoint of the same bound name; a *retry* repeats a failure that the service's classifier calls retryable, and draws
a bound name anew. Both have budgets, and neither happens once an answer has begun or when the body is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from meshgw.bind.route import Phase, Route
from meshgw.core.exchange import Exchange, Upstream
from meshgw.core.logger import make_logger
from meshgw.core.stack import EndHook, Pipeline, ResponseHook, Wait
from meshgw.core.timers import Wheel
from meshgw.errors import BindingTimeout, ConnectFailed, InternalError, MeshError, Rebound, RulesUnknown, Unbound
from meshgw.filters.classify import NON_RETRYABLE_FAILURE, RETRYABLE_FAILURE, SUCCESS
from meshgw.filters.reading import path_of
from meshgw.kinds import NotYet
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.telemetry.histogram import bucket_of

MOST_CONNECT_ATTEMPTS = 25
"""How often another endpoint is tried after a connect failed (Finagle's limit for acquiring a session, spec 10.2)."""
MOST_ADDRESSES_SHOWN = 20
SERVER, PATH, BOUND, ENDPOINT = 1, 2, 3, 4
"""Depths: the levels of stacks an exchange has passed."""
log = make_logger()


class Routes(Protocol):
    """Where routes come from."""

    def bind(self, name: Path, dtab: Dtab | None) -> Route:
        """The route of a name that is not in the cache; it may still be pending."""
        ...

    def drop(self, route: Route) -> None:
        """A route that is in no cache, or not any more, has done its service."""
        ...

    def explain(self, route: Route) -> Unbound:
        """Why the route leads nowhere."""
        ...


class Attempts:
    """Chooses, balances, waits, requeues, retries. ``fail`` is the walk's way out. Times are seconds."""

    def __init__(
        self, *, routes: Routes, wheel: Wheel, clock: Callable[[], float], random: Callable[[], float], binding_timeout: float
    ) -> None:
        self._routes, self._wheel, self._clock, self._random, self._binding_timeout = routes, wheel, clock, random, binding_timeout

    def fail(self, ex: Exchange, error: MeshError) -> None:
        """End the exchange with an error."""
        raise NotImplementedError  # pragma: no cover - the walk's

    def answer_early(self, ex: Exchange, reply: Any, level: int, pipeline: Pipeline, hook: Callable[[Exchange], Any]) -> None:
        """A filter answered, or waits."""
        raise NotImplementedError  # pragma: no cover - the walk's

    def _stop_at(self, ex: Exchange, level: int, pipeline: Pipeline, hook: Callable[[Exchange], Any]) -> tuple[ResponseHook, ...]:
        """The exchange goes no further than ``hook``: note which end hooks are to run, and give the response hooks."""
        hooks, ex.partial = pipeline.partial[pipeline.requests.index(hook)]
        ex.depth = level
        self._count_apart(ex, attempted=level >= BOUND)
        return hooks

    def _count_apart(self, ex: Exchange, *, attempted: bool) -> None:
        """The exchange is not an ordinary one: its levels count for themselves. ``attempted`` tells whether it came to an attempt."""
        tally, ex.tally = ex.tally, None
        if tally is not None:
            tally.leave(attempted=attempted)

    # --- one attempt

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
                self.fail(ex, self._routes.explain(route))
                return
        if bound.pipeline.stats is not None:
            bound.pipeline.stats.on_request(ex)
        self._attempt(ex, bound)

    def _attempt(self, ex: Exchange, bound: Any) -> None:
        """Try this bound name; the attempt's beginning was counted."""
        ex.bound = bound
        for hook in bound.pipeline.requests:
            try:
                reply = hook(ex)
            except Exception:  # the limit that one of them may have started must not outlive the exchange
                self._stop_at(ex, BOUND, bound.pipeline, hook)
                raise
            if reply is not None:
                self.answer_early(ex, reply, BOUND, bound.pipeline, hook)
                return
        ex.depth = BOUND
        self._balance(ex)

    def _no_choice(self, ex: Exchange, route: Route) -> None:
        if route.phase is Phase.PENDING:
            route.waiters.append(ex)
            self._wait(ex, route.waiters)
        elif route.phase is Phase.FAILED and route.error is not None:
            self.fail(ex, route.error)
        else:
            self.fail(ex, self._routes.explain(route))

    def _balance(self, ex: Exchange, node: Any = None) -> None:
        """Pick an endpoint, unless one is given, and take a connection to it."""
        client = ex.bound.client
        if node is None:
            node = client.pick(client.nodes)
        if node is None:
            if client.is_pending:
                client.waiters.append(ex)
                self._wait(ex, client.waiters)
            else:
                self.fail(ex, client.error or client.no_endpoint(ex.name.show() if ex.name else ""))
            return
        ex.node = node
        node.load += 1
        if client.on_begin is not None:
            client.on_begin(node)
        ex.depth = ENDPOINT
        endpoint = node.endpoint
        breaker = endpoint.breaker
        if breaker is not None and not breaker.is_alive:
            breaker.begun()
        upstream = endpoint.acquire(ex)
        if upstream is None:
            if not ex.queued:
                ex.queued = self._clock()
            self._wait(ex, endpoint)
        else:
            ex.upstream = upstream
            upstream.send(ex)

    def _leave_node(self, ex: Exchange) -> None:
        """The attempt is over for its endpoint, by ``ex.verdict``."""
        node, client = ex.node, ex.bound.client
        node.load -= 1
        if client.on_end is not None:
            client.on_end(node, (ex.headed or self._clock()) - ex.attempt_started, ex.verdict is not SUCCESS)
        node.endpoint.ended(ex)

    # --- waiting

    def _wait(self, ex: Exchange, place: Any) -> None:
        ex.waiting = place
        if ex.timer is None:
            left = ex.attempt_started + self._binding_timeout - self._clock()
            ex.timer = self._wheel.after(max(0.0, left), lambda: self._waited_too_long(ex))

    def _stop_waiting(self, ex: Exchange) -> None:
        place, ex.waiting = ex.waiting, None
        if isinstance(place, list):
            if ex in place:
                place.remove(ex)
        elif place is not None and place is not Wait.WAIT:
            place.forget(ex)

    def _clear_timer(self, ex: Exchange) -> None:
        if ex.timer is not None:
            ex.timer.cancel()
            ex.timer = None

    def _waited_too_long(self, ex: Exchange) -> None:
        ex.timer = None
        place = ex.waiting
        self._stop_waiting(ex)
        if isinstance(place, NotYet):
            self.fail(ex, RulesUnknown(waiting_for=place.waiting_for, seconds=self._binding_timeout))
            return
        name = ex.name.show() if ex.name is not None else ""
        if ex.depth == ENDPOINT:
            what = f"a connection to {ex.node.address.show()} for client {ex.bound.client.label}"
            ex.verdict = NON_RETRYABLE_FAILURE
        elif ex.depth == BOUND:
            client = ex.bound.client
            what = f"addresses of {client.label}{f': {client.waiting_for}' if client.waiting_for else ''}"
        else:
            what = ex.route.waiting_for
        self.fail(ex, BindingTimeout(name=name, seconds=self._binding_timeout, waiting_for=what))

    def route_changed(self, ex: Exchange) -> None:
        """The route this one waited for got an answer."""
        ex.waiting = None
        self._guard(ex, self._choose)

    def rebound(self, ex: Exchange) -> None:
        """Its name leads elsewhere, or otherwise, than where it waits for addresses: choose anew, as if it had not chosen yet."""
        if ex.depth != BOUND:
            return
        self._stop_waiting(ex)
        self._count_apart(ex, attempted=True)
        ex.error = Rebound()
        self.end_attempt(ex, BOUND, None)
        ex.error = ex.bound = None
        ex.depth = PATH
        del ex.headers.lines[ex.base :]
        self._guard(ex, self._choose)

    def addresses_known(self, ex: Exchange) -> None:
        """The client this one waited for knows its addresses."""
        ex.waiting = None
        self._guard(ex, self._balance)

    def _guard(self, ex: Exchange, step: Callable[[Exchange], None]) -> None:
        try:
            step(ex)
            if ex.upstream is not None:  # it was sent on an idle connection: the wait is over
                self._sent(ex, ex.upstream)
        except MeshError as error:
            self.fail(ex, error)
        except Exception:  # noqa: BLE001 - the rim around filters, which plug-ins provide
            self.defect(ex)

    def defect(self, ex: Exchange) -> None:
        """Something raised that must not."""
        self.fail(ex, self._defect(ex))

    def _defect(self, ex: Exchange) -> MeshError:
        log.failure("defect on the way of {method} {target}", method=ex.method, target=path_of(ex.target))
        return InternalError(where="the request's stack")

    def connected(self, ex: Exchange, upstream: Upstream) -> None:
        """A connection for a waiting exchange."""
        ex.waiting = None
        ex.upstream = upstream
        upstream.send(ex)
        self._sent(ex, upstream)

    def diverted(self, ex: Exchange, node: Any) -> None:
        """Another endpoint of its bound name connected sooner than the one it waits for: leave that, which may still do well, for this."""
        if ex.depth != ENDPOINT:
            return
        self._stop_waiting(ex)
        ex.verdict = None
        self._leave_node(ex)
        ex.depth = BOUND
        self._guard(ex, lambda ex: self._balance(ex, node))

    def _sent(self, ex: Exchange, upstream: Upstream) -> None:
        self._clear_timer(ex)
        if ex.queued:
            ex.bound.client.stats.acquired(self._clock() - ex.queued)
            ex.queued = 0.0
        if not ex.body_done and not upstream.is_full:
            ex.caller.resume_body()

    # --- again

    def connect_failed(self, ex: Exchange, error: MeshError) -> None:
        """Nothing was sent: another endpoint may do. Acquiring a connection is tried again whatever the budget (spec 10.2)."""
        ex.waiting = None
        client = ex.bound.client
        ex.verdict = NON_RETRYABLE_FAILURE
        client.nodes.unreachable(ex.node)
        if ex.attempts < min(MOST_CONNECT_ATTEMPTS, 2 * len(client.nodes)):
            if ex.recording is not None:
                self._record_again(ex, error)
            self._again(ex)
        else:
            if not len(client.nodes):
                client.stats.not_open()
            self.attempt_failed(ex, self._with_names(ex, error))

    def _record_again(self, ex: Exchange, error: MeshError | None) -> None:
        """Tell the recording, which there is, that another attempt begins; what cannot be recorded is sent all the same."""
        try:
            assert ex.recording is not None
            ex.recording.again(ex, error)
        except Exception:  # noqa: BLE001 - propagators are plug-in code, and so are filters that may have changed the header lines
            self.end_defect(ex)

    def _again(self, ex: Exchange) -> None:
        """Leave the endpoint and balance anew; the bound level's headers are in place already."""
        ex.attempts += 1
        ex.bound.client.stats.requeued()
        self._leave_node(ex)
        ex.verdict = ex.node = None
        ex.depth = BOUND
        if ex.body is None and ex.replay is not None:
            ex.body = list(ex.replay)
        self._guard(ex, self._balance)

    def _requeue(self, ex: Exchange, error: MeshError | None) -> None:
        """Send again what was sent and not handled; the attempt that ends here is counted."""
        ex.error = error
        self._count_apart(ex, attempted=True)
        self.account(ex, since=ex.attempt_started)
        ex.bound.stats.requeued(ex)
        if ex.recording is not None:
            self._record_again(ex, error)
        ex.error, ex.status = None, 0
        self._again(ex)

    def failed(self, ex: Exchange, error: MeshError, *, resend: bool) -> None:
        """The endpoint gave no whole answer."""
        if ex.responded:
            ex.error, ex.verdict = error, NON_RETRYABLE_FAILURE
            ex.caller.cut()
        elif resend and self._may_requeue(ex):
            ex.verdict = None  # a connection that was closed while idle says nothing of the endpoint's health
            self._requeue(ex, error)
        else:
            self.attempt_failed(ex, error)

    def _may_requeue(self, ex: Exchange) -> bool:
        client = ex.bound.client
        if ex.attempts >= MOST_CONNECT_ATTEMPTS:
            client.stats.limited()
            return False
        if not ex.route.policy.can_replay(ex):
            client.stats.not_replayable()
            return False
        return bool(client.may_requeue(ex.attempts))

    def attempt_failed(self, ex: Exchange, error: MeshError) -> None:
        """The attempt ended without an answer: retry it if the classifier and the budget allow, else the caller is told."""
        self._stop_waiting(ex)
        ex.error = error
        policy = ex.route.policy
        ex.verdict = verdict = policy.classify(ex)
        if verdict is RETRYABLE_FAILURE and policy.may_retry():
            self.retry(ex)
        else:
            self.fail(ex, error)

    def attempt_expired(self, ex: Exchange, error: MeshError) -> None:
        """The limit of one attempt passed: free its connection or its place in the queue, then see."""
        if not ex.responded and ex.depth >= BOUND:
            self._stop_waiting(ex)
            self.abandon(ex)
            self._clear_timer(ex)
            self.attempt_failed(ex, error)

    def retry(self, ex: Exchange) -> None:
        """End this attempt and begin another, now or after the backoff."""
        policy = ex.route.policy
        self.abandon(ex)
        self._clear_timer(ex)
        self._count_apart(ex, attempted=True)
        self.account(ex, since=ex.attempt_started)
        self.end_attempt(ex, ex.depth, None)
        ex.retries += 1
        ex.depth, ex.attempts, ex.status = PATH, 0, 0
        ex.error = ex.verdict = ex.node = ex.bound = None
        del ex.headers.lines[ex.base :]
        if ex.replay is not None:
            ex.body = list(ex.replay)
        if ex.waits is None:
            ex.waits = policy.waits()
        wait = next(ex.waits)
        if wait:
            ex.waiting = Wait.WAIT
            ex.timer = self._wheel.after(wait, lambda: self._begin_retry(ex))
        else:
            self._begin_retry(ex)

    def _begin_retry(self, ex: Exchange) -> None:
        ex.waiting = ex.timer = None
        ex.attempt_started = self._clock()
        self._guard(ex, self._choose)

    # --- ends

    def abandon(self, ex: Exchange) -> None:
        """Nobody wants the answer under way any more."""
        upstream, ex.upstream = ex.upstream, None
        if upstream is not None:
            upstream.abandon()

    def account(self, ex: Exchange, since: float) -> None:
        """Work out what all counters need: time and outcome."""
        ex.ended = self._clock()
        ex.micros = micros = int(((ex.headed or ex.ended) - since) * 1e6)
        ex.bucket = bucket_of(micros)
        status = ex.status
        if not status:
            ex.outcome = type(ex.error).__name__
        elif ex.error is None:
            ex.outcome = status if ex.verdict is SUCCESS else -status
        elif ex.error.status < 500:
            ex.outcome = status if status < 500 else -status
        else:  # also of an answer that broke off after a good head, unless it was the caller who left it
            ex.outcome = -status

    def end_attempt(self, ex: Exchange, depth: int, partial: tuple[EndHook, ...] | None) -> None:
        """Leave the endpoint and run the end hooks of the bound level, as far as they were reached."""
        if depth == ENDPOINT:
            self._leave_node(ex)
        if depth >= BOUND:
            pipeline = ex.bound.pipeline
            if ex.recording is not None:
                self.record_end(ex)
            self.run_ends(ex, pipeline.ends if partial is None or depth > BOUND else partial)
            if pipeline.stats is not None:
                pipeline.stats.on_end(ex)
            ex.queued = 0.0

    def run_ends(self, ex: Exchange, hooks: tuple[EndHook, ...]) -> None:
        """Run all end hooks, whatever one of them does: each may have something to give back."""
        for hook in hooks:
            try:
                hook(ex)
            except Exception:  # noqa: BLE001 - the rim around filters, which plug-ins provide
                self.end_defect(ex)

    def record_end(self, ex: Exchange) -> None:
        """Tell the recording, which there is, that the attempt under way is over."""
        try:
            assert ex.recording is not None
            ex.recording.ended(ex, ex.error)
        except Exception:  # noqa: BLE001 - errors and names, whose texts are recorded, are those of plug-ins too
            self.end_defect(ex)

    def end_defect(self, ex: Exchange) -> None:
        """Something raised that must not while the exchange ends, which goes on."""
        log.failure("defect while accounting for {method} {target}", method=ex.method, target=path_of(ex.target))

    def _with_names(self, ex: Exchange, error: MeshError) -> MeshError:
        if not isinstance(error, ConnectFailed):
            return error
        client = ex.bound.client
        return ConnectFailed(
            selected=error.selected,
            reason=error.reason,
            service=ex.name.show() if ex.name else "",
            client=client.label,
            addresses=tuple(node.endpoint.summary() for node in client.nodes.all()[:MOST_ADDRESSES_SHOWN]),
        )
