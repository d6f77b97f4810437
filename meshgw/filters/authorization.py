"""Decides who may call what: the rules of ``accessControl``, compiled, and the identifier that asks them.

Source: our own. It stands right behind identification: the logical name is known, and nothing of it was resolved yet, so that what is
refused costs neither a lookup nor a place in a cache. Rules that allow compare exactly; rules that deny compare generously, for letter case
and spelling must not be a way around them (``filters.reading`` for paths).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from meshgw.config.access import AccessControl, AccessRule, IdentityPattern
from meshgw.core.exchange import Exchange
from meshgw.core.logger import make_logger
from meshgw.errors import AccessDenied
from meshgw.filters.reading import folded, is_possibly_below, is_surely_below, path_of
from meshgw.kinds import Identified, Identifier
from meshgw.naming.path import Path
from meshgw.telemetry.metrics import Counter, Metrics

LOG_SECONDS: Final = 10.0
"""Refused requests are as many as callers like; of each rule one line is logged in this time, which tells how many there were."""
DEFAULT: Final = "default"
OVERRIDES: Final = "dtabOverrides"
_MOST_KNOWN: Final = 1024
_LONGEST_KNOWN: Final = 512
_LONGEST_SHOWN: Final = 200

_log = make_logger()


class Verdict:
    """What a rule, the default or the ban on overrides says, how often it did, and when that was logged."""

    __slots__ = ("hits", "is_allowed", "kept", "logged", "text")

    def __init__(self, text: str, *, is_allowed: bool, hits: Counter) -> None:
        self.text, self.is_allowed, self.hits = text, is_allowed, hits
        self.logged: float | None = None
        self.kept = 0


class _Rule:
    """One rule: what it compares, made ready once."""

    __slots__ = ("_identity", "_methods", "_path", "_service", "needs_path", "verdict")

    def __init__(self, rule: AccessRule, verdict: Verdict) -> None:
        match, self.verdict = rule.match, verdict
        exact = verdict.is_allowed
        identity, service, methods, path = match.identity, match.service, match.methods, match.path
        self._identity: IdentityPattern | None = identity if identity is None or exact else identity.folded()
        self._service: Path | None = service if service is None or exact else _lower(service)
        self._methods = None if methods is None else frozenset((method if exact else method.upper()).encode("ascii") for method in methods)
        self._path = None if path is None else path.segments if exact else folded(path.segments)
        self.needs_path = path is not None

    def fits(self, identity: str | None, method: bytes, name: Path) -> bool:
        """Whether it is about such requests, as far as the path does not matter."""
        if not self.verdict.is_allowed:
            identity, method = identity and identity.casefold(), method.upper()
        if self._methods is not None and method not in self._methods:
            return False
        if self._identity is not None and not self._identity.matches(identity):
            return False
        service = self._service
        if service is None:
            return True
        beginning = name.take(len(service))
        return (beginning if self.verdict.is_allowed else _lower(beginning)) == service

    def fits_path(self, path: bytes) -> bool:
        """Whether it is about requests for this path."""
        if self._path is None:
            return True
        return is_surely_below(self._path, path) if self.verdict.is_allowed else is_possibly_below(self._path, path)


def _lower(path: Path) -> Path:
    return Path(label.lower() for label in path)


class Access:
    """The rules of one router. ``clock`` is monotonic; ``metrics`` is the router's scope."""

    def __init__(self, config: AccessControl, *, clock: Callable[[], float], metrics: Metrics, label: str) -> None:
        scope = metrics.scope("access")
        self._clock, self._label = clock, label
        self._is_enforced = config.mode == "enforce"
        self._allowed = scope.counter("allowed")
        self._denied = scope.counter("denied" if self._is_enforced else "audited")
        self._rules = []
        for number, rule in enumerate(config.rules, 1):
            text = f"rule {number} ({rule.show()})"
            verdict = Verdict(text, is_allowed=rule.allow is not None, hits=scope.counter("rules", str(number)))
            self._rules.append(_Rule(rule, verdict))
        self._default = Verdict("the default", is_allowed=config.default == "allow", hits=scope.counter("rules", DEFAULT))
        self._override: Verdict | None = None
        if not config.dtab_overrides:
            text = "the ban on the caller's own delegations (dtabOverrides)"
            self._override = Verdict(text, is_allowed=False, hits=scope.counter("rules", OVERRIDES))
        self._known: dict[tuple[str | None, bytes, Path], tuple[_Rule, ...]] = {}

    def check(self, ex: Exchange, name: Path, target: bytes) -> None:
        """Count the request, and raise :class:`AccessDenied` if it may not pass. ``target`` is as the caller sent it."""
        secured = ex.secured
        identity = None if secured is None else secured.identity
        verdict = self._judge(ex, identity, name, target)
        verdict.hits.incr()
        if verdict.is_allowed:
            self._allowed.incr()
            return
        self._denied.incr()
        error = AccessDenied(
            rule=verdict.text,
            method=_shown(ex.method),
            caller=_shown(identity.encode()) if identity else "a caller without identity",
            service=name.show()[:_LONGEST_SHOWN],
        )
        self._tell(verdict, error, ex, target)
        if self._is_enforced:
            raise error

    def _judge(self, ex: Exchange, identity: str | None, name: Path, target: bytes) -> Verdict:
        if ex.dtab is not None and self._override is not None:
            return self._override
        path = None
        for rule in self._candidates(identity, ex.method, name):
            if rule.needs_path:
                if path is None:
                    path = path_of(target)
                if not rule.fits_path(path):
                    continue
            return rule.verdict
        return self._default

    def _candidates(self, identity: str | None, method: bytes, name: Path) -> tuple[_Rule, ...]:
        """The rules that only the path can exclude, up to the first one that it cannot."""
        key = (identity, method, name)
        found = self._known.get(key)
        if found is None:
            fitting = []
            for rule in self._rules:
                if rule.fits(identity, method, name):
                    fitting.append(rule)
                    if not rule.needs_path:
                        break
            found = tuple(fitting)
            if sum(map(len, name)) <= _LONGEST_KNOWN:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[key] = found
        return found

    def _tell(self, verdict: Verdict, error: AccessDenied, ex: Exchange, target: bytes) -> None:
        now = self._clock()
        if verdict.logged is not None and now - verdict.logged < LOG_SECONDS:
            verdict.kept += 1
            return
        kept, verdict.kept, verdict.logged = verdict.kept, 0, now
        _log.warn(
            "router {label}: {outcome}: {error}, path {path}, from {peer}{more}",
            label=self._label,
            outcome="refused" if self._is_enforced else "would be refused",
            error=error,
            path=_shown(path_of(target)),  # a query may hold secrets
            peer=ex.peer[0],
            more=f" ({kept} more of this rule since the last line)" if kept else "",
        )


def _shown(text: bytes) -> str:
    """Fit for a line of a log: callers may send anything."""
    shown = text[:_LONGEST_SHOWN].decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else "?" for char in shown)


class Authorized:
    """An identifier that gives names only to those who may use them."""

    __slots__ = ("_check", "_identify")

    def __init__(self, identifier: Identifier, access: Access) -> None:
        self._identify, self._check = identifier.identify, access.check

    def identify(self, ex: Exchange) -> Identified:
        """See :class:`meshgw.kinds.Identifier`. Raises :class:`AccessDenied`."""
        target = ex.target  # as it came: the identifier may cut it
        name = self._identify(ex)
        if isinstance(name, Path):
            self._check(ex, name, target)
        return name
