"""The load generator: one run of wrk against one port, with what the server process spent meanwhile."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import attrs

from accounting import cpu_ns
from support.processes import ProcessFailed

SCRIPT = Path(__file__).with_name("wrk.lua")


@attrs.frozen(kw_only=True)
class Run:
    """The result of one run. Times are in microseconds; ``cpu_us`` is per request and zero when no process was watched."""

    requests: int
    per_second: float
    p50: int
    p99: int
    cpu_us: float
    failures: int


@attrs.frozen(kw_only=True)
class Load:
    """The settings shared by all runs: request head, seconds, and the generator's core (None: not pinned)."""

    headers: int
    seconds: float
    core: int | None

    def run(self, port: int, connections: int, *, pid: int | None = None, seconds: float | None = None) -> Run:
        """Load ``port`` for a while. Raises :class:`ProcessFailed` when wrk does."""
        duration = seconds or self.seconds
        pin: Sequence[str] = () if self.core is None else ("taskset", "-c", str(self.core))
        command = [*pin, "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(duration))}s", "--timeout", "10s"]
        command += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}/index.html", "--", str(self.headers)]
        before = cpu_ns(pid) if pid is not None else 0
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        spent = cpu_ns(pid) - before if pid is not None else 0
        found = re.search(r"^RESULT (.*)$", ran.stdout, re.MULTILINE)
        if ran.returncode or not found:
            raise ProcessFailed(f"wrk failed with status {ran.returncode}\n  command: {' '.join(command)}\n{ran.stdout}{ran.stderr}")
        values = {name: int(value) for name, _, value in (pair.partition("=") for pair in found.group(1).split())}
        requests = values["requests"]
        return Run(
            requests=requests,
            per_second=requests * 1e6 / values["duration_us"],
            p50=values["p50_us"],
            p99=values["p99_us"],
            cpu_us=spent / 1000 / requests if requests else float("nan"),
            failures=values["bad_status"] + values["socket_errors"],
        )
