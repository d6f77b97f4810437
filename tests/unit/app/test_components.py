"""Routers as services of a gateway."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.task import Clock

from meshgw.app.components import RouterService
from meshgw.app.gateway import Gateway
from meshgw.config.loader import load
from meshgw.kinds import Registry


def gateway(text: str) -> Any:
    loaded = load(text, "test.yml", Registry())
    assert loaded.config is not None, [problem.show() for problem in loaded.problems]
    return Gateway(loaded.config, Clock(), Random(1))


@pytest.mark.parametrize(("role", "name"), [("role: ingress", "ingress:edge"), ("originator: true", "router:edge")])
def test_a_router_is_a_service_called_by_its_role(role: str, name: str) -> None:
    built = gateway(f"routers:\n- {{protocol: http, label: edge, {role}, servers: [{{port: 0}}]}}\n")
    service = built.getServiceNamed(name)
    assert isinstance(service, RouterService)
    assert service.router is built.routers["edge"]


def test_telemeters_have_a_last_word_while_the_names_of_metrics_are_there() -> None:
    class Telemeter:
        async def conclude(self) -> None:
            told.append(dict(one.snapshot().counters))

    told: list[dict[tuple[str, ...], int]] = []
    one = gateway("routers: [{protocol: http, servers: [{port: 0}]}]")
    one.telemeters = [Telemeter()]
    one.metrics.counter("a").incr()
    one.stopService()
    assert [counters["a",] for counters in told] == [1]
