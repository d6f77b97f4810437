"""``io.l5d.fs``: names are files of a directory, addresses are their lines.

Source: linkerd-config spec 3.2. Unlike Linkerd, a malformed line does not fail the whole set: it is logged with file and line and
the good lines count. Host names in lines stay resolved while they are watched. Files are at most 500 kB and local, so a read costs
less than handing it to a thread and is done in the reactor's thread.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import attrs
from twisted.application.service import Service

from meshgw.config.document import Chosen, option
from meshgw.config.values import Directory
from meshgw.core.address import ADDR_NEG, Addr, Address, Bound, Replicas
from meshgw.core.files import FileWatcher
from meshgw.core.live import PENDING, Failed, Live, Observation, Ok, Source, State
from meshgw.core.logger import make_logger
from meshgw.errors import NamerError
from meshgw.kinds import Kind, Runtime
from meshgw.naming.path import Path
from meshgw.naming.tree import NEG, Leaf, NameTree

_log = make_logger()

LARGEST_FILE: Final = 500_000  # bytes, spec 3.2
MOST_LOGGED_LINES: Final = 10  # a wrong file must not flood the log
_LINE: Final = re.compile(r"(\S+)\s+(\d{1,5})(?:\s*\*\s*(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?))?")
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.%A-Za-z]+\]|[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?")

Resolve = Callable[[str, int], Live[Addr]]


@attrs.frozen(kw_only=True)
class FsConfig:
    """Services found in a directory of files, one file per service with a line ``host port`` for each endpoint."""

    root_dir: Directory = option(doc="Directory that holds the files; it is watched with all its sub-directories.")
    prefix: Path = option(factory=lambda: Path.read("/io.l5d.fs"), doc="The namer answers names under `/#` followed by this path.")
    transformers: tuple[Chosen, ...] = option(
        default=(), doc="Transformers applied in the listed order to what this namer finds.", kinds="transformers"
    )


@attrs.frozen
class Endpoint:
    """One good line of a file."""

    host: str
    port: int
    weight: float = 1.0


def read_endpoints(text: str) -> tuple[tuple[Endpoint, ...], tuple[tuple[int, str], ...]]:
    """The endpoints of a file's text, and its malformed lines with their numbers from 1."""
    good: list[Endpoint] = []
    bad: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#", 1)[0].strip()
        if content:
            endpoint = _read_line(content)
            if endpoint is None:
                bad.append((number, content))
            else:
                good.append(endpoint)
    return tuple(good), tuple(bad)


def _read_line(content: str) -> Endpoint | None:
    match = _LINE.fullmatch(content)
    if match is None or not content.isascii() or not _HOST.fullmatch(match[1]):
        return None
    port, weight = int(match[2]), float(match[3] or 1.0)
    if not 1 <= port <= 65535 or not math.isfinite(weight):
        return None
    return Endpoint(match[1], port, weight)


