"""What one process finds wrong with itself and its routers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from meshgw.admin.errors import Relayed
from meshgw.app.diagnosis import Diagnosis, expiring
from meshgw.bind.route import Phase
from meshgw.core.slices import Slices
from meshgw.errors import NamerError
from meshgw.naming.path import Path
from meshgw.telemetry.stalls import PERIOD, Stalls

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def router(**changes: Any) -> Any:
    """A router that is well, but for the given attributes."""
    known: dict[str, Any] = {
        "is_listening": True,
        "interpreter": object(),
        "identifiers": [],
        "certificates": dict,
        "clients": [],
        "routes": [],
    }
    one = SimpleNamespace(**{**known, **changes})
    one.caches = SimpleNamespace(clients=lambda: one.clients, routes=dict(enumerate(one.routes)))
    return one


def client(*holds: Sequence[str], **changes: Any) -> Any:
    nodes = [SimpleNamespace(is_available=not causes, holds=list(causes)) for causes in holds]
    known: dict[str, Any] = {"label": "/#/web", "error": None, "stale": None, "is_pending": False, "waiting_for": ""}
    return SimpleNamespace(**{**known, "nodes": SimpleNamespace(all=lambda: nodes), **changes})


def route(phase: Phase, **changes: Any) -> Any:
    return SimpleNamespace(**{"phase": phase, "name": Path.read("/svc/a"), "waiting_for": "", "error": None, **changes})


def answer(word: str, *routers: Any, stall: float = 0.0) -> Any:
    clock = Clock()
    stalls = Stalls(clock)
    stalls.start()
    clock.advance(PERIOD + stall)
    gateway: Any = SimpleNamespace(routers={f"r{number}": one for number, one in enumerate(routers)})
    found: list[Any] = []
    diagnosis = Diagnosis(clock, gateway, stalls, Slices(clock))
    Deferred.fromCoroutine(diagnosis.answer(word)).addBoth(found.append)
    return found[0]


def test_a_router_that_listens_and_knows_what_it_needs_has_nothing_pending() -> None:
    assert answer("ready", router()) == {"pending": [], "waiting": []}


def test_what_keeps_a_router_from_serving_anything_is_pending() -> None:
    waits = SimpleNamespace(awaits="the dtab file x")
    found = answer("ready", router(is_listening=False), router(interpreter=waits), router(identifiers=[object(), waits]))
    assert found["pending"] == [
        "router r0: it does not listen",
        "router r1: its interpreter waits for the dtab file x",
        "router r2: its identifier waits for the dtab file x",
    ]


def test_names_that_some_requests_wait_for_are_told_apart() -> None:
    routes = [route(Phase.PENDING, waiting_for="consul"), route(Phase.FAILED, error=NamerError(detail="403")), route(Phase.READY)]
    clients = [client(is_pending=True), client(error=NamerError(detail="500")), client()]
    found = answer("ready", router(routes=routes, clients=clients))
    assert found["pending"] == [] and found["waiting"] == [
        "router r0: /svc/a is not bound yet: waiting for consul",
        f"router r0: /svc/a cannot be bound: {NamerError(detail='403')}",
        "router r0: the addresses of /#/web are not known yet",
        f"router r0: the addresses of /#/web are not known: {NamerError(detail='500')}",
    ]


@pytest.mark.parametrize(
    ("one", "rule", "told"),
    [
        (client(["accrual"], ["accrual", "pool"]), "no-endpoint", "accrual, pool"),
        (client(stale=OSError("refused")), "stale-discovery", "may be outdated: refused"),
        (client(error=NamerError(detail="403")), "stale-discovery", "are not known: "),
    ],
)
def test_what_is_wrong_with_a_client_is_found(one: Any, rule: str, told: str) -> None:
    ((found, text),) = answer("problems", router(clients=[one]))
    assert found == rule and told in text


def test_a_client_with_one_good_endpoint_or_none_at_all_is_no_problem() -> None:
    assert answer("problems", router(clients=[client(["accrual"], []), client()])) == []


def test_a_stall_that_callers_notice_is_a_problem() -> None:
    ((rule, text),) = answer("problems", stall=0.3)
    assert rule == "stalls" and "300 ms" in text
    assert answer("problems", stall=0.1) == []


@pytest.mark.parametrize(("days", "told"), [(-1, "ended on 2025-12-31"), (3.5, "ends in 3.5 days, on 2026-01-04")])
def test_a_certificate_that_ends_is_told_of_in_time(days: float, told: str) -> None:
    (text,) = expiring({"a.crt": NOW + timedelta(days=days)}, NOW)
    assert text == f"the certificate a.crt {told}"


def test_a_certificate_that_is_valid_for_weeks_is_no_problem() -> None:
    assert list(expiring({"a.crt": NOW + timedelta(days=15)}, NOW)) == []


def test_a_question_that_is_not_known_is_refused() -> None:
    assert answer("secrets").check(Relayed)
