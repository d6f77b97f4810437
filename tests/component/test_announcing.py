"""What is announced to whom as configurations come and go, with announcers that only take notes (linkerd-config spec 3.12)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, cast

import attrs
import pytest
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from meshgw.app.announcing import LOOK_SECONDS, STOP_SECONDS, Announcements
from meshgw.config.document import Chosen
from meshgw.config.models import Config
from meshgw.config.router import RouterConfig, ServerConfig
from meshgw.core.interfaces import LocalAddresses
from meshgw.errors import NamerError
from meshgw.kinds import Kind, Runtime
from meshgw.naming.path import Path
from meshgw.telemetry.metrics import Metrics


@attrs.frozen(kw_only=True)
class NotesConfig:
    """The block of an announcer."""

    prefix: Path = Path.of("notes")
    tag: str = ""


@attrs.define(eq=False)
class Note:
    """One announcement."""

    text: str
    withdrawn: Deferred[None] | None = None
    is_there: bool = True

    def withdraw(self) -> Deferred[None]:
        self.is_there = False
        return self.withdrawn if self.withdrawn is not None else succeed(None)


class Notes(Service):
    """An announcer that takes notes."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.taken: list[Note] = []
        self.hangs = False

    def announce(self, name: Path, host: str, port: int) -> Note:
        if name == Path.of("unknown"):
            raise NamerError(detail="/unknown cannot be announced")
        if name == Path.of("defect"):
            raise ZeroDivisionError
        note = Note(f"{name.show()} {host}:{port}", Deferred() if self.hangs else None)
        self.taken.append(note)
        return note


class World:
    """A process that announces."""

    def __init__(self) -> None:
        self.clock, self.metrics, self.local = Clock(), Metrics(), {"10.0.0.1"}
        self.made: list[Notes] = []
        runtime = Runtime(reactor=self.clock, metrics=self.metrics, random=Random(1), spawn=cast("Any", None), resolve=cast("Any", None))
        local = cast("LocalAddresses", self)
        self.announcements = Announcements(runtime, local)

    def now(self) -> set[str]:
        return self.local

    def build(self, config: NotesConfig, _runtime: Runtime) -> Notes:
        self.made.append(Notes(config.tag))
        return self.made[-1]

    def update(self, servers: Mapping[str, list[str]], *announcers: NotesConfig) -> Deferred[None]:
        """Announce by a configuration whose servers, by their addresses, have these names."""
        kind = Kind(id="notes", config=NotesConfig, build=self.build)
        blocks = tuple(ServerConfig(announce=tuple(map(Path.read, names))) for names in servers.values())
        router = RouterConfig(
            label="edge",
            servers=blocks,
            interpreter=cast("Any", None),
            announcers=tuple(Chosen(kind=kind, config=one) for one in announcers),
        )
        config = Config(routers=(Chosen(kind=kind, config=router),))
        places = [(address.rpartition(":")[0], int(address.rpartition(":")[2])) for address in servers]
        return self.announcements.update(config, lambda name: places[int(name.rpartition("/")[2])])

    @property
    def there(self) -> list[str]:
        return sorted(note.text for notes in self.made for note in notes.taken if note.is_there)

    @property
    def gauges(self) -> tuple[float, float]:
        gauges = self.metrics.snapshot().gauges
        return gauges["announcements", "wanted"], gauges["announcements", "there"]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event.get("log_namespace") == "meshgw.app.announcing":
            lines.append(event["log_format"].format(**{key: value for key, value in event.items() if not key.startswith("log_")}))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


ONE = NotesConfig()


def test_a_name_goes_to_every_announcer_whose_prefix_it_begins_with(world: World, logged: list[str]) -> None:
    world.update(
        {"10.0.0.9:80": ["/#/notes/web", "/#/other/deep/web", "/#/none/web"]},
        ONE,
        NotesConfig(tag="second"),
        NotesConfig(prefix=Path.read("/other/deep")),
    )
    assert world.there == ["/web 10.0.0.9:80", "/web 10.0.0.9:80", "/web 10.0.0.9:80"]
    assert [len(notes.taken) for notes in world.made] == [1, 1, 1]
    assert logged == ["no announcer found for /#/none/web of router edge"]


def test_what_stays_is_left_alone_and_what_goes_is_withdrawn_with_its_announcer(world: World) -> None:
    world.update({"10.0.0.9:80": ["/#/notes/a", "/#/notes/b"]}, ONE)
    kept = world.made[0].taken[0]
    world.update({"10.0.0.9:80": ["/#/notes/a", "/#/notes/c"]}, NotesConfig())
    assert world.there == ["/a 10.0.0.9:80", "/c 10.0.0.9:80"]
    assert kept.is_there and len(world.made) == 1
    world.update({"10.0.0.9:80": ["/#/notes/a"]}, NotesConfig(tag="another"))
    assert world.there == ["/a 10.0.0.9:80"]
    assert [notes.running for notes in world.made] == [0, 1]


def test_a_server_on_all_addresses_follows_those_of_the_machine(world: World) -> None:
    world.update({"0.0.0.0:80": ["/#/notes/web"]}, ONE)
    assert world.there == ["/web 10.0.0.1:80"]
    world.local = {"10.0.0.1", "10.0.0.2", "127.0.0.1"}
    world.clock.advance(LOOK_SECONDS)
    assert world.there == ["/web 10.0.0.1:80", "/web 10.0.0.2:80"]
    world.local = {"10.0.0.2"}
    world.clock.advance(LOOK_SECONDS)
    assert world.there == ["/web 10.0.0.2:80"]
    world.announcements.withdraw()
    assert world.there == []
    assert not [call for call in world.clock.getDelayedCalls() if call.active()]


def test_withdrawing_waits_for_announcers_within_its_limit(world: World) -> None:
    world.update({"10.0.0.9:80": ["/#/notes/quick"]}, ONE)
    world.made[0].hangs = True
    world.update({"10.0.0.9:80": ["/#/notes/quick", "/#/notes/slow"]}, ONE)
    done: list[object] = []
    world.announcements.withdraw().addBoth(done.append)
    assert world.there == [] and not done
    world.clock.advance(STOP_SECONDS)
    assert done == [None]


def test_what_cannot_be_announced_is_told_once_and_keeps_nothing_else_from_it(world: World, logged: list[str]) -> None:
    names = ["/#/notes/unknown", "/#/notes/defect", "/#/notes/web"]
    for _ in range(2):
        world.update({"10.0.0.9:80": names}, ONE)
    assert world.there == ["/web 10.0.0.9:80"]
    assert world.gauges == (3, 1)
    assert logged == ["10.0.0.9:80 is not announced: /unknown cannot be announced", "10.0.0.9:80 is not announced, as notes has a defect"]


def test_what_is_announced_is_told_by_name_and_address(world: World) -> None:
    world.update({"10.0.0.9:80": ["/#/notes/web", "/#/notes/unknown"]}, ONE)
    assert world.announcements.describe() == {
        "/#/notes/unknown": {"10.0.0.9:80": {"announced": False, "error": "the log tells why it cannot be announced"}},
        "/#/notes/web": {"10.0.0.9:80": {"announced": True}},
    }
