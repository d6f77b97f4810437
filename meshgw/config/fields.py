"""The options of a configuration class with their types resolved; the loader, the schema and the reference all read these.

Source: linkerd-config spec 1.2. Nothing here looks at a file.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, get_args, get_origin

import attrs

from meshgw.config.document import METADATA_KEY, Chosen, Option, yaml_name

# Objects of these groups take `experimental` whatever their kind (spec 1.2, last bullet); elsewhere it is an unknown field.
EXPERIMENTAL_GROUPS: Final[Mapping[str, str]] = {
    "protocols": "protocol",
    "namers": "namer",
    "telemeters": "telemeter",
    "interpreters": "interpreter",
    "stores": "dtab store",
}


class BadDeclaration(TypeError):
    """A configuration class cannot be used: an attribute without ``option`` or with a type the loader does not know."""


@attrs.frozen(kw_only=True)
class Field:
    """One option: attribute and YAML name, the type of a present value, and what was declared."""

    attribute: str
    name: str
    type: Any
    option: Option
    is_required: bool
    is_nullable: bool
    default: Any

    def default_value(self) -> Any:
        """The value when the file gives none; only for options that are not required."""
        if isinstance(self.default, attrs.Factory):  # type: ignore[arg-type]  # attrs types Factory as a function
            return self.default.factory()
        return self.default


def discriminator(group: str | None) -> str:
    """The YAML name that chooses a kind: ``protocol`` for routers, ``kind`` elsewhere."""
    return "protocol" if group == "protocols" else "kind"


def fields_of(config: type[Any]) -> tuple[Field, ...]:
    """The options of ``config`` in the order of their declaration, base classes first. Raises :class:`BadDeclaration`."""
    if not attrs.has(config):
        raise BadDeclaration(f"{config.__qualname__} is no attrs class")
    try:
        hints = typing.get_type_hints(config)
    except NameError as error:
        raise BadDeclaration(f"{config.__qualname__}: {error}; types of options must be imported at run time") from error
    found = []
    for attribute in attrs.fields(config):
        declared = attribute.metadata.get(METADATA_KEY)
        if not isinstance(declared, Option):
            raise BadDeclaration(f"{config.__qualname__}.{attribute.name} is not declared by option()")
        wanted, nullable = _without_none(hints[attribute.name])
        is_required = attribute.default is attrs.NOTHING and declared.default_kind is None
        found.append(
            Field(
                attribute=attribute.name,
                name=yaml_name(attribute),
                type=wanted,
                option=declared,
                is_required=is_required,
                is_nullable=nullable,
                default=attribute.default,
            )
        )
    return tuple(found)


def later_of(config: type[Any]) -> Mapping[str, str]:
    """The fields of ``config`` that are not supported yet, those of its base classes included."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        found |= base.__dict__.get("later", {})
    return found


def elsewhere_of(config: type[Any]) -> Mapping[str, str]:
    """The fields that ``config`` does not have and others in its place do, with what to do instead."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        found |= base.__dict__.get("elsewhere", {})
    return found


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, False
    rest = [each for each in get_args(hint) if each is not types.NoneType]
    if len(rest) != 1:
        raise BadDeclaration(f"a union of several types is not supported: {hint}")
    return rest[0], len(rest) != len(get_args(hint))


def element_of(hint: Any) -> Any | None:
    """The element type of ``tuple[X, ...]``, else None."""
    arguments = get_args(hint)
    return arguments[0] if get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis else None


def mapped_of(hint: Any) -> Any | None:
    """The value type of ``Mapping[str, X]``, else None."""
    if isinstance(get_origin(hint), type) and issubclass(get_origin(hint), Mapping):
        return get_args(hint)[1]
    return None


def is_regex(hint: Any) -> bool:
    """Whether the type is ``re.Pattern[str]``."""
    return hint is re.Pattern or get_origin(hint) is re.Pattern


def is_block(hint: Any) -> bool:
    """Whether the type is a configuration class: attrs, with options only, and read from an object."""
    return isinstance(hint, type) and attrs.has(hint) and hint is not Chosen and not hasattr(hint, "read")
