"""Addresses and replica sets: what a namer finds behind a concrete name.

Source: dtab spec 1 and linkerd-config spec 3.1. Pure values; liveness is ``core.live``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from meshgw.naming.path import Path

if TYPE_CHECKING:
    from meshgw.core.live import Live

WEIGHT_KEY = "endpoint_addr_weight"
NO_META: Mapping[str, Any] = MappingProxyType({})


@attrs.frozen(order=True)
class Address:
    """One endpoint: a literal IPv4 or IPv6 ``host``, a ``port``, a ``weight`` and the namer's metadata."""

    host: str
    port: int
    weight: float = 1.0
    meta: Mapping[str, Any] = attrs.field(default=NO_META, eq=False, hash=False, repr=False)

    def show(self) -> str:
        """``host:port``, an IPv6 host in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class Replicas:
    """The addresses of a bound name, in a stable order without repeats. An empty set is a positive answer."""

    addresses: tuple[Address, ...] = ()
    meta: Mapping[str, Any] = attrs.field(default=NO_META, hash=False)


@attrs.frozen
class NoReplicas:
    """The name turned out not to exist any more (Addr.Neg)."""


ADDR_NEG = NoReplicas()
Addr = Replicas | NoReplicas


@attrs.frozen(eq=False)
class Bound:
    """A concrete name: the consumed ``id``, its live addresses, and the ``residual`` labels no namer consumed.

    Two are equal when id and residual are (dtab spec 1: Linkerd's caches compare both).
    """

    id: Path
    addr: Live[Addr]
    residual: Path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and self.id == other.id and self.residual == other.residual

    def __hash__(self) -> int:
        return hash((self.id, self.residual))

    def show(self) -> str:
        """The id's text; the residual is not shown (dtab spec 3)."""
        return self.id.show()
