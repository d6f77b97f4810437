"""What a running proxy costs, read from /proc: CPU time and memory of a process and all its descendants (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

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
    """Nanoseconds of CPU, user and system, used by the process tree so far.

    ``schedstat`` counts in nanoseconds per thread. Kernels without it give ``utime + stime``, whose tick is 10 ms: still good
    enough for runs of seconds.
    """
    total = 0
    for one in tree(pid):
        for task in _tasks(one):
            try:
                total += int((task / "schedstat").read_text().split()[0]) or _ticks_ns(task)
            except OSError:
                total += _ticks_ns(task)
    return total


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
    for line in (PROC / "stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            return int(fields[7]), sum(int(field) for field in fields[:8])
    return 0, 0


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
