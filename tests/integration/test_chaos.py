from __future__ import annotations

import subprocess
import sys

import pytest

from support.servers import ROOT

pytestmark = pytest.mark.integration


def chaos(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "benchmarks" / "chaos.py"), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)


def test_requests_survive_while_up_to_four_of_five_backends_fail() -> None:
    done = chaos("--seconds", "16", "--seed", "7", "--least", "0.95")  # on a busy machine good backends are too slow at times, too
    assert done.returncode == 0, done.stdout + done.stderr
    for fault in ("kill", "stop", "slow", "reset", "half-close", "garbage", "refuse", "error"):
        assert f"| {fault} |" in done.stdout


def test_the_run_fails_without_retries_and_breakers() -> None:
    done = chaos("--seconds", "6", "--seed", "7", "--defenceless")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "requests succeeded, 99.9% is the bound" in done.stdout
    assert "was answered" not in done.stdout, "even then no answer is anybody else's"
