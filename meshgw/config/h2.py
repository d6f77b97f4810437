"""The blocks of protocol ``h2``: its router, its servers, and what its clients and services add to those of other protocols.

Source: linkerd-config spec 6.1. Sizes of windows and frames are also what other routers use for clients of ``protocol: h2``, by default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import attrs

from meshgw.config.access_format import LINKERD, access_format
from meshgw.config.document import Chosen, at_least, one_of, option
from meshgw.config.requests import FORMAT_DOC, RequestRouterConfig, RequestServerConfig
from meshgw.config.scoped import (
    GLOBAL,
    HTTP1,
    ONE_CALLER,
    STATIC,
    ClientBlock,
    ClientSettings,
    RetryBufferSize,
    ServiceBlock,
    ServiceSettings,
    matching,
)
from meshgw.config.tls import ServerTls, h2_server_tls_notice
from meshgw.config.values import Captures, PathMatcher, Port, roll_policy
from meshgw.naming.path import Path

LEAST_FRAME: Final = 16384
MOST_FRAME: Final = 16777215
MOST_WINDOW: Final = 2147483647
MOST_STREAMS: Final = 2147483647
MOST_VALUE: Final = 4294967295
"""Of a setting, which has 32 bits."""


def _ratio(value: Any) -> str | None:
    return None if 0 < value < 1 else "ratio must be on (0.0, 1.0), exclusive"


def _within(value: int, least: int, most: int) -> str | None:
    return None if least <= value <= most else f"must be between {least} and {most}, not {value}"


def _table(value: Any) -> str | None:
    return _within(value, 0, MOST_VALUE)


def _list(value: Any) -> str | None:
    return _within(value, 1, MOST_VALUE)


def _frame(value: Any) -> str | None:
    return _within(value, LEAST_FRAME, MOST_FRAME)


def _window(value: Any) -> str | None:
    return _within(value, 1, MOST_WINDOW)


RATIO_DOC: Final = "The peer gets new credit once less than this part of a window is left."
TABLE_DOC: Final = "Bytes of the table with which the peer may compress headers (SETTINGS_HEADER_TABLE_SIZE)."
WINDOW_DOC: Final = "Bytes that the peer may send on a stream before it gets credit (SETTINGS_INITIAL_WINDOW_SIZE)."
FRAME_DOC: Final = "Bytes of the largest frame that the peer may send (SETTINGS_MAX_FRAME_SIZE)."
LIST_DOC: Final = "Bytes of the largest header section that is taken (SETTINGS_MAX_HEADER_LIST_SIZE)."


@attrs.frozen(kw_only=True)
class H2ServerConfig(RequestServerConfig):
    """One listener of an ``h2`` router."""

    port: Port = option(default=Port(4142), doc="Port to listen on; 0 lets the system choose.")
    window_update_ratio: float = option(default=0.99, doc=RATIO_DOC, check=_ratio)
    header_table_bytes: int | None = option(default=None, doc=TABLE_DOC, check=_table, effective=4096)
    initial_stream_window_bytes: int | None = option(default=None, doc=WINDOW_DOC, check=_window, effective=65535)
    max_frame_bytes: int | None = option(default=None, doc=FRAME_DOC, check=_frame, effective=16384)
    max_header_list_bytes: int | None = option(default=None, doc=LIST_DOC, check=_list, effective=65536)
    max_concurrent_streams_per_connection: int = option(
        default=1000,
        doc="Streams that a connection may have open; more are refused with REFUSED_STREAM.",
        check=lambda value: _within(value, 1, MOST_STREAMS),
    )
    tls: ServerTls | None = option(default=None, doc="TLS of the listener.", effective="off", notice=h2_server_tls_notice)
    elsewhere: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("connect", "tunnelIdleMs"), "it is for servers in routers of protocol http: HTTP/2 has no tunnels here"),
        "redirectToHttps": "it is for servers in routers of protocol http, which is what browsers speak without TLS",
        "maxHeaderListByts": "Linkerd's documentation has a letter less: maxHeaderListBytes",
    }


@attrs.frozen(kw_only=True)
class H2ClientSettings(ClientSettings):
    """Client parameters of an ``h2`` router as one entry of the file sets them."""

    window_update_ratio: float | None = option(default=None, doc=RATIO_DOC, check=_ratio, effective=0.99)
    header_table_bytes: int | None = option(default=None, doc=TABLE_DOC, check=_table, effective=4096)
    initial_stream_window_bytes: int | None = option(default=None, doc=WINDOW_DOC, check=_window, effective=65535)
    max_frame_bytes: int | None = option(default=None, doc=FRAME_DOC, check=_frame, effective=16384)
    max_header_list_bytes: int | None = option(default=None, doc=LIST_DOC, check=_list, effective=65536)

    tunnels: str | None = option(
        default=None,
        doc="Accepted without effect; HTTP/2 has no tunnels here.",
        check=one_of("raw", "connect"),
        notice=lambda _value: "has no effect: there are no tunnels in routers of protocol h2",
        effective="raw",
    )


@attrs.frozen(kw_only=True)
class H2ServiceSettings(ServiceSettings):
    """Service parameters of an ``h2`` router as one entry of the file sets them."""

    response_classifier: Chosen | None = option(
        default=None,
        doc="Which answers are failures, and which failures may be retried.",
        kinds="classifiers",
        effective="io.l5d.h2.nonRetryable5XX",
    )
    classification_timeout_ms: int | None = option(
        default=None,
        doc="Milliseconds that an answer waits for the trailers that decide whether its request is retried.",
        check=at_least(0),
        effective=100,
    )
    retry_buffer_size: RetryBufferSize | None = option(
        default=None, doc="How much is kept for retries.", effective="16383 bytes of each side"
    )


class H2ClientBlock(ClientBlock):
    """The ``client`` block of an ``h2`` router, of either kind."""


class H2ServiceBlock(ServiceBlock):
    """The ``service`` block of an ``h2`` router, of either kind."""


@attrs.frozen(kw_only=True)
class GlobalH2Client(H2ClientSettings, H2ClientBlock):
    """Parameters of all clients."""

    def __attrs_post_init__(self) -> None:
        _one_caller(self)
        super().__attrs_post_init__()

    def entries(self, _path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The block itself, for every name."""
        yield self, {}


