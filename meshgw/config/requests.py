"""The blocks that protocols of requests have in common: their routers, their servers, and how a ``Forwarded`` header names two sides.

Source: linkerd-config spec 4, 5.1, 5.5 and 6.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from meshgw.config.access import AccessControl
from meshgw.config.access_format import LINKERD
from meshgw.config.document import Chosen, at_least, one_of, option
from meshgw.config.edge import plain_path
from meshgw.config.egress import EgressConfig
from meshgw.config.https import Hsts
from meshgw.config.roles import ROLES
from meshgw.config.router import RouterConfig, ServerConfig
from meshgw.config.values import header_name
from meshgw.core.networks import Network


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
class RequestServerConfig(ServerConfig):
    """One listener, as far as protocols of requests have it in common."""

    add_forwarded_header: ForwardedHeader | None = option(default=None, doc="Add a `Forwarded` header to each request.", effective="off")
    x_forwarded_headers: str = option(
        default="pass",
        doc="`X-Forwarded-For`, `-Proto` and `-Host`: `pass` leaves the caller's as they are (Linkerd's way), `append` adds the "
        "caller's address and sets the others where they are missing, `replace` believes nothing of the caller, and takes its `Forwarded` "
        "away too (meshgw's own option).",
        check=one_of("pass", "append", "replace"),
    )
    trusted_forwarders: tuple[Network, ...] = option(
        default=(),
        doc="Networks of the proxies in front whose `X-Forwarded-*` and `Forwarded` fields are believed: theirs are passed on, or appended "
        "to unless `xForwardedHeaders` is `pass`, and the access log shows the caller that they tell. Those of others are taken away, or "
        "replaced (meshgw's own option).",
        effective="xForwardedHeaders alone decides",
    )
    health_path: str | None = option(
        default=None,
        doc="Path that the listener answers itself for load balancers: 200, or 503 while it drains. Such requests are not routed and not "
        "in the access log (meshgw's own option).",
        check=plain_path,
        effective="off",
    )
    hsts: Hsts | None = option(
        default=None, doc="Tell browsers to use nothing but HTTPS, on answers over TLS (meshgw's own option).", effective="off"
    )
    check_server_name: bool | None = option(
        default=None,
        doc="Answer 421 where a request's Host is neither the name that its TLS connection asked for nor one of the certificate's "
        "(meshgw's own option).",
        effective="true where tls has sni, or by role ingress",
    )
    head_timeout_ms: int = option(
        default=30_000,
        doc="Milliseconds within which the head of a request must be complete, or up to a third more; then 408 (meshgw's own option).",
        check=at_least(100),
    )
    body_timeout_ms: int = option(
        default=300_000,
        doc="Milliseconds that a body may stand still because of the caller, either way, or a little more; then 408, or the connection is "
        "closed (meshgw's own option).",
        check=at_least(100),
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

    def __attrs_post_init__(self) -> None:
        if self.tls is None and (self.hsts is not None or self.check_server_name):
            raise ValueError(f"{'hsts' if self.hsts is not None else 'checkServerName'} means nothing on a server without tls")


FORMAT_DOC: Final = (
    "Form of its lines: `linkerd`, `common`, `combined`, `json`, `json(FIELD, …)`, or a text with `%{FIELD}` in it; see Logging for the "
    "fields (meshgw's own option)."
)


def _identifiers(value: Any) -> str | None:
    return None if value else "empty identifier list"


@attrs.frozen(kw_only=True)
class RequestRouterConfig(RouterConfig):
    """A router, as far as protocols of requests have it in common."""

    servers: tuple[RequestServerConfig, ...] = option(default=(), doc="Where the router listens; at least one.")
    identifier: tuple[Chosen, ...] = option(
        doc="What gives a request its name: a block, or a list of which the first that knows a name wins.",
        kinds="identifiers",
        default_kind="io.l5d.header.token",
        one_or_more=True,
        check=_identifiers,
    )
    trace_propagator: Chosen = option(
        doc="In which header fields traces of callers are read and the next hop is told of them.",
        kinds="propagators",
        default_kind="io.l5d.default",
    )
    role: str | None = option(
        default=None,
        doc="Where the router stands: `incoming` or `outgoing` beside a service, `ingress` or `egress` at the edge. It gives safe "
        "defaults to options that are not written, see Security (meshgw's own option).",
        check=one_of(*ROLES),
        effective="none",
    )
    access_control: AccessControl | None = option(
        default=None, doc="Who may call what (meshgw's own option).", effective="everybody everything"
    )
    egress: EgressConfig | None = option(default=None, doc="Networks that are not connected to (meshgw's own option).", effective="off")

    @property
    def access_format(self) -> str:
        """The form of the access log's lines."""
        return LINKERD

    def __attrs_post_init__(self) -> None:
        sni = [server.tls.sni for server in self.servers if server.tls is not None and server.tls.sni is not None]
        if any(one.ingress for one in sni) and not any(getattr(chosen.config, "gives_certificates", False) for chosen in self.identifier):
            raise ValueError("tls.sni.ingress needs an identifier that has certificates, such as io.l5d.ingress")
