"""What the installed distribution offers: twistd knows the gateway's command from any directory, and the metadata is in order."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import meshgw
from meshgw.kinds import GROUPS

PROGRAMS = Path(sys.executable).parent


def run(*command: str, directory: Path) -> subprocess.CompletedProcess[str]:
    # Without the checkout in sys.path: only what is installed counts.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_twistd_lists_meshgw_outside_the_checkout(tmp_path: Path) -> None:
    ran = run(str(PROGRAMS / "twistd"), "--help", directory=tmp_path)
    commands = [line.split()[0] for line in ran.stdout.splitlines() if line.startswith("    ") and line.split()]
    assert ran.returncode == 0, ran.stderr
    assert "meshgw" in commands, f"twistd knows only: {' '.join(commands)}\n{ran.stderr}"


def test_twistd_shows_the_options_of_meshgw(tmp_path: Path) -> None:
    ran = run(str(PROGRAMS / "twistd"), "meshgw", "--help", directory=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "--config" in ran.stdout


def test_the_command_line_tool_is_installed(tmp_path: Path) -> None:
    ran = run(str(PROGRAMS / "meshgw"), "--version", directory=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert meshgw.__version__ in ran.stdout


def test_the_plugin_folder_is_no_regular_package() -> None:
    folder = Path(meshgw.__file__).parents[1] / "twisted"
    assert not list(folder.rglob("__init__.py")), "an __init__.py here would hide Twisted's own plugins"


def test_the_version_is_that_of_the_package() -> None:
    assert metadata.version("meshgw") == meshgw.__version__


@pytest.mark.parametrize("group", sorted({point.group for point in metadata.distribution("meshgw").entry_points}))
def test_every_entry_point_group_is_one_the_registry_reads(group: str) -> None:
    assert group in {"console_scripts", *(f"meshgw.{name}" for name in GROUPS)}


def announced() -> list[metadata.EntryPoint]:
    return [point for point in metadata.distribution("meshgw").entry_points if point.group.startswith("meshgw.")]


@pytest.mark.parametrize("point", announced(), ids=lambda point: f"{point.group}:{point.name}")
def test_every_announced_kind_can_be_loaded_under_its_name(point: metadata.EntryPoint) -> None:
    assert point.load().id == point.name
