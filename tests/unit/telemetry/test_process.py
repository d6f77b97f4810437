from __future__ import annotations

from meshgw.telemetry.metrics import Metrics
from meshgw.telemetry.process import add_process_metrics


def test_process_metrics_have_the_names_of_the_dashboards() -> None:
    metrics, now = Metrics(), [100.0]
    add_process_metrics(metrics, lambda: now[0])
    now[0] = 103.0
    gauges = metrics.snapshot().gauges
    assert gauges["jvm", "uptime"] == 3000 and gauges["jvm", "start_time"] == 100_000
    assert gauges["jvm", "mem", "current", "used"] > 1 << 20
    assert gauges["jvm", "num_cpus"] >= 1 and gauges["jvm", "thread", "count"] >= 1 and gauges["jvm", "fd_count"] >= 3
    assert ("jvm", "gc", "cycles") in gauges
