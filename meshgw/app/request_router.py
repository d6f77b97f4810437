"""A router of requests, whatever protocol they come in: its listeners, services, clients and connections, built from its configuration.

Source: linkerd-config spec 4. The stacks they are compiled from are in ``app.http_stacks``; protocols are in ``app.http`` and ``app.h2``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Set
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast
from typing import Protocol as TypingProtocol

import attrs
from twisted.application.service import IService

from meshgw.app.client import BoundClient, ClientMetrics
from meshgw.app.diagnostic import resolution
from meshgw.app.edge import Health, behind_proxy, record_for, walk_for
from meshgw.app.endpoint import Endpoint, MakePool
from meshgw.app.figures import RequestFigures
from meshgw.app.guards import guarded_identifier, guarded_interpreter
from meshgw.app.http_stacks import BOUND_STACK, PATH_STACK, SERVER_STACK, BoundLevel, PathLevel, ServerLevel, Shared, trace_setting
from meshgw.app.policy import ServicePolicy, is_replayable
from meshgw.app.race import Race
from meshgw.app.replies import ErrorReplies
from meshgw.app.router import Choice, RouterCaches
from meshgw.app.sockets import server_name
from meshgw.app.traffic import Traffic
from meshgw.app.walk import Walk
from meshgw.balance.nodes import Picker
from meshgw.balance.pickers import P2cLeastLoaded
from meshgw.client.pool import PoolLimits
from meshgw.config.access_format import AccessForm
from meshgw.config.requests import RequestRouterConfig, RequestServerConfig
from meshgw.config.retries import ConstantBackoff, RetryBudgetConfig
from meshgw.config.scoped import ClientParams, FaultsConfig, ServiceParams
from meshgw.config.values import Captures
from meshgw.core.address import Address
from meshgw.core.connecting import Dial
from meshgw.core.exchange import Exchange, Hold
from meshgw.core.secured import Secured
from meshgw.core.stack import Pipeline, Stack
from meshgw.core.stream import Stream
from meshgw.core.transport import Connection, Receiver, SocketOptions
from meshgw.filters.accrual import default_policy
from meshgw.filters.budget import build_budget, build_waits
from meshgw.filters.classify import CanReplay, HttpClassifier
from meshgw.filters.connect import ConnectGuard
from meshgw.filters.context import TAKEN, untrusted_fields
from meshgw.filters.faults import Faults
from meshgw.filters.limits import ConcurrencyLimit
from meshgw.filters.stats import AttemptStats, ServiceStats, Tally
from meshgw.identify.connect import ConnectNames
from meshgw.identify.request import RequestIdentifier, chain
from meshgw.kinds import Interpreter
from meshgw.naming.path import Path
from meshgw.server.listener import Accepted, Listener, ServerConnection
from meshgw.telemetry.access import AccessLog
from meshgw.telemetry.metrics import CLIENTS_LIMIT, SERVICES_LIMIT, Metrics
from meshgw.telemetry.streams import StreamStats

if TYPE_CHECKING:
    from meshgw.app.tls import ClientTlsBlocks, ListenerTls
    from meshgw.core.certificates import CertificateStore

KB = 1024
OTHER_LINES = 512
"""Bytes left for what stands beside ``l5d-err``: a Linkerd or meshgw before this one refuses longer heads by the same maxHeadersKB."""


class Served(ServerConnection, Receiver, TypingProtocol):
    """A connection that is being served, whatever it speaks."""

    @property
    def requests(self) -> int:
        """Requests begun on it."""
        ...

    @property
    def connection(self) -> Stream:
        """What it speaks over."""
        ...

    def secured(self, facts: Secured) -> None:
        """The TLS handshake is done."""
        ...


@attrs.frozen(kw_only=True)
class Front:
    """What a protocol needs to know of the listener that it serves: where requests go, its metrics, and whom to tell of ends.

    ``wanted`` are names of fields that somebody looks at, ``taken`` of those that this hop reads and writes itself; ``connects`` tells
    that CONNECT is known.
    """

    walk: Walk
    scope: Metrics
    wanted: tuple[bytes, ...]
    taken: Set[bytes]
    connects: bool
    closed: Callable[[Any], None]


@attrs.frozen
class Protocol:
    """What serves the connections of one listener; they are checked every ``check_seconds``."""

    serve: Callable[[Stream, tuple[str, int], tuple[str, int]], Served]
    check_seconds: float


class RequestRouter:
    """A router: bound sockets first, then accepting, then draining. Its subclasses give what a protocol makes different."""

    alpn: ClassVar[tuple[bytes, ...]]
    """The protocols that its TLS listeners agree to."""
    heeds_answers: ClassVar[bool] = True
    """Whether ``l5d-retryable`` in an answer counts where no classifier is configured."""
    server_stack: ClassVar[Stack] = SERVER_STACK
    bound_stack: ClassVar[Stack] = BOUND_STACK

    def __init__(self, config: RequestRouterConfig, label: str, interpreter: Interpreter, shared: Shared, metrics: Metrics) -> None:
        self.config, self.label, self.interpreter = config, label, interpreter
        self._shared, self._metrics = shared, metrics
        self._setting = trace_setting(config, label, shared)
        self.caches = RouterCaches(
            label=label,
            dtab=config.dtab,
            interpreter=guarded_interpreter(config, interpreter),
            parts=self,
            limits=config.binding_cache,
            metrics=metrics,
            wheel=shared.wheel,
            clock=shared.clock,
        )
        # callers choose the names of services, and by their local dtabs what clients there are
        self._service_scope = metrics.bounded("service", limit=SERVICES_LIMIT)
        self._client_scope = metrics.bounded("client", limit=CLIENTS_LIMIT)
        self._services: dict[Path, _Service] = {}
        self._log = log = self._access_log()
        if log is not None:
            metrics.follow("access_log", "lost", function=lambda: log.lost)
        self._replies = self._error_replies()
        self.identifiers = self._build_identifiers()
        self.identifier = chain(self.identifiers)
        self._identifier_services = [cast("Any", one) for one in self.identifiers if IService.providedBy(one)]
        self.listeners: list[Listener] = []
        self._health = Health()
        self._roles: dict[str, list[str]] = {}
        self.is_listening = False
        """Whether it accepts connections on all of its servers."""
        self._sockets: list[socket.socket] = []
        self._tls: list[ListenerTls | None] = []
        self._client_tls: dict[tuple[bytes, ...], ClientTlsBlocks] = {}
        if config.originator:
            metrics.gauge("originator", function=lambda: 1.0, most=True)
        if config.role is not None:
            metrics.gauge("role", config.role, function=lambda: 1.0, most=True)
        self._guarded = guarded_identifier(config, clock=shared.clock, metrics=metrics, label=label)

    # --- what a protocol gives

    def _access_log(self) -> AccessLog | None:
        """The access log, if the configuration has one."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _error_replies(self) -> ErrorReplies:
        """How errors are worded."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _can_replay(self, params: ServiceParams, metrics: Metrics) -> CanReplay:
        """Whether a request to a service of these parameters can be sent again as it was. ``metrics`` is the service's scope."""
        return is_replayable

    def _hold(self, params: ServiceParams, metrics: Metrics) -> Hold | None:
        """How long and how much of an answer may wait for its end where that decides about a retry."""
        return None

    def _streams(self, metrics: Metrics) -> StreamStats | None:
        """What counts the streams of a service, whose scope ``metrics`` is, where requests come as such."""
        return None

    def _protocol(self, server: RequestServerConfig, front: Front) -> Protocol:
        """What serves the connections of one listener."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _pool_maker(self, params: ClientParams, captured: Captures, client: Metrics) -> MakePool:
        """What makes the pools of one client. ``captured`` is what the prefix of its TLS stands for, ``client`` its scope."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _tunnel_maker(self, params: ClientParams, captured: Captures, client: Metrics) -> MakePool | None:
        """What makes the pools of one client for tunnels; None where there are none."""
        return None

    def _dial(self, params: ClientParams, captured: Captures, metrics: Metrics, alpn: tuple[bytes, ...]) -> Dial | None:
        """How the endpoints of one client are connected to, offering ``alpn``; None without TLS."""
        return None if params.tls is None else self._tls_blocks(alpn).dial(params.tls, captured, metrics)

    def _build_identifiers(self) -> list[RequestIdentifier]:
        runtime = attrs.evolve(self._shared.runtime, metrics=self._metrics)
        return [chosen.kind.build(chosen.config, runtime, prefix=self.config.dst_prefix) for chosen in self.config.identifier]

    # --- life cycle

    def listen(self, take: Callable[[str], socket.socket]) -> None:
        """Get the bound sockets of all servers; ``take`` gives the one of a name (``app.sockets.server_name``).

        Certificates are read here too, which may need the rights that the process has before it serves. Raises
        :class:`meshgw.core.tls.TlsConfigError`.
        """
        self._sockets = [take(server_name(self.label, index)) for index in range(len(self.config.servers))]
        self._tls = [self._listener_tls(server, sock) for server, sock in zip(self.config.servers, self._sockets, strict=True)]

    def _listener_tls(self, server: RequestServerConfig, sock: socket.socket) -> ListenerTls | None:
        if server.tls is None:
            return None
        from meshgw.app.tls import ListenerTls  # some megabytes that a gateway without TLS need not have

        host, port = sock.getsockname()[:2]
        shared = self._shared
        tls = ListenerTls(server.tls, reactor=shared.runtime.reactor, clock=shared.clock, address=f"{host} port {port}", alpn=self.alpn)
        tls.load()
        if tls.wants_ingress:
            for identifier in self.identifiers:
                serve: Callable[[CertificateStore], None] | None = getattr(identifier, "serve_certificates", None)
                if serve is not None:
                    serve(tls.store)
        return tls

    def start(self) -> None:
        """Begin to accept on the bound sockets."""
        if self._log is not None:
            self._log.start()
        self.caches.start()
        for service in self._identifier_services:
            service.startService()
        for server, sock, tls in zip(self.config.servers, self._sockets, self._tls, strict=True):
            if tls is not None:
                tls.start()
            listener = self._listener(server, sock, tls)
            self.listeners.append(listener)
            listener.start()
        self.is_listening = True

    def stop_accepting(self, *, close_idle: bool = True) -> None:
        """Close the listening sockets; open connections finish what they have under way.

        With ``close_idle`` false, those without a request wait for one more, so that none is sent into a closing connection.
        """
        self.is_listening = False
        self._health.is_draining = close_idle  # else others serve on the same sockets, and load balancers are to go on asking them
        for listener in self.listeners:
            listener.stop(close_idle=close_idle)
        if not self.listeners:
            for sock in self._sockets:
                sock.close()

    def certificates(self) -> dict[str, datetime]:
        """Until when the certificates of its listeners are valid, by where they come from."""
        stores = [tls.store for tls in self._tls if tls is not None]
        return {pair.origin: pair.not_after for store in stores for pair in store.pairs}

    def describe_servers(self) -> dict[str, list[str]]:
        """The roles of the filters of each listener, from outside to inside."""
        return dict(self._roles)

    @property
    def connections(self) -> int:
        """Connections of callers that are still open."""
        return sum(listener.connections for listener in self.listeners)

    def close_idle(self) -> None:
        """Close the connections that have nothing under way."""
        for listener in self.listeners:
            listener.drain()

    def abort(self) -> None:
        """Close what did not finish in time."""
        for listener in self.listeners:
            listener.abort()

    def stop(self) -> None:
        """Release names, clients and the access log."""
        for service in self._identifier_services:
            service.stopService()
        self.caches.stop()
        for blocks in self._client_tls.values():
            blocks.stop()
        for tls in self._tls:
            if tls is not None:
                tls.stop()
        if self._log is not None:
            self._log.stop()

    def _tls_blocks(self, alpn: tuple[bytes, ...]) -> ClientTlsBlocks:
        """What TLS to services that may speak ``alpn`` is made with, from the first time it is needed."""
        blocks = self._client_tls.get(alpn)
        if blocks is None:
            from meshgw.app.tls import ClientTlsBlocks  # see _listener_tls

            shared = self._shared
            blocks = self._client_tls[alpn] = ClientTlsBlocks(shared.poller, shared.wheel, shared.runtime.reactor, alpn)
        return blocks

    # --- listeners

    def _listener(self, server: RequestServerConfig, sock: socket.socket, tls: ListenerTls | None = None) -> Listener:
        shared, config = self._shared, self.config
        address = sock.getsockname()
        scope = self._metrics.scope("server", f"{address[0]}/{address[1]}")
        outcomes, figures = scope.outcomes(), RequestFigures(scope)
        scope.gauge("load", function=lambda: float(outcomes.pending))  # what dashboards of older versions read for `pending`
        limit = _concurrency_limit(server.max_concurrent_requests, scope)
        guard = self._connect_guard(server, scope)
        record = record_for(self._log, shared.now, AccessForm.read(config.access_format), server.trusted_forwarders, router=self.label)
        pipeline = self.server_stack.compile(
            ServerLevel(
                config=server,
                stats=outcomes,
                record=record,
                limit=limit,
                setting=self._setting,
                shared=shared,
                figures=figures,
                connect=guard,
            )
        )
        self._roles[f"{address[0]}/{address[1]}"] = [role.value for role in pipeline.roles]
        walk = walk_for(server.health_path, self._health, scope)(
            server=pipeline,
            identifier=self._guarded(self.identifier if guard is None else ConnectNames(self.identifier, config.dst_prefix)),
            cache=self.caches.routes,
            routes=self.caches,
            replies=self._replies,
            wheel=shared.wheel,
            clock=shared.clock,
            random=shared.runtime.random.random,
            binding_timeout=config.binding_timeout_ms / 1000,
            outcomes=outcomes,
            figures=figures,
        )
        traffic = Traffic(scope, shared.clock)
        if tls is not None:
            tls.count(scope)

        def closed(connection: Served) -> None:
            traffic.closed(connection.connection, connection.requests)
            listener.closed(connection)

        wanted = (*self.identifier.header_names, *(record.wanted if record is not None else ()))
        propagator = self._setting.propagator
        taken = TAKEN | (untrusted_fields(propagator) if server.clear_context else propagator.fields)
        front = Front(walk=walk, scope=scope, wanted=wanted, taken=taken, connects=guard is not None, closed=closed)
        protocol = self._protocol(server, front)

        def accepted(sock: socket.socket, peer: tuple[str, int], local: tuple[str, int]) -> ServerConnection:
            raw = Connection(sock, shared.poller, shared.wheel)
            if tls is None:
                raw.receiver = served = protocol.serve(raw, peer, local)
            else:
                secure = tls.secure(raw, shared.wheel, peer, lambda facts: served.secured(facts))
                secure.receiver = served = protocol.serve(secure, peer, local)
            traffic.opened(served.connection)
            return served

        serve: Accepted = accepted
        if server.proxy_protocol is not None:
            at = f"{address[0]} port {address[1]}"
            serve = behind_proxy(server.proxy_protocol, accepted, shared=shared, metrics=scope, address=at, listener=lambda: listener)
        options = server.socket_options
        sockets = SocketOptions(no_delay=options.no_delay, keep_alive=options.keep_alive is not False)
        listener = Listener(
            sock,
            poller=shared.poller,
            wheel=shared.wheel,
            accepted=serve,
            options=sockets,
            check_seconds=protocol.check_seconds,
            shares=shared.shares,
            call_later=shared.runtime.reactor.callLater,
        )
        return listener

    def _connect_guard(self, server: RequestServerConfig, scope: Metrics) -> ConnectGuard | None:
        """What lets tunnels of CONNECT through, where the protocol has them."""
        return None

    # --- what the caches build from (app.router.Parts)

    def policy(self, name: Path) -> ServicePolicy:
        """See :class:`meshgw.app.router.Parts`."""
        return self._service(name).policy

    def path_pipeline(self, name: Path) -> Pipeline:
        """See :class:`meshgw.app.router.Parts`."""
        return self._service(name).pipeline

    def _service(self, name: Path) -> _Service:
        service = self._services.get(name)
        if service is None:
            service = self._services[name] = self._build_service(name)
        return service

    def _build_service(self, name: Path) -> _Service:
        shared, runtime = self._shared, self._shared.runtime
        params, _ = self.config.service.for_name(name)
        metrics = self._service_scope.scope(name.show()[1:])
        chosen, can_replay, hold = params.response_classifier, self._can_replay(params, metrics), self._hold(params, metrics)
        if chosen is None:
            classifier = HttpClassifier(can_replay=can_replay, heeds_answer=self.heeds_answers)
        else:
            classifier = chosen.kind.build(chosen.config, runtime, can_replay=can_replay)
        budget = build_budget(params.retries.budget or RetryBudgetConfig(), shared.clock)
        waits = build_waits(params.retries.backoff or ConstantBackoff(), runtime.random)
        policy = ServicePolicy(
            classifier.classify,
            budget,
            waits,
            metrics,
            can_replay=can_replay,
            sure_below=getattr(classifier, "sure_below", 0),
            conclude=getattr(classifier, "conclude", None),
            hold=hold if getattr(classifier, "awaits_end", False) else None,
            streams=self._streams(metrics),
        )
        stats = ServiceStats(metrics.outcomes(status=False), policy.budget, policy.per_request)
        faults = None if params.faults is None else self._faults(params.faults, metrics)
        path = PathLevel(
            stats=stats,
            total_timeout=seconds_of(params.total_timeout_ms),
            faults=faults,
            may_conclude=policy.conclude is not None,
            shared=shared,
        )
        return _Service(policy=policy, pipeline=PATH_STACK.compile(path), stats=stats)

    def _faults(self, config: FaultsConfig, metrics: Metrics) -> Faults:
        delay, abort = config.delay, config.abort
        return Faults(
            delay_share=delay.percent / 100 if delay is not None else 0.0,
            delay=delay.ms / 1000 if delay is not None else 0.0,
            abort_share=abort.percent / 100 if abort is not None else 0.0,
            status=abort.status if abort is not None else 0,
            by_header=config.header,
            random=self._shared.runtime.random.random,
            wheel=self._shared.wheel,
            stats=FaultCounters(metrics),
        )

    def forget_path(self, name: Path) -> None:
        """See :class:`meshgw.app.router.Parts`."""
        if self._services.pop(name, None) is not None:
            shown = name.show()[1:]
            self._service_scope.remove(shown)
            for client in self.caches.clients():  # callers choose names: what is kept of each must go with it
                client.metrics.remove("service", shown)

    def choice(self, name: Path, client: BoundClient, residual: Path, dtab_size: int) -> Choice:
        """See :class:`meshgw.app.router.Parts`."""
        through = client.metrics.outcomes("service", name.show()[1:], status=False)
        stats = AttemptStats(
            client.outcomes,
            through,
            client.budget,
            per_request=client.stats.requeues_per_request,
            acquisition=client.stats.acquisition,
            dtab_sizes=client.stats.dtab_sizes,
            dtab_size=dtab_size,
        )
        params, _ = self.config.client.for_name(client.id)
        timeout = seconds_of(params.request_attempt_timeout_ms)
        level = BoundLevel(
            name=name,
            client=client,
            residual=residual,
            stats=stats,
            attempt_timeout=timeout,
            strips_context=params.strip_context,
            resolution=partial(resolution, self.caches),
            setting=self._setting,
            shared=self._shared,
        )
        tally = Tally(self._service(name).stats, stats)
        self._metrics.settle_first(tally)
        return Choice(client, self.bound_stack.compile(level), stats, tally)

    def client(self, id: Path, resume: Callable[[list[Exchange]], None]) -> BoundClient:
        """See :class:`meshgw.app.router.Parts`."""
        shared, runtime = self._shared, self._shared.runtime
        params, captured = self.config.client.for_name(id)
        metrics = self._client_scope.scope(id.show()[1:])
        variables = captured.get("tls", {})
        chosen = params.load_balancer
        picker: Picker = P2cLeastLoaded(runtime.random.random) if chosen is None else chosen.kind.build(chosen.config, runtime)
        accrual = params.failure_accrual
        make_policy = default_policy(runtime.random) if accrual is None else accrual.kind.build(accrual.config, runtime)
        make_pool, make_tunnels = self._pool_maker(params, variables, metrics), self._tunnel_maker(params, variables, metrics)
        race = Race(shared.wheel)

        def make_endpoint(address: Address, stats: ClientMetrics) -> Endpoint:
            return Endpoint(
                address,
                make_pool=make_pool,
                make_tunnels=make_tunnels,
                race=race,
                policy=None if make_policy is None else make_policy(),
                fail_fast=params.fail_fast,
                stats=stats,
                wheel=shared.wheel,
                clock=shared.clock,
            )

        client = BoundClient(
            id,
            picker=picker,
            make_endpoint=make_endpoint,
            requeue_budget=build_budget(params.requeue_budget, shared.clock),
            metrics=metrics,
            clock=shared.clock,
            resume=resume,
            fail_fast=params.fail_fast,
        )
        race.nodes = client.nodes
        return client


