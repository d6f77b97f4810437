"""Metrics of the process itself, under the names by which Linkerd's dashboards know those of the JVM.

Source: linkerd-config spec 9.9 (``jvm/…``). Only names with a true counterpart here are given; times are in milliseconds, as there.
Memory and descriptors are read from ``/proc`` when exported and are absent where that does not exist.
"""

from __future__ import annotations

import gc
import os
import resource
import threading
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Any

from meshgw.telemetry.metrics import Metrics

KB = 1024
HEAP, MAPPED = "RssAnon:", "VmData:"
"""Lines of ``/proc/self/status``: memory that belongs to no file and is resident, and what of it was asked for."""
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""What a container may use, as control groups of version 2 and 1 tell it from within; "max" or a huge number where there is no limit."""


def add_process_metrics(metrics: Metrics, clock: Callable[[], float], started: float | None) -> Callable[[], None]:
    """Add ``jvm/…`` below ``metrics`` (the root). ``clock`` gives seconds since the epoch, as which the process ``started``.

    That is None in a process that works for another, whose age is that of the whole. What is returned ends the timing of collections.
    """
    collections = Collections()
    jvm = metrics.scope("jvm")
    if started is not None:
        jvm.gauge("uptime", function=lambda: (clock() - started) * 1000, most=True)
        jvm.gauge("start_time", function=lambda: started * 1000, most=True)
    jvm.gauge("num_cpus", function=_usable_cpus, most=True)
    jvm.gauge("thread", "count", function=threading.active_count)
    jvm.gauge("thread", "daemon_count", function=lambda: sum(thread.daemon for thread in threading.enumerate()))
    jvm.gauge("gc", "cycles", function=lambda: sum(generation["collections"] for generation in gc.get_stats()))
    jvm.gauge("gc", "msec", function=lambda: collections.seconds * 1000)
    jvm.gauge("heap", "max", function=memory_limit, most=True)  # dashboards divide by it; all processes share it
    jvm.gauge("fd_limit", function=lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0], most=True)
    if os.path.isdir("/proc/self/fd"):
        page = os.sysconf("SC_PAGE_SIZE")
        jvm.gauge("mem", "current", "used", function=lambda: _resident_pages() * page)
        jvm.gauge("heap", "used", function=lambda: _status(HEAP))
        jvm.gauge("heap", "committed", function=lambda: _status(MAPPED))
        jvm.gauge("fd_count", function=lambda: len(os.listdir("/proc/self/fd")) - 1)  # listing it opens one
    collections.start()
    return collections.stop


class Collections:
    """How long collections of garbage took, all together. The interpreter calls it around each: some microseconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def start(self) -> None:
        """Be told."""
        gc.callbacks.append(self._told)

    def stop(self) -> None:
        """Be told no more."""
        if self._told in gc.callbacks:
            gc.callbacks.remove(self._told)

    def _told(self, phase: str, _facts: Mapping[str, Any]) -> None:
        if phase == "start":
            self._began = perf_counter()
        elif self._began:
            self.seconds += perf_counter() - self._began


def memory_limit(files: Iterable[str] = LIMITS) -> int:
    """Bytes that the process may use at most: the memory of the machine, or less if one of ``files`` says so."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in files:
        try:
            with open(file, encoding="ascii") as limit:
                limits.append(int(limit.read()))
        except (OSError, ValueError):  # not this version, or no limit
            continue
    return min(limits)


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # a container may be given fewer than there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _resident_pages() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1])


def _status(name: str) -> int:
    """Bytes of one line of the process's status."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) * KB
