from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from meshgw.app.traffic import Traffic
from meshgw.telemetry.metrics import Metrics


def connection(received: int, sent: int, blocked: float = 0.0) -> Any:
    class Connection(SimpleNamespace):
        __hash__ = object.__hash__

    return Connection(received=received, sent=sent, blocked=blocked)


def test_bytes_of_open_and_closed_connections_add_up() -> None:
    metrics, now = Metrics(), [100.0]
    traffic = Traffic(metrics, lambda: now[0])
    one, other = connection(10, 20, blocked=0.5), connection(1, 2, blocked=0.25)
    for each in (one, other):
        traffic.opened(each)
    now[0] = 102.5
    traffic.closed(one, 3)
    traffic.closed(one, 3)  # told twice, counted once
    other.received = 5
    metrics.rotate()
    found = metrics.snapshot()
    assert {name[0]: found.counters[name] for name in found.counters if name[0] != "metrics"} == {
        "connects": 2,
        "closes": 1,
        "received_bytes": 15,
        "sent_bytes": 22,
        "socket_unwritable_ms": 750,
        "socket_writable_ms": 2 * 2500 - 750,
    }
    assert found.gauges["connections",] == 1
    assert found.histograms["connection_duration",].total == 2500
    assert found.histograms["connection_requests",].total == 3
