from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from fakes.workers import WorkerReactor, open_files, settings
from meshgw.admin.errors import Relayed
from meshgw.app import supervisor
from meshgw.app.identify_site import Head
from meshgw.app.member import END_MARGIN, SLOWEST
from meshgw.app.sockets import Sockets, places
from meshgw.app.supervisor import MOST_DRAINING, Accepted, Supervisor, groups, needs_master
from meshgw.config.loader import load
from meshgw.config.models import Config
from meshgw.errors import MeshError
from meshgw.kinds import Registry
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.telemetry.logs import LogLevels
from meshgw.telemetry.metrics import Metrics, Snapshot
from meshgw.telemetry.transfer import to_plain

HEAD = Head("GET", "/", "1.1", (("host", "web"),), ("127.0.0.1", 1))


def router(label: str, processes: str = "shared") -> dict[str, Any]:
    return {"protocol": "http", "label": label, "processes": processes, "servers": [{"port": 0}]}


def accepted(*routers: dict[str, Any], workers: int | str = 2, grace_ms: int = 10_000) -> Accepted:
    content = {"admin": {"port": 0, "shutdownGraceMs": grace_ms}, "workers": workers, "routers": list(routers or [router("web")])}
    result = load(json.dumps(content), "m.yml", Registry())
    assert isinstance(result.config, Config), result.problems
    return Accepted(config=result.config, text=result.text, file="m.yml")


def counted(**counters: int) -> Any:
    return to_plain(Snapshot(counters={(name,): count for name, count in counters.items()}))


class Master:
    """A supervisor whose workers are fakes."""

    def __init__(self) -> None:
        self.reactor = WorkerReactor(snapshot=counted(), loggers=[["root", "INFO"]])
        self.metrics, self.levels = Metrics(), LogLevels()
        self.supervisor = Supervisor(settings(self.reactor), self.levels, self.metrics)
        self._opened: list[Sockets] = []

    def begin(self, config: Accepted, *, is_first: bool = False) -> list[Any]:
        sockets = Sockets.open(places(config.config))
        self._opened.append(sockets)
        return self.ask(self.supervisor.start(config, sockets, is_first=is_first))

    def ask(self, asking: Any) -> list[Any]:
        got: list[Any] = []
        Deferred.fromCoroutine(asking).addBoth(got.append)
        self.reactor.settle()
        return got

    def value(self, asking: Any) -> Any:
        (got,) = self.ask(asking)
        assert not isinstance(got, Failure), got
        return got

    def count(self, *names: str) -> float:
        snapshot = self.metrics.snapshot()
        return snapshot.counters[names] if names in snapshot.counters else snapshot.gauges[names]

    def total(self, name: str) -> int:
        return int(self.value(self.supervisor.snapshot()).counters.get((name,), 0))

    def close(self) -> None:
        for sockets in self._opened:
            sockets.close()


@pytest.fixture
def master() -> Iterator[Master]:
    made = Master()
    yield made
    made.close()


# --- who runs where


def test_a_master_is_needed_for_more_than_one_process() -> None:
    assert not needs_master(accepted(router("a"), router("b"), workers=1).config)
    assert needs_master(accepted(workers=2).config)
    assert needs_master(accepted(router("a"), router("b", "own"), workers=1).config)


def test_a_router_with_processes_of_its_own_is_a_group_and_the_others_share_one() -> None:
    found = groups(accepted(router("a"), router("b", "own"), router("c"), router("d", "own")).config)
    assert {group: [chosen.config.label for chosen in routers] for group, routers in found.items()} == {
        "shared": ["a", "c"],
        "b": ["b"],
        "d": ["d"],
    }


