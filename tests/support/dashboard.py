"""A gateway whose dashboard is tested: its routers and services, and pages of it in a browser."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import attrs

from support import browsers
from support.gateways import Gateway, Json, gateway
from support.origin import origin
from support.processes import LOOPBACK, Running, free_port
from support.servers import written

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DTAB = """
/svc => /#/io.l5d.fs;
/svc/split => 3*/#/io.l5d.fs/web & 1*/#/io.l5d.fs/api;
/svc/choice => /#/io.l5d.fs/none | /#/io.l5d.fs/web | /#/io.l5d.fs/api;
/svc/never => !;
/svc/boom => /$/nope;
/svc/alias => /svc/web
"""


@attrs.frozen
class Mesh:
    """A gateway, the programs around it, and where the services listen."""

    gateway: Gateway
    running: Running
    service_port: int
    closed_port: int
    """Where nothing listens."""

    @property
    def url(self) -> str:
        """The root of the dashboard."""
        return f"http://{LOOPBACK}:{self.gateway.admin_port}"

    def request(self, host: str, target: str = "/") -> int:
        """Send one request through the gateway; the status of its answer."""
        return self.gateway.get(host, target).status

    def log(self) -> str:
        """What the gateway has logged."""
        return self.gateway.process.output()


def start_mesh(running: Running, *, admin: Json | None = None, **top: Any) -> Mesh:
    """Start the services and the gateway; ``admin`` are further keys of that block, ``top`` of the whole configuration."""
    service = origin(running)
    port, closed = free_port(), free_port()
    names = running.directory / "meshgw-names"
    routers: list[Json] = [
        {"protocol": "http", "label": "web", "dtab": DTAB, "servers": [{"port": port}]},
        {"protocol": "http", "label": "inner", "dtab": "/svc => /#/io.l5d.fs", "servers": [{"port": free_port()}]},
        {"protocol": "http", "label": "filed", "dtab": "/svc => /host", "servers": [{"port": free_port()}]},
    ]
    routers[1]["interpreter"] = {"kind": "default", "transformers": [{"kind": "io.l5d.port", "port": closed}]}
    routers[2]["interpreter"] = {"kind": "io.l5d.fs", "dtabFile": str(written(running.directory, "filed.dtab", "/host => /#/io.l5d.fs;"))}
    settings = {
        "routers": routers,
        "namers": [{"kind": "io.l5d.fs", "rootDir": str(names)}],
        "telemetry": [{"kind": "io.l5d.recentRequests", "sampleRate": 1.0, "capacity": 200}],
        **top,
    }
    made = gateway(running, {"web": service, "api": (service, closed), "empty": ()}, admin=admin, port=port, top=settings)
    return Mesh(made, running, service, closed)


class Pages:
    """Opens pages, each in a profile of its own, and knows what went wrong in them."""

    def __init__(self, browser: Browser, url: str, leave: ExitStack) -> None:
        self._browser, self._url, self._leave = browser, url, leave
        self.watched: list[browsers.Watched] = []
        self._expected: set[str] = set()

    def __call__(self, path: str, *, size: tuple[int, int] = browsers.DESKTOP, theme: str = "light", **options: Any) -> Page:
        """Open ``path`` and wait until its script has made the page."""
        page = self.blank(size=size, theme=theme, **options)
        page.goto(f"{self._url}{path}")
        page.locator("main").wait_for()
        return page

    def blank(self, *, size: tuple[int, int] = browsers.DESKTOP, theme: str = "light", **options: Any) -> Page:
        """A page that has been nowhere yet, for tests that answer its requests themselves."""
        context = browsers.context(self._browser, size, theme, **options)
        self._leave.callback(context.close)
        page = context.new_page()
        self.watched.append(browsers.Watched(page, self._url, self._expected))
        return page

    def at(self, url: str) -> Pages:
        """The same for another gateway."""
        other = Pages(self._browser, url, self._leave)
        other.watched, other._expected = self.watched, self._expected
        return other

    def expect_unreachable(self) -> None:
        """That nothing answers is part of the test, for the page opened last."""
        self.watched[-1].is_offline = True

    def expect_refusals(self, *paths: str) -> None:
        """Error statuses from these paths are part of the test; the browser mentions them in its console."""
        self._expected.update(paths)
