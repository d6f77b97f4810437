"""The namer of docs/writing-a-namer.md, as it is printed there, with an inventory in memory and time moved by hand."""

from __future__ import annotations

import re
from random import Random
from types import ModuleType
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock

from fakes.http_api import ApiAgent, Reply, Request, says
from meshgw.core.address import Addr, Address, Bound, Replicas
from meshgw.core.live import Live, Ok, Pending, State, constant
from meshgw.kinds import Runtime
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf
from meshgw.telemetry.metrics import Metrics
from support.servers import ROOT


@pytest.fixture(scope="module")
def printed() -> ModuleType:
    page = (ROOT / "docs" / "writing-a-namer.md").read_text()
    (text,) = re.findall(r"^`inventory_namer\.py`:\n\n```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    module = ModuleType("inventory_namer")
    exec(compile(text, "inventory_namer.py", "exec"), module.__dict__)
    return module


def resolve(host: str, port: int) -> Live[Addr]:
    return constant(Replicas((Address({"node2.example": "10.0.0.2"}.get(host, host), port),)))


class Inventory:
    """What the inventory has, and a namer that asks it. The latest state of ``/svc`` and its addresses are in ``tree`` and ``addr``."""

    def __init__(self, printed: ModuleType, **options: Any) -> None:
        self.services: dict[str, tuple[int, list[dict[str, Any]]]] = {}
        self.refusal: Reply | None = None
        self.agent = ApiAgent(self._answer)
        self.clock = Clock()
        runtime = Runtime(reactor=self.clock, metrics=Metrics(), random=Random(1), spawn=_unused, resolve=resolve)
        self.namer = printed.InventoryNamer(printed.InventoryConfig(**options), runtime, self.agent)
        self.namer.startService()
        self.tree: State[Any] = Pending()
        self.addr: State[Any] = Pending()

    def _answer(self, request: Request) -> Reply | None:
        if self.refusal is not None:
            return self.refusal
        name = request.path.removeprefix("/services/")
        if name not in self.services:
            return says("", 404)
        version, instances = self.services[name]
        if request.query.get("after") == str(version) and not request.has_waited:
            return None
        return says({"version": str(version), "instances": instances})

    def set(self, name: str, version: int, *instances: dict[str, Any]) -> None:
        self.services[name] = (version, list(instances))
        self.agent.turn()

    def look(self, path: str) -> Any:
        def take(state: State[Any]) -> None:
            self.tree = state
            if isinstance(state, Ok) and isinstance(state.value, Leaf):
                assert isinstance(state.value.value, Bound)
                state.value.value.addr.observe(self._take)

        return self.namer.lookup(Path.read(path)).observe(take)

    def _take(self, state: State[Any]) -> None:
        self.addr = state

    @property
    def shown(self) -> list[str]:
        assert isinstance(self.addr, Ok), self.addr
        return [address.show() for address in self.addr.value.addresses]


def _unused(*_: Any) -> Any:
    raise AssertionError("not expected here")


ONE, TWO = {"host": "10.0.0.1", "port": 80}, {"host": "node2.example", "port": 80, "weight": 0.5}


def test_it_waits_for_changes_and_keeps_the_last_good_answer(printed: ModuleType) -> None:
    inventory = Inventory(printed, token="secret")
    inventory.set("web", 1, ONE)
    inventory.look("/web/rest")
    assert inventory.shown == ["10.0.0.1:80"]
    bound = inventory.tree.value.value
    assert (bound.id, bound.residual) == (Path.read("/#/com.example.inventory/web"), Path.read("/rest"))
    inventory.clock.advance(0.1)
    assert inventory.agent.requests[-1].query == {"after": "1", "wait": "50"}
    assert inventory.agent.requests[-1].headers["authorization"] == "Bearer secret"
    inventory.set("web", 2, ONE, TWO)
    assert inventory.shown == ["10.0.0.1:80", "10.0.0.2:80"] and inventory.addr.value.addresses[1].weight == 0.5
    inventory.clock.advance(0.1)
    inventory.agent.error = ConnectionRefusedError()
    inventory.agent.drop(ConnectionRefusedError())
    assert isinstance(inventory.addr, Ok)
    assert str(inventory.addr.error) == "the inventory at localhost:8080: connection refused"
    assert len(inventory.shown) == 2
    inventory.agent.error = None
    inventory.clock.pump([1.0] * 10)
    assert isinstance(inventory.addr, Ok) and inventory.addr.error is None


def test_it_polls_if_it_is_told_to(printed: ModuleType) -> None:
    inventory = Inventory(printed, poll_seconds=5)
    inventory.look("/web")
    assert inventory.tree == Ok(NEG)
    inventory.set("web", 1, ONE)
    inventory.clock.advance(5.6)
    assert inventory.shown == ["10.0.0.1:80"] and len(inventory.agent.requests) == 2
    assert all(request.query == {} for request in inventory.agent.requests)


@pytest.mark.parametrize(
    "answer",
    [b"{", b"[]", b"{}", b'{"version": 1, "instances": [{}]}', b'{"version": 1, "instances": [{"host": "a", "port": Infinity}]}', b"null"],
)
def test_malformed_answers_end_nothing(printed: ModuleType, answer: bytes) -> None:
    inventory = Inventory(printed)
    inventory.refusal = Reply(200, answer)
    inventory.look("/web")
    assert "it answered with what is no" in str(inventory.tree)
    inventory.refusal = None
    inventory.set("web", 1, ONE)
    inventory.clock.pump([1.0] * 10)
    assert inventory.shown == ["10.0.0.1:80"]


def test_names_of_callers_reach_no_other_path_and_the_root_is_no_service(printed: ModuleType) -> None:
    inventory = Inventory(printed)
    inventory.look("/..\\x2fadmin")
    assert inventory.agent.requests[-1].target == "/services/..%2Fadmin"
    inventory.look("/")
    assert inventory.tree == Ok(NEG) and len(inventory.agent.requests) == 1


def test_it_describes_what_it_watches_without_secrets_and_ends_it(printed: ModuleType) -> None:
    inventory = Inventory(printed, token="secret")
    inventory.set("web", 1, ONE)
    inventory.look("/web")
    described = inventory.namer.describe()["web"]
    assert described["state"]["value"] == {"addresses": [{"host": "10.0.0.1", "port": 80, "weight": 1.0}]}
    assert described["poll"] == {"version": "1"} and "secret" not in str(described)
    inventory.namer.stopService()
    assert inventory.clock.getDelayedCalls() == []
