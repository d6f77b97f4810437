"""The load generators: one run against one port, with what the server process spent meanwhile.

wrk sends as fast as it is answered (closed loop). ``steady.py`` sends at a fixed rate whatever happens (open loop).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

from accounting import Usage
from support.processes import ProcessFailed

HERE = Path(__file__).parent
SETTLE_SECONDS = 1  # beyond the length of a run: how much longer than planned a generator may take is 10 s and this


@attrs.frozen(kw_only=True)
class Run:
    """The result of one run. Times are in microseconds; CPU time is per request and NaN when no process was watched.

    ``busiest_us`` is the part of ``cpu_us`` that the busiest worker had. ``generator`` is how busy the generator's CPU was, 0 to 1.
    """

    requests: int
    per_second: float
    p50: int
    p99: int
    p999: int
    cpu_us: float
    busiest_us: float
    generator: float
    failures: int
    late_us: int = 0
    """By how much the generator sent late, 99th percentile; only at a fixed rate."""


@attrs.frozen(kw_only=True)
class Load:
    """The settings shared by all runs of a scenario: request heads, seconds, and the generator's core."""

    headers: int
    seconds: float
    core: int
    is_keep_alive: bool = True

    def run(self, port: int, connections: int, *, pid: int | None = None, seconds: float | None = None, hosts: int = 0) -> Run:
        """wrk on ``port`` for a while, asking for `web`, or for so many ``hosts`` in turn. Raises :class:`ProcessFailed` when wrk does."""
        duration = max(1, round(seconds or self.seconds))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{duration}s", "--timeout", "10s", "-s", str(HERE / "wrk.lua")]
        command += [f"http://127.0.0.1:{port}/index.html", "--", str(self.headers), "keep-alive" if self.is_keep_alive else "close"]
        return self._watched([*command, str(hosts)], duration, pid)

    def steady(self, port: int, rate: float, body: int, *, pid: int | None = None, seconds: float | None = None, hosts: int = 0) -> Run:
        """``rate`` requests per second on ``port``, answered with ``body`` bytes; ``hosts`` as above. Raises :class:`ProcessFailed`."""
        duration = seconds or self.seconds
        command = [sys.executable, str(HERE / "steady.py"), str(port), f"{rate:.1f}", f"{duration:g}", str(body), str(self.headers)]
        return self._watched([*command, str(hosts)], duration, pid)

    def _watched(self, command: Sequence[str], seconds: float, pid: int | None) -> Run:
        usage = Usage(pid, self.core)
        pinned = ["taskset", "-c", str(self.core), *command]
        try:
            ran = subprocess.run(pinned, capture_output=True, text=True, check=False, timeout=seconds + 10 + SETTLE_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProcessFailed(f"the load generator failed: {error}") from error
        spent = usage.spent()
        found = re.search(r"^RESULT (.*)$", ran.stdout, re.MULTILINE)
        if ran.returncode or not found:
            failed = f"{command[0]} failed with status {ran.returncode}"
            raise ProcessFailed(f"{failed}\n  command: {' '.join(pinned)}\n{ran.stdout}{ran.stderr}")
        values = {name: int(value) for name, _, value in (pair.partition("=") for pair in found.group(1).split())}
        requests = values["requests"]
        each = 1 / 1000 / requests if requests and pid is not None else float("nan")
        return Run(
            requests=requests,
            per_second=requests * 1e6 / max(1, values["duration_us"]),
            p50=values["p50_us"],
            p99=values["p99_us"],
            p999=values["p999_us"],
            cpu_us=spent.total_ns * each,
            busiest_us=spent.busiest_ns * each,
            generator=spent.core_busy,
            failures=values["bad_status"] + values["socket_errors"],
            late_us=values.get("late_us", 0),
        )
