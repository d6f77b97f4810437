"""The file watcher on real directories; time is a Clock, and the kernel's events are read when the test says so."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path as File
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from meshgw.core import files
from meshgw.core.address import Address, Replicas
from meshgw.core.files import SAFETY_POLL_SECONDS, SETTLE_SECONDS, FileWatcher
from meshgw.core.live import Ok, constant
from meshgw.namers.files import FsNamer
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG


class PumpedReactor(Clock):
    """A clock with readers that are read by hand: inotify queues its events before the system call that caused them returns."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def turn(self) -> None:
        for reader in list(self.readers):
            reader.doRead()
        self.advance(SETTLE_SECONDS)


class Watch:
    """A started watcher and the number of its calls."""

    def __init__(self, reactor: PumpedReactor, path: File, **options: Any) -> None:
        self.calls, self.reactor = 0, reactor
        self.watcher = FileWatcher(reactor, str(path), self._changed, **options)
        self.watcher.start()

    def _changed(self) -> None:
        self.calls += 1

    def saw(self, *changes: Callable[[], object]) -> int:
        before = self.calls
        for change in changes:
            change()
        self.reactor.turn()
        return self.calls - before


@pytest.fixture
def reactor() -> PumpedReactor:
    return PumpedReactor()


@pytest.fixture
def watching(reactor: PumpedReactor) -> Iterator[Callable[..., Watch]]:
    started: list[Watch] = []

    def start(path: File, **options: Any) -> Watch:
        started.append(Watch(reactor, path, **options))
        return started[-1]

    yield start
    for watch in started:
        watch.watcher.stop()
    assert not reactor.readers
    assert not reactor.getDelayedCalls()


def test_what_changes_between_noting_and_watching_is_told(reactor: PumpedReactor, tmp_path: File) -> None:
    calls: list[int] = []
    for change in (None, b"two", b"three"):
        watcher = FileWatcher(reactor, str(tmp_path / "file"), lambda: calls.append(1))
        watcher.note()
        if change is not None:
            (tmp_path / "file").write_bytes(change)
        watcher.start()
        reactor.turn()
        watcher.stop()
    assert len(calls) == 2


def test_a_write_is_told_once_and_other_files_are_not(watching: Any, tmp_path: File) -> None:
    (tmp_path / "a").write_text("1")
    watch = watching(tmp_path / "a")
    assert watch.saw(lambda: (tmp_path / "a").write_text("2"), lambda: (tmp_path / "a").write_text("3")) == 1
    assert watch.saw(lambda: (tmp_path / "b").write_text("2")) == 0
    assert watch.saw(lambda: (tmp_path / "a").unlink()) == 1
    assert watch.saw(lambda: (tmp_path / "a").write_text("4")) == 1


def test_the_last_event_of_a_burst_is_followed_by_a_call(watching: Any, reactor: PumpedReactor, tmp_path: File) -> None:
    watch = watching(tmp_path / "a")
    (tmp_path / "a").write_text("1")
    reactor.readers[0].doRead()
    reactor.advance(SETTLE_SECONDS / 2)
    (tmp_path / "a").write_text("2")
    reactor.readers[0].doRead()
    assert watch.calls == 0
    reactor.advance(SETTLE_SECONDS / 2)
    assert watch.calls == 1
    (tmp_path / "a").write_text("3")
    reactor.turn()
    assert watch.calls == 2


def test_an_atomic_rename_is_told_every_time(watching: Any, tmp_path: File) -> None:
    (tmp_path / "a").write_text("1")
    watch = watching(tmp_path / "a")
    for number in range(3):
        (tmp_path / "new").write_text(str(number))
        assert watch.saw(lambda: (tmp_path / "new").rename(tmp_path / "a")) == 1


