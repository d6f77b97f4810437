"""The protocol kind ``http``: what an HTTP/1.1 router's stacks, listeners and connections are made of.

Source: linkerd-config spec 5; ARCHITECTURE.md section 3. The order of the stacks is written once, here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import attrs

from meshgw.app.client import BoundClient, ClientMetrics
from meshgw.app.replies import ErrorReplies
from meshgw.app.router import RouterCaches
from meshgw.app.walk import Walk
from meshgw.balance.pickers import P2cLeastLoaded
from meshgw.client.http import ClientParameters
from meshgw.client.pool import Pool, PoolLimits
from meshgw.config.http import (
    ConnectionRandomLabeler,
    HttpRouterConfig,
    HttpServerConfig,
    IpLabeler,
    IpPortLabeler,
    Labeler,
    RouterLabeler,
    StaticLabeler,
)
from meshgw.core.address import Address
from meshgw.core.exchange import Exchange
from meshgw.core.reactor import Poller
from meshgw.core.stack import Pipeline, Role, Stack
from meshgw.core.timers import Wheel
from meshgw.core.transport import Connection, SocketOptions
from meshgw.filters.access import AccessRecord
from meshgw.filters.context import TAKEN, CallDepth, ClearContext, ServerContext
from meshgw.filters.destination import Authority, Destination
from meshgw.filters.forwarded import Forwarded, Label, Timestamp, by_ip, by_ip_and_port, fixed, random_per_connection, random_per_request
from meshgw.filters.stats import AttemptStats, RequestStats
from meshgw.identify.request import RequestIdentifier, chain
from meshgw.kinds import Interpreter, Kind, Runtime
from meshgw.naming.path import Path
from meshgw.server.http import HttpParameters, HttpServer
from meshgw.server.listener import BACKLOG, Listener, ServerConnection, bind_socket
from meshgw.telemetry.access import AccessLog
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.outcomes import Outcomes
from meshgw.telemetry.rolling import RollPolicy
from meshgw.wire.headers import FieldTable

KB = 1024


@attrs.frozen(kw_only=True)
class Shared:
    """What the routers of a process have in common. ``clock`` is monotonic, ``now`` since the epoch, both in seconds."""

    runtime: Runtime
    poller: Poller
    wheel: Wheel
    clock: Callable[[], float]
    now: Callable[[], float]


@attrs.frozen(kw_only=True)
class _Server:
    """The parameters of a listener's stack."""

    config: HttpServerConfig
    stats: RequestStats
    record: AccessRecord | None
    label: str
    shared: Shared


SERVER_STACK = (
    Stack("server")
    # outermost, so that every request counts and its whole time does
    .then(Role.STATS, lambda server: server.stats)
    # next, so that what is logged is what the caller gets
    .then(Role.ACCESS_LOG, lambda server: server.record)
    # before anybody believes a header of the caller
    .then(Role.CLEAR_CONTEXT, lambda server: ClearContext() if server.config.clear_context else None)
    # before any work is spent on a request that loops
    .then(Role.CALL_DEPTH, lambda server: CallDepth(server.config.max_call_depth))
    .then(Role.TIMESTAMP, lambda server: Timestamp(server.config.timestamp_header, server.shared.now) if server.config.timestamp_header else None)
    .then(Role.FORWARDED, lambda server: _forwarded(server))
    # innermost: local dtabs, which identification and binding use
    .then(Role.CONTEXT, lambda server: ServerContext(_bits(server.shared), server.shared.runtime.random.getrandbits(32)))
)


@attrs.frozen(kw_only=True)
class _Bound:
    """The parameters of a bound name's stack under a logical name."""

    name: Path
    client: BoundClient
    residual: Path
    stats: AttemptStats
    shared: Shared


PATH_STACK = (
    Stack("path")
    # the caller-visible outcome by logical name
    .then(Role.STATS, lambda stats: stats)
)

BOUND_STACK = (
    Stack("bound")
    # every attempt counts, also one that finds no endpoint
    .then(Role.STATS, lambda bound: bound.stats)
    .then(Role.AUTHORITY, lambda bound: Authority(bound.client.authority) if bound.client.authority else None)
    # innermost: what the service sees is what was decided
    .then(Role.DESTINATION, lambda bound: Destination(bound.name, bound.client.id, bound.residual, _bits(bound.shared)))
)


def _bits(shared: Shared) -> Callable[[], int]:
    getrandbits = shared.runtime.random.getrandbits
    return lambda: getrandbits(64)


def _forwarded(server: _Server) -> Forwarded | None:
    config = server.config.add_forwarded_header
    if config is None:
        return None
    return Forwarded(_label(config.by, server), _label(config.for_, server))


def _label(labeler: Labeler, server: _Server) -> Label:
    if isinstance(labeler, IpLabeler):
        return by_ip
    if isinstance(labeler, IpPortLabeler):
        return by_ip_and_port
    if isinstance(labeler, RouterLabeler):
        return fixed(server.label)
    if isinstance(labeler, StaticLabeler):
        return fixed(labeler.label)
    if isinstance(labeler, ConnectionRandomLabeler):
        return random_per_connection(server.shared.runtime.random)
    return random_per_request(server.shared.runtime.random)


