"""The reference page holds every option of every block, and every option says what it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from meshgw.config.fields import Field, element_of, fields_of, is_block, later_of, mapped_of
from meshgw.config.models import Config
from meshgw.config.reference import reference
from meshgw.kinds import GROUPS, Registry


def blocks(registry: Registry) -> list[type[Any]]:
    """All configuration classes that a file can reach."""
    waiting: list[type[Any]] = [Config]
    waiting += [registry.kind(group, id).config for group in GROUPS for id in registry.known(group)]
    found: list[type[Any]] = []
    while waiting:
        config = waiting.pop()
        if config not in found:
            found.append(config)
            for field in fields_of(config):
                waiting += inner(field)
    return found


def inner(field: Field) -> Iterator[type[Any]]:
    if field.option.variants is not None:
        yield from field.option.variants.values()
        return
    wanted = element_of(field.type) or mapped_of(field.type) or field.type
    if is_block(wanted):
        yield wanted


@pytest.fixture(scope="module")
def page(registry: Registry) -> str:
    return reference(registry)


def test_every_block_and_option_is_documented(registry: Registry) -> None:
    for config in blocks(registry):
        assert (config.__doc__ or "").strip() and not (config.__doc__ or "").startswith("Method generated"), config
        for field in fields_of(config):
            assert re.fullmatch(r".{5,}\.", field.option.doc, re.DOTALL), f"{config.__name__}.{field.name}: {field.option.doc!r}"


def test_every_option_appears_with_its_meaning(page: str, registry: Registry) -> None:
    for config in blocks(registry):
        for field in fields_of(config):
            assert any(
                line.startswith(f"| `{field.name}` |") and line.endswith(f"| {field.option.doc.replace('|', chr(92) + '|')} |")
                for line in page.splitlines()
            ), f"{config.__name__}.{field.name}"


def test_every_block_has_a_section_of_its_own(page: str, registry: Registry) -> None:
    sections = re.split(r"^#+ ", page, flags=re.MULTILINE)
    for config in blocks(registry):
        rows = [f"| `{field.name}` |" for field in fields_of(config)]
        assert any(
            [line[: line.index("`", 3) + 3] for line in section.splitlines() if line.startswith("| `")] == rows for section in sections
        ), config.__name__


def test_fields_that_are_not_supported_yet_appear_as_such(page: str, registry: Registry) -> None:
    for config in blocks(registry):
        for name, what in later_of(config).items():
            assert f"`{name}` ({what})" in page
    assert "`thriftmux` (ThriftMux router)" in page


def test_every_link_has_its_heading(page: str) -> None:
    headings = [line.lstrip("# ").replace("`", "") for line in page.splitlines() if line.startswith("#")]
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert {found[1] for found in re.finditer(r"\]\(#([^)]*)\)", page)} <= anchors
