"""Names that are longer than a designer would like, and dtabs that are too: the pages keep their shape, and nothing of them is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from support.browsers import DESKTOP, PHONE, scrolls_sideways

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


def test_the_entry_that_requests_follow_is_in_sight_however_long_the_dtab(pages: Pages, mesh: Mesh) -> None:
    page = pages.blank()
    renames(page, mesh, dtab="/svc => /#/io.l5d.fs;" + "".join(f"/svc/{number} => /#/io.l5d.fs/web;" for number in range(500)))
    page.goto(f"{mesh.url}/delegator?router=web#/svc/400")
    used = page.locator(".entry.is-used")
    used.wait_for()
    entry, entries = used.bounding_box(), page.locator(".entries").bounding_box()
    assert entry is not None and entries is not None
    assert entries["y"] <= entry["y"] and entry["y"] + entry["height"] <= entries["y"] + entries["height"]
    assert page.evaluate("scrollY") == 0


def test_each_of_thousands_of_names_is_offered_when_it_is_typed(pages: Pages, mesh: Mesh) -> None:
    page = pages.blank()
    page.route("**/bound-names.json", lambda route: route.fulfill(json=[f"/#/io.l5d.fs/s{number}" for number in range(3000)]))
    page.goto(f"{mesh.url}/delegator?router=inner")
    page.locator("#path").press_sequentially("/svc/s298")
    page.wait_for_function("document.querySelectorAll('#names option').length === 11")
    assert page.locator("#names option").last.get_attribute("value") == "/svc/s2989"


def test_a_dtab_that_leads_in_a_circle_leaves_the_page_as_wide_as_its_window(pages: Pages, mesh: Mesh) -> None:
    page = pages.blank(size=DESKTOP)
    renames(page, mesh, dtab="/svc => /#/io.l5d.fs; /svc/a => /svc/b; /svc/b => /svc/a")
    page.goto(f"{mesh.url}/delegator?router=web#/svc/a")
    page.locator(".verdict").get_by_text("Max recursion level reached").wait_for()
    assert page.locator("[role=treeitem]").count() > 50
    assert not scrolls_sideways(page)
