"""The value classes of a delegation tree: each step by which a name was, or was not, bound.

Source: dtab spec 6 and namerd spec 3.4. Every node has the ``path`` looked up at that step and the ``dentry`` that produced the
path, ``None`` where no entry did (the root). Building, JSON and text of these trees are in ``bind.delegate`` and ``bind.explain``.
Nodes are compared by identity: they are read once, and may be hundreds deep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from meshgw.naming.path import Path

if TYPE_CHECKING:
    from meshgw.naming.dtab import Dentry


class BoundName(Protocol):
    """What a leaf holds: the consumed ``id``, the labels left over, and the live addresses."""

    @property
    def id(self) -> Path:
        """The consumed part of the name."""
        ...

    @property
    def residual(self) -> Path:
        """The labels that no namer consumed."""
        ...

    @property
    def addr(self) -> object:
        """The addresses, a ``core.live.Live``; this package is below ``core`` and only carries it."""
        ...


@attrs.frozen(eq=False, repr=False)
class Delegation:
    """One step; the classes below say what came of it."""

    path: Path
    dentry: Dentry | None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path.show()}>"


@attrs.frozen(eq=False, repr=False)
class DelegateTo(Delegation):
    """Exactly one entry matched, or a namer answered with another name: ``tree`` is the next step."""

    tree: Delegation


@attrs.frozen(eq=False, repr=False)
class DelegateAlt(Delegation):
    """Several entries matched, last-defined first, or the destination has alternatives. All are followed."""

    trees: tuple[Delegation, ...]


@attrs.frozen(eq=False, repr=False)
class DelegateWeighted:
    """A branch of a union."""

    weight: float
    tree: Delegation


@attrs.frozen(eq=False, repr=False)
class DelegateUnion(Delegation):
    """The destination is a union."""

    branches: tuple[DelegateWeighted, ...]


@attrs.frozen(eq=False, repr=False)
class DelegateLeaf(Delegation):
    """A namer bound the path."""

    bound: BoundName


@attrs.frozen(eq=False, repr=False)
class DelegateNeg(Delegation):
    """Nothing matched or the namer has no such name; the root path stands for a literal ``~``.

    ``reason`` is the error of a namer that says so only because its source fails, and it has never known better.
    """

    reason: str = ""


@attrs.frozen(eq=False, repr=False)
class DelegateFail(Delegation):
    """A literal ``!`` (the root path) or ``/$/fail``."""


@attrs.frozen(eq=False, repr=False)
class DelegateEmpty(Delegation):
    """A literal ``$`` or ``/$/nil``."""


@attrs.frozen(eq=False, repr=False)
class DelegateException(Delegation):
    """The lookup failed with ``message``."""

    message: str


@attrs.frozen(eq=False, repr=False)
class DelegateTransformation(Delegation):
    """The transformer ``name`` turned the name ``bound`` into what ``tree`` shows."""

    name: str
    bound: BoundName
    tree: Delegation
