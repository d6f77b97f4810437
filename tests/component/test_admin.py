from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest
from twisted.internet.error import ConnectionDone
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from fakes.admin import HOST, Browser, Gateway, read
from meshgw.admin import site
from meshgw.admin.errors import NoAnswer, NotDescribed
from meshgw.admin.security import AdminSecurity
from meshgw.admin.site import MAX_BODY
from meshgw.core.live import Pending, Source, failed
from meshgw.errors import NamerError
from meshgw.naming.delegation import DelegateNeg, Delegation
from meshgw.naming.path import Path


def test_ping_answers_pong() -> None:
    reply = Browser().get("/admin/ping")
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, b"pong", "text/plain;charset=UTF-8")
    assert "server" not in reply.headers and reply.headers["x-content-type-options"] == "nosniff"


def test_head_has_the_length_and_no_body() -> None:
    reply = Browser().ask("HEAD", "/admin/ping")
    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "4")


@pytest.mark.parametrize("path", ["/nothing", "/admin/", "/admin/ping/", "/admin%2Fping", "//admin/ping"])
def test_unknown_path_is_not_found(path: str) -> None:
    assert Browser().get(path).status == 404


def test_admin_lists_all_paths_sorted() -> None:
    paths = Browser().get("/admin").text.splitlines()
    assert paths == sorted(paths)
    assert {"/", "/admin", "/admin/shutdown", "/admin/metrics/prometheus", "/metrics", "/delegator.json"} <= set(paths)
    assert Browser().get("/admin/index.txt").text.splitlines() == paths


def test_what_describes_itself_is_listed_and_shown() -> None:
    browser = Browser()
    path = "/namer_state/io.l5d.consul.json"
    assert path in browser.get("/admin").text.splitlines()
    assert browser.get(path).json == {"/dc1/web": {"state": {"running": True}, "poll": {}}}
    assert browser.ask("POST", path).status == 405


@pytest.mark.parametrize(
    "path", ["/namer_state/io.l5d.none.json", "/http/interpreter_state/io.l5d.mesh.json", "/a%20b/identifier_state/x.json"]
)
def test_where_nothing_describes_itself_tells_where_something_does(path: str) -> None:
    reply = Browser().get(path)
    assert (reply.status, reply.text) == (
        404,
        f"nothing describes itself at {unquote(path)}; known: /namer_state/io.l5d.consul.json\n",
    )


@pytest.mark.parametrize("path", ["/namer_state/io.l5d.consul", "/namer_state/.json", "/namer_state", "/a/b/interpreter_state/x.json"])
def test_other_paths_like_those_of_descriptions_are_not_found(path: str) -> None:
    assert Browser().get(path).text == "not found; /admin lists what there is\n"


def test_descriptions_may_be_at_paths_that_need_escapes() -> None:
    gateway = Gateway()
    gateway.states = {"/in out/interpreter_state/io.l5d.mesh.json": {"a": 1}}
    assert Browser(gateway).get("/in%20out/interpreter_state/io.l5d.mesh.json").json == {"a": 1}


def test_paths_are_listed_even_if_nobody_can_tell_what_describes_itself() -> None:
    gateway = Gateway()
    gateway.states = NoAnswer(who="worker 1", seconds=5.0)
    assert "/admin" in Browser(gateway).get("/admin").text.splitlines()
    assert Browser(gateway).get("/namer_state/x.json").status == 504


def test_index_page_is_escaped_and_guarded() -> None:
    reply = Browser().get("/")
    assert reply.headers["content-type"] == "text/html;charset=UTF-8"
    assert "&lt;two&gt;" in reply.text and "<two>" not in reply.text and "1&lt;2" in reply.text
    assert "default-src 'none'" in reply.headers["content-security-policy"] and reply.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_shutdown_takes_only_post(method: str) -> None:
    browser = Browser()
    reply = browser.ask(method, "/admin/shutdown")
    assert (reply.status, reply.headers["allow"], browser.gateway.ended) == (405, "POST", [])


@pytest.mark.parametrize(("target", "grace"), [("/admin/shutdown", None), ("/admin/shutdown?grace=500.milliseconds", 0.5)])
def test_shutdown_passes_the_grace_on(target: str, grace: float | None) -> None:
    browser = Browser()
    assert browser.post(target).body == b"quitting"
    assert browser.gateway.ended == [grace]


