"""Ports for servers that are started beside a test, given out so that nobody else takes them before the server listens.

A port that the kernel chooses is free only at that moment: any process may be given the same one, or use it for an outgoing connection.
Here each process claims a block of ports outside the range for outgoing connections, for as long as it lives, and gives out those in turn.
"""

from __future__ import annotations

import secrets
import socket
from contextlib import closing
from pathlib import Path

LOOPBACK = "127.0.0.1"
BLOCK = 300  # three whole runs of the tests side by side still find one each, and no test needs half as many ports
FIRST = 10_000  # below it are the ports that are written down somewhere
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class NoPort(Exception):
    """All ports of the block, or all blocks, are in use."""


def candidates(ephemeral: tuple[int, int]) -> range:
    """The ports to choose from: those below or above the ``ephemeral`` ones, whichever are more; all if that leaves hardly any."""
    low, high = ephemeral
    longest = max(range(FIRST, low), range(max(high + 1, FIRST), 65536), key=len)
    return longest if len(longest) >= 8 * BLOCK else range(FIRST, 65536)


def _ephemeral() -> tuple[int, int]:
    try:
        low, high = EPHEMERAL.read_text().split()
    except OSError:  # not Linux
        return 49152, 65535
    return int(low), int(high)


class PortBlock:
    """A block of ports of this process's own. Its first port is kept bound, which is how others see that the block is taken."""

    def __init__(self) -> None:
        self._ports = range(0)
        self._next = 0
        self._claim: socket.socket | None = None

    def take(self, host: str = LOOPBACK) -> int:
        """The next port of the block that nobody uses on ``host``; one given out before comes again only after all others."""
        if self._claim is None:
            self._claim_one()
        for _ in self._ports:
            port = self._ports[self._next]
            self._next = (self._next + 1) % len(self._ports)
            if _is_unused(port, host):
                return port
        raise NoPort(f"ports {self._ports[0]} to {self._ports[-1]} are all in use on {host}")

    def _claim_one(self) -> None:
        ports = candidates(_ephemeral())
        starts = range(ports.start, ports.stop - BLOCK, BLOCK)
        chosen = secrets.randbelow(len(starts))  # what the previous owner left behind has time to end
        for start in (*starts[chosen:], *starts[:chosen]):
            claim = socket.socket()
            try:
                claim.bind((LOOPBACK, start))
            except OSError:
                claim.close()
                continue
            self._claim, self._ports = claim, range(start + 1, start + BLOCK)
            return
        raise NoPort(f"every block of ports from {ports[0]} to {ports[-1]} is taken")


def _is_unused(port: int, host: str) -> bool:
    """Whether the port can be bound without sharing it, for TCP and for UDP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with closing(socket.socket(family, kind)) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
