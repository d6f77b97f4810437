"""The ``tls`` block of a client as the configuration has it, with the files behind it; clients of services and of backends share it.

Source: linkerd-config spec 4.4. A file that changes makes new settings of ``core.tls``, and one that turns bad leaves those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from meshgw.config.tls import ClientTls
from meshgw.core.certificates import KeyPair, load_certificates, load_pair
from meshgw.core.logger import make_logger
from meshgw.core.tls import ClientSettings, TlsConfigError
from meshgw.core.tls_files import PairFiles, WatchedFiles, read_file
from meshgw.core.tls_sides import ClientSecurity

_log = make_logger()


def read_trust(paths: Sequence[str]) -> bytes:
    """The PEM of all authorities in some files; empty without files. Raises :class:`TlsConfigError`."""
    texts = []
    for path in paths:
        text = read_file(path)
        try:
            load_certificates(text)
        except ValueError as error:
            raise TlsConfigError(what=path, reason=str(error)) from error
        texts.append(text)
    return b"\n".join(texts)


@attrs.frozen(kw_only=True)
class TlsMaterial:
    """PEM that is in memory and in no file: authorities to trust, and a certificate with its key. It counts besides the files."""

    trust: bytes = attrs.field(default=b"", repr=False)
    certificate: bytes = attrs.field(default=b"", repr=False)
    key: bytes = attrs.field(default=b"", repr=False)
    origin: str = ""
    """Where it comes from, for messages."""

    def checked_trust(self) -> bytes:
        """The authorities. Raises :class:`TlsConfigError` if there are some and they cannot be read."""
        if self.trust:
            try:
                load_certificates(self.trust)
            except ValueError as error:
                raise TlsConfigError(what=self.origin, reason=f"certificate authority: {error}") from error
        return self.trust

    def pair(self) -> KeyPair | None:
        """The certificate with its key. Raises :class:`TlsConfigError`."""
        if not self.certificate:
            return None
        try:
            return load_pair(self.certificate, self.key, origin=self.origin)
        except ValueError as error:
            raise TlsConfigError(what=self.origin, reason=f"client certificate: {error}") from error


class ClientTlsFiles:
    """The TLS of one client block and the files behind it; ``material`` is what is in no file."""

    def __init__(self, config: ClientTls, *, reactor: Any, alpn: tuple[bytes, ...] = (), material: TlsMaterial | None = None) -> None:
        self._config, self._alpn, self._material = config, alpn, material or TlsMaterial()
        own = config.client_auth
        self._pair = None
        if own is not None:
            self._pair = PairFiles(certificate=own.cert_path, key=own.key_path, intermediates=own.intermediate_certs_path)
        paths = (*config.trust_files, *(self._pair.paths if self._pair is not None else ()))
        self._watched = WatchedFiles(reactor, paths, self._follow)
        self._security: ClientSecurity | None = None

    def security(self) -> ClientSecurity:
        """What connections are made with; read at first use. Raises :class:`TlsConfigError`."""
        if self._security is None:
            problem = self._config.problem()
            if problem is not None:
                raise TlsConfigError(what="", reason=problem)
            self._watched.note()
            security = ClientSecurity(self._read())
            security.check()
            self._security = security
        return self._security

    def _read(self) -> ClientSettings:
        config = self._config
        return ClientSettings(
            validate=not config.disable_validation,
            trust=b"\n".join(filter(None, (read_trust(config.trust_files), self._material.checked_trust()))),
            pair=self._pair.read() if self._pair is not None else self._material.pair(),
            protocols=config.protocols,
            alpn=self._alpn,
        )

    def _follow(self) -> None:
        security = self._security
        if security is None:
            return  # the next use reads them
        try:
            settings = self._read()
            ClientSecurity(settings).check()
        except TlsConfigError as error:
            _log.warn("TLS to services stays as it is: {reason}", reason=str(error))
        else:
            security.settings = settings

    def start(self) -> None:
        """Begin to follow the files."""
        self._watched.start()

    def stop(self) -> None:
        """End that."""
        self._watched.stop()
