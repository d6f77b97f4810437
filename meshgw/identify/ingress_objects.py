"""Ingress and IngressClass objects of Kubernetes, as far as they say what is routed where: JSON in, values out.

Source: linkerd-config spec 5.2; Kubernetes' API reference for ``networking.k8s.io/v1``, ``networking.k8s.io/v1beta1`` and
``extensions/v1beta1``, which are read alike since an API server shows the same object in each. What is wrong with an object is told
beside what is good in it, and never raised. Which rule wins is ``identify.ingress_rules``' business.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import attrs

from meshgw.identify.path_pattern import PathPattern

CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"
DEFAULT_CLASS_ANNOTATION: Final = "ingressclass.kubernetes.io/is-default-class"
MOST_PROBLEMS: Final = 20
"""Told of one object."""
_LONGEST_SHOWN: Final = 80
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\]")
_SERVICE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_PORT_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")

_Made = TypeVar("_Made")


class PathKind(enum.Enum):
    """How a rule's path is compared."""

    EXACT = "Exact"
    PREFIX = "Prefix"
    PATTERN = "ImplementationSpecific"
    """As Linkerd does: a regular expression that the whole path has to match."""


@attrs.frozen(order=True)
class Problem:
    """What is wrong with ``field`` of an object, which is named ``namespace/name``."""

    object: str
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.object}: {self.field}: {self.reason}"


@attrs.frozen
class Backend:
    """A port, by number or name, of a service."""

    namespace: str
    service: str
    port: str

    def show(self) -> str:
        """For messages."""
        return f"{self.namespace}/{self.service}:{self.port}"


@attrs.frozen
class Rule:
    """Requests for ``host`` (empty: any) whose path fits go to ``backend``. ``pattern`` is set for :attr:`PathKind.PATTERN`."""

    host: str
    kind: PathKind
    path: str
    backend: Backend
    field: str
    pattern: PathPattern | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class TlsEntry:
    """The hosts that a secret's certificate is to be shown for; none means whatever the certificate is for."""

    secret: str
    hosts: tuple[str, ...]
    field: str


