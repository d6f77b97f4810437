"""The stacks of an HTTP/1.1 router: which filters there are at each level, in which order, and why.

Source: linkerd-config spec 4.9 and 5; ARCHITECTURE.md section 3. The order is written once, here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import attrs

from meshgw.app.client import BoundClient
from meshgw.app.diagnostic import diagnostic_trace
from meshgw.app.figures import RequestFigures
from meshgw.app.guards import check_server_name, client_id, redirect_to_https, strict_transport
from meshgw.config.requests import (
    ConnectionRandomLabeler,
    IpLabeler,
    IpPortLabeler,
    Labeler,
    RequestRouterConfig,
    RequestServerConfig,
    RouterLabeler,
    StaticLabeler,
)
from meshgw.core.networks import Networks
from meshgw.core.reactor import Poller
from meshgw.core.stack import Role, Stack
from meshgw.core.timers import Wheel
from meshgw.filters.access import Record
from meshgw.filters.connect import ConnectGuard
from meshgw.filters.context import CallDepth, ClearContext, ServerContext
from meshgw.filters.destination import Authority, Destination
from meshgw.filters.diagnostic import DiagnosticTrace
from meshgw.filters.faults import Faults
from meshgw.filters.forwarded import (
    Forwarded,
    Label,
    Timestamp,
    XForwarded,
    by_ip,
    by_ip_and_port,
    fixed,
    random_per_connection,
    random_per_request,
)
from meshgw.filters.forwarders import TrustedForwarders
from meshgw.filters.grpc import GrpcDeadline, GrpcTimeout
from meshgw.filters.limits import ConcurrencyLimit
from meshgw.filters.propagation import without_spans
from meshgw.filters.recording import LONGEST_TAG, Setting
from meshgw.filters.stats import AttemptStats, ServiceStats
from meshgw.filters.strip import StripContext
from meshgw.filters.success import LateSuccessClass, SuccessClass
from meshgw.filters.timeouts import AttemptTimeout, Deadlines, ServerTimeout, TotalTimeout
from meshgw.filters.tracing import AttemptTracing, Sampler, ServerTracing, route_tags
from meshgw.kinds import Propagator, Runtime
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.server.shares import Shares
from meshgw.telemetry.outcomes import Outcomes
from meshgw.telemetry.spans import TracingSwitch


@attrs.frozen(kw_only=True)
class Shared:
    """What the routers of a process have in common. ``clock`` is monotonic, ``now`` since the epoch, both in seconds.

    ``shares`` evens out connections where several processes accept from the same sockets. ``is_first`` is false in a process that takes
    over from another: files that are to be begun anew were so then. ``sampler`` asks the telemeters that take spans, if there are any,
    while ``tracing`` is on.
    """

    runtime: Runtime
    poller: Poller
    wheel: Wheel
    clock: Callable[[], float]
    now: Callable[[], float]
    shares: Shares | None = None
    is_first: bool = True
    sampler: Sampler | None = None
    tracing: TracingSwitch = attrs.field(factory=TracingSwitch)


@attrs.frozen(kw_only=True)
class ServerLevel:
    """The parameters of a listener's stack."""

    config: RequestServerConfig
    stats: Outcomes
    record: Record | None
    limit: ConcurrencyLimit | None
    setting: Setting
    shared: Shared
    figures: RequestFigures
    connect: ConnectGuard | None = None


