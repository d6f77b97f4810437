"""The Consul namer under a Clock, with an agent in memory that answers when the test says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from fakes.consul_agent import AGENT, Asked, FakeConsul, catalog_entry, health_entry
from meshgw.backends.consul import ANSWER_SECONDS, LATE_SECONDS, MOST_QUESTIONS
from meshgw.core.address import Addr, Address, Bound, Replicas
from meshgw.core.live import Live, Observation, Ok, Pending, State, constant
from meshgw.namers.consul import DULL_SECONDS, LEAST_SECONDS, TURNLESS_SECONDS, ConsulConfig, ConsulNamer, TagWeight
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf, NameTree
from meshgw.telemetry.metrics import Metrics

LINGER_SECONDS = 60.0


class Looked:
    """A name that is observed, and what it leads to."""

    def __init__(self, live: Live[NameTree[Path | Bound]]) -> None:
        self.state: State[NameTree[Path | Bound]] = Pending()
        self.addr: State[Addr] = Pending()
        self._held: Observation | None = None
        self._bound: Bound | None = None
        self._observation = live.observe(self._tree)

    def _tree(self, state: State[NameTree[Path | Bound]]) -> None:
        self.state = state
        leaf = state.value if isinstance(state, Ok) else None
        bound = leaf.value if isinstance(leaf, Leaf) and isinstance(leaf.value, Bound) else None
        if bound is not self._bound:
            held, self._bound = self._held, bound
            self._held = None if bound is None else bound.addr.observe(self._addr)
            if held is not None:
                held.close()

    def _addr(self, state: State[Addr]) -> None:
        self.addr = state

    @property
    def is_neg(self) -> bool:
        return isinstance(self.state, Ok) and self.state.value == NEG

    @property
    def error(self) -> str:
        return str(getattr(self.state, "error", None) or "")

    @property
    def bound(self) -> Bound:
        assert self._bound is not None, self.state
        return self._bound

    @property
    def replicas(self) -> Replicas:
        assert isinstance(self.addr, Ok), self.addr
        assert isinstance(self.addr.value, Replicas)
        return self.addr.value

    @property
    def addresses(self) -> list[str]:
        return [one.show() for one in self.replicas.addresses]

    def close(self) -> None:
        self._observation.close()
        if self._held is not None:
            self._held.close()


class Setting:
    """A namer, its clock and its agent."""

    def __init__(self, **options: Any) -> None:
        self.clock, self.consul, self.metrics = Clock(), FakeConsul(), Metrics()
        self.clock.advance(1000.0)
        self.namer = ConsulNamer(
            ConsulConfig(**options),
            Path.read("/#/io.l5d.consul"),
            self.consul,  # type: ignore[arg-type]
            clock=self.clock,
            metrics=self.metrics,
            random=Random(5),
            resolve=resolve,
        )
        self.namer.startService()

    def look(self, name: str = "/dc1/web") -> Looked:
        return Looked(self.namer.lookup(Path.read(name)))

    def only(self) -> Asked:
        return self.consul.only()

    def bound_at(self, index: int, *ports: int) -> Looked:
        """A name that was answered with these ports, and waits on the index."""
        looked = self.look()
        self.only().answer([catalog_entry(port) for port in ports], index=index)
        self.clock.advance(LEAST_SECONDS)
        return looked

    def metric(self, *names: str) -> float:
        found = self.metrics.snapshot()
        return float({**found.gauges, **found.counters}[names])


def resolve(host: str, port: int) -> Live[Addr]:
    return constant(Replicas((Address(host, port),)))


class Lines(list[str]):
    """The log so far, read anew each time: level and text of each line."""

    def __init__(self, events: list[LogEvent]) -> None:
        self._events = events

    def __iter__(self) -> Iterator[str]:
        return iter([f"{event['log_level'].name} {formatEvent(event)}" for event in self._events])

    def of(self, level: str) -> list[str]:
        return [line for line in self if line.startswith(level)]


@pytest.fixture
def logged() -> Iterator[Lines]:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        yield (lines := Lines(events))
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert not [line for line in lines if line.startswith("critical")]


# --- binding


def test_service_is_bound_with_its_addresses_and_the_rest_of_the_name_is_residual() -> None:
    setting = Setting()
    looked = setting.look("/dc1/Web/a/b")
    asked = setting.only()
    assert (asked.path, asked.query) == ("v1/catalog/service/web", {"dc": "dc1"})
    asked.answer([catalog_entry(8080), catalog_entry(8081)], index=7)
    assert looked.bound.id == Path.read("/#/io.l5d.consul/dc1/Web")
    assert looked.bound.residual == Path.read("/a/b")
    assert looked.addresses == ["192.0.2.1:8080", "192.0.2.1:8081"]


def test_name_without_service_is_neg_and_nothing_is_asked() -> None:
    setting = Setting(include_tag=True)
    assert setting.look("/dc1/web").is_neg
    assert setting.consul.asked == []


def test_tag_of_the_name_is_asked_for_in_lower_case() -> None:
    setting = Setting(include_tag=True)
    looked = setting.look("/dc1/Canary/Web/rest")
    asked = setting.only()
    assert (asked.path, asked.query) == ("v1/catalog/service/web", {"dc": "dc1", "tag": "canary"})
    asked.answer([catalog_entry()], index=7)
    assert looked.bound.id == Path.read("/#/io.l5d.consul/dc1/Canary/Web")


def test_spellings_of_a_service_share_one_query() -> None:
    setting = Setting()
    setting.look("/dc1/web")
    setting.look("/dc1/WEB")
    assert len(setting.consul.asked) == 1
    assert setting.metric("service", "cached") == 1
    assert setting.metric("lookups") == 2


def test_token_is_sent_and_shown_nowhere(logged: Lines) -> None:
    setting = Setting(token="hush-hush")
    looked = setting.look()
    assert setting.only().headers["x-consul-token"] == "hush-hush"
    setting.only().answer(b"token hush-hush is wrong", status=403)
    for shown in (looked.error, json.dumps(setting.namer.describe()), *logged):
        assert "hush-hush" not in shown
    assert looked.error.startswith("Consul at localhost:8500: 403 (token *** is wrong)")


@pytest.mark.parametrize(("mode", "flags"), [("default", {}), ("stale", {"stale": "true"}), ("consistent", {"consistent": "true"})])
def test_consistency_mode_is_a_flag_of_the_query(mode: str, flags: dict[str, str]) -> None:
    setting = Setting(consistency_mode=mode)
    setting.look()
    assert setting.only().query == {"dc": "dc1", **flags}


@pytest.mark.parametrize(
    ("statuses", "passing", "ports"),
    [(("passing",), "true", [1]), (("passing", "warning"), "false", [1, 2]), (("critical",), "false", [3])],
)
def test_health_is_filtered_by_consul_only_where_passing_alone_is_wanted(statuses: tuple[str, ...], passing: str, ports: list[int]) -> None:
    setting = Setting(use_health_check=True, health_statuses=statuses)
    looked = setting.look()
    asked = setting.only()
    assert (asked.path, asked.query) == ("v1/health/service/web", {"dc": "dc1", "passing": passing})
    asked.answer([health_entry(1, "passing"), health_entry(2, "passing", "warning"), health_entry(3, "critical")], index=7)
    assert looked.addresses == [f"192.0.2.1:{port}" for port in ports]


def test_weights_reach_the_addresses() -> None:
    setting = Setting(weights=(TagWeight(tag="big", weight=4.0),))
    looked = setting.look()
    setting.only().answer([catalog_entry(1, ServiceTags=["big"]), catalog_entry(2)], index=7)
    assert [one.weight for one in looked.replicas.addresses] == [4.0, 1.0]


# --- blocking queries


def test_next_query_waits_on_the_index_of_the_last_answer() -> None:
    setting = Setting()
    looked = setting.bound_at(7, 8080)
    asked = setting.only()
    assert asked.query == {"index": "7", "wait": "60s", "dc": "dc1"}
    asked.answer([catalog_entry(8080), catalog_entry(8081)], index=9)
    assert looked.addresses == ["192.0.2.1:8080", "192.0.2.1:8081"]
    setting.clock.advance(LEAST_SECONDS)
    assert setting.only().query["index"] == "9"
    setting.only().answer([catalog_entry(8081)], index=10)
    assert looked.addresses == ["192.0.2.1:8081"]


def test_answer_with_the_same_index_is_no_change_and_not_even_read() -> None:
    setting = Setting()
    looked = setting.bound_at(7, 8080)
    setting.clock.advance(61.0)
    setting.only().answer(b"not JSON", index=7)
    assert looked.addresses == ["192.0.2.1:8080"]
    assert setting.metric("service", "errors") == 0
    assert setting.namer.describe()["/dc1/web"]["state"]["ageSeconds"] == 0.0
    assert setting.only().query["index"] == "7"


def test_server_that_answers_at_once_without_news_is_not_asked_in_a_loop() -> None:
    setting = Setting()
    setting.bound_at(7, 8080)
    setting.only().answer(index=7)
    setting.clock.advance(DULL_SECONDS - 0.01)
    assert setting.consul.open == []
    setting.clock.advance(0.02)
    assert setting.only().query["index"] == "7"


@pytest.mark.parametrize("index", [0, 3])
def test_index_that_is_lost_is_given_up_and_the_answer_counts(index: int) -> None:
    setting = Setting()
    looked = setting.bound_at(7, 8080)
    setting.only().answer([catalog_entry(8081)], index=index)
    assert looked.addresses == ["192.0.2.1:8081"]
    setting.clock.advance(DULL_SECONDS)
    assert setting.only().query == {"dc": "dc1"}


@pytest.mark.parametrize("index", [None, "seven", "-1", ""])
def test_answer_without_a_usable_index_keeps_the_last_good_one_and_polling_goes_on(index: str | None) -> None:
    setting = Setting()
    looked = setting.bound_at(7, 8080)
    setting.only().answer([catalog_entry(8081)], index=index)
    assert looked.addresses == ["192.0.2.1:8080"]
    assert "X-Consul-Index" in looked.error
    setting.clock.pump([1.0] * 30)
    assert setting.only().query == {"dc": "dc1"}
    setting.only().answer([catalog_entry(8081)], index=9)
    assert (looked.addresses, looked.error) == (["192.0.2.1:8081"], "")


def test_many_changes_at_once_become_few_questions() -> None:
    setting = Setting()
    looked = setting.bound_at(1, 1)
    setting.only().answer([catalog_entry(1), catalog_entry(2)], index=2)
    assert setting.consul.open == [], "what changes now is told together"
    setting.clock.advance(LEAST_SECONDS)
    setting.only().answer([catalog_entry(port) for port in range(1, 1001)], index=1000)
    assert len(looked.replicas.addresses) == 1000


def test_query_that_consul_never_answers_ends_after_its_time_and_the_last_good_stays() -> None:
    setting = Setting()
    looked = setting.bound_at(7, 8080)
    waiting = setting.only()
    setting.clock.advance(LATE_SECONDS - 1.0)
    assert not waiting.is_cancelled
    setting.clock.advance(1.1)
    assert waiting.is_cancelled
    assert looked.addresses == ["192.0.2.1:8080"]
    assert "no complete answer within" in looked.error
    setting.clock.advance(1.0)
    assert setting.only().query == {"dc": "dc1"}


# --- failures


def test_first_answer_that_does_not_come_makes_the_name_neg_within_a_callers_patience() -> None:
    setting = Setting()
    looked = setting.look()
    assert isinstance(looked.state, Pending)
    assert "Consul at localhost:8500" in looked.state.waiting_for
    setting.clock.advance(ANSWER_SECONDS)
    assert looked.is_neg
    assert looked.error == "Consul at localhost:8500: no complete answer within 9 s (asked for service web in dc1)"


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (403, b"Permission denied", "403 (Permission denied)"),
        (404, b"", "404"),
        (500, b"No path to datacenter", "500 (No path to datacenter)"),
        (200, b"[", "it answered with what is not JSON at line 1, column 2"),
        (200, b"{}", "it answered with JSON that is no list of instances"),
        (200, b"[1, 2]", "it answered with a list of what are no instances"),
        (200, b"[" * 100_000, "it answered with JSON that is nested too deeply"),
    ],
)
def test_error_makes_an_unknown_name_neg_with_a_reason_and_a_known_one_stale(status: int, body: bytes, reason: str) -> None:
    setting = Setting()
    fresh = setting.look("/dc1/fresh")
    setting.only().answer(body, status=status)
    assert fresh.is_neg
    assert reason in fresh.error
    fresh.close()
    known = setting.look("/dc1/known")
    setting.consul.open[-1].answer([catalog_entry()], index=7)
    setting.clock.advance(LEAST_SECONDS)
    next(asked for asked in setting.consul.open if "index" in asked.query).answer(body, status=status, index=8)
    assert known.addresses == ["192.0.2.1:8080"]
    assert reason in known.error
    assert setting.namer.describe()["/dc1/known"]["state"]["stale"] is True


def test_agent_that_is_away_and_comes_back_is_told_once_each_way(logged: Lines) -> None:
    setting = Setting()
    looked = setting.bound_at(7, 8080)
    setting.only().fail(ConnectionRefusedError())
    for _ in range(20):
        setting.clock.advance(5.0)
        setting.only().fail(ConnectionRefusedError())
    assert looked.addresses == ["192.0.2.1:8080"]
    assert setting.metric("service", "stale") == 1
    assert setting.metric("service", "oldest_stale_ms") > 99_000
    assert setting.metric("service", "errors") == 21
    setting.clock.advance(5.0)
    setting.only().answer([catalog_entry(8081)], index=2)
    assert (looked.addresses, looked.error) == (["192.0.2.1:8081"], "")
    assert setting.metric("service", "stale") == 0
    assert len(logged.of("warn")) == 1
    assert "Consul at localhost:8500: connection refused; /dc1/web: the last good answer stays in use" in logged.of("warn")[0]
    assert len(logged.of("info")) == 1
    assert "answers again after" in logged.of("info")[0]


def test_answer_longer_than_the_limit_is_refused() -> None:
    setting = Setting(fixed_length_streamed_after_kb=2)
    looked = setting.look()
    setting.only().answer([catalog_entry(port) for port in range(1, 50)], index=7)
    assert looked.is_neg
    assert "an answer longer than 2048 bytes" in looked.error


def test_service_without_instances_is_neg_and_appears_when_it_has_some() -> None:
    setting = Setting()
    looked = setting.look()
    setting.only().answer([], index=7)
    assert (looked.is_neg, looked.error) == (True, "")
    setting.clock.advance(DULL_SECONDS)
    assert setting.only().query["index"] == "7"
    setting.only().answer([catalog_entry()], index=8)
    assert looked.addresses == ["192.0.2.1:8080"]


def test_last_instance_that_goes_makes_the_name_neg() -> None:
    setting = Setting()
    looked = setting.bound_at(7, 8080)
    setting.only().answer([], index=8)
    assert looked.is_neg


def test_results_that_acls_hide_are_no_instances_that_went() -> None:
    setting = Setting()
    looked = setting.bound_at(7, 8080)
    setting.only().answer([], index=8, X_Consul_Results_Filtered_By_ACLs="true")
    assert looked.addresses == ["192.0.2.1:8080"]
    assert "ACLs hide all results from the token" in looked.error


def test_entries_that_are_no_instances_are_left_out_and_counted() -> None:
    setting = Setting()
    looked = setting.look()
    setting.only().answer([catalog_entry(), "what?", None], index=7)
    assert looked.addresses == ["192.0.2.1:8080"]
    assert setting.namer.describe()["/dc1/web"]["poll"]["response"]["unreadableEntries"] == 2


# --- the agent itself


def test_local_is_the_datacenter_of_the_agent_which_is_asked_once() -> None:
    setting = Setting()
    web, api = setting.look("/.local/web"), setting.look("/.local/api")
    assert setting.only().path == "v1/agent/self"
    setting.only().answer(AGENT)
    for asked in setting.consul.open:
        assert asked.query == {"dc": "dc7"}
        asked.answer([catalog_entry()], index=7)
    assert [looked.bound.id.show() for looked in (web, api)] == ["/#/io.l5d.consul/.local/web", "/#/io.l5d.consul/.local/api"]
    setting.look("/.local/later")
    assert [asked.path for asked in setting.consul.asked].count("v1/agent/self") == 1


def test_agent_is_asked_only_when_it_matters() -> None:
    setting = Setting()
    setting.bound_at(7, 8080)
    assert "v1/agent/self" not in [asked.path for asked in setting.consul.asked]


def test_agent_that_does_not_tell_of_itself_is_asked_again() -> None:
    setting = Setting()
    looked = setting.look("/.local/web")
    setting.only().answer(b"Permission denied", status=403)
    assert looked.is_neg
    assert looked.error == "Consul at localhost:8500: 403 (Permission denied) (asked for the agent itself)"
    setting.clock.pump([1.0] * 4)
    setting.only().answer({"Config": {}})
    assert "without Config.Datacenter" in looked.error
    setting.clock.pump([1.0] * 31)
    setting.only().answer(AGENT)
    setting.only().answer([catalog_entry()], index=7)
    assert looked.addresses == ["192.0.2.1:8080"]


def test_one_who_leaves_does_not_end_the_question_that_others_wait_for() -> None:
    setting = Setting()
    web, api = setting.look("/.local/web"), setting.look("/.local/api")
    web.close()
    setting.clock.advance(8.9)
    setting.only().answer(AGENT)
    assert {asked.path for asked in setting.consul.open} == {"v1/catalog/service/web", "v1/catalog/service/api"}
    assert isinstance(api.state, Pending)


@pytest.mark.parametrize(("name", "authority"), [("/.local/web", "web.service.dc7.mesh.test"), ("/dc1/web", "web.service.dc1.mesh.test")])
def test_set_host_gives_the_addresses_the_name_in_consuls_dns(name: str, authority: str) -> None:
    setting = Setting(set_host=True)
    looked = setting.look(name)
    setting.only().answer(AGENT)
    setting.only().answer([catalog_entry()], index=7)
    assert looked.replicas.meta["authority"] == authority


# --- who is watched


def test_name_that_nobody_wants_any_more_is_not_asked_for_for_ever() -> None:
    setting = Setting()
    looked = setting.look("/dc1/wp-admin")
    setting.only().answer([], index=7)
    looked.close()
    setting.clock.advance(DULL_SECONDS)
    waiting = setting.only()
    setting.clock.advance(LINGER_SECONDS)
    assert waiting.is_cancelled
    assert setting.namer.describe() == {}
    assert setting.metric("service", "closes") == 1
    asked = len(setting.consul.asked)
    setting.clock.pump([10.0] * 60)
    assert len(setting.consul.asked) == asked


def test_names_that_do_not_exist_hold_only_a_quarter_of_the_queries_and_are_found_all_the_same() -> None:
    setting = Setting(max_blocking_queries=8)
    names = {f"/dc1/scan{number}": setting.look(f"/dc1/scan{number}") for number in range(20)}
    for asked in setting.consul.open:
        asked.answer([], index=7)
    setting.clock.pump([DULL_SECONDS] * 2)
    assert setting.metric("service", "blocking") == 2
    assert sum("index" in asked.query for asked in setting.consul.open) == 2
    for _ in range(7):
        for asked in [asked for asked in setting.consul.open if "index" not in asked.query]:
            asked.answer([catalog_entry()] if asked.path.endswith("scan19") else [], index=8)
        setting.clock.advance(1.0)
    assert names["/dc1/scan19"].addresses == ["192.0.2.1:8080"]


def test_service_without_a_turn_is_asked_for_in_between() -> None:
    setting = Setting(max_blocking_queries=0)
    looked = setting.bound_at(7, 8080)
    assert setting.only().query == {"dc": "dc1"}, "the question without index needs no turn"
    setting.only().answer([catalog_entry(8080)], index=7)
    setting.clock.advance(TURNLESS_SECONDS * 0.89)
    assert setting.consul.open == []
    setting.clock.advance(TURNLESS_SECONDS * 0.22)
    setting.only().answer([catalog_entry(8081)], index=8)
    assert looked.addresses == ["192.0.2.1:8081"]


def test_questions_of_a_start_are_not_asked_all_at_once() -> None:
    setting = Setting()
    looked = [setting.look(f"/dc1/s{number}") for number in range(MOST_QUESTIONS + 10)]
    assert len(setting.consul.open) == MOST_QUESTIONS
    setting.consul.open[0].answer([catalog_entry()], index=7)
    assert len(setting.consul.open) == MOST_QUESTIONS
    while setting.consul.open:
        setting.consul.open[0].answer([catalog_entry()], index=7)
    assert [one.addresses for one in looked] == [["192.0.2.1:8080"]] * len(looked)


def test_names_that_wait_for_their_turn_behind_a_silent_consul_wait_no_longer_than_the_others() -> None:
    setting = Setting()
    looked = [setting.look(f"/dc1/s{number}") for number in range(MOST_QUESTIONS + 10)]
    setting.clock.advance(ANSWER_SECONDS)
    setting.clock.advance(0.0)
    assert all(one.is_neg for one in looked)
    assert {one.error.partition(" (")[0].partition(": ")[0] for one in looked} == {"Consul at localhost:8500"}


def test_silence_is_one_outage_however_long_questions_have_waited_for_their_turn(logged: Lines) -> None:
    setting = Setting()
    looked = [setting.look(f"/dc1/s{number}") for number in range(MOST_QUESTIONS + 1)]
    setting.clock.advance(1.25)
    setting.consul.open[0].answer([catalog_entry()], index=7)  # the last question is asked now, with that much less time left
    setting.clock.advance(ANSWER_SECONDS)
    told = {one.error.partition(" (asked")[0] for one in looked[1:]}
    assert told == {f"Consul at localhost:8500: no complete answer within {ANSWER_SECONDS:g} s"}
    assert len(logged.of("warn")) == 1


def test_end_of_the_namer_ends_its_queries(logged: Lines) -> None:
    setting = Setting()
    setting.bound_at(7, 8080)
    setting.look("/.local/web")
    waiting = setting.consul.open
    assert len(waiting) == 2
    setting.namer.stopService()
    assert all(asked.is_cancelled for asked in waiting)
    assert not setting.consul.is_started
    assert setting.clock.getDelayedCalls() == []


def test_state_tells_request_response_and_value() -> None:
    setting = Setting(token="hush-hush")
    setting.bound_at(7, 8080)
    told = setting.namer.describe()["/dc1/web"]
    assert json.dumps(told)
    assert told["state"]["value"] == {"addresses": [{"host": "192.0.2.1", "port": 8080, "weight": 1.0}]}
    assert told["poll"]["request"] == "GET /v1/catalog/service/web?index=7&wait=60s&dc=dc1"
    assert told["poll"]["response"] == {"index": 7, "hasLeader": True}
    assert {"lastRequestAt", "lastResponseAt"} <= set(told["poll"])
