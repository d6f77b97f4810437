"""The ``meshgw`` command."""

from __future__ import annotations

import io
import json
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from meshgw import __version__
from meshgw.cli.meshgw import main
from meshgw.config.models import HttpRouterConfig
from meshgw.kinds import GROUPS, Kind, Registry

GOOD = "routers:\n- {protocol: http, label: a, servers: [{}, {port: 1}]}\n- {protocol: http, servers: [{port: 2}]}\n"
NOTICED = "admin: {workerThreads: 2}\n" + GOOD
BAD = "admin: {port: x}\nrouters:\n- protocol: http\n  dtab: /a => ^\n  servers: [{}]\n"


@attrs.frozen
class Announced:
    """Looks like an entry point and gives an object at hand."""

    name: str
    found: Any
    value: str = "tests:found"
    dist: Any = None

    def load(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def make_registry(**extra: list[Announced]) -> Registry:
    http = Announced("http", Kind(id="http", config=HttpRouterConfig, build=lambda *_: None))
    points: dict[str, list[Any]] = {group: list(metadata.entry_points(group=f"meshgw.{group}")) for group in GROUPS}
    points |= {"protocols": [http], **extra}
    return Registry(cast(Any, points))


def run(*arguments: str, registry: Registry | None = None) -> tuple[int, str]:
    out = io.StringIO()
    status = main(arguments, registry=registry or make_registry(), out=out)
    return status, out.getvalue()


def write(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.write_text(text)
    return str(file)


def test_check_of_a_good_file_counts_routers_and_servers(tmp_path: Path) -> None:
    file = write(tmp_path, "good.yaml", GOOD)
    assert run("check", file) == (0, f"{file}: ok (2 routers, 3 servers)\n")


def test_check_marks_notices_and_does_not_fail_for_them(tmp_path: Path) -> None:
    file = write(tmp_path, "noticed.yaml", NOTICED)
    assert run("check", file) == (
        0,
        f"{file}:1:24: notice: admin.workerThreads: has no effect: the admin server shares the reactor of the process and needs "
        f"no threads\n{file}: ok (2 routers, 3 servers, 1 notice)\n",
    )


def test_check_prints_every_problem_and_the_dtab_with_a_caret(tmp_path: Path) -> None:
    file = write(tmp_path, "bad.yaml", BAD)
    status, text = run("check", file)
    assert status == 1
    assert text.splitlines() == [
        f"{file}:1:15: admin.port: expected a whole number, found 'x'",
        f"{file}:4:15: routers[0].dtab: not a valid dtab: expected a path, '(', '!', '~' or '$', found '^'",
        "    /a => ^",
        "          ^",
        f"{file}: 2 errors",
    ]


def test_check_of_several_files_fails_if_one_is_bad(tmp_path: Path) -> None:
    good, missing = write(tmp_path, "good.yaml", GOOD), str(tmp_path / "missing.yaml")
    status, text = run("check", good, missing)
    assert status == 1
    assert text.splitlines()[1:] == [f"{missing}: config is not a file: {missing}", f"{missing}: 1 error"]


def test_check_gives_json(tmp_path: Path) -> None:
    good, bad = write(tmp_path, "good.yaml", GOOD), write(tmp_path, "bad.yaml", BAD)
    status, text = run("check", "--json", good, bad)
    first, second = json.loads(text)
    assert status == 1
    assert first == {"file": good, "ok": True, "routers": 2, "servers": 3, "problems": []}
    assert second["ok"] is False
    assert second["problems"][0] == {
        "file": bad,
        "severity": "error",
        "message": "expected a whole number, found 'x'",
        "line": 1,
        "column": 15,
        "path": "admin.port",
    }


def test_kinds_lists_supported_and_later_ones() -> None:
    status, text = run("kinds")
    lines = [line.split(maxsplit=2) for line in text.splitlines()]
    found = {(group, id): rest for group, id, rest in lines}
    assert status == 0
    assert found["namers", "io.l5d.fs"].startswith("meshgw: ")
    assert found["protocols", "thriftmux"] == "not supported yet: ThriftMux router"


def test_kinds_gives_json() -> None:
    rows = json.loads(run("kinds", "--json")[1])
    row = next(row for row in rows if (row["group"], row["id"]) == ("protocols", "http"))
    assert row == {
        "group": "protocols",
        "id": "http",
        "supported": True,
        "distribution": "tests:found",
        "experimental": False,
        "doc": "A router for HTTP/1.1 and HTTP/1.0.",
    }


@pytest.mark.parametrize("group", ["balancers", "accruals", "classifiers"])
def test_kinds_lists_every_resilience_kind_as_supported(group: str) -> None:
    rows = json.loads(run("kinds", "--json")[1])
    supported = {row["id"] for row in rows if row["group"] == group and row["supported"]}
    assert supported == {point.name for point in metadata.entry_points(group=f"meshgw.{group}")}
    assert {
        "balancers": {"p2c", "ewma", "aperture", "heap", "roundRobin"},
        "accruals": {"io.l5d.consecutiveFailures", "io.l5d.successRate", "io.l5d.successRateWindowed", "none"},
        "classifiers": {"io.l5d.http.nonRetryable5XX", "io.l5d.http.retryableRead5XX", "io.l5d.http.allSuccessful"},
    }[group] <= supported
    assert all(row["doc"].endswith(".") for row in rows if row["group"] == group and row["supported"])


def test_kinds_keeps_later_ones_apart() -> None:
    rows = json.loads(run("kinds", "--json")[1])
    row = next(row for row in rows if row["group"] == "protocols" and row["id"] == "thrift")
    assert row["supported"] is False


def test_kinds_tells_of_a_broken_kind() -> None:
    status, text = run("kinds", registry=make_registry(announcers=[Announced("x", ImportError("no module"))]))
    assert status == 1
    assert "tests:found: broken: kind 'x' of meshgw.announcers cannot be loaded: ImportError: no module" in text


def test_schema_is_json_with_its_dialect() -> None:
    status, text = run("schema")
    assert (status, json.loads(text)["$schema"]) == (0, "https://json-schema.org/draft/2020-12/schema")


def test_reference_is_markdown() -> None:
    status, text = run("reference")
    assert status == 0
    assert text.startswith("# Configuration reference\n")


def test_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        run("--version")
    assert exited.value.code == 0
    assert capsys.readouterr().out == f"meshgw {__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("check",), ("unknown",), ("kinds", "--yaml"), ("dtab",)])
def test_wrong_use_exits_with_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        run(*arguments)
    assert exited.value.code == 2
    assert "usage: meshgw" in capsys.readouterr().err


def test_help_names_the_commands_people_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    shown = capsys.readouterr().out
    assert "{check,kinds,schema,dtab,certs}" in shown
    assert "reference" not in shown
