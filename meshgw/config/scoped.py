"""The ``client`` and ``service`` blocks: parameters for all names, or per name by prefix, and how they are merged.

Source: linkerd-config spec 4.5, 4.7 and 4.8. In the file every parameter may be absent, which here is None; :meth:`for_name`
merges the entries that match a name into a parameter object with all defaults in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Generic, TypeVar

import attrs

from meshgw.config.document import Chosen, at_least, option
from meshgw.config.values import Captures, PathMatcher
from meshgw.naming.path import Path

P = TypeVar("P")

GLOBAL = "io.l5d.global"
STATIC = "io.l5d.static"


@attrs.frozen(kw_only=True)
class HostConnectionPool:
    """The pool of connections to one endpoint."""

    min_size: int = option(default=0, doc="Connections kept open even when idle (Finagle's 0).", check=at_least(0))
    max_size: int | None = option(
        default=None, doc="Most connections open at once; further requests wait.", check=at_least(1), effective="unlimited"
    )
    idle_time_ms: int | None = option(
        default=None,
        doc="Milliseconds after which an idle connection above minSize is closed.",
        check=at_least(1),
        effective="unlimited",
    )
    max_waiters: int | None = option(
        default=None,
        doc="Most requests that wait for a connection once maxSize is reached; one more fails at once.",
        check=at_least(0),
        effective="unlimited",
    )


@attrs.frozen(kw_only=True)
class ClientParams:
    """What applies to one bound name. ``load_balancer`` None means kind ``p2c`` with its defaults."""

    load_balancer: Chosen | None = None
    host_connection_pool: HostConnectionPool = attrs.field(factory=HostConnectionPool)
    connect_timeout_ms: int = 1000


@attrs.frozen(kw_only=True)
class ServiceParams:
    """What applies to one logical name; the parameters of Linkerd's service block are not supported yet."""


@attrs.frozen(kw_only=True)
class ClientSettings:
    """Client parameters as one entry of the file sets them."""

    load_balancer: Chosen | None = option(default=None, doc="How an endpoint is chosen.", kinds="balancers", effective="p2c")
    host_connection_pool: HostConnectionPool | None = option(
        default=None, doc="The pool of connections to each endpoint.", effective="all defaults"
    )
    connect_timeout_ms: int | None = option(
        default=None,
        doc="Milliseconds to establish a connection (meshgw's own option; the default is Finagle's constant).",
        check=at_least(1),
        effective=1000,
    )
    later: ClassVar[Mapping[str, str]] = {
        "tls": "TLS to services",
        "failFast": "fail-fast",
        "requeueBudget": "requeue budget",
        "failureAccrual": "failure accrual",
        "requestAttemptTimeoutMs": "timeout of one attempt",
        "clientSession": "limits on the life of connections",
        "socketOptions": "socket options of clients",
        "requestAuthorizers": "request authorizers",
        "forwardClientCert": "forwarding of client certificates",
    }


@attrs.frozen(kw_only=True)
class ServiceSettings:
    """Service parameters as one entry of the file sets them."""

    later: ClassVar[Mapping[str, str]] = {
        "totalTimeoutMs": "timeout of the whole request",
        "retries": "retries",
        "responseClassifier": "response classifiers",
    }


class Scoped(Generic[P]):
    """A block of parameters that depend on a name."""

    params: ClassVar[type[object]]

    def entries(self, _path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The settings that apply to a name with what their prefixes captured, in the order of the file."""
        raise NotImplementedError  # pragma: no cover - abstract

    def for_name(self, path: Path) -> tuple[P, Mapping[str, Captures]]:
        """The merged parameters for ``path``, and per parameter that was set what the prefix of its entry captured.

        For each parameter the last matching entry that sets it wins, as a whole (spec 4.8). The second mapping's keys are
        attribute names; captures belong to an entry, so that two entries may use the same variable for different segments.
        """
        values: dict[str, object] = {}
        captured: dict[str, Captures] = {}
        for settings, captures in self.entries(path):
            for attribute in attrs.fields(type(settings)):
                value = getattr(settings, attribute.name)
                if attribute.name != "prefix" and value is not None:
                    values[attribute.name] = value
                    captured[attribute.name] = captures
        return self.params(**values), captured  # type: ignore[return-value]  # the class attribute fits P in each subclass


class ClientBlock(Scoped[ClientParams]):
    """The ``client`` block of a router, of either kind."""

    params = ClientParams


class ServiceBlock(Scoped[ServiceParams]):
    """The ``service`` block of a router, of either kind."""

    params = ServiceParams


@attrs.frozen(kw_only=True)
class GlobalClient(ClientSettings, ClientBlock):
    """Parameters of all clients."""

    def entries(self, _path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The block itself, for every name."""
        yield self, {}


@attrs.frozen(kw_only=True)
class GlobalService(ServiceSettings, ServiceBlock):
    """Parameters of all services."""

    def entries(self, _path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The block itself, for every name."""
        yield self, {}


@attrs.frozen(kw_only=True)
class ClientEntry(ClientSettings):
    """Parameters of the clients whose bound name matches."""

    prefix: PathMatcher = option(doc="Pattern over the bound name's id, for example `/#/io.l5d.fs/{service}`; `*` is any one segment.")


@attrs.frozen(kw_only=True)
class ServiceEntry(ServiceSettings):
    """Parameters of the services whose logical name matches."""

    prefix: PathMatcher = option(doc="Pattern over the logical name, for example `/svc/web`; `*` is any one segment.")


@attrs.frozen(kw_only=True)
class StaticClient(ClientBlock):
    """Parameters by the client's bound name."""

    configs: tuple[ClientEntry, ...] = option(doc="Entries; for each parameter the last matching entry that sets it wins.")

    def entries(self, path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The entries whose prefix matches."""
        return _matching(self.configs, path)


@attrs.frozen(kw_only=True)
class StaticService(ServiceBlock):
    """Parameters by the service's logical name."""

    configs: tuple[ServiceEntry, ...] = option(doc="Entries; for each parameter the last matching entry that sets it wins.")

    def entries(self, path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
        """The entries whose prefix matches."""
        return _matching(self.configs, path)


def _matching(configs: tuple[ClientEntry, ...] | tuple[ServiceEntry, ...], path: Path) -> Iterator[tuple[attrs.AttrsInstance, Captures]]:
    for entry in configs:
        captures = entry.prefix.match(path)
        if captures is not None:
            yield entry, captures


CLIENT_BLOCKS: Mapping[str, type[ClientBlock]] = {GLOBAL: GlobalClient, STATIC: StaticClient}
SERVICE_BLOCKS: Mapping[str, type[ServiceBlock]] = {GLOBAL: GlobalService, STATIC: StaticService}
