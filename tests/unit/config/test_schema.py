"""The JSON Schema agrees with the loader on the fixtures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshgw.config.schema import file_schema
from meshgw.kinds import GROUPS, Registry

CONFIGS = Path(__file__).parents[2] / "fixtures" / "configs"


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def test_every_reference_has_a_definition(registry: Registry) -> None:
    schema = file_schema(registry)
    assert set(references(schema)) == {f"#/$defs/{name}" for name in schema["$defs"]}


def test_kinds_are_chosen_by_their_id(registry: Registry) -> None:
    schema = file_schema(registry)
    assert {"$ref": "#/$defs/namers.io.l5d.fs"} in schema["$defs"]["namers"]["oneOf"]
    router = schema["$defs"]["protocols.http"]
    assert router["properties"]["protocol"] == {"const": "http"}
    assert router["required"] == ["protocol"]
    assert router["additionalProperties"] is False


def test_experimental_kind_requires_to_be_enabled(registry: Registry) -> None:
    trial = file_schema(registry)["$defs"]["namers.trial.namer"]
    assert trial["properties"]["experimental"] == {"const": True}
    assert "experimental" in trial["required"]


def test_schema_of_an_empty_installation_is_json() -> None:
    assert json.dumps(file_schema(Registry({group: [] for group in GROUPS})))


@pytest.fixture(scope="module")
def validator(registry: Registry) -> Any:
    """The schema, checked once: that alone takes more than a second."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = file_schema(registry)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("supported/*")) + sorted(CONFIGS.glob("later/*")), ids=lambda file: file.name)
def test_fixtures_are_valid_as_they_are_for_the_loader(file: Path, validator: Any) -> None:
    errors = list(validator.iter_errors(yaml.safe_load(file.read_text().replace("\t", "  "))))
    # What only a check over values refuses is valid for the schema.
    assert bool(errors) == (file.parent.name == "later" and file.name != "compression.yaml"), [error.message for error in errors]
