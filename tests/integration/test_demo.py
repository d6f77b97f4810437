"""The demonstration ends by itself with `--once`, every statement it makes holds, and it leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.servers import ROOT

pytestmark = pytest.mark.integration


def test_every_statement_of_the_demonstration_holds(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(ROOT / "deploy" / "demo" / "run.py"), "--once"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "FAILED" not in ran.stdout
    assert ran.stdout.count("ok: ") >= 10
    assert "\x1b[" not in ran.stdout, "escape sequences outside a terminal"
    assert list(tmp_path.iterdir()) == []
