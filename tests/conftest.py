"""Fixtures for the whole suite: programs that run beside a test, and their output in the report when the test fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from support.processes import Running

# Programs are started beside gRPC's threads, which need not be made ready for a copy of the process.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# Machines that build are slow and shared: a time limit per example would fail for reasons that are not ours.
settings.register_profile("meshgw", deadline=None)
settings.load_profile("meshgw")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A set of programs below the test's own directory; all are stopped when the test ends."""
    tmp_path.chmod(0o755)  # nginx started by root works as another account and must be able to enter
    with Running(tmp_path) as processes:
        yield processes


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    """Attach what the programs of a failed test printed, while they are still known."""
    report = yield
    programs = getattr(item, "funcargs", {}).get("running")
    if report.failed and isinstance(programs, Running):
        report.sections += [(f"output of {process.name}", process.output()) for process in programs]
    return report