SERVER_STACK = (
    Stack("server")
    # outermost, so that every request counts and its whole time does
    .then(Role.STATS, lambda server: server.stats)
    # next, so that what is logged is what the caller gets
    .then(Role.ACCESS_LOG, lambda server: server.record)
    # around all answers, also those that clearContext makes anew
    .then(Role.STRICT_TRANSPORT, lambda server: strict_transport(server.config))
    # before anybody believes a header of the caller, and around every answer made here
    .then(Role.CLEAR_CONTEXT, lambda server: ClearContext(server.setting.propagator) if server.config.clear_context else None)
    # these cost nothing and need no place among the requests under way
    .then(Role.REDIRECT, lambda server: redirect_to_https(server.config))
    .then(Role.SERVER_NAME, lambda server: check_server_name(server.config))
    # before any work is spent on what is rejected
    .then(Role.CONCURRENCY_LIMIT, lambda server: server.limit)
    # counts from the arrival
    .then(Role.TIMEOUT, lambda server: _server_timeout(server))
    .then(
        Role.TIMESTAMP,
        lambda server: Timestamp(server.config.timestamp_header, server.shared.now) if server.config.timestamp_header else None,
    )
    # first what is not to be believed goes, a Forwarded of the caller's included, then our own is added
    .then(Role.X_FORWARDED, lambda server: _x_forwarded(server.config))
    .then(Role.FORWARDED, lambda server: _forwarded(server))
    # local dtabs, which identification and binding use; and the end of requests that loop, before work is spent on them
    .then(Role.CONTEXT, lambda server: _context(server))
    # next to the context, which says whether a caller decided about it
    .then(Role.TRACING, lambda server: _server_tracing(server))
    # innermost: after what the caller says of its identity was forgotten
    .then(Role.CLIENT_ID, lambda server: client_id(server.config))
    # next to the identifier, which gives a tunnel its name
    .then(Role.CONNECT, lambda server: server.connect)
)


H2_SERVER_STACK = (
    # HTTP/2 in cleartext is for callers that know it, not for browsers to be sent elsewhere; and it has no tunnels
    SERVER_STACK.without(Role.REDIRECT, Role.CONNECT)
    # behind the context, whose deadline it joins
    .then(Role.GRPC_DEADLINE, lambda server: _grpc_deadline(server.shared))
)


@attrs.frozen(kw_only=True)
class PathLevel:
    """The parameters of a logical name's stack."""

    stats: ServiceStats
    total_timeout: float | None
    faults: Faults | None
    may_conclude: bool
    shared: Shared


PATH_STACK = (
    Stack("path")
    # the caller-visible outcome by logical name, all attempts together
    .then(Role.STATS, lambda path: path.stats)
    # around everything that can take time, injected delays included
    .then(Role.TIMEOUT, lambda path: _path_timeout(path))
    # before binding, so that faults touch no endpoint
    .then(Role.FAULTS, lambda path: path.faults)
    # innermost: the verdict on what a service answered
    .then(Role.SUCCESS_CLASS, lambda path: LateSuccessClass() if path.may_conclude else SuccessClass())
)


@attrs.frozen(kw_only=True)
class BoundLevel:
    """The parameters of a bound name's stack under a logical name."""

    name: Path
    client: BoundClient
    residual: Path
    stats: AttemptStats
    attempt_timeout: float | None
    strips_context: bool
    resolution: Callable[[Path, Dtab | None], Sequence[str]]
    setting: Setting
    shared: Shared


BOUND_STACK = (
    Stack("bound")
    # every attempt counts, also one that finds no endpoint
    .then(Role.STATS, lambda bound: bound.stats)
    # around the wait for a connection
    .then(Role.TIMEOUT, lambda bound: _bound_timeout(bound))
    .then(Role.AUTHORITY, lambda bound: Authority(bound.client.authority) if bound.client.authority else None)
    # what it answers is no attempt to be traced; where it can, the destination asks it, since most requests need not come here
    .then(Role.DIAGNOSTIC, lambda bound: _diagnostic_trace(bound) if bound.strips_context else None)
    # where endpoints are told of attempts, what tells them begins these, so that each has the id that its endpoint is told
    .then(Role.TRACING, lambda bound: _attempt_tracing(bound))
    # innermost: what the service sees is what was decided
    .then(Role.DESTINATION, lambda bound: _destination(bound, diagnoses=True))
)


H2_BOUND_STACK = (
    BOUND_STACK.without(Role.DIAGNOSTIC, Role.DESTINATION)
    .then(Role.GRPC_TIMEOUT, lambda bound: GrpcTimeout(bound.shared.now))
    .then(Role.DESTINATION, lambda bound: _destination(bound, diagnoses=False))
)


def _grpc_deadline(shared: Shared) -> GrpcDeadline:
    return GrpcDeadline(shared.now, Deadlines(shared.wheel, shared.now, "grpc-timeout").start)


