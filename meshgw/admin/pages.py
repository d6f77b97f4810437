"""The HTML of the admin server: one shell for all pages of the dashboard, and the headers every page is sent with.

Source: linkerd-config spec 2.3 and 2.5. A page is its navigation and a script that fills it; without scripts it says where the same can be
read as JSON. All text that comes from the configuration is escaped; the policy allows the server's own files only, nothing in line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from urllib.parse import urlencode

import attrs

from meshgw.admin.api import HTML, Answer, GatewayView, Query, View
from meshgw.admin.assets import Asset, Assets

PAGE_HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'none'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)


@attrs.frozen(kw_only=True)
class Page:
    """A page: its path, what it is called, its script, its key after ``g``, and what its script reads."""

    path: str
    name: str
    title: str
    script: str
    key: str
    reads: tuple[str, ...]


_FIGURES = ("/admin/metrics.json?tree=1", "/admin/server_info", "/client_state.json", "/config.json")

PAGES = (
    Page(path="/", name="overview", title="Overview", script="overview.js", key="o", reads=_FIGURES),
    Page(path="/services", name="services", title="Services", script="overview.js", key="s", reads=_FIGURES),
    Page(path="/delegator", name="dtab", title="Dtab", script="playground.js", key="d", reads=("/delegator.json", "/bound-names.json")),
    Page(path="/requests", name="requests", title="Requests", script="requests.js", key="r", reads=("/requests.json",)),
    Page(path="/logging", name="logging", title="Logging", script="logging.js", key="l", reads=("/logging.json",)),
    Page(path="/help", name="help", title="Help", script="help.js", key="h", reads=("/admin",)),
)

_SHEETS = ("style.css", "figures.css", "pages.css")


@attrs.frozen
class Shown:
    """What surrounds a page: the version, the routers with their dtabs, and the paths that can be read (for the overview only)."""

    version: str
    routers: Sequence[tuple[str, str]]
    paths: Iterable[str] = ()


def page_html(page: Page, shown: Shown, url: Callable[[str], str], router: str | None = None) -> str:
    """The HTML of ``page``; ``url`` gives the address of a static file, ``router`` is the label of the one that is looked at."""
    title = f"{page.title} · meshgw" if router is None else f"{router} · {page.title} · meshgw"
    sheets = "".join(f'<link rel="stylesheet" href="{url(sheet)}">' for sheet in _SHEETS)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<title>{escape(title)}</title><link rel="icon" type="image/svg+xml" href="{url("favicon.svg")}">'
        f"{sheets}"
        f'<script src="{url("theme.js")}"></script><script type="module" src="{url(page.script)}"></script></head>\n'
        f'<body data-page="{page.name}"><a class="skip" href="#main">Skip to content</a>{_bar(shown)}{_navigation(page, shown, router)}'
        f'<main id="main" tabindex="-1"><noscript>{_without_scripts(page, shown)}</noscript></main></body></html>\n'
    )


def _bar(shown: Shown) -> str:
    return (
        '<header class="bar"><a class="brand" href="/"><span class="mark" aria-hidden="true"></span>meshgw'
        f'<span class="version">{escape(shown.version)}</span></a><div class="bar-tools" id="tools"></div></header>'
    )


def _navigation(page: Page, shown: Shown, router: str | None) -> str:
    links = "".join(
        f'<li><a href="{one.path}" data-key="{one.key}"{_current(one is page and router is None)}>{one.title}</a></li>' for one in PAGES
    )
    routers = "".join(
        f'<li><a href="/?{escape(urlencode({"router": label}))}" data-router="{escape(label)}"{_current(label == router)}>'
        f"<span>{escape(label)}</span></a></li>"
        for label, _dtab in shown.routers
    )
    return (
        f'<nav class="nav" aria-label="Pages"><ul class="nav-pages">{links}</ul>'
        f'<h2 class="nav-title" id="routers">Routers</h2><ul class="nav-routers" aria-labelledby="routers">{routers}</ul></nav>'
    )


def _current(is_current: bool) -> str:
    return ' aria-current="page"' if is_current else ""


def _without_scripts(page: Page, shown: Shown) -> str:
    reads = "".join(f'<li><a href="{escape(path)}">{escape(path)}</a></li>' for path in page.reads)
    text = f"<h1>{page.title}</h1><p>This page needs JavaScript. What it shows can be read here:</p><ul>{reads}</ul>"
    if page.name != "overview":
        return text
    links = "".join(f'<li><a href="{escape(path)}">{escape(path)}</a></li>' for path in shown.paths)
    rows = "".join(_router(label, dtab) for label, dtab in shown.routers)
    return f"{text}<h2>Routers</h2><ul>{rows}</ul><h2>All paths</h2><ul>{links}</ul>"


def _router(label: str, dtab: str) -> str:
    query = escape(urlencode({"namespace": label, "dtab": dtab, "path": "/svc"}))
    return f'<li>{escape(label)}: <code>{escape(dtab)}</code> <a href="/delegator.json?{query}">delegate /svc</a></li>'


class Dashboard:
    """The views of the pages and of their files."""

    def __init__(self, view: GatewayView, assets: Assets, paths: Callable[[], Iterable[str]]) -> None:
        """``paths`` tells which paths can be read, for those without scripts."""
        self._view, self._assets, self._paths = view, assets, paths

    def pages(self) -> dict[str, View]:
        """The pages by path."""
        return {page.path: self._page(page) for page in PAGES}

    def files(self) -> dict[str, View]:
        """The files by path."""
        return {path: _file(asset) for path, asset in self._assets.by_path.items()}

    def _page(self, page: Page) -> View:
        def shown(query: Query) -> Answer:
            routers = [(label, router.dtab.show()) for label, router in self._view.routers.items()]
            version = str(self._view.server_info().get("version", ""))
            router = query.first("router") if page.name == "overview" else None
            known = router if router in self._view.routers else None  # an unknown one is told of by the script
            return Answer(page_html(page, Shown(version, routers, self._paths()), self._assets.url, known), HTML)

        return shown


def _file(asset: Asset) -> View:
    answer = Answer(asset.body, asset.content_type, headers=(("ETag", asset.etag), ("Cache-Control", asset.cache_control)))
    return lambda _query: answer
