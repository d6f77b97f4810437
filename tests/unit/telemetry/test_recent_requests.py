"""The ring of recent requests and the rows that are made of it."""

from __future__ import annotations

import attrs
import pytest

from fakes.spans import client_span, server_span, traced
from meshgw.telemetry.recent_requests import RecentRequests, newest_first, request_row


def test_row_has_the_columns_of_linkerd_and_what_the_request_was() -> None:
    assert request_row(traced()) == {
        "timestamp": "2023-11-14T22:13:21.250Z",
        "started": 1_700_000_001.25,
        "source": "198.51.100.7:50123",
        "server": "192.0.2.1:4140",
        "router": "web",
        "logical_name": "/svc/users",
        "concrete_name": "/#/io.l5d.fs/users",
        "destination": "10.0.0.2:8001",
        "method": "GET",
        "path": "/users/1?full=yes",
        "status": 200,
        "duration_ms": 25.0,
        "retries": 0,
        "trace_id": "0102030405060709",
        "failed": False,
        "error": "",
    }


def test_last_attempt_names_the_destination_and_all_count_as_retries() -> None:
    row = request_row(traced(attempts=3))
    assert (row["destination"], row["retries"], row["status"], row["failed"]) == ("10.0.0.2:8003", 2, 200, False)


def test_request_that_reached_no_endpoint_has_a_row_too() -> None:
    row = request_row((server_span(failed=True, tags={"http.rsp.status": "502", "error": "no hosts available"}),))
    assert (row["concrete_name"], row["destination"], row["status"], row["error"]) == ("", "", 502, "no hosts available")


def test_row_of_a_span_without_tags_and_addresses_has_empty_columns() -> None:
    row = request_row((attrs.evolve(server_span(), local=None, peer=None, tags={}),))
    assert (row["source"], row["server"], row["method"], row["path"], row["status"]) == ("", "", "", "", None)


def test_trace_ids_of_128_bits_are_shown_whole() -> None:
    assert request_row(traced(high=0xABC))["trace_id"] == "0000000000000abc0102030405060709"


def test_ipv6_addresses_are_told_from_their_ports() -> None:
    row = request_row((server_span(peer=("2001:db8::1", 5000)),))
    assert row["source"] == "[2001:db8::1]:5000"


def test_ring_keeps_the_newest() -> None:
    kept = RecentRequests(1.0, 3)
    for number in range(1, 6):
        kept.record(traced(number))
    assert [row["trace_id"][-1] for row in kept.rows()] == ["d", "c", "b"]


def test_it_only_looks_on() -> None:
    kept = RecentRequests(0.25, 10)
    assert kept.tracer is kept
    assert (kept.rate, kept.decides) == (0.25, False)


def test_nothing_recorded_is_no_row() -> None:
    kept = RecentRequests(1.0, 10)
    kept.record(())
    assert list(kept.rows()) == []


@pytest.mark.parametrize("most", [2, 10])
def test_rows_of_several_processes_are_joined_by_their_time(most: int) -> None:
    one, other = RecentRequests(1.0, 10), RecentRequests(1.0, 10)
    for number, kept in ((1, one), (2, other), (3, one)):
        kept.record(traced(number))
    rows = newest_first([*other.rows(), *one.rows()], most)
    assert [row["trace_id"][-1] for row in rows] == ["b", "a", "9"][:most]


def test_client_tag_of_the_server_counts_when_the_attempt_has_none() -> None:
    above = server_span(tags={"client": "/#/one"})
    bare = client_span(above, tags={"client": ""})
    assert request_row((above, bare))["concrete_name"] == "/#/one"


def test_attempts_without_a_span_count_too() -> None:
    above, *attempts = traced(attempts=3)
    many = attrs.evolve(above, tags={**above.tags, "meshgw.attempts.omitted": "40"})
    assert request_row((many, *attempts))["retries"] == 42
