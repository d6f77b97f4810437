"""Names in ZooKeeper over an ensemble in memory: which part of a name is the node, and ensembles that names tell (spec 3.3, 3.7, 3.13)."""

from __future__ import annotations

import json
from random import Random
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from fakes.zookeeper import FakeEnsemble
from meshgw.backends.kazoo_session import Ensemble
from meshgw.backends.zk_groups import APART_SECONDS, Groups
from meshgw.backends.zookeeper import ZooKeeper
from meshgw.core.address import Addr, Address, Bound, Replicas
from meshgw.core.live import Failed, Live, Ok, Source, State, constant, current
from meshgw.kinds import Namer, Runtime
from meshgw.namers import curator, serversets, zk_leader
from meshgw.namers.resolvconf import literal_address
from meshgw.namers.zk_named import LINGER_SECONDS, MOST_ENSEMBLES, NamedLeaders, NoLeaders
from meshgw.namers.zk_names import MOST_LABELS
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf
from meshgw.telemetry.metrics import Metrics

PREFIX = Path.of("#", "zk")


class World:
    """An ensemble with namers over it."""

    def __init__(self) -> None:
        self.clock, self.metrics, self.servers = Clock(), Metrics(), FakeEnsemble()
        self.clock.advance(1000.0)
        self.hosts: dict[str, Source[Addr]] = {}

    def resolve(self, host: str, port: int) -> Live[Addr]:
        literal = literal_address(host)
        if literal is not None:
            return constant(Replicas((Address(literal, port),)))
        return self.hosts.setdefault(host, Source())

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

    def groups(self, **means: Any) -> Groups[Any]:
        client = ZooKeeper(
            self.clock, Random(1), self.metrics.scope("zk"), Ensemble((("zk", 2181),)), make_session=self.servers.make_session
        )
        groups: Groups[Any] = Groups(client, Random(2), self.metrics.scope("service"), **means)
        return groups

    def serversets(self) -> Namer:
        groups = self.groups(select=serversets.members, parse=serversets.read_member, show_member=serversets.show_member)
        return self.started(serversets.ServersetsNamer(groups, PREFIX, self.resolve, self.metrics.counter("lookups")))

    def leaders(self) -> Namer:
        groups = self.groups(select=zk_leader.leading, parse=zk_leader.read_leader, show_member=str)
        return self.started(zk_leader.ZkLeaderNamer(groups, PREFIX, self.resolve, self.metrics.counter("lookups")))

    def curator(self, base: str = "/") -> Namer:
        groups = self.groups(select=curator.every, parse=curator.read_instance, show_member=curator.show_instance)
        return self.started(curator.CuratorNamer(groups, base, PREFIX, self.resolve, self.metrics.counter("lookups")))

    def started(self, namer: Any) -> Namer:
        namer.startService()
        return cast("Namer", namer)


@pytest.fixture
def world() -> World:
    return World()


def member(host: str, port: int = 80, **fields: Any) -> bytes:
    return json.dumps({"serviceEndpoint": {"host": host, "port": port}, "status": "ALIVE", **fields}).encode()


class Followed:
    """A name that is observed, with the addresses it leads to."""

    def __init__(self, namer: Namer, path: str) -> None:
        self.tree: State[Any]
        self.addr: State[Addr] | None = None
        self._addr: Any = None
        namer.lookup(Path.read(path)).observe(self._take)

    def _take(self, state: State[Any]) -> None:
        self.tree = state
        if self._addr is not None:
            self._addr.close()
            self._addr = self.addr = None
        if isinstance(state, Ok) and isinstance(state.value, Leaf):
            self._addr = state.value.value.addr.observe(self._hear)

    def _hear(self, state: State[Addr]) -> None:
        self.addr = state

    @property
    def bound(self) -> Bound | None:
        leaf = self.tree.value if isinstance(self.tree, Ok) else None
        return leaf.value if isinstance(leaf, Leaf) else None

    @property
    def shown(self) -> str:
        """Id, residual and addresses; or what else is known."""
        if self.bound is None:
            return "neg" if isinstance(self.tree, Ok) and self.tree.value == NEG else type(self.tree).__name__
        addresses = self.addr.value.addresses if isinstance(self.addr, Ok) and isinstance(self.addr.value, Replicas) else ()
        return f"{self.bound.id.show()} + {self.bound.residual.show()}: {' '.join(address.show() for address in addresses)}".strip()