@attrs.frozen(kw_only=True)
class Ingress:
    """What one object says. ``created`` is the API's time stamp, ``annotated`` the class by annotation, ``class_name`` that of its spec."""

    namespace: str
    name: str
    created: str = ""
    annotated: str | None = None
    class_name: str | None = None
    rules: tuple[Rule, ...] = ()
    default: Backend | None = None
    tls: tuple[TlsEntry, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def label(self) -> str:
        """``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    @property
    def age_key(self) -> tuple[bool, str, str, str]:
        """Sorts the oldest first; the names settle what the time stamps, which count seconds, leave open."""
        return (not self.created, self.created, self.namespace, self.name)


@attrs.frozen
class IngressClass:
    """The controller that a class is for, and whether it is that of ingresses that name none."""

    controller: str
    is_default: bool = False


def read_class(item: object) -> IngressClass:
    """An IngressClass object."""
    annotations = _mapping(_mapping(_mapping(item).get("metadata")).get("annotations"))
    controller = _mapping(_mapping(item).get("spec")).get("controller")
    return IngressClass(controller if isinstance(controller, str) else "", annotations.get(DEFAULT_CLASS_ANNOTATION) == "true")


def read_ingress(namespace: str, name: str, item: object) -> Ingress:
    """An Ingress object; whatever it may be, it is read as far as it goes."""
    return _Reader(namespace, name).read(_mapping(item))


def shown(value: object) -> str:
    """Fit for a message: it comes from whoever may write objects."""
    text = repr(value) if isinstance(value, str | int | float | bool) or value is None else f"a {_KINDS.get(type(value), 'strange value')}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


_KINDS: Final[Mapping[type, str]] = {dict: "mapping", list: "list"}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


class _Reader:
    """Reads one object, gathering its problems."""

    def __init__(self, namespace: str, name: str) -> None:
        self._namespace, self._name = namespace, name
        self._problems: list[Problem] = []

    def read(self, item: Mapping[str, object]) -> Ingress:
        metadata, spec = self._block(item, "metadata"), self._block(item, "spec")
        annotations = _mapping(metadata.get("annotations"))
        created, annotated, class_name = metadata.get("creationTimestamp"), annotations.get(CLASS_ANNOTATION), spec.get("ingressClassName")
        field = "spec.defaultBackend" if "defaultBackend" in spec else "spec.backend"
        default = spec.get(field.removeprefix("spec."))
        backend = self._tried(field, lambda: _backend(self._namespace, default)) if default is not None else None
        rules = tuple(self._rules(spec, backend))
        hosts = tuple(dict.fromkeys(rule.host for rule in rules if rule.host))
        return Ingress(
            namespace=self._namespace,
            name=self._name,
            created=created if isinstance(created, str) else "",
            annotated=annotated if isinstance(annotated, str) else None,
            class_name=class_name if isinstance(class_name, str) and class_name else None,
            rules=rules,
            default=backend,
            tls=tuple(self._tls(spec, hosts)),
            problems=tuple(self._problems[:MOST_PROBLEMS]),
        )

    # --- problems

    def _tell(self, field: str, reason: str) -> None:
        self._problems.append(Problem(f"{self._namespace}/{self._name}", field, reason))

    def _tried(self, field: str, make: Callable[[], _Made]) -> _Made | None:
        try:
            return make()
        except _Wrong as wrong:
            self._tell(f"{field}{wrong.field}", wrong.reason)
            return None

    def _block(self, item: Mapping[str, object], name: str, field: str = "") -> Mapping[str, object]:
        value = item.get(name)
        if value is not None and not isinstance(value, Mapping):
            self._tell(f"{field}{name}", f"{shown(value)} where a mapping is expected")
        return _mapping(value)

    def _list(self, item: Mapping[str, object], name: str, field: str) -> Iterator[tuple[str, Mapping[str, object]]]:
        """The mappings of a list, each with its place."""
        value = item.get(name)
        if value is None:
            return
        if not isinstance(value, Sequence) or isinstance(value, str):
            self._tell(field, f"{shown(value)} where a list is expected")
            return
        for index, entry in enumerate(value):
            if isinstance(entry, Mapping):
                yield f"{field}[{index}]", entry
            else:
                self._tell(f"{field}[{index}]", f"{shown(entry)} where a mapping is expected")

    # --- rules

    def _rules(self, spec: Mapping[str, object], default: Backend | None) -> Iterator[Rule]:
        for field, entry in self._list(spec, "rules", "spec.rules"):
            host = self._tried(f"{field}.host", lambda entry=entry: _host(entry.get("host")))  # type: ignore[misc]  # mypy: defaults of lambdas
            if host is None:
                continue
            if entry.get("http") is None:
                if default is not None:  # the API: "a http catch-all"
                    yield Rule(host, PathKind.PATTERN, "", default, field)
                continue
            http = self._block(entry, "http", f"{field}.")
            for place, path in self._list(http, "paths", f"{field}.http.paths"):
                rule = self._tried(place, lambda host=host, path=path, place=place: self._rule(host, path, place))  # type: ignore[misc]
                if rule is not None:
                    yield rule

    def _rule(self, host: str, entry: Mapping[str, object], field: str) -> Rule:
        path, kind = entry.get("path"), _path_kind(entry.get("pathType"))
        if path is None:
            path = ""
        if not isinstance(path, str):
            raise _Wrong(".path", f"{shown(path)} is not a path")
        pattern = None
        if kind is PathKind.PATTERN:
            try:
                pattern = PathPattern(path) if path else None
            except ValueError as error:
                raise _Wrong(".path", f"{shown(path)} cannot be used as a regular expression: {error}") from error
        elif not path.startswith("/"):
            raise _Wrong(".path", f"{shown(path)} does not begin with /, which pathType {kind.value} asks for")
        try:
            backend = _backend(self._namespace, entry.get("backend"))
        except _Wrong as wrong:
            raise _Wrong(f".backend{wrong.field}", wrong.reason) from wrong
        return Rule(host, kind, path, backend, field, pattern)

    # --- TLS

    def _tls(self, spec: Mapping[str, object], hosts: tuple[str, ...]) -> Iterator[TlsEntry]:
        for field, entry in self._list(spec, "tls", "spec.tls"):
            secret, named = entry.get("secretName"), entry.get("hosts")
            if secret is None or secret == "":  # the listener's own certificate is meant
                continue
            if not isinstance(secret, str) or not _SERVICE.fullmatch(secret):
                self._tell(f"{field}.secretName", f"{shown(secret)} is not the name of a secret")
                continue
            if not named:
                yield TlsEntry(secret, hosts, field)
                continue
            if not isinstance(named, Sequence) or isinstance(named, str):
                self._tell(f"{field}.hosts", f"{shown(named)} where a list is expected")
                continue
            found = [self._tried(f"{field}.hosts[{index}]", lambda host=host: _host(host)) for index, host in enumerate(named)]  # type: ignore[misc]
            good = tuple(dict.fromkeys(host for host in found if host))
            if good:
                yield TlsEntry(secret, good, field)


class _Wrong(Exception):
    """What is wrong with a part of an object; ``field`` is relative to that part."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason


def _host(value: object) -> str:
    """A host in lower case, empty for any."""
    if value is None or value == "":
        return ""
    host = value.lower() if isinstance(value, str) else ""
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise _Wrong("", f"{shown(value)} is not a host name; expected one such as example.com or *.example.com")
    return host


def _path_kind(value: object) -> PathKind:
    if value is None:
        return PathKind.PATTERN
    try:
        return PathKind(value)
    except ValueError:
        known = ", ".join(kind.value for kind in PathKind)
        raise _Wrong(".pathType", f"{shown(value)} is unknown; known: {known}") from None


def _backend(namespace: str, value: object) -> Backend:
    if not isinstance(value, Mapping):
        raise _Wrong("", f"{shown(value)} where a backend is expected")
    if value.get("resource") is not None:
        raise _Wrong(".resource", "backends that are no services are not supported")
    if "service" in value:  # networking.k8s.io/v1
        service = _mapping(value.get("service"))
        name, named = service.get("name"), _mapping(service.get("port"))
        port, where = named.get("number") or named.get("name"), (".service.name", ".service.port")
    else:
        name, port, where = value.get("serviceName"), value.get("servicePort"), (".serviceName", ".servicePort")
    if not isinstance(name, str) or not _SERVICE.fullmatch(name):
        raise _Wrong(where[0], f"{shown(name)} is not the name of a service")
    return Backend(namespace, name, _port(port, where[1]))


def _port(value: object, field: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        number: int | None = value
    elif isinstance(value, str) and _PORT_NAME.fullmatch(value):
        number = int(value) if value.isdigit() else None
    else:
        raise _Wrong(field, f"{shown(value)} is neither the number nor the name of a port")
    if number is None:
        return str(value)
    if not 0 < number < 65536:
        raise _Wrong(field, f"{number} is not a port number (1 to 65535)")
    return str(number)
