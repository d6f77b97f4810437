from __future__ import annotations

import subprocess
import sys

import pytest

from support.servers import ROOT

pytestmark = pytest.mark.integration

SMALL = (
    "--source",
    "kubernetes",
    "--services",
    "20",
    "--endpoints",
    "200",
    "--busy",
    "2",
    "--rate",
    "50",
    "--rounds",
    "1",
    "--seconds",
    "4",
)


def churn(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "benchmarks" / "churn.py"), *SMALL, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)


def test_nothing_is_missed_and_nothing_leaks_while_endpoints_come_and_go() -> None:
    done = churn()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 services of 10 endpoints in kubernetes, 20 watched" in done.stdout
    assert "Nothing was missed, nothing failed, nothing leaked." in done.stdout


def test_the_run_fails_when_changes_do_not_arrive() -> None:
    done = churn("--deaf", "--seconds", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "addresses too many and lacks" in done.stdout
