"""The blocks of a router that all protocols have in common: the router itself, its servers, socket options, caches.

Source: linkerd-config spec 4.1 to 4.3 and 4.9. The ``client`` and ``service`` blocks are in ``config.scoped``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs

from meshgw.config.document import Chosen, at_least, one_of, option
from meshgw.config.edge import ProxyProtocol
from meshgw.config.scoped import CLIENT_BLOCKS, GLOBAL, SERVICE_BLOCKS, ClientBlock, GlobalClient, GlobalService, ServiceBlock, Session
from meshgw.config.tls import ServerTls, server_tls_notice
from meshgw.config.values import Ip, Port
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path


@attrs.frozen(kw_only=True)
class SocketOptions:
    """Options of listening and accepted sockets."""

    no_delay: bool = option(default=True, doc="Send small segments at once (TCP_NODELAY).")
    reuse_addr: bool = option(default=True, doc="Bind although old connections linger (SO_REUSEADDR).")
    reuse_port: bool = option(default=False, doc="Let several processes bind the same address (SO_REUSEPORT; Linux 3.9 or later).")
    keep_alive: bool | None = option(default=None, doc="Probe idle connections (SO_KEEPALIVE).", effective="on")
    backlog: int | None = option(
        default=None, doc="Length of the queue of connections to accept.", check=at_least(1), effective="1024, bounded by the system"
    )
    later: ClassVar[Mapping[str, str]] = {
        "readTimeoutMs": "read timeout of connections",
        "writeTimeoutMs": "write timeout of connections",
    }


@attrs.frozen(kw_only=True)
class BindingCache:
    """Limits of a router's caches of names."""

    paths: int = option(default=1000, doc="Most logical names kept.", check=at_least(1))
    trees: int = option(default=1000, doc="Most name trees kept.", check=at_least(1))
    bounds: int = option(default=1000, doc="Most bound names kept.", check=at_least(1))
    clients: int = option(default=1000, doc="Most clients kept.", check=at_least(1))
    idle_ttl_secs: int = option(default=600, doc="Seconds without use after which an entry is released.", check=at_least(1))


@attrs.frozen(kw_only=True)
class ServerConfig:
    """One listener, as far as all protocols have it in common."""

    port: Port = option(default=Port(0), doc="Port to listen on; 0 lets the system choose.")
    ip: Ip = option(default=Ip("127.0.0.1"), doc="Address to listen on.")
    label: str | None = option(
        default=None, doc="Accepted as in Linkerd, where it names nothing: the metrics scope is `server/<ip>/<port>`."
    )
    clear_context: bool = option(
        default=False, doc="Remove all `l5d-*` headers of the caller and what it says of traces, and `l5d-*` of the answer."
    )
    max_concurrent_requests: int | None = option(
        default=None,
        doc="Most requests served at once; one more is answered 503 at once, with a nack that callers may send again elsewhere.",
        check=at_least(1),
        effective="unlimited",
    )
    timeout_ms: int | None = option(
        default=None, doc="Milliseconds from a request's arrival to the beginning of its answer.", check=at_least(1), effective="unlimited"
    )
    server_session: Session = option(factory=Session, doc="How long connections of callers are kept.")
    socket_options: SocketOptions = option(factory=SocketOptions, doc="Options of the listener's sockets.")
    proxy_protocol: ProxyProtocol | None = option(
        default=None, doc="Take callers' addresses from the PROXY headers of load balancers (meshgw's own option).", effective="off"
    )
    tls: ServerTls | None = option(default=None, doc="TLS of the listener.", effective="off", notice=server_tls_notice)
    announce: tuple[Path, ...] = option(
        default=(), doc="Names under which the router's announcers tell others of this server, for example `/#/io.l5d.serversets/prod/web`."
    )


@attrs.frozen(kw_only=True)
class RouterConfig:
    """One router, as far as all protocols have it in common. A protocol's class refines ``label`` and ``servers``."""

    label: str = option(default="", doc="Name in metrics and admin pages, unique in the file; by default the protocol's.")
    servers: tuple[ServerConfig, ...] = option(default=(), doc="Where the router listens; at least one.")
    dtab: Dtab = option(factory=lambda: Dtab.EMPTY, doc="Delegation rules; later ones are preferred.")
    dst_prefix: Path = option(default=Path.of("svc"), doc="Put before every name an identifier gives.")
    originator: bool = option(default=False, doc="Count this router as the first of a chain: the gauge `rt/<label>/originator` is 1.")
    binding_timeout_ms: int = option(
        default=10000, doc="Milliseconds to resolve a name and connect to it for a request.", check=at_least(1)
    )
    binding_cache: BindingCache = option(factory=BindingCache, doc="Limits of the caches of names.")
    processes: str = option(
        default="shared",
        doc="`own` gives this router a group of worker processes of its own, as many as `workers` says; `shared` serves it together "
        "with the others.",
        check=one_of("shared", "own"),
    )
    interpreter: Chosen = option(doc="What resolves names.", kinds="interpreters", default_kind="default")
    client: ClientBlock = option(factory=GlobalClient, doc="Parameters of clients.", variants=CLIENT_BLOCKS, default_variant=GLOBAL)
    service: ServiceBlock = option(factory=GlobalService, doc="Parameters of services.", variants=SERVICE_BLOCKS, default_variant=GLOBAL)
    announcers: tuple[Chosen, ...] = option(
        default=(), kinds="announcers", doc="Where servers are announced; each takes the names that begin with `/#` and its prefix."
    )
