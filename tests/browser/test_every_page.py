"""What holds for every page: readable by axe's measure in both colours and at phone width, and honest when the gateway is away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from support.browsers import DESKTOP, PHONE, THEMES

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from support.dashboard import Mesh, Pages

pytestmark = pytest.mark.integration

PAGES = {
    "/": "#main h1",
    "/?router=web": "#main h1",
    "/services": "#main h1",
    "/delegator?router=web#/svc/choice": "[role=treeitem]",
    "/delegator?router=inner#/svc/web": "[role=treeitem]",
    "/delegator?router=web": ".state",
    "/requests": "tr.row",
    "/requests?text=nothing+is+like+this": ".state",
    "/logging": ".logger",
    "/help": "#main h1",
}


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_accessible_in_both_colours_and_at_phone_width(
    pages: Pages, mesh: Mesh, assert_accessible: Callable[[Page], None], path: str
) -> None:
    mesh.request("web")
    for size, theme in ((DESKTOP, THEMES[0]), (PHONE, THEMES[1])):
        page = pages(path, size=size, theme=theme)
        page.locator(PAGES[path]).first.wait_for()
        assert_accessible(page)


@pytest.mark.parametrize("path", PAGES)
def test_the_entry_of_the_page_is_in_sight_at_phone_width(pages: Pages, path: str) -> None:
    page = pages(path, size=PHONE)
    page.locator("#main h1").wait_for()
    box = page.locator(".nav [aria-current]").bounding_box()
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= PHONE[0]
    assert page.evaluate("scrollY") == 0


def test_an_error_of_a_dtab_is_accessible(pages: Pages, assert_accessible: Callable[[Page], None]) -> None:
    pages.expect_refusals("/delegator.json")
    page = pages("/delegator?router=web#/svc/web&dtab=%2Fsvc%20%3D%20x", size=PHONE, theme="dark")
    page.locator("#dtab-problem").wait_for()
    assert_accessible(page)


def test_an_open_row_of_requests_is_accessible(pages: Pages, mesh: Mesh, assert_accessible: Callable[[Page], None]) -> None:
    mesh.request("nobody", "/a/failure")
    page = pages("/requests?failed=true", size=PHONE)
    page.locator(".row-button").first.click()
    assert_accessible(page)


@pytest.mark.parametrize("path", ["/delegator?router=web#/svc/web", "/requests", "/logging"])
def test_a_page_tells_when_the_gateway_does_not_answer_and_recovers(pages: Pages, path: str) -> None:
    page = pages(path)
    page.locator("#freshness.freshness-live").wait_for()
    pages.expect_unreachable()
    page.context.set_offline(True)
    page.locator("#freshness.freshness-stale").wait_for()
    page.context.set_offline(False)
    page.locator("#freshness.freshness-live").wait_for()
