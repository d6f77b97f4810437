"""The logging page: a level that is chosen there holds in the gateway, and who may not change it is told so."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.dashboard import start_mesh
from support.gateways import SECONDS
from support.processes import Running, wait_until
from support.servers import written

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from support.dashboard import Mesh, Pages

pytestmark = pytest.mark.integration


def group(page: Page, logger: str) -> Locator:
    return page.get_by_role("radiogroup", name=f"Level of {logger}", exact=True)


def chosen(page: Page, logger: str) -> str:
    return str(group(page, logger).locator("input:checked").get_attribute("value"))


def levels(mesh: Mesh) -> dict[str, str]:
    return {one["logger"]: one["level"] for one in json.loads(mesh.gateway.admin("/logging.json").body)}


def set_level(mesh: Mesh, logger: str, level: str) -> None:
    form = f"logger={logger}&level={level}".encode()
    assert mesh.gateway.admin("/logging.json", form, "application/x-www-form-urlencoded").status == 200


def choose(page: Page, logger: str, level: str) -> None:
    group(page, logger).get_by_role("radio", name=level, exact=True).check(force=True)


def test_a_level_that_is_chosen_holds_in_the_gateway(pages: Pages, mesh: Mesh) -> None:
    page = pages("/logging")
    choose(page, "meshgw", "DEBUG")
    page.get_by_text("meshgw logs at DEBUG").wait_for()
    assert levels(mesh)["meshgw"] == "DEBUG"
    page.reload()
    group(page, "meshgw").wait_for()
    assert chosen(page, "meshgw") == "DEBUG"
    set_level(mesh, "meshgw", "INFO")


def test_a_reader_is_warned_of_nothing_when_there_is_nothing(pages: Pages) -> None:
    page = pages("/logging")
    page.locator(".logger").first.wait_for()
    assert not any(notice.is_visible() for notice in page.locator(".notice").all())


def test_a_logger_that_is_turned_off_says_nothing_until_it_is_turned_on(pages: Pages, mesh: Mesh) -> None:
    file = mesh.running.directory / "filed.dtab"
    said = f"{file}: dtab of 2 entries in use"
    page = pages("/logging")
    choose(page, "meshgw", "OFF")
    page.get_by_text("meshgw logs at OFF").wait_for()
    before = mesh.log().count(said)
    replace(file, "/host => /#/io.l5d.fs; /a => /b;")
    assert wait_until(lambda: "/a=>/b" in mesh.gateway.admin("/filed/interpreter_state/io.l5d.fs.json").text, SECONDS)
    assert mesh.log().count(said) == before
    choose(page, "meshgw", "INFO")
    page.get_by_text("meshgw logs at INFO").wait_for()
    replace(file, "/host => /#/io.l5d.fs; /a => /c;")
    assert wait_until(lambda: mesh.log().count(said) == before + 1, SECONDS)


def replace(file: Path, text: str) -> None:
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)


def test_loggers_below_show_that_they_inherit(pages: Pages, mesh: Mesh) -> None:
    page = pages("/logging")
    below = page.locator(".logger", has=group(page, "meshgw.app"))
    below.get_by_text("inherited from meshgw").wait_for()
    choose(page, "meshgw", "ERROR")
    assert chosen(page, "meshgw.app") == "ERROR", "at once, before the gateway has answered"
    page.get_by_text("meshgw logs at ERROR").wait_for()
    assert levels(mesh)["meshgw.app"] == "ERROR"
    set_level(mesh, "meshgw", "INFO")


def test_arrow_keys_choose_and_only_where_they_stop_is_sent(pages: Pages, mesh: Mesh) -> None:
    set_level(mesh, "meshgw", "INFO")
    page = pages.blank()
    page.clock.install()
    page.goto(f"{mesh.url}/logging")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or "") if request.method == "POST" else None)
    group(page, "meshgw").locator("input:checked").focus()
    page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))  # keys are pressed as slowly as the machine likes
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert chosen(page, "meshgw") == "ERROR"
    page.clock.run_for(1000)
    page.get_by_text("meshgw logs at ERROR").wait_for()
    assert sent == ["logger=meshgw&level=ERROR"]
    set_level(mesh, "meshgw", "INFO")


def test_a_change_made_elsewhere_is_shown(pages: Pages, mesh: Mesh) -> None:
    page = pages("/logging")
    group(page, "root").wait_for()
    set_level(mesh, "root", "WARNING")
    page.locator(".logger", has=group(page, "root")).locator("input[value=WARNING]:checked").wait_for(state="attached")
    set_level(mesh, "root", "INFO")


def test_loggers_are_found_and_the_search_is_part_of_the_link(pages: Pages) -> None:
    page = pages("/logging")
    page.get_by_label("Find a logger or level").fill("twisted")
    page.locator(".logger-name", has_text="meshgw").first.wait_for(state="detached")
    assert page.url.endswith("/logging?text=twisted")
    page.reload()
    page.locator(".logger").first.wait_for()
    assert all("twisted" in name for name in page.locator(".logger-name").all_text_contents())
    page.get_by_label("Find a logger or level").fill("no such logger")
    page.get_by_role("button", name="Show all").click()
    group(page, "root").wait_for()


def test_who_may_only_read_is_told_and_sees_levels_as_they_are(pages: Pages, running: Running) -> None:
    reader, operator = (
        written(running.directory, "reader", "a-token-for-reading"),
        written(running.directory, "operator", "a-token-for-operating"),
    )
    authentication = {"readerTokenFile": str(reader), "operatorTokenFile": str(operator)}
    other = start_mesh(running, admin={"authentication": authentication})
    pages.expect_refusals("/logging.json")
    page = pages.at(other.url)("/logging", http_credentials={"username": "anybody", "password": "a-token-for-reading"})
    choose(page, "root", "OFF")
    page.get_by_text("Read only").wait_for()
    page.get_by_text("This needs the operator's token. Levels can be looked at").wait_for()
    assert chosen(page, "root") == "INFO"
    assert group(page, "root").locator("input:disabled").count() == 9
    as_operator = pages.at(other.url)("/logging", http_credentials={"username": "anybody", "password": "a-token-for-operating"})
    choose(as_operator, "root", "WARNING")
    as_operator.get_by_text("root logs at WARNING").wait_for()


def test_a_change_that_fails_is_taken_back(pages: Pages) -> None:
    pages.expect_refusals("/logging.json")
    page = pages("/logging")
    page.route(
        "**/logging.json", lambda route: route.fulfill(status=500, body="broken") if route.request.method == "POST" else route.continue_()
    )
    choose(page, "root", "OFF")
    page.get_by_text("The level of root stays as it was: broken").wait_for()
    assert chosen(page, "root") == "INFO"
