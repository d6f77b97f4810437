"""Groups in ZooKeeper over an ensemble in memory: sessions, watches, members, and members of our own (linkerd-config spec 3.3, 3.12)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fakes.zookeeper import FakeEnsemble
from meshgw.backends.kazoo_session import DENIED, Ensemble
from meshgw.backends.zk_groups import APART_SECONDS, RESYNC_SECONDS, Group, Groups
from meshgw.backends.zk_membership import Membership
from meshgw.backends.zookeeper import CONNECTION_SECONDS, MOST_ABANDONED, MOST_READS, OUTLIVED, RENEW_MOST, View, ZooKeeper
from meshgw.core.live import Failed, Ok, Pending, State
from meshgw.errors import BackendRefused
from meshgw.telemetry.metrics import Metrics

NoAuth = BackendRefused(backend="ZooKeeper at zk:2181", reason="access denied", code=DENIED)
WEB = "/prod/web"


def a_word(data: bytes) -> str:
    """A member that is one word."""
    text = data.decode()
    if not text.isalpha():
        raise ValueError(f"it is no word: {text}")
    return text


def every(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith("member_")]


class World:
    """An ensemble and a client of it."""

    def __init__(self) -> None:
        self.clock, self.metrics, self.servers = Clock(), Metrics(), FakeEnsemble()
        self.clock.advance(1000.0)
        self.zookeeper = ZooKeeper(
            self.clock, Random(1), self.metrics.scope("zk"), Ensemble((("zk", 2181),)), make_session=self.servers.make_session
        )
        self.groups: Groups[str] = Groups(
            self.zookeeper, Random(2), self.metrics.scope("service"), select=every, parse=a_word, show_member=str
        )
        self.groups.startService()  # type: ignore[no-untyped-call]

    def watch(self, path: str = WEB) -> list[State[Group[str]]]:
        """Observe a group; what it said so far."""
        seen: list[State[Group[str]]] = []
        self.observation = self.groups.watch(path).observe(seen.append)
        return seen

    def wait(self, seconds: float = 1.0) -> None:
        self.clock.pump([seconds / 10] * 10)

    def add_member(self, group: str, data: bytes) -> str:
        """See :meth:`FakeEnsemble.add_member`; then time passes until that is told."""
        path = self.servers.add_member(group, data)
        self.settle()
        return path

    def put(self, path: str, data: bytes = b"") -> None:
        """See :meth:`FakeEnsemble.put`, likewise."""
        self.servers.put(path, data)
        self.settle()

    def remove(self, path: str) -> None:
        """See :meth:`FakeEnsemble.remove`, likewise."""
        self.servers.remove(path)
        self.settle()

    def settle(self) -> None:
        """Let the time between two changes pass."""
        self.clock.pump([APART_SECONDS] * 3)

    def gauge(self, *names: str) -> float:
        return self.metrics.snapshot().gauges[names]

    def counter(self, *names: str) -> int:
        return self.metrics.snapshot().counters[names]

    def view(self) -> View:
        return _done(Deferred.fromCoroutine(self.zookeeper.view()))

    def member(self, path: str = WEB) -> Membership:
        membership = Membership(self.zookeeper, Random(3), path=f"{path}/member_", data=b"us", what="us")
        membership.start()
        return membership


def _done(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    assert found, "not done yet"
    return found[0]


@pytest.fixture
def world() -> World:
    return World()


def members(*words: str, error: object = None) -> State[Group[str]]:
    return Ok(Group(words), error)  # type: ignore[arg-type]


# Members


def test_members_that_come_go_and_change_are_told(world: World) -> None:
    first = world.add_member(WEB, b"a")
    seen = world.watch()
    assert seen[-1] == members("a")
    world.add_member(WEB, b"b")
    assert seen[-1] == members("a", "b")
    world.remove(first)
    assert seen[-1] == members("b")
    world.put(f"{WEB}/member_0000000002", b"c")
    assert seen[-1] == members("c")


def test_a_group_that_does_not_exist_is_told_and_found_when_it_comes(world: World) -> None:
    seen = world.watch()
    assert seen[-1] == Ok(Group((), exists=False))
    world.add_member(WEB, b"a")
    assert seen[-1] == members("a")
    for path in ("/prod/web/member_0000000001", "/prod/web"):
        world.remove(path)
    assert seen[-1] == Ok(Group((), exists=False))


def test_a_member_that_cannot_be_read_is_left_out_and_told(world: World) -> None:
    world.add_member(WEB, b"a")
    bad = world.add_member(WEB, b"1")
    denied = world.add_member(WEB, b"b")
    world.servers.denied[denied] = NoAuth
    seen = world.watch()
    assert seen[-1] == members("a")
    told = world.groups.describe()[WEB]["poll"]
    assert told == {"members": 3, "unusable": {"member_0000000002": "it is no word: 1", "member_0000000003": "access denied"}}
    world.put(bad, b"c")
    assert seen[-1] == members("a", "c")


def test_a_group_of_nothing_but_bad_members_keeps_the_last_good_ones(world: World) -> None:
    path = world.add_member(WEB, b"a")
    seen = world.watch()
    world.put(path, b"1")
    state = seen[-1]
    assert isinstance(state, Ok) and state.value == Group(("a",))
    assert "none of the 1 members can be used: it is no word: 1" in str(state.error)
    world.put(path, b"b")
    assert seen[-1] == members("b")


def test_a_group_whose_list_is_denied_is_a_lasting_failure(world: World) -> None:
    world.put(WEB)
    world.servers.denied[WEB] = NoAuth
    seen = world.watch()
    assert isinstance(seen[-1], Failed)
    del world.servers.denied[WEB]
    world.wait(40.0)
    assert seen[-1] == members()


def test_only_what_is_new_is_read(world: World) -> None:
    for word in (b"a", b"b", b"c"):
        world.add_member(WEB, word)
    world.watch()
    world.servers.asked.clear()
    world.add_member(WEB, b"d")
    assert world.servers.asked == [f"children {WEB}", f"data {WEB}/member_0000000004"]


def test_thousands_of_members_are_read_a_few_at_a_time(world: World) -> None:
    for _ in range(1000):
        world.add_member(WEB, b"a")
    world.servers.is_slow = True
    world.watch()
    most = 0
    while world.servers.held:
        most = max(most, len(world.servers.held))
        world.servers.held.pop(0)()
    assert most == MOST_READS
    assert len(world.groups.describe()[WEB]["state"]["value"]) == 1000


def test_the_list_is_read_now_and_then_although_nothing_is_told(world: World) -> None:
    seen = world.watch()
    world.servers.watches.clear()  # a notice that never comes
    world.add_member(WEB, b"a")
    world.wait(RESYNC_SECONDS * 1.3)
    assert seen[-1] == members("a")


def test_many_changes_one_after_the_other_are_told_together(world: World) -> None:
    seen = world.watch()
    for _ in range(100):
        world.servers.add_member(WEB, b"a")
    world.settle()
    assert seen[-1] == members(*"a" * 100)
    assert len(seen) <= 4
    assert len([asked for asked in world.servers.asked if asked.startswith("children")]) <= 4


# Watches


def test_each_node_has_one_watch_whoever_looks(world: World) -> None:
    world.add_member(WEB, b"a")
    world.add_member(WEB, b"b")
    world.watch()
    world.watch()
    assert world.servers.watch_count == 3
    for _ in range(5):
        world.put(f"{WEB}/member_0000000001", b"c")
        world.remove(world.add_member(WEB, b"d"))
    assert world.servers.watch_count == 3


def test_watches_are_set_anew_once_after_a_connection_broke_and_after_a_session_expired(world: World) -> None:
    world.add_member(WEB, b"a")
    seen = world.watch()
    for lose in (world.servers.disconnect, world.servers.expire, world.servers.expire):
        lose()
        state = seen[-1]
        assert isinstance(state, Ok) and state.value == Group(("a",)) and "the connection is lost" in str(state.error)
        world.servers.sessions[-1].connect()
        world.wait()
        assert seen[-1] == members("a")
        assert world.servers.watch_count == 2
    assert len(world.servers.sessions) == 1


def test_abandoned_watches_are_shed_with_a_new_session(world: World) -> None:
    seen = world.watch()
    for number in range(MOST_ABANDONED + 2):
        view = world.view()
        _done(Deferred.fromCoroutine(view.exists(f"/scanned/{number}")))
        view.close()
        if len(world.servers.sessions) > 1:
            break
    assert len(world.servers.sessions) == 2
    assert world.servers.sessions[0].is_stopped
    world.wait()
    assert world.gauge("zk", "watches") < 10
    assert seen[-1] == Ok(Group((), exists=False))


def test_nothing_is_connected_before_something_is_watched(world: World) -> None:
    assert not world.servers.sessions
    assert world.zookeeper.describe()["state"] == "not needed yet"


# Outages


def test_a_server_that_cannot_be_reached_is_told_with_its_reason_while_callers_wait(world: World) -> None:
    world.servers.is_up = False
    seen = world.watch()
    world.wait(CONNECTION_SECONDS + 0.5)
    assert seen[-1] == Pending("/prod/web; ZooKeeper at zk:2181: zk: connection refused")
    world.add_member(WEB, b"a")
    world.servers.sessions[0].connect()
    world.wait(10.0)
    assert seen[-1] == members("a")


def test_refused_credentials_are_told_at_once_and_tried_again_slowly(world: World) -> None:
    world.servers.is_unauthenticated = True
    seen = world.watch()
    world.wait(CONNECTION_SECONDS + 0.5)
    assert isinstance(seen[-1], Failed)
    assert "authentication failed" in str(seen[-1].error)
    sessions = len(world.servers.sessions)
    world.servers.is_unauthenticated = False
    world.wait(2 * RENEW_MOST)
    assert len(world.servers.sessions) > sessions
    assert seen[-1] == Ok(Group((), exists=False))


def test_a_session_that_must_have_expired_is_given_up_for_a_new_one(world: World) -> None:
    world.add_member(WEB, b"a")
    seen = world.watch()
    world.servers.disconnect()
    world.servers.nodes = {"/": b""}
    world.wait(10.0 * OUTLIVED + 1)
    assert len(world.servers.sessions) == 2
    world.wait(10.0)
    assert seen[-1] == Ok(Group((), exists=False))


def test_a_silent_server_fails_a_request_within_a_sessions_time(world: World) -> None:
    world.servers.is_slow = True
    seen = world.watch()
    world.wait(10.5)
    assert seen[-1] == Pending("/prod/web; ZooKeeper at zk:2181: no answer within 10 s")
    assert world.gauge("zk", "requests") >= 1, "the library still waits for it"
    world.servers.let_go()
    world.wait(10.0)
    assert seen[-1] == Ok(Group((), exists=False))
    assert world.gauge("zk", "requests") == 0


def test_stopping_ends_the_session_and_leaves_nothing_to_do(world: World) -> None:
    world.watch()
    world.groups.stopService()  # type: ignore[no-untyped-call]
    assert world.servers.sessions[0].is_stopped
    assert not world.clock.getDelayedCalls()


def test_what_is_told_of_the_connection_is_json(world: World) -> None:
    world.watch()
    described = json.loads(json.dumps(world.groups.describe()))
    assert described["zookeeper"] == {
        "ensemble": "ZooKeeper at zk:2181",
        "state": "connected",
        "session": "0x2",
        "nodes": 1,
        "watches": 1,
    }
    world.servers.disconnect()
    assert world.zookeeper.describe()["state"] == "disconnected"
    assert (world.counter("zk", "connects"), world.counter("zk", "disconnects")) == (1, 1)


# Members of our own


def ours(world: World) -> list[str]:
    return [path for path, owner in world.servers.owners.items() if world.servers.nodes[path] == b"us"]


def test_our_member_is_made_with_the_nodes_above_it_and_removed_when_withdrawn(world: World) -> None:
    member = world.member()
    assert ours(world) == [f"{WEB}/member_0000000001"]
    assert member.is_there
    _done(member.withdraw())
    assert not ours(world)
    world.wait(200.0)
    assert not ours(world)


def test_our_member_is_made_again_after_its_session_expired(world: World) -> None:
    world.member()
    for _ in range(3):
        world.servers.expire()
        assert not ours(world)
        world.servers.sessions[-1].connect()
        world.wait()
        assert len(ours(world)) == 1


def test_our_member_stays_what_it_is_when_the_connection_breaks_only(world: World) -> None:
    world.member()
    before = ours(world)
    world.servers.disconnect()
    world.servers.sessions[-1].connect()
    world.wait()
    assert ours(world) == before


def test_our_member_is_made_again_when_somebody_removes_it(world: World) -> None:
    world.member()
    world.remove(ours(world)[0])
    world.wait()
    assert ours(world) == [f"{WEB}/member_0000000002"]


def test_a_member_of_which_nobody_knows_whether_it_was_made_ends_with_its_session(world: World) -> None:
    world.view().close()
    world.servers.is_slow = True
    member = world.member()
    assert len(ours(world)) == 1, "it is made, and the answer does not come"
    world.wait(9.0)
    world.servers.is_slow = False
    world.wait(6.0)
    assert len(ours(world)) == 1
    assert world.servers.owners[ours(world)[0]] == world.servers.sessions[-1].id
    assert member.is_there


def test_a_member_that_may_not_be_made_is_tried_again(world: World) -> None:
    world.servers.denied[f"{WEB}/member_"] = NoAuth
    member = world.member()
    assert not member.is_there
    assert "access denied" in str(member.describe()["error"])
    world.servers.denied.clear()
    world.wait(20.0)
    assert member.is_there


def test_withdrawing_waits_no_longer_than_two_seconds(world: World) -> None:
    member = world.member()
    world.servers.is_slow = True
    withdrawn: list[object] = []
    member.withdraw().addBoth(withdrawn.append)
    assert not withdrawn
    world.wait(2.5)
    assert withdrawn == [None]


def test_withdrawing_without_a_connection_is_done_at_once(world: World) -> None:
    world.servers.is_up = False
    member = world.member()
    assert _done(member.withdraw()) is None


def test_withdrawing_after_the_session_ended_leaves_the_nodes_of_others_alone(world: World) -> None:
    member = world.member()
    path = ours(world)[0]
    world.servers.expire()
    world.servers.put(path, b"theirs", owner=99)  # by a server that lost its data, and counts from the beginning
    world.servers.sessions[-1].connect()
    _done(member.withdraw())
    assert world.servers.nodes[path] == b"theirs"