@pytest.mark.parametrize("grace", ["soon", "9" * 400 + ".seconds", "9" * 5000 + ".hours", "%D9%A3.seconds"])
def test_shutdown_with_a_bad_grace_does_nothing(grace: str) -> None:
    browser = Browser()
    assert browser.post(f"/admin/shutdown?grace={grace}").status == 400
    assert browser.gateway.ended == []


def test_page_of_another_origin_may_not_shut_down() -> None:
    browser = Browser()
    assert browser.post("/admin/shutdown", Origin="http://evil.example").status == 403
    assert browser.post("/admin/shutdown", Sec_Fetch_Site="cross-site").status == 403
    assert browser.post("/admin/shutdown", Host="[x", Sec_Fetch_Site="none").status == 403
    assert browser.gateway.ended == []


def test_state_views_give_json() -> None:
    browser = Browser()
    assert browser.get("/admin/server_info").json["name"] == "meshgw"
    assert browser.get("/config.json").headers["content-type"] == "application/json;charset=UTF-8"
    assert browser.get("/client_state.json").json["/#/x"]["state"] == "bound"


def test_no_bound_names_are_an_empty_list() -> None:
    browser = Browser()
    assert browser.get("/bound-names.json").body == b"[]"
    browser.gateway.names = ["/#/io.l5d.fs/web"]
    assert browser.get("/bound-names.json").json == ["/#/io.l5d.fs/web"]


def test_metrics_flat_tree_and_subtree() -> None:
    browser = Browser()
    assert browser.get("/admin/metrics.json").json["rt/http/x"] == 3
    assert browser.get("/admin/metrics.json?tree=1").json["rt"]["http"]["x"] == {"counter": 3}
    assert browser.get("/admin/metrics.json?q=rt/http&pretty=true").text == '{\n  "x": 3\n}'
    unknown = browser.get("/admin/metrics.json?q=a/b")
    assert (unknown.status, unknown.text) == (404, '{"error": "No such subtree: a/b"}')


@pytest.mark.parametrize("path", ["/admin/metrics/prometheus", "/metrics"])
def test_prometheus_is_served_with_an_alias(path: str) -> None:
    reply = Browser().get(path)
    assert 'rt:x{rt="http"} 3\n' in reply.text and reply.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_rejected_path_is_an_empty_404() -> None:
    reply = Browser(security=AdminSecurity(diagnostics_enabled=False)).get("/admin/ping")
    assert (reply.status, reply.body) == (404, b"")


def test_levels_are_listed_and_set() -> None:
    browser = Browser()
    assert browser.get("/logging.json").json == [{"logger": "meshgw", "level": "INFO"}, {"logger": "root", "level": "INFO"}]
    assert browser.post("/logging.json?logger=meshgw&level=DEBUG").status == 200
    form = browser.post("/logging.json", b"logger=root&level=warning", Content_Type="application/x-www-form-urlencoded")
    assert form.json == [{"logger": "meshgw", "level": "DEBUG"}, {"logger": "root", "level": "WARNING"}]


@pytest.mark.parametrize(("query", "status"), [("logger=root", 400), ("level=DEBUG", 400), ("logger=nobody&level=LOUD", 200)])
def test_levels_with_missing_or_unknown_parameters(query: str, status: int) -> None:
    browser = Browser()
    assert browser.post(f"/logging.json?{query}").status == status
    assert browser.levels.level("root") == "INFO"


def test_levels_may_not_be_set_by_another_origin() -> None:
    assert Browser().post("/logging.json?logger=root&level=OFF", Origin="null").status == 403


def test_delegator_asks_the_router_of_the_namespace() -> None:
    browser = Browser()
    reply = browser.get("/delegator.json?namespace=one&path=/svc/x&dtab=/svc%3D%3E/y")
    assert reply.json == {"type": "DelegateNeg", "path": "/svc/x"}
    assert browser.gateway.first.asked == [("/svc=>/y", "/svc/x")]


def test_delegator_takes_a_json_body() -> None:
    browser = Browser()
    body = json.dumps({"namespace": "one", "dtab": "", "path": "/svc"}).encode()
    assert browser.post("/delegator.json", body, Content_Type="application/json; charset=utf-8").status == 200
    assert browser.gateway.first.asked == [("", "/svc")]


@pytest.mark.parametrize("query", ["path=/svc", "path=/svc&namespace=unknown"])
def test_delegator_without_a_known_router_uses_the_default(query: str) -> None:
    browser = Browser()
    assert browser.get(f"/delegator.json?{query}").status == 200
    assert browser.gateway.default.asked and not browser.gateway.first.asked