@attrs.frozen(kw_only=True)
class GlobalH2Service(H2ServiceSettings, H2ServiceBlock):
    """Parameters of all services."""

    def entries(self, _path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The block itself, for every name."""
        yield self, {}


@attrs.frozen(kw_only=True)
class H2ClientEntry(H2ClientSettings):
    """Parameters of the clients whose bound name matches."""

    prefix: PathMatcher = option(doc="Pattern over the bound name's id, for example `/#/io.l5d.fs/{service}`; `*` is any one segment.")


@attrs.frozen(kw_only=True)
class H2ServiceEntry(H2ServiceSettings):
    """Parameters of the services whose logical name matches."""

    prefix: PathMatcher = option(doc="Pattern over the logical name, for example `/svc/web`; `*` is any one segment.")


@attrs.frozen(kw_only=True)
class StaticH2Client(H2ClientBlock):
    """Parameters by the client's bound name."""

    configs: tuple[H2ClientEntry, ...] = option(doc="Entries; for each parameter the last matching entry that sets it wins.")

    def __attrs_post_init__(self) -> None:
        _one_caller(*self.configs)

    def entries(self, path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The entries whose prefix matches."""
        return matching(self.configs, path)


@attrs.frozen(kw_only=True)
class StaticH2Service(H2ServiceBlock):
    """Parameters by the service's logical name."""

    configs: tuple[H2ServiceEntry, ...] = option(doc="Entries; for each parameter the last matching entry that sets it wins.")

    def entries(self, path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The entries whose prefix matches."""
        return matching(self.configs, path)


def _one_caller(*entries: H2ClientSettings) -> None:
    """Refuse PROXY headers where nothing says that anything but HTTP/2 is spoken."""
    if any(entry.tells_caller for entry in entries) and not any(entry.protocol == HTTP1 for entry in entries):
        raise ValueError(f"proxyProtocol {ONE_CALLER}")


H2_CLIENT_BLOCKS: Mapping[str, type[ClientBlock]] = {GLOBAL: GlobalH2Client, STATIC: StaticH2Client}
H2_SERVICE_BLOCKS: Mapping[str, type[ServiceBlock]] = {GLOBAL: GlobalH2Service, STATIC: StaticH2Service}


@attrs.frozen(kw_only=True)
class H2RouterConfig(RequestRouterConfig):
    """A router for HTTP/2, and so for gRPC."""

    label: str = option(default="h2", doc="Name in metrics and admin pages, unique in the file.")
    servers: tuple[H2ServerConfig, ...] = option(default=(), doc="Where the router listens; at least one.")
    client: H2ClientBlock = option(factory=GlobalH2Client, doc="Parameters of clients.", variants=H2_CLIENT_BLOCKS, default_variant=GLOBAL)
    service: H2ServiceBlock = option(
        factory=GlobalH2Service, doc="Parameters of services.", variants=H2_SERVICE_BLOCKS, default_variant=GLOBAL
    )
    h2_access_log: str | None = option(default=None, doc="File of the access log; `-` is standard output.", effective="off")
    h2_access_log_format: str = option(default=LINKERD, doc=FORMAT_DOC, check=access_format)
    h2_access_log_roll_policy: str = option(
        default="never",
        doc="When the access log is rolled: never, hourly, daily, weekly(n) with n from 1 (Sunday), or a size such as `3.megabytes`.",
        check=roll_policy,
    )
    h2_access_log_append: bool = option(default=True, doc="Keep what the access log holds at start.")
    h2_access_log_rotate_count: int = option(default=-1, doc="How many rolled access logs are kept; -1 keeps all.", check=at_least(-1))
    later: ClassVar[Mapping[str, str]] = {
        "requestAuthorizers": "request authorizers",
        "loggers": "request authorizers, under their former name",
    }
    elsewhere: ClassVar[Mapping[str, str]] = {
        "maxHeadersKB": "it is for routers of protocol http; here maxHeaderListBytes of servers and clients bounds headers",
        "streamAfterContentLengthKB": "it is for routers of protocol http; here retryBufferSize of services bounds what is kept",
        **dict.fromkeys(
            ("maxInitialLineKB", "maxErrResponseKB", "maxRequestKB", "maxResponseKB", "streamingEnabled", "maxChunkKB", "compressionLevel"),
            "it is for routers of protocol http",
        ),
    }

    @property
    def access_format(self) -> str:
        """See :class:`RequestRouterConfig`."""
        return self.h2_access_log_format
