"""The rules of all ingresses as one table: which service a host and a path lead to, and which ingresses count at all.

Source: linkerd-config spec 5.2; Kubernetes' documentation of path types, host names with wildcards, and ingress classes. The table knows
no protocol: a host and a path go in. It is replaced as a whole when an object changes, and never mutated.

Precedence: the exact host before a wildcard before rules for any host; within a host an exact path, then regular expressions in their
order, then the longest prefix, then rules without a path; last the default backend. Of two ingresses that say the same, the older counts.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from meshgw.identify.ingress_objects import Backend, Ingress, IngressClass, PathKind, Problem, Rule
from meshgw.identify.path_pattern import PathPattern

DEFAULT_CLASS: Final = "linkerd"
DEFAULT_CONTROLLER: Final = "meshgw.io/ingress-controller"


class Claim(enum.Enum):
    """Whose an ingress is."""

    OURS = "ours"
    NOBODYS = "nobody's"
    """It names no class: it is used, but its status is not ours to write, since other controllers may use it too."""
    OTHERS = "others'"


@attrs.frozen(kw_only=True)
class Ownership:
    """Which ingresses are served: those annotated with the class ``name``, or whose class is called so or belongs to ``controller``."""

    name: str = DEFAULT_CLASS
    controller: str = DEFAULT_CONTROLLER
    takes_unclaimed: bool = True
    """Ingresses without any class are served too, as Linkerd does."""

    def claim(self, ingress: Ingress, classes: Mapping[str, IngressClass]) -> Claim:
        """Whose ``ingress`` is; ``classes`` are the known ones by name."""
        if ingress.annotated is not None:  # older than classes as objects, and of the two the one that counts
            return Claim.OURS if ingress.annotated == self.name else Claim.OTHERS
        if ingress.class_name is not None:
            found = classes.get(ingress.class_name)
            if ingress.class_name == self.name or (found is not None and found.controller == self.controller):
                return Claim.OURS
            return Claim.OTHERS
        if any(one.is_default and one.controller == self.controller for one in classes.values()):
            return Claim.OURS
        return Claim.NOBODYS if self.takes_unclaimed else Claim.OTHERS

    def needs_classes(self, ingresses: Iterable[Ingress]) -> bool:
        """Whether the answer depends on IngressClass objects, which take a right of their own to read."""
        return any(self._depends_on_class(ingress) for ingress in ingresses)

    def _depends_on_class(self, ingress: Ingress) -> bool:
        if ingress.annotated is not None or ingress.class_name == self.name:
            return False
        return ingress.class_name is not None or not self.takes_unclaimed


def host_of(authority: bytes) -> str:
    """The host of a Host header or ``:authority``: in lower case, without port and final dot; brackets of an IPv6 address stay."""
    text = authority.decode("latin-1").lower()
    if text.startswith("["):
        return text[: text.find("]") + 1]
    return text.partition(":")[0].removesuffix(".")


def path_of(target: bytes) -> str:
    """The path of a request target, as it came: without query, escapes untouched."""
    return target.partition(b"?")[0].decode("latin-1")


class _HostRules:
    """The rules of one host."""

    __slots__ = ("_catch_all", "_exact", "_longest", "_patterns", "_prefixes")

    def __init__(self) -> None:
        self._exact: dict[str, tuple[Backend, str]] = {}
        self._prefixes: dict[str, tuple[Backend, str]] = {}
        self._patterns: dict[str, tuple[PathPattern, tuple[Backend, str]]] = {}
        self._catch_all: tuple[Backend, str] | None = None
        self._longest = 0

    def add(self, rule: Rule, owner: str) -> tuple[Backend, str] | None:
        """Take the rule; one that says the same and came before it stays, and is returned."""
        entry = (rule.backend, owner)
        if rule.pattern is not None:
            former = self._patterns.setdefault(rule.path, (rule.pattern, entry))[1]
        elif rule.kind is PathKind.EXACT:
            former = self._exact.setdefault(rule.path, entry)
        elif rule.kind is PathKind.PREFIX:
            prefix = rule.path.removesuffix("/")
            self._longest = max(self._longest, len(prefix))
            former = self._prefixes.setdefault(prefix, entry)
        else:
            former = self._catch_all = self._catch_all or entry
        return former if former is not entry and former != entry else None

    def find(self, path: str) -> Backend | None:
        """Where ``path`` leads."""
        found = self._exact.get(path)
        if found is not None:
            return found[0]
        for pattern, (backend, _) in self._patterns.values():
            if pattern.matches(path):
                return backend
        found = self._longest_prefix(path) or self._catch_all
        return found[0] if found is not None else None

    def _longest_prefix(self, path: str) -> tuple[Backend, str] | None:
        prefixes = self._prefixes
        if not prefixes or not path.startswith("/"):
            return None
        at = path[: self._longest + 1]
        while True:
            found = prefixes.get(at)
            if found is not None or not at:
                return found
            at = at[: at.rfind("/")]


@attrs.frozen
class Default:
    """A default backend and the ingress that names it."""

    backend: Backend
    owner: str


class RuleTable:
    """The rules of the served ingresses. ``problems`` are those of the objects and those between them."""

    def __init__(self, ingresses: Iterable[Ingress] = (), *, ignore_defaults: bool = False, further: Iterable[Problem] = ()) -> None:
        """``further`` problems are those of ingresses that are not served."""
        self.ingresses: Sequence[Ingress] = sorted(ingresses, key=lambda ingress: ingress.age_key)
        self.default: Default | None = None
        self.size = 0
        """How many rules there are."""
        self._hosts: dict[str, _HostRules] = {}
        problems: list[Problem] = []
        for ingress in self.ingresses:
            problems += ingress.problems
            for rule in ingress.rules:
                problem = self._add(rule, ingress.label)
                if problem is not None:
                    problems.append(problem)
            if ingress.default is not None and not ignore_defaults:
                problem = self._add_default(ingress.default, ingress.label)
                if problem is not None:
                    problems.append(problem)
        self.problems = (*problems, *further)

    def _add(self, rule: Rule, owner: str) -> Problem | None:
        rules = self._hosts.get(rule.host)
        if rules is None:
            rules = self._hosts[rule.host] = _HostRules()
        former = rules.add(rule, owner)
        if former is None:
            self.size += 1
            return None
        backend, by = former
        if backend == rule.backend:
            return None  # said twice
        what = f"{rule.kind.value} {rule.path!r}" if rule.path else "all paths"
        reason = f"{what} of {rule.host or 'any host'} leads to {backend.show()} already, by {by}, which counts"
        return Problem(owner, rule.field, reason)

    def _add_default(self, backend: Backend, owner: str) -> Problem | None:
        if self.default is None:
            self.default = Default(backend, owner)
        if self.default.backend == backend:
            return None
        reason = f"the default backend is {self.default.backend.show()} already, by {self.default.owner}, which counts"
        return Problem(owner, "spec.defaultBackend", reason)

    def find(self, host: str, path: str) -> Backend | None:
        """Where a request for ``host`` (see :func:`host_of`) and ``path`` leads."""
        hosts = self._hosts
        first, _, rest = host.partition(".")
        for key in (host, f"*.{rest}" if first and rest else "", ""):
            rules = hosts.get(key)
            if rules is not None:
                found = rules.find(path)
                if found is not None:
                    return found
        return self.default.backend if self.default is not None else None
