"""The Marathon namer under a Clock, over a fake of Marathon's API in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from fakes.http_api import ApiAgent, Reply, says
from fakes.looked import Looked, runtime
from fakes.marathon import UID, FakeMarathon, private_key, service_account
from meshgw.backends.marathon import ANSWER_SECONDS, BASIC, SERVICE_ACCOUNT, read_credential
from meshgw.core.live import Failed, Pending
from meshgw.namers.marathon import MarathonConfig, MarathonNamer


class Setting:
    """A namer, its clock and its Marathon."""

    def __init__(self, environment: dict[str, str] | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.marathon = FakeMarathon(prefix=options.get("uri_prefix", ""))
        self.agent = ApiAgent(self.marathon)
        self.runtime = runtime(self.clock)
        config = MarathonConfig(**options)
        connector: Any = self.agent
        self.namer = MarathonNamer(config, self.runtime, connector, read_credential(environment or {}))
        self.namer.startService()

    def look(self, name: str) -> Looked:
        return Looked(self.namer, name)

    def pass_ttl(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.advance(5.1)

    def count(self, *names: str) -> int:
        return self.runtime.metrics.counter(*names).value

    def asked(self) -> list[str]:
        return [request.target for request in self.agent.requests]


@pytest.fixture
def on() -> Setting:
    return Setting()


def test_app_is_found_with_the_addresses_of_its_tasks(on: Setting) -> None:
    on.marathon.app("/web", "192.0.2.1:31000", "192.0.2.2:31005")
    looked = on.look("/web/users/1")
    assert looked.addresses == ["192.0.2.1:31000", "192.0.2.2:31005"]
    assert (looked.bound.id.show(), looked.bound.residual.show()) == ("/#/io.l5d.marathon/web", "/users/1")
    assert on.asked() == ["/v2/apps", "/v2/apps/web?embed=app.tasks"]
    assert {request.headers["host"] for request in on.agent.requests} == {"marathon.mesos"}


def test_names_are_matched_in_lower_case_and_the_rest_stays_as_it_is(on: Setting) -> None:
    on.marathon.app("/group/web", "192.0.2.1:31000")
    looked = on.look("/Group/WEB/Users")
    assert (looked.bound.id.show(), looked.bound.residual.show()) == ("/#/io.l5d.marathon/group/web", "/Users")


def test_shortest_beginning_that_is_an_app_wins(on: Setting) -> None:
    on.marathon.app("/group/web", "192.0.2.1:31000")
    on.marathon.app("/group/web/v2", "192.0.2.2:31000")
    assert on.look("/group/web/v2").addresses == ["192.0.2.1:31000"]


def test_shorter_id_that_appears_later_takes_the_name_over(on: Setting) -> None:
    on.marathon.app("/group/web", "192.0.2.1:31000")
    looked = on.look("/group/web")
    on.marathon.app("/group", "192.0.2.9:31000")
    on.pass_ttl()
    assert (looked.bound.id.show(), looked.bound.residual.show()) == ("/#/io.l5d.marathon/group", "/web")


@pytest.mark.parametrize("name", ["/", "/none", "/group", r"/w\xffb"])
def test_name_without_app_is_neg(on: Setting, name: str) -> None:
    on.marathon.app("/group/web", "192.0.2.1:31000")
    assert on.look(name).is_neg


def test_app_without_tasks_is_neg_until_one_runs(on: Setting) -> None:
    on.marathon.app("/web")
    looked = on.look("/web")
    assert looked.is_neg
    on.marathon.app("/web", "192.0.2.1:31000")
    on.pass_ttl()
    assert looked.addresses == ["192.0.2.1:31000"]


def test_tasks_come_and_go_without_a_change_of_the_name(on: Setting) -> None:
    on.marathon.app("/web", "192.0.2.1:31000")
    looked = on.look("/web")
    told = looked.trees
    on.marathon.app("/web", "192.0.2.2:31000", "192.0.2.3:31000")
    on.pass_ttl()
    assert looked.addresses == ["192.0.2.2:31000", "192.0.2.3:31000"]
    assert looked.trees == told


def test_app_that_is_destroyed_becomes_neg_and_comes_back(on: Setting) -> None:
    on.marathon.app("/web", "192.0.2.1:31000")
    looked = on.look("/web")
    gone = on.marathon.apps.pop("/web")
    on.pass_ttl()
    assert looked.is_neg
    on.marathon.apps["/web"] = gone
    on.pass_ttl()
    assert looked.addresses == ["192.0.2.1:31000"]


def test_thousand_tasks_change_at_once(on: Setting) -> None:
    on.marathon.app("/web", *(f"192.0.2.1:{port}" for port in range(20000, 21000)))
    looked = on.look("/web")
    assert len(looked.addresses) == 1000
    on.marathon.app("/web", *(f"192.0.2.2:{port}" for port in range(20000, 21000)))
    on.pass_ttl()
    assert {address.partition(":")[0] for address in looked.addresses} == {"192.0.2.2"}
    assert len(looked.addresses) == 1000


def test_task_with_an_address_of_its_own_is_reached_at_the_discovery_port(on: Setting) -> None:
    on.marathon.app("/web", "198.51.100.7", discovery=8080)
    assert on.look("/web").addresses == ["198.51.100.7:8080"]


def unhealthy(on: Setting) -> None:
    app = on.marathon.app("/web", *(f"192.0.2.{number}:31000" for number in range(1, 6)), checks=2)
    tasks = app["tasks"]
    tasks[0]["healthCheckResults"][1]["alive"] = False
    del tasks[1]["healthCheckResults"]  # in its grace period
    tasks[2]["healthCheckResults"].pop()
    tasks[3]["state"] = "TASK_KILLING"


def test_with_health_checks_only_running_tasks_that_pass_all_count() -> None:
    on = Setting(use_health_check=True)
    unhealthy(on)
    assert on.look("/web").addresses == ["192.0.2.5:31000"]


def test_without_use_health_check_all_tasks_count(on: Setting) -> None:
    unhealthy(on)
    assert len(on.look("/web").addresses) == 5


def test_without_configured_checks_running_suffices() -> None:
    on = Setting(use_health_check=True)
    on.marathon.app("/web", "192.0.2.1:31000", "192.0.2.2:31000")["tasks"][0]["state"] = "TASK_STAGING"
    assert on.look("/web").addresses == ["192.0.2.2:31000"]


def test_uri_prefix_stands_before_the_paths() -> None:
    on = Setting(uri_prefix="/service/marathon")
    on.marathon.app("/web", "192.0.2.1:31000")
    assert on.look("/web").addresses == ["192.0.2.1:31000"]
    assert on.asked()[0] == "/service/marathon/v2/apps"


@pytest.mark.parametrize("prefix", ["marathon", "/marathon/", "marathon/"])
def test_uri_prefix_may_lack_a_slash_or_have_one_more(prefix: str) -> None:
    on = Setting(uri_prefix=prefix)
    on.look("/web")
    assert on.asked() == ["/marathon/v2/apps"]


def test_polls_are_ttl_apart_give_or_take_the_jitter() -> None:
    on = Setting(ttl_ms=1000, jitter_ms=100)
    on.look("/none")
    times: list[float] = []
    while len(times) < 30:
        known = len(on.agent.requests)
        on.clock.advance(0.001)
        if len(on.agent.requests) > known:
            times.append(on.clock.seconds())
    pauses = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert 0.89 <= min(pauses) < 0.98
    assert 1.02 < max(pauses) <= 1.11


def test_polls_may_be_an_hour_apart_without_being_taken_for_an_outage() -> None:
    on = Setting(ttl_ms=3_600_000)
    on.marathon.app("/web", "192.0.2.1:31000")
    on.look("/web")
    on.clock.pump([60.0] * 90)
    assert not on.count("service", "errors")
    assert len(on.agent.requests) == 4


def test_nothing_is_asked_before_a_lookup_and_a_minute_after_the_last(on: Setting) -> None:
    assert not on.agent.requests
    on.marathon.app("/web", "192.0.2.1:31000")
    looked = on.look("/web")
    looked.close()
    on.clock.pump([1.0] * 62)
    asked = len(on.agent.requests)
    on.clock.pump([1.0] * 60)
    assert len(on.agent.requests) == asked
    assert not on.clock.getDelayedCalls()


# --- trouble


def test_first_poll_that_fails_is_told_and_the_next_good_one_counts(on: Setting) -> None:
    on.marathon.app("/web", "192.0.2.1:31000")
    on.agent.error = ConnectionRefusedError()
    looked = on.look("/web")
    assert isinstance(looked.state, Failed)
    assert looked.error == "Marathon at marathon.mesos:80: connection refused"
    on.agent.error = None
    on.pass_ttl()
    assert looked.addresses == ["192.0.2.1:31000"]


@pytest.mark.parametrize(
    "reply",
    [
        says({"message": "No leader"}, 503),
        Reply(200, b"<html>", "text/html"),
        says([]),
        says({"apps": {}, "app": []}),
        says({"apps": [{"name": "web"}], "app": {"id": "/web"}}),
        Reply(200, b"[" * 100_000),
    ],
)
def test_bad_answers_leave_the_last_good_tasks(on: Setting, reply: Reply) -> None:
    on.marathon.app("/web", "192.0.2.1:31000")
    looked = on.look("/web")
    on.marathon.reply = reply
    on.pass_ttl(20)
    assert looked.addresses == ["192.0.2.1:31000"]
    stale = on.namer.describe()["tasks"]["/web"]
    assert stale["state"]["stale"] is True
    assert "Marathon at marathon.mesos:80" in stale["poll"]["error"]
    on.marathon.reply = None
    on.marathon.app("/web", "192.0.2.2:31000")
    on.pass_ttl(6)
    assert looked.addresses == ["192.0.2.2:31000"]


def test_slow_answer_ends_within_the_time_of_a_binding(on: Setting) -> None:
    on.agent.is_slow = True
    looked = on.look("/web")
    assert looked.state == Pending("Marathon at marathon.mesos:80: apps")
    on.clock.advance(ANSWER_SECONDS)
    assert "no complete answer within 9 s" in looked.error


def test_tasks_that_make_no_sense_are_left_out(on: Setting) -> None:
    app = on.marathon.app("/web", "192.0.2.1:31000", "192.0.2.2:31000", "192.0.2.3:31000", "192.0.2.4:31000", "192.0.2.5:31000")
    tasks: list[Any] = app["tasks"]
    tasks[0]["ports"], tasks[1]["host"], tasks[2]["ports"] = [], None, ["31000"]
    tasks[3] = "task"
    tasks += [{"host": "192.0.2.6", "ports": [True]}, {"host": "192.0.2.7", "ports": [0]}, {"host": "192.0.2.8"}]
    assert on.look("/web").addresses == ["192.0.2.5:31000"]


def test_outage_is_logged_once(on: Setting) -> None:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_level") is not None and event["log_level"].name == "warn":
            lines.append(formatEvent(event))

    on.marathon.app("/web", "192.0.2.1:31000")
    on.look("/web")
    globalLogPublisher.addObserver(observe)
    on.agent.error = ConnectionRefusedError()
    on.pass_ttl(20)
    globalLogPublisher.removeObserver(observe)
    assert len([line for line in lines if "connection refused" in line]) <= 2  # the apps, and the tasks


def test_stopping_ends_all_work(on: Setting) -> None:
    on.marathon.app("/web", "192.0.2.1:31000")
    on.look("/web")
    on.namer.stopService()
    assert not on.clock.getDelayedCalls()
    assert not on.agent.is_started


# --- authentication


def logged_in(**changes: object) -> Setting:
    text, key = service_account(**changes)
    on = Setting({SERVICE_ACCOUNT: text, BASIC: "dXNlcjpwYXNz"})
    on.marathon.accounts[UID] = key
    on.marathon.app("/web", "192.0.2.1:31000")
    return on


def test_service_account_logs_in_with_a_signed_token_and_sends_what_it_got() -> None:
    on = logged_in()
    assert on.look("/web").addresses == ["192.0.2.1:31000"]
    login, *others = on.agent.requests
    assert (login.method, login.target, login.headers["content-type"]) == ("POST", "/acs/api/v1/auth/login", "application/json")
    assert json.loads(login.body)["uid"] == UID
    assert {request.headers["authorization"] for request in others} == {"token=issued.1.0"}
    assert on.marathon.logins == 1


def test_expired_token_is_renewed_once_for_all() -> None:
    on = logged_in()
    looked = on.look("/web")
    on.marathon.expire()
    on.marathon.app("/web", "192.0.2.2:31000")
    on.pass_ttl()
    assert looked.addresses == ["192.0.2.2:31000"]
    assert on.marathon.logins == 2
    assert not on.count("service", "errors")


def test_requests_that_wait_for_a_login_share_it() -> None:
    on = logged_in()
    on.marathon.app("/api", "192.0.2.9:31000")
    first, second = on.look("/web"), on.look("/api")
    on.marathon.expire()
    on.agent.is_slow = True
    on.pass_ttl()
    for _ in range(4):
        on.agent.turn()
    assert on.marathon.logins == 2
    assert (first.addresses, second.addresses) == (["192.0.2.1:31000"], ["192.0.2.9:31000"])


def test_refused_login_is_told_without_what_was_sent() -> None:
    on = logged_in()
    on.marathon.accounts[UID] = private_key("other").public_key()
    looked = on.look("/web")
    assert isinstance(looked.state, Failed)
    assert "401" in looked.error
    assert f"asked for a login as {UID}" in looked.error
    proof = json.loads(on.agent.requests[0].body)["token"]
    assert proof not in looked.error
    assert proof not in json.dumps(on.namer.describe())


def test_token_that_is_refused_again_and_again_leads_to_one_login_per_attempt() -> None:
    on = logged_in()
    looked = on.look("/web")
    on.marathon.basic, on.marathon.accounts = "other", {UID: on.marathon.accounts[UID]}
    on.marathon.tokens = Forgetful()
    on.pass_ttl()
    assert looked.addresses == ["192.0.2.1:31000"]
    assert on.marathon.logins <= 3  # the first, and one for the apps and for the tasks


class Forgetful(set[str]):
    """Holds nothing."""

    def add(self, _token: str) -> None:
        pass


@pytest.mark.parametrize("said", [{}, {"token": ""}, {"token": 7}, {"token": "a b"}, {"token": "a\r\nX: y"}, []])
def test_login_without_a_usable_token_is_an_error(said: object) -> None:
    on = logged_in()
    on.marathon.reply = says(said)
    assert "a login without token" in on.look("/web").error


def test_basic_credential_is_sent_as_it_is() -> None:
    on = Setting({BASIC: "dXNlcjpwYXNz"})
    on.marathon.basic = "dXNlcjpwYXNz"
    on.marathon.app("/web", "192.0.2.1:31000")
    assert on.look("/web").addresses == ["192.0.2.1:31000"]
    assert {request.headers["authorization"] for request in on.agent.requests} == {"Basic dXNlcjpwYXNz"}


def test_credential_that_an_answer_repeats_is_blotted_out() -> None:
    on = Setting({BASIC: "dXNlcjpwYXNz"})
    on.marathon.reply = says({"message": "no such user: Basic dXNlcjpwYXNz, that is dXNlcjpwYXNz"}, 401)
    looked = on.look("/web")
    assert "no such user: ***, that is ***" in looked.error
    assert "dXNlcjpwYXNz" not in json.dumps(on.namer.describe())


def test_state_tells_how_we_are_let_in_and_what_is_watched() -> None:
    on = logged_in()
    on.look("/web")
    described = json.loads(json.dumps(on.namer.describe()))
    assert described["authentication"] == f"DC/OS as {UID}"
    assert described["apps"]["state"]["value"] == {"count": 1}
    assert described["tasks"]["/web"]["state"]["value"] == {"addresses": [{"host": "192.0.2.1", "port": 31000, "weight": 1.0}]}


def test_lookups_and_updates_are_counted(on: Setting) -> None:
    on.marathon.app("/web", "192.0.2.1:31000")
    on.look("/web")
    on.look("/none")
    assert on.count("lookups") == 2
    assert (on.count("service", "opens"), on.count("service", "updates"), on.count("apps", "updates")) == (1, 1, 1)
