"""Certificates of ingresses: the secrets that they name, each watched by its name, put into the stores of listeners that want them.

Source: Kubernetes' documentation of Ingress (``spec.tls``) and of secrets of type ``kubernetes.io/tls``. A certificate is shown for the
hosts that the ingress names and it is for, and no others; of two ingresses that name a host, the older one's counts. Keys are only in
memory, and in no message.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import attrs
from twisted.application.service import Service

from meshgw.backends.kubernetes import SECRETS, JsonObject, Name, Objects, Wanted
from meshgw.core.certificates import MOST_NAMES_SHOWN, CertificateStore, KeyPair, load_pair
from meshgw.core.live import Failed, Observation, Pending, State
from meshgw.core.logger import make_logger
from meshgw.identify.ingress_objects import Ingress, Problem, TlsEntry
from meshgw.identify.ingress_source import MOST_LOGGED, MOST_SHOWN, IngressSource
from meshgw.telemetry.metrics import Metrics

SOURCE: Final = "ingress"
"""The name of the certificates' source in a store."""
AWAITED: Final = "awaited: "
_CERTIFICATE, _KEY = "tls.crt", "tls.key"
_log = make_logger()


class _Secret:
    """One secret while an ingress names it: its certificate, the last good one if it was replaced by a bad one, and what is wrong."""

    def __init__(self, name: Name) -> None:
        self.label = "/".join(name)
        self.pair: KeyPair | None = None
        self.problem = ""
        self.observation: Observation | None = None
        self._loaded = b""
        self._shown: KeyPair | None = None

    def take(self, state: State[Objects]) -> None:
        """What the API tells of it."""
        if isinstance(state, Pending):
            self.problem = "" if self.pair is not None else f"{AWAITED}{state.waiting_for}"
        elif isinstance(state, Failed):
            self.problem = str(state.error)
        else:
            item = state.value.one()
            if item is None:
                self.pair, self.problem, self._loaded = None, f"there is no secret {self.label}", b""
            else:
                self._load(item)

    def _load(self, item: JsonObject) -> None:
        try:
            certificate, key = _decoded(item, _CERTIFICATE), _decoded(item, _KEY)
            digest = hashlib.sha256(b"%d %b%b" % (len(certificate), certificate, key)).digest()
            if digest != self._loaded:
                self.pair = load_pair(certificate, key, origin=f"secret {self.label}")
                self._loaded = digest
            self.problem = ""
        except ValueError as error:
            kept = ", so the one before stays in use" if self.pair is not None else ""
            self.problem = f"the certificate of secret {self.label} cannot be used{kept}: {error}"

    def shown_for(self, hosts: frozenset[str]) -> KeyPair:
        """The certificate for these hosts; the same object while nothing changed, so that its TLS contexts stay."""
        assert self.pair is not None
        shown = self._shown
        if shown is None or shown.certificate is not self.pair.certificate or shown.key is not self.pair.key or shown.names != hosts:
            shown = self._shown = attrs.evolve(self.pair, names=hosts)
        return shown


def _decoded(item: JsonObject, key: str) -> bytes:
    """A value of a secret. Raises ValueError."""
    data = item.get("data")
    text = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(text, str) or not text:
        raise ValueError(f"it has no {key}")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its {key} is not base64") from error


def covers(names: frozenset[str], host: str) -> bool:
    """Whether a certificate for ``names`` is one for ``host``, which may be a wildcard itself."""
    _, dot, rest = host.partition(".")
    return host in names or (bool(dot) and f"*.{rest}" in names)


