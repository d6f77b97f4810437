from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from meshgw.admin.assets import packaged
from meshgw.admin.pages import PAGE_HEADERS, PAGES, Page, Shown, page_html

NASTY = '<b>"two"&\''


class Elements(HTMLParser):
    """The elements of a document in their order, each with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.found if name == tag]


def elements(page: Page, router: str | None = None) -> Elements:
    shown = Shown("1<2", [("web", "/svc=>/a"), (NASTY, "/a=>/b")], ["/config.json"])
    return Elements(page_html(page, shown, packaged().url, router))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_obeys_its_own_policy(page: Page) -> None:
    made = elements(page)
    assert not made.named("style") and all("src" in script for script in made.named("script"))
    assert not [attributes for _, attributes in made.found if "style" in attributes or any(name.startswith("on") for name in attributes)]
    used = [script["src"] for script in made.named("script")] + [link["href"] for link in made.named("link")]
    assert all(path in packaged().by_path for path in used)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_current_page_is_marked_once(page: Page) -> None:
    marked = [link["href"] for link in elements(page).named("a") if link.get("aria-current") == "page"]
    assert marked == [page.path]


def test_a_router_is_marked_instead_of_the_overview() -> None:
    links = elements(PAGES[0], router=NASTY).named("a")
    assert [link["data-router"] for link in links if link.get("aria-current") == "page"] == [NASTY]
    assert "/?router=%3Cb%3E%22two%22%26%27" in [link["href"] for link in links]


def test_what_comes_from_the_configuration_is_text() -> None:
    assert not elements(PAGES[0], router=NASTY).named("b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_without_scripts_a_page_leads_to_what_it_would_show(page: Page) -> None:
    text = page_html(page, Shown("1", []), packaged().url)
    inside = text.partition("<noscript>")[2].partition("</noscript>")[0]
    assert [link["href"] for link in Elements(inside).named("a")][: len(page.reads)] == list(page.reads)


def test_the_policy_allows_nothing_but_own_files() -> None:
    policy = dict(PAGE_HEADERS)["Content-Security-Policy"]
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in policy and "http" not in policy


def test_pages_have_keys_of_their_own() -> None:
    assert len({page.key for page in PAGES}) == len({page.path for page in PAGES}) == len(PAGES)