def test_a_swapped_config_map_is_told_every_time(watching: Any, tmp_path: File) -> None:
    for version in ("..v1", "..v2", "..v3"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "dtab").write_text(version)
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "dtab").symlink_to("..data/dtab")
    alone, tree = watching(tmp_path / "dtab"), watching(tmp_path, recursive=True)

    def swap(version: str) -> None:
        (tmp_path / "..tmp").symlink_to(version)
        (tmp_path / "..tmp").rename(tmp_path / "..data")

    for version, old in (("..v2", "..v1"), ("..v3", "..v2")):
        assert alone.saw(lambda version=version: swap(version)) == 1
        assert alone.saw(lambda old=old: shutil.rmtree(tmp_path / old)) <= 1
    assert alone.saw(lambda: (tmp_path / "..v3" / "dtab").write_text("in place")) == 1
    assert tree.calls >= 3


def test_links_to_other_directories_are_followed(watching: Any, tmp_path: File) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    (tmp_path / "far" / "a").write_text("1")
    (tmp_path / "near" / "a").symlink_to(tmp_path / "far" / "a")
    alone, tree = watching(tmp_path / "near" / "a"), watching(tmp_path / "near", recursive=True)
    assert alone.saw(lambda: (tmp_path / "far" / "a").write_text("2")) == 1
    assert tree.calls == 1


def test_a_directory_that_is_deleted_and_made_again_is_watched_again(watching: Any, tmp_path: File) -> None:
    home = tmp_path / "x" / "y"
    home.mkdir(parents=True)
    (home / "a").write_text("1")
    alone, tree = watching(home / "a"), watching(home, recursive=True)
    for _ in range(3):
        assert alone.saw(lambda: shutil.rmtree(tmp_path / "x")) == 1
        assert alone.saw(lambda: home.mkdir(parents=True)) == 1
        before = tree.calls
        assert alone.saw(lambda: (home / "a").write_text("2")) == 1
        assert tree.calls == before + 1


def test_a_directory_replaced_within_one_burst_is_watched_again(watching: Any, tmp_path: File) -> None:
    (tmp_path / "x").mkdir()
    watch = watching(tmp_path / "x", recursive=True)
    assert watch.saw(lambda: (tmp_path / "x").rmdir(), lambda: (tmp_path / "x").mkdir()) == 1
    assert watch.saw(lambda: (tmp_path / "x" / "a").write_text("1")) == 1
    assert watch.saw(lambda: (tmp_path / "x").rename(tmp_path / "z"), lambda: (tmp_path / "x").mkdir()) == 1
    assert watch.saw(lambda: (tmp_path / "x" / "a").write_text("1")) == 1
    assert watch.saw(lambda: (tmp_path / "z" / "a").write_text("1")) == 0


def test_a_path_that_does_not_exist_yet_is_awaited(watching: Any, tmp_path: File) -> None:
    watch = watching(tmp_path / "x" / "y" / "a")
    assert watch.saw(lambda: (tmp_path / "x").mkdir()) == 1
    assert watch.saw(lambda: (tmp_path / "x" / "other").mkdir()) == 0
    assert watch.saw(lambda: (tmp_path / "x" / "y").mkdir(), lambda: (tmp_path / "x" / "y" / "a").write_text("1")) == 1
    assert watch.saw(lambda: (tmp_path / "x" / "y" / "a").write_text("2")) == 1


def test_new_sub_directories_are_watched_to_any_depth(watching: Any, tmp_path: File) -> None:
    watch = watching(tmp_path, recursive=True)
    deep = tmp_path / "a" / "b" / "c"
    assert watch.saw(lambda: deep.mkdir(parents=True)) == 1
    assert watch.saw(lambda: (deep / "web").write_text("1")) == 1
    assert watch.saw(lambda: shutil.rmtree(tmp_path / "a")) == 1


def test_links_in_circles_end(watching: Any, tmp_path: File) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "up").symlink_to(tmp_path)
    assert watching(tmp_path / "loop").saw() == 0
    assert watching(tmp_path, recursive=True).saw(lambda: (tmp_path / "a").write_text("1")) == 1


def test_a_file_in_the_place_of_a_directory_is_no_error(watching: Any, tmp_path: File) -> None:
    (tmp_path / "x").write_text("a file")
    watch = watching(tmp_path / "x" / "a")
    assert watch.saw(lambda: (tmp_path / "x").unlink(), lambda: (tmp_path / "x").mkdir()) == 1
    assert watch.saw(lambda: (tmp_path / "x" / "a").write_text("1")) == 1


