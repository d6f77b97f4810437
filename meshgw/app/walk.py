"""The walk of a request: down through the stacks to its attempts, and its answer up again. One walk per listener.

Source: ARCHITECTURE.md sections 2 and 3. Every step runs to its end in one call; where a request has to wait (an unbound name, no
address, no connection, a backoff) it is parked on what it waits for, within a limit, and the walk is entered again at that step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshgw.app.attempt import BOUND, ENDPOINT, PATH, SERVER, Attempts, Routes, log
from meshgw.app.figures import TIMED_EACH, RequestFigures
from meshgw.app.policy import is_replayable
from meshgw.app.replies import ErrorReplies
from meshgw.bind.route import Route
from meshgw.core.exchange import UNKNOWN_LENGTH, Exchange, Hold, Upstream
from meshgw.core.stack import Pipeline, Reply, ResponseHook, Wait, reply_headers
from meshgw.core.timers import Wheel
from meshgw.errors import CallerGone, DeadlineExceeded, MeshError, Refused
from meshgw.filters.classify import NON_RETRYABLE_FAILURE, RETRYABLE_FAILURE, SUCCESS
from meshgw.filters.reading import path_of
from meshgw.filters.success import FAILURE_LINE, SUCCESS_LINE
from meshgw.identify.request import unidentified
from meshgw.kinds import Identifier, NotYet
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.telemetry.histogram import bucket_of
from meshgw.telemetry.outcomes import Outcomes
from meshgw.wire.headers import Headers

__all__ = ["BOUND", "ENDPOINT", "PATH", "SERVER", "Routes", "Walk"]

NACK = b"finagle-http-nack"
"""An answer with this field says that the request was not looked at (spec 5.8)."""


class Walk(Attempts):
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
        outcomes: Outcomes,
        figures: RequestFigures,
    ) -> None:
        """``outcomes`` counts the requests of the server, ``figures`` what else there is to them. Times are seconds."""
        super().__init__(routes=routes, wheel=wheel, clock=clock, random=random, binding_timeout=binding_timeout)
        self._outcomes, self._cells = outcomes, outcomes.cells
        self._figures, self._asked, self._answered = figures, figures.asked, figures.answered
        self._server, self._identify = server, identifier.identify
        self._cache, self._replies = cache, replies

    # --- down

    def begin(self, ex: Exchange) -> None:
        """A head was read: run the server stack, identify, enter the route. Plug-in defects end in a 500, not in a hung request."""
        hook: Callable[[Exchange], Any] | None = None
        self._outcomes.started = number = self._outcomes.started + 1
        try:
            for hook in self._server.requests:
                reply = hook(ex)
                if reply is not None:
                    self.answer_early(ex, reply, SERVER, self._server, hook)
                    return
            hook = None
            ex.depth = SERVER
            name = self._identify(ex)
            route = self._cache.get(name if ex.dtab is None else self._with_local(name, ex.dtab))
            if route is None:
                if not isinstance(name, Path):
                    self._not_named(ex, name)
                    return
                route = self._routes.bind(name, ex.dtab)
            ex.name, ex.route = name, route  # type: ignore[assignment]  # a reason is no key of the cache
            route.used = ex.attempt_started = ex.arrived
            route.in_flight += 1
        except Exception as error:  # noqa: BLE001 - the rim around filters and identifiers, which plug-ins provide
            self._broke_off(ex, error, SERVER, self._server, hook)
        else:
            if number % TIMED_EACH:
                self._enter(ex, route)
            else:
                self._enter_timed(ex, route)

    def _enter_timed(self, ex: Exchange, route: Route) -> None:
        """The same, and how long it took from the arrival counts."""
        arrived = ex.arrived
        self._enter(ex, route)
        self._figures.handling.add(int((self._clock() - arrived) * 1e6))

    def _with_local(self, name: Any, dtab: Dtab) -> tuple[Any, Dtab]:
        """The key of a name with a local dtab, whose size counts."""
        self._figures.dtab_sizes[len(dtab)] += 1
        return name, dtab

    def _not_named(self, ex: Exchange, reason: str | NotYet) -> None:
        """No identifier knows the request, or one cannot tell yet."""
        if isinstance(reason, str):
            self.fail(ex, unidentified(ex, reason))
            return
        ex.attempt_started = ex.arrived
        reason.add(ex)
        self._wait(ex, reason)

    def identifiable(self, ex: Exchange) -> None:
        """The identifier it waited for knows its rules."""
        ex.waiting = None
        self._guard(ex, self._name_again)

    def _name_again(self, ex: Exchange) -> None:
        name = self._identify(ex)
        if not isinstance(name, Path):
            self._not_named(ex, name)
            return
        self._clear_timer(ex)
        route = self._cache.get(name if ex.dtab is None else self._with_local(name, ex.dtab)) or self._routes.bind(name, ex.dtab)
        ex.name, ex.route = name, route
        route.used = ex.attempt_started = ex.arrived
        route.in_flight += 1
        self._enter(ex, route)

    def _enter(self, ex: Exchange, route: Route) -> None:
        """Count the request, run the path stack, and make the first attempt."""
        pipeline = route.pipeline
        choices = route.choices
        bound = None if choices is None else choices.only
        hook: Callable[[Exchange], Any] | None = None
        if bound is None:
            if pipeline.stats is not None:
                pipeline.stats.on_request(ex)
        else:  # where it leads is settled: until something else turns up it is an ordinary request
            ex.tally = tally = bound.tally
            tally.started += 1
            if ex.arrived >= tally.until:
                tally.turn(ex.arrived)
            tally.retries.requests += 1
            tally.requeues.requests += 1
        try:
            for hook in pipeline.requests:
                reply = hook(ex)
                if reply is not None:
                    self.answer_early(ex, reply, PATH, pipeline, hook)
                    return
            hook = None
            ex.depth = PATH
            ex.base = len(ex.headers.lines)
            if bound is None:
                self._choose(ex)
            else:
                self._attempt(ex, bound)
        except Exception as error:  # noqa: BLE001 - as in begin
            self._broke_off(ex, error, PATH, pipeline, hook)

    def _broke_off(self, ex: Exchange, error: Exception, level: int, pipeline: Pipeline, hook: Callable[[Exchange], Any] | None) -> None:
        """Something raised, ``hook`` if it is given: an error is answered, anything else is a defect."""
        if hook is not None:
            self._stop_at(ex, level, pipeline, hook)
        if isinstance(error, MeshError):
            self.fail(ex, error)
        else:
            self.defect(ex)

    def resume(self, ex: Exchange, reply: Reply | None) -> None:
        """A filter of the path stack that said WAIT is done."""
        ex.waiting = None
        pipeline = ex.route.pipeline
        hook = (ex.notes or {}).pop("waiting hook")
        if reply is not None:
            self.answer_early(ex, reply, PATH, pipeline, hook)
            return
        ex.partial = None
        for following in pipeline.requests[pipeline.requests.index(hook) + 1 :]:
            try:
                answer = following(ex)
            except Exception as error:  # noqa: BLE001 - as in begin
                self._broke_off(ex, error, PATH, pipeline, following)
                return
            if answer is not None:
                self.answer_early(ex, answer, PATH, pipeline, following)
                return
        ex.depth = PATH
        ex.base = len(ex.headers.lines)
        ex.attempt_started = self._clock()
        self._guard(ex, self._choose)

    def answer_early(self, ex: Exchange, reply: Reply | Wait, level: int, pipeline: Pipeline, hook: Callable[[Exchange], Any]) -> None:
        """A filter answered or waits: unwind exactly the filters that were passed, at its level and outside of it."""
        hooks = self._stop_at(ex, level, pipeline, hook)
        if isinstance(reply, Wait):
            # should the caller go meanwhile, the waiting filter's own end hook has to run as well
            end = getattr(getattr(hook, "__self__", None), "on_end", None)
            if end is not None:
                ex.partial = (end, *(ex.partial or ()))
            if ex.notes is None:
                ex.notes = {}
            ex.notes["waiting hook"] = hook
            ex.waiting = reply
            return
        if level > PATH:
            hooks += ex.route.pipeline.responses
        if level > SERVER:
            hooks += self._server.responses
        self._hand_over(ex, reply, hooks)

    # --- up

    def answered(self, ex: Exchange, body: bytes, done: bool) -> None:
        """The answer's head came: judge it, then run the response hooks from inside out and hand it to the caller."""
        try:
            policy = ex.route.policy
            if ex.status < policy.sure_below:
                ex.verdict = SUCCESS
            else:
                if done and ex.answer_trailers is None:
                    ex.answer_trailers = []  # there are none to come
                ex.verdict = policy.classify(ex)
                if ex.verdict is not SUCCESS and self._again_instead(ex):
                    return
            if ex.recording is not None:
                ex.recording.status = ex.status
            for hook in ex.bound.pipeline.responses:
                reply = hook(ex)
                if reply is not None:
                    body, done = self._instead(ex, reply), True
            for hook in ex.route.pipeline.responses:
                reply = hook(ex)
                if reply is not None:
                    body, done = self._instead(ex, reply), True
            for hook in self._server.responses:
                reply = hook(ex)
                if reply is not None:
                    body, done = self._instead(ex, reply), True
        except Exception:  # noqa: BLE001 - as in begin
            self.abandon(ex)
            self.defect(ex)
            return
        ex.caller.respond(ex, body, done)

    def _again_instead(self, ex: Exchange) -> bool:
        """The answer is a failure: whether the request is sent again instead of passing it on."""
        policy = ex.route.policy
        if NACK in ex.response.seen and self._may_requeue(ex):
            self.abandon(ex)
            self._requeue(ex, None)
            return True
        if ex.verdict is RETRYABLE_FAILURE and policy.may_retry():
            self.retry(ex)
            return True
        return False

    def _instead(self, ex: Exchange, reply: Reply) -> bytes:
        """A filter answers in the endpoint's place: what follows of its answer is not wanted."""
        self.abandon(ex)
        error = ex.error
        self._take(ex, reply)
        ex.error = error  # the endpoint did answer, and is counted by that
        return reply.body

    def holds(self, ex: Exchange) -> Hold | None:
        """See :class:`meshgw.core.exchange.Walk`."""
        hold: Hold | None = ex.route.policy.hold
        # while the caller still speaks it may wait for what is said here: only a whole request is worth the delay
        return hold if hold is not None and is_replayable(ex) else None

    def concluded(self, ex: Exchange, trailers: list[bytes]) -> list[bytes]:
        """The verdict on an answer whose trailers decide; the caller is told as it is in the head of others."""
        if ex.recording is not None:
            ex.recording.concluded(trailers)
        conclude = ex.route.policy.conclude
        if conclude is None or ex.error is not None:
            return trailers
        try:
            ex.verdict = verdict = conclude(ex, trailers)
        except Exception:  # noqa: BLE001 - a classifier is plug-in code; the answer is on its way already
            log.failure("defect while judging the answer to {method} {target}", method=ex.method, target=path_of(ex.target))
            return trailers
        return [*trailers, SUCCESS_LINE if verdict is SUCCESS else FAILURE_LINE]

    def informed(self, ex: Exchange, line: bytes, headers: Headers) -> None:
        """An interim answer is passed on."""
        ex.caller.inform(ex, line, headers)

    def switched(self, ex: Exchange, upstream: Upstream, data: bytes) -> None:
        """The answer is 101: both connections become one tunnel."""
        ex.verdict = SUCCESS
        if ex.recording is not None:
            ex.recording.status = ex.status
        try:
            for pipeline in (ex.bound.pipeline, ex.route.pipeline, self._server):
                for hook in pipeline.responses:
                    hook(ex)
        except Exception:  # noqa: BLE001 - as in begin
            self.abandon(ex)
            self.defect(ex)
            return
        ex.response_length = -1
        ex.caller.tunnel(ex, upstream, data)

    # --- ends

    def fail(self, ex: Exchange, error: MeshError) -> None:
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
            try:
                other = hook(ex)
            except Exception:  # noqa: BLE001 - as in begin
                self._hand_over_defect(ex, tuple(each for each in hooks if each is not hook))
                return
            if other is not None:
                self._take(ex, other)
                reply = other
        ex.caller.respond(ex, reply.body, True)

    def _hand_over_defect(self, ex: Exchange, hooks: tuple[ResponseHook, ...]) -> None:
        """A response hook raised: a new answer says so, to which the others do what they have to, such as telling strangers nothing."""
        ex.error = error = self._defect(ex)
        self._hand_over(ex, self._replies.reply(error), hooks)

    def _take(self, ex: Exchange, reply: Reply) -> None:
        """Make the reply the exchange's answer."""
        if ex.error is None:
            ex.error = Refused(code=reply.status)
        ex.status_line = b""
        ex.status, ex.response, ex.response_length = reply.status, reply_headers(reply), len(reply.body)

    def refuse(self, ex: Exchange, error: MeshError) -> None:
        """Answer a head that could not be read; it counts as a request of the server's scope."""
        ex.depth = SERVER
        ex.partial = self._server.log_ends
        self._outcomes.started += 1
        self.fail(ex, error)

    def expired(self, ex: Exchange, error: MeshError) -> None:
        """A limit for the whole request passed: free what it holds and tell the caller."""
        if not ex.responded and ex.depth:
            self._stop_waiting(ex)
            self.abandon(ex)
            # callers choose their deadlines: short ones must not make a healthy endpoint look dead
            ex.verdict = None if isinstance(error, DeadlineExceeded) else NON_RETRYABLE_FAILURE
            self.fail(ex, error)

    def caller_failed(self, ex: Exchange, error: MeshError) -> None:
        """The request became invalid while it was on its way."""
        self._stop_waiting(ex)
        self.abandon(ex)
        self.fail(ex, error)

    def caller_gone(self, ex: Exchange) -> None:
        """The caller vanished: cancel what is under way for it."""
        self._stop_waiting(ex)
        self.abandon(ex)
        if ex.error is None:
            ex.error = CallerGone()
        if not ex.responded:
            ex.status, ex.response_length = 0, UNKNOWN_LENGTH  # what stands there is of an answer before
        self.finish(ex)

    def finish(self, ex: Exchange) -> None:
        """The exchange is over, once: account for every level passed and run its end hooks, from inside out."""
        if ex.timer is not None:
            self._clear_timer(ex)
        if ex.deadline_timer is not None:
            ex.deadline_timer.cancel()
            ex.deadline_timer = None
        depth, ex.depth = ex.depth, 0
        if not depth:
            return
        if ex.upstream is not None:
            self.abandon(ex)
        route, partial = ex.route, ex.partial
        if route is not None:
            route.in_flight -= 1
        try:
            if ex.tally is not None and ex.error is None and not ex.attempts:
                self._end_ordinary(ex, route)
            else:
                self._end_levels(ex, depth)
        except Exception:  # noqa: BLE001 - balancers and breakers are plug-in code; theirs must not cost the connection
            self.end_defect(ex)
        if ex.recording is not None:
            self._hand_spans(ex)
        for hook in self._server.ends if partial is None or depth > SERVER else partial:
            try:
                hook(ex)
            except Exception:  # noqa: BLE001 - plug-in code again; the other hooks have something to give back
                self.end_defect(ex)
        if route is not None and route.is_oneshot and not route.in_flight:
            self._routes.drop(route)

    def _count_ended(self, ex: Exchange) -> None:
        """Count a request that is over for the server."""
        cell = self._outcomes.cell(ex.outcome)
        cell.sum += ex.micros
        cell.buckets[ex.bucket] += 1
        self._asked[ex.request_bytes] += 1
        if ex.response_length >= 0 and ex.status:
            self._answered[ex.response_length] += 1

    def _hand_spans(self, ex: Exchange) -> None:
        """Give the tracers what was recorded."""
        recording, ex.recording = ex.recording, None
        try:
            assert recording is not None
            recording.finish(ex)
        except Exception:  # noqa: BLE001 - as in record_end
            self.end_defect(ex)

    def _end_ordinary(self, ex: Exchange, route: Route) -> None:
        """One attempt, and an answer: counted for the server, and once for all other levels."""
        tally, ex.tally = ex.tally, None
        ex.ended = ended = self._clock()
        if ex.headed:
            ended = ex.headed
        ex.micros = micros = int((ended - ex.arrived) * 1e6)
        ex.bucket = bucket = bucket_of(micros)
        is_success = ex.verdict is SUCCESS
        ex.outcome = outcome = ex.status if is_success else -ex.status
        cell = tally.cells.get(outcome) or tally.cell(outcome)
        cell.sum += micros
        cell.buckets[bucket] += 1
        cell = self._cells.get(outcome) or self._outcomes.cell(outcome)
        cell.sum += micros
        cell.buckets[bucket] += 1
        self._asked[ex.request_bytes] += 1
        if ex.response_length >= 0:
            self._answered[ex.response_length] += 1
        bound, node = ex.bound, ex.node
        node.load -= 1
        client = bound.client
        if client.on_end is not None:
            client.on_end(node, ended - ex.arrived, not is_success)
        breaker = node.endpoint.breaker
        if breaker is not None and not (is_success and breaker.is_calm):
            node.endpoint.ended(ex)
        if bound.pipeline.ends:
            self.run_ends(ex, bound.pipeline.ends)
        if route.pipeline.ends:
            self.run_ends(ex, route.pipeline.ends)

    def _end_levels(self, ex: Exchange, depth: int) -> None:
        """Any end: the attempt under way, then the logical name's level, as far as they were reached."""
        self._count_apart(ex, attempted=depth >= BOUND)
        self.account(ex, since=ex.arrived)
        self._count_ended(ex)
        partial = ex.partial
        if depth >= BOUND:
            self.end_attempt(ex, depth, partial)
        if depth >= PATH:
            pipeline = ex.route.pipeline
            self.run_ends(ex, pipeline.ends if partial is None or depth > PATH else partial)
            if pipeline.stats is not None:
                pipeline.stats.on_end(ex)
