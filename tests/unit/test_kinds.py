"""The registry of kinds (linkerd-config spec 11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import attrs
import pytest

from meshgw.kinds import GROUPS, BrokenKind, ConflictingKinds, Kind, Registry, UnknownKind


@attrs.frozen
class Distribution:
    """As much of an installed distribution as the registry looks at."""

    name: str


@attrs.frozen
class Point:
    """As much of an entry point as the registry looks at; ``found`` is raised if it is an exception."""

    name: str
    value: str
    found: Any
    dist: Distribution | None = None
    loads: list[str] = attrs.field(factory=list, eq=False)

    def load(self) -> Any:
        self.loads.append(self.name)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@attrs.frozen(kw_only=True)
class Block:
    """Nothing to configure."""


def kind(id: str) -> Kind:
    return Kind(id=id, config=Block, build=lambda *_: None)


def registry(points: Mapping[str, list[Point]]) -> Registry:
    return Registry(cast(Any, points))


def test_kind_is_imported_only_when_asked_for_and_once() -> None:
    one, two = Point("a", "m:A", kind("a")), Point("b", "m:B", kind("b"))
    found = registry({"namers": [one, two]})
    assert found.known("namers") == ("a", "b")
    assert found.kind("namers", "a") is found.kind("namers", "a")
    assert (one.loads, two.loads) == (["a"], [])


def test_same_id_in_two_groups_is_no_conflict() -> None:
    found = registry({"namers": [Point("x", "m:A", kind("x"))], "interpreters": [Point("x", "m:B", kind("x"))]})
    assert found.check() == []


def test_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(UnknownKind, match=r"^unknown kind 'z'; known: a, b$"):
        registry({"namers": [Point("b", "m:B", kind("b")), Point("a", "m:A", kind("a"))]}).kind("namers", "z")


def test_two_distributions_with_one_id_conflict() -> None:
    points = [Point("x", "m:A", kind("x"), Distribution("first")), Point("x", "n:A", kind("x"), Distribution("second"))]
    found = registry({"namers": points})
    text = "kind 'x' of meshgw.namers is announced by several distributions: first, second"
    assert [str(error) for error in found.check()] == [text]
    with pytest.raises(ConflictingKinds):
        found.kind("namers", "x")


def test_one_distribution_found_twice_is_no_conflict() -> None:
    point = Point("x", "m:A", kind("x"), Distribution("first"))
    found = registry({"namers": [point, point]})
    assert found.check() == []
    assert found.kind("namers", "x").id == "x"


@pytest.mark.parametrize(
    ("object", "reason"),
    [
        (RuntimeError("no"), "RuntimeError: no"),
        (kind("other"), "m:A is not a Kind with this id"),
        ("text", "m:A is not a Kind with this id"),
    ],
)
def test_unusable_object_is_a_broken_kind(object: Any, reason: str) -> None:
    with pytest.raises(BrokenKind) as raised:
        registry({"namers": [Point("x", "m:A", object)]}).kind("namers", "x")
    assert str(raised.value) == f"kind 'x' of meshgw.namers cannot be loaded: {reason}"


def test_distributions_of_a_kind_are_named() -> None:
    points = [Point("x", "m:A", kind("x"), Distribution("first")), Point("y", "m:B", kind("y"))]
    found = registry({"namers": points})
    assert found.distributions("namers", "x") == ("first",)
    assert found.distributions("namers", "y") == ("m:B",)
    assert found.distributions("namers", "z") == ()


def test_installed_kinds_are_found_by_their_entry_points() -> None:
    found = Registry()
    assert "io.l5d.fs" in found.known("namers")
    assert found.check() == []
    assert all(group in GROUPS for group in ("protocols", "namers", "telemeters"))
