"""What the installed distribution offers: twistd knows the gateway's command from any directory, the metadata is in order, and a
plug-in installed beside it is found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import meshgw
from fakes.http_api import ApiServer, Reply, Request, says
from meshgw.kinds import GROUPS
from support.processes import free_port
from support.servers import ROOT

PROGRAMS = Path(sys.executable).parent


def run(*command: str, directory: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    # Without the checkout in sys.path: only what is installed counts, and what is in ``path``.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
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


def test_the_daemon_imports_nothing_that_only_tests_or_commands_or_http2_need(tmp_path: Path) -> None:
    # Each would cost every gateway memory: an idle one is mostly imported code.
    program = "import sys, meshgw.app.service, meshgw.app.http; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ran = run(sys.executable, "-c", program, directory=tmp_path)
    assert ran.returncode == 0, ran.stderr
    imported = set(ran.stdout.split())
    assert "meshgw" in imported
    others = {"treq", "jsonschema", "hypothesis", "pytest", "websockets", "jh2"}
    assert not imported & {*others, "argparse", "setuptools", "pkg_resources", "sqlite3", "kazoo"}


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


def test_the_distribution_has_every_file_of_the_dashboard() -> None:
    program = (
        "from setuptools.dist import Distribution; d = Distribution(); d.parse_config_files(); "
        "b = d.get_command_obj('build_py'); b.ensure_finalized(); print(*(name for _, _, _, names in b.data_files for name in names))"
    )
    ran = run(sys.executable, "-c", program, directory=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert {f"static/{file.name}" for file in (ROOT / "meshgw/admin/static").iterdir()} <= set(ran.stdout.split())


def documented_files(page: Path) -> dict[str, str]:
    """The files a page shows: a line with nothing but the name in backticks and a colon, then a fenced block."""
    return dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def plug_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed("plugins.md", tmp_path_factory.mktemp("plug-in"))


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed("writing-a-namer.md", tmp_path_factory.mktemp("inventory"))


def installed(page: str, directory: Path) -> Path:
    """The directory with the plug-in of a page of the documentation built and installed into `site`, and its gateway.yml."""
    for name, text in documented_files(ROOT / "docs" / page).items():
        (directory / name).write_text(text)
    # Only what is here already, so that no package index is needed.
    here = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    ran = run(sys.executable, "-m", "pip", "install", "--quiet", *here, "--target", "site", ".", directory=directory)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return directory


def meshgw_with(plug_in: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(str(PROGRAMS / "meshgw"), *arguments, directory=plug_in, path=plug_in / "site")


def test_the_documented_plug_in_is_known_by_its_distribution(plug_in: Path) -> None:
    ran = meshgw_with(plug_in, "kinds")
    row = r"^namers +com\.example\.shards +shards-namer: Shards of one machine"
    assert re.search(row, ran.stdout, re.MULTILINE), ran.stdout + ran.stderr


def test_the_configuration_of_the_documented_plug_in_is_accepted(plug_in: Path) -> None:
    ran = meshgw_with(plug_in, "check", "gateway.yml")
    assert (ran.returncode, ran.stdout) == (0, "gateway.yml: ok (1 router, 1 server)\n"), ran.stderr


def test_the_options_of_the_documented_plug_in_are_checked(plug_in: Path) -> None:
    text = (plug_in / "gateway.yml").read_text()
    (plug_in / "wrong.yml").write_text(text.replace("basePort: 9000", "basePort: 9000\n  shards: 0\n  colour: red"))
    ran = meshgw_with(plug_in, "check", "wrong.yml")
    assert ran.returncode == 1
    assert "wrong.yml:5" in ran.stdout and "must be at least 1, not 0" in ran.stdout, ran.stdout
    assert "wrong.yml:6" in ran.stdout and "colour" in ran.stdout, ran.stdout


def test_the_documented_plug_in_finds_addresses(plug_in: Path) -> None:
    found = meshgw_with(plug_in, "dtab", "--config", "gateway.yml", "/svc/7")
    assert found.returncode == 0 and "127.0.0.1:9007" in found.stdout, found.stdout + found.stderr
    assert meshgw_with(plug_in, "dtab", "--config", "gateway.yml", "/svc/16").returncode == 1


def test_without_the_plug_in_its_kind_is_unknown(plug_in: Path) -> None:
    ran = run(str(PROGRAMS / "meshgw"), "check", "gateway.yml", directory=plug_in)
    assert ran.returncode == 1
    assert "unknown kind 'com.example.shards'" in ran.stdout, ran.stdout


def test_the_documented_namer_is_known_and_its_configuration_accepted(inventory: Path) -> None:
    row = r"^namers +com\.example\.inventory +inventory-namer: Services of the inventory"
    assert re.search(row, meshgw_with(inventory, "kinds").stdout, re.MULTILINE)
    ran = meshgw_with(inventory, "check", "gateway.yml")
    assert (ran.returncode, ran.stdout) == (0, "gateway.yml: ok (1 router, 1 server)\n"), ran.stderr


def test_the_documented_namer_finds_addresses_and_tells_why_it_does_not(inventory: Path) -> None:
    found = {"version": "7", "instances": [{"host": "127.0.0.1", "port": 9007}, {"host": "127.0.0.2", "port": 9008, "weight": 0.5}]}

    def answer(request: Request) -> Reply:
        return says(found) if request.path == "/services/web" else says("no", 403)

    def explained(name: str, poll_seconds: int) -> str:
        text = (inventory / "gateway.yml").read_text().replace("8080", str(server.port))
        (inventory / "here.yml").write_text(text.replace("pollSeconds: 5", f"pollSeconds: {poll_seconds}"))
        ran = meshgw_with(inventory, "dtab", "--config", "here.yml", f"/svc/{name}")
        return ran.stdout + ran.stderr

    server = ApiServer(answer, free_port()).start()
    try:
        polled, waited, secret = explained("web", 5), explained("web", 0), explained("secret", 0)
    finally:
        server.stop()
    for text in (polled, waited):
        assert "127.0.0.1:9007\n" in text and "127.0.0.2:9008 weight 0.5" in text, text
    assert f"the inventory at 127.0.0.1:{server.port}: 403" in secret
