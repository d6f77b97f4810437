"""The demonstration ends by itself with `--once`, every statement it makes holds, and it leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import Process, Running, wait_until
from support.servers import ROOT

pytestmark = pytest.mark.integration
PROGRAM = str(ROOT / "deploy" / "demo" / "run.py")


def test_every_statement_of_the_demonstration_holds(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, PROGRAM, "--once"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "FAILED" not in ran.stdout
    assert ran.stdout.count("ok: ") >= 12
    assert "\x1b[" not in ran.stdout, "escape sequences outside a terminal"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demonstration_stays_up_until_it_is_interrupted(running: Running, tmp_path: Path, number: int) -> None:
    files = tmp_path / "files"
    files.mkdir()
    demo = Process("demo", [sys.executable, PROGRAM], tmp_path, env={"TMPDIR": str(files)})
    running.add(demo, seconds=60.0, is_ready=lambda: "stays up until Ctrl-C" in demo.output())
    assert list(files.iterdir()), demo.output()
    demo.signal(number)
    assert demo.wait(20.0) == 0, demo.output()
    assert wait_until(lambda: not list(files.iterdir()), 20.0)
