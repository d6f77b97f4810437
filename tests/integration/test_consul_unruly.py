"""A running gateway over a Consul that answers slowly, wrongly, or not to the end: requests go on, and errors tell why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.unruly_consul import FAILURES, UnrulyConsul
from support.gateways import LOOPBACK, SECONDS, Gateway, Nginx, gateway
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration

LONG_SECONDS = 60.0


@pytest.fixture
def consul(running: Running) -> Iterator[UnrulyConsul]:
    instance = Nginx(running, 'location / { return 200 "one"; }')
    with UnrulyConsul(instance.port) as server:
        yield server


def over(running: Running, consul: UnrulyConsul) -> Gateway:
    namer = {"kind": "io.l5d.consul", "host": LOOPBACK, "port": consul.port}
    return gateway(running, router={"dtab": "/svc => /#/io.l5d.consul/dc1"}, top={"namers": [namer]})


def states(gw: Gateway) -> dict[str, dict[str, Any]]:
    """Service → its entry in ``/namer_state``."""
    found = json.loads(gw.admin("/namer_state/io.l5d.consul.json").body)
    return {name.removeprefix("/dc1/"): entry for name, entry in found.items()}


def test_bad_answers_leave_known_services_as_they_are_and_are_got_over(running: Running, consul: UnrulyConsul) -> None:
    gw = over(running, consul)
    for name in FAILURES:
        assert gw.get(name).text == "one"
    consul.modes = {name: name for name in FAILURES}
    assert wait_until(lambda: all(states(gw)[name]["state"]["stale"] for name in FAILURES), SECONDS), states(gw)
    for name, reason in FAILURES.items():
        assert gw.get(name).text == "one"
        assert reason in states(gw)[name]["poll"]["error"]
    consul.modes = {}
    assert wait_until(lambda: not any(entry["state"]["stale"] for entry in states(gw).values()), LONG_SECONDS), states(gw)
    assert "Traceback" not in gw.process.output()


def test_bad_answers_for_unknown_services_are_told_to_callers_and_got_over(running: Running, consul: UnrulyConsul) -> None:
    consul.modes = {name: name for name in FAILURES}
    gw = over(running, consul)
    for name, reason in FAILURES.items():
        answer = gw.get(name)
        assert answer.status == 502
        assert f"Consul at {LOOPBACK}:{consul.port}: " in answer.text
        assert reason in answer.text
    consul.modes = {}
    for name in FAILURES:
        assert wait_until(lambda name=name: gw.get(name).text == "one", LONG_SECONDS), gw.get(name).text  # type: ignore[misc]


def test_slow_answer_holds_the_request_until_it_is_there(running: Running, consul: UnrulyConsul) -> None:
    consul.modes = {"web": "slow"}
    gw = over(running, consul)
    assert gw.get("web").text == "one"
    assert gw.get("web").text == "one"
    assert not states(gw)["web"]["state"]["stale"]
