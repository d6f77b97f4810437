"""The ``client`` and ``service`` blocks: parameters for all names, or per name by prefix, and how they are merged.

Source: linkerd-config spec 4.5, 4.7 and 4.8. In the file every parameter may be absent, which here is None; :meth:`for_name`
merges the entries that match a name into a parameter object with all defaults in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import attrs

from meshgw.config.document import Chosen, at_least, between, one_of, option
from meshgw.config.edge import NO_PROXY_PROTOCOL, PROXY_VERSIONS
from meshgw.config.retries import BACKOFFS, Backoff, RetryBudgetConfig
from meshgw.config.tls import ClientTls, client_tls_notice
from meshgw.config.values import Captures, PathMatcher
from meshgw.naming.path import Path

P = TypeVar("P")

HTTP1, H2, AUTO = "http/1.1", "h2", "auto"
"""What may be spoken to endpoints."""
ONE_CALLER = "tells of one caller for a whole connection, which HTTP/2 shares between callers; it needs `protocol: http/1.1`"
"""Why the two do not go together."""
GLOBAL = "io.l5d.global"
STATIC = "io.l5d.static"


@attrs.frozen(kw_only=True)
class HostConnectionPool:
    """The pool of connections to one endpoint."""

    min_size: int = option(default=0, doc="Connections kept open even when idle (Finagle's 0).", check=at_least(0))
    max_size: int | None = option(
        default=None, doc="Most connections open at once; further requests wait.", check=at_least(1), effective="unlimited"
    )
    idle_time_ms: int | None = option(
        default=None,
        doc="Milliseconds after which an idle connection above minSize is closed.",
        check=at_least(1),
        effective="unlimited",
    )
    max_waiters: int | None = option(
        default=None,
        doc="Most requests that wait for a connection once maxSize is reached; one more fails at once.",
        check=at_least(0),
        effective="unlimited",
    )


@attrs.frozen(kw_only=True)
class Session:
    """How long a connection is kept. It is closed between requests, never under one."""

    idle_time_ms: int | None = option(
        default=None,
        doc="Milliseconds without a request after which it is closed.",
        check=at_least(1),
        effective="clients unlimited, servers 10 minutes",
    )
    life_time_ms: int | None = option(
        default=None, doc="Milliseconds of its age after which it is closed.", check=at_least(1), effective="unlimited"
    )


@attrs.frozen(kw_only=True)
class DelayFault:
    """Delays by chance."""

    percent: float = option(doc="Part of the requests, in percent.", check=between(0, 100))
    ms: int = option(doc="Milliseconds of the delay.", check=between(0, 3_600_000))


@attrs.frozen(kw_only=True)
class AbortFault:
    """Error answers by chance."""

    percent: float = option(doc="Part of the requests, in percent.", check=between(0, 100))
    status: int = option(default=503, doc="Status of the answer.", check=between(200, 599))


@attrs.frozen(kw_only=True)
class FaultsConfig:
    """Faults to inject, so that callers can test their timeouts and retries (meshgw's own feature)."""

    delay: DelayFault | None = option(default=None, doc="Delay a part of the requests.", effective="off")
    abort: AbortFault | None = option(default=None, doc="Answer a part of the requests with an error.", effective="off")
    header: bool = option(default=False, doc="Let a request ask for its own fault by `l5d-fault: delay=200ms; abort=503`.")


@attrs.frozen(kw_only=True)
class RetriesConfig:
    """Retries of failures that the response classifier calls retryable."""

    budget: RetryBudgetConfig | None = option(
        default=None, doc="How many retries there may be, per logical name.", effective="all defaults"
    )
    backoff: Backoff | None = option(
        default=None, doc="How long to wait before each retry of a request.", variants=BACKOFFS, effective="no wait"
    )


@attrs.frozen(kw_only=True)
class RetryBufferSize:
    """How much of a stream is kept so that it can be sent again, and its answer be judged before it is passed on."""

    request_bytes: int = option(default=16383, doc="Bytes of a request's body.", check=at_least(0))
    response_bytes: int = option(default=16383, doc="Bytes of an answer's body that wait for a verdict in its trailers.", check=at_least(0))


@attrs.frozen(kw_only=True)
class ClientParams:
    """What applies to one bound name. ``load_balancer`` None means kind ``p2c``, ``failure_accrual`` None five failures in a row."""

    load_balancer: Chosen | None = None
    host_connection_pool: HostConnectionPool = attrs.field(factory=HostConnectionPool)
    connect_timeout_ms: int = 1000
    fail_fast: bool = False
    requeue_budget: RetryBudgetConfig = attrs.field(factory=RetryBudgetConfig)
    failure_accrual: Chosen | None = None
    request_attempt_timeout_ms: int | None = None
    client_session: Session = attrs.field(factory=Session)
    proxy_protocol: str | None = None
    tls: ClientTls | None = None
    strip_context: bool = False
    tunnels: str = "raw"
    protocol: str | None = None
    window_update_ratio: float = 0.99
    header_table_bytes: int | None = None
    initial_stream_window_bytes: int | None = None
    max_frame_bytes: int | None = None
    max_header_list_bytes: int | None = None


@attrs.frozen(kw_only=True)
class ServiceParams:
    """What applies to one logical name. ``response_classifier`` None means the protocol's default."""

    total_timeout_ms: int | None = None
    retries: RetriesConfig = attrs.field(factory=RetriesConfig)
    response_classifier: Chosen | None = None
    faults: FaultsConfig | None = None
    classification_timeout_ms: int = 100
    retry_buffer_size: RetryBufferSize = attrs.field(factory=RetryBufferSize)


@attrs.frozen(kw_only=True)
class ClientSettings:
    """Client parameters as one entry of the file sets them."""

    load_balancer: Chosen | None = option(default=None, doc="How an endpoint is chosen.", kinds="balancers", effective="p2c")
    host_connection_pool: HostConnectionPool | None = option(
        default=None, doc="The pool of connections to each endpoint.", effective="all defaults"
    )
    connect_timeout_ms: int | None = option(
        default=None,
        doc="Milliseconds to establish a connection (meshgw's own option; the default is Finagle's constant).",
        check=at_least(1),
        effective=1000,
    )
    fail_fast: bool | None = option(
        default=None,
        doc="Avoid an endpoint that could not be connected to until a connect made in the background succeeds.",
        effective=False,
    )
    requeue_budget: RetryBudgetConfig | None = option(
        default=None, doc="How often requests that were not delivered may go to another endpoint.", effective="all defaults"
    )
    failure_accrual: Chosen | None = option(
        default=None,
        doc="When an endpoint counts as dead.",
        kinds="accruals",
        effective="io.l5d.consecutiveFailures with 5 failures, dead for 5 s to 300 s",
    )
    request_attempt_timeout_ms: int | None = option(
        default=None, doc="Milliseconds for one attempt, to the beginning of the answer.", check=at_least(1), effective="unlimited"
    )
    client_session: Session | None = option(default=None, doc="How long connections are kept.", effective="unlimited")
    proxy_protocol: str | None = option(
        default=None,
        doc="Begin each connection with a PROXY header, `v1` or `v2`, that tells the caller's address; a connection then serves this one "
        "caller only (meshgw's own option). `none` takes back what an earlier entry of `configs` says.",
        check=one_of(*PROXY_VERSIONS, NO_PROXY_PROTOCOL),
        effective="none",
    )
    tls: ClientTls | None = option(default=None, doc="TLS to services.", effective="off", notice=client_tls_notice)
    strip_context: bool | None = option(
        default=None,
        doc="Send nothing of the mesh's inside: no `l5d-*`, `X-Forwarded-*`, `Forwarded` or `X-Real-IP`, no traces, and no Via but this "
        "hop's; and believe no `l5d-*` of the answer (meshgw's own option).",
        effective=False,
    )
    tunnels: str | None = option(
        default=None,
        doc="How a tunnel of `CONNECT` begins: `raw` connects and passes its bytes, without `tls`; `connect` asks the endpoint, which is "
        "an HTTP proxy, by a CONNECT of its own, over `tls` if that is set (meshgw's own option).",
        check=one_of("raw", "connect"),
        effective="raw",
    )
    protocol: str | None = option(
        default=None,
        doc="What is spoken to endpoints: `http/1.1`, `h2`, or `auto`, which lets TLS agree on one of them (ALPN), and is `http/1.1` "
        "without TLS (meshgw's own option).",
        check=one_of(HTTP1, H2, AUTO),
        effective="the router's own",
    )
    later: ClassVar[Mapping[str, str]] = {
        "socketOptions": "socket options of clients",
        "requestAuthorizers": "request authorizers",
        "forwardClientCert": "forwarding of client certificates",
    }
    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("windowUpdateRatio", "headerTableBytes", "initialStreamWindowBytes", "maxFrameBytes", "maxHeaderListBytes"),
        "it is for clients in routers of protocol h2; here those with `protocol: h2` have the defaults",
    )

    def __attrs_post_init__(self) -> None:
        if self.tells_caller and self.protocol is not None and self.protocol != HTTP1:
            raise ValueError(f"proxyProtocol {ONE_CALLER}, but `protocol` is {self.protocol}")

    @property
    def tells_caller(self) -> bool:
        """Whether connections begin with a PROXY header."""
        return self.proxy_protocol is not None and self.proxy_protocol != NO_PROXY_PROTOCOL


