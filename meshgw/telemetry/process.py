"""Metrics of the process itself, under the names by which Linkerd's dashboards know those of the JVM.

Source: linkerd-config spec 9.9 (``jvm/…``). Only names with a true counterpart here are given; times are in milliseconds, as there.
Memory and descriptors are read from ``/proc`` when exported and are absent where that does not exist.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable

from meshgw.telemetry.metrics import Metrics


def add_process_metrics(metrics: Metrics, clock: Callable[[], float]) -> None:
    """Add ``jvm/…`` below ``metrics`` (the root). ``clock`` gives seconds since the epoch; the process counts from this call."""
    started = clock()
    jvm = metrics.scope("jvm")
    jvm.gauge("uptime", function=lambda: (clock() - started) * 1000, most=True)
    jvm.gauge("start_time", function=lambda: started * 1000, most=True)
    jvm.gauge("num_cpus", function=_usable_cpus, most=True)
    jvm.gauge("thread", "count", function=threading.active_count)
    jvm.gauge("gc", "cycles", function=lambda: sum(generation["collections"] for generation in gc.get_stats()))
    if os.path.isdir("/proc/self/fd"):
        page = os.sysconf("SC_PAGE_SIZE")
        jvm.gauge("mem", "current", "used", function=lambda: _resident_pages() * page)
        jvm.gauge("fd_count", function=lambda: len(os.listdir("/proc/self/fd")) - 1)  # listing it opens one


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # a container may be given fewer than there are
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _resident_pages() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1])
