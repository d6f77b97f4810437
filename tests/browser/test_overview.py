"""The pages of figures: they live, can be linked to and used by keyboard, stay quick with thousands of clients, and are honest."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from support.browsers import DESKTOP, PHONE, SECONDS

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Route

    from support.dashboard import Mesh, Pages

pytestmark = pytest.mark.integration

Tree = dict[str, Any]


@contextmanager
def load(mesh: Mesh, host: str = "web") -> Iterator[None]:
    """Requests for ``host``, one after the other, as long as the block lasts."""
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.02):
            mesh.request(host)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(SECONDS)


def figure(page: Page, title: str) -> Locator:
    """A figure of the totals by its name."""
    return page.locator(".card-figures .figure", has_text=title).locator("dd")


def becomes(page: Page, condition: str, *values: object) -> None:
    """Wait until the JavaScript ``condition`` of ``v`` is true; fails with it if it does not become so."""
    page.wait_for_function(condition, arg=list(values))


def counters(**values: int) -> Tree:
    return {name: {"counter": count} for name, count in values.items()}


def clients(count: int, requests: int) -> Tree:
    balancer = {"size": {"gauge": 2.0}, "available": {"gauge": 1.0}}
    return {
        f"#/io.l5d.fs/service-{number:04}": {**counters(requests=requests + number, success=requests + number), "loadbalancer": balancer}
        for number in range(count)
    }


def answers_trees(page: Page, tree: Callable[[int], Tree]) -> None:
    """Let the metrics be what ``tree`` makes of the number of the reading."""
    readings = iter(range(10**6))

    def answer(route: Route) -> None:
        route.fulfill(body=json.dumps(tree(next(readings))), content_type="application/json;charset=UTF-8")

    page.route("**/admin/metrics.json*", answer)


def test_figures_move_with_the_load(pages: Pages, mesh: Mesh) -> None:
    page = pages("/")
    with load(mesh):
        card = page.locator(".router-card", has=page.get_by_role("link", name="web", exact=True))
        card.get_by_text("Healthy").wait_for()
        rate = "v => Number(document.querySelector('.card-figures .figure dd').textContent) > 1"
        becomes(page, rate)
        figure(page, "Success").get_by_text("100 %", exact=True).wait_for()
        row = page.get_by_role("row", name="/svc/web")
        row.wait_for()
        assert "requests/s: now" in (card.get_by_role("img").first.get_attribute("aria-label") or "")
    becomes(page, "v => Number(document.querySelector('.card-figures .figure dd').textContent) < 1")  # and they fall again


def test_failures_are_told_by_word_and_not_only_by_colour(pages: Pages, mesh: Mesh) -> None:
    page = pages("/?router=web")
    with load(mesh, "nobody"):
        page.locator("#page-tools").get_by_text("Failing").wait_for()
        assert page.locator(".nav-routers [data-router=web] .nav-bad").inner_text() == "■"


def test_a_router_that_nobody_used_says_how_to_send_a_request(pages: Pages) -> None:
    page = pages("/?router=filed")
    line = page.get_by_text("curl -H 'Host: web' http://127.0.0.1:")
    line.wait_for()
    assert line.count() == 1


@pytest.mark.parametrize(
    ("path", "heading", "current"),
    [("/", "Overview", "Overview"), ("/?router=inner", "inner", "inner"), ("/services", "Services", "Services"), ("/help", "Help", "Help")],
)
def test_a_page_can_be_linked_to_and_loaded_again(pages: Pages, path: str, heading: str, current: str) -> None:
    page = pages(path)
    for _ in range(2):
        assert page.locator("h1").inner_text() == heading
        marked = page.locator(".nav a[aria-current=page]")
        assert (marked.count(), marked.inner_text().split("\n")[0]) == (1, current)
        page.reload()
        page.locator("#main h1").wait_for()


def test_going_to_a_router_and_back_keeps_the_page(pages: Pages) -> None:
    page = pages("/")
    page.evaluate("window.isTheSame = true")
    page.locator(".router-card").get_by_role("link", name="inner").click()
    page.get_by_role("heading", name="inner", level=1).wait_for()
    page.get_by_role("region", name="Servers").wait_for()
    assert (page.title(), page.url.rpartition("/")[2]) == ("inner · meshgw", "?router=inner")
    page.go_back()
    page.get_by_role("heading", name="Overview", level=1).wait_for()
    page.locator(".router-card").first.wait_for()
    assert page.evaluate("window.isTheSame") is True


def test_a_router_that_a_reload_took_away_is_shown_no_more(pages: Pages, mesh: Mesh) -> None:
    page = pages("/")
    cards = page.locator(".router-card h2")
    page.locator(".router-card").get_by_role("link", name="inner").wait_for()
    settings = page.request.get(f"{mesh.url}/config.json").json()
    settings["routers"] = [one for one in settings["routers"] if one["label"] != "inner"]
    page.route("**/config.json", lambda route: route.fulfill(json=settings))
    page.evaluate("dispatchEvent(new Event('pagehide')); dispatchEvent(new Event('pageshow'))")  # it is read again
    becomes(page, "v => ![...document.querySelectorAll('.router-card h2')].some(one => one.textContent === 'inner')")
    assert sorted(cards.all_inner_texts()) == ["filed", "web"]


def test_a_router_that_is_not_there_is_told_of(pages: Pages) -> None:
    pages.expect_refusals("/admin/metrics.json")
    page = pages("/?router=%3Cb%3Enone")
    page.get_by_text("Nothing is known of the router “<b>none”").wait_for()
    page.get_by_role("link", name="All routers").click()
    page.locator(".router-card").first.wait_for()


def test_a_client_unfolds_to_its_addresses(pages: Pages, mesh: Mesh) -> None:
    mesh.request("web")
    page = pages("/?router=web")
    section = page.get_by_role("region", name="Clients")
    row = section.get_by_role("row", name="/#/io.l5d.fs/web")
    row.get_by_role("button", name="Details").click()
    section.get_by_text(f"127.0.0.1:{mesh.service_port}").wait_for()
    assert section.get_by_text("Balancing").count() == 1
    row.get_by_role("button", name="Details").click()
    assert section.get_by_text("Balancing").count() == 0


def test_a_service_unfolds_to_its_clients_and_leads_to_the_playground(pages: Pages, mesh: Mesh) -> None:
    mesh.request("split")
    page = pages("/services")
    page.get_by_role("row", name="/svc/split").get_by_role("button", name="Details").click()
    details = page.locator(".row-details")
    details.get_by_text("/#/io.l5d.fs/").first.wait_for()
    assert details.get_by_role("link").get_attribute("href") == "/delegator?router=web#/svc/split"


def test_unfolded_rows_are_accessible(pages: Pages, mesh: Mesh, assert_accessible: Callable[[Page], None]) -> None:
    mesh.request("web")
    for size, theme in ((DESKTOP, "dark"), (PHONE, "light")):
        page = pages("/?router=web", size=size, theme=theme)
        page.get_by_role("row", name="/#/io.l5d.fs/web").get_by_role("button", name="Details").click()
        page.get_by_text("Balancing").wait_for()
        assert_accessible(page)


def test_the_keyboard_goes_to_pages_finds_and_lists_what_it_can(pages: Pages, mesh: Mesh) -> None:
    for name in ("web", "api", "split", "choice", "alias", "nobody"):  # a filter is offered from a handful on
        mesh.request(name)
    page = pages("/")
    page.get_by_role("row", name="/svc/alias").wait_for()
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    page.keyboard.press("/")
    page.keyboard.type("g s alias")
    page.get_by_role("row", name="/svc/alias").wait_for(state="hidden")
    assert page.url.endswith("?q=g+s+alias")  # what is typed into a field is no shortcut
    page.locator("h1").click()
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.get_by_role("heading", name="Services", level=1).wait_for()


def test_a_letter_without_g_goes_nowhere_even_at_once(pages: Pages) -> None:
    page = pages("/")
    page.locator("#tools button").first.wait_for()  # the keyboard is watched
    page.evaluate("performance.now = () => 100; 0")  # a page that was opened a moment ago
    page.keyboard.press("h")
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keyboard").wait_for()
    assert page.locator("h1").inner_text() == "Overview"


def test_the_chosen_colours_are_remembered(pages: Pages) -> None:
    page = pages("/")
    page.get_by_role("button", name="Colours: system; change").click()
    page.get_by_role("button", name="Colours: light; change").click()
    dark = page.evaluate("getComputedStyle(document.body).color")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).color") == dark
    page.get_by_role("button", name="Colours: dark; change").click()
    assert page.evaluate("getComputedStyle(document.body).color") != dark


def test_without_scripts_a_page_leads_to_the_figures(pages: Pages) -> None:
    page = pages.blank(java_script_enabled=False)
    page.goto(f"{page_origin(pages)}/")
    assert page.get_by_role("link", name="/admin/metrics.json?tree=1").is_visible()
    assert page.get_by_role("link", name="delegate /svc").count() == 3


def page_origin(pages: Pages) -> str:
    return pages.watched[-1].origin


def test_three_thousand_clients_are_paged_filtered_and_sorted(pages: Pages) -> None:
    page = pages.blank()
    answers_trees(page, lambda reading: {"rt": {"web": {"server": {}, "client": clients(3000, 10 * reading), "service": {}}}})
    page.goto(f"{page_origin(pages)}/?list=clients")
    rows = page.locator(".table tbody tr")
    page.get_by_text("1–50 of 3000").wait_for()
    assert rows.count() == 50
    page.get_by_role("button", name="Next").click()
    page.get_by_text("51–100 of 3000").wait_for()
    page.locator("[data-find]").fill("service-29")
    page.get_by_text("1–50 of 100 (3000 in all)").wait_for()
    page.get_by_role("button", name="Client", exact=True).click()
    assert rows.first.locator(".name").inner_text() == "/#/io.l5d.fs/service-2900"
    page.get_by_role("button", name="Client", exact=True).click()
    assert rows.first.locator(".name").inner_text() == "/#/io.l5d.fs/service-2999"
    assert page.get_by_role("columnheader", name="Client").get_attribute("aria-sort") == "descending"


def test_a_gateway_that_begins_anew_makes_no_peak(pages: Pages) -> None:
    page = pages.blank()

    def tree(reading: int) -> Tree:
        count = 100_000 + 10 * reading if reading < 3 else 10 * reading
        return {"rt": {"web": {"server": {"127.0.0.1/4140": counters(requests=count, success=count)}}}}

    answers_trees(page, tree)
    page.goto(f"{page_origin(pages)}/")
    label = "(document.querySelector('.router-card [role=img]')?.getAttribute('aria-label') ?? '')"
    becomes(
        page, f"v => (document.querySelector('.router-card .chart-line.line-1')?.getAttribute('d') ?? '').split('M').length > 2 && {label}"
    )
    most = page.evaluate(f"Number(/most ([0-9.]+);/.exec({label})[1])")
    assert 0 < most < 100


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, "a token is required: the reader's", "give the reader's or operator's token as the password"),
        (403, "refused: 'x' is not a known name of this server", "'x' is not a known name of this server"),
        (404, "", "admin.security does not let"),
        (503, "too busy", "too busy"),
    ],
)
def test_a_refusal_says_what_to_do(pages: Pages, status: int, body: str, said: str) -> None:
    page = pages.blank()
    pages.expect_refusals("/admin/metrics.json")
    page.route("**/admin/metrics.json*", lambda route: route.fulfill(status=status, body=body, content_type="text/plain"))
    page.goto(f"{page_origin(pages)}/")
    page.get_by_role("alert").get_by_text(said).wait_for()


def test_figures_stay_and_are_called_stale_until_there_is_an_answer(pages: Pages, mesh: Mesh) -> None:
    mesh.request("web")
    page = pages("/")
    page.get_by_role("row", name="/svc/web").wait_for()
    pages.expect_unreachable()
    page.context.set_offline(True)
    page.locator("#freshness.freshness-stale").wait_for()
    page.get_by_text("The gateway cannot be reached.").wait_for()
    assert page.get_by_role("row", name="/svc/web").is_visible()
    page.context.set_offline(False)
    page.locator("#freshness.freshness-live").wait_for()
    assert page.get_by_text("The gateway cannot be reached.").is_hidden()


def test_what_is_not_there_yet_is_said_to_be_collected(pages: Pages) -> None:
    page = pages.blank()
    server = {"127.0.0.1/4140": counters(requests=1, success=1)}
    answers_trees(page, lambda _: {"rt": {"web": {"server": server}}, "jvm": {"uptime": {"gauge": 20_000.0}}})
    page.goto(f"{page_origin(pages)}/")
    page.get_by_text("Latencies (…) are being collected; the first ones come in 40 s.").wait_for()