def test_what_inotify_does_not_tell_is_found_by_the_safety_poll(watching: Any, reactor: PumpedReactor, tmp_path: File) -> None:
    (tmp_path / "a").write_text("1")
    watch = watching(tmp_path / "a")
    with open(tmp_path / "a", "a") as held:
        held.write("more")
        held.flush()
        reactor.turn()
        assert watch.calls == 0
        reactor.advance(SAFETY_POLL_SECONDS)
        reactor.advance(SETTLE_SECONDS)
        assert watch.calls == 1


def test_an_owner_that_raises_goes_on_being_told(reactor: PumpedReactor, tmp_path: File) -> None:
    calls: list[int] = []

    def changed() -> None:
        calls.append(1)
        raise ValueError("defect")

    watcher = FileWatcher(reactor, str(tmp_path / "a"), changed)
    watcher.start()
    for _ in range(2):
        (tmp_path / "a").write_text("1")
        reactor.turn()
    watcher.stop()
    assert len(calls) == 2


def test_nothing_is_told_after_stop(watching: Any, reactor: PumpedReactor, tmp_path: File) -> None:
    watch = watching(tmp_path / "a")
    (tmp_path / "a").write_text("1")
    reactor.readers[0].doRead()
    watch.watcher.stop()
    reactor.advance(60)
    assert watch.calls == 0
    assert not reactor.readers


def test_descriptors_are_given_back(watching: Any, tmp_path: File) -> None:
    watch = watching(tmp_path, recursive=True)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        watch.saw(lambda number=number: (tmp_path / str(number)).mkdir())
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ENOSYS])
def test_without_inotify_states_are_compared_and_that_is_logged_once(
    number: int, reactor: PumpedReactor, tmp_path: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[LogEvent] = []

    class NoInotify:
        def __init__(self, *_: Any) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "Inotify", NoInotify)
    globalLogPublisher.addObserver(lines.append)
    watch = Watch(reactor, tmp_path, recursive=True, poll_seconds=2.0)
    for step in (
        lambda: (tmp_path / "sub").mkdir(),
        lambda: (tmp_path / "sub" / "a").write_text("1"),
        lambda: (tmp_path / "sub" / "a").write_text("22"),
        lambda: shutil.rmtree(tmp_path / "sub"),
    ):
        before = watch.calls
        step()
        reactor.advance(2.0)
        reactor.advance(SETTLE_SECONDS)
        assert watch.calls == before + 1
        reactor.advance(10.0)
        assert watch.calls == before + 1
    watch.watcher.stop()
    globalLogPublisher.removeObserver(lines.append)
    assert len([line for line in lines if "cannot be watched" in str(line.get("log_format"))]) == 1


def test_fs_names_follow_the_directory(reactor: PumpedReactor, tmp_path: File) -> None:
    namer = FsNamer(reactor, str(tmp_path), Path.read("/#/io.l5d.fs"), lambda host, port: constant(Replicas((Address(host, port),))))
    namer.startService()
    trees: list[Any] = []
    namer.lookup(Path.read("/eu/web")).observe(trees.append)
    (tmp_path / "eu").mkdir()
    (tmp_path / "eu" / "web").write_text("127.0.0.1 80")
    reactor.turn()
    addresses: list[Any] = []
    observation = trees[-1].value.value.addr.observe(addresses.append)
    (tmp_path / "eu" / "web.new").write_text("127.0.0.1 80\n127.0.0.2 80")
    (tmp_path / "eu" / "web.new").rename(tmp_path / "eu" / "web")
    reactor.turn()
    assert addresses[-1] == Ok(Replicas((Address("127.0.0.1", 80), Address("127.0.0.2", 80))))
    observation.close()
    shutil.rmtree(tmp_path / "eu")
    reactor.turn()
    assert trees[-1] == Ok(NEG)
    namer.stopService()
    assert not reactor.readers
