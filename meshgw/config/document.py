"""How a block of the configuration file is declared: ``option``, its checks, and ``Chosen``, a block that names a kind.

Source: linkerd-config spec 1.2. A block is an ``@attrs.frozen(kw_only=True)`` class whose attributes are made by :func:`option`;
the loader (``config.binding``) fills it from the file, the schema and the reference are generated from it. This module reads
nothing and imports nothing of the rest of meshgw, so that any kind's module may use it.

A class may carry ``later: ClassVar[Mapping[str, str]]``: names of fields that Linkerd knows and meshgw does not support yet, with
what they are. They are reported as such and not as unknown. ``elsewhere: ClassVar[Mapping[str, str]]`` has the names of fields that other
blocks of the same place have, with what to do instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from meshgw.kinds import Kind

Check = Callable[[Any], str | None]
"""Looks at one value and returns ``None``, or the error's text, for example ``must be at least 1, not 0``."""

Notice = Callable[[Any], str | None]
"""Looks at one value that the file gives and returns ``None``, or a remark for the operator that does not fail the check."""

METADATA_KEY: Final = "meshgw.option"


@attrs.frozen(kw_only=True)
class Option:
    """What :func:`option` declared about one attribute; kept in the attribute's metadata."""

    doc: str
    name: str | None = None
    check: Check | None = None
    kinds: str | None = None
    default_kind: str | None = None
    variants: Mapping[str, type[Any]] | None = None
    default_variant: str | None = None
    one_or_more: bool = False
    secret: bool = False
    notice: Notice | None = None
    effective: object = None


@attrs.frozen(kw_only=True)
class Chosen:
    """A block that chose a kind: the kind, its filled configuration class, and where the block stands in the file."""

    kind: Kind
    config: Any
    path: str = ""
    line: int = 0
    experimental: bool = False


def option(
    *,
    doc: str,
    default: Any = attrs.NOTHING,
    factory: Callable[[], Any] | None = None,
    name: str | None = None,
    check: Check | None = None,
    kinds: str | None = None,
    default_kind: str | None = None,
    variants: Mapping[str, type[Any]] | None = None,
    default_variant: str | None = None,
    one_or_more: bool = False,
    secret: bool = False,
    notice: Notice | None = None,
    effective: object = None,
) -> Any:
    """Declare one option of a configuration class; without ``default`` and ``factory`` it is required.

    ``doc`` says what it is, with unit and the source of the default. ``name`` overrides the YAML name (else camelCase of the
    attribute). ``kinds`` is the registry group of a block with ``kind:``, given as :class:`Chosen`; ``default_kind`` is the one
    chosen when the block is absent. ``variants`` is a closed set of classes chosen by ``kind:`` and ``default_variant`` the one
    taken without it. ``one_or_more`` accepts a single block in place of a list. ``secret`` hides the value in ``/config.json``.
    ``notice`` remarks on a given value. ``effective`` documents what ``None`` amounts to.
    """
    declared = Option(
        doc=doc,
        name=name,
        check=check,
        kinds=kinds,
        default_kind=default_kind,
        variants=variants,
        default_variant=default_variant,
        one_or_more=one_or_more,
        secret=secret,
        notice=notice,
        effective=effective,
    )
    absent: dict[str, Any] = {"default": default} if factory is None else {"factory": factory}
    return attrs.field(metadata={METADATA_KEY: declared}, repr=not secret, **absent)


def at_least(least: float) -> Check:
    """A check: the number is not below ``least``."""

    def check(value: Any) -> str | None:
        return None if value >= least else f"must be at least {least:g}, not {value}"

    return check


def between(least: float, most: float) -> Check:
    """A check: the number lies in the closed range."""

    def check(value: Any) -> str | None:
        return None if least <= value <= most else f"must be between {least:g} and {most:g}, not {value}"

    return check


def one_of(*choices: Any) -> Check:
    """A check: the value is one of ``choices``."""

    def check(value: Any) -> str | None:
        return None if value in choices else f"must be one of {', '.join(map(str, choices))}, not {value}"

    return check


def all_of(*checks: Check) -> Check:
    """A check: every one of ``checks`` is content; the first objection counts."""

    def check(value: Any) -> str | None:
        return next((said for said in (one(value) for one in checks) if said is not None), None)

    return check


def yaml_name(attribute: attrs.Attribute[Any]) -> str:
    """The name of the attribute in the file: the option's own, else camelCase of the attribute's."""
    declared = attribute.metadata.get(METADATA_KEY)
    if isinstance(declared, Option) and declared.name is not None:
        return declared.name
    first, *rest = attribute.name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)