class _File:
    """One file: its endpoints as a live address set, read while somebody watches the set."""

    def __init__(self, path: bytes, resolve: Resolve) -> None:
        self._path, self._resolve = path, resolve
        self.addr: Source[Addr] = Source(self._watched)
        self._content: bytes | None = None
        self._endpoints: tuple[Endpoint, ...] = ()
        self._hosts: dict[tuple[str, int], Observation] = {}
        self._states: dict[tuple[str, int], State[Addr]] = {}
        self._settled = True
        self._error: Exception | None = None

    def _watched(self, _source: Source[Addr]) -> Callable[[], None]:
        self.look()
        return self._unwatched

    def _unwatched(self) -> None:
        held, self._hosts, self._states = self._hosts, {}, {}
        self._content = None
        for observation in held.values():
            observation.close()

    def describe(self) -> dict[str, Any]:
        """The entry of this file in ``/namer_state``."""
        state, is_observed = self.addr.state, self.addr.is_observed
        addresses: list[str] | None = None
        if is_observed and isinstance(state, Ok) and isinstance(state.value, Replicas):
            addresses = [address.show() for address in state.value.addresses]
        error = state.error if isinstance(state, Ok | Failed) else None
        is_stale = isinstance(state, Ok) and error is not None
        described = {"running": is_observed, "stale": is_stale, "value": addresses}
        return {"state": described, "poll": {} if error is None else {"error": str(error)}}

    def look(self) -> None:
        """Take over the file's present content; without a watcher there is nothing to do yet."""
        if not self.addr.is_observed:
            return
        try:
            content = _content_of(self._path)
        except FileNotFoundError:
            self._gone()
        except (OSError, NamerError) as error:
            self._failed(error)
        else:
            self._error = None
            if content == self._content:
                self._publish()
            else:
                self._content = content
                self._take(content)

    def _gone(self) -> None:
        self._unwatched()
        self._endpoints, self._error = (), None
        self.addr.set(ADDR_NEG)

    def _failed(self, error: Exception) -> None:
        """Say so once and go on with the last good addresses."""
        detail = str(error) if isinstance(error, NamerError) else f"{os.fsdecode(self._path)}: cannot be read: {error}"
        if self._error is None or str(self._error) != detail:
            _log.warn("{detail}; the last good addresses stay in use", detail=detail)
        self._error = NamerError(detail=detail)
        self._publish()

    def _take(self, content: bytes) -> None:
        good, bad = read_endpoints(content.decode("utf-8-sig", "replace"))
        name = os.fsdecode(self._path)
        for number, line in bad[:MOST_LOGGED_LINES]:
            _log.warn(
                "{file}:{line}: malformed address: {text!r}; expected `host port` or `host port * weight`",
                file=name,
                line=number,
                text=line,
            )
        if len(bad) > MOST_LOGGED_LINES:
            _log.warn("{file}: {count} more malformed addresses", file=name, count=len(bad) - MOST_LOGGED_LINES)
        if bad and not good:  # surely not meant as "no endpoints": keep what served until now
            number, line = bad[0]
            self._failed(NamerError(detail=f"{name}:{number}: malformed address: {line}"))
            return
        self._endpoints = good
        self._follow_hosts()
        self._publish()

    def _follow_hosts(self) -> None:
        """Watch the endpoints' hosts; those that stay are not asked anew."""
        wanted = dict.fromkeys((endpoint.host, endpoint.port) for endpoint in self._endpoints)
        self._settled = False
        for host, port in wanted:
            if (host, port) not in self._hosts:
                self._hosts[host, port] = self._resolve(host, port).observe(partial(self._resolved, (host, port)))
        self._settled = True
        for key in [key for key in self._hosts if key not in wanted]:
            self._hosts.pop(key).close()
            self._states.pop(key, None)

    def _resolved(self, key: tuple[str, int], state: State[Addr]) -> None:
        self._states[key] = state
        if self._settled:
            self._publish()

    def _publish(self) -> None:
        """Publish the addresses known now: a host that is not known yet is waited for only if nothing else is known."""
        addresses: dict[tuple[str, int], Address] = {}
        error, pending = self._error, False
        for endpoint in self._endpoints:
            state = self._states.get((endpoint.host, endpoint.port), PENDING)
            if isinstance(state, Ok):
                for address in state.value.addresses if isinstance(state.value, Replicas) else ():
                    addresses.setdefault((address.host, address.port), attrs.evolve(address, weight=endpoint.weight))
                error = error or state.error
            elif isinstance(state, Failed):
                error = error or state.error
            else:
                pending = True
        if not addresses and pending:
            self.addr.pend(f"DNS of the hosts in {os.fsdecode(self._path)}")
        elif not addresses and error is not None:
            self.addr.fail(error)
        else:
            self.addr.put(Ok(Replicas(tuple(addresses.values())), error))


