"""TLS as the configuration has it: a listener's certificates and settings, and how connections to services are made.

Source: linkerd-config spec 4.4; ARCHITECTURE.md, section 7 (who starts a watch ends it). What the file says becomes settings of
``core.tls``; a file that changes makes new ones, and one that turns bad leaves those before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from meshgw.backends.tls import ClientTlsFiles, read_trust
from meshgw.config.tls import ClientTls, ServerTls
from meshgw.config.values import Captures
from meshgw.core.certificates import CertificateStore
from meshgw.core.connecting import Dial, Unconfigured
from meshgw.core.logger import make_logger
from meshgw.core.reactor import Poller
from meshgw.core.secured import Secured
from meshgw.core.timers import Wheel
from meshgw.core.tls import ServerSettings, TlsConfigError
from meshgw.core.tls_connecting import TlsConnecting
from meshgw.core.tls_ends import ServerTlsConnection
from meshgw.core.tls_files import DirectorySource, PairFiles, PairSource, WatchedFiles
from meshgw.core.tls_sides import ClientSecurity, TlsClient, TlsServer
from meshgw.core.transport import Connection
from meshgw.errors import MeshError
from meshgw.telemetry.metrics import Metrics

DEFAULT_SOURCE = "certPath"
LISTED_SOURCE = "sni.certificates"
DIRECTORY_SOURCE = "sni.directory"

FAILURES = ("http", "garbage", "hello", "handshake", "timeout", "closed")
"""Why a handshake with a caller failed: plain HTTP, no TLS at all, no certificate or protocol for it, its certificate and the like."""

_log = make_logger()


class ListenerTls:
    """The TLS of one listener and the files behind it. ``store`` also takes certificates of other sources."""

    def __init__(self, config: ServerTls, *, reactor: Any, clock: Callable[[], float], address: str, alpn: tuple[bytes, ...] = ()) -> None:
        """``address`` is the listener's, for the log; ``alpn`` are the protocols it serves, the preferred first."""
        self.store = CertificateStore()
        self._config = config
        settings = ServerSettings(
            require_client_auth=config.require_client_auth, protocols=config.protocols, ciphers=config.ciphers, alpn=alpn
        )
        sni = config.sni
        self.server = TlsServer(
            self.store,
            settings,
            clock=clock,
            address=address,
            strict=sni is not None and sni.strict,
            handshake_seconds=config.handshake_timeout_ms / 1000,
        )
        self._authorities = (config.ca_cert_path,) if config.ca_cert_path is not None else ()
        self._watched = WatchedFiles(reactor, self._authorities, self._follow_authorities)
        self._sources: list[PairSource | DirectorySource] = []
        if config.cert_path is not None and config.key_path is not None:
            own = PairFiles(certificate=config.cert_path, key=config.key_path, intermediates=config.intermediate_certs_path)
            self._sources.append(PairSource(reactor, self.store, DEFAULT_SOURCE, [own]))
        if sni is not None and sni.certificates:
            listed = [PairFiles(certificate=one.cert_path, key=one.key_path) for one in sni.certificates]
            self._sources.append(PairSource(reactor, self.store, LISTED_SOURCE, listed, needs_names=True))
        if sni is not None and sni.directory is not None:
            self._sources.append(DirectorySource(reactor, self.store, DIRECTORY_SOURCE, sni.directory))

    def secure(self, raw: Connection, wheel: Wheel, peer: tuple[str, int], told: Callable[[Secured], None]) -> ServerTlsConnection:
        """TLS over an accepted connection; ``told`` is called when its handshake is done, with what is known then."""
        connection = ServerTlsConnection(raw, wheel, self.server, peer)

        def secured(error: MeshError | None) -> None:
            if error is None:
                told(self._facts(connection))

        connection.on_secured = secured
        return connection

    def _facts(self, connection: ServerTlsConnection) -> Secured:
        name = connection.server_name
        pair = (self.store.find(name) if name is not None else None) or self.store.default
        identity = connection.peer_identity() if self._config.require_client_auth else None
        return Secured(
            identity=None if identity is None else identity.name,
            server_name=name,
            certificate_names=frozenset() if pair is None else pair.names,
            version=connection.version,
            cipher=connection.cipher,
        )

    def count(self, metrics: Metrics) -> None:
        """Export the figures of the handshakes below ``metrics``, the listener's scope."""
        server = self.server
        metrics.follow("tls", "handshakes", function=lambda: server.handshakes)
        for kind in FAILURES:
            metrics.follow("tls", "failures", kind, function=partial(server.failures.__getitem__, kind))

    def load(self) -> None:
        """Read all files, before the listener serves. Raises :class:`TlsConfigError`."""
        for source in self._sources:
            source.load()
        self._watched.note()
        self._take_authorities()
        self.server.prepare(may_be_empty=self.wants_ingress)

    @property
    def wants_ingress(self) -> bool:
        """Whether the certificates of ingresses are to be put into the store."""
        sni = self._config.sni
        return sni is not None and sni.ingress

    def _take_authorities(self) -> None:
        self.server.settings = attrs.evolve(self.server.settings, trust=read_trust(self._authorities))

    def _follow_authorities(self) -> None:
        try:
            self._take_authorities()
        except TlsConfigError as error:
            _log.warn("the authorities of callers' certificates stay as they are: {reason}", reason=str(error))

    def start(self) -> None:
        """Begin to follow the files."""
        for source in (*self._sources, self._watched):
            source.start()

    def stop(self) -> None:
        """End that."""
        for source in (*self._sources, self._watched):
            source.stop()


class ClientTlsBlocks:
    """The ``tls`` blocks of a router's clients, each with its files, and how connections are made with them."""

    def __init__(self, poller: Poller, wheel: Wheel, reactor: Any, alpn: tuple[bytes, ...] = ()) -> None:
        self._poller, self._wheel, self._reactor, self._alpn = poller, wheel, reactor, alpn
        self._files: dict[ClientTls, ClientTlsFiles] = {}

    def dial(self, config: ClientTls | None, captures: Captures, metrics: Metrics) -> Dial | None:
        """How to connect with ``config``; None without TLS. What the prefix of its entry captured is in ``captures``.

        What is wrong with the configuration fails each connect, so that requests are told. ``metrics`` is the client's scope.
        """
        if config is None or not config.enabled:
            return None
        poller, wheel = self._poller, self._wheel
        try:
            client = TlsClient(self._security(config), config.name_for(captures))
        except TlsConfigError as problem:
            error = problem
            return lambda done, _prelude: Unconfigured(wheel, done, error)
        metrics.follow("tls", "handshakes", function=lambda: client.handshakes)
        metrics.follow("tls", "resumed", function=lambda: client.resumed)
        metrics.follow("tls", "failures", function=lambda: client.failed)
        return lambda done, prelude: TlsConnecting(poller, wheel, done, client, prelude)

    def _security(self, config: ClientTls) -> ClientSecurity:
        files = self._files.get(config)
        if files is None:
            files = ClientTlsFiles(config, reactor=self._reactor, alpn=self._alpn)
            security = files.security()
            self._files[config] = files
            files.start()
            return security
        return files.security()

    def stop(self) -> None:
        """End following the files."""
        for files in self._files.values():
            files.stop()
        self._files.clear()
