"""The names of the metric tree of linkerd-config spec 9.9, by scope, each with what it is: c counter, g gauge, h histogram.

A name that is lost, or becomes another kind of metric, breaks somebody's dashboard. Left out are ``dispatcher/serial/queue_size``, which
has no counterpart here (a connection never has a queue of its own), and the names of what did not happen, such as exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

KINDS = {"c": "counter", "g": "gauge", "h": "stat.count"}


def _names(text: str) -> dict[str, str]:
    """Words, each the name of a metric and its kind, with a colon between them."""
    return dict(word.split(":") for word in text.split())


CONNECTIONS = _names(
    "connections:g connects:c closes:c connection_duration:h connection_requests:h connection_received_bytes:h connection_sent_bytes:h "
    "received_bytes:c sent_bytes:c socket_writable_ms:c socket_unwritable_ms:c"
)
REQUESTS = _names("requests:c success:c failures:c request_latency_ms:h pending:g")
RETRIES = _names("retries/total:c retries/per_request:h retries/budget:g retries/budget_exhausted:c")
SERVER = {
    **REQUESTS,
    **CONNECTIONS,
    **_names(
        "load:g read_timeout:c write_timeout:c idle:c lifetime:c handletime_us:h transit_latency_ms:h dtab/size:h "
        "request_payload_bytes:h response_payload_bytes:h status/200:c status/2XX:c time/2XX:h "
        "status/1XX:c status/3XX:c status/4XX:c status/5XX:c status/error:c"
    ),
}
LIMITED = _names("request_concurrency:g request_queue_size:g")
SERVICE = {**REQUESTS, **RETRIES}
THROUGH = REQUESTS
CLIENT = {
    **REQUESTS,
    **CONNECTIONS,
    **_names(
        "available:g cancelled_connects:c connect_latency_ms:h failed_connect_latency_ms:h dtab/size:h "
        "pool_size:g pool_cached:g pool_waiters:g pool_num_waited:c pool_num_too_many_waiters:c "
        "retries/requeues:c retries/requeues_per_request:h retries/budget:g retries/budget_exhausted:c retries/request_limit:c "
        "retries/cannot_retry:c retries/not_open:c "
        "loadbalancer/size:g loadbalancer/available:g loadbalancer/busy:g loadbalancer/closed:g loadbalancer/load:g "
        "loadbalancer/meanweight:g loadbalancer/p2c:g loadbalancer/adds:c loadbalancer/removes:c loadbalancer/updates:c "
        "loadbalancer/rebuilds:c loadbalancer/max_effort_exhausted:c "
        "failure_accrual/removals:c failure_accrual/revivals:c failure_accrual/probes:c failure_accrual/removed_for_ms:c "
        "service_creation/service_acquisition_latency_ms:h service_creation/failures:c status/200:c status/2XX:c time/2XX:h "
        "status/1XX:c status/3XX:c status/4XX:c status/5XX:c status/error:c"
    ),
}
FAIL_FAST = _names(
    "failfast/marked_dead:c failfast/marked_available:c failfast/unhealthy_for_ms:g failfast/unhealthy_num_tries:g "
    "service_creation/failures/ConnectFailed:c"
)
STREAMS = _names(
    "request/stream/stream_success:c request/stream/stream_failures:c request/stream/data_bytes:h request/stream/stream_duration_ms:h "
    "response/stream/stream_success:c response/stream/stream_failures:c response/stream/data_bytes:h response/stream/stream_duration_ms:h "
    "stream/stream_success:c stream/stream_failures:c stream/data_bytes:h stream/total_latency_ms:h"
)
FRAMES = _names(
    "open_streams:g stream/local/data/frames:c stream/local/data/bytes:h stream/local/trailers:c stream/local/reset:c "
    "stream/remote/data/frames:c stream/remote/data/bytes:h stream/remote/trailers:c stream/remote/reset:c"
)
H2_RETRIES = _names(
    "retries/backoffs_exhausted:c retries/request_stream_too_long:c retries/response_stream_too_long:c retries/classification_timeout:c"
)
CACHE = _names("misses:c evicts:c oneshots:c expires:c idle:g")
BINDCACHE = {f"{cache}/{name}": kind for cache in ("path", "tree", "bound", "client") for name, kind in CACHE.items()}
PROCESS = _names(
    "uptime:g start_time:g num_cpus:g thread/count:g heap/used:g heap/max:g heap/committed:g mem/current/used:g gc/cycles:g gc/msec:g "
    "fd_count:g fd_limit:g"
)
OWN = _names("dropped:c broken_gauges:c nodes:g limit:g")


def scope(tree: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The node of ``metrics.json?tree=1`` at ``names``; an empty one where there is none."""
    node = tree
    for name in names:
        node = node.get(name, {})
    return node


def missing(found: Mapping[str, Any], wanted: Mapping[str, str]) -> list[str]:
    """Those of the ``wanted`` names that are not below ``found``, or are something else there."""
    return sorted(name for name, kind in wanted.items() if KINDS[kind] not in scope(found, *name.split("/")))


def figure(tree: Mapping[str, Any], path: Iterable[str], name: str) -> float:
    """A counter or gauge below ``path``; 0 while it does not exist."""
    node = scope(tree, *path, *name.split("/"))
    return float(node.get("counter", node.get("gauge", 0)))
