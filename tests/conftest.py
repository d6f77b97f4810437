"""Fixtures for the whole suite: programs that run beside a test, and their output in the report when the test fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from support.forks import Forks
from support.processes import Process, Running

# Programs are started beside gRPC's threads, which need not be made ready for a copy of the process.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Machines that build are slow and shared: limits of time would fail for reasons that are not ours. `make test` tries the same examples each
# time, so that what fails was broken by a change; pytest by itself tries others each time, and so finds what nobody has thought of.
settings.register_profile("random", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fixed", settings.get_profile("random"), derandomize=True)
settings.load_profile("random")
Process.forks = Forks()
MOST_OUTPUT = 20_000
"""Characters of each program's output in a report; the end tells most, and a broken test may have a load of requests behind it."""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A set of programs below the test's own directory; all are stopped when the test ends."""
    tmp_path.chmod(0o755)  # nginx started by root works as another account and must be able to enter
    with Running(tmp_path) as processes:
        yield processes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Attach what the programs beside a failed test printed, its own and those that it shares with others, while they are still known."""
    report = yield
    if report.failed:
        programs = [process for running in Running.alive for process in running]
        report.sections += [(f"output of {process.name}: {process.state()}", process.output()[-MOST_OUTPUT:]) for process in programs]
    return report
