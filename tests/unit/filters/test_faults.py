"""What a request may ask for in ``l5d-fault``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.filters.faults import LONGEST_MS, read_fault


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (b"delay=200ms", (0.2, 0)),
        (b"abort=503", (0.0, 503)),
        (b"delay=200ms; abort=503", (0.2, 503)),
        (b"abort=404;delay=1ms", (0.001, 404)),
        (b"delay=9999999ms", (LONGEST_MS / 1000, 0)),
        (b"delay=10000000ms", (0.0, 0)),
        (b"delay=-5ms", (0.0, 0)),
        (b"delay=200", (0.0, 0)),
        (b"abort=599", (0.0, 599)),
        (b"abort=600", (0.0, 0)),
        (b"abort=5030", (0.0, 0)),
        (b"explode=1; abort=500", (0.0, 500)),
        (b"", (0.0, 0)),
    ],
)
def test_what_is_well_written_is_taken_and_the_rest_ignored(value: bytes, fault: tuple[float, int]) -> None:
    assert read_fault(value) == fault


@pytest.mark.parametrize("status", [b"100", b"101", b"103", b"199"])
def test_an_interim_status_cannot_be_asked_for(status: bytes) -> None:
    # It would leave the caller waiting for the answer that it announces.
    assert read_fault(b"abort=" + status) == (0.0, 0)


@given(st.binary(max_size=40))
def test_no_value_asks_for_more_than_an_hour_or_for_no_answer(value: bytes) -> None:
    delay, status = read_fault(value)
    assert 0 <= delay <= LONGEST_MS / 1000
    assert status == 0 or 200 <= status <= 599
