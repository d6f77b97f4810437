"""The protocol kind ``http``: a router's listeners, services, clients and connections, built from its configuration.

Source: linkerd-config spec 4 and 5. The stacks they are compiled from are in ``app.http_stacks``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import attrs

from meshgw.app.client import BoundClient, ClientMetrics
from meshgw.app.endpoint import Endpoint
from meshgw.app.http_stacks import BOUND_STACK, PATH_STACK, SERVER_STACK, BoundLevel, PathLevel, ServerLevel, Shared
from meshgw.app.policy import ServicePolicy, can_replay
from meshgw.app.replies import ErrorReplies
from meshgw.app.router import Choice, RouterCaches
from meshgw.app.traffic import Traffic
from meshgw.app.walk import NACK, Walk
from meshgw.balance.nodes import Picker
from meshgw.balance.pickers import P2cLeastLoaded
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
from meshgw.filters.access import AccessRecord
from meshgw.filters.accrual import default_policy
from meshgw.filters.budget import build_budget, build_waits
from meshgw.filters.classify import HttpClassifier
from meshgw.filters.context import TAKEN
from meshgw.filters.faults import Faults
from meshgw.filters.limits import ConcurrencyLimit
from meshgw.filters.stats import AttemptStats, ServerStats, ServiceStats
from meshgw.identify.request import RequestIdentifier, chain
from meshgw.kinds import Interpreter, Kind, Runtime
from meshgw.naming.path import Path
from meshgw.server.http import HttpServer
from meshgw.server.listener import BACKLOG, Listener, ServerConnection, bind_socket
from meshgw.server.parameters import HttpParameters
from meshgw.telemetry.access import AccessLog
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.rolling import RollPolicy
from meshgw.wire.headers import FieldTable
from meshgw.wire.http1 import ResponseTable

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
        self._response_table = ResponseTable(wanted=(NACK,), taken=(b"via", b"l5d-success-class"))
        self._client_parameters = ClientParameters(
            table=self._response_table,
            max_headers=config.max_headers_kb * KB,
            max_body=None if config.max_response_kb is None else config.max_response_kb * KB,
        )
        self.caches = RouterCaches(
            label=label,
            dtab=config.dtab,
            interpreter=interpreter,
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
                append=config.http_access_log_append,
                rotate_count=config.http_access_log_rotate_count,
                clock=shared.now,
            )
        self._replies = ErrorReplies(max_header=config.max_headers_kb * KB - OTHER_LINES, max_body=config.max_err_response_kb * KB)
        self.identifier = self._build_identifier()
        self.listeners: list[Listener] = []
        self._sockets: list[socket.socket] = []
        if config.originator:
            metrics.gauge("originator", function=lambda: 1.0)

    def _build_identifier(self) -> RequestIdentifier:
        runtime = self._shared.runtime
        return chain([chosen.kind.build(chosen.config, runtime, prefix=self.config.dst_prefix) for chosen in self.config.identifier])

    # --- life cycle

    def listen(self) -> None:
        """Bind the sockets of all servers. Raises OSError naming the address."""
        for server in self.config.servers:
            options = server.socket_options
            self._sockets.append(
                bind_socket(
                    server.ip,
                    server.port,
                    backlog=options.backlog or BACKLOG,
                    reuse_port=options.reuse_port,
                    reuse_address=options.reuse_addr,
                )
            )

    def start(self) -> None:
        """Begin to accept on the bound sockets."""
        if self._log is not None:
            self._log.start()
        self.caches.start()
        for server, sock in zip(self.config.servers, self._sockets, strict=True):
            listener = self._listener(server, sock)
            self.listeners.append(listener)
            listener.start()

    def stop_accepting(self) -> None:
        """Close the listening sockets; open connections finish what they have under way."""
        for listener in self.listeners:
            listener.stop()
        if not self.listeners:
            for sock in self._sockets:
                sock.close()

    @property
    def connections(self) -> int:
        """Connections of callers that are still open."""
        return sum(listener.connections for listener in self.listeners)

    def abort(self) -> None:
        """Close what did not finish in time."""
        for listener in self.listeners:
            listener.abort()

    def stop(self) -> None:
        """Release names, clients and the access log."""
        self.caches.stop()
        if self._log is not None:
            self._log.stop()

    # --- listeners

    def _listener(self, server: HttpServerConfig, sock: socket.socket) -> Listener:
        shared, config = self._shared, self.config
        address = sock.getsockname()
        scope = self._metrics.scope("server", f"{address[0]}/{address[1]}")
        stats = ServerStats(scope.outcomes())
        limit = None
        if server.max_concurrent_requests is not None:
            limit = ConcurrencyLimit(server.max_concurrent_requests)
            scope.gauge("request_concurrency", function=lambda: float(limit.current))
            scope.gauge("request_queue_size", function=lambda: 0.0)  # what exceeds the limit is rejected, not queued
            scope.follow("request_rejections", function=lambda: limit.rejected)
        record = None if self._log is None else AccessRecord(self._log, shared.now)
        pipeline = SERVER_STACK.compile(
            ServerLevel(config=server, stats=stats, record=record, limit=limit, label=self.label, shared=shared)
        )
        walk = Walk(
            server=pipeline,
            identifier=self.identifier,
            cache=self.caches.routes,
            routes=self.caches,
            replies=self._replies,
            wheel=shared.wheel,
            clock=shared.clock,
            random=shared.runtime.random.random,
            binding_timeout=config.binding_timeout_ms / 1000,
            begin_stats=stats.on_request,
        )
        traffic = Traffic(scope, shared.clock)

        def closed(connection: HttpServer) -> None:
            traffic.closed(connection.connection, connection.requests)
            listener.closed(connection)

        parameters = HttpParameters(
            walk=walk,
            table=FieldTable(wanted=self.identifier.header_names, taken=TAKEN),
            wheel=shared.wheel,
            clock=shared.clock,
            max_line=config.max_initial_line_kb * KB,
            max_headers=config.max_headers_kb * KB,
            max_body=None if config.max_request_kb is None else config.max_request_kb * KB,
            replay=(REPLAY_KB if config.stream_after_content_length_kb is None else config.stream_after_content_length_kb) * KB,
            idle=_seconds(server.server_session.idle_time_ms),
            life=_seconds(server.server_session.life_time_ms),
            on_idle=scope.counter("idle").incr,
            on_life=scope.counter("lifetime").incr,
            on_closed=closed,
        )

        def accepted(sock: socket.socket, peer: tuple[str, int], local: tuple[str, int]) -> ServerConnection:
            connection = Connection(sock, shared.poller, shared.wheel)
            traffic.opened(connection)
            connection.receiver = served = HttpServer(connection, parameters, peer, local)
            return served

        options = server.socket_options
        sockets = SocketOptions(no_delay=options.no_delay, keep_alive=options.keep_alive is not False)
        listener = Listener(
            sock, poller=shared.poller, wheel=shared.wheel, accepted=accepted, options=sockets, check_seconds=parameters.check
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
            classify = HttpClassifier(can_replay=can_replay).classify
        else:
            classify = chosen.kind.build(chosen.config, runtime, can_replay=can_replay).classify
        budget = build_budget(params.retries.budget or RetryBudgetConfig(), shared.clock)
        waits = build_waits(params.retries.backoff or ConstantBackoff(), runtime.random)
        policy = ServicePolicy(classify, budget, waits, metrics)
        stats = ServiceStats(metrics.outcomes(status=False), policy.budget, policy.per_request)
        faults = None if params.faults is None else self._faults(params.faults, metrics)
        path = PathLevel(stats=stats, total_timeout=_seconds(params.total_timeout_ms), faults=faults, shared=shared)
        return _Service(policy=policy, pipeline=PATH_STACK.compile(path))

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
        level = BoundLevel(name=name, client=client, residual=residual, stats=stats, attempt_timeout=timeout, shared=self._shared)
        return Choice(client, BOUND_STACK.compile(level), stats)

    def client(self, id: Path, resume: Callable[[list[Exchange]], None]) -> BoundClient:
        """See :class:`meshgw.app.router.Parts`."""
        shared, runtime = self._shared, self._shared.runtime
        params, _ = self.config.client.for_name(id)
        chosen = params.load_balancer
        picker: Picker = P2cLeastLoaded(runtime.random.random) if chosen is None else chosen.kind.build(chosen.config, runtime)
        accrual = params.failure_accrual
        make_policy = default_policy(runtime.random) if accrual is None else accrual.kind.build(accrual.config, runtime)
        limits = _limits(params)

        def make_pool(address: Address, stats: PoolStats) -> Pool:
            return Pool(
                address,
                limits=limits,
                parameters=self._client_parameters,
                stats=stats,
                poller=shared.poller,
                wheel=shared.wheel,
                clock=shared.clock,
            )

        def make_endpoint(address: Address, stats: ClientMetrics) -> Endpoint:
            return Endpoint(
                address,
                make_pool=make_pool,
                policy=None if make_policy is None else make_policy(),
                fail_fast=params.fail_fast,
                stats=stats,
                wheel=shared.wheel,
                clock=shared.clock,
            )

        return BoundClient(
            id,
            picker=picker,
            make_endpoint=make_endpoint,
            requeue_budget=build_budget(params.requeue_budget, shared.clock),
            metrics=self._metrics.scope("client", id.show()[1:]),
            clock=shared.clock,
            resume=resume,
        )


@attrs.frozen(kw_only=True)
class _Service:
    """What is kept of a logical name while it has routes."""

    policy: ServicePolicy
    pipeline: Pipeline


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
