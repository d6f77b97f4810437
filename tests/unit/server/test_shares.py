from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.server.shares import SLACK, SLOT, Shares, make_shares


class Table:
    """A master's view and one for each process, over the same memory."""

    def __init__(self, slots: int) -> None:
        self.fd = make_shares(slots)
        self.master = Shares(self.fd, slots)
        self.processes = [Shares(self.fd, slots, own) for own in range(slots)]

    def enter(self, *counts: int) -> None:
        for process, count in zip(self.processes, counts, strict=True):
            process.enter()
            process.add(count)

    def close(self) -> None:
        for shares in (self.master, *self.processes):
            shares.close()
        os.close(self.fd)


@pytest.fixture
def table() -> Iterator[Table]:
    made = Table(3)
    yield made
    made.close()


def test_a_process_is_ahead_when_another_has_clearly_fewer_connections(table: Table) -> None:
    table.enter(SLACK + 1, 0, SLACK)
    assert [process.is_ahead() for process in table.processes] == [True, False, False]


def test_a_process_that_is_level_is_not_ahead(table: Table) -> None:
    table.enter(5, 5, 5)
    assert not any(process.is_ahead() for process in table.processes)


def test_with_many_connections_an_eighth_more_is_not_ahead(table: Table) -> None:
    table.enter(8000, 7200, 7200)
    assert not table.processes[0].is_ahead()
    table.processes[0].add(200)
    assert table.processes[0].is_ahead()


def test_who_has_not_entered_is_not_waited_for(table: Table) -> None:
    table.processes[0].enter()
    table.processes[0].add(100)
    assert not table.processes[0].is_ahead(), "nobody else is there"
    table.processes[1].enter()
    assert table.processes[0].is_ahead()


def test_who_left_or_died_is_not_waited_for(table: Table) -> None:
    table.enter(100, 0, 0)
    table.processes[1].leave()
    assert table.processes[0].is_ahead()
    table.master.leave(2)
    assert not table.processes[0].is_ahead()


def test_connections_that_end_after_leaving_do_not_bring_a_process_back(table: Table) -> None:
    table.enter(100, 3, 100)
    table.processes[1].leave()
    table.processes[1].add(-1)
    assert not table.processes[0].is_ahead()


def test_a_successor_in_a_slot_counts_from_nothing(table: Table) -> None:
    table.enter(4, 4, 4)
    table.master.leave(1)
    successor = Shares(table.fd, 3, 1)
    successor.enter()
    assert table.processes[0].is_ahead()
    assert not successor.is_ahead()
    successor.close()


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=8))
def test_somebody_always_accepts(counts: list[int]) -> None:
    table = Table(len(counts))
    table.enter(*counts)
    ahead = [process.is_ahead() for process in table.processes]
    least = counts.index(min(counts))
    assert not ahead[least]
    assert all(count > min(counts) for count, is_ahead in zip(counts, ahead, strict=True) if is_ahead)
    table.close()


def test_one_process_alone_has_nobody_to_share_with() -> None:
    fd = make_shares(1)
    alone, two = Shares(fd, 1, 0), make_shares(2)
    shared = Shares(two, 2, 0)
    assert (alone.is_enough, shared.is_enough) == (False, True)
    assert os.fstat(two).st_size == 2 * SLOT.size
    for shares, number in ((alone, fd), (shared, two)):
        shares.close()
        os.close(number)
