"""The layer table of the architecture guide holds for every module, and the checker notices when it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

import meshgw
from support.layers import HARD_LINE_LIMIT, check_source, check_tree, module_name

PACKAGE = Path(meshgw.__file__).parent


def problems(module: str, source: str) -> list[str]:
    return [breach.problem for breach in check_source(module, source, f"meshgw/{module.replace('.', '/')}.py")]


def test_no_module_breaks_the_layer_table() -> None:
    breaches = check_tree(PACKAGE)
    assert not breaches, "\n" + "\n".join(str(breach) for breach in breaches)


def test_the_whole_package_is_read() -> None:
    names = {module_name(PACKAGE, file) for file in PACKAGE.rglob("*.py")}
    assert {"errors", "kinds", "core.live", "naming"} <= names


@pytest.mark.parametrize(
    ("module", "source", "word"),
    [
        ("naming.path", "from meshgw.core.live import Live", "may only look down"),
        ("naming.path", "import meshgw.wire.http1", "sibling"),
        ("naming.path", "from twisted.python import failure", "pure"),
        ("wire.http1", "import yaml", "pure"),
        ("core.stack", "from meshgw import kinds", "sibling"),
        ("core.stack", "from meshgw.telemetry.metrics import Metrics", "may only look down"),
        ("config.models", "from meshgw.telemetry import metrics", "sibling"),
        ("telemetry.export", "from meshgw.config.models import Config", "sibling"),
        ("filters.headers", "from meshgw.client.pool import Pool", "sibling"),
        ("bind.interpreter", "from meshgw.client.http import Client", "sibling"),
        ("namers.files", "def f():\n    from meshgw.bind import cache", "sibling"),
        ("admin.site", "from meshgw.namerd.http import Api", "sibling"),
        ("server.http", "from meshgw.app.router import Router", "may only look down"),
        ("cli.namerctl", "from meshgw.app.service import makeService", "contains none"),
        ("cli.namerctl", "from meshgw.config.document import load", "talk HTTP"),
        ("cli.meshgw", "import meshgw.app.workers", "never start processes"),
        ("namers.files", "from ..bind import cache", "sibling"),
        ("kinds", "from meshgw.telemetry.metrics import Metrics", "may only look down"),
        ("surprise.module", "", "has no level"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, word: str) -> None:
    found = problems(module, source)
    assert any(word in problem for problem in found), found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("naming.path", "import re, attrs\nfrom meshgw.errors import MeshError"),
        ("wire.http2", "import h2.connection, hpack"),
        ("core.stack", "from twisted.internet.defer import Deferred\nfrom meshgw.core.exchange import Exchange"),
        ("kinds", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from meshgw.telemetry.metrics import Metrics"),
        ("telemetry.export", "from meshgw.config.document import option\nfrom meshgw.kinds import Kind"),
        ("bind.remote", "from meshgw.client.http import Client"),
        ("bind.interpreter", "from meshgw import __version__\nfrom .cache import Cache\nfrom . import delegate"),
        ("app.router", "from meshgw.client import pool\nfrom meshgw.admin import site"),
        ("cli.meshgw", "from meshgw.app.service import load\nfrom meshgw.config.document import option"),
        ("server.http", "from meshgw.core.exchange import Exchange\nfrom meshgw.kinds import Runtime"),
    ],
)
def test_an_allowed_import_is_left_alone(module: str, source: str) -> None:
    assert problems(module, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "from twisted.internet import reactor",
        "import twisted.internet.reactor",
        "try:\n    from twisted.internet import reactor\nexcept ImportError:\n    pass",
        "class A:\n    from twisted.internet import reactor",
        "if True:\n    from twisted.internet import reactor as r",
    ],
)
def test_a_module_level_reactor_import_is_found(source: str) -> None:
    assert "reactor" in problems("app.service", source)[0]


def test_a_reactor_import_inside_a_function_is_allowed() -> None:
    assert problems("app.service", "def makeService():\n    from twisted.internet import reactor\n    return reactor") == []


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("async def f(): ...", "async def f"),
        ("class A:\n    async def g(self): ...", "async def g"),
        ("x = Deferred()", "Deferred"),
        ("x = defer.Deferred[bytes](cancel)", "Deferred"),
        ("self.clock.callLater(1, f)", "callLater"),
        ("later = clock.callLater", "callLater"),
    ],
)
@pytest.mark.parametrize(
    "module", ["wire.http1", "server.http", "identify.request", "core.exchange", "core.stack", "filters.budget", "client.pool"]
)
def test_waiting_machinery_on_the_data_path_is_found(module: str, source: str, word: str) -> None:
    assert any(word in problem for problem in problems(module, source))


@pytest.mark.parametrize("module", ["server.listener", "core.timers", "identify.ingress", "namers.dns"])
def test_waiting_machinery_is_allowed_beside_the_data_path(module: str) -> None:
    assert problems(module, "async def f():\n    clock.callLater(1, Deferred())") == []


def test_words_in_text_are_no_breach() -> None:
    assert problems("wire.http1", '"""Never callLater, never Deferred(), never async def."""') == []


def test_a_module_over_the_hard_limit_is_found() -> None:
    assert problems("app.router", "\n" * (HARD_LINE_LIMIT - 1)) == []
    assert "split it" in problems("app.router", "\n" * HARD_LINE_LIMIT)[0]


def test_a_breach_tells_file_and_line() -> None:
    breach = check_source("filters.headers", "import attrs\n\nfrom meshgw.client import pool\n", "meshgw/filters/headers.py")[0]
    assert str(breach).startswith("meshgw/filters/headers.py:3: imports meshgw.client.pool, its sibling on level 4")
