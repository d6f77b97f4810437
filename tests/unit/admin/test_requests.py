"""``/requests.json``: which rows it gives for which parameters."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from fakes.admin import Browser, Gateway
from fakes.spans import traced
from meshgw.admin.api import Answer, Query
from meshgw.admin.requests import RequestsView
from meshgw.telemetry.recent_requests import request_row


@pytest.fixture
def browser() -> Browser:
    gateway = Gateway()
    rows = [request_row(spans) for spans in (traced(3, failed=True), traced(2, attempts=2), traced(1))]
    rows[1] |= {"router": "other", "logical_name": "/svc/Carts", "concrete_name": "/#/io.l5d.fs/carts", "status": 404, "path": "/cart"}
    gateway.requests = list(rows)
    return Browser(gateway)


def found(browser: Browser, query: str) -> list[str]:
    reply = browser.get(f"/requests.json{query}")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json;charset=UTF-8")
    return [row["trace_id"][-1] for row in reply.json]


def test_all_rows_come_newest_first(browser: Browser) -> None:
    assert found(browser, "") == ["b", "a", "9"]


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("?router=other", ["a"]),
        ("?router=othe", []),
        ("?service=/svc/users", ["b", "9"]),
        ("?client=/%23/io.l5d.fs/carts", ["a"]),
        ("?status=5xx", ["b"]),
        ("?status=404", ["a"]),
        ("?status=2XX", ["9"]),
        ("?failed=true", ["b"]),
        ("?failed=false", ["a", "9"]),
        ("?text=cart", ["a"]),
        ("?text=10.0.0.2:8001", ["b", "9"]),
        ("?limit=2", ["b", "a"]),
        ("?limit=0", []),
        ("?service=/svc/users&failed=false&limit=5", ["9"]),
        ("?router=&text=&status=&failed=&limit=", ["b", "a", "9"]),
    ],
)
def test_filters_leave_the_rows_that_pass_all_of_them(browser: Browser, query: str, rows: list[str]) -> None:
    assert found(browser, query) == rows


@pytest.mark.parametrize("query", ["?limit=-1", "?limit=x", "?limit=9999999999", "?status=6xx", "?status=50", "?failed=perhaps"])
def test_parameter_that_cannot_be_understood_is_answered_400_with_its_name(browser: Browser, query: str) -> None:
    reply = browser.get(f"/requests.json{query}")
    assert reply.status == 400
    assert reply.text.startswith(query[1:].partition("=")[0] + ": expected")


def test_rows_that_are_not_wanted_are_looked_at_in_slices_too(browser: Browser) -> None:
    gateway = browser.gateway
    gateway.requests = [*(gateway.requests or [])] * 500
    looks = 0

    class Counted(Clock):
        def seconds(self) -> float:
            nonlocal looks
            looks += 1
            return super().seconds()

    query = Query(method="GET", path="/requests.json", args={"text": ["is in no row"]})
    answered: list[Answer] = []
    Deferred.fromCoroutine(RequestsView(gateway, Counted())(query)).addCallback(answered.append)
    assert [answer.body for answer in answered] == [b"[]"]
    assert looks >= len(gateway.requests)  # whether the slice has ended is looked at after each row


def test_without_the_telemeter_the_answer_says_how_to_have_it() -> None:
    reply = Browser().get("/requests.json")
    assert reply.status == 404
    assert "kind: io.l5d.recentRequests" in reply.text
