"""The dtab playground: a name is resolved step by step, what is tried out is not saved, and every way to fail is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pytest

from support.browsers import PHONE
from support.gateways import LOOPBACK

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Route

    from support.dashboard import Mesh, Pages

pytestmark = pytest.mark.integration


def item(page: Page, name: str) -> Locator:
    """The step of the tree with exactly this name."""
    return page.locator("[role=treeitem]").filter(has=page.locator(f':scope > .node-row code.node-path:text-is("{name}")'))


def resolved(page: Page) -> list[str]:
    """The names of the steps, in their order, once there are some."""
    page.locator("[role=treeitem]").first.wait_for()
    return [name or "" for name in page.locator("code.node-path").all_text_contents()]


def verdict(page: Page) -> str:
    return page.locator(".verdict .badge").inner_text()


def expect_text(page: Page, text: str) -> None:
    page.get_by_text(text).first.wait_for()


def test_a_name_is_resolved_and_the_link_of_the_page_leads_there_again(pages: Pages, mesh: Mesh) -> None:
    page = pages("/delegator?router=web")
    page.get_by_label("Name").fill("/svc/web")
    page.get_by_role("button", name="Resolve").click()
    assert resolved(page) == ["/svc/web", "/#/io.l5d.fs/web"]
    expect_text(page, f"{LOOPBACK}:{mesh.service_port}")
    assert page.url == f"{mesh.url}/delegator?router=web#/svc/web"
    page.reload()
    assert resolved(page) == ["/svc/web", "/#/io.l5d.fs/web"]
    assert "Resolves" in verdict(page)


def test_the_first_alternative_that_is_known_is_marked_as_taken(pages: Pages) -> None:
    page = pages("/delegator?router=web#/svc/choice")
    resolved(page)
    taken = page.locator(".is-taken > .node-row code.node-path").all_text_contents()
    assert taken == ["/svc/choice", "/#/io.l5d.fs/web"]
    assert "not taken" in item(page, "/#/io.l5d.fs/none").inner_text()
    assert "The namer knows no such name" in item(page, "/#/io.l5d.fs/none").inner_text()
    assert "not taken" in item(page, "/#/io.l5d.fs/api").inner_text()


def test_a_split_shows_the_share_of_each_branch(pages: Pages) -> None:
    page = pages("/delegator?router=web#/svc/split")
    resolved(page)
    shares = page.locator(".delegation .node-share").all_inner_texts()
    assert [share.replace("\n", "") for share in shares] == ["75 %×3", "25 %×1"]


def test_what_a_transformer_changed_is_shown_before_and_after(pages: Pages, mesh: Mesh) -> None:
    page = pages("/delegator?router=inner#/svc/web")
    steps = resolved(page)
    assert steps[-1] == f"/%/io.l5d.port/{mesh.closed_port}/#/io.l5d.fs/web"
    assert f"{LOOPBACK}:{mesh.service_port}" in item(page, "/#/io.l5d.fs/web").locator(".bound").first.inner_text()
    assert f"{LOOPBACK}:{mesh.closed_port}" in item(page, steps[-1]).inner_text()


def test_the_interpreters_dtab_is_shown_and_followed(pages: Pages) -> None:
    page = pages("/delegator?router=filed#/svc/web")
    assert resolved(page) == ["/svc/web", "/host/web", "/#/io.l5d.fs/web"]
    expect_text(page, "Interpreter io.l5d.fs")
    assert page.locator(".entry.is-used").all_inner_texts() == ["/host => /#/io.l5d.fs", "/svc => /host"]


@pytest.mark.parametrize(
    ("name", "title", "why"),
    [
        ("/other/x", "Unknown name", "No dtab entry and no namer matches this name"),
        ("/svc/none", "Unknown name", "The namer knows no such name"),
        ("/svc/never", "Fails on purpose", "no further alternative is tried"),
        ("/svc/boom", "The lookup fails", "Unknown namer: nope"),
        ("/svc/empty", "Bound, but no address", "No addresses now"),
    ],
)
def test_a_failure_is_told_in_plain_words(pages: Pages, name: str, title: str, why: str) -> None:
    page = pages(f"/delegator?router=web#{name}")
    resolved(page)
    assert title in verdict(page)
    assert why in page.locator(".delegation").inner_text()


def test_the_entry_behind_a_step_is_pointed_at(pages: Pages) -> None:
    page = pages("/delegator?router=web#/svc/alias")
    assert resolved(page) == ["/svc/alias", "/svc/web", "/#/io.l5d.fs/web", "/#/io.l5d.fs/alias"]
    item(page, "/svc/web").locator("code.node-path").first.hover()
    assert page.locator(".entry.is-pointed").all_inner_texts() == ["/svc/alias => /svc/web"]
    item(page, "/#/io.l5d.fs/web").focus()
    page.mouse.move(0, 0)
    assert page.locator(".entry.is-pointed").all_inner_texts() == ["/svc => /#/io.l5d.fs"]


def test_the_tree_can_be_walked_with_the_keyboard_alone(pages: Pages) -> None:
    page = pages("/delegator?router=web#/svc/choice")
    names = resolved(page)
    focused = ":focus > .node-row code.node-path"
    page.get_by_role("button", name="Collapse all").focus()
    page.keyboard.press("Tab")
    assert page.locator(focused).inner_text() == names[0]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.locator(focused).inner_text() == names[2]
    page.keyboard.press("End")
    assert page.locator(focused).inner_text() == names[-1]
    page.keyboard.press("ArrowLeft")
    assert page.locator(focused).inner_text() == names[0]
    page.keyboard.press("ArrowLeft")
    assert not item(page, names[1]).is_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator(focused).inner_text() == names[1]
    assert page.locator("[role=treeitem][tabindex='0']").count() == 1


def test_enter_copies_the_bound_name(pages: Pages, mesh: Mesh) -> None:
    page = pages("/delegator?router=web#/svc/web", permissions=["clipboard-read", "clipboard-write"])
    resolved(page)
    item(page, "/#/io.l5d.fs/web").focus()
    page.keyboard.press("Enter")
    expect_text(page, "Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "/#/io.l5d.fs/web"


def test_addresses_that_come_are_shown_without_a_reload_and_the_focus_stays(pages: Pages, mesh: Mesh) -> None:
    mesh.gateway.serve("moving", mesh.service_port)
    page = pages("/delegator?router=web#/svc/moving")
    resolved(page)
    item(page, "/#/io.l5d.fs/moving").focus()
    mesh.gateway.serve("moving", mesh.service_port, 9)
    page.locator(f'.address.is-new:has-text("{LOOPBACK}:9")').wait_for()
    assert page.locator(":focus > .node-row code.node-path").inner_text() == "/#/io.l5d.fs/moving"


def test_what_is_tried_out_stays_in_the_link_and_changes_nothing(pages: Pages, mesh: Mesh) -> None:
    page = pages("/delegator?router=inner#/svc/new")
    resolved(page)
    page.get_by_role("button", name="Try changes").click()
    page.get_by_label("Dtab to try").press("Control+End")
    page.get_by_label("Dtab to try").press_sequentially("\n/svc/new => /svc/api")
    page.locator('code.node-path:text-is("/svc/api")').wait_for()
    expect_text(page, "trial, not saved")
    assert unquote(page.url).endswith("#/svc/new&dtab=/svc => /#/io.l5d.fs;\n/svc/new => /svc/api")
    page.reload()
    page.locator('code.node-path:text-is("/svc/api")').wait_for()
    routers = json.loads(mesh.gateway.admin("/config.json").body)["routers"]
    assert [router["dtab"] for router in routers if router["label"] == "inner"] == ["/svc=>/#/io.l5d.fs"]
    page.get_by_role("button", name="Reset").click()
    page.locator('code.node-path:text-is("/svc/api")').wait_for(state="detached")
    assert page.url == f"{mesh.url}/delegator?router=inner#/svc/new"


def test_an_error_of_a_dtab_is_shown_with_its_place_and_goes_when_it_is_mended(pages: Pages) -> None:
    pages.expect_refusals("/delegator.json")
    page = pages(f"/delegator?router=web#/svc/web&dtab={quote('/svc => /host;')}")
    resolved(page)
    area = page.get_by_label("Dtab to try")
    area.fill("/svc => /#/io.l5d.fs;\n/a = /b")
    problem = page.locator("#dtab-problem")
    problem.wait_for()
    assert "Line 2, column 4: '=>' expected but '=' found." in problem.inner_text()
    assert problem.locator("pre").inner_text() == "/a = /b\n   ^"
    assert area.get_attribute("aria-invalid") == "true"
    page.get_by_text("This was the answer before").wait_for()
    page.get_by_role("button", name="Go there").click()
    assert page.evaluate("(({ selectionStart, selectionEnd }) => [selectionStart, selectionEnd])(document.activeElement)") == [25, 26]
    area.fill("/svc => /#/io.l5d.fs;\n/a => /b")
    problem.wait_for(state="hidden")
    page.get_by_text("This was the answer before").wait_for(state="hidden")
    assert resolved(page) == ["/svc/web", "/#/io.l5d.fs/web"]


def test_what_is_no_name_is_refused_beside_its_field(pages: Pages) -> None:
    pages.expect_refusals("/delegator.json")
    page = pages("/delegator?router=web")
    page.get_by_label("Name").fill("svc")
    page.get_by_label("Name").press("Enter")
    page.locator("#path-problem").wait_for()
    assert "Invalid path" in page.locator("#path-problem").inner_text()
    assert page.get_by_label("Name").get_attribute("aria-invalid") == "true"


def test_without_a_name_those_that_can_be_tried_are_offered(pages: Pages) -> None:
    page = pages("/delegator?router=web")
    page.get_by_role("button", name="/svc/web", exact=True).click()
    assert resolved(page) == ["/svc/web", "/#/io.l5d.fs/web"]
    page.go_back()
    expect_text(page, "Which name?")


def test_an_unknown_router_is_told_with_those_there_are(pages: Pages) -> None:
    page = pages("/delegator?router=gone#/svc/web")
    expect_text(page, "There is no router gone")
    page.get_by_role("main").get_by_role("link", name="inner", exact=True).click()
    assert resolved(page)[0] == "/svc/web"


@pytest.mark.parametrize(
    ("status", "text", "told"),
    [
        (501, "Name Interpreter for web cannot show delegations", "This router's interpreter cannot show delegations"),
        (503, "Request timed out. Still waiting for Consul.", "No answer in time"),
        (403, "refused: this needs a token", "Not allowed"),
        (500, "broken", "The gateway answered 500"),
        (500, "Max recursion level reached.", "This name leads in a circle"),
    ],
)
def test_an_answer_that_is_no_tree_is_explained(pages: Pages, mesh: Mesh, status: int, text: str, told: str) -> None:
    pages.expect_refusals("/delegator.json")
    page = pages.blank()

    def answer(route: Route) -> Any:
        route.fulfill(status=status, body=text, content_type="text/plain")

    page.route("**/delegator.json", answer)
    page.goto(f"{mesh.url}/delegator?router=web#/svc/web")
    expect_text(page, told)
    expect_text(page, text)
    page.unroute("**/delegator.json")
    again = page.get_by_role("button", name="Try again")
    if again.count():
        again.click()
    assert resolved(page)[0] == "/svc/web", "it recovers"


def test_text_of_the_configuration_is_never_read_as_html(pages: Pages, mesh: Mesh) -> None:
    page = pages.blank()
    hostile = {"type": "exception", "path": "/<img src=x onerror=alert(1)>", "message": "<script>alert(2)</script>"}
    page.route("**/delegator.json", lambda route: route.fulfill(json=hostile))
    page.goto(f"{mesh.url}/delegator?router=web#/svc/web")
    assert resolved(page) == ["/<img src=x onerror=alert(1)>"]
    assert page.locator("main img, main script").count() == 0


def test_a_long_list_of_addresses_is_shown_in_part(pages: Pages, mesh: Mesh) -> None:
    mesh.gateway.serve("large", *range(1, 301))
    page = pages("/delegator?router=web#/svc/large", size=PHONE)
    resolved(page)
    assert page.locator(".address").count() == 24
    page.get_by_role("button", name="and 276 more").click()
    assert page.locator(".address").count() == 300