@attrs.frozen(kw_only=True)
class ServiceSettings:
    """Service parameters as one entry of the file sets them."""

    total_timeout_ms: int | None = option(
        default=None,
        doc="Milliseconds for a request with all its retries, to the beginning of the answer; 0 or less is none.",
        effective="unlimited",
    )
    retries: RetriesConfig | None = option(default=None, doc="Retries of failed requests.", effective="all defaults")
    response_classifier: Chosen | None = option(
        default=None,
        doc="Which answers are failures, and which failures may be retried.",
        kinds="classifiers",
        effective="io.l5d.http.nonRetryable5XX",
    )
    faults: FaultsConfig | None = option(default=None, doc="Faults to inject.", effective="off")
    elsewhere: ClassVar[Mapping[str, str]] = {
        "classificationTimeoutMs": "it is for services in routers of protocol h2",
        "retryBufferSize": "it is for services in routers of protocol h2; here the router's streamAfterContentLengthKB bounds what is kept",
    }


class Scoped(Generic[P]):
    """A block of parameters that depend on a name."""

    params: ClassVar[type[object]]

    def entries(self, _path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The settings that apply to a name with what their prefixes captured, in the order of the file."""
        raise NotImplementedError  # pragma: no cover - abstract

    def for_name(self, path: Path) -> tuple[P, Mapping[str, Captures]]:
        """The merged parameters for ``path``, and per parameter that was set what the prefix of its entry captured.

        For each parameter the last matching entry that sets it wins, as a whole (spec 4.8). The second mapping's keys are
        attribute names; captures belong to an entry, so that two entries may use the same variable for different segments.
        """
        values: dict[str, object] = {}
        captured: dict[str, Captures] = {}
        for settings, captures in self.entries(path):
            for attribute in attrs.fields(type(settings)):
                value = getattr(settings, attribute.name)
                if attribute.name != "prefix" and value is not None:
                    if isinstance(value, RetriesConfig) and attribute.name in values:
                        value = _joined(values[attribute.name], value)
                    values[attribute.name] = value
                    captured[attribute.name] = captures
        return self.params(**values), captured  # type: ignore[return-value]  # the class attribute fits P in each subclass


class ClientBlock(Scoped[ClientParams]):
    """The ``client`` block of a router, of either kind."""

    params = ClientParams


class ServiceBlock(Scoped[ServiceParams]):
    """The ``service`` block of a router, of either kind."""

    params = ServiceParams


@attrs.frozen(kw_only=True)
class GlobalClient(ClientSettings, ClientBlock):
    """Parameters of all clients."""

    def entries(self, _path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The block itself, for every name."""
        yield self, {}


@attrs.frozen(kw_only=True)
class GlobalService(ServiceSettings, ServiceBlock):
    """Parameters of all services."""

    def entries(self, _path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The block itself, for every name."""
        yield self, {}


@attrs.frozen(kw_only=True)
class ClientEntry(ClientSettings):
    """Parameters of the clients whose bound name matches."""

    prefix: PathMatcher = option(doc="Pattern over the bound name's id, for example `/#/io.l5d.fs/{service}`; `*` is any one segment.")


@attrs.frozen(kw_only=True)
class ServiceEntry(ServiceSettings):
    """Parameters of the services whose logical name matches."""

    prefix: PathMatcher = option(doc="Pattern over the logical name, for example `/svc/web`; `*` is any one segment.")


@attrs.frozen(kw_only=True)
class StaticClient(ClientBlock):
    """Parameters by the client's bound name."""

    configs: tuple[ClientEntry, ...] = option(doc="Entries; for each parameter the last matching entry that sets it wins.")

    def entries(self, path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The entries whose prefix matches."""
        return matching(self.configs, path)


@attrs.frozen(kw_only=True)
class StaticService(ServiceBlock):
    """Parameters by the service's logical name."""

    configs: tuple[ServiceEntry, ...] = option(doc="Entries; for each parameter the last matching entry that sets it wins.")

    def entries(self, path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The entries whose prefix matches."""
        return matching(self.configs, path)


def _joined(before: object, after: RetriesConfig) -> RetriesConfig:
    """Budget and backoff are parameters of their own: setting one leaves the other as it was (spec 4.8)."""
    assert isinstance(before, RetriesConfig)
    return RetriesConfig(budget=after.budget or before.budget, backoff=after.backoff or before.backoff)


def matching(configs: Sequence[Any], path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
    """The entries, by their ``prefix``, that are for ``path``, with what their patterns capture."""
    for entry in configs:
        captures = entry.prefix.match(path)
        if captures is not None:
            yield entry, captures


CLIENT_BLOCKS: Mapping[str, type[ClientBlock]] = {GLOBAL: GlobalClient, STATIC: StaticClient}
SERVICE_BLOCKS: Mapping[str, type[ServiceBlock]] = {GLOBAL: GlobalService, STATIC: StaticService}