def test_delegator_without_namespace_uses_the_only_router() -> None:
    gateway = Gateway()
    del gateway.interpreters["<two>"]
    assert Browser(gateway).get("/delegator.json?path=/svc").status == 200
    assert gateway.first.asked == [("", "/svc")]


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("/delegator.json", 400, "Invalid path: "),
        ("/delegator.json?path=nope", 400, "Invalid path: "),
        ("/delegator.json?path=/svc&dtab=nope", 400, "Invalid dtab: "),
        ("/delegator.json?path=/svc&namespace=%3Ctwo%3E", 501, "Name Interpreter for <two> cannot show delegations"),
    ],
)
def test_delegator_refuses_with_the_reason(target: str, status: int, text: str) -> None:
    reply = Browser().get(target)
    assert reply.status == status and reply.text.startswith(text)


@pytest.mark.parametrize(
    ("body", "kind", "status", "text"),
    [
        (b"{}", "application/json", 400, "Malformed delegation request: "),
        (b"[]", "application/json", 400, "Malformed delegation request: "),
        (b"{", "application/json", 400, "Malformed delegation request: "),
        (b'{"dtab": 1, "path": "/a"}', "application/json", 400, "Malformed delegation request: "),
        (b"[" * 100_000, "application/json", 400, "Malformed delegation request: "),
        (rb'{"dtab": "", "path": "/\ud800"}', "application/json", 400, "Malformed delegation request: surrogates not allowed"),
        (rb'{"dtab": "\udc00", "path": "/a"}', "application/json", 400, "Malformed delegation request: surrogates not allowed"),
        (b"{}", "text/plain", 415, ""),
    ],
)
def test_delegator_refuses_bad_bodies(body: bytes, kind: str, status: int, text: str) -> None:
    reply = Browser().post("/delegator.json", body, Content_Type=kind)
    assert reply.status == status and reply.text.startswith(text)


def test_delegator_refuses_other_methods() -> None:
    assert Browser().ask("PUT", "/delegator.json").status == 405


def test_delegation_that_takes_too_long_times_out() -> None:
    gateway = Gateway()
    source: Source[Delegation] = Source()
    gateway.first.answer = lambda path: source
    browser = Browser(gateway)
    _, transport = browser.send("GET", "/delegator.json?namespace=one&path=/svc")
    browser.clock.advance(1.9)
    assert transport.value() == b"" and source.is_observed
    browser.clock.advance(0.2)
    assert (read(transport).status, read(transport).text) == (503, "Request timed out.")
    assert not source.is_observed


def test_delegation_that_takes_too_long_tells_what_it_waits_for() -> None:
    gateway = Gateway()
    gateway.first.answer = lambda path: Source(initial=Pending("web; Consul at localhost:8500: connection refused"))
    browser = Browser(gateway)
    _, transport = browser.send("GET", "/delegator.json?namespace=one&path=/svc")
    browser.clock.advance(2.1)
    assert read(transport).text == "Request timed out. Still waiting for web; Consul at localhost:8500: connection refused."


def test_delegation_that_comes_later_is_answered() -> None:
    gateway = Gateway()
    source: Source[Delegation] = Source()
    gateway.first.answer = lambda path: source
    browser = Browser(gateway)
    _, transport = browser.send("GET", "/delegator.json?namespace=one&path=/svc")
    source.set(DelegateNeg(Path.read("/svc"), None))
    assert read(transport).status == 200 and not source.is_observed


def test_caller_that_leaves_ends_the_observation() -> None:
    gateway = Gateway()
    source: Source[Delegation] = Source()
    gateway.first.answer = lambda path: source
    browser = Browser(gateway)
    protocol, transport = browser.send("GET", "/delegator.json?namespace=one&path=/svc")
    protocol.connectionLost(Failure(ConnectionDone()))
    assert not source.is_observed and transport.value() == b""
    assert browser.clock.getDelayedCalls() == []


def test_failed_delegation_tells_why() -> None:
    gateway = Gateway()
    gateway.first.answer = lambda path: failed(NamerError(detail="Max recursion level reached."))
    reply = Browser(gateway).get("/delegator.json?namespace=one&path=/svc")
    assert (reply.status, reply.text) == (500, "Max recursion level reached.")


def test_view_that_breaks_is_a_plain_500_and_logged() -> None:
    gateway = Gateway()
    gateway.metrics = None  # type: ignore[assignment]  # any defect
    events: list[Any] = []
    globalLogPublisher.addObserver(events.append)
    try:
        reply = Browser(gateway).get("/admin/metrics.json")
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert (reply.status, reply.text) == (500, "internal error; the log has the details\n")
    assert any("log_failure" in event for event in events)


