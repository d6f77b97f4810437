"""What is made of the members of a list that is told anew at each change, made once for each member that stays.

Discovery tells whole lists, of which all but one member are the very objects of the list before: what is made of them stays the same
objects too, so that whoever comes next sees by identity what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

A = TypeVar("A")
B = TypeVar("B")


class Kept(Generic[A, B]):
    """``make(member)`` for each member, not called again for an object that was among those before."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[A], B]) -> None:
        self._make = make
        self._made: dict[int, tuple[A, B]] = {}  # with the member, so that its id stays its own

    def of(self, members: Iterable[A]) -> list[B]:
        """What is made of these, in their order. What was made of others is forgotten."""
        before, now = self._made, {}
        found = []
        for member in members:
            key = id(member)
            made = before.get(key)
            if made is None:
                made = member, self._make(member)
            now[key] = made
            found.append(made[1])
        self._made = now
        return found
