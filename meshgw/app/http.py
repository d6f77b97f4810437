"""The protocol kind ``http``: what HTTP/1.1 gives to a router of requests.

Source: linkerd-config spec 5.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from meshgw.app.edge import pool_for
from meshgw.app.endpoint import MakePool
from meshgw.app.http_stacks import Shared
from meshgw.app.pools import Pools
from meshgw.app.replies import ErrorReplies
from meshgw.app.request_router import KB, OTHER_LINES, Front, Protocol, RequestRouter, limits_of, seconds_of
from meshgw.app.tunnels import TunnelCounters, connect_guard, tunnel_pool
from meshgw.app.walk import NACK
from meshgw.client.caller_pools import CallerPools
from meshgw.client.http import ClientParameters
from meshgw.client.pool import Pool, PoolStats
from meshgw.config.http import HttpRouterConfig, HttpServerConfig
from meshgw.config.requests import RequestServerConfig
from meshgw.config.scoped import HTTP1, ClientParams
from meshgw.config.values import Captures
from meshgw.core.address import Address
from meshgw.core.stream import Stream
from meshgw.filters.connect import ConnectGuard
from meshgw.filters.identity import CLIENT_ID
from meshgw.kinds import Interpreter, Kind, Runtime
from meshgw.server.http import HttpServer
from meshgw.server.parameters import HttpParameters
from meshgw.telemetry.access import AccessLog
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.rolling import RollPolicy
from meshgw.wire.headers import FieldTable
from meshgw.wire.http1 import ResponseTable

REPLAY_KB = 5
"""Kilobytes of a request's body kept for retries: streamAfterContentLengthKB, below which Linkerd buffers (spec 5.1)."""
ANSWER_TAKEN = (b"via", b"l5d-success-class", CLIENT_ID)
"""Fields of answers that this hop reads and writes itself."""


class HttpRouter(RequestRouter):
    """A router of protocol ``http``."""

    alpn: ClassVar[tuple[bytes, ...]] = (b"http/1.1",)
    config: HttpRouterConfig

    def __init__(self, config: HttpRouterConfig, label: str, interpreter: Interpreter, shared: Shared, metrics: Metrics) -> None:
        super().__init__(config, label, interpreter, shared, metrics)
        self._client_parameters = ClientParameters(
            table=ResponseTable(wanted=(NACK,), taken=ANSWER_TAKEN),
            max_headers=config.max_headers_kb * KB,
            max_body=None if config.max_response_kb is None else config.max_response_kb * KB,
        )
        self._connects = any(server.connect is not None for server in config.servers)
        self._pools = Pools(shared=shared, http=self._client_parameters, default=HTTP1, taken=ANSWER_TAKEN)

    def _access_log(self) -> AccessLog | None:
        config = self.config
        if config.http_access_log is None:
            return None
        return AccessLog(
            config.http_access_log,
            roll=RollPolicy.read(config.http_access_log_roll_policy),
            append=config.http_access_log_append or not self._shared.is_first,
            rotate_count=config.http_access_log_rotate_count,
            clock=self._shared.now,
        )

    def _error_replies(self) -> ErrorReplies:
        config = self.config
        return ErrorReplies(max_header=config.max_headers_kb * KB - OTHER_LINES, max_body=config.max_err_response_kb * KB)

    def _connect_guard(self, server: RequestServerConfig, scope: Metrics) -> ConnectGuard | None:
        assert isinstance(server, HttpServerConfig)
        return connect_guard(server, scope)

    def _protocol(self, server: RequestServerConfig, front: Front) -> Protocol:
        assert isinstance(server, HttpServerConfig)
        shared, config, scope = self._shared, self.config, front.scope
        parameters = HttpParameters(
            walk=front.walk,
            table=FieldTable(wanted=front.wanted, taken=front.taken, connects=front.connects),
            wheel=shared.wheel,
            clock=shared.clock,
            max_line=config.max_initial_line_kb * KB,
            max_headers=config.max_headers_kb * KB,
            max_body=None if config.max_request_kb is None else config.max_request_kb * KB,
            replay=(REPLAY_KB if config.stream_after_content_length_kb is None else config.stream_after_content_length_kb) * KB,
            idle=seconds_of(server.server_session.idle_time_ms),
            life=seconds_of(server.server_session.life_time_ms),
            head=server.head_timeout_ms / 1000,
            body=server.body_timeout_ms / 1000,
            tunnel_idle=server.tunnel_idle_ms / 1000,
            tunnels=TunnelCounters(scope),
            on_idle=scope.counter("idle").incr,
            on_life=scope.counter("lifetime").incr,
            on_silence=scope.counter("read_timeout").incr,
            on_stall=scope.counter("write_timeout").incr,
            on_closed=front.closed,
        )

        def serve(connection: Stream, peer: tuple[str, int], local: tuple[str, int]) -> HttpServer:
            return HttpServer(connection, parameters, peer, local)

        return Protocol(serve, parameters.check)

    def _pool_maker(self, params: ClientParams, captured: Captures, client: Metrics) -> MakePool:
        return self._pools.maker(params, limits_of(params), partial(self._dial, params, captured, client), client)

    def _tunnel_maker(self, params: ClientParams, captured: Captures, client: Metrics) -> MakePool | None:
        if not self._connects:
            return None
        own = tunnel_pool(params.tunnels, limits_of(params), self._dial(params, captured, client, self.alpn))

        def make(address: Address, stats: PoolStats) -> Pool | CallerPools:
            return pool_for(params.proxy_protocol, address, stats=stats, parameters=self._client_parameters, shared=self._shared, **own)

        return make


def build_http(
    config: HttpRouterConfig, runtime: Runtime, *, label: str, interpreter: Interpreter, shared: Shared, metrics: Metrics
) -> Any:
    """The router; nothing is bound or started yet. ``metrics`` is its scope ``rt/<label>``."""
    return HttpRouter(config, label, interpreter, shared, metrics)


KIND = Kind(id="http", config=HttpRouterConfig, build=build_http)
