"""The dashboard in a real browser: one Chromium and one gateway for each module of tests, a fresh profile for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from support import browsers
from support.gateways import Gateway, Json, gateway
from support.origin import origin
from support.processes import LOOPBACK, Running, free_port

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for the tests of a module; playwright's loop must not outlive them, as others start loops of their own."""
    why = browsers.missing()
    if why:
        pytest.skip(why)
    with browsers.chromium() as made:
        yield made


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A gateway of two routers over services that answer as they are asked to."""
    with Running(tmp_path_factory.mktemp("browser")) as running:
        yield start_mesh(running)


@attrs.frozen
class Mesh:
    """A gateway, the programs around it, and where the services listen."""

    gateway: Gateway
    running: Running
    service_port: int

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


def start_mesh(running: Running, **top: Any) -> Mesh:
    """Start the services and the gateway; ``top`` are further keys of its configuration."""
    service = origin(running)
    port = free_port()
    names = running.directory / "meshgw-names"
    routers: list[Json] = [
        {"protocol": "http", "label": "web", "dtab": DTAB, "servers": [{"port": port}]},
        {"protocol": "http", "label": "inner", "dtab": "/svc => /#/io.l5d.fs", "servers": [{"port": free_port()}]},
    ]
    routers[1]["interpreter"] = {"kind": "default", "transformers": [{"kind": "io.l5d.port", "port": service}]}
    settings = {
        "routers": routers,
        "namers": [{"kind": "io.l5d.fs", "rootDir": str(names)}],
        "telemetry": [{"kind": "io.l5d.recentRequests", "sampleRate": 1.0, "capacity": 200}],
        **top,
    }
    made = gateway(running, {"web": service, "api": (service, service + 1), "empty": ()}, port=port, top=settings)
    return Mesh(made, running, service)


class Pages:
    """Opens pages, each in a profile of its own, and knows what went wrong in them."""

    def __init__(self, browser: Browser, url: str, leave: ExitStack) -> None:
        self._browser, self._url, self._leave = browser, url, leave
        self.watched: list[browsers.Watched] = []

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
        self.watched.append(browsers.Watched(page, self._url))
        return page

    def expect_refusals(self, *paths: str) -> None:
        """Error statuses from these paths are part of the test, for the page opened last."""
        self.watched[-1].expect_refusals(*paths)


@pytest.fixture
def pages(browser: Browser, mesh: Mesh) -> Iterator[Pages]:
    """Opens pages; the test fails if anything went wrong in one of them that it does not expect."""
    with ExitStack() as leave:
        made = Pages(browser, mesh.url, leave)
        yield made
        problems = [problem for watched in made.watched for problem in watched.problems]
    assert problems == []


@pytest.fixture
def assert_accessible() -> Callable[[Page], None]:
    """Fails if axe finds something serious in a page, or the page scrolls sideways."""

    def check(page: Page) -> None:
        assert browsers.serious_violations(page) == []
        assert not browsers.scrolls_sideways(page), "the page is wider than its window"

    return check
