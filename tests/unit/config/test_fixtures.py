"""Realistic Linkerd files: those within what is supported load cleanly, the others are told exactly what is not supported yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshgw.config.loader import load_file
from meshgw.config.plain import config_to_json
from meshgw.config.problems import Severity
from meshgw.kinds import Registry

CONFIGS = Path(__file__).parents[2] / "fixtures" / "configs"
SUPPORTED = sorted((CONFIGS / "supported").iterdir())
LATER = sorted((CONFIGS / "later").iterdir())
MARK = "# not supported yet: "


@pytest.mark.parametrize("file", SUPPORTED, ids=lambda file: file.name)
def test_supported_file_loads_without_errors(file: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS)
    result = load_file(str(file), registry)
    assert [problem.show() for problem in result.errors] == []
    assert result.config is not None
    assert "routers" in config_to_json(result.config)


@pytest.mark.parametrize("file", LATER, ids=lambda file: file.name)
def test_file_beyond_the_stage_gives_exactly_the_unsupported_places(file: Path, registry: Registry) -> None:
    expected = sorted(line.removeprefix(MARK) for line in file.read_text().splitlines() if line.startswith(MARK))
    result = load_file(str(file), registry)
    assert result.config is None
    assert sorted(problem.path for problem in result.problems) == expected
    assert all(problem.message.startswith("not supported yet: ") for problem in result.problems)


def test_ignored_streaming_options_and_threads_are_notices(registry: Registry) -> None:
    result = load_file(str(CONFIGS / "supported" / "streaming.yaml"), registry)
    assert result.config is not None
    assert [problem.path for problem in result.problems] == ["admin.workerThreads", "routers[0].maxChunkKB"]
    assert {problem.severity for problem in result.problems} == {Severity.NOTICE}
