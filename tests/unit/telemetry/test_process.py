from __future__ import annotations

import gc
from pathlib import Path

import pytest

from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.process import add_process_metrics, memory_limit


def test_process_metrics_have_the_names_of_the_dashboards() -> None:
    metrics, now = Metrics(), [100.0]
    end = add_process_metrics(metrics, lambda: now[0], 100.0)
    now[0] = 103.0
    gauges = metrics.snapshot().gauges
    assert gauges["jvm", "uptime"] == 3000 and gauges["jvm", "start_time"] == 100_000
    assert gauges["jvm", "mem", "current", "used"] > 1 << 20
    assert gauges["jvm", "num_cpus"] >= 1 and gauges["jvm", "thread", "count"] >= 1 and gauges["jvm", "fd_count"] >= 3
    assert gauges["jvm", "mem", "current", "used"] >= gauges["jvm", "heap", "used"] > 1 << 20
    assert gauges["jvm", "heap", "committed"] > gauges["jvm", "heap", "used"] / 2
    assert gauges["jvm", "heap", "max"] > gauges["jvm", "heap", "used"]
    assert gauges["jvm", "fd_limit"] > gauges["jvm", "fd_count"]
    assert ("jvm", "gc", "cycles") in gauges
    end()


def test_collections_are_timed_until_the_end() -> None:
    before, metrics = list(gc.callbacks), Metrics()
    end = add_process_metrics(metrics, lambda: 0.0, None)
    gc.collect()
    took = metrics.snapshot().gauges["jvm", "gc", "msec"]
    end()
    end()
    gc.collect()
    assert metrics.snapshot().gauges["jvm", "gc", "msec"] == took > 0
    assert gc.callbacks == before


def test_a_process_that_has_a_master_does_not_tell_its_age() -> None:
    metrics = Metrics()
    add_process_metrics(metrics, lambda: 0.0, None)()
    gauges = metrics.snapshot().gauges
    assert ("jvm", "uptime") not in gauges and ("jvm", "start_time") not in gauges


@pytest.mark.parametrize(("told", "limit"), [("104857600\n", 104_857_600), ("max\n", None), ("9223372036854771712\n", None)])
def test_the_most_memory_is_the_containers_where_that_is_less_than_the_machines(tmp_path: Path, told: str, limit: int | None) -> None:
    (tmp_path / "memory.max").write_text(told)
    machine = memory_limit([])
    assert machine > 1 << 27
    assert memory_limit([str(tmp_path / "memory.max"), str(tmp_path / "not-there")]) == (limit or machine)
