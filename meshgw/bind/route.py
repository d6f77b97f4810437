"""Route: a logical name with its live binding, flattened so that a request chooses without walking a tree.

Source: dtab spec 5.4 and 5.5, ARCHITECTURE.md section 2 (steps 4 and 6). Pending holds requests back; the first good tree makes the route
ready and it stays so: later failures keep the last good tree.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from meshgw.core.address import Bound
from meshgw.core.exchange import Exchange
from meshgw.core.live import Live, Observation, Ok, Pending, State
from meshgw.core.stack import Pipeline
from meshgw.errors import MeshError, NamerError
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import Empty, Fail, Leaf, NameTree, Neg, Union

T = TypeVar("T")


class Phase(enum.Enum):
    """What is true of a route."""

    PENDING = "pending"
    READY = "ready"
    UNBOUND = "unbound"
    FAILED = "failed"


class Choices(Generic[T]):
    """The flattened leaves of a bound tree, each with the probability that it is chosen; None stands for an Empty branch.

    ``only`` is the single choice when there is one, which saves the draw.
    """

    __slots__ = ("items", "only")

    def __init__(self, items: Sequence[tuple[float, T | None]]) -> None:
        self.items = tuple(items)
        self.only: T | None = items[0][1] if len(items) == 1 else None

    def choose(self, random: Callable[[], float]) -> T | None:
        """A weighted draw; ``random`` gives numbers in [0, 1)."""
        at = random()
        for share, item in self.items:
            at -= share
            if at < 0:
                return item
        positive = [item for share, item in self.items if share > 0]
        return positive[-1] if positive else None


def flatten(tree: NameTree[Bound]) -> list[tuple[float, Bound | None]]:
    """The leaves of a simplified bound tree with their probabilities (dtab spec 5.5): weight/sum at each union, uniform when all are 0.

    Branches of probability 0 are left out. Neg and Fail have no leaves.
    """
    if isinstance(tree, Leaf):
        return [(1.0, tree.value)]
    if isinstance(tree, Empty):
        return [(1.0, None)]
    if not isinstance(tree, Union):
        return []
    total = sum(branch.weight for branch in tree.branches)
    found: list[tuple[float, Bound | None]] = []
    for branch in tree.branches:
        share = branch.weight / total if total else 1 / len(tree.branches)
        if share:
            found += [(share * inner, bound) for inner, bound in flatten(branch.tree)]
    return found


class Route:
    """One (logical name, local dtab) with its binding.

    ``waiters`` are exchanges to be resumed by ``on_change`` when the phase changes, ``in_flight`` counts those that passed its path level.
    """

    __slots__ = (
        "_choose",
        "_observation",
        "_on_change",
        "_release",
        "choices",
        "dtab",
        "error",
        "explained_until",
        "in_flight",
        "is_oneshot",
        "name",
        "phase",
        "pipeline",
        "policy",
        "stale",
        "tree",
        "used",
        "waiters",
        "waiting_for",
    )

    def __init__(
        self,
        name: Path,
        dtab: Dtab | None,
        pipeline: Pipeline,
        policy: Any,
        *,
        choose: Callable[[NameTree[Bound]], Choices[Any]],
        release: Callable[[NameTree[Bound]], None],
        on_change: Callable[[Route, Choices[Any] | None], None],
    ) -> None:
        """``policy`` is the walk's business. ``choose`` holds what a tree leads to and ``release`` lets it go; ``on_change`` is also
        given the choices before.
        """
        self.name, self.dtab, self.pipeline, self.policy = name, dtab, pipeline, policy
        self._choose, self._release, self._on_change = choose, release, on_change
        self.phase = Phase.PENDING
        self.choices: Choices[Any] | None = None
        self.tree: NameTree[Bound] | None = None
        self.error: MeshError | None = None
        self.explained_until = 0.0
        """For how long ``error`` tells why the route leads nowhere, in seconds of the router's clock."""
        self.stale: Exception | None = None
        """Why a source behind the tree fails at present, so that the tree may be outdated."""
        self.waiting_for = ""
        self.waiters: list[Exchange] = []
        self.used = 0.0
        self.is_oneshot = False
        self.in_flight = 0
        self._observation: Observation | None = None

    def start(self, binding: Live[NameTree[Bound]]) -> None:
        """Follow the binding until :meth:`close`."""
        self._observation = binding.observe(self._changed)

    def _changed(self, state: State[NameTree[Bound]]) -> None:
        if isinstance(state, Pending):
            self.waiting_for = state.waiting_for
            return  # nothing is known yet, or the last good tree goes on (dtab spec 5.4)
        if not isinstance(state, Ok):
            if self.phase in (Phase.PENDING, Phase.FAILED):
                error = state.error
                self.error = error if isinstance(error, MeshError) else NamerError(detail=str(error) or type(error).__name__)
                self._enter(Phase.FAILED, None)
            return
        old, tree = self.tree, state.value
        if self.stale is not state.error:
            self.stale, self.error = state.error, None  # why it is unbound is to be worked out again
        if old is not None and old == tree:
            return
        before = self.choices
        choices = None if isinstance(tree, (Neg, Fail, Empty)) else self._choose(tree)
        self.choices, self.tree, self.error = choices, tree, None
        if old is not None and not isinstance(old, (Neg, Fail, Empty)):
            self._release(old)
        self._enter(Phase.UNBOUND if choices is None else Phase.READY, before)

    def _enter(self, phase: Phase, before: Choices[Any] | None) -> None:
        self.phase = phase
        self._on_change(self, before)

    def rebuild(self) -> None:
        """Make the choices again from the same tree, as something else that they are made of has changed."""
        tree = self.tree
        if tree is not None and self.choices is not None:
            self.choices = self._choose(tree)
            self._release(tree)

    def close(self) -> None:
        """Stop following and let everything go."""
        if self._observation is not None:
            self._observation.close()
        tree, self.tree, self.choices = self.tree, None, None
        if tree is not None and not isinstance(tree, (Neg, Fail, Empty)):
            self._release(tree)
