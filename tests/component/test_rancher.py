"""The Rancher namer under a Clock, over a fake of Rancher's metadata service in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock

from fakes.http_api import ApiAgent, Reply, says
from fakes.looked import Looked, runtime
from fakes.rancher import API, FakeRancher
from meshgw.core.live import Failed, Pending
from meshgw.namers.rancher import ANSWER_SECONDS, RancherConfig, RancherNamer


class Setting:
    """A namer, its clock and its Rancher."""

    def __init__(self, **options: Any) -> None:
        self.clock, self.rancher = Clock(), FakeRancher()
        self.agent = ApiAgent(self.rancher)
        self.runtime = runtime(self.clock)
        connector: Any = self.agent
        self.namer = RancherNamer(RancherConfig(**options), self.runtime, connector)
        self.namer.startService()

    def look(self, name: str) -> Looked:
        return Looked(self.namer, name)

    def turn(self, seconds: float = 0.2) -> None:
        """Let Rancher see what has changed."""
        self.agent.turn()
        self.clock.advance(seconds)

    def asked(self, path: str) -> list[dict[str, str]]:
        return [request.query for request in self.agent.requests if request.path == f"{API}/{path}"]


@pytest.fixture
def on() -> Setting:
    setting = Setting()
    setting.rancher.run("shop", "web", "10.42.0.1", "10.42.0.2")
    return setting


def test_service_is_found_with_the_addresses_of_its_containers(on: Setting) -> None:
    looked = on.look("/http/shop/web/users")
    assert looked.addresses == ["10.42.0.1:80", "10.42.0.2:80"]
    assert (looked.bound.id.show(), looked.bound.residual.show()) == ("/#/io.l5d.rancher/http/shop/web", "/users")


def test_stack_and_service_are_matched_whatever_their_case(on: Setting) -> None:
    on.rancher.run("Shop", "API", "10.42.0.9")
    assert on.look("/http/sHOP/api").addresses == ["10.42.0.9:80"]


@pytest.mark.parametrize(("port", "number"), [("http", 80), ("https", 8443), ("admin", 9990), ("8080", 8080), ("65535", 65535)])
def test_port_is_a_number_or_one_of_the_names(port: str, number: int) -> None:
    on = Setting(port_mappings={"https": 8443, "admin": 9990})
    on.rancher.run("shop", "web", "10.42.0.1")
    assert on.look(f"/{port}/shop/web").addresses == [f"10.42.0.1:{number}"]


@pytest.mark.parametrize(
    "name", ["/", "/http/shop", "/ftp/shop/web", "/0/shop/web", "/65536/shop/web", "/-1/shop/web", "/http/shop/none", "/http/none/web"]
)
def test_what_cannot_be_found_is_neg(on: Setting, name: str) -> None:
    on.look("/http/shop/web")
    assert on.look(name).is_neg


def test_version_is_waited_on_with_the_last_one_known(on: Setting) -> None:
    on.look("/http/shop/web")
    on.turn()
    assert on.asked("version") == [
        {"wait": "true", "maxWait": "30", "value": "initial"},
        {"wait": "true", "maxWait": "30", "value": "v2"},
    ]
    assert on.rancher.fetched == 1


def test_change_is_seen_when_the_long_poll_answers(on: Setting) -> None:
    looked = on.look("/http/shop/web")
    on.turn()
    on.rancher.run("shop", "web", "10.42.0.3")
    on.turn()
    assert looked.addresses == ["10.42.0.3:80"]


def test_poll_that_ends_without_change_fetches_nothing_and_counts_as_good(on: Setting) -> None:
    on.look("/http/shop/web")
    on.turn()
    on.clock.advance(29)
    on.agent.turn(has_waited=True)
    on.clock.advance(1)
    assert on.rancher.fetched == 1
    assert len(on.asked("version")) == 3
    assert on.namer.describe()["containers"]["state"]["ageSeconds"] == 1.0


def test_service_that_answers_without_waiting_is_not_asked_in_a_loop(on: Setting) -> None:
    on.look("/http/shop/web")
    on.clock.advance(0.2)
    for _ in range(100):
        on.agent.turn(has_waited=True)
        on.clock.advance(0.1)
    assert len(on.asked("version")) <= 13


@pytest.mark.parametrize("state", ["stopped", "starting", "stopping", "updating-healthy", "error"])
def test_only_running_containers_count(on: Setting, state: str) -> None:
    looked = on.look("/http/shop/web")
    on.turn()
    on.rancher.run("shop", "web", "10.42.0.1", state=state)
    on.turn()
    assert looked.is_neg


def test_service_that_is_removed_is_neg_and_comes_back(on: Setting) -> None:
    looked = on.look("/http/shop/web")
    on.turn()
    on.rancher.run("shop", "web")
    on.turn()
    assert looked.is_neg
    on.rancher.run("shop", "web", "10.42.0.4")
    on.turn()
    assert looked.addresses == ["10.42.0.4:80"]


def test_thousand_containers_change_at_once_without_a_change_of_the_name(on: Setting) -> None:
    on.rancher.run("shop", "web", *(f"10.42.{number // 250}.{number % 250 + 1}" for number in range(1000)))
    looked = on.look("/http/shop/web")
    assert len(looked.addresses) == 1000
    on.turn()
    told = looked.trees
    on.rancher.run("shop", "web", *(f"10.43.{number // 250}.{number % 250 + 1}" for number in range(1000)))
    on.turn()
    assert len(looked.addresses) == 1000
    assert {address.rpartition(".")[0].rpartition(".")[0] for address in looked.addresses} == {"10.43"}
    assert looked.trees == told


def test_other_services_changes_leave_a_name_alone(on: Setting) -> None:
    looked = on.look("/http/shop/web")
    on.turn()
    told = looked.trees
    on.rancher.run("shop", "other", "10.42.0.77")
    on.turn()
    assert looked.trees == told


def test_names_share_one_watch(on: Setting) -> None:
    on.rancher.run("shop", "api", "10.42.0.8")
    assert on.look("/http/shop/web").addresses
    assert on.look("/8080/shop/api").addresses == ["10.42.0.8:8080"]
    assert on.rancher.fetched == 1


def test_plain_text_versions_are_understood(on: Setting) -> None:
    answering = on.agent.answering

    def plain(request: Any) -> Reply | None:
        reply = answering(request)
        return Reply(200, b"v7\n", "text/plain") if request.path.endswith("/version") else reply

    on.agent.answering = plain
    assert on.look("/http/shop/web").addresses
    assert on.namer.describe()["containers"]["poll"]["version"] == "v7"


# --- trouble


def test_outage_before_any_answer_is_waited_for_and_told(on: Setting) -> None:
    on.agent.error = ConnectionRefusedError()
    looked = on.look("/http/shop/web")
    assert isinstance(looked.state, Pending)
    assert "Rancher's metadata at rancher-metadata:80: connection refused" in looked.state.waiting_for
    on.agent.error = None
    on.clock.advance(5.1)
    assert looked.addresses == ["10.42.0.1:80", "10.42.0.2:80"]


def test_outage_leaves_the_last_good_containers(on: Setting) -> None:
    looked = on.look("/http/shop/web")
    on.turn()
    on.agent.error = ConnectionRefusedError()
    on.agent.drop(ConnectionLost())
    on.clock.pump([1.0] * 120)
    assert looked.addresses == ["10.42.0.1:80", "10.42.0.2:80"]
    assert on.namer.describe()["containers"]["state"]["stale"] is True
    on.agent.error = None
    on.rancher.run("shop", "web", "10.42.0.5")
    on.clock.advance(5.1)
    assert looked.addresses == ["10.42.0.5:80"]


def test_restart_of_rancher_that_counts_anew_is_seen(on: Setting) -> None:
    looked = on.look("/http/shop/web")
    on.turn()
    on.agent.drop(ConnectionLost())
    on.rancher.containers.clear()
    on.rancher.run("shop", "web", "10.42.0.6")
    on.rancher.version = 2  # as it was before
    on.clock.advance(5.1)
    assert looked.addresses == ["10.42.0.6:80"]


def test_containers_that_cannot_be_fetched_are_asked_for_again(on: Setting) -> None:
    looked = on.look("/http/shop/web")
    on.turn()
    answering = on.agent.answering
    on.agent.answering = lambda request: says("no", 500) if request.path.endswith("/containers") else answering(request)
    on.rancher.run("shop", "web", "10.42.0.7")
    on.turn()
    assert looked.addresses == ["10.42.0.1:80", "10.42.0.2:80"]
    on.agent.answering = answering
    on.clock.advance(5.1)
    assert looked.addresses == ["10.42.0.7:80"]


@pytest.mark.parametrize(
    "reply", [Reply(200, b""), Reply(200, b"<html>", "text/html"), says({"a": 1}), Reply(200, b'"x'), says("x" * 300), says("denied", 403)]
)
def test_malformed_answers_before_any_good_one_are_a_failure_that_heals(on: Setting, reply: Reply) -> None:
    on.rancher.reply = reply
    looked = on.look("/http/shop/web")
    assert isinstance(looked.state, Failed)
    assert looked.error.startswith("Rancher's metadata at rancher-metadata:80: ")
    on.rancher.reply = None
    on.clock.advance(20)
    assert looked.addresses == ["10.42.0.1:80", "10.42.0.2:80"]


@pytest.mark.parametrize("silent_at", ["version", "containers"])
def test_rancher_that_falls_silent_is_noticed(on: Setting, silent_at: str) -> None:
    answering = on.agent.answering
    on.agent.answering = lambda request: None if request.path.endswith(silent_at) else answering(request)
    looked = on.look("/http/shop/web")
    on.clock.advance(30 + ANSWER_SECONDS)
    assert isinstance(looked.state, Pending)
    assert "no complete answer within" in looked.state.waiting_for


def test_containers_that_make_no_sense_are_left_out(on: Setting) -> None:
    on.rancher.containers += [
        FakeRancher.container("shop", "web", 9, None, "running"),
        {"state": "running", "stack_name": "shop", "service_name": "web", "primary_ip": 7},
        {"state": "running", "stack_name": None, "service_name": None, "primary_ip": "10.42.0.99"},
        "container",  # type: ignore[list-item]
    ]
    assert on.look("/http/shop/web").addresses == ["10.42.0.1:80", "10.42.0.2:80"]


def test_stopping_ends_all_work(on: Setting) -> None:
    on.look("/http/shop/web")
    on.namer.stopService()
    assert not on.clock.getDelayedCalls()


def test_state_shows_services_and_version(on: Setting) -> None:
    on.look("/http/shop/web")
    described = json.loads(json.dumps(on.namer.describe()))
    assert described["containers"]["state"]["value"] == {"shop/web": ["10.42.0.1", "10.42.0.2"]}
    assert described["containers"]["poll"] == {"version": "v2"}