def test_text_that_is_no_unicode_is_answered_with_escapes() -> None:
    gateway = Gateway()
    gateway.states = NotDescribed(path="/\ud800", known=())
    reply = Browser(gateway).get("/namer_state/x.json")
    assert (reply.status, reply.text) == (404, "nothing describes itself at /\\ud800; known: none\n")


def test_answer_that_cannot_be_sent_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("any defect")

    monkeypatch.setattr(site, "_send", broken)
    assert Browser().send("GET", "/admin/ping")[1].disconnecting


def test_escapes_do_not_lead_around_the_blacklist() -> None:
    browser = Browser(security=AdminSecurity(blacklist=[r"/namer_state/io\.l5d\.consul\.json"]))
    assert browser.get("/namer_state/io.l5d.consul.json").status == 404
    reply = browser.get("/namer_state/io.l5d.c%6Fnsul.json")
    assert (reply.status, reply.body) == (404, b"")


def test_too_many_parameters_are_refused() -> None:
    assert Browser().get("/admin/metrics.json?" + "&".join(f"p{number}=1" for number in range(200))).status == 400


def test_announced_body_over_the_limit_is_refused_at_once() -> None:
    browser = Browser()
    protocol, transport = browser.connect()
    protocol.dataReceived(f"POST /delegator.json HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode())
    assert read(transport).status == 413 and transport.disconnecting


def test_chunked_body_over_the_limit_is_refused() -> None:
    browser = Browser()
    protocol, transport = browser.connect()
    protocol.dataReceived(f"POST /delegator.json HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for _ in range(17):
        protocol.dataReceived(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
    assert read(transport).status == 413 and transport.disconnecting
    assert transport.value().count(b"HTTP/1.1") == 1


def test_silent_connection_is_closed() -> None:
    browser = Browser()
    _, transport = browser.connect()
    browser.clock.advance(30.1)
    assert transport.disconnecting


def test_trickled_request_is_closed_after_its_time() -> None:
    browser = Browser()
    protocol, transport = browser.connect()
    protocol.dataReceived(b"GET / HTTP/1.1\r\n")
    for number in range(4):
        protocol.dataReceived(b"X-%d: y\r\n" % number)
        browser.clock.advance(10)
    assert read(transport).status == 408 and transport.disconnecting


def test_idle_site_keeps_no_timer() -> None:
    browser = Browser()
    browser.site.doStart()
    assert browser.clock.getDelayedCalls() == []
    browser.site.doStop()


@pytest.mark.parametrize("path", ["/", "/?router=one", "/services", "/delegator", "/requests", "/logging", "/help"])
def test_every_page_of_the_dashboard_is_html_and_never_kept(path: str) -> None:
    reply = Browser().get(path)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html;charset=UTF-8")
    assert reply.headers["cache-control"] == "no-store" and "script-src 'self'" in reply.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["/files/shell.js", "/admin/files/shell.js"])
def test_a_file_is_not_sent_again_to_who_has_it(path: str) -> None:
    first = Browser().get(path)
    assert (first.status, first.headers["content-type"], first.headers["cache-control"]) == (
        200,
        "text/javascript;charset=UTF-8",
        "no-cache",
    )
    again = Browser().get(path, If_None_Match=first.headers["etag"])
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert Browser().get(path, If_None_Match='"other"').body == first.body


def test_the_head_of_a_file_has_no_body() -> None:
    reply = Browser().ask("HEAD", "/files/style.css")
    assert (reply.status, reply.body) == (200, b"") and int(reply.headers["content-length"]) > 0


@pytest.mark.parametrize(
    "path",
    [
        "/files/",
        "/files",
        "/files/none.js",
        "/files/../pages.py",
        "/files/%2e%2e/pages.py",
        "/files//shell.js",
        "/files/..%2fapi.py",
        "/files/0/shell.js",
    ],
)
def test_nothing_but_the_dashboards_files_is_served(path: str) -> None:
    assert Browser().get(path).status == 404


def test_files_are_not_listed_among_the_paths() -> None:
    assert not [path for path in Browser().get("/admin").text.splitlines() if "/files/" in path]


def test_files_and_pages_are_closed_with_their_category() -> None:
    browser = Browser(security=AdminSecurity(ui_enabled=False))
    assert [browser.get(path).status for path in ("/", "/help", "/files/shell.js", "/admin/files/shell.js")] == [404] * 4
    assert browser.get("/requests").status == 200  # a path of diagnostics
