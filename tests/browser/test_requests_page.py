"""The page of the latest requests: what was sent just now is there, is found by filters, and leads to the playground."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.browsers import PHONE
from support.dashboard import start_mesh

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from support.dashboard import Mesh, Pages
    from support.processes import Running

pytestmark = pytest.mark.integration


def row(page: Page, target: str) -> Locator:
    return page.locator("tr.row", has=page.locator(f'.cell-request code:text-is("{target}")'))


def test_a_request_made_now_appears_with_what_became_of_it(pages: Pages, mesh: Mesh) -> None:
    page = pages("/requests")
    mesh.request("web", "/just/now")
    found = row(page, "/just/now")
    found.wait_for()
    text = found.inner_text()
    assert all(part in text for part in ("200", "GET", "/svc/web", "/#/io.l5d.fs/web", str(mesh.service_port)))
    mesh.request("web", "/status/503")
    row(page, "/status/503").locator(".badge-bad").wait_for()


def test_the_newest_stands_first(pages: Pages, mesh: Mesh) -> None:
    for target in ("/order/1", "/order/2", "/order/3"):
        mesh.request("web", target)
    page = pages("/requests?text=/order/")
    row(page, "/order/3").wait_for()
    assert page.locator(".cell-request code").all_text_contents() == ["/order/3", "/order/2", "/order/1"]


def test_filters_are_part_of_the_link(pages: Pages, mesh: Mesh) -> None:
    for target in ("/filter/good", "/status/500", "/status/404"):
        mesh.request("web", target)
    page = pages("/requests")
    row(page, "/filter/good").wait_for()
    page.get_by_label("Outcome").select_option("failed")
    row(page, "/filter/good").wait_for(state="detached")
    row(page, "/status/500").first.wait_for()
    assert page.url.endswith("/requests?failed=true")
    page.get_by_label("Outcome").select_option("4xx")
    row(page, "/status/404").first.wait_for()
    assert page.url.endswith("/requests?status=4xx")
    page.reload()
    row(page, "/status/404").first.wait_for()
    assert row(page, "/filter/good").count() == 0
    page.get_by_label("Find in any column").fill("nothing is like this")
    page.get_by_text("No request passes these filters").wait_for()
    page.get_by_role("button", name="Show all").click()
    row(page, "/filter/good").wait_for()
    page.go_back()
    assert page.get_by_label("Outcome").input_value() == "4xx"


def test_details_lead_to_the_playground_and_narrow_the_list(pages: Pages, mesh: Mesh) -> None:
    mesh.request("api", "/detail/a")
    mesh.request("web", "/detail/b")
    page = pages("/requests?text=/detail/")
    row(page, "/detail/a").get_by_role("button").press("Enter")
    page.get_by_role("button", name="Only this service").click()
    row(page, "/detail/b").wait_for(state="detached")
    assert "service=%2Fsvc%2Fapi" in page.url
    page.get_by_role("link", name="How it resolves").click()
    page.locator("[role=treeitem]").first.wait_for()
    assert page.url == f"{mesh.url}/delegator?router=web#/svc/api"


def test_details_stay_open_when_newer_requests_come(pages: Pages, mesh: Mesh) -> None:
    mesh.request("web", "/stay/open")
    page = pages("/requests")
    button = row(page, "/stay/open").get_by_role("button")
    button.click()
    mesh.request("web", "/stay/newer")
    row(page, "/stay/newer").wait_for()
    assert button.get_attribute("aria-expanded") == "true"
    assert page.locator("tr.more:visible").count() == 1
    assert button.evaluate("(element) => element === document.activeElement")


def test_a_paused_list_stands_still_and_goes_on(pages: Pages, mesh: Mesh) -> None:
    mesh.request("web", "/pause/before")
    page = pages("/requests?text=/pause/")
    row(page, "/pause/before").wait_for()
    page.get_by_role("button", name="Pause").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    mesh.request("web", "/pause/after")
    page.locator("#freshness", has_text="Paused").wait_for()
    assert asked == []
    page.get_by_role("button", name="Go on").click()
    row(page, "/pause/after").wait_for()


def test_on_a_phone_a_request_is_a_card(pages: Pages, mesh: Mesh) -> None:
    mesh.request("web", "/on/a/phone/with/a/rather/long/path?and=a&query=" + "x" * 120)
    page = pages("/requests", size=PHONE)
    page.locator("tr.row").first.wait_for()
    assert page.locator("tr.row").first.evaluate("(element) => element.getBoundingClientRect().width <= innerWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_how_to_keep_requests_is_told_where_none_are_kept(pages: Pages, running: Running) -> None:
    other = start_mesh(running, telemetry=[])
    page = pages.at(other.url)("/requests")
    page.get_by_text("Requests are not kept").wait_for()
    assert "kind: io.l5d.recentRequests" in page.locator("pre").inner_text()
