"""The protocol kind ``h2``: what HTTP/2 gives to a router of requests.

Source: linkerd-config spec 6.1.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from meshgw.app.endpoint import MakePool
from meshgw.app.h2_pools import HEADER_LIST
from meshgw.app.http import ANSWER_TAKEN
from meshgw.app.http_stacks import H2_BOUND_STACK, H2_SERVER_STACK, Shared
from meshgw.app.pools import Pools
from meshgw.app.replies import ErrorReplies
from meshgw.app.request_router import KB, Front, Protocol, RequestRouter, limits_of, seconds_of
from meshgw.app.walk import NACK
from meshgw.client.http import ClientParameters
from meshgw.config.h2 import GlobalH2Service, H2RouterConfig, H2ServerConfig
from meshgw.config.requests import RequestServerConfig
from meshgw.config.scoped import H2, ClientParams, RetryBufferSize, ServiceParams
from meshgw.config.values import Captures
from meshgw.core.exchange import Exchange, Hold
from meshgw.core.stack import Stack
from meshgw.core.stream import Stream
from meshgw.filters.classify import CanReplay
from meshgw.filters.grpc import GRPC_TIMEOUT
from meshgw.kinds import Interpreter, Kind, Runtime
from meshgw.server.h2 import H2Server
from meshgw.server.h2_parameters import H2Parameters
from meshgw.telemetry.access import AccessLog
from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.rolling import RollPolicy
from meshgw.telemetry.streams import Frames, StreamStats
from meshgw.wire.h2_connection import H2Settings
from meshgw.wire.h2_frames import DEFAULT_FRAME, DEFAULT_TABLE, DEFAULT_WINDOW, code_name
from meshgw.wire.headers import FieldTable
from meshgw.wire.http1 import ResponseTable

MAX_HEAD_KB = 64
"""Kilobytes of the head of an answer over HTTP/1.1, which no option of this protocol bounds."""
MAX_ERROR_HEADER = 8 * KB
MAX_ERROR_BODY = 5120 * KB


class H2Router(RequestRouter):
    """A router of protocol ``h2``."""

    alpn: ClassVar[tuple[bytes, ...]] = (b"h2",)
    heeds_answers: ClassVar[bool] = False
    server_stack: ClassVar[Stack] = H2_SERVER_STACK
    bound_stack: ClassVar[Stack] = H2_BOUND_STACK
    config: H2RouterConfig

    def __init__(self, config: H2RouterConfig, label: str, interpreter: Interpreter, shared: Shared, metrics: Metrics) -> None:
        super().__init__(config, label, interpreter, shared, metrics)
        http = ClientParameters(table=ResponseTable(wanted=(NACK,), taken=ANSWER_TAKEN), max_headers=MAX_HEAD_KB * KB)
        self._pools = Pools(shared=shared, http=http, default=H2, taken=ANSWER_TAKEN)

    def _access_log(self) -> AccessLog | None:
        config = self.config
        if config.h2_access_log is None:
            return None
        return AccessLog(
            config.h2_access_log,
            roll=RollPolicy.read(config.h2_access_log_roll_policy),
            append=config.h2_access_log_append or not self._shared.is_first,
            rotate_count=config.h2_access_log_rotate_count,
            clock=self._shared.now,
            zone="%z",
        )

    def _error_replies(self) -> ErrorReplies:
        return ErrorReplies(max_header=MAX_ERROR_HEADER, max_body=MAX_ERROR_BODY)

    def _can_replay(self, params: ServiceParams, metrics: Metrics) -> CanReplay:
        most, too_long = params.retry_buffer_size.request_bytes, metrics.counter("retries", "request_stream_too_long").incr

        def can_replay(ex: Exchange) -> bool:
            if ex.length == 0 or (ex.replay is not None and ex.request_bytes <= most):
                return True  # what follows of its body goes to whoever has it then
            too_long()
            return False

        return can_replay

    def _hold(self, params: ServiceParams, metrics: Metrics) -> Hold | None:
        retries = metrics.scope("retries")
        retries.counter("backoffs_exhausted")  # there is always another one here
        timed_out, too_long = retries.counter("classification_timeout"), retries.counter("response_stream_too_long")
        seconds, size = params.classification_timeout_ms / 1000, params.retry_buffer_size.response_bytes
        return Hold(seconds, size, timed_out.incr, too_long.incr)

    def _streams(self, metrics: Metrics) -> StreamStats:
        return StreamStats(metrics)

    def _largest_replay(self) -> int:
        """Bytes of a request that are kept while its service is not known."""
        block = self.config.service
        settings = (block,) if isinstance(block, GlobalH2Service) else getattr(block, "configs", ())
        sizes = [entry.retry_buffer_size for entry in settings if entry.retry_buffer_size is not None]
        return max([RetryBufferSize().request_bytes, *(size.request_bytes for size in sizes)])

    def _protocol(self, server: RequestServerConfig, front: Front) -> Protocol:
        assert isinstance(server, H2ServerConfig)
        shared, scope = self._shared, front.scope
        served: set[H2Server] = set()
        scope.gauge("open_streams", function=lambda: float(sum(len(connection.streams) for connection in served)))

        def closed(connection: H2Server) -> None:
            served.discard(connection)
            front.closed(connection)

        def failed(code: int) -> None:
            scope.counter("h2", "connection_errors", code_name(code)).incr()

        parameters = H2Parameters(
            walk=front.walk,
            table=FieldTable(wanted=(*front.wanted, b"te", b"content-type"), taken=(*front.taken, GRPC_TIMEOUT)),
            wheel=shared.wheel,
            clock=shared.clock,
            later=shared.poller.later,
            own=H2Settings(
                window=server.initial_stream_window_bytes or DEFAULT_WINDOW,
                frame=server.max_frame_bytes or DEFAULT_FRAME,
                header_list=server.max_header_list_bytes or HEADER_LIST,
                table=DEFAULT_TABLE if server.header_table_bytes is None else server.header_table_bytes,
                streams=server.max_concurrent_streams_per_connection,
                update_ratio=server.window_update_ratio,
            ),
            replay=self._largest_replay(),
            idle=seconds_of(server.server_session.idle_time_ms),
            life=seconds_of(server.server_session.life_time_ms),
            head=server.head_timeout_ms / 1000,
            body=server.body_timeout_ms / 1000,
            on_idle=scope.counter("idle").incr,
            on_life=scope.counter("lifetime").incr,
            on_silence=scope.counter("read_timeout").incr,
            on_stall=scope.counter("write_timeout").incr,
            frames=Frames(scope),
            streams=StreamStats(scope),
            on_fault=scope.counter("h2", "stream_errors").incr,
            on_failed=failed,
            on_closed=closed,
        )

        def serve(connection: Stream, peer: tuple[str, int], local: tuple[str, int]) -> H2Server:
            server = H2Server(connection, parameters, peer, local)
            served.add(server)
            return server

        return Protocol(serve, parameters.check)

    def _pool_maker(self, params: ClientParams, captured: Captures, client: Metrics) -> MakePool:
        return self._pools.maker(params, limits_of(params), partial(self._dial, params, captured, client), client)


def build_h2(config: H2RouterConfig, runtime: Runtime, *, label: str, interpreter: Interpreter, shared: Shared, metrics: Metrics) -> Any:
    """The router; nothing is bound or started yet. ``metrics`` is its scope ``rt/<label>``."""
    return H2Router(config, label, interpreter, shared, metrics)


KIND = Kind(id="h2", config=H2RouterConfig, build=build_h2)
