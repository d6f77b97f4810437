"""The blocks of protocol ``http``: its router, its servers, and how a ``Forwarded`` header names the two sides.

Source: linkerd-config spec 5.1 and 5.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from meshgw.config.document import Chosen, at_least, one_of, option
from meshgw.config.router import RouterConfig, ServerConfig
from meshgw.config.values import Port, header_name, roll_policy


@attrs.frozen(kw_only=True)
class Labeler:
    """How one side of a connection is named in a ``Forwarded`` header; the subclass tells."""


@attrs.frozen(kw_only=True)
class IpLabeler(Labeler):
    """The IP address."""


@attrs.frozen(kw_only=True)
class IpPortLabeler(Labeler):
    """The IP address and port."""


@attrs.frozen(kw_only=True)
class RequestRandomLabeler(Labeler):
    """A random name, new for each request."""


@attrs.frozen(kw_only=True)
class ConnectionRandomLabeler(Labeler):
    """A random name, kept for a connection."""


@attrs.frozen(kw_only=True)
class RouterLabeler(Labeler):
    """The router's label."""


@attrs.frozen(kw_only=True)
class StaticLabeler(Labeler):
    """A fixed name."""

    label: str = option(doc="The name; an underscore is put before it if it has none.")


LABELERS: Mapping[str, type[Labeler]] = {
    "ip": IpLabeler,
    "ip:port": IpPortLabeler,
    "requestRandom": RequestRandomLabeler,
    "connectionRandom": ConnectionRandomLabeler,
    "router": RouterLabeler,
    "static": StaticLabeler,
}


@attrs.frozen(kw_only=True)
class ForwardedHeader:
    """Add a ``Forwarded`` header (RFC 7239) to each request; an empty block adds it with random names."""

    by: Labeler = option(factory=RequestRandomLabeler, doc="Names the listener.", variants=LABELERS)
    for_: Labeler = option(factory=RequestRandomLabeler, doc="Names the caller.", variants=LABELERS, name="for")


@attrs.frozen(kw_only=True)
class HttpServerConfig(ServerConfig):
    """One listener of an ``http`` router."""

    port: Port = option(default=Port(4140), doc="Port to listen on; 0 lets the system choose.")
    add_forwarded_header: ForwardedHeader | None = option(default=None, doc="Add a `Forwarded` header to each request.", effective="off")
    x_forwarded_headers: str = option(
        default="pass",
        doc="`X-Forwarded-For`, `-Proto` and `-Host`: `pass` leaves the caller's as they are (Linkerd's way), `append` adds the "
        "caller's address and sets the others where they are missing, `replace` believes nothing of the caller (meshgw's own option).",
        check=one_of("pass", "append", "replace"),
    )
    timestamp_header: str | None = option(
        default=None,
        doc="Name of a header to add to each request, with the time of its arrival in milliseconds since the epoch.",
        check=header_name,
        effective="off",
    )
    max_call_depth: int = option(
        default=1000, doc="Most entries in a request's `Via` header; more are answered 400, since they mean a loop.", check=at_least(1)
    )


def _identifiers(value: Any) -> str | None:
    return None if value else "empty identifier list"


def _compression(value: Any) -> str | None:
    return None if value == 0 else "not supported yet: compression of responses (`compressionLevel`); only 0, which is off, is accepted"


def _streaming(value: Any) -> str | None:
    return None if value else "has no effect: bodies are always streamed, in constant memory"


def _chunks(_value: Any) -> str | None:
    return "has no effect: chunks are passed on in the sizes they are read"


@attrs.frozen(kw_only=True)
class HttpRouterConfig(RouterConfig):
    """A router for HTTP/1.1 and HTTP/1.0."""

    label: str = option(default="http", doc="Name in metrics and admin pages, unique in the file.")
    servers: tuple[HttpServerConfig, ...] = option(default=(), doc="Where the router listens; at least one.")
    identifier: tuple[Chosen, ...] = option(
        doc="What gives a request its name: a block, or a list of which the first that knows a name wins.",
        kinds="identifiers",
        default_kind="io.l5d.header.token",
        one_or_more=True,
        check=_identifiers,
    )
    http_access_log: str | None = option(default=None, doc="File of the access log.", effective="off")
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
        "tracePropagator": "trace propagators",
        "requestAuthorizers": "request authorizers",
        "loggers": "request authorizers, under their former name",
    }

    def __attrs_post_init__(self) -> None:
        if not self.streaming_enabled and self.stream_after_content_length_kb is not None:
            raise ValueError(
                f"Conflicting streaming options set. Can't disable streaming and set streamAfterContentLengthKB in {self.label}"
            )
