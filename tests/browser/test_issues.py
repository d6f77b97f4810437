"""What the gateway finds wrong by itself stands on the overview, and nothing stands there while there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from support.browsers import DESKTOP, PHONE

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from support.dashboard import Mesh, Pages

pytestmark = pytest.mark.integration

FAILED = [
    {
        "category": "Discovery",
        "issues": [f"every endpoint of /#/io.l5d.fs/{name} is avoided: accrual" for name in ("a", "<b>" + "b" * 200)],
    },
    {"category": "Security", "issues": ["admin listens on 0.0.0.0 without tokens"]},
]


def overview(pages: Pages, mesh: Mesh, failed: list[dict[str, Any]], **options: Any) -> Page:
    page = pages.blank(**options)
    page.route("**/admin/lint.json", lambda route: route.fulfill(json={"lint_results": {"failed_rules": failed}}))
    with page.expect_response("**/admin/lint.json"):
        page.goto(f"{mesh.url}/")
    page.locator(".router-card").first.wait_for()
    return page


@pytest.mark.parametrize(("size", "theme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_what_needs_a_look_unfolds_on_the_overview(
    pages: Pages, mesh: Mesh, assert_accessible: Callable[[Page], None], size: tuple[int, int], theme: str
) -> None:
    page = overview(pages, mesh, FAILED, size=size, theme=theme)
    page.get_by_text("3 things need a look: discovery, security").click()
    page.get_by_text("every endpoint of /#/io.l5d.fs/<b>b").wait_for()
    assert page.get_by_role("link", name="All rules").get_attribute("href") == "/admin/lint"
    assert_accessible(page)


def test_nothing_is_told_while_nothing_needs_a_look(pages: Pages, mesh: Mesh) -> None:
    page = overview(pages, mesh, [])
    assert not page.locator(".issues").is_visible()


def test_the_issues_are_those_of_the_gateway(pages: Pages, mesh: Mesh) -> None:
    mesh.gateway.admin("/logging.json", b"logger=meshgw&level=DEBUG", "application/x-www-form-urlencoded")
    try:
        page = pages("/")
        page.locator(".issues summary").click()
        page.locator(".issue", has_text="meshgw").first.wait_for()
    finally:
        mesh.gateway.admin("/logging.json", b"logger=meshgw&level=INFO", "application/x-www-form-urlencoded")
