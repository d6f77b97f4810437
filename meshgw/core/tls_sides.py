"""What the TLS connections of one listener, or those to one service, have in common: contexts, choice by server name, sessions, counters.

Source: linkerd-config spec 4.4; RFC 6066 section 3, RFC 7301 section 3.2 (alerts), RFC 8446 section 4.6.1 (tickets). New certificates,
authorities or settings make new contexts; connections that are open keep theirs. A new context also has new ticket keys, so that no
session outlives what it was verified with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from OpenSSL import SSL

from meshgw.core.certificates import CertificateStore, KeyPair
from meshgw.core.logger import make_logger
from meshgw.core.tls import (
    Check,
    CheckedConnection,
    ClientSettings,
    ServerSettings,
    TlsConfigError,
    choose_protocol,
    client_context,
    is_ip,
    server_context,
)
from meshgw.wire.client_hello import NO_APPLICATION_PROTOCOL, UNRECOGNIZED_NAME, ClientHello, HelloError

HANDSHAKE_SECONDS: Final = 10.0
"""How long a handshake may take: ample for two round trips and slow signatures, short enough to free what a silent peer holds."""
LOG_SECONDS: Final = 10.0
"""Failed handshakes are as many as callers like; of each kind one line is logged in this time, which tells how many there were."""
HTTP1: Final = b"http/1.1"
MOST_SESSIONS: Final = 256
"""Endpoints whose session is kept for one service; the oldest makes room."""

_log = make_logger()


class TlsServer:
    """The TLS of one listener: its settings, the certificates by name, and the counters of its handshakes."""

    def __init__(
        self,
        store: CertificateStore,
        settings: ServerSettings,
        *,
        clock: Callable[[], float],
        address: str,
        strict: bool = False,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        """``address`` is the listener's, for the log. With ``strict`` a client must ask for a name that a certificate is for."""
        self.store, self._settings, self._clock, self.address = store, settings, clock, address
        self._strict, self.handshake_seconds = strict, handshake_seconds
        self._contexts: dict[KeyPair, SSL.Context] = {}
        self._version = store.version
        self._logged: dict[str, tuple[float, int]] = {}
        self.handshakes = 0
        """Completed ones."""
        self.failures: Counter[str] = Counter()
        """Failed ones by kind: ``http``, ``garbage``, ``hello``, ``handshake``, ``timeout``, ``closed``."""

    @property
    def settings(self) -> ServerSettings:
        """The present settings."""
        return self._settings

    @settings.setter
    def settings(self, settings: ServerSettings) -> None:
        if settings != self._settings:
            self._settings = settings
            self._contexts.clear()

    def prepare(self, *, may_be_empty: bool = False) -> None:
        """Make all contexts now, so that a fault is known at start. Raises :class:`TlsConfigError`.

        With ``may_be_empty`` certificates may come later; until then nobody can be served.
        """
        if self.store.default is None and not may_be_empty:
            raise TlsConfigError(what=f"TLS on {self.address}", reason="there is no certificate")
        for pair in self.store.pairs:
            self._context(pair)

    def choose(self, hello: ClientHello) -> SSL.Context:
        """The context for what a client asks for. Raises :class:`HelloError` with the alert for a client that cannot be served."""
        pair = self.store.find(hello.server_name) if hello.server_name is not None else None
        if pair is None and self._strict:
            asked = f"no certificate for the server name {hello.server_name}" if hello.server_name else "no server name was sent"
            raise HelloError(reason=asked, alert=UNRECOGNIZED_NAME)
        pair = pair or self.store.default
        if pair is None:
            raise HelloError(reason="there is no certificate", alert=UNRECOGNIZED_NAME)
        ours = self._settings.alpn
        if ours and hello.alpn and choose_protocol(ours, hello.alpn) is None:
            offered = b", ".join(hello.alpn).decode("ascii", "backslashreplace")
            raise HelloError(reason=f"none of the protocols {offered} is served", alert=NO_APPLICATION_PROTOCOL)
        return self._context(pair)

    def _context(self, pair: KeyPair) -> SSL.Context:
        if self._version != self.store.version:
            known = set(self.store.pairs)
            self._contexts = {pair: context for pair, context in self._contexts.items() if pair in known}
            self._version = self.store.version
        context = self._contexts.get(pair)
        if context is None:
            context = self._contexts[pair] = server_context(pair, self._settings)
        return context

    def failed(self, kind: str, peer: str, reason: str) -> None:
        """Count a failed handshake, and log it unless one of this kind was logged a moment ago."""
        self.failures[kind] += 1
        if kind == "closed":  # health checks and scanners connect and leave
            _log.debug("TLS on {address}: {peer} left during the handshake: {reason}", address=self.address, peer=peer, reason=reason)
            return
        now = self._clock()
        since, kept = self._logged.get(kind, (now - LOG_SECONDS, 0))
        if now - since < LOG_SECONDS:
            self._logged[kind] = (since, kept + 1)
            return
        self._logged[kind] = (now, 0)
        _log.warn(
            "TLS on {address}: no connection with {peer}: {reason}{more}",
            address=self.address,
            peer=peer,
            reason=reason,
            more=f" ({kept} more of this kind since the last line)" if kept else "",
        )


