"""The commands ``meshgw check``, ``kinds``, ``schema`` and ``dtab`` as programs: what they print and how they end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.gateways import LOOPBACK, config, gateway
from support.processes import Running

pytestmark = pytest.mark.integration

MESHGW = str(Path(sys.executable).with_name("meshgw"))


def meshgw(directory: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run([MESHGW, *words], cwd=directory, input=stdin, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def good(directory: Path) -> str:
    root = directory / "names"
    root.mkdir()
    (root / "web").write_text("127.0.0.1 8080\n")
    return json.dumps(config(root, 4140, 9990))


BAD = "routers:\n- protocol: http\n  dtab: /svc => ((\n  nosuch: 1\n  servers: [{port: 4140}]\n"


def test_check_tells_good_from_bad_by_its_status(tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text(good(tmp_path))
    (tmp_path / "bad.yml").write_text(BAD)
    well = meshgw(tmp_path, "check", "good.yml")
    assert (well.returncode, well.stdout) == (0, "good.yml: ok (1 router, 1 server)\n")
    assert meshgw(tmp_path, "check", "-", stdin=(tmp_path / "good.yml").read_text()).returncode == 0
    ill = meshgw(tmp_path, "check", "good.yml", "bad.yml")
    assert ill.returncode == 1
    assert "bad.yml:3" in ill.stdout
    assert "bad.yml:4" in ill.stdout
    assert "bad.yml: 2 errors" in ill.stdout
    missing = meshgw(tmp_path, "check", "none.yml")
    assert missing.returncode == 1
    assert "none.yml" in missing.stdout
    assert meshgw(tmp_path, "check").returncode == 2
    assert meshgw(tmp_path, "nosuch").returncode == 2


def test_check_gives_json_with_places(tmp_path: Path) -> None:
    (tmp_path / "good.yml").write_text(good(tmp_path))
    (tmp_path / "bad.yml").write_text(BAD)
    done = meshgw(tmp_path, "check", "--json", "good.yml", "bad.yml")
    assert done.returncode == 1
    well, ill = json.loads(done.stdout)
    assert (well["file"], well["ok"], well["routers"], well["servers"], well["problems"]) == ("good.yml", True, 1, 1, [])
    assert ill["ok"] is False
    assert sorted(problem["line"] for problem in ill["problems"]) == [3, 4]


def test_kinds_are_listed_as_lines_and_as_json(tmp_path: Path) -> None:
    lines = meshgw(tmp_path, "kinds")
    assert lines.returncode == 0
    assert any(line.split()[:2] == ["namers", "io.l5d.fs"] for line in lines.stdout.splitlines())
    rows = json.loads(meshgw(tmp_path, "kinds", "--json").stdout)
    known = {(row["group"], row["id"]): row for row in rows}
    assert known["protocols", "http"]["supported"] is True
    assert known["identifiers", "io.l5d.header.token"]["supported"] is True
    assert all("error" not in row for row in rows)


def test_the_schema_names_every_top_level_block(tmp_path: Path) -> None:
    done = meshgw(tmp_path, "schema")
    assert done.returncode == 0
    schema = json.loads(done.stdout)
    assert {"admin", "routers", "namers", "telemetry", "usage"} <= set(schema["properties"])


def test_dtab_explains_from_a_file_and_from_a_running_gateway(running: Running) -> None:
    gw = gateway(running, {"web": 8080})
    file = str(running.directory / "meshgw.yml")
    for source in (("--config", file), ("--admin", f"http://{LOOPBACK}:{gw.admin_port}")):
        found = meshgw(running.directory, "dtab", "/svc/web", *source)
        assert found.returncode == 0, found.stderr
        assert "bound to /#/io.l5d.fs/web" in found.stdout
        assert f"{LOOPBACK}:8080" in found.stdout
        assert meshgw(running.directory, "dtab", "/svc/none", *source).returncode == 1
        tree = json.loads(meshgw(running.directory, "dtab", "/svc/web", "--json", *source).stdout)
        assert tree["path"] == "/svc/web"
    assert meshgw(running.directory, "dtab", "/svc/web", "--admin", "http://127.0.0.1:1").returncode == 2
    assert meshgw(running.directory, "dtab").returncode == 2


def test_a_reader_that_stops_early_is_no_error_text(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f'"{MESHGW}" schema | head -n 1'], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_the_version_is_printed(tmp_path: Path) -> None:
    done = meshgw(tmp_path, "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("meshgw ")
