"""The blocks of a Linkerd 1.x configuration file: the file itself and admin. The blocks of routers are re-exported here.

Source: linkerd-config spec 1.3, 2.1, 2.2 and 9.8; ``admin.authentication`` and ``admin.hostNames`` are our own. Kinds' blocks stand
beside what they configure.
"""

from __future__ import annotations

import pwd
import re
from typing import Any

import attrs

from meshgw.config.document import Chosen, at_least, option
from meshgw.config.http import HttpRouterConfig, HttpServerConfig
from meshgw.config.requests import ForwardedHeader, Labeler
from meshgw.config.router import BindingCache, RouterConfig, ServerConfig, SocketOptions
from meshgw.config.scoped import ClientBlock, ClientParams, HostConnectionPool, ServiceBlock, ServiceParams
from meshgw.config.tls import ServerTls, server_tls_notice
from meshgw.config.values import Ip, Port, Workers

__all__ = [
    "AdminAuthentication",
    "AdminConfig",
    "AdminSecurity",
    "BindingCache",
    "ClientBlock",
    "ClientParams",
    "Config",
    "ForwardedHeader",
    "HostConnectionPool",
    "HttpRouterConfig",
    "HttpServerConfig",
    "Labeler",
    "RouterConfig",
    "ServerConfig",
    "ServiceBlock",
    "ServiceParams",
    "SocketOptions",
    "UsageConfig",
]


_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def _host_names(value: Any) -> str | None:
    wrong = next((name for name in value if not _HOST_NAME.fullmatch(name)), None)
    return None if wrong is None else f"{wrong!r} is not a host name; expected one without scheme and port"


def _not_empty(value: Any) -> str | None:
    return None if value else "At least one router must be specified in the configuration."


def _known_user(value: Any) -> str | None:
    try:
        pwd.getpwnam(value)
    except KeyError:
        return f"there is no user {value!r} on this system"
    return None


def _threads(_value: Any) -> str | None:
    return "has no effect: the admin server shares the reactor of the process and needs no threads"


def _no_ingress(value: ServerTls) -> str | None:
    has_ingress = value.sni is not None and value.sni.ingress
    return "sni.ingress is for servers of routers; the admin server has no ingresses" if has_ingress else None


@attrs.frozen(kw_only=True)
class AdminSecurity:
    """Which admin pages are served. A path in the blacklist is refused; else its category or the whitelist must allow it."""

    ui_enabled: bool = option(default=True, doc="Serve the pages for people.")
    control_enabled: bool = option(default=True, doc="Serve what changes the process: shutdown, reload, log levels and tracing.")
    diagnostics_enabled: bool = option(default=True, doc="Serve every other path.")
    path_whitelist: tuple[re.Pattern[str], ...] = option(default=(), doc="Regular expressions over the whole request path, to be served.")
    path_blacklist: tuple[re.Pattern[str], ...] = option(default=(), doc="Regular expressions over the whole request path, to be refused.")


@attrs.frozen(kw_only=True)
class AdminAuthentication:
    """Tokens, each in a file of its own that is read again whenever it is needed, so that a rotated one counts at once.

    A token has at least 16 characters and is sent as `Authorization: Bearer TOKEN`; in browsers it is the password of any user.
    """

    operator_token_file: str = option(doc="File with the token that is needed to change something: shutdown, reload, log levels, tracing.")
    reader_token_file: str | None = option(
        default=None,
        doc="File with the token that is needed to read anything but `/admin/ping` and `/admin/ready`; the operator's will do as well.",
        effective="everybody may read",
    )


@attrs.frozen(kw_only=True)
class AdminConfig:
    """The admin server."""

    ip: Ip = option(default=Ip("127.0.0.1"), doc="Address to listen on.")
    port: Port = option(default=Port(9990), doc="Port to listen on.")
    shutdown_grace_ms: int = option(default=10000, doc="Milliseconds that requests in flight get at shutdown.", check=at_least(0))
    http_identifier_port: Port | None = option(
        default=None, doc="Port of a second listener that answers every request with the names its routers would give it.", effective="off"
    )
    socket_options: SocketOptions = option(factory=SocketOptions, doc="Options of the admin server's sockets.")
    security: AdminSecurity | None = option(default=None, doc="Which pages are served.", effective="all")
    authentication: AdminAuthentication | None = option(
        default=None, doc="Who may use the admin server; `/admin/reload` works only with it.", effective="everybody"
    )
    host_names: tuple[str, ...] = option(
        default=(),
        doc="Names by which browsers may reach the admin server, besides addresses, `localhost` and the machine's own host name.",
        check=_host_names,
    )
    worker_threads: int | None = option(
        default=None,
        doc="Linkerd's number of admin threads; accepted without effect, since admin shares the one reactor.",
        check=at_least(1),
        notice=_threads,
    )
    tls: ServerTls | None = option(
        default=None,
        doc="TLS of the admin server and of `httpIdentifierPort`; its files are read again when they change.",
        check=_no_ingress,
        notice=server_tls_notice,
        effective="off",
    )


@attrs.frozen(kw_only=True)
class UsageConfig:
    """Linkerd's usage reports. The block is accepted so that files need no change; nothing is ever sent."""

    org_id: str | None = option(default=None, doc="Linkerd's name of the organization; not used.")
    enabled: bool = option(default=True, doc="Accepted with either value; nothing is ever sent.")


@attrs.frozen(kw_only=True)
class Config:
    """The whole file."""

    admin: AdminConfig = option(factory=AdminConfig, doc="The admin server.")
    routers: tuple[Chosen, ...] = option(
        doc="The routers; at least one.",
        kinds="protocols",
        check=_not_empty,
    )
    namers: tuple[Chosen, ...] = option(default=(), doc="Sources of addresses; later ones are preferred.", kinds="namers")
    telemetry: tuple[Chosen, ...] = option(
        default=(), doc="Exporters of metrics and traces; `/admin/metrics.json` needs none.", kinds="telemeters"
    )
    workers: Workers = option(
        factory=lambda: Workers(1),
        doc="Processes that serve: a number, or `auto` for one per CPU. With more than one, a master binds the ports, keeps the "
        "workers running and serves admin for all of them.",
    )
    user: str | None = option(
        default=None,
        doc="User whose rights the serving processes keep when meshgw is started as root.",
        check=_known_user,
        effective="`nobody` for workers of a master, root for a single process",
    )
    usage: UsageConfig = option(factory=UsageConfig, doc="Linkerd's usage reports; nothing is ever sent.")
