"""Names that are longer than a designer would like, and dtabs that are too: the pages keep their shape, and nothing of them is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from support.browsers import DESKTOP, PHONE

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from support.dashboard import Mesh, Pages

pytestmark = pytest.mark.integration

LABEL = "a-router-with-a-very-long-label-that-somebody-generated-from-a-template"
NAME = "a-service-of-two-hundred-characters-" + "x" * 164


def renames(page: Page, mesh: Mesh, **changed: str) -> None:
    """Answer the configuration of ``mesh`` with these values in its first router."""
    settings = json.loads(mesh.gateway.admin("/config.json").body)
    settings["routers"][0].update(changed)
    page.route("**/config.json", lambda route: route.fulfill(json=settings))


@pytest.mark.parametrize("path", ["/delegator", "/requests"])
def test_a_long_label_of_a_router_leaves_a_page_as_wide_as_its_window(
    pages: Pages, mesh: Mesh, assert_accessible: Callable[[Page], None], path: str
) -> None:
    page = pages.blank(size=PHONE)
    renames(page, mesh, label=LABEL)
    page.goto(f"{mesh.url}{path}")
    page.locator("select").first.wait_for()
    assert_accessible(page)


def test_the_router_is_chosen_beside_the_name_whatever_its_label(pages: Pages, mesh: Mesh) -> None:
    page = pages.blank(size=DESKTOP)
    renames(page, mesh, label=LABEL)
    page.goto(f"{mesh.url}/delegator")
    field, copy = page.locator("#router").bounding_box(), page.get_by_role("button", name="Copy link").bounding_box()
    assert field is not None and copy is not None
    assert abs(field["y"] - copy["y"]) < field["height"]


def test_a_long_name_takes_two_lines_until_its_row_is_unfolded(pages: Pages, mesh: Mesh) -> None:
    node = {name: {"counter": 1} for name in ("requests", "success")}
    tree = {"rt": {"web": {"server": {"127.0.0.1/4140": node}, "service": {f"svc/{NAME}": node, "svc/web": node}}}}
    page = pages.blank()
    page.route("**/admin/metrics.json*", lambda route: route.fulfill(json=tree))
    page.goto(f"{mesh.url}/")
    name = page.locator(".table .name", has_text=NAME)
    folded = name.bounding_box()
    assert folded is not None and folded["height"] < 60
    assert name.get_attribute("title") == f"/svc/{NAME}"
    name.click()  # anywhere in a row
    page.locator(".row-details").wait_for()
    unfolded = name.bounding_box()
    assert unfolded is not None and unfolded["height"] > folded["height"]


def test_a_router_is_described_by_the_number_of_its_dtab_entries(pages: Pages, mesh: Mesh) -> None:
    page = pages.blank()
    renames(page, mesh, dtab="".join(f"/svc/{number} => /#/io.l5d.fs/web;" for number in range(500)))
    page.goto(f"{mesh.url}/?router=web")
    link = page.locator(".subtitle").get_by_role("link", name="500 dtab entries")
    link.wait_for()
    assert page.locator(".subtitle").inner_text() == "http · 1 server · 500 dtab entries"
    assert link.get_attribute("href") == "/delegator?router=web"
