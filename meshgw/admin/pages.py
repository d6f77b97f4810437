"""The HTML of the admin server: a plain index page that works without scripts, and the headers every page is sent with.

Source: linkerd-config spec 2.3 (``/``). All text that comes from the configuration is escaped; the policy forbids scripts and frames.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from html import escape
from urllib.parse import urlencode

_STYLE = "body{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto;padding:0 1em}li{margin:.3em 0}code{background:#eee;padding:0 .3em}"
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()

PAGE_HEADERS = (
    ("Content-Security-Policy", f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)


def index_page(info: Mapping[str, object], paths: Iterable[str], routers: Iterable[tuple[str, str]]) -> str:
    """The page at ``/``: ``info`` as for ``/admin/server_info``, the GET ``paths``, and label and dtab of each router."""
    links = "".join(f'<li><a href="{escape(path)}">{escape(path)}</a></li>' for path in paths)
    rows = "".join(_router(label, dtab) for label, dtab in routers)
    version = escape(str(info.get("version", "")))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>meshgw</title><style>{_STYLE}</style></head><body><h1>meshgw {version}</h1>"
        f"<h2>Routers</h2><ul>{rows}</ul><h2>Pages</h2><ul>{links}</ul></body></html>\n"
    )


def _router(label: str, dtab: str) -> str:
    query = escape(urlencode({"namespace": label, "dtab": dtab, "path": "/svc"}))
    return f'<li>{escape(label)}: <code>{escape(dtab)}</code> <a href="/delegator.json?{query}">delegate /svc</a></li>'
