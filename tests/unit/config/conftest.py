"""A registry with the installed kinds and a few of the tests' own, among them experimental ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, cast

import attrs
import pytest

from meshgw.config.document import option
from meshgw.config.loader import LoadResult, load
from meshgw.config.models import HttpRouterConfig, RouterConfig
from meshgw.kinds import GROUPS, Kind, Registry


@attrs.frozen
class Announced:
    """Looks like an entry point and gives an object at hand."""

    name: str
    object: Any
    value: str = "tests:object"
    dist: Any = None

    def load(self) -> Any:
        return self.object


@attrs.frozen(kw_only=True)
class TrialRouter(RouterConfig):
    """A router on trial."""


@attrs.frozen(kw_only=True)
class TrialBlock:
    """A block on trial."""

    password: str | None = option(default=None, doc="A secret.", secret=True)
    weights: Mapping[str, float] = option(factory=dict, doc="Weights by name.")


def unbuilt(*_: Any) -> None:
    raise AssertionError("loading a configuration builds nothing")


TRIAL_KINDS = {
    "protocols": [
        Kind(id="http", config=HttpRouterConfig, build=unbuilt),
        Kind(id="trial", config=TrialRouter, build=unbuilt, experimental=True),
    ],
    "namers": [Kind(id="trial.namer", config=TrialBlock, build=unbuilt, experimental=True)],
    "telemeters": [Kind(id="trial.telemeter", config=TrialBlock, build=unbuilt, experimental=True)],
    "interpreters": [Kind(id="trial.interpreter", config=TrialBlock, build=unbuilt, experimental=True)],
    "identifiers": [Kind(id="trial.identifier", config=TrialBlock, build=unbuilt, protocols=frozenset({"trial"}))],
}


@pytest.fixture(scope="session")
def registry() -> Registry:
    points: dict[str, list[Any]] = {}
    for group in GROUPS:
        own = [Announced(kind.id, kind) for kind in TRIAL_KINDS.get(group, [])]
        names = {point.name for point in own}
        points[group] = own + [point for point in metadata.entry_points(group=f"meshgw.{group}") if point.name not in names]
    return Registry(cast(dict[str, list[metadata.EntryPoint]], points))


@pytest.fixture
def loaded(registry: Registry) -> Callable[[str], LoadResult]:
    """Load a text as ``l.yaml``."""

    def run(text: str) -> LoadResult:
        return load(text, "l.yaml", registry)

    return run


@pytest.fixture
def shown(loaded: Callable[[str], LoadResult]) -> Callable[[str], list[str]]:
    """The problems of a text, one line each."""

    def run(text: str) -> list[str]:
        return [problem.show() for problem in loaded(text).problems]

    return run
