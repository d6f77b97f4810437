"""A real ZooKeeper server of one machine, the calls that tests make to it, and a connection to it that can be made to stall.

The program comes from ``.ci/packages zookeeper`` (Java); :func:`missing` says so where it is not.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.processes import LOOPBACK, Process, Running, free_port, wait_until
from support.servers import tool, written

JAR = Path("/usr/share/java/zookeeper.jar")
START_SECONDS = 60.0  # three on an idle machine
TICK_MS = 200
"""ZooKeeper's unit of time; sessions last two of them at least."""


def missing() -> str:
    """Why tests against a real ZooKeeper cannot run here; empty if they can."""
    if JAR.exists():
        return ""
    return "zookeeper is not installed: NOT testing against a real ZooKeeper (as root: .ci/packages zookeeper)"


class ZkServer:
    """One server; it may be stopped and started again on the same port, with its data or without."""

    def __init__(self, running: Running) -> None:
        self._running, self.port, self._lives = running, free_port(), 0
        self.data = running.directory / "zookeeper"
        self.process: Process | None = None
        self.start()

    def start(self, *, fresh: bool = False) -> None:
        """Start and wait until it serves; ``fresh`` has it lose its data before."""
        self._lives += fresh
        directory = self.data / str(self._lives)
        config = written(
            self.data,
            f"{self._lives}.cfg",
            f"tickTime={TICK_MS}\ndataDir={directory}\nclientPort={self.port}\nclientPortAddress={LOOPBACK}\n"
            "admin.enableServer=false\nmaxSessionTimeout=60000\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n",
        )
        argv = [tool("java"), "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", str(JAR)]
        argv += ["org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config)]
        self.process = Process(f"zookeeper-{self.port}", argv, self._running.directory)
        self._running.add(self.process, seconds=START_SECONDS, is_ready=lambda: "Mode: standalone" in self.word("srvr"))

    def stop(self) -> None:
        """Stop it; what it wrote stays."""
        assert self.process is not None
        self.process.stop()

    def word(self, word: str) -> str:
        """The answer to one of ZooKeeper's words of four letters; empty if there is none."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=5.0) as sock:
                sock.sendall(word.encode())
                return b"".join(iter(lambda: sock.recv(65536), b"")).decode(errors="replace")
        except OSError:
            return ""

    def figure(self, name: str) -> int:
        """A figure of ``mntr``."""
        lines = dict(line.split("\t", 1) for line in self.word("mntr").splitlines() if "\t" in line)
        return int(lines[name])

    @contextlib.contextmanager
    def client(self, **options: Any) -> Iterator[Any]:
        """A client of the library kazoo, connected."""
        from kazoo.client import KazooClient

        client = KazooClient(hosts=f"{LOOPBACK}:{self.port}", timeout=10.0, **options)
        client.start(timeout=20)
        try:
            yield client
        finally:
            client.stop()
            client.close()


class StallingProxy:
    """Passes connections on to a port of loopback, in both directions, until it is told to stall or to be slow."""

    def __init__(self, target: int) -> None:
        self._target, self.delay = target, 0.0
        """``delay``: seconds by which each piece is late."""
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self) -> None:
        """Pass nothing on; connections stay open, and new ones are taken."""
        self._flows.clear()

    def go_on(self) -> None:
        """Pass on again, what was kept first."""
        self._flows.set()

    def close(self) -> None:
        """End all connections."""
        self._flows.set()
        for sock in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((LOOPBACK, self._target), timeout=5.0)
            except OSError:
                caller.close()
                continue
            server.settimeout(None)
            self._sockets += [caller, server]
            for source, sink in ((caller, server), (server, caller)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                time.sleep(self.delay)
                self._flows.wait()
                sink.sendall(piece)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def becomes(check: Any, seconds: float = 20.0) -> None:
    """Wait until ``check()`` is true."""
    assert wait_until(check, seconds), "it did not become true"
