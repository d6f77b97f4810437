"""The blocks of protocol ``http``: its router and its servers.

Source: linkerd-config spec 5.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import attrs

from meshgw.config.access_format import LINKERD, access_format
from meshgw.config.connect import ConnectConfig
from meshgw.config.document import at_least, option
from meshgw.config.https import HttpsRedirect
from meshgw.config.requests import FORMAT_DOC, RequestRouterConfig, RequestServerConfig
from meshgw.config.values import Port, roll_policy

H2_SERVER_OPTIONS: Final = (
    "windowUpdateRatio",
    "headerTableBytes",
    "initialStreamWindowBytes",
    "maxFrameBytes",
    "maxConcurrentStreamsPerConnection",
)


@attrs.frozen(kw_only=True)
class HttpServerConfig(RequestServerConfig):
    """One listener of an ``http`` router."""

    port: Port = option(default=Port(4140), doc="Port to listen on; 0 lets the system choose.")
    connect: ConnectConfig | None = option(
        default=None,
        doc="Tunnels asked for by `CONNECT` (meshgw's own option); without it that method is answered 405.",
        effective="off",
    )
    tunnel_idle_ms: int = option(
        default=300_000,
        doc="Milliseconds without a byte either way after which a tunnel, of CONNECT or Upgrade, is closed (meshgw's own option).",
        check=at_least(1),
    )
    redirect_to_https: HttpsRedirect | None = option(
        default=None,
        doc="Send callers of this plaintext server to HTTPS, all but those of `healthPath` (meshgw's own option).",
        effective="off",
    )

    elsewhere: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(H2_SERVER_OPTIONS, "it is for servers in routers of protocol h2"),
        "maxHeaderListBytes": "it is for servers in routers of protocol h2; here the router's maxHeadersKB bounds headers",
    }

    def __attrs_post_init__(self) -> None:
        if self.redirect_to_https is not None and self.tls is not None:
            raise ValueError("redirectToHttps is for plaintext servers, and this one has tls")
        super().__attrs_post_init__()


def _compression(value: Any) -> str | None:
    return None if value == 0 else "not supported yet: compression of responses (`compressionLevel`); only 0, which is off, is accepted"


def _streaming(value: Any) -> str | None:
    return None if value else "has no effect: bodies are always streamed, in constant memory"


def _chunks(_value: Any) -> str | None:
    return "has no effect: chunks are passed on in the sizes they are read"


@attrs.frozen(kw_only=True)
class HttpRouterConfig(RequestRouterConfig):
    """A router for HTTP/1.1 and HTTP/1.0."""

    label: str = option(default="http", doc="Name in metrics and admin pages, unique in the file.")
    servers: tuple[HttpServerConfig, ...] = option(default=(), doc="Where the router listens; at least one.")
    http_access_log: str | None = option(default=None, doc="File of the access log; `-` is standard output.", effective="off")
    http_access_log_format: str = option(default=LINKERD, doc=FORMAT_DOC, check=access_format)
    http_access_log_roll_policy: str = option(
        default="never",
        doc="When the access log is rolled: never, hourly, daily, weekly(n) with n from 1 (Sunday), or a size such as `3.megabytes`.",
        check=roll_policy,
    )
    http_access_log_append: bool = option(default=True, doc="Keep what the access log holds at start.")
    http_access_log_rotate_count: int = option(default=-1, doc="How many rolled access logs are kept; -1 keeps all.", check=at_least(-1))
    max_headers_kb: int = option(
        default=8,
        doc="Most kilobytes of headers of a request or response; also of the `l5d-err` header.",
        name="maxHeadersKB",
        check=at_least(1),
    )
    max_initial_line_kb: int = option(
        default=4, doc="Most kilobytes of a request line or status line.", name="maxInitialLineKB", check=at_least(1)
    )
    max_err_response_kb: int = option(
        default=5120, doc="Most kilobytes of the body of an error response made here.", name="maxErrResponseKB", check=at_least(0)
    )
    max_request_kb: int | None = option(
        default=None,
        doc="Most kilobytes of a request's body; more are answered 413.",
        name="maxRequestKB",
        check=at_least(0),
        effective="unlimited",
    )
    max_response_kb: int | None = option(
        default=None,
        doc="Most kilobytes of a response's body; more are answered 502, or cut off once the answer has begun.",
        name="maxResponseKB",
        check=at_least(0),
        effective="unlimited",
    )
    streaming_enabled: bool = option(default=True, doc="Accepted with either value; bodies are always streamed.", notice=_streaming)
    stream_after_content_length_kb: int | None = option(
        default=None,
        doc="Kilobytes of a request body kept until the answer, so that the request can be sent again; all bodies are streamed.",
        name="streamAfterContentLengthKB",
        check=at_least(0),
        effective=5,
    )
    max_chunk_kb: int | None = option(
        default=None,
        doc="Accepted without effect; chunks are passed on in the sizes they are read.",
        name="maxChunkKB",
        check=at_least(1),
        notice=_chunks,
    )
    compression_level: int = option(
        default=0, doc="Compression of responses: only 0, off, is supported (Linkerd's default is -1, automatic).", check=_compression
    )
    later: ClassVar[Mapping[str, str]] = {
        "requestAuthorizers": "request authorizers",
        "loggers": "request authorizers, under their former name",
    }

    @property
    def access_format(self) -> str:
        """See :class:`RequestRouterConfig`."""
        return self.http_access_log_format

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self.streaming_enabled and self.stream_after_content_length_kb is not None:
            raise ValueError(
                f"Conflicting streaming options set. Can't disable streaming and set streamAfterContentLengthKB in {self.label}"
            )
