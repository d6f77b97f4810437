"""The parsed configuration as plain JSON values, as ``/config.json`` shows it.

Source: linkerd-config spec 1.2 (absent options are omitted) and 2.3. Options that equal their default are left out, whether or
not the file names them; options declared secret are masked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from meshgw.config.document import Chosen
from meshgw.config.fields import Field, discriminator, fields_of
from meshgw.config.models import Config

MASK: Final = "********"


def config_to_json(config: Config) -> dict[str, object]:
    """The whole configuration, ready for ``json.dumps``."""
    return _block(config)


def _block(block: Any) -> dict[str, object]:
    found: dict[str, object] = {}
    for field in fields_of(type(block)):
        value = getattr(block, field.attribute)
        if value is None or _is_default(field, value):
            continue
        found[field.name] = MASK if field.option.secret else _value(field, value)
    return found


def _is_default(field: Field, value: Any) -> bool:
    if field.option.default_kind is not None:
        chosen = value[0] if isinstance(value, tuple) and len(value) == 1 else value
        return isinstance(chosen, Chosen) and chosen.line == 0
    return not field.is_required and bool(value == field.default_value())


def _value(field: Field, value: Any) -> object:
    if isinstance(value, Chosen):
        found: dict[str, object] = {discriminator(field.option.kinds): value.kind.id}
        if value.experimental:
            found["experimental"] = True
        return found | _block(value.config)
    if attrs.has(type(value)) and field.option.variants is not None:
        kind = next(kind for kind, variant in field.option.variants.items() if variant is type(value))
        return {"kind": kind} | _block(value)
    if isinstance(value, re.Pattern):
        return value.pattern
    shown = getattr(value, "show", None)
    if callable(shown):
        return str(shown())
    if attrs.has(type(value)):
        return str(value) if hasattr(type(value), "read") else _block(value)
    if isinstance(value, Mapping):
        return {str(key): _value(field, each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_value(field, each) for each in value]
    return value if isinstance(value, (bool, int, float, str)) else str(value)
