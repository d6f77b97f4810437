"""The built-in names under ``/$``: literal addresses and host names, the constants, and the rewriting utilities.

Source: dtab spec 4.3 and linkerd-config spec 3.13. The utilities themselves are in ``namers.rewrite`` and handed in.
"""

from __future__ import annotations

import re
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from types import MappingProxyType
from typing import Final

from meshgw.core.address import Addr, Address, Bound, Replicas
from meshgw.core.live import Live, Observation, Ok, Source, State, constant, failed
from meshgw.errors import NamerError
from meshgw.kinds import Namer
from meshgw.naming.path import Path
from meshgw.naming.tree import EMPTY, FAIL, NEG, Leaf, NameTree

Resolve = Callable[[str, int], Live[Addr]]
Rewrite = Callable[[Path], NameTree[Path]]
Answer = NameTree[Path | Bound]

LOOPBACK: Final = "127.0.0.1"
RINET: Final = b"io.buoyant.rinet"
_PORT: Final = re.compile(rb"[0-9]{1,9}")  # more digits do not fit the integer that Linkerd reads
_IPV4_LIKE: Final = re.compile(r"[0-9a-fA-FxX]+(?:\.[0-9a-fA-FxX]+){0,3}")
# Callers may name hosts to freeze (l5d-dtab); beyond this many, the ones unused the longest are resolved again when next met.
MAX_FIXED: Final = 1000


class BuiltinNamer:
    """Answers names under ``/$``, given without it. ``resolve`` is the shared resolver: host and port to live addresses."""

    def __init__(self, resolve: Resolve, rewrites: Mapping[bytes, Rewrite], namers: Mapping[bytes, Namer] = MappingProxyType({})) -> None:
        """``rewrites``: name of a utility to its function, which gets the path behind the name; ``namers`` get it too."""
        self._resolve, self._rewrites, self._namers = resolve, rewrites, namers
        self._fixed: OrderedDict[tuple[str, int], Live[Addr]] = OrderedDict()

    def lookup(self, path: Path) -> Live[Answer]:
        """A bound leaf, a constant, or the path to look up next; failed for a name that does not exist."""
        if not path:
            return constant(NEG)
        name, rest = path[0], path.drop(1)
        if name == b"inet":
            return self._inet(path, rest, self._addresses)
        if name == b"fixedinet":
            return self._inet(path, rest, self._fixed_addresses)
        if name == RINET:
            return self._rinet(rest)
        if name == b"nil":
            return constant(EMPTY)
        if name == b"fail":
            return constant(FAIL)
        namer = self._namers.get(name)
        if namer is not None:
            return namer.lookup(rest)
        rewrite = self._rewrites.get(name)
        if rewrite is None:
            return _unknown(path)
        answer: Answer = rewrite(rest)
        return constant(answer)

    def _inet(self, path: Path, rest: Path, addresses: Resolve) -> Live[Answer]:
        if len(rest) > 1 and _PORT.fullmatch(rest[1]):  # tried first: ``/$/inet/8080/9090`` is the host 8080
            return _bound(rest[0], rest[1], path.take(3), rest.drop(2), addresses)
        if rest and _PORT.fullmatch(rest[0]):
            return _bound(LOOPBACK.encode("ascii"), rest[0], path.take(2), rest.drop(1), addresses)
        return _unknown(path)

    def _rinet(self, rest: Path) -> Live[Answer]:
        if len(rest) < 2 or not _PORT.fullmatch(rest[0]):
            return constant(NEG)
        return _bound(rest[1], rest[0], Path((RINET,)) + rest.take(2), rest.drop(2), self._addresses)

    def _addresses(self, host: str, port: int) -> Live[Addr]:
        literal = numeric_host(host)
        if literal is None:
            return self._resolve(host, port)
        addr: Addr = Replicas((Address(literal, port),))
        return constant(addr)

    def _fixed_addresses(self, host: str, port: int) -> Live[Addr]:
        known = self._fixed.get((host, port))
        if known is None:
            known = self._fixed[host, port] = frozen(self._addresses(host, port))
            if len(self._fixed) > MAX_FIXED:
                self._fixed.popitem(last=False)
        self._fixed.move_to_end((host, port))
        return known


def _bound(host: bytes, port: bytes, id: Path, residual: Path, addresses: Resolve) -> Live[Answer]:
    number = int(port)
    full = Path.of("$") + id
    if number > 65535:
        return failed(NamerError(detail=f"{full.show()}: {number} is not a port, which is at most 65535"))
    try:
        text = host.decode("utf-8")
    except UnicodeDecodeError:
        return constant(NEG)  # no host has such a name
    answer: Answer = Leaf(Bound(full, addresses(text, number), residual))
    return constant(answer)


def _unknown(path: Path) -> Live[Answer]:
    name = Path((path[0],)).show()[1:]
    return failed(NamerError(detail=f"Unknown namer: {name} for path: {(Path.of('$') + path).show()}"))


def numeric_host(host: str) -> str | None:
    """The canonical text of a literal address, or ``None`` for a host name.

    IPv4 is read as ``inet_aton`` does (``127.1``), IPv6 with or without brackets.
    """
    if ":" in host:
        inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            return str(IPv6Address(inner))
        except ValueError:
            return None
    if not _IPV4_LIKE.fullmatch(host):
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def frozen(live: Live[Addr]) -> Live[Addr]:
    """``live`` until it has given addresses once, and those for ever after."""

    def start(out: Source[Addr]) -> Callable[[], None]:
        if _is_settled(out.state):
            return _nothing_to_stop
        held: list[Observation] = []

        def notify(state: State[Addr]) -> None:
            if _is_settled(out.state):
                return
            out.put(state)
            if _is_settled(state):
                for observation in held:
                    observation.close()

        observation = live.observe(notify)
        if _is_settled(out.state):
            observation.close()
        held.append(observation)
        return observation.close

    return Source(start)


def _is_settled(state: State[Addr]) -> bool:
    # "No such host" is not kept: it may only mean that the name server did not know it yet.
    return isinstance(state, Ok) and isinstance(state.value, Replicas) and bool(state.value.addresses)


def _nothing_to_stop() -> None:
    """Nothing runs any more once the addresses are fixed."""
