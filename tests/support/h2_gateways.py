"""Gateways with a router of protocol ``h2`` for integration tests, and what their metrics tell of requests that did not end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from support.gateways import SECONDS, Gateway, Json, gateway
from support.processes import Running, wait_until

_UNDER_WAY = re.compile(r"rt/h2/.*/(pending|open_streams|pool_waiters|request_concurrency)\Z")


def h2_gateway(
    running: Running, names: Mapping[str, Sequence[int] | int], *, router: Json | None = None, name: str = "meshgw", **words: Any
) -> Gateway:
    """A gateway whose router speaks HTTP/2 on both sides."""
    return gateway(running, names, router={"protocol": "h2", **(router or {})}, name=name, **words)


def under_way(gw: Gateway) -> Json:
    """The gauges that are 0 when nothing is under way, and are not."""
    return {name: value for name, value in gw.metrics().items() if _UNDER_WAY.match(name) and value}


def assert_at_rest(*gateways: Gateway) -> None:
    """No stream is open and no request pending, after a moment."""
    for gw in gateways:
        assert gw.process.is_running
        assert wait_until(lambda gw=gw: not under_way(gw), SECONDS), under_way(gw)  # type: ignore[misc]  # mypy: defaults of lambdas
