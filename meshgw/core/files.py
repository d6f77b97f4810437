"""``FileWatcher``: tells when a file, or anything in a directory tree, has changed.

Source: linkerd-config spec 3.2 and 8.2 (files and trees are watched, changes are seen live); the layout of mounted Kubernetes
ConfigMaps, where a file is a link through ``..data``, itself a link that is swapped. The watcher does not read the file and does
not tell what changed: the owner looks again.

How it works: the path is resolved step by step, and each directory in which a step could turn out differently is watched (that
of the file, of every link on the way, and of the first missing part). After each burst of events the resolution is made anew and
the watches follow it before the owner is told, so that nothing is lost between looking and watching.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IDelayedCall

from meshgw.core import inotify
from meshgw.core.inotify import Inotify
from meshgw.core.logger import make_logger

_log = make_logger()

SETTLE_SECONDS: Final = 0.02  # an editor's or a deploy script's burst becomes one call; short enough to pass for "at once"
# inotify sees nothing of writes by other hosts of a network file system, nor of a writer that never closes its file.
SAFETY_POLL_SECONDS: Final = 30.0
_MOST_LINKS: Final = 40  # as the kernel's own limit (path_resolution(7))
_MOST_ROUNDS: Final = 5  # a tree that grows while it is being watched is looked at again this often before the next burst

# IN_MODIFY is left out on purpose: a file being rewritten in place is reported when its writer closes it, not half empty.
_CONTENT: Final = inotify.CLOSE_WRITE | inotify.ATTRIB | inotify.CREATE | inotify.DELETE | inotify.MOVED_FROM | inotify.MOVED_TO

Signature = tuple[tuple[bytes, int, int, int, int], ...]


@attrs.define
class _Plan:
    """What to watch: directory → names whose events count there (``None``: all; empty: only the directory's own end)."""

    directories: dict[bytes, set[bytes] | None] = attrs.field(factory=dict)

    def watch(self, directory: bytes, name: bytes | None = None) -> None:
        names = self.directories.setdefault(directory, set())
        if name is None:
            self.directories[directory] = None
        elif names is not None:
            names.add(name)

    def hold(self, directory: bytes) -> None:
        self.directories.setdefault(directory, set())


class FileWatcher:
    """Calls ``on_change`` after the file at ``path``, or with ``recursive`` anything in the tree below it, may have changed.

    Bursts are joined: at most one call per 20 ms, and always one after the last event. The path need not exist. Where inotify
    is missing or its limits are used up, file states are compared every ``poll_seconds`` instead, which is logged once.
    """

    def __init__(
        self, reactor: Any, path: str, on_change: Callable[[], None], *, recursive: bool = False, poll_seconds: float = 1.0
    ) -> None:
        """``reactor`` provides IReactorTime and, for inotify, IReactorFDSet; ``path`` may be relative to the working directory now."""
        self._reactor, self._on_change = reactor, on_change
        self._path, self._recursive = os.fsencode(os.path.abspath(path)), recursive
        self._poll_seconds = poll_seconds
        self._inotify: Inotify | None = None
        self._plan = _Plan()
        self._lost = False
        self._polls_only = False
        self._settling: IDelayedCall | None = None
        self._polling: IDelayedCall | None = None
        self._seen: Signature = ()
        self._is_noted = False
        self._running = False

    def note(self) -> None:
        """Note what is there, for an owner who reads it before the watch begins: what changes between is reported, too."""
        self._seen, self._is_noted = self._signature(), True

    def start(self) -> None:
        """Begin to watch; what was there before is not reported, unless it differs from what was noted."""
        self._running = True
        self._follow()
        before, self._seen = self._seen, self._signature()
        if self._is_noted and before != self._seen:
            self._change()
        self._poll_later()

    def stop(self) -> None:
        """End watching; no call comes any more."""
        self._running = False
        for call in (self._settling, self._polling):
            if call is not None and call.active():
                call.cancel()
        self._settling = self._polling = None
        self._release()

    def _release(self) -> None:
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None

    # Events and polls

    def _event(self, directory: bytes, name: bytes, mask: int) -> None:
        if mask & inotify.LOST:
            self._lost = True
        else:
            names = self._plan.directories.get(directory)
            if names is not None and name not in names:
                return
        self._change()

    def _change(self) -> None:
        if self._settling is None and self._running:
            self._settling = self._reactor.callLater(SETTLE_SECONDS, self._settled)

    def _settled(self) -> None:
        self._settling = None
        self._follow()
        self._seen = self._signature()
        try:
            self._on_change()
        except Exception:  # noqa: BLE001 - the rim: the owner's defect must not end the watch
            _log.failure("defect while taking over a change of {path}", path=os.fsdecode(self._path))

    def _poll_later(self) -> None:
        if self._running:
            interval = self._poll_seconds if self._polls_only else max(self._poll_seconds, SAFETY_POLL_SECONDS)
            self._polling = self._reactor.callLater(interval, self._poll)

    def _poll(self) -> None:
        if self._signature() != self._seen:
            self._change()
        self._poll_later()

    # Watches

    def _follow(self) -> None:
        """Make the watches those of the present resolution; fall back to polling for good where that fails."""
        for _ in range(_MOST_ROUNDS):
            plan = self._resolved()
            if self._polls_only or (plan == self._plan and self._inotify is not None and not self._lost):
                return
            self._lost = False
            try:
                self._arm(plan)
            except FileNotFoundError:
                self._lost = True  # a directory vanished between looking and watching: look again
            except OSError as error:
                self._fall_back(error)

    def _arm(self, plan: _Plan) -> None:
        """Replace all watches at once: the new ones stand before the old ones end, so that no event falls between."""
        fresh = Inotify(self._reactor, self._event)
        try:
            for directory, names in plan.directories.items():
                self._add(fresh, directory, held_only=names is not None and not names)
        except OSError:
            fresh.close()
            raise
        self._release()
        fresh.start()
        self._inotify, self._plan = fresh, plan

    def _add(self, fresh: Inotify, directory: bytes, *, held_only: bool) -> None:
        try:
            fresh.add(directory, 0 if held_only else _CONTENT)
        except PermissionError:
            if not held_only:
                raise
            # A parent that may be passed but not read: only its own removal goes unseen until the next safety poll.

    def _fall_back(self, error: OSError) -> None:
        self._release()
        self._polls_only = True
        if self._polling is not None and self._polling.active():
            self._polling.cancel()
            self._poll_later()
        _log.warn(
            "{path} cannot be watched through inotify ({error}); its state is compared every {seconds} s instead."
            " Raise fs.inotify.max_user_watches and max_user_instances to change that",
            path=os.fsdecode(self._path),
            error=str(error),
            seconds=self._poll_seconds,
        )

    def _resolved(self) -> _Plan:
        plan = _Plan()
        real = _walk(self._path, plan)
        if self._recursive and real is not None:
            for directory, links in _directories(real):
                plan.watch(directory)
                for link in links:
                    _walk(link, plan)
        return plan

    def _signature(self) -> Signature:
        """The states of all files concerned; any difference counts as a change."""
        paths = [self._path]
        if self._recursive:
            paths += [os.path.join(top, name) for top, _ in _directories(self._path) for name in _names(top)]
        return tuple(_state(path) for path in sorted(paths))


def _state(path: bytes) -> tuple[bytes, int, int, int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return (path, 0, 0, 0, 0)
    # A directory's own times change with its entries, which are listed themselves.
    if stat.S_ISDIR(status.st_mode):
        return (path, status.st_ino, 0, 0, status.st_mode)
    return (path, status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode)


def _names(directory: bytes) -> list[bytes]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _directories(root: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
    """Every directory of the tree, links to directories followed once each, with the links it contains."""
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        try:
            status = os.stat(directory)
            if not stat.S_ISDIR(status.st_mode) or (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(directory) as found:
                entries = list(found)
        except OSError:
            continue  # gone or unreadable: its parent's watch tells when that changes
        waiting += [os.path.realpath(entry.path) for entry in entries if _is_directory(entry)]
        yield directory, [entry.path for entry in entries if entry.is_symlink()]


def _is_directory(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _walk(path: bytes, plan: _Plan) -> bytes | None:
    """Resolve ``path`` as the kernel does, noting in ``plan`` where to watch; the real path, or None if it does not exist."""
    parts = path.split(b"/")[::-1]
    here, links = b"/", 0
    while parts:
        part = parts.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            here = os.path.dirname(here)
            continue
        entry = os.path.join(here, part)
        try:
            mode = os.lstat(entry).st_mode
        except OSError:
            plan.watch(here, part)
            return None
        if stat.S_ISLNK(mode):
            plan.watch(here, part)
            links += 1
            try:
                target = os.readlink(entry)
            except OSError:
                return None
            if links > _MOST_LINKS:
                return None
            here = b"/" if target.startswith(b"/") else here
            parts += target.split(b"/")[::-1]
            continue
        if not stat.S_ISDIR(mode):
            plan.watch(here, part)
            return None if any(parts) else entry
        plan.hold(entry)
        here = entry
    return here
