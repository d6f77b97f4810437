"""A gateway of several processes for integration tests, its reload, and a load that counts what was lost."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from support import servers
from support.gateways import LOOPBACK, SECONDS, Answer, Gateway, Json
from support.processes import START_SECONDS, Process, Running, accepts, free_port, wait_until

TOKEN = "operator-token-of-tests"
SERVES = re.compile(r"worker (\S+) serves, pid (\d+)")


@attrs.define
class Fleet:
    """A gateway, its configuration file, and what is in it now."""

    gateway: Gateway
    file: Path
    settings: Json
    log: Path

    def logged(self) -> str:
        """The log so far, that of the workers included."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def write(self, **top: Any) -> None:
        """Put other settings into the file; nothing happens until it is read."""
        self.settings |= top
        self.file.write_text(json.dumps(self.settings))

    def started(self) -> list[tuple[str, int]]:
        """Name and pid of each worker that has come to serve, in the order of their starts."""
        return [(name, int(pid)) for name, pid in SERVES.findall(self.logged())]

    def wait_started(self, count: int, seconds: float = START_SECONDS) -> dict[str, int]:
        """The pid of the latest worker of each name, once ``count`` have started in all."""
        assert wait_until(lambda: len(self.started()) >= count, seconds), self.gateway.process.describe(f"{count} workers did not start")
        return dict(self.started())

    def children(self) -> list[int]:
        """The pids of all worker processes."""
        pid = self.gateway.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def reload(self) -> Answer:
        """``POST /admin/reload`` as the operator."""
        return self.gateway.admin("/admin/reload", b"", seconds=START_SECONDS, Authorization=f"Bearer {TOKEN}")

    def reload_by_signal(self, text: str = "the configuration is reloaded") -> None:
        """SIGHUP, and wait until the log says ``text`` once more."""
        before = self.logged().count(text)
        self.gateway.process.signal(signal.SIGHUP)
        told = wait_until(lambda: self.logged().count(text) > before, START_SECONDS)
        assert told, self.gateway.process.describe(f"{text!r} was not logged")

    def metric(self, name: str) -> float:
        """One metric; 0 while it does not exist."""
        return float(self.gateway.metrics().get(name, 0))


def fleet(
    running: Running,
    upstream: int,
    *,
    workers: int = 2,
    routers: Sequence[Json] = (),
    admin: Json | None = None,
    top: Json | None = None,
    twistd: Sequence[str] = (),
    name: str = "meshgw",
    log: Path | None = None,
) -> Fleet:
    """Start a gateway where every name leads to the port ``upstream``, and wait until all its workers serve.

    Each of ``routers`` is laid over a router with one server on a free port. ``twistd`` are options put before ``meshgw``; those that send
    the log elsewhere go with ``log``.
    """
    port, admin_port = free_port(), free_port()
    token = running.directory / "token"
    token.write_text(TOKEN)
    base = {"protocol": "http", "dtab": f"/svc => /$/inet/{LOOPBACK}/{upstream}/#; /svc/web => /$/inet/{LOOPBACK}/{upstream}"}
    settings: Json = {
        "admin": {"port": admin_port, "shutdownGraceMs": 10_000, "authentication": {"operatorTokenFile": str(token)}, **(admin or {})},
        "telemetry": [{"kind": "io.l5d.prometheus"}],
        "workers": workers,
        "routers": [
            {**base, "servers": [{"port": port if index == 0 else free_port()}], **router} for index, router in enumerate(routers or [{}])
        ],
        **(top or {}),
    }
    process = servers.meshgw(running.directory, json.dumps(settings), port=port, name=name)
    at = process.argv.index("meshgw")
    process.argv[at:at] = list(twistd)
    running.add(process, is_ready=lambda: accepts(admin_port) and accepts(port))
    made = Fleet(
        Gateway(process, port, admin_port, running.directory), running.directory / f"{name}.yml", settings, log or process.output_file
    )
    chosen = [router.get("processes", "shared") for router in settings["routers"]]
    groups = chosen.count("own") + ("shared" in chosen)
    if workers * groups > 1:
        made.wait_started(workers * groups)
    return made


@attrs.frozen
class Loss:
    """What wrk counted."""

    requests: int
    errors: int
    refused: int

    @classmethod
    def read(cls, text: str) -> Loss:
        """From wrk's report."""
        requests = re.search(r"(\d+) requests in", text)
        assert requests is not None, text
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
        refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
        return cls(int(requests[1]), sum(map(int, errors.groups())) if errors else 0, int(refused[1]) if refused else 0)


class Load:
    """wrk on a port until it is ended: ``connections`` keep-alive callers, each with a pause of ``pause_ms`` between its requests."""

    def __init__(self, running: Running, port: int, *, connections: int = 16, pause_ms: int = 3, name: str = "wrk") -> None:
        script = servers.written(running.directory, f"{name}.lua", f"function delay() return {pause_ms} end\n")
        argv = ["wrk", "-t1", f"-c{connections}", "-d600s", "--timeout", "60s", "-H", "Host: web", "-s", str(script)]
        self._process = running.add(Process(name, [*argv, f"http://{LOOPBACK}:{port}/"], running.directory))

    def end(self) -> Loss:
        """End it and give its report."""
        self._process.signal(signal.SIGINT)
        assert self._process.wait(SECONDS) is not None
        return Loss.read(self._process.output())


ESTABLISHED, LISTENING = "01", "0A"


def sockets_of(pid: int, port: int, state: str = ESTABLISHED) -> int:
    """How many sockets of a process are in ``state`` on the local ``port``; 0 once the process is gone."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    wanted = {f"socket:[{line[9]}]" for line in lines if int(line[1].rpartition(":")[2], 16) == port and line[3] == state}
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0
    return sum(link in wanted for link in filter(None, map(_target, descriptors)))


def _target(descriptor: Path) -> str | None:
    try:
        return str(descriptor.readlink())
    except OSError:  # closed meanwhile
        return None


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or dead and waiting for whoever inherited it to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
