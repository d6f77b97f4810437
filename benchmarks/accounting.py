"""What a running proxy costs, read from /proc: CPU time and memory of a process and all its descendants (Linux)."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import attrs

PROC = Path("/proc")


def tree(pid: int) -> list[int]:
    """``pid`` and its descendants; nginx and twistd's workers are children of the process that was started."""
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        found.append(one)
        for task in _tasks(one):
            try:
                queue += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue  # the thread ended meanwhile
    return found


def cpu_ns(pid: int) -> int:
    """Nanoseconds of CPU, user and system, used by the process tree so far."""
    return sum(_by_thread(pid).values())


def _by_thread(pid: int) -> Counter[tuple[int, str]]:
    """Nanoseconds of CPU by process and thread.

    ``schedstat`` counts in nanoseconds per thread. Kernels without it give ``utime + stime``, whose tick is 10 ms: still good
    enough for runs of seconds.
    """
    found: Counter[tuple[int, str]] = Counter()
    for one in tree(pid):
        for task in _tasks(one):
            try:
                used = int((task / "schedstat").read_text().split()[0]) or _ticks_ns(task)
            except OSError:
                used = _ticks_ns(task)
            found[one, task.name] = used
    return found


@attrs.frozen
class Spent:
    """What a run cost: all CPU of the process tree, that of its busiest worker, and how busy the watched CPU was, 0 to 1."""

    total_ns: int
    busiest_ns: int
    core_busy: float


class Usage:
    """Watches a process tree (None: none) and one CPU, from now on."""

    def __init__(self, pid: int | None, core: int) -> None:
        self._pid, self._core = pid, core
        self._before = _by_thread(pid) if pid is not None else Counter()
        self._idle, self._total = _idle_and_total(core)

    def spent(self) -> Spent:
        """What was used since. A worker is a process where several worked, as Python's and nginx's are, else a thread."""
        idle, total = _idle_and_total(self._core)
        busy = 1 - (idle - self._idle) / max(1, total - self._total)
        if self._pid is None:
            return Spent(0, 0, busy)
        threads = _by_thread(self._pid)
        threads.subtract(self._before)
        processes: Counter[int] = Counter()
        for (process, _), used in threads.items():
            processes[process] += used
        whole = sum(threads.values())
        working = [used for used in processes.values() if used > whole / 100]  # a master that only watches is none of them
        return Spent(whole, max(working) if len(working) > 1 else max(threads.values(), default=0), busy)


def rss_kb(pid: int) -> int:
    """Resident memory of the process tree in kB. Pages shared between its processes count once per process."""
    total = 0
    for one in tree(pid):
        try:
            status = (PROC / str(one) / "status").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return total


def stolen_and_total(core: int) -> tuple[int, int]:
    """Ticks in which the hypervisor ran somebody else instead of CPU ``core``, and all ticks of that CPU, since boot."""
    fields = _ticks_of(core)
    return fields[7], sum(fields)


def _idle_and_total(core: int) -> tuple[int, int]:
    fields = _ticks_of(core)
    return fields[3] + fields[4], sum(fields)


def _ticks_of(core: int) -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal."""
    for line in (PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            return [int(field) for field in fields[:8]]
    return [0] * 8


def _tasks(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return []


def _ticks_ns(task: Path) -> int:
    try:
        fields = (task / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