def _server_timeout(server: ServerLevel) -> ServerTimeout | None:
    milliseconds = server.config.timeout_ms
    return ServerTimeout(server.shared.wheel, server.shared.clock, milliseconds / 1000) if milliseconds else None


def _path_timeout(path: PathLevel) -> TotalTimeout | None:
    seconds, shared = path.total_timeout, path.shared
    return TotalTimeout(shared.wheel, shared.clock, seconds, shared.now) if seconds else None


def _bound_timeout(bound: BoundLevel) -> AttemptTimeout | None:
    seconds, shared = bound.attempt_timeout, bound.shared
    return AttemptTimeout(shared.wheel, shared.clock, seconds) if seconds else None


def _destination(bound: BoundLevel, *, diagnoses: bool) -> Destination | StripContext:
    if bound.strips_context:
        return StripContext()
    bits, propagator = bound.setting.bits, bound.setting.propagator
    diagnose = _diagnostic_trace(bound).on_request if diagnoses else None
    route = {} if bound.shared.sampler is None else _route_tags(bound)
    return Destination(bound.name, bound.client.id, bound.residual, bits, propagator, route, diagnose)


def _context(server: ServerLevel) -> ServerContext:
    shared, setting = server.shared, server.setting
    deadlines = Deadlines(shared.wheel, shared.now, transit=server.figures.transit)
    return ServerContext(
        setting.bits,
        shared.runtime.random.getrandbits(32),
        deadlines.start,
        setting.propagator,
        depth=CallDepth(server.config.max_call_depth),
    )


def _server_tracing(server: ServerLevel) -> ServerTracing | None:
    shared = server.shared
    return None if shared.sampler is None else ServerTracing(shared.sampler, shared.tracing, server.setting)


def _attempt_tracing(bound: BoundLevel) -> AttemptTracing | None:
    if bound.shared.sampler is None or not bound.strips_context:
        return None
    return AttemptTracing(_route_tags(bound))


def _route_tags(bound: BoundLevel) -> Mapping[str, str]:
    return route_tags(bound.name, bound.client.id, bound.residual)


def _diagnostic_trace(bound: BoundLevel) -> DiagnosticTrace:
    return diagnostic_trace(bound.client, bound.name, label=bound.setting.label, clock=bound.shared.clock, resolution=bound.resolution)


def trace_setting(config: RequestRouterConfig, label: str, shared: Shared) -> Setting:
    """What a router's traces are told and recorded with."""
    chosen = config.trace_propagator
    propagator: Propagator = chosen.kind.build(chosen.config, shared.runtime)
    return Setting(
        label=label,
        dtab=config.dtab.show()[:LONGEST_TAG],
        propagator=without_spans(propagator) if shared.sampler is None else propagator,
        clock=shared.clock,
        now=shared.now,
        bits=_bits(shared),
    )


def _bits(shared: Shared) -> Callable[[], int]:
    return partial(shared.runtime.random.getrandbits, 64)


def _x_forwarded(config: RequestServerConfig) -> XForwarded | TrustedForwarders | None:
    mode, scheme = config.x_forwarded_headers, b"http" if config.tls is None else b"https"
    if config.trusted_forwarders:
        return TrustedForwarders(Networks(config.trusted_forwarders), scheme=scheme, passes=mode == "pass")
    return None if mode == "pass" else XForwarded(replace=mode == "replace", scheme=scheme)


def _forwarded(server: ServerLevel) -> Forwarded | None:
    config = server.config.add_forwarded_header
    if config is None:
        return None
    return Forwarded(_label(config.by, server), _label(config.for_, server))


def _label(labeler: Labeler, server: ServerLevel) -> Label:
    if isinstance(labeler, IpLabeler):
        return by_ip
    if isinstance(labeler, IpPortLabeler):
        return by_ip_and_port
    if isinstance(labeler, RouterLabeler):
        return fixed(server.setting.label)
    if isinstance(labeler, StaticLabeler):
        return fixed(labeler.label)
    if isinstance(labeler, ConnectionRandomLabeler):
        return random_per_connection(server.shared.runtime.random)
    return random_per_request(server.shared.runtime.random)
