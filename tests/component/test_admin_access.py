"""Who may use the admin site, by tokens and by names; and what an operator reloads there."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from fakes.admin import Browser, Gateway, read
from meshgw.admin.api import RELOAD_SECONDS
from meshgw.admin.authentication import UnusableToken
from meshgw.admin.errors import NoAnswer, ReloadUnderWay
from meshgw.admin.site import admin_site
from meshgw.config.models import AdminAuthentication, AdminConfig, AdminSecurity

OPERATOR, READER, WRONG = "operator-0123456789", "reader-0123456789abc", "guessed-token-0123456789"
AS_OPERATOR, AS_READER = f"Bearer {OPERATOR}", f"Bearer {READER}"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
CHANGES = ["/admin/shutdown", "/admin/reload", "/logging.json?logger=root&level=DEBUG"]


class Guarded(Browser):
    """A site made from a configuration with tokens, and how often a wrong one was shown."""

    def __init__(self, directory: Path, *, reader: bool = True, security: AdminSecurity | None = None) -> None:
        super().__init__()
        files = {"operator_token_file": (directory / "operator", OPERATOR)}
        if reader:
            files["reader_token_file"] = (directory / "reader", READER)
        for file, token in files.values():
            file.write_text(token)
        tokens = AdminAuthentication(**{option: str(file) for option, (file, _) in files.items()})
        self.failures = 0
        config = AdminConfig(authentication=tokens, security=security)
        self.site = admin_site(config, self.gateway, self.clock, failed=self.fail)

    def fail(self) -> None:
        self.failures += 1


def named(host_names: tuple[str, ...] = (), own_name: str = "") -> Browser:
    """A site without authentication that is made from a configuration."""
    browser = Browser()
    browser.site = admin_site(AdminConfig(host_names=host_names), browser.gateway, browser.clock, own_name=own_name)
    return browser


# Authentication


def test_every_path_but_those_for_probes_needs_a_token_when_there_is_one_for_readers(tmp_path: Path) -> None:
    browser = Guarded(tmp_path)
    paths = browser.get("/admin", Authorization=AS_READER).text.splitlines()
    asked = {path: browser.get(path).status for path in [*paths, "/nothing", "/admin/ping/"]}
    assert {path for path, status in asked.items() if status != 401} == {"/admin/ping", "/admin/ready"}
    assert (asked["/admin/ping"], browser.failures) == (200, 0)


@pytest.mark.parametrize("shown", [AS_READER, AS_OPERATOR, "Basic " + b64encode(f"me:{READER}".encode()).decode()])
def test_reading_takes_either_token_as_bearer_or_password(tmp_path: Path, shown: str) -> None:
    browser = Guarded(tmp_path)
    assert browser.get("/admin/server_info", Authorization=shown).status == 200
    assert browser.ask("HEAD", "/config.json", Authorization=shown).status == 200
    assert browser.get("/delegator.json?path=/svc&namespace=one", Authorization=shown).status == 200
    assert browser.get("/nothing", Authorization=shown).status == 404
    assert browser.ask("PUT", "/admin/reload", Authorization=shown).status == 405


def test_refusal_challenges_for_both_schemes(tmp_path: Path) -> None:
    _, transport = Guarded(tmp_path).send("GET", "/")
    head = transport.value().partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 401 ")
    challenges = {line.partition(b": ")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"www-authenticate: ")}
    assert challenges == {b'Bearer realm="meshgw"', b'Basic realm="meshgw", charset="UTF-8"'}


@pytest.mark.parametrize("target", CHANGES)
def test_changes_need_the_operators_token(tmp_path: Path, target: str) -> None:
    for reader in (True, False):
        browser = Guarded(tmp_path, reader=reader)
        assert browser.post(target).status == 401
        assert browser.post(target, Authorization=f"Bearer {WRONG}").status == 401
        assert (browser.gateway.ended, browser.gateway.reloads, browser.levels.level("root")) == ([], [], "INFO")
        assert browser.failures == 1


@pytest.mark.parametrize("target", CHANGES)
def test_readers_may_not_change_anything(tmp_path: Path, target: str) -> None:
    browser = Guarded(tmp_path)
    reply = browser.post(target, Authorization=AS_READER)
    assert (reply.status, reply.text) == (403, "refused: this needs the operator's token\n")
    assert (browser.gateway.ended, browser.gateway.reloads, browser.levels.level("root")) == ([], [], "INFO")


def test_operators_may_change_what_there_is(tmp_path: Path) -> None:
    browser = Guarded(tmp_path)
    assert browser.post("/logging.json?logger=root&level=DEBUG", Authorization=AS_OPERATOR).status == 200
    assert browser.post("/admin/shutdown", Authorization=AS_OPERATOR).body == b"quitting"
    assert (browser.gateway.ended, browser.levels.level("root")) == ([None], "DEBUG")


def test_everybody_may_read_with_an_operators_token_only(tmp_path: Path) -> None:
    browser = Guarded(tmp_path, reader=False)
    assert browser.get("/config.json").status == 200
    assert browser.get("/logging.json", Authorization=f"Bearer {WRONG}").status == 200
    assert browser.failures == 0


def test_browser_with_the_operators_password_is_still_refused_for_another_sites_page(tmp_path: Path) -> None:
    browser = Guarded(tmp_path)
    password = "Basic " + b64encode(f":{OPERATOR}".encode()).decode()
    assert browser.post("/admin/shutdown", Authorization=password, Origin="http://evil.example").status == 403
    assert browser.post("/admin/shutdown", Authorization=password, Sec_Fetch_Site="cross-site").status == 403
    assert browser.gateway.ended == []


def test_token_replaces_the_need_for_a_known_name_when_reading(tmp_path: Path) -> None:
    browser = Guarded(tmp_path)
    fields = {"Host": "gateway.example:9990", "User_Agent": FIREFOX}
    assert browser.get("/config.json", Authorization=AS_READER, **fields).status == 200
    assert browser.get("/config.json", **fields).status == 401
    assert browser.get("/admin/ping", **fields).status == 403


def test_closed_categories_stay_closed_to_operators(tmp_path: Path) -> None:
    browser = Guarded(tmp_path, security=AdminSecurity(control_enabled=False, path_whitelist=(re.compile("/logging.json"),)))
    assert [browser.post(target, Authorization=AS_OPERATOR).status for target in CHANGES] == [404, 404, 200]


def test_tokens_appear_in_no_answer_and_no_log(tmp_path: Path) -> None:
    browser = Guarded(tmp_path)
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        replies = [
            browser.post("/admin/reload", Authorization=f"Bearer {WRONG}"),
            browser.post("/admin/reload", Authorization=AS_READER),
            browser.get("/admin", Authorization=AS_OPERATOR),
        ]
    finally:
        globalLogPublisher.removeObserver(events.append)
    logged = "\n".join(formatEvent(event) + repr(event) for event in events)
    assert "admin requests with a wrong token: 1, the last from 192.168.1.1" in logged
    for text in (logged, *(reply.text + repr(reply.headers) for reply in replies)):
        assert not any(token in text for token in (OPERATOR, READER, WRONG))


def test_missing_token_file_ends_the_start(tmp_path: Path) -> None:
    tokens = AdminAuthentication(operator_token_file=str(tmp_path / "none"))
    browser = Browser()
    with pytest.raises(UnusableToken, match=r"admin\.authentication\.operatorTokenFile: .*none: No such file"):
        admin_site(AdminConfig(authentication=tokens), browser.gateway, browser.clock)


# Names


@pytest.mark.parametrize("path", ["/", "/config.json", "/admin/metrics.json", "/admin/ping", "/nothing"])
def test_pages_of_a_rebound_name_read_nothing(path: str) -> None:
    reply = Browser().get(path, Host="evil.example:9990", User_Agent=FIREFOX)
    assert reply.status == 403 and "admin.hostNames" in reply.text


def test_rebound_pages_change_nothing_even_without_an_origin() -> None:
    browser = Browser()
    assert browser.post("/admin/shutdown", Host="evil.example:9990", User_Agent=FIREFOX).status == 403
    assert browser.gateway.ended == []


def test_scrapers_use_any_name() -> None:
    fields = {"User_Agent": "Prometheus/2.53.0", "Accept_Encoding": "gzip", "Accept": "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"}
    assert Browser().get("/metrics", Host="meshgw.default.svc:9990", **fields).status == 200


@pytest.mark.parametrize("host", ["mesh.corp:9990", "node-1.corp:9990", "NODE-1", "127.0.0.1", "localhost:9990"])
def test_configured_and_own_names_are_known_to_browsers(host: str) -> None:
    browser = named(("Mesh.Corp",), own_name="Node-1.corp")
    assert browser.get("/", Host=host, User_Agent=FIREFOX, Accept_Language="de").status == 200
    assert browser.post("/admin/shutdown", Host=host, User_Agent=FIREFOX, Origin=f"http://{host}").status == 200
    assert browser.gateway.ended == [None]


# Reload


def test_reload_without_authentication_says_what_to_set() -> None:
    browser = Browser()
    reply = browser.post("/admin/reload")
    assert reply.status == 403 and "admin.authentication.operatorTokenFile" in reply.text
    assert browser.gateway.reloads == []


@pytest.mark.parametrize(
    ("problems", "status", "text"),
    [((), 200, "reloaded\n"), (("a.yml:3: unknown field 'x'", "port in use"), 422, "a.yml:3: unknown field 'x'\nport in use\n")],
)
def test_reload_answers_when_it_is_done(tmp_path: Path, problems: Sequence[str], status: int, text: str) -> None:
    browser = Guarded(tmp_path)
    _, transport = browser.send("POST", "/admin/reload", Authorization=AS_OPERATOR)
    browser.clock.advance(59)
    assert transport.value() == b"" and not transport.disconnecting
    browser.gateway.reloads[0].callback(problems)
    assert (read(transport).status, read(transport).text) == (status, text)


def test_reload_while_one_is_under_way_is_a_conflict(tmp_path: Path) -> None:
    browser = Guarded(tmp_path)
    _, transport = browser.send("POST", "/admin/reload", Authorization=AS_OPERATOR)
    browser.gateway.reloads[0].errback(ReloadUnderWay())
    assert read(transport).status == 409


def test_reload_that_fails_is_told_by_its_error_or_the_log(tmp_path: Path) -> None:
    browser = Guarded(tmp_path)
    replies = []
    for error in (NoAnswer(who="worker 1", seconds=5.0), ZeroDivisionError()):
        _, transport = browser.send("POST", "/admin/reload", Authorization=AS_OPERATOR)
        browser.gateway.reloads[-1].errback(error)
        replies.append((read(transport).status, read(transport).text))
    assert replies == [(504, "worker 1 did not answer within 5 s"), (500, "internal error; the log has the details\n")]


def test_caller_that_leaves_does_not_end_the_reload(tmp_path: Path) -> None:
    browser = Guarded(tmp_path)
    protocol, transport = browser.send("POST", "/admin/reload", Authorization=AS_OPERATOR)
    protocol.connectionLost(Failure(ConnectionDone()))
    assert not browser.gateway.reloads[0].called
    browser.gateway.reloads[0].callback(())
    assert transport.value() == b"" and browser.clock.getDelayedCalls() == []


def test_reload_that_fails_after_its_caller_left_is_logged(tmp_path: Path) -> None:
    browser = Guarded(tmp_path)
    protocol, _ = browser.send("POST", "/admin/reload", Authorization=AS_OPERATOR)
    protocol.connectionLost(Failure(ConnectionDone()))
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        browser.gateway.reloads[0].errback(ZeroDivisionError())
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [formatEvent(event) for event in events] == ["the reload failed after its caller had gone"]


def test_reload_that_never_ends_is_given_up_waiting_for(tmp_path: Path) -> None:
    browser = Guarded(tmp_path)
    _, transport = browser.send("POST", "/admin/reload", Authorization=AS_OPERATOR)
    browser.clock.advance(RELOAD_SECONDS)
    assert (read(transport).status, read(transport).text) == (504, "the reload did not answer within 75 s")
    assert not browser.gateway.reloads[0].called


# Views of other processes


class Silent(Gateway):
    """A gateway one of whose workers does not answer."""

    async def _asked(self) -> Any:
        raise NoAnswer(who="worker 2", seconds=5.0)

    async def snapshot(self, below: str = "") -> Any:
        return await self._asked()

    async def client_state(self) -> Any:
        return await self._asked()

    async def bound_names(self) -> Any:
        return await self._asked()

    async def loggers(self) -> Any:
        return await self._asked()

    async def delegate(self, *_question: object) -> Any:
        return await self._asked()


@pytest.mark.parametrize(
    "path", ["/admin/metrics.json", "/metrics", "/client_state.json", "/bound-names.json", "/logging.json", "/delegator.json?path=/svc"]
)
def test_process_that_does_not_answer_is_named(path: str) -> None:
    reply = Browser(Silent()).get(path)
    assert (reply.status, reply.text) == (504, "worker 2 did not answer within 5 s")
