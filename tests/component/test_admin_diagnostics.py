"""The views for finding causes, over in-memory connections: what processes answer, put together."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from fakes.admin import Browser, Gateway
from meshgw.admin.diagnostics import harmless, joined_addresses
from meshgw.core.slices import finished

STALLS = {"longestMs": 12.5, "longestSecondsAgo": 3.0, "lastMinuteMs": 1.0}
READS = {
    "/admin/ready.json",
    "/admin/threads",
    "/admin/threads.json",
    "/admin/contention",
    "/admin/pprof/profile",
    "/admin/addresses.json",
    "/admin/registry.json",
    "/admin/announcer",
    "/admin/lint",
    "/admin/lint.json",
    "/admin/metrics/usage",
}


def thread(state: str) -> dict[str, Any]:
    return {"thread": "Main", "daemon": False, "state": state, "stack": ["run (a.py:7)"]}


def browser(**answers: Any) -> Browser:
    gateway = Gateway()
    gateway.answers |= answers
    return Browser(gateway)


def test_everything_that_can_be_read_is_listed_and_refuses_other_methods() -> None:
    one = browser()
    assert set(one.get("/admin").text.splitlines()) >= READS | {"/admin/ready"}
    assert {path: one.post(path).status for path in READS} == dict.fromkeys(READS, 405)


def test_a_ready_gateway_answers_its_probe() -> None:
    reply = browser().get("/admin/ready")
    assert (reply.status, reply.text) == (200, "ready\n")
    assert browser().get("/admin/ready.json").json == {"ready": True, "pending": [], "waiting": []}


def test_a_gateway_that_waits_says_so_without_names_and_with_them_to_those_who_may_read() -> None:
    one = browser(ready={"main": {"pending": ["router secret: it does not listen"], "waiting": ["/svc/a is not bound yet"]}})
    reply = one.get("/admin/ready")
    assert (reply.status, reply.text) == (503, "not ready: 1 pending, see /admin/ready.json\n")
    told = one.get("/admin/ready.json")
    assert (told.status, told.json["pending"]) == (503, ["router secret: it does not listen"])
    assert told.json["waiting"] == ["/svc/a is not bound yet"]


def test_a_draining_gateway_is_not_ready_and_asks_nobody() -> None:
    one = browser()
    one.gateway.is_ending = True
    assert [(reply.status, reply.body) for reply in (one.get("/admin/ready"), one.get("/admin/ready.json"))] == [
        (503, b"draining\n"),
        (503, b'{"ready": false, "pending": ["draining: the process is ending"], "waiting": []}'),
    ]
    assert one.gateway.diagnosed == []


def test_threads_of_all_processes_are_shown() -> None:
    answers = {"a": {"threads": {"1": thread("waiting"), "2": thread("running")}, "reactor": STALLS}, "b": {"error": "gone"}}
    one = browser(threads=answers)
    assert one.get("/admin/threads.json").json == answers
    text = one.get("/admin/threads").text
    assert "== a: 2 of 2 threads" in text and "Main (2): running\n    run (a.py:7)\n" in text and "== b: gone" in text
    waiting = one.get("/admin/contention").text
    assert "longest stall of the reactor 12.5 ms" in waiting and "== a: 1 of 2 threads" in waiting and "running" not in waiting


def test_a_profile_waits_for_as_long_as_it_is_to_take() -> None:
    one = browser(profile={"main": {"Main;run (a.py:7)": 3}})
    reply = one.get("/admin/pprof/profile?seconds=2.5&hz=50")
    assert one.gateway.diagnosed == [("profile", [2.5, 50], 7.5)]
    assert reply.headers["content-type"] == "application/octet-stream" and b"run" in gzip.decompress(reply.body)
    assert one.get("/admin/pprof/profile?format=collapsed").text == "Main;run (a.py:7) 3\n"


def test_profiles_of_several_processes_are_one_and_tell_whose_each_stack_is() -> None:
    one = browser(profile={"a": {"Main": 1}, "b": {"Main": 2}, "c": {"error": "gone"}})
    assert one.get("/admin/pprof/profile?format=collapsed").text == "b;Main 2\na;Main 1\n"
    reply = browser(profile={"a": {"error": "a profile is being taken"}}).get("/admin/pprof/profile")
    assert (reply.status, reply.text) == (503, "a: a profile is being taken\n")


def test_a_page_of_another_site_starts_no_profile() -> None:
    one = browser()
    assert one.get("/admin/pprof/profile?seconds=60", Sec_Fetch_Site="cross-site").status == 403
    assert one.gateway.diagnosed == []


@pytest.mark.parametrize("query", ["seconds=0", "seconds=61", "seconds=x", "seconds=nan", "hz=0", "hz=0.5", "hz=1000", "format=svg"])
def test_a_profile_beyond_the_limits_is_refused(query: str) -> None:
    one = browser()
    assert one.get(f"/admin/pprof/profile?{query}").status == 400
    assert one.gateway.diagnosed == []


def endpoint(address: str, **state: Any) -> dict[str, Any]:
    return {"address": address, "weight": 1.0, **state}


def client(*endpoints: dict[str, Any]) -> dict[str, Any]:
    return {"client": "/#/web", "share": 1.0, "state": "bound", "addresses": [], "endpoints": list(endpoints)}


def service(*clients: dict[str, Any], name: str = "/svc/web") -> dict[str, Any]:
    return {"router": "one", "service": name, "state": "ready", "clients": list(clients)}


def test_addresses_of_several_processes_are_shown_once_with_the_state_in_each() -> None:
    answers = {
        "a": [service(client(endpoint("127.0.0.1:1", status="open"), endpoint("127.0.0.1:2", status="busy")))],
        "b": [service(name="/svc/other"), service(client(endpoint("127.0.0.1:1", status="closed")))],
    }
    found = finished(joined_addresses(answers))
    assert [one["service"] for one in found] == ["/svc/other", "/svc/web"]
    (shown,) = found[1]["clients"]
    assert shown["addresses"] == [
        {"address": "127.0.0.1:1", "weight": 1.0, "processes": {"a": {"status": "open"}, "b": {"status": "closed"}}},
        {"address": "127.0.0.1:2", "weight": 1.0, "processes": {"a": {"status": "busy"}}},
    ]
    assert "endpoints" not in shown


def test_addresses_are_asked_for_by_router_and_service() -> None:
    one = browser(addresses={"main": [service(client())]})
    assert one.get("/admin/addresses.json?router=one&service=/svc/web").json["services"][0]["service"] == "/svc/web"
    assert one.gateway.diagnosed == [("addresses", ["one", "/svc/web"], 5.0)]
    unknown = one.get("/admin/addresses.json?router=none")
    assert (unknown.status, unknown.json["routers"]) == (404, ["one", "<two>"])


def test_a_service_that_nothing_asked_for_is_not_found() -> None:
    reply = browser(addresses={"main": []}).get("/admin/addresses.json?service=/svc/none")
    assert reply.status == 404 and "/svc/none" in reply.json["error"]
    assert browser(addresses={"main": []}).get("/admin/addresses.json").json == {"services": []}


def test_a_process_that_did_not_tell_its_addresses_is_named() -> None:
    reply = browser(addresses={"a": [], "b": {"error": "too slow"}}).get("/admin/addresses.json?service=/svc/web")
    assert (reply.status, reply.json) == (200, {"services": [], "unanswered": {"b": "too slow"}})


def test_the_registry_has_stacks_libraries_and_no_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "hush")
    monkeypatch.setenv("POD_NAMESPACE", "prod")
    one = browser(stacks={"a": {"web": {"server": {}}}, "b": {"error": "gone"}})
    reply = one.get("/admin/registry.json")
    registry = reply.json["registry"]
    assert registry["stacks"] == {"web": {"server": {}}} and registry["library"]["twisted"]
    assert registry["system"]["env"]["POD_NAMESPACE"] == "prod" and "CONSUL" not in reply.text and "hush" not in reply.text


def test_variables_are_shown_by_their_whole_names_only() -> None:
    assert harmless({"PATH": "/bin", "PATH_TOKEN": "hush", "path": "hush"}) == {"PATH": "/bin"}


def test_announcements_are_told_with_the_reason_for_those_that_failed() -> None:
    one = browser()
    assert one.get("/admin/announcer").text == "nothing is announced\n"
    one.gateway.announced = {"/#/zk/web": {"10.0.0.1:80": {"announced": True}, "10.0.0.1:81": {"announced": False, "error": "no session"}}}
    assert one.get("/admin/announcer").text == "/#/zk/web => 10.0.0.1:80: announced\n/#/zk/web => 10.0.0.1:81: not announced: no session\n"


def test_lint_is_read_by_people_and_programs() -> None:
    one = browser(problems={"a": [["stalls", "300 ms"]], "b": {"error": "gone"}})
    text = one.get("/admin/lint").text
    assert text.startswith("3 issues by ") and "Performance: stalls\n    a: 300 ms\n" in text and "b did not answer: gone" in text
    assert one.get("/admin/lint.json").json["lint_results"]["metadata"]["num_issues"] == 3


def test_tracing_is_shown_and_changed_by_post_only() -> None:
    one = browser()
    assert one.get("/admin/tracing").text == "tracing is enabled\n"
    refused = one.get("/admin/tracing?disable=true")
    assert (refused.status, refused.headers["allow"], one.gateway.is_traced) == (405, "POST", True)
    assert one.post("/admin/tracing?disable=true").text == "tracing is disabled\n"
    assert one.post("/admin/tracing", b"enable=true", Content_Type="application/x-www-form-urlencoded").text == "tracing is enabled\n"
    for query in ("", "?enable=true&disable=true", "?enable=false"):
        assert one.post(f"/admin/tracing{query}").status == 400


def test_whatever_changes_something_is_refused_to_pages_of_other_origins() -> None:
    one = browser()
    resource: Any = one.site.resource
    changing = {path for path, route in resource._routes.items() if route.changes}
    assert changing >= {"/admin/shutdown", "/admin/reload", "/admin/tracing", "/logging.json"}
    foreign = ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}, {"Origin": "null"})
    assert {one.post(f"{path}?enable=true", **headers).status for path in changing for headers in foreign} == {403}
    # one that takes POST without changing anything only asks a question with a body
    assert {path for path, route in resource._routes.items() if "POST" in route.methods} - changing == {"/delegator.json"}


def test_nothing_is_reported_about_use() -> None:
    assert browser().get("/admin/metrics/usage").json["sent"] is False