class IngressCertificates(Service):
    """Keeps stores up to date with the certificates of the source's ingresses."""

    def __init__(self, source: IngressSource, *, now: Callable[[], datetime], metrics: Metrics) -> None:
        """``metrics`` is the scope ``ingress/tls`` of the router."""
        self._source, self._now = source, now
        self._stores: list[CertificateStore] = []
        self._secrets: dict[Name, _Secret] = {}
        self._pairs: tuple[KeyPair, ...] = ()
        self._problems: tuple[Problem, ...] = ()
        self._is_following = False
        self._updates = metrics.counter("updates")
        metrics.gauge("certificates", function=lambda: float(len(self._pairs)))
        metrics.gauge("problems", function=lambda: float(len(self._problems)))

    def add_store(self, store: CertificateStore) -> None:
        """Another store to keep up to date, before the start."""
        self._stores.append(store)

    def startService(self) -> None:
        """Begin to follow the secrets of the ingresses."""
        super().startService()  # type: ignore[no-untyped-call]
        self._source.on_rules.append(self._follow)
        self._follow()

    def stopService(self) -> None:
        """End that; the stores keep what they have."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._source.on_rules.remove(self._follow)
        for secret in self._secrets.values():
            if secret.observation is not None:
                secret.observation.close()
        self._secrets.clear()

    @property
    def _ingresses(self) -> Sequence[Ingress]:
        table = self._source.table
        return table.ingresses if table is not None else ()

    def _entries(self) -> Iterator[tuple[Ingress, TlsEntry, _Secret]]:
        for ingress in self._ingresses:
            for entry in ingress.tls:
                yield ingress, entry, self._secrets[ingress.namespace, entry.secret]

    def _follow(self) -> None:
        """Watch the secrets that the ingresses name now."""
        wanted = dict.fromkeys((ingress.namespace, entry.secret) for ingress in self._ingresses for entry in ingress.tls)
        for name in [name for name in self._secrets if name not in wanted]:
            gone = self._secrets.pop(name)
            if gone.observation is not None:
                gone.observation.close()
        self._is_following = True  # what is told at once is looked at together
        for name in wanted:
            if name not in self._secrets:
                secret = self._secrets[name] = _Secret(name)
                live = self._source.api.objects(Wanted(SECRETS, name[0], name[1]))
                secret.observation = live.observe(partial(self._changed, secret))
        self._is_following = False
        self._gather()

    def _changed(self, secret: _Secret, state: State[Objects]) -> None:
        secret.take(state)
        if not self._is_following:
            self._gather()

    def _gather(self) -> None:
        """Work out which certificate is for which host, and put them into the stores if that changed."""
        problems: list[Problem] = []
        hosts: dict[_Secret, dict[str, None]] = {}
        owners: dict[str, tuple[_Secret, str]] = {}
        entries = list(self._entries())
        for ingress, entry, secret in sorted(entries, key=lambda each: not each[1].hosts):  # those that name hosts come before all others
            if secret.problem:
                problems.append(Problem(ingress.label, entry.field, secret.problem))
            if secret.pair is None:
                continue
            problems += self._dated(ingress, entry, secret.pair)
            for host in entry.hosts or sorted(secret.pair.names):
                wrong = _refused(secret, host, owners)
                if wrong:
                    problems.append(Problem(ingress.label, entry.field, wrong))
                else:
                    owners.setdefault(host, (secret, ingress.label))
                    hosts.setdefault(secret, {})[host] = None
        self._put(tuple(secret.shown_for(frozenset(found)) for secret, found in hosts.items()), tuple(dict.fromkeys(problems)))

    def _dated(self, ingress: Ingress, entry: TlsEntry, pair: KeyPair) -> Iterator[Problem]:
        """It is shown nevertheless: callers are to see why they should not go on."""
        now, certificate = self._now(), pair.certificate
        if now > certificate.not_valid_after_utc:
            ended = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S}"
            yield Problem(ingress.label, entry.field, f"the certificate of {pair.origin} expired on {ended} UTC")
        elif now < certificate.not_valid_before_utc:
            begins = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M:%S}"
            yield Problem(ingress.label, entry.field, f"the certificate of {pair.origin} is not valid before {begins} UTC")

    def _put(self, pairs: tuple[KeyPair, ...], problems: tuple[Problem, ...]) -> None:
        known = set(self._problems)
        fresh = [problem for problem in problems if problem not in known and not problem.reason.startswith(AWAITED)]
        for problem in fresh[:MOST_LOGGED]:
            _log.warn("ingress {problem}", problem=str(problem))
        if pairs == self._pairs and problems == self._problems:
            return
        self._pairs, self._problems = pairs, problems
        self._updates.incr()
        errors = {f"{problem.object} {problem.field}": problem.reason for problem in problems}
        for store in self._stores:
            store.set(SOURCE, pairs, errors)

    def describe(self) -> dict[str, Any]:
        """The certificates in use and what is wrong, for admin; nothing of keys."""
        now = self._now()
        return {
            "certificates": [
                {
                    "secret": pair.origin.removeprefix("secret "),
                    "hosts": sorted(pair.names)[:MOST_NAMES_SHOWN],
                    "notAfter": pair.not_after.isoformat(),
                    "expired": now > pair.not_after,
                }
                for pair in self._pairs[:MOST_SHOWN]
            ],
            "certificateCount": len(self._pairs),
            "problems": [str(problem) for problem in self._problems[:MOST_SHOWN]],
        }


def _refused(secret: _Secret, host: str, owners: Mapping[str, tuple[_Secret, str]]) -> str:
    """Why the secret's certificate is not shown for ``host``; empty if it is."""
    assert secret.pair is not None
    if not covers(secret.pair.names, host):
        names = ", ".join(sorted(secret.pair.names)[:MOST_NAMES_SHOWN]) or "no names"
        return f"the certificate of secret {secret.label} is for {names}, not for {host}"
    owner = owners.get(host)
    if owner is not None and owner[0] is not secret:
        return f"the certificate for {host} comes from secret {owner[0].label} already, by {owner[1]}, which counts"
    return ""
