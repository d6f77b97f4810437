from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher

from meshgw.bind.builtin import BuiltinNamer
from meshgw.bind.dtab_file import KIND, DtabFileInterpreter
from meshgw.bind.interpreter import DefaultInterpreter
from meshgw.core.address import ADDR_NEG, Bound
from meshgw.core.live import Live, Ok, Pending, constant, current
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import NameTree, show_tree


class Reactor(Clock):
    """Time by hand, and descriptors that are never ready: changes are seen by the watcher's safety poll."""

    def addReader(self, reader: object) -> None:
        """Take a descriptor."""

    def removeReader(self, reader: object) -> None:
        """Give it back."""


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    seen: list[str] = []

    def observe(event: dict[str, Any]) -> None:
        if event["log_level"].name == "warn":
            seen.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield seen
    globalLogPublisher.removeObserver(observe)


class Started:
    """An interpreter over a file, started; ``write`` replaces the file as an editor does and lets it be noticed."""

    def __init__(self, file: File, text: str | None) -> None:
        self.file, self.reactor = file, Reactor()
        if text is not None:
            file.write_text(text)
        default = DefaultInterpreter([], BuiltinNamer(lambda host, port: constant(ADDR_NEG), {}))
        self.interpreter = DtabFileInterpreter(self.reactor, str(file), default)
        self.interpreter.startService()

    def write(self, text: str) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self.file)
        self.notice()

    def notice(self) -> None:
        self.reactor.pump([31.0, 0.1])

    def bound(self, path: str, dtab: str = "") -> str:
        return shown(self.interpreter.bind(Dtab.read(dtab), Path.read(path)))


def shown(live: Live[NameTree[Bound]]) -> str:
    state = current(live)
    return show_tree(state.value, Bound.show) if isinstance(state, Ok) else type(state).__name__


@pytest.fixture
def started(tmp_path: File) -> Iterator[Started]:
    found = Started(tmp_path / "web.dtab", "/a=>/$/inet/1;")
    yield found
    found.interpreter.stopService()


def test_the_file_comes_before_the_routers_dtab(started: Started) -> None:
    assert started.bound("/a") == "/$/inet/1"
    assert started.bound("/a", "/a=>/$/inet/2") == "/$/inet/2"
    assert started.bound("/b", "/b=>/a") == "/$/inet/1"


def test_a_change_reaches_names_that_are_bound(started: Started) -> None:
    seen: list[str] = []
    live = started.interpreter.bind(Dtab.EMPTY, Path.read("/a"))
    observation = live.observe(lambda state: seen.append(show_tree(state.value, Bound.show) if isinstance(state, Ok) else "?"))
    started.write("/a=>/$/inet/2")
    observation.close()
    assert seen == ["/$/inet/1", "/$/inet/2"]


def test_a_bad_edit_keeps_the_last_good_dtab_and_is_logged_with_its_place(started: Started, warnings: list[str]) -> None:
    started.write("/a=>/$/inet/2;\n/b=>/c |;\n")
    assert started.bound("/a") == "/$/inet/1"
    assert warnings == [
        f"{started.file}:2:9: a path, '(', '!', '~' or '$' expected but ';' found\n/b=>/c |;\n        ^\nthe last good dtab stays in use"
    ]
    state = started.interpreter.dtab.state
    assert isinstance(state, Ok)
    assert ":2:9:" in str(state.error)
    started.write("/a=>/$/inet/3")
    assert started.bound("/a") == "/$/inet/3"
    assert len(warnings) == 1


def test_the_state_tells_the_dtab_in_use_and_why_the_file_is_not(started: Started) -> None:
    assert started.interpreter.describe() == {
        "path": str(started.file),
        "state": {"running": True, "stale": False, "value": "/a=>/$/inet/1"},
        "poll": {},
    }
    started.write("/a=>")
    told = started.interpreter.describe()
    assert told["state"] == {"running": True, "stale": True, "value": "/a=>/$/inet/1"}
    assert told["poll"]["error"].startswith(f"{started.file}:1:5: ")


def test_without_a_file_the_state_has_no_dtab(tmp_path: File) -> None:
    missing = Started(tmp_path / "missing.dtab", None)
    told = missing.interpreter.describe()
    assert told["state"] == {"running": True, "stale": False, "value": None}
    assert "does not exist" in told["poll"]["error"]
    missing.interpreter.stopService()


def test_undoing_a_bad_edit_ends_the_complaint(started: Started) -> None:
    started.write("bad")
    started.write("/a=>/$/inet/1;")
    state = started.interpreter.dtab.state
    assert isinstance(state, Ok)
    assert state.error is None


def test_a_file_that_vanishes_leaves_its_dtab_in_use(started: Started, warnings: list[str]) -> None:
    started.file.unlink()
    started.notice()
    started.notice()
    assert started.bound("/a") == "/$/inet/1"
    assert warnings == [f"{started.file}: the dtab file does not exist; the last good dtab stays in use"]


def test_names_are_pending_until_the_file_exists(tmp_path: File) -> None:
    started = Started(tmp_path / "later.dtab", None)
    state = current(started.interpreter.bind(Dtab.EMPTY, Path.read("/a")))
    assert isinstance(state, Pending)
    assert "later.dtab" in state.waiting_for
    started.write("/a=>/$/inet/1")
    assert started.bound("/a") == "/$/inet/1"
    started.interpreter.stopService()


def test_a_file_that_was_never_good_fails_names_with_its_place(tmp_path: File) -> None:
    started = Started(tmp_path / "bad.dtab", "/a =>\n")
    state = current(started.interpreter.bind(Dtab.EMPTY, Path.read("/a")))
    assert f"{started.file}:2:1" in str(state)
    started.interpreter.stopService()


def test_a_file_that_is_no_text_is_reported(tmp_path: File, warnings: list[str]) -> None:
    file = tmp_path / "x.dtab"
    file.write_bytes(b"\xff\xfe")
    started = Started(file, None)
    assert started.bound("/a") == "Failed"
    assert "cannot be read" in warnings[0]
    started.interpreter.stopService()


def test_delegations_include_the_file(started: Started) -> None:
    state = current(started.interpreter.delegate(Dtab.EMPTY, Path.read("/a")))
    assert isinstance(state, Ok)
    assert started.interpreter.can_delegate
    assert KIND.id == "io.l5d.fs"


def test_nothing_is_scheduled_after_the_stop(started: Started) -> None:
    started.interpreter.stopService()
    assert started.reactor.getDelayedCalls() == []
