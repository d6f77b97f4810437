"""Who may use which admin path: the configured categories, and the defence against requests a browser was tricked into.

Source: linkerd-config spec 2.2. Linkerd has no defence of the second kind; meshgw refuses a change that a page of another origin
asks for, and whatever a browser asks for by a foreign name, which may have been made to resolve to this address (DNS rebinding).
Programs may use any name: scrapers and probes know the server by names of their cluster, which it does not know itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

_UI = re.compile(
    r"/|/files/.*|/admin/files/.*|/config\.json|/metrics\.json|/admin/metrics\.json|/admin/metrics|/delegator|/delegator\.json|/logging|/help"
)
_CONTROL = re.compile(r"/admin/shutdown|/admin/reload|/admin/tracing|/logging\.json")


class AdminSecurity:
    """The ``admin.security`` block as a decision. Regular expressions must match a whole path; a blacklisted path is never served."""

    def __init__(
        self,
        *,
        ui_enabled: bool = True,
        control_enabled: bool = True,
        diagnostics_enabled: bool = True,
        whitelist: Sequence[str] = (),
        blacklist: Sequence[str] = (),
    ) -> None:
        """Raises ValueError for what is not a regular expression."""
        self._ui, self._control, self._diagnostics = ui_enabled, control_enabled, diagnostics_enabled
        self._white = [_compiled(pattern) for pattern in whitelist]
        self._black = [_compiled(pattern) for pattern in blacklist]

    def serves(self, path: str) -> bool:
        """Whether ``path`` is served at all; if not, the answer is an empty 404.

        It is the path as it was asked for. The blacklist holds for what it stands for, too: escapes must not lead around it.
        """
        if any(pattern.fullmatch(form) for form in (path, unquote(path)) for pattern in self._black):
            return False
        if _UI.fullmatch(path):
            enabled = self._ui
        elif _CONTROL.fullmatch(path):
            enabled = self._control
        else:
            enabled = self._diagnostics
        return enabled or any(pattern.fullmatch(path) for pattern in self._white)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error


def refusal(host: str, origin: str | None, fetch_site: str | None, names: Collection[str]) -> str | None:
    """Why a request that changes something is refused, or None.

    ``host``, ``origin`` and ``fetch_site`` are the headers Host, Origin and Sec-Fetch-Site; ``names`` are the host names
    under which this server is known to browsers, in lower case, besides ``localhost`` and addresses. Only browsers send the latter two
    headers, so that command-line clients are not affected.
    """
    if origin is None and fetch_site is None:
        return None
    if fetch_site is not None and fetch_site not in ("same-origin", "none"):
        return f"a page of another site may not change anything here (Sec-Fetch-Site: {fetch_site})"
    if origin is not None and _authority(origin) != host.lower():
        return "a page of another origin may not change anything here (Origin differs from Host)"
    return _foreign(host, names)


# A page under a rebound name is of the same origin as what it reads, over plain HTTP: its browser sends neither Origin nor Sec-Fetch-*
# with a GET. Some browsers let a page choose its User-Agent, none lets it do without Accept-Language, which few programs send.
_MARKS = ("origin", "sec-fetch-site", "accept-language", "referer")


def rebinding(header: Callable[[str], str | None], names: Collection[str]) -> str | None:
    """Why a request for what needs no token is refused, or None: it is a browser's, and Host is a name not known here.

    ``header`` gives the value of a header by its lower-case name; ``names`` are as for :func:`refusal`.
    """
    is_browser = (header("user-agent") or "").startswith("Mozilla/") or any(header(mark) is not None for mark in _MARKS)
    return _foreign(header("host") or "", names) if is_browser else None


def _foreign(host: str, names: Collection[str]) -> str | None:
    name = _host_name(host)
    if name == "localhost" or name in names or _is_address(name):
        return None
    return f"{name!r} is not a known name of this server; use its address or localhost, or list the name in admin.hostNames"


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:  # a bracket without its partner
        return ""


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