# Server sets


def test_the_longest_part_of_a_name_that_is_a_set_with_members_counts(world: World) -> None:
    world.add_member("/prod/web", member("10.0.0.1"))
    found = Followed(world.serversets(), "/prod/web/users/7")
    assert found.shown == "/#/zk/prod/web + /users/7: 10.0.0.1:80"
    path = world.add_member("/prod/web/users", member("10.0.0.2"))
    assert found.shown == "/#/zk/prod/web/users + /7: 10.0.0.2:80"
    world.remove(path)
    assert found.shown == "/#/zk/prod/web + /users/7: 10.0.0.1:80"


def test_a_name_no_part_of_which_is_a_set_is_neg_until_one_is(world: World) -> None:
    found = Followed(world.serversets(), "/prod/web")
    assert found.shown == "neg"
    world.add_member("/prod", member("10.0.0.1"))
    assert found.shown == "/#/zk/prod + /web: 10.0.0.1:80"


def test_endpoints_and_shards_of_one_set_share_its_watches(world: World) -> None:
    world.add_member("/web", member("10.0.0.1", additionalEndpoints={"admin": {"host": "10.0.0.1", "port": 99}}, shard=0))
    world.add_member("/web", member("10.0.0.2", shard=1))
    namer = world.serversets()
    shown = [Followed(namer, path).shown for path in ("/web", "/web:admin", "/web#1", "/web:admin#1")]
    assert shown == ["/#/zk/web + /: 10.0.0.1:80 10.0.0.2:80", "/#/zk/web:admin + /: 10.0.0.1:99", "/#/zk/web#1 + /: 10.0.0.2:80", "neg"]
    assert world.servers.watch_count == 3


def test_host_names_of_members_stay_resolved(world: World) -> None:
    world.add_member("/web", member("a.example"))
    found = Followed(world.serversets(), "/web")
    world.hosts["a.example"].set(Replicas((Address("10.0.0.1", 80),)))
    assert found.shown == "/#/zk/web + /: 10.0.0.1:80"
    world.hosts["a.example"].set(Replicas((Address("10.0.0.2", 80),)))
    assert found.shown == "/#/zk/web + /: 10.0.0.2:80"


def test_a_member_that_changes_its_status_leaves_and_comes_back(world: World) -> None:
    path = world.add_member("/web", member("10.0.0.1"))
    found = Followed(world.serversets(), "/web")
    world.put(path, member("10.0.0.1", status="STOPPING"))
    assert found.shown == "neg"
    world.put(path, member("10.0.0.1"))
    assert found.shown == "/#/zk/web + /: 10.0.0.1:80"


def test_a_name_of_many_labels_asks_for_a_limited_number_of_nodes(world: World) -> None:
    found = Followed(world.serversets(), "/a" * 500)
    assert found.shown == "neg"
    assert world.servers.watch_count <= MOST_LABELS


@pytest.mark.parametrize("path", ["/", r"/\x2e\x2e", r"/a\x2fb"])
def test_what_can_be_no_node_is_neg_without_asking(world: World, path: str) -> None:
    assert Followed(world.serversets(), path).shown == "neg"
    assert not world.servers.asked


# Leaders


def test_the_leaders_addresses_follow_the_election(world: World) -> None:
    found = Followed(world.leaders(), "/lead/us/rest")
    assert found.shown == "neg"
    first = world.add_member("/lead/us", b"10.0.0.1:80,10.0.0.2:80")
    world.add_member("/lead/us", b"10.0.0.3:80")
    assert found.shown == "/#/zk/lead/us + /rest: 10.0.0.1:80 10.0.0.2:80"
    world.remove(first)
    assert found.shown == "/#/zk/lead/us + /rest: 10.0.0.3:80"


# Curator


def instance(host: str, **fields: Any) -> bytes:
    return json.dumps({"name": "shop", "address": host, "port": 80, **fields}).encode()