class HttpRouter:
    """A router of protocol ``http``: bound sockets first, then accepting, then draining."""

    def __init__(self, config: HttpRouterConfig, label: str, interpreter: Interpreter, shared: Shared, metrics: Metrics) -> None:
        self.config, self.label, self.interpreter = config, label, interpreter
        self._shared, self._metrics = shared, metrics
        self._response_table = FieldTable(taken=(b"via",))
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
        self._services: dict[Path, Outcomes] = {}
        self._log: AccessLog | None = None
        if config.http_access_log is not None:
            self._log = AccessLog(
                config.http_access_log,
                roll=RollPolicy.read(config.http_access_log_roll_policy),
                append=config.http_access_log_append,
                rotate_count=config.http_access_log_rotate_count,
                clock=shared.now,
            )
        self._replies = ErrorReplies(max_header=config.max_headers_kb * KB, max_body=config.max_err_response_kb * KB)
        self._identifier = self._build_identifier()
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
        stats = RequestStats(scope.outcomes())
        record = None if self._log is None else AccessRecord(self._log, shared.now)
        pipeline = SERVER_STACK.compile(_Server(config=server, stats=stats, record=record, label=self.label, shared=shared))
        walk = Walk(
            server=pipeline,
            identifier=self._identifier,
            cache=self.caches.routes,
            routes=self.caches,
            replies=self._replies,
            wheel=shared.wheel,
            clock=shared.clock,
            random=shared.runtime.random.random,
            binding_timeout=config.binding_timeout_ms / 1000,
            begin_stats=stats.on_request,
        )
        connects, closes = scope.counter("connects"), scope.counter("closes")

        def closed(connection: HttpServer) -> None:
            closes.incr()
            listener.closed(connection)

        parameters = HttpParameters(
            walk=walk,
            table=FieldTable(wanted=self._identifier.header_names, taken=TAKEN),
            wheel=shared.wheel,
            clock=shared.clock,
            max_line=config.max_initial_line_kb * KB,
            max_headers=config.max_headers_kb * KB,
            max_body=None if config.max_request_kb is None else config.max_request_kb * KB,
            on_closed=closed,
        )

        def accepted(sock: socket.socket, peer: tuple[str, int], local: tuple[str, int]) -> ServerConnection:
            connects.incr()
            connection = Connection(sock, shared.poller, shared.wheel)
            connection.receiver = served = HttpServer(connection, parameters, peer, local)
            return served

        options = server.socket_options
        sockets = SocketOptions(no_delay=options.no_delay, keep_alive=options.keep_alive is not False)
        listener = Listener(sock, poller=shared.poller, wheel=shared.wheel, accepted=accepted, options=sockets)
        scope.gauge("connections", function=lambda: float(listener.connections))
        return listener

    # --- what the caches build from (app.router.Parts)

    def path_pipeline(self, name: Path) -> Pipeline:
        """See :class:`meshgw.app.router.Parts`."""
        outcomes = self._services.get(name)
        if outcomes is None:
            outcomes = self._services[name] = self._metrics.scope("service").outcomes(name.show()[1:], status=False)
        return PATH_STACK.compile(RequestStats(outcomes))

    def forget_path(self, name: Path) -> None:
        """See :class:`meshgw.app.router.Parts`."""
        if self._services.pop(name, None) is not None:
            self._metrics.scope("service", name.show()[1:]).prune()

    def bound_pipeline(self, name: Path, client: BoundClient, residual: Path) -> Pipeline:
        """See :class:`meshgw.app.router.Parts`."""
        stats = AttemptStats(client.outcomes, client.metrics.outcomes("service", name.show()[1:], status=False))
        return BOUND_STACK.compile(_Bound(name=name, client=client, residual=residual, stats=stats, shared=self._shared))

    def client(self, id: Path, resume: Callable[[list[Exchange]], None]) -> BoundClient:
        """See :class:`meshgw.app.router.Parts`."""
        shared = self._shared
        settings, _ = self.config.client.for_name(id)
        pool = settings.host_connection_pool
        limits = PoolLimits(
            min_size=pool.min_size,
            max_size=pool.max_size,
            idle_time=None if pool.idle_time_ms is None else pool.idle_time_ms / 1000,
            max_waiters=pool.max_waiters,
            connect_timeout=settings.connect_timeout_ms / 1000,
        )

        def make_pool(address: Address, stats: ClientMetrics) -> Pool:
            return Pool(
                address,
                limits=limits,
                parameters=self._client_parameters,
                stats=stats,
                poller=shared.poller,
                wheel=shared.wheel,
                clock=shared.clock,
            )

        chosen = settings.load_balancer
        picker: P2cLeastLoaded
        if chosen is None:
            picker = P2cLeastLoaded(shared.runtime.random.random)
        else:
            picker = chosen.kind.build(chosen.config, shared.runtime)
        return BoundClient(
            id, picker=picker, make_pool=make_pool, metrics=self._metrics.scope("client", id.show()[1:]), resume=resume
        )


def build_http(config: HttpRouterConfig, runtime: Runtime, *, label: str, interpreter: Interpreter, shared: Shared, metrics: Metrics) -> Any:
    """The router; nothing is bound or started yet. ``metrics`` is its scope ``rt/<label>``."""
    return HttpRouter(config, label, interpreter, shared, metrics)


KIND = Kind(id="http", config=HttpRouterConfig, build=build_http)