class ClientSecurity:
    """The TLS settings of one ``tls`` block: its context, made at first use, and again when the settings change."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._context: SSL.Context | None = None

    @property
    def settings(self) -> ClientSettings:
        """The present settings."""
        return self._settings

    @settings.setter
    def settings(self, settings: ClientSettings) -> None:
        if settings != self._settings:
            self._settings, self._context = settings, None

    def check(self) -> None:
        """Make the context now. Raises :class:`TlsConfigError`."""
        self._context = client_context(self._settings)

    @property
    def context(self) -> SSL.Context:
        """The context for new connections. Raises :class:`TlsConfigError`."""
        if self._context is None:
            self._context = client_context(self._settings)
        return self._context


class TlsClient:
    """TLS to one service: the name its certificate must be for, and the newest session of each endpoint."""

    def __init__(self, security: ClientSecurity, name: str | None, *, handshake_seconds: float = HANDSHAKE_SECONDS) -> None:
        """``name`` is a host name or an IP address, sent as server name unless it is an address; None only without validation."""
        if name is None and security.settings.validate:
            raise TlsConfigError(what="", reason="tls is configured with validation but 'commonName' is not set")
        self._security, self.name, self.handshake_seconds = security, name, handshake_seconds
        self._server_name = _encoded(name) if name is not None and not is_ip(name) else None
        self._sessions: dict[str, SSL.Session] = {}
        self._newest: SSL.Session | None = None
        self._context: SSL.Context | None = None
        self.handshakes = self.resumed = self.failed = 0
        """Completed handshakes, those among them that resumed a session (as far as validation tells), and failed ones."""

    @property
    def validates(self) -> bool:
        """Whether certificates are verified."""
        return self._security.settings.validate

    @property
    def protocols(self) -> tuple[bytes, ...]:
        """What is offered by ALPN."""
        return self._security.settings.alpn

    def takes(self, agreed: bytes) -> bool:
        """Whether the connection can be used with what the endpoint chose; one that chose nothing speaks HTTP/1.1 (RFC 9113, 3.2)."""
        offered = self.protocols
        return not offered or agreed in offered or (not agreed and HTTP1 in offered)

    def has_session(self, endpoint: str) -> bool:
        """Whether a session with the endpoint can be resumed."""
        return endpoint in self._sessions

    def begin(self, endpoint: str) -> tuple[SSL.Connection, Check]:
        """A new connection's TLS, about to start. Raises :class:`TlsConfigError`."""
        context = self._security.context
        if context is not self._context:
            self._context, self._newest = context, None
            self._sessions.clear()
        connection = CheckedConnection(context, None)
        check = Check(self.name if self.validates else None)
        connection.check = check
        connection.set_connect_state()
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        session = self._sessions.get(endpoint, self._newest)  # endpoints of one service often share their ticket keys
        if session is not None:
            connection.set_session(session)
        return connection, check

    def keep(self, endpoint: str, connection: SSL.Connection) -> None:
        """Take over the session of an established connection for the next one."""
        if connection.get_context() is not self._context:
            return
        session = connection.get_session()
        if session is not None:
            if endpoint not in self._sessions and len(self._sessions) >= MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            self._sessions[endpoint] = self._newest = session

    def forget(self, endpoint: str) -> None:
        """A handshake failed: the next one starts afresh."""
        self._sessions.pop(endpoint, None)
        self._newest = None


def _encoded(name: str) -> bytes:
    try:
        return name.encode("ascii") if name.isascii() else name.encode("idna")
    except UnicodeError as error:
        raise TlsConfigError(what="commonName", reason=f"{name!r} cannot be a host name") from error
