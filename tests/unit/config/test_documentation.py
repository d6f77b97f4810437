"""The configurations that the manual shows load as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meshgw.config.loader import load
from meshgw.kinds import Registry

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "tests" / "fixtures" / "configs"
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# These pages show kinds that are not installed here; tests/unit/test_packaging.py installs them.
PLUG_INS = ("plugins.md", "writing-a-namer.md")
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in PLUG_INS)]
EXAMPLES = [(f"{page.name}-{number}", text) for page in PAGES for number, text in enumerate(BLOCK.findall(page.read_text()), 1)]


@pytest.mark.parametrize("text", [text for _, text in EXAMPLES], ids=[name for name, _ in EXAMPLES])
def test_example_loads_without_a_remark(text: str, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS)  # where a directory `disco` is
    result = load(text, "example.yml", registry)
    # the certificates of examples are made by whoever tries them
    assert [shown for shown in (problem.show() for problem in result.problems) if not shown.endswith(" on this machine now")] == []
    assert result.config is not None


def test_every_page_with_examples_was_read() -> None:
    found = {name.rpartition("-")[0] for name, _ in EXAMPLES}
    assert {"README.md", "getting-started.md", "resilience.md"} <= found
    assert sum(name.startswith("resilience.md") for name, _ in EXAMPLES) >= 7