def test_each_group_has_as_many_workers_as_configured_with_its_own_sockets_and_shares(master: Master) -> None:
    assert master.begin(accepted(router("a"), router("b", "own"), workers=2), is_first=True) == [None]
    jobs = {worker.name: worker.asked[0][1] for worker in master.reactor.workers}
    assert set(jobs) == {"shared-0", "shared-1", "b-0", "b-1"}
    assert [jobs[name]["routers"] for name in ("shared-0", "b-1")] == [["a"], ["b"]]
    assert [list(jobs[name]["sockets"]) for name in ("shared-0", "b-1")] == [["router/a/0"], ["router/b/0"]]
    assert [jobs[name]["shares"][1:] for name in ("shared-0", "shared-1", "b-0", "b-1")] == [[2, 0], [2, 1], [2, 0], [2, 1]]
    assert [jobs[name]["is_first"] for name in ("shared-0", "shared-1", "b-0", "b-1")] == [True, False, True, False]
    assert {job["user"] for job in jobs.values()} == {"nobody" if os.geteuid() == 0 else None}


# --- generations


def test_a_new_generation_takes_over_when_all_of_it_serves(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    first = list(master.reactor.workers)
    slow: Deferred[int] = Deferred()
    master.reactor.answers["begin"] = slow
    got = master.begin(accepted())
    assert got == []
    assert all(worker.words() == ["begin"] for worker in first), "nobody is told to end yet"
    slow.callback(7)
    master.reactor.settle()
    assert got == [None]
    assert [worker.asked[-1] for worker in first] == [("retire", 10.0)] * 2
    assert master.count("workers", "draining") == 2
    for worker in first:
        worker.end()
    assert (master.count("workers", "draining"), master.count("workers", "running")) == (0, 2)
    master.reactor.pass_time(60.0)
    assert len(master.reactor.workers) == 4, "those that were told to end have no successors"


def test_the_new_configuration_says_how_long_the_old_workers_may_take(master: Master) -> None:
    master.begin(accepted(grace_ms=60_000), is_first=True)
    first = list(master.reactor.workers)
    master.begin(accepted(grace_ms=2000))
    master.reactor.pass_time(2.0 + END_MARGIN + 0.1)
    assert all(worker.killed == 1 for worker in first)


def test_a_generation_that_cannot_start_changes_nothing(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    first = list(master.reactor.workers)
    answers = iter([5, Relayed(code=422, text="bad\nworse")])
    master.reactor.answers["begin"] = _each(answers)
    got = master.begin(accepted(grace_ms=3000))
    good, bad = master.reactor.workers[2:]
    assert bad.is_gone
    assert good.asked[-1] == ("retire", 3.0), "it may have taken requests already"
    assert got == []
    good.end()
    assert str(got[0].value) == "bad\nworse"
    assert all(worker.words() == ["begin"] for worker in first)
    master.reactor.pass_time(60.0)
    assert master.reactor.living == first
    assert master.count("workers", "restarts") == 0


def test_a_first_start_that_fails_leaves_no_process(master: Master) -> None:
    master.reactor.answers["begin"] = _each(iter([5, Relayed(code=500, text="cannot open log file x")]))
    got = master.begin(accepted(), is_first=True)
    good, bad = master.reactor.workers
    assert (good.asked[-1], bad.is_gone) == (("stop", 0.0), True)
    master.reactor.pass_time(END_MARGIN + 0.1)
    assert str(got[0].value) == "cannot open log file x"
    assert master.reactor.living == []
    master.reactor.pass_time(60.0)
    assert len(master.reactor.workers) == 2


def _each(answers: Iterator[Any]) -> Any:
    """An answer that is another one for each who gets it."""

    class Next(Deferred[Any]):
        def __await__(self) -> Any:
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, Deferred):
                return answer.__await__()
            return iter(_returning(answer))

    return Next()


def _returning(value: Any) -> Any:
    return value
    yield


def test_a_reload_waits_while_too_many_generations_drain(master: Master) -> None:
    master.begin(accepted(workers=2), is_first=True)
    for _ in range(MOST_DRAINING):
        assert master.begin(accepted()) == [None]
    waiting = master.begin(accepted())
    known = len(master.reactor.workers)
    assert known == 2 * (MOST_DRAINING + 1)
    assert waiting == []
    for worker in master.reactor.workers[2:4]:  # not the oldest: any will do
        worker.end()
    master.reactor.settle()
    assert waiting == [None]
    assert len(master.reactor.workers) == known + 2


def test_no_generation_is_begun_after_the_end(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    for _ in range(MOST_DRAINING):
        master.begin(accepted())
    waiting = master.begin(accepted())
    known = len(master.reactor.workers)
    ended = master.ask(master.supervisor.stop(1.0))
    for worker in list(master.reactor.workers):
        worker.end()
    master.reactor.pass_time(60.0)
    assert ended == [None]
    assert str(waiting[0].value) == "the process is ending"
    assert len(master.reactor.workers) == known


def test_the_end_during_a_start_ends_those_that_start_too(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    master.reactor.answers["begin"] = Deferred()
    got = master.begin(accepted())
    ended = master.ask(master.supervisor.stop(5.0))
    old, new = master.reactor.workers[:2], master.reactor.workers[2:]
    assert all(worker.is_gone for worker in new)
    assert [worker.asked[-1] for worker in old] == [("stop", 5.0)] * 2
    assert isinstance(got[0].value, MeshError)
    assert ended == []
    for worker in old:
        worker.end()
    assert ended == [None]


def test_figures_are_told_until_the_last_worker_has_ended(master: Master) -> None:
    master.reactor.answers["snapshot"] = counted(requests=5)
    master.begin(accepted(), is_first=True)
    ended = master.ask(master.supervisor.stop(5.0))
    assert master.total("requests") == 10
    for worker in master.reactor.workers:
        worker.end()
    assert (ended, master.total("requests")) == ([None], 10)


def test_no_descriptor_is_left_when_a_generation_has_ended(master: Master) -> None:
    master.begin(accepted(workers=3), is_first=True)
    master.begin(accepted(workers=3))
    before = open_files()
    for worker in master.reactor.workers[:3]:
        worker.end()
    assert len(os.listdir("/proc/self/fd")) < before
    master.reactor.refusal = OSError(24, "Too many open files")
    sockets = Sockets.open(places(accepted().config))
    before = open_files()
    for _ in range(3):
        (failure,) = master.ask(master.supervisor.start(accepted(), sockets, is_first=False))
        assert isinstance(failure.value, MeshError)
    assert len(os.listdir("/proc/self/fd")) == before
    sockets.close()


# --- figures


def test_figures_are_the_sum_over_workers_and_outlive_them(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    one, two = master.reactor.workers
    one.answers["snapshot"], two.answers["snapshot"] = counted(requests=3), counted(requests=4)
    assert master.total("requests") == 7
    one.end(killed_by=9)
    assert master.total("requests") == 7
    master.reactor.pass_time(SLOWEST)
    master.reactor.workers[-1].answers["snapshot"] = counted(requests=1)
    assert master.total("requests") == 8


def test_what_a_worker_told_at_its_end_counts(master: Master) -> None:
    master.begin(accepted(workers=2), is_first=True)
    old = list(master.reactor.workers)
    master.begin(accepted(workers=2))
    for worker in old:
        master.value(worker.channel.ask("farewell", counted(requests=6)))
        worker.end()
    assert master.total("requests") == 12


def test_a_farewell_is_newer_than_what_a_worker_was_still_telling(master: Master) -> None:
    master.begin(accepted(workers=2), is_first=True)
    old, told = list(master.reactor.workers), Deferred[Any]()
    old[0].answers["snapshot"] = _each(iter([{**counted(requests=3), "more": 1}, told]))
    master.begin(accepted(workers=2))
    got = master.ask(master.supervisor.snapshot())
    for worker in old:
        master.value(worker.channel.ask("farewell", counted(requests=6)))
    told.callback({})
    master.reactor.settle()
    assert len(got) == 1
    for worker in old:
        worker.end()
    assert master.total("requests") == 12


def test_a_worker_that_goes_on_telling_for_ever_is_not_waited_for(master: Master, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MOST_PIECES", 5)
    master.begin(accepted(), is_first=True)
    one, two = master.reactor.workers
    one.answers["snapshot"], two.answers["snapshot"] = {**counted(requests=3), "more": 1}, counted(requests=4)
    assert master.total("requests") == 4
    assert master.count("workers", "unanswered") == 1


def test_a_worker_that_does_not_answer_counts_with_what_it_told_last(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    one, two = master.reactor.workers
    one.answers["snapshot"], two.answers["snapshot"] = counted(requests=3), counted(requests=4)
    assert master.total("requests") == 7
    one.answers["snapshot"], two.answers["snapshot"] = Deferred(), counted(requests=5)
    got = master.ask(master.supervisor.snapshot())
    master.reactor.pass_time(5.1)
    assert got[0].counters["requests",] == 8
    assert master.count("workers", "unanswered") == 1


def test_those_that_serve_before_the_last_has_started_count_too(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    master.reactor.answers["snapshot"] = counted(requests=2)
    master.reactor.answers["begin"] = _each(iter([5, Deferred[int]()]))
    assert master.begin(accepted()) == []
    assert master.total("requests") == 2


# --- what admin shows and sets


def test_a_level_reaches_all_workers_and_those_that_start_later(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    one, two = master.reactor.workers
    one.answers["loggers"] = [["root", "INFO"], ["meshgw.bind.dns", "INFO"]]
    master.value(master.supervisor.set_level("meshgw.bind.dns", "debug"))
    assert [worker.asked[-1] for worker in (one, two)] == [("preset_level", ["meshgw.bind.dns", "debug"])] * 2
    assert ("meshgw.bind.dns", "DEBUG") in master.value(master.supervisor.loggers())
    two.end(1)
    master.reactor.pass_time(SLOWEST)
    assert master.reactor.workers[-1].asked[0][1]["levels"]["meshgw.bind.dns"] == "DEBUG"


def test_tracing_is_turned_off_in_all_workers_and_those_that_start_later(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    one, two = master.reactor.workers
    master.value(master.supervisor.set_tracing(False))
    assert [worker.asked[-1] for worker in (one, two)] == [("set_tracing", False)] * 2
    assert master.value(master.supervisor.tracing()) is False
    two.end(1)
    master.reactor.pass_time(SLOWEST)
    assert master.reactor.workers[-1].asked[0][1]["tracing"] is False


def test_levels_set_while_a_single_process_served_reach_its_successors(master: Master) -> None:
    master.levels.set("root", "WARNING")
    master.begin(accepted(), is_first=False)
    assert master.reactor.workers[0].asked[0][1]["levels"]["root"] == "WARNING"


@pytest.mark.parametrize(("logger", "level"), [("meshgw.none", "DEBUG"), ("root", "LOUD")])
def test_an_unknown_logger_or_level_changes_nothing(master: Master, logger: str, level: str) -> None:
    master.begin(accepted(), is_first=True)
    master.value(master.supervisor.set_level(logger, level))
    assert "preset_level" not in master.reactor.workers[0].words()
    assert master.value(master.supervisor.loggers()) == [("root", "INFO")]


def test_bound_names_are_those_of_all_workers(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    one, two = master.reactor.workers
    one.answers["bound_names"], two.answers["bound_names"] = ["/#/a", "/#/b"], ["/#/b", "/#/c"]
    assert master.value(master.supervisor.bound_names()) == ["/#/a", "/#/b", "/#/c"]


def test_recent_requests_are_those_of_all_workers_that_answer(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    one, two = master.reactor.workers
    one.answers["recent_requests"], two.answers["recent_requests"] = [{"path": "/1"}, {"path": "/2"}], Relayed(code=500, text="broken")
    assert master.value(master.supervisor.recent_requests()) == [{"path": "/1"}, {"path": "/2"}]
    two.answers["recent_requests"] = [{"path": "/3"}]
    assert [row["path"] for row in master.value(master.supervisor.recent_requests())] == ["/1", "/2", "/3"]


def test_a_client_of_several_workers_is_shown_once_with_every_endpoints_state(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    one, two = master.reactor.workers
    nothing = {"addresses": [], "endpoints": [], "secondsSinceChange": 9.0}
    one.answers["client_state"] = {"/#/web": {"state": "Pending", **nothing}}
    known = {"addresses": ["127.0.0.1:80"], "endpoints": [{"address": "127.0.0.1:80"}], "secondsSinceChange": 3.0}
    bound = {"state": "bound", **known, "stale": "watch failed"}
    two.answers["client_state"] = {"/#/web": bound, "/#/other": {"state": "bound", **nothing}}
    found = master.value(master.supervisor.client_state())
    assert found["/#/web"] == bound
    assert set(found) == {"/#/web", "/#/other"}


def test_every_worker_of_the_configuration_is_diagnosed(master: Master) -> None:
    assert (master.supervisor.groups(), master.value(master.supervisor.diagnose("ready"))) == ([], {})
    master.begin(accepted(), is_first=True)
    one, two = master.reactor.workers
    one.answers["diagnose"], two.answers["diagnose"] = {"pending": []}, Relayed(code=500, text="broken")
    found = master.value(master.supervisor.diagnose("ready"))
    assert found == {one.name: {"pending": []}, two.name: {"error": "broken"}}
    assert one.asked[-1] == ("diagnose", ["ready", None])
    assert master.supervisor.groups() == [(one.name, two.name)]


def test_what_describes_itself_in_any_worker_is_listed(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    one, two = master.reactor.workers
    one.answers["described"], two.answers["described"] = ["/namer_state/a.json"], Relayed(code=500, text="broken")
    assert master.value(master.supervisor.described()) == ["/namer_state/a.json"]


def test_each_worker_that_has_it_describes_what_it_watches(master: Master) -> None:
    master.begin(accepted(workers=3), is_first=True)
    one, two, three = master.reactor.workers
    one.answers["description"] = {"/web": {"state": {}}}
    two.answers["description"] = Relayed(code=404, text="nothing")
    three.answers["description"] = Relayed(code=500, text="broken")
    assert master.value(master.supervisor.description("/namer_state/a.json")) == {
        "workers": {"shared-0": {"/web": {"state": {}}}, "shared-2": {"error": "broken"}}
    }
    assert one.asked[-1] == ("description", "/namer_state/a.json")


def test_what_no_worker_describes_is_not_found(master: Master) -> None:
    (got,) = master.ask(master.supervisor.description("/namer_state/a.json"))
    assert got.value.status == 503
    master.begin(accepted(), is_first=True)
    for worker in master.reactor.workers:
        worker.answers["description"] = Relayed(code=404, text="nothing describes itself")
    (got,) = master.ask(master.supervisor.description("/namer_state/a.json"))
    assert (got.value.status, str(got.value)) == (404, "nothing describes itself")


def test_names_are_explained_by_a_worker_that_serves_the_router(master: Master) -> None:
    master.begin(accepted(router("a"), router("b", "own"), workers=1), is_first=True)
    shared, own = master.reactor.of("shared-0")[0], master.reactor.of("b-0")[0]
    own.answers["delegate"] = {"type": "neg"}
    assert master.value(master.supervisor.delegate("b", Dtab.read("/svc => /x"), Path.read("/svc/web"))) == {"type": "neg"}
    assert own.asked[-1] == ("delegate", ["b", "/svc=>/x", "/svc/web"])
    assert shared.words() == ["begin"]
    shared.answers["delegate"] = {"type": "fail"}
    assert master.value(master.supervisor.delegate(None, Dtab.EMPTY, Path.ROOT)) == {"type": "fail"}
    assert shared.asked[-1] == ("delegate", ["", "", "/"]), "not the only router that it happens to have"


def test_each_group_is_asked_once_what_a_request_would_be_called(master: Master) -> None:
    master.begin(accepted(router("a"), router("b", "own"), router("c"), workers=2), is_first=True)
    for worker in master.reactor.workers:
        labels = worker.asked[0][1]["routers"]
        worker.answers["identify"] = {label: {"path": f"/{worker.name}"} for label in labels}
    found = master.value(master.supervisor.identify(HEAD))
    assert found == {"a": {"path": "/shared-0"}, "b": {"path": "/b-0"}, "c": {"path": "/shared-0"}}
    assert sum("identify" in worker.words() for worker in master.reactor.workers) == 2


def test_without_a_worker_that_serves_the_reason_is_told(master: Master) -> None:
    master.begin(accepted(), is_first=True)
    for worker in master.reactor.workers:
        worker.end(1)
    (failure,) = master.ask(master.supervisor.delegate(None, Dtab.EMPTY, Path.ROOT))
    assert (failure.value.status, str(failure.value)) == (503, "no worker serves at present; the log says why")
    assert master.value(master.supervisor.bound_names()) == []
