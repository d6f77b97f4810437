"""When a gateway of one or several processes is ready."""

from __future__ import annotations

from typing import Any

from meshgw.admin.readiness import DRAINING, STARTING, assess

WELL: dict[str, Any] = {"pending": [], "waiting": []}
MISSING: dict[str, Any] = {"pending": ["router web: its interpreter waits for a dtab"], "waiting": []}


def test_a_process_without_anything_pending_is_ready() -> None:
    assert assess({"main": WELL}, [["main"]], is_ending=False).is_ready


def test_what_is_pending_is_told_as_it_is_where_one_process_serves() -> None:
    assert assess({"main": MISSING}, [["main"]], is_ending=False).pending == ("router web: its interpreter waits for a dtab",)


def test_a_gateway_that_drains_is_not_ready_whatever_it_knows() -> None:
    assert assess({"main": WELL}, [["main"]], is_ending=True).pending == (DRAINING,)


def test_a_gateway_without_a_served_configuration_is_starting() -> None:
    assert assess({}, [], is_ending=False).pending == (STARTING,)


def test_one_ready_worker_of_a_group_is_enough_and_each_group_needs_one() -> None:
    answers = {"a-0": WELL, "a-1": {"error": "it does not serve"}, "b-0": MISSING}
    assert assess(answers, [["a-0", "a-1"]], is_ending=False).is_ready
    assert assess(answers, [["a-0", "a-1"], ["b-0"]], is_ending=False).pending == ("b-0: router web: its interpreter waits for a dtab",)


def test_a_worker_that_is_missing_among_the_answers_does_not_serve() -> None:
    assert assess({"a-0": {"error": "gone"}}, [["a-0", "a-1"]], is_ending=False).pending == ("gone", "it does not serve")


def test_names_that_requests_wait_for_are_told_and_do_not_count() -> None:
    answers = {"a-0": {"pending": [], "waiting": ["x"]}, "a-1": {"pending": [], "waiting": ["x", "y"]}}
    found = assess(answers, [["a-0", "a-1"]], is_ending=False)
    assert found.is_ready and found.waiting == ("x", "y")
