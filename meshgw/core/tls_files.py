"""Certificates out of files, kept up to date: single pairs, a directory of them, and other files that TLS is configured with.

Source: linkerd-config spec 4.4; the layouts that certificate tools and mounted Kubernetes secrets use: ``NAME.crt`` with ``NAME.key``,
and ``NAME/tls.crt`` with ``NAME/tls.key``. What cannot be read is refused with its reason, and what was good before stays. Files are
read at start and when they changed, never for a connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import attrs

from meshgw.core.certificates import CertificateStore, KeyPair, load_pair
from meshgw.core.files import FileWatcher
from meshgw.core.logger import make_logger
from meshgw.core.tls import TlsConfigError

LARGEST_FILE: Final = 4_000_000
"""Bytes read of one file: a system's whole bundle of authorities has a few hundred thousand."""

_log = make_logger()


def read_file(path: str) -> bytes:
    """The content of a file. Raises :class:`TlsConfigError`."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise TlsConfigError(what=path, reason=error.strerror or str(error)) from error
    if len(data) > LARGEST_FILE:
        raise TlsConfigError(what=path, reason=f"larger than {LARGEST_FILE} bytes")
    return data


@attrs.frozen(kw_only=True)
class PairFiles:
    """Where a certificate, its key and perhaps its intermediates are."""

    certificate: str
    key: str
    intermediates: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """All the files."""
        return tuple(path for path in (self.certificate, self.key, self.intermediates) if path is not None)

    def read(self) -> KeyPair:
        """Read them. Raises :class:`TlsConfigError`."""
        certificate, key = read_file(self.certificate), read_file(self.key)
        intermediates = read_file(self.intermediates) if self.intermediates is not None else b""
        try:
            return load_pair(certificate, key, intermediates=intermediates, origin=self.certificate)
        except ValueError as error:
            raise TlsConfigError(what=f"{self.certificate} with {self.key}", reason=str(error)) from error


class WatchedFiles:
    """Calls ``on_change`` when any of some files may have changed."""

    def __init__(self, reactor: Any, paths: Iterable[str], on_change: Callable[[], None]) -> None:
        self._watchers = [FileWatcher(reactor, path, on_change) for path in dict.fromkeys(paths)]

    def note(self) -> None:
        """They are about to be read: what changes from now on is told, once watching has begun."""
        for watcher in self._watchers:
            watcher.note()

    def start(self) -> None:
        """Begin to watch."""
        for watcher in self._watchers:
            watcher.start()

    def stop(self) -> None:
        """End watching."""
        for watcher in self._watchers:
            watcher.stop()


class _Kept:
    """The pairs of one source that were good when last read, by where they come from, and what is wrong with the others."""

    def __init__(self, store: CertificateStore, source: str) -> None:
        self._store, self._source = store, source
        self._good: dict[str, KeyPair] = {}
        self._errors: dict[str, str] = {}

    def take(self, files: Iterable[PairFiles], others: dict[str, str], *, needs_names: bool) -> None:
        """Read all again and publish them; each reason is logged when it is new."""
        good: dict[str, KeyPair] = {}
        errors = dict(others)
        for one in files:
            try:
                pair = one.read()
                if needs_names and not pair.names:
                    raise TlsConfigError(what=one.certificate, reason="no DNS name in its subjectAltName, so it can be for no server name")
                good[one.certificate] = pair
            except TlsConfigError as error:
                errors[one.certificate] = str(error)
                before = self._good.get(one.certificate)
                if before is not None:
                    good[one.certificate] = before
        for origin, text in errors.items():
            if self._errors.get(origin) != text:
                kept = "; the one before stays" if origin in good else ""
                _log.warn("TLS certificate refused: {reason}{kept}", reason=text, kept=kept)
        self._good, self._errors = good, errors
        self._store.set(self._source, list(good.values()), errors)


class PairSource:
    """Certificates listed by their files, as one source of ``store``."""

    def __init__(
        self, reactor: Any, store: CertificateStore, source: str, files: Iterable[PairFiles], *, needs_names: bool = False
    ) -> None:
        """With ``needs_names`` a certificate without a DNS name is an error."""
        self._files, self._needs_names = tuple(files), needs_names
        self._kept = _Kept(store, source)
        self._watched = WatchedFiles(reactor, [path for one in self._files for path in one.paths], self._load)

    def load(self) -> None:
        """Read them for the first time, when each must be good. Raises :class:`TlsConfigError`."""
        self._watched.note()
        for one in self._files:
            pair = one.read()
            if self._needs_names and not pair.names:
                raise TlsConfigError(what=one.certificate, reason="no DNS name in its subjectAltName, so it can be for no server name")
        self._load()

    def _load(self) -> None:
        self._kept.take(self._files, {}, needs_names=self._needs_names)

    def start(self) -> None:
        """Begin to follow changes."""
        self._watched.start()

    def stop(self) -> None:
        """End that."""
        self._watched.stop()


class DirectorySource:
    """All the certificates in a directory, as one source of ``store``; a bad one does not keep the others from being used."""

    def __init__(self, reactor: Any, store: CertificateStore, source: str, directory: str) -> None:
        self._directory = directory
        self._kept = _Kept(store, source)
        self._watcher = FileWatcher(reactor, directory, self._load, recursive=True)

    def load(self) -> None:
        """Read the directory for the first time. Raises :class:`TlsConfigError` if it cannot be listed."""
        self._watcher.note()
        try:
            os.listdir(self._directory)
        except OSError as error:
            raise TlsConfigError(what=self._directory, reason=error.strerror or str(error)) from error
        self._load()

    def _load(self) -> None:
        errors: dict[str, str] = {}
        try:
            files = list(pairs_in(self._directory, errors))
        except OSError as error:
            _log.warn("TLS certificates of {directory} stay as they are: {reason}", directory=self._directory, reason=error.strerror)
            return
        self._kept.take(files, errors, needs_names=True)

    def start(self) -> None:
        """Begin to follow changes."""
        self._watcher.start()

    def stop(self) -> None:
        """End that."""
        self._watcher.stop()


def pairs_in(directory: str, errors: dict[str, str]) -> Iterator[PairFiles]:
    """The pairs in a directory by name; ``errors`` takes certificates without a key. Raises OSError."""
    for name in sorted(os.listdir(directory)):
        if name.startswith("."):  # ``..data`` and its kin, through which mounted secrets are swapped
            continue
        path = os.path.join(directory, name)
        certificate, key = os.path.join(path, "tls.crt"), os.path.join(path, "tls.key")
        if name.endswith(".crt") and not os.path.isdir(path):
            certificate, key = path, f"{path[:-4]}.key"
        elif not os.path.isfile(certificate):
            continue
        if os.path.exists(key):
            yield PairFiles(certificate=certificate, key=key)
        elif os.path.basename(certificate) != "ca.crt":  # which mounted secrets have beside their pair
            errors[certificate] = f"{certificate}: its key {key} does not exist"
