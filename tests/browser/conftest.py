"""The dashboard in a real browser: one Chromium and one gateway for each module of tests, a fresh profile for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from support import browsers
from support.dashboard import Mesh, Pages, start_mesh
from support.processes import Running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a module; playwright's loop must not outlive them, as others start loops of their own."""
    why = browsers.missing()
    if why:
        pytest.skip(why)
    with browsers.chromium() as made:
        yield made


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A gateway of three routers over services that answer as they are asked to."""
    with Running(tmp_path_factory.mktemp("browser")) as running:
        yield start_mesh(running)


@pytest.fixture
def pages(browser: Browser, mesh: Mesh) -> Iterator[Pages]:
    """Opens pages; the test fails if anything went wrong in one of them that it does not expect."""
    with ExitStack() as leave:
        made = Pages(browser, mesh.url, leave)
        yield made
        problems = [problem for watched in made.watched for problem in watched.problems]
    assert problems == []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Attach what a failed test's pages show."""
    report = yield
    pages = getattr(item, "funcargs", {}).get("pages")
    if call.when == "call" and report.failed and isinstance(pages, Pages):
        report.sections += [(f"page {watched.page.url}", watched.describe()) for watched in pages.watched]
    return report


@pytest.fixture
def assert_accessible() -> Callable[[Page], None]:
    """Fails if axe finds something serious in a page, or the page scrolls sideways."""

    def check(page: Page) -> None:
        assert browsers.serious_violations(page) == []
        assert not browsers.scrolls_sideways(page), "the page is wider than its window"

    return check