@attrs.frozen(kw_only=True)
class _Service:
    """What is kept of a logical name while it has routes."""

    policy: ServicePolicy
    pipeline: Pipeline
    stats: ServiceStats


class FaultCounters:
    """Counts injected faults of one service."""

    def __init__(self, metrics: Metrics) -> None:
        """``metrics`` is the service's scope."""
        self._delays, self._aborts = metrics.counter("faults", "delays"), metrics.counter("faults", "aborts")

    def delayed(self) -> None:
        """See :class:`meshgw.filters.faults.FaultStats`."""
        self._delays.incr()

    def aborted(self) -> None:
        """See :class:`meshgw.filters.faults.FaultStats`."""
        self._aborts.incr()


def _concurrency_limit(most: int | None, scope: Metrics) -> ConcurrencyLimit | None:
    """The limit of a listener, if it has one; ``scope`` is the listener's."""
    if most is None:
        return None
    limit = ConcurrencyLimit(most)
    scope.gauge("request_concurrency", function=lambda: float(limit.current))
    scope.gauge("request_queue_size", function=lambda: 0.0)  # what exceeds the limit is rejected, not queued
    scope.follow("request_rejections", function=lambda: limit.rejected)
    return limit


def seconds_of(milliseconds: int | None) -> float | None:
    """Seconds of an option in milliseconds; 0 or less is no limit (spec 4.7)."""
    return milliseconds / 1000 if milliseconds is not None and milliseconds > 0 else None


def limits_of(params: ClientParams) -> PoolLimits:
    """The limits of the pools of one client."""
    pool, session = params.host_connection_pool, params.client_session
    return PoolLimits(
        min_size=pool.min_size,
        max_size=pool.max_size,
        idle_time=seconds_of(pool.idle_time_ms),
        session_idle=seconds_of(session.idle_time_ms),
        session_life=seconds_of(session.life_time_ms),
        max_waiters=pool.max_waiters,
        connect_timeout=params.connect_timeout_ms / 1000,
    )
