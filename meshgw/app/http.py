"""The protocol kind ``http``: a router's listeners, services, clients and connections, built from its configuration.

Source: linkerd-config spec 4 and 5. The stacks they are compiled from are in ``app.http_stacks``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import attrs
from twisted.application.service import IService

from meshgw.app.client import BoundClient, ClientMetrics
from meshgw.app.edge import Health, behind_proxy, pool_for, record_for, walk_for
from meshgw.app.endpoint import Endpoint
from meshgw.app.guards import guarded_identifier, guarded_interpreter
from meshgw.app.http_stacks import BOUND_STACK, PATH_STACK, SERVER_STACK, BoundLevel, PathLevel, ServerLevel, Shared
from meshgw.app.policy import ServicePolicy, can_replay
from meshgw.app.race import Race
from meshgw.app.replies import ErrorReplies
from meshgw.app.router import Choice, RouterCaches
from meshgw.app.sockets import server_name
from meshgw.app.traffic import Traffic
from meshgw.app.tunnels import TunnelCounters, connect_guard, tunnel_pool
from meshgw.app.walk import NACK
from meshgw.balance.nodes import Picker
from meshgw.balance.pickers import P2cLeastLoaded
from meshgw.client.caller_pools import CallerPools
from meshgw.client.http import ClientParameters
from meshgw.client.pool import Pool, PoolLimits, PoolStats
from meshgw.config.http import (
    HttpRouterConfig,
    HttpServerConfig,
)
from meshgw.config.retries import ConstantBackoff, RetryBudgetConfig
from meshgw.config.scoped import ClientParams, FaultsConfig
from meshgw.core.address import Address
from meshgw.core.exchange import Exchange
from meshgw.core.stack import Pipeline
from meshgw.core.transport import Connection, SocketOptions
from meshgw.filters.access import WANTED
from meshgw.filters.accrual import default_policy
from meshgw.filters.budget import build_budget, build_waits
from meshgw.filters.classify import HttpClassifier
from meshgw.filters.context import TAKEN
from meshgw.filters.faults import Faults
from meshgw.filters.identity import CLIENT_ID
from meshgw.filters.limits import ConcurrencyLimit
from meshgw.filters.stats import AttemptStats, ServiceStats, Tally
from meshgw.identify.connect import ConnectNames
from meshgw.identify.request import RequestIdentifier, chain
from meshgw.kinds import Interpreter, Kind, Runtime
from meshgw.naming.path import Path
from meshgw.server.http import HttpServer
from meshgw.server.listener import Accepted, Listener, ServerConnection
from meshgw.server.parameters import HttpParameters
from meshgw.telemetry.access import AccessLog
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.rolling import RollPolicy
from meshgw.wire.headers import FieldTable
from meshgw.wire.http1 import ResponseTable

if TYPE_CHECKING:
    from meshgw.app.tls import ClientTlsBlocks, ListenerTls
    from meshgw.core.certificates import CertificateStore

ALPN = (b"http/1.1",)
KB = 1024
OTHER_LINES = 512
"""Bytes left for what stands beside ``l5d-err``: a Linkerd or meshgw before this one refuses longer heads by the same maxHeadersKB."""
REPLAY_KB = 5
"""Kilobytes of a request's body kept for retries: streamAfterContentLengthKB, below which Linkerd buffers (spec 5.1)."""