def _content_of(path: bytes) -> bytes:
    with open(path, "rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise NamerError(detail=f"{os.fsdecode(path)}: larger than {LARGEST_FILE // 1000} kB, which is no list of addresses")
    return content


class _Lookup:
    """One watched name: which file it leads to now."""

    def __init__(self, namer: FsNamer, path: Path, tree: Source[NameTree[Path | Bound]]) -> None:
        self._namer, self._path, self._tree = namer, path, tree

    def look(self) -> None:
        """Set the tree to what the directory says now."""
        self._tree.set(self._namer.find(self._path))


class FsNamer(Service):
    """The namer of one directory; ``prefix`` is its full mount point with ``/#``. Names follow the directory while it runs."""

    def __init__(self, reactor: Any, root: str, prefix: Path, resolve: Resolve) -> None:
        self.prefix = prefix
        self._root, self._resolve = os.fsencode(os.path.abspath(root)), resolve
        self._watcher = FileWatcher(reactor, root, self.look, recursive=True)
        self._files: dict[Path, _File] = {}
        self._lookups: dict[int, _Lookup] = {}

    def startService(self) -> None:
        """Begin to follow the directory."""
        super().startService()  # type: ignore[no-untyped-call]
        self._watcher.start()
        self.look()

    def stopService(self) -> None:
        """Stop following; the last state stays."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._watcher.stop()

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """The bound name of the first file on ``path``, the rest as residual; neg while there is none."""

        def start(tree: Source[NameTree[Path | Bound]]) -> Callable[[], None]:
            lookup = _Lookup(self, path, tree)
            self._lookups[id(lookup)] = lookup
            lookup.look()

            def stop() -> None:
                del self._lookups[id(lookup)]

            return stop

        return Source(start)

    def find(self, path: Path) -> NameTree[Path | Bound]:
        """What ``path`` leads to at this moment."""
        length = self._file_length(path)
        if length is None:
            return NEG
        name = path.take(length)
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = _File(self._location(name), self._resolve)
        return Leaf(Bound(self.prefix + name, file.addr, path.drop(length)))

    def names(self) -> list[Path]:
        """All files that can be bound now, with the namer's prefix."""
        return [self.prefix + name for name in sorted(self._walk(self._root, Path.of(), frozenset()))]

    def describe(self) -> dict[str, Any]:
        """The files that are, or were lately, bound: see :class:`meshgw.kinds.Describing`."""
        return {name.show(): file.describe() for name, file in sorted(self._files.items())}

    def look(self) -> None:
        """Take over the present state of the directory."""
        for lookup in list(self._lookups.values()):  # first, so that who follows a vanished name lets go of its addresses
            lookup.look()
        for name, file in list(self._files.items()):
            file.look()
            if not file.addr.is_observed and self._file_length(name) is None:
                del self._files[name]

    def _file_length(self, path: Path) -> int | None:
        """How many labels of ``path`` name a file, or None."""
        location = self._root
        for count, label in enumerate(path, 1):
            if not _is_file_name(label):
                return None
            location = os.path.join(location, label)
            try:
                mode = os.stat(location).st_mode
            except OSError:
                return None
            if stat.S_ISREG(mode):
                return count
            if not stat.S_ISDIR(mode):
                return None
        return None

    def _location(self, name: Path) -> bytes:
        return os.path.join(self._root, *name)

    def _walk(self, directory: bytes, above: Path, inside: frozenset[bytes]) -> Iterator[Path]:
        """The files below ``directory``; ``inside`` holds the real paths on the way, against links that lead in circles."""
        real = os.path.realpath(directory)
        if real in inside:
            return
        try:
            with os.scandir(directory) as found:
                entries = [entry for entry in found if _is_file_name(entry.name)]
        except OSError:
            return
        for entry in entries:
            name = above + Path.of(entry.name)
            if _is(entry, os.DirEntry.is_file):
                yield name
            elif _is(entry, os.DirEntry.is_dir):
                yield from self._walk(entry.path, name, inside | {real})


def _is(entry: os.DirEntry[bytes], question: Callable[[os.DirEntry[bytes]], bool]) -> bool:
    try:
        return question(entry)
    except OSError:
        return False


def _is_file_name(label: bytes) -> bool:
    """Whether a label may name a file: nothing hidden (which covers ``..``), no path separator, nothing that ends a C string."""
    return not label.startswith(b".") and b"/" not in label and b"\0" not in label


def build_fs(config: FsConfig, runtime: Runtime) -> FsNamer:
    """The namer for a configuration block."""
    return FsNamer(runtime.reactor, config.root_dir, Path.of("#") + config.prefix, runtime.resolve)


KIND = Kind(id="io.l5d.fs", config=FsConfig, build=build_fs)
