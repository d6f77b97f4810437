"""A JSON Schema (draft 2020-12) of the whole configuration file, for editors, made from the classes and the installed kinds.

Source: linkerd-config spec 1.2 for what a value may look like. The schema is a little more lenient than the loader: what a check
over values says, or a file that must exist, only the loader knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshgw.config.document import Option
from meshgw.config.fields import (
    EXPERIMENTAL_GROUPS,
    discriminator,
    element_of,
    fields_of,
    is_block,
    is_regex,
    mapped_of,
)
from meshgw.config.models import Config
from meshgw.config.plain import MASK
from meshgw.config.values import Directory, File, Ip, Port
from meshgw.kinds import GROUPS, KindError, Registry
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

# Numbers may be written as text and the reverse (spec 1.2), a port only as a number.
_SCALARS: Final[Mapping[Any, Schema]] = {
    bool: {"anyOf": [{"type": "boolean"}, {"enum": ["true", "True", "TRUE", "false", "False", "FALSE"]}]},
    int: {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^\\s*[+-]?[0-9][0-9_]*(\\.0*)?\\s*$"}]},
    float: {"anyOf": [{"type": "number"}, {"type": "string", "pattern": "^\\s*[+-]?[0-9_]*\\.?[0-9]*([eE][+-]?[0-9]+)?\\s*$"}]},
    str: {"type": ["string", "number", "boolean"]},
    Port: {"type": "integer", "minimum": 0, "maximum": 65535},
    Ip: {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
    Directory: {"type": "string", "description": "a directory"},
    File: {"type": "string", "description": "a file"},
    Path: {"type": "string", "pattern": "^\\s*/"},
    Dtab: {"type": "string"},
}


def file_schema(registry: Registry) -> Schema:
    """The schema of a configuration file with the kinds that are installed."""
    maker = _Maker(registry)
    root = maker.block(Config)
    return {"$schema": DIALECT, "title": "meshgw configuration", **root, "$defs": dict(sorted(maker.definitions.items()))}


class _Maker:
    """Makes schemas and gathers the definitions they refer to, so that blocks may hold each other."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.definitions: dict[str, Schema] = {}

    def block(self, config: type[Any], extra: Mapping[str, Schema] | None = None, required: tuple[str, ...] = ()) -> Schema:
        """The schema of an object that is read into ``config``."""
        properties: Schema = dict(extra or {})
        needed = list(required)
        for field in fields_of(config):
            value = self._value(field.type, field.option)
            if field.is_required:
                needed.append(field.name)
            else:
                value = {"anyOf": [value, {"type": "null"}]}
            properties[field.name] = {"description": field.option.doc, **value}
            default = field.default_value() if not field.is_required and field.option.default_kind is None else None
            if isinstance(default, (bool, int, float, str)) and not field.option.secret and default != MASK:
                properties[field.name]["default"] = default
        schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
        if config.__doc__:
            schema["description"] = config.__doc__.strip().partition("\n")[0]
        if needed:
            schema["required"] = needed
        return schema

    def _value(self, wanted: Any, option: Option) -> Schema:
        element, mapped = element_of(wanted), mapped_of(wanted)
        if element is not None:
            one = self._value(element, option)
            many = {"type": "array", "items": one}
            return {"anyOf": [one, many]} if option.one_or_more else many
        if mapped is not None:
            return {"type": "object", "additionalProperties": self._value(mapped, option)}
        if option.kinds is not None:
            return self._chosen(option.kinds)
        if option.variants is not None:
            return self._variants(option.variants, option.default_variant)
        if is_block(wanted):
            return self._defined(wanted.__name__, lambda: self.block(wanted))
        if is_regex(wanted):
            return {"type": "string", "format": "regex"}
        if wanted in _SCALARS:
            return dict(_SCALARS[wanted])
        return self._value(wanted.__supertype__, option) if hasattr(wanted, "__supertype__") else {"type": ["string", "number", "boolean"]}

    def _defined(self, name: str, make: Any) -> Schema:
        if name not in self.definitions:
            self.definitions[name] = {}  # so that a block that holds itself ends here
            self.definitions[name] = make()
        return {"$ref": f"#/$defs/{name}"}

    def _variants(self, variants: Mapping[str, type[Any]], default: str | None) -> Schema:
        choices = []
        for kind, config in variants.items():
            key: Schema = {"const": kind} if kind != default else {"anyOf": [{"const": kind}, {"type": "null"}]}
            required = () if kind == default else ("kind",)
            choices.append(self._defined(config.__name__, lambda c=config, k=key, r=required: self.block(c, {"kind": k}, r)))
        return {"oneOf": choices}

    def _chosen(self, group: str) -> Schema:
        ids = self._loadable(group)
        nothing: Schema = {"not": {}}
        return self._defined(group, lambda: {"oneOf": [self._kind(group, id) for id in ids]} if ids else nothing)

    def _kind(self, group: str, id: str) -> Schema:
        kind = self._registry.kind(group, id)
        key = discriminator(group)
        extra: dict[str, Schema] = {key: {"const": id}}
        required = [key]
        if group in EXPERIMENTAL_GROUPS:
            extra["experimental"] = {"const": True} if kind.experimental else dict(_SCALARS[bool])
            required += ["experimental"] if kind.experimental else []
        return self._defined(f"{group}.{id}", lambda: self.block(kind.config, extra, tuple(required)))

    def _loadable(self, group: str) -> list[str]:
        found = []
        for id in self._registry.known(group) if group in GROUPS else ():
            try:
                self._registry.kind(group, id)
            except KindError:  # `meshgw kinds` tells which and why
                continue
            found.append(id)
        return found