class HttpRouter:
    """A router of protocol ``http``: bound sockets first, then accepting, then draining."""

    def __init__(self, config: HttpRouterConfig, label: str, interpreter: Interpreter, shared: Shared, metrics: Metrics) -> None:
        self.config, self.label, self.interpreter = config, label, interpreter
        self._shared, self._metrics = shared, metrics
        self._response_table = ResponseTable(wanted=(NACK,), taken=(b"via", b"l5d-success-class", CLIENT_ID))
        self._client_parameters = ClientParameters(
            table=self._response_table,
            max_headers=config.max_headers_kb * KB,
            max_body=None if config.max_response_kb is None else config.max_response_kb * KB,
        )
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
        self._services: dict[Path, _Service] = {}
        self._log: AccessLog | None = None
        if config.http_access_log is not None:
            self._log = AccessLog(
                config.http_access_log,
                roll=RollPolicy.read(config.http_access_log_roll_policy),
                append=config.http_access_log_append or not shared.is_first,
                rotate_count=config.http_access_log_rotate_count,
                clock=shared.now,
            )
        self._replies = ErrorReplies(max_header=config.max_headers_kb * KB - OTHER_LINES, max_body=config.max_err_response_kb * KB)
        self.identifiers = self._build_identifiers()
        self.identifier = chain(self.identifiers)
        self._identifier_services = [cast("Any", one) for one in self.identifiers if IService.providedBy(one)]
        self.listeners: list[Listener] = []
        self._connects = any(server.connect is not None for server in config.servers)
        self._health = Health()
        self._sockets: list[socket.socket] = []
        self._tls: list[ListenerTls | None] = []
        self._client_tls: ClientTlsBlocks | None = None
        if config.originator:
            metrics.gauge("originator", function=lambda: 1.0)
        if config.role is not None:
            metrics.gauge("role", config.role, function=lambda: 1.0, most=True)
        self._guarded = guarded_identifier(config, clock=shared.clock, metrics=metrics, label=label)

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

    def _listener_tls(self, server: HttpServerConfig, sock: socket.socket) -> ListenerTls | None:
        if server.tls is None:
            return None
        from meshgw.app.tls import ListenerTls  # some megabytes that a gateway without TLS need not have

        host, port = sock.getsockname()[:2]
        shared = self._shared
        tls = ListenerTls(server.tls, reactor=shared.runtime.reactor, clock=shared.clock, address=f"{host} port {port}", alpn=ALPN)
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

    def stop_accepting(self, *, close_idle: bool = True) -> None:
        """Close the listening sockets; open connections finish what they have under way.

        With ``close_idle`` false, those without a request wait for one more, so that none is sent into a closing connection.
        """
        self._health.is_draining = close_idle  # else others serve on the same sockets, and load balancers are to go on asking them
        for listener in self.listeners:
            listener.stop(close_idle=close_idle)
        if not self.listeners:
            for sock in self._sockets:
                sock.close()

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
        if self._client_tls is not None:
            self._client_tls.stop()
        for tls in self._tls:
            if tls is not None:
                tls.stop()
        if self._log is not None:
            self._log.stop()

    def _tls_blocks(self) -> ClientTlsBlocks:
        """What TLS to services is made with, from the first time it is needed."""
        if self._client_tls is None:
            from meshgw.app.tls import ClientTlsBlocks  # see _listener_tls

            shared = self._shared
            self._client_tls = ClientTlsBlocks(shared.poller, shared.wheel, shared.runtime.reactor, ALPN)
        return self._client_tls

    # --- listeners

    def _listener(self, server: HttpServerConfig, sock: socket.socket, tls: ListenerTls | None = None) -> Listener:
        shared, config = self._shared, self.config
        address = sock.getsockname()
        scope = self._metrics.scope("server", f"{address[0]}/{address[1]}")
        outcomes = scope.outcomes()
        limit = None
        if server.max_concurrent_requests is not None:
            limit = ConcurrencyLimit(server.max_concurrent_requests)
            scope.gauge("request_concurrency", function=lambda: float(limit.current))
            scope.gauge("request_queue_size", function=lambda: 0.0)  # what exceeds the limit is rejected, not queued
            scope.follow("request_rejections", function=lambda: limit.rejected)
        guard = connect_guard(server, scope)
        record = record_for(self._log, shared.now, server.trusted_forwarders)
        pipeline = SERVER_STACK.compile(
            ServerLevel(config=server, stats=outcomes, record=record, limit=limit, label=self.label, shared=shared, connect=guard)
        )
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
        )
        traffic = Traffic(scope, shared.clock)
        if tls is not None:
            tls.count(scope)

        def closed(connection: HttpServer) -> None:
            traffic.closed(connection.connection, connection.requests)
            listener.closed(connection)

        parameters = HttpParameters(
            walk=walk,
            table=FieldTable(
                wanted=(*self.identifier.header_names, *(WANTED if record is not None else ())), taken=TAKEN, connects=guard is not None
            ),
            wheel=shared.wheel,
            clock=shared.clock,
            max_line=config.max_initial_line_kb * KB,
            max_headers=config.max_headers_kb * KB,
            max_body=None if config.max_request_kb is None else config.max_request_kb * KB,
            replay=(REPLAY_KB if config.stream_after_content_length_kb is None else config.stream_after_content_length_kb) * KB,
            idle=_seconds(server.server_session.idle_time_ms),
            life=_seconds(server.server_session.life_time_ms),
            head=server.head_timeout_ms / 1000,
            body=server.body_timeout_ms / 1000,
            tunnel_idle=server.tunnel_idle_ms / 1000,
            tunnels=TunnelCounters(scope),
            on_idle=scope.counter("idle").incr,
            on_life=scope.counter("lifetime").incr,
            on_closed=closed,
        )

        def accepted(sock: socket.socket, peer: tuple[str, int], local: tuple[str, int]) -> ServerConnection:
            raw = Connection(sock, shared.poller, shared.wheel)
            if tls is None:
                raw.receiver = served = HttpServer(raw, parameters, peer, local)
            else:
                secure = tls.secure(raw, shared.wheel, peer, lambda facts: served.secured(facts))
                secure.receiver = served = HttpServer(secure, parameters, peer, local)
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
            check_seconds=parameters.check,
            shares=shared.shares,
            call_later=shared.runtime.reactor.callLater,
        )
        return listener

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
        metrics = self._metrics.scope("service", name.show()[1:])
        chosen = params.response_classifier
        if chosen is None:
            classifier: Any = HttpClassifier(can_replay=can_replay)
        else:
            classifier = chosen.kind.build(chosen.config, runtime, can_replay=can_replay)
        budget = build_budget(params.retries.budget or RetryBudgetConfig(), shared.clock)
        waits = build_waits(params.retries.backoff or ConstantBackoff(), runtime.random)
        policy = ServicePolicy(classifier.classify, budget, waits, metrics, sure_below=getattr(classifier, "sure_below", 0))
        stats = ServiceStats(metrics.outcomes(status=False), policy.budget, policy.per_request)
        faults = None if params.faults is None else self._faults(params.faults, metrics)
        path = PathLevel(stats=stats, total_timeout=_seconds(params.total_timeout_ms), faults=faults, shared=shared)
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
            self._metrics.remove("service", shown)
            for client in self.caches.clients():  # callers choose names: what is kept of each must go with it
                client.metrics.remove("service", shown)

    def choice(self, name: Path, client: BoundClient, residual: Path) -> Choice:
        """See :class:`meshgw.app.router.Parts`."""
        through = client.metrics.outcomes("service", name.show()[1:], status=False)
        stats = AttemptStats(client.outcomes, through, client.budget, client.stats.requeues_per_request)
        params, _ = self.config.client.for_name(client.id)
        timeout = _seconds(params.request_attempt_timeout_ms)
        level = BoundLevel(
            name=name,
            client=client,
            residual=residual,
            stats=stats,
            attempt_timeout=timeout,
            strips_context=params.strip_context,
            shared=self._shared,
        )
        tally = Tally(self._service(name).stats, stats)
        self._metrics.settle_first(tally)
        return Choice(client, BOUND_STACK.compile(level), stats, tally)

    def client(self, id: Path, resume: Callable[[list[Exchange]], None]) -> BoundClient:
        """See :class:`meshgw.app.router.Parts`."""
        shared, runtime = self._shared, self._shared.runtime
        params, captured = self.config.client.for_name(id)
        metrics = self._metrics.scope("client", id.show()[1:])
        dial = None if params.tls is None else self._tls_blocks().dial(params.tls, captured.get("tls", {}), metrics)
        chosen = params.load_balancer
        picker: Picker = P2cLeastLoaded(runtime.random.random) if chosen is None else chosen.kind.build(chosen.config, runtime)
        accrual = params.failure_accrual
        make_policy = default_policy(runtime.random) if accrual is None else accrual.kind.build(accrual.config, runtime)
        limits = _limits(params)

        def make_pool(address: Address, stats: PoolStats) -> Pool | CallerPools:
            parameters = self._client_parameters
            return pool_for(params.proxy_protocol, address, limits=limits, stats=stats, parameters=parameters, shared=shared, dial=dial)

        def make_tunnels(address: Address, stats: PoolStats) -> Pool | CallerPools:
            own = tunnel_pool(params.tunnels, limits, dial)
            return pool_for(params.proxy_protocol, address, stats=stats, parameters=self._client_parameters, shared=shared, **own)

        race = Race(shared.wheel)

        def make_endpoint(address: Address, stats: ClientMetrics) -> Endpoint:
            return Endpoint(
                address,
                make_pool=make_pool,
                make_tunnels=make_tunnels if self._connects else None,
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


def _seconds(milliseconds: int | None) -> float | None:
    """Seconds of an option in milliseconds; 0 or less is no limit (spec 4.7)."""
    return milliseconds / 1000 if milliseconds is not None and milliseconds > 0 else None


def _limits(params: ClientParams) -> PoolLimits:
    pool, session = params.host_connection_pool, params.client_session
    return PoolLimits(
        min_size=pool.min_size,
        max_size=pool.max_size,
        idle_time=_seconds(pool.idle_time_ms),
        session_idle=_seconds(session.idle_time_ms),
        session_life=_seconds(session.life_time_ms),
        max_waiters=pool.max_waiters,
        connect_timeout=params.connect_timeout_ms / 1000,
    )


def build_http(
    config: HttpRouterConfig, runtime: Runtime, *, label: str, interpreter: Interpreter, shared: Shared, metrics: Metrics
) -> Any:
    """The router; nothing is bound or started yet. ``metrics`` is its scope ``rt/<label>``."""
    return HttpRouter(config, label, interpreter, shared, metrics)


KIND = Kind(id="http", config=HttpRouterConfig, build=build_http)
