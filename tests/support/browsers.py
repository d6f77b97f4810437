"""A headless Chromium for tests of the dashboard: pages that report what went wrong in them, and the check of accessibility by axe.

The program comes from ``.ci/packages chromium``, playwright and axe from the extras ``test``; :func:`missing` says so where they are not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

SECONDS = 30.0
"""The longest a page is waited for; a machine that runs two browsers and two gateways is slow at times."""

DESKTOP, TABLET, PHONE = (1440, 900), (768, 1024), (390, 844)
THEMES = ("light", "dark")
_SERIOUS = frozenset({"serious", "critical"})


def missing() -> str:
    """Why pages cannot be tested here; empty if they can."""
    if _program() is None:
        return "chromium is not installed: NOT testing the dashboard's pages (as root: .ci/packages chromium)"
    lacking = [name for name in ("playwright", "axe_playwright_python") if find_spec(name) is None]
    return f"{' and '.join(lacking)} not installed: NOT testing the dashboard's pages (pip install -e '.[test]')" if lacking else ""


def _program() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, ended with the block."""
    from playwright.sync_api import sync_playwright

    program = _program()
    assert program is not None, missing()
    arguments = ["--disable-dev-shm-usage", "--disable-gpu"]
    if os.getuid() == 0:  # its sandbox does not start as root
        arguments.append("--no-sandbox")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page and what went wrong in it: errors of scripts and of the console, and requests to any other place than ``origin``.

    Error statuses from ``expected`` paths, and any failure while ``is_offline``, are what a test is about.
    """

    def __init__(self, page: Page, origin: str, expected: Set[str] = frozenset()) -> None:
        self.page, self.origin = page, origin
        self.problems: list[str] = []
        self._expected = expected
        self.is_offline = False
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        page.on("request", self._asked)

    def describe(self) -> str:
        """What went wrong in it, and the text that it shows."""
        from playwright.sync_api import Error

        try:
            text = self.page.locator("body").inner_text(timeout=5000)
        except Error as error:
            text = f"its text cannot be read: {error}"
        return "\n".join((*self.problems, text))

    def _said(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        where = urlsplit(message.location.get("url", "")).path
        if message.text.startswith("Failed to load resource") and (where in self._expected or self.is_offline):
            return
        self.problems.append(f"console {message.type}: {message.text} ({where})")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "data:")):
            self.problems.append(f"a request to another place: {request.method} {request.url}")


def serious_violations(page: Page) -> list[str]:
    """What axe finds serious or critical in the page as it is now, one line for each element."""
    from axe_playwright_python.sync_playwright import Axe

    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {node['target']} {node['html'][:200]} {_colours(node)}"
        for each in found
        if each["impact"] in _SERIOUS
        for node in each["nodes"]
    ]


def _colours(node: dict[str, Any]) -> str:
    """What a failed contrast is made of."""
    for check in node.get("any", ()):
        data = check.get("data")
        if isinstance(data, dict) and "contrastRatio" in data:
            return f"{data['fgColor']} on {data['bgColor']}: {data['contrastRatio']}"
    return ""


def scrolls_sideways(page: Page) -> bool:
    """Whether the page as a whole is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def context(browser: Browser, size: tuple[int, int] = DESKTOP, theme: str = "light", **options: Any) -> BrowserContext:
    """A fresh profile with a window of ``size`` and a preferred colour scheme."""
    made = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=theme, reduced_motion="reduce", locale="en-GB", **options
    )
    made.set_default_timeout(SECONDS * 1000)
    return made
