"""What a router's role and rules put around its parts: who may call, where it may connect, and what its listeners insist on.

Source: ARCHITECTURE.md section 2, steps 2 to 4. Each guard is only there where the configuration asks for it.
"""

from __future__ import annotations

from collections.abc import Callable

from meshgw.config.http import HttpServerConfig
from meshgw.config.requests import RequestRouterConfig, RequestServerConfig
from meshgw.filters.authorization import Access, Authorized
from meshgw.filters.https import CheckServerName, RedirectToHttps, StrictTransport
from meshgw.filters.identity import ClientId
from meshgw.kinds import Identifier, Interpreter
from meshgw.telemetry.metrics import Metrics
from meshgw.transform.external import ExternalOnly


def guarded_interpreter(config: RequestRouterConfig, interpreter: Interpreter) -> Interpreter:
    """The router's interpreter, without the addresses that it may not connect to."""
    egress = config.egress
    if egress is None:
        return interpreter
    return ExternalOnly(interpreter, denied=egress.deny_networks, allowed=egress.allow_networks)


def guarded_identifier(
    config: RequestRouterConfig, *, clock: Callable[[], float], metrics: Metrics, label: str
) -> Callable[[Identifier], Identifier]:
    """What puts the router's rules behind an identifier. ``metrics`` is the router's scope; one set of counters is for all listeners."""
    if config.access_control is None:
        return lambda identifier: identifier
    access = Access(config.access_control, clock=clock, metrics=metrics, label=label)
    return lambda identifier: Authorized(identifier, access)


# --- filters of a listener, None where they are not needed


def strict_transport(server: RequestServerConfig) -> StrictTransport | None:
    """See :class:`meshgw.filters.https.StrictTransport`."""
    hsts = server.hsts
    if hsts is None or server.tls is None:
        return None
    return StrictTransport(max_age=hsts.max_age, include_sub_domains=hsts.include_sub_domains, preload=hsts.preload)


def redirect_to_https(server: RequestServerConfig) -> RedirectToHttps | None:
    """See :class:`meshgw.filters.https.RedirectToHttps`."""
    redirect = server.redirect_to_https if isinstance(server, HttpServerConfig) else None
    return None if redirect is None else RedirectToHttps(port=redirect.port, status=redirect.status)


def check_server_name(server: RequestServerConfig) -> CheckServerName | None:
    """See :class:`meshgw.filters.https.CheckServerName`; without a word in the file it is for listeners with several certificates."""
    if server.tls is None:
        return None
    wanted = server.check_server_name
    if wanted is None:
        wanted = server.tls.sni is not None
    return CheckServerName() if wanted else None


def client_id(server: RequestServerConfig) -> ClientId | None:
    """See :class:`meshgw.filters.identity.ClientId`; for listeners whose callers show certificates."""
    return ClientId() if server.tls is not None and server.tls.require_client_auth else None