def test_a_service_of_curator_is_bound_whether_or_not_it_has_instances(world: World) -> None:
    found = Followed(world.curator("/base"), "/shop/rest")
    assert found.shown == "/#/zk/shop + /rest:"
    world.put("/base/shop/one", instance("10.0.0.1"))
    world.put("/base/shop/two", instance("10.0.0.2", sslPort=443))
    world.put("/base/shop/three", instance("10.0.0.3", enabled=False))
    assert found.shown == "/#/zk/shop + /rest: 10.0.0.1:80 10.0.0.2:443"
    assert isinstance(found.addr, Ok) and isinstance(found.addr.value, Replicas)
    assert found.addr.value.meta == {"ssl": True}
    assert Followed(world.curator(), "/").shown == "neg"


# Ensembles that names tell


@pytest.fixture
def named(world: World) -> NamedLeaders:
    """Leaders whose ensembles are all the one in memory."""

    def make(ensemble: Ensemble, prefix: Path, runtime: Runtime) -> zk_leader.ZkLeaderNamer:
        client = ZooKeeper(world.clock, Random(1), runtime.metrics.scope("zookeeper"), ensemble, make_session=world.servers.make_session)
        groups: Groups[Any] = Groups(
            client, Random(2), runtime.metrics.scope("service"), select=zk_leader.leading, parse=zk_leader.read_leader, show_member=str
        )
        return zk_leader.ZkLeaderNamer(groups, prefix, world.resolve, runtime.metrics.counter("lookups"))

    runtime = Runtime(reactor=world.clock, metrics=world.metrics, random=Random(1), spawn=cast("Any", None), resolve=world.resolve)
    leaders = NamedLeaders(runtime, make=make)
    leaders.startService()  # type: ignore[no-untyped-call]
    return leaders


def test_a_name_tells_the_ensemble_to_ask(world: World, named: NamedLeaders) -> None:
    world.add_member("/lead", b"10.0.0.1:80")
    assert Followed(named, "/zk1:2181::zk2:2181/lead/x").shown == "/$/io.buoyant.namer.zk.leader/zk1:2181::zk2:2181/lead + /x: 10.0.0.1:80"
    assert len(world.servers.sessions) == 1


@pytest.mark.parametrize("path", ["/zk1/lead", "/zk1:0/lead", r"/a\x2cb:1/lead"])
def test_a_name_that_tells_no_ensemble_fails_with_what_is_expected(named: NamedLeaders, path: str) -> None:
    state = current(named.lookup(Path.read(path)))
    assert isinstance(state, Failed)
    assert "expected host:port::host:port" in str(state.error)


def test_there_are_few_ensembles_at_a_time_and_idle_ones_make_room(world: World, named: NamedLeaders) -> None:
    held = [named.lookup(Path.read(f"/zk{number}:1/lead")).observe(lambda _state: None) for number in range(MOST_ENSEMBLES)]
    one_more = Path.read("/more:1/lead")
    state = current(named.lookup(one_more))
    assert isinstance(state, Failed) and "16 ensembles" in str(state.error)
    held[3].close()
    named.lookup(one_more).observe(lambda _state: None)
    assert len([session for session in world.servers.sessions if not session.is_stopped]) == MOST_ENSEMBLES


def test_an_ensemble_that_nobody_asks_is_left_after_a_minute(world: World, named: NamedLeaders) -> None:
    look = Path.read("/zk:1/lead")
    named.lookup(look).observe(lambda _state: None).close()
    world.clock.advance(LINGER_SECONDS / 2)
    named.lookup(look).observe(lambda _state: None).close()
    world.clock.advance(LINGER_SECONDS - 1)
    assert not world.servers.sessions[0].is_stopped
    world.clock.advance(2)
    assert world.servers.sessions[0].is_stopped
    assert not [names for names in world.metrics.snapshot().gauges if "zookeeper" in names]


def test_stopping_leaves_all_ensembles(world: World, named: NamedLeaders) -> None:
    for number in range(3):
        named.lookup(Path.read(f"/zk{number}:1/lead")).observe(lambda _state: None)
    named.stopService()
    assert all(session.is_stopped for session in world.servers.sessions)
    assert not world.clock.getDelayedCalls()


def test_routers_that_limit_where_they_connect_do_not_follow_such_names() -> None:
    state = current(NoLeaders().lookup(Path.read("/zk:1/lead")))
    assert isinstance(state, Failed) and "io.l5d.zkLeader" in str(state.error)
