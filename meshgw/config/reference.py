"""The configuration reference in Markdown, made from the classes and the installed kinds, so that it cannot fall behind them.

Source: the ``doc`` of each option. One section per block; fields that are not supported yet are listed below each table.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs

from meshgw.config.document import Chosen
from meshgw.config.fields import EXPERIMENTAL_GROUPS, Field, discriminator, element_of, fields_of, is_block, is_regex, later_of, mapped_of
from meshgw.config.later import LATER_KINDS, OUT_OF_SCOPE_KINDS
from meshgw.config.models import Config
from meshgw.kinds import GROUPS, KindError, Registry

_TITLES: Final = {
    "protocols": "Routers",
    "identifiers": "Identifiers",
    "namers": "Namers",
    "interpreters": "Interpreters",
    "transformers": "Transformers",
    "balancers": "Load balancers",
    "classifiers": "Response classifiers",
    "accruals": "Failure accrual",
    "authorizers": "Request authorizers",
    "propagators": "Trace propagators",
    "telemeters": "Telemetry",
    "announcers": "Announcers",
}
_WORDS: Final = {
    "PathMatcher": "path pattern",
    "PathPrefix": "path prefix",
    "IdentityPattern": "pattern",
    "NameServer": "host and port",
    "ApiName": "path",
}
_TYPES: Final = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def reference(registry: Registry) -> str:
    """The whole reference as one Markdown page."""
    page = _Page(registry)
    page.block("The file", Config, "The top level of the file, an object in YAML or JSON with these keys and no others.")
    for group in GROUPS:
        page.group(group)
    page.nested()
    return "# Configuration reference\n\n" + "\n".join(page.lines).rstrip() + "\n"


class _Page:
    """Gathers the lines; nested blocks met on the way are put at the end, each once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._waiting: list[tuple[str, type[Any]]] = []
        self._known: set[str] = set()
        self.lines: list[str] = []

    def block(self, title: str, config: type[Any], intro: str = "", *, level: int = 2) -> None:
        """A section for one block: a table of its fields."""
        self.lines += [f"{'#' * level} {title}", "", intro or _first_line(config), ""]
        fields = fields_of(config)
        if fields:
            self.lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
            self.lines += [
                f"| `{field.name}` | {self._type(field.type, field)} | {_default(field)} | {_cell(field.option.doc)} |" for field in fields
            ]
            self.lines.append("")
        later = later_of(config)
        if later:
            listed = ", ".join(f"`{name}` ({what})" for name, what in sorted(later.items()))
            self.lines += [f"Not supported yet: {listed}.", ""]

    def group(self, group: str) -> None:
        """A section for the kinds of one group."""
        known, key = self._registry.known(group), discriminator(group)
        later = {id: what for id, what in LATER_KINDS.get(group, {}).items() if id not in known}
        never = {id: what for id, what in OUT_OF_SCOPE_KINDS.get(group, {}).items() if id not in known}
        if not (known or later or never):
            return
        self.lines += [f"## {_TITLES.get(group, group)}", "", f"A block chooses what it is by `{key}:`.", ""]
        for id in known:
            try:
                kind = self._registry.kind(group, id)
            except KindError as error:
                self.lines += [f"### `{id}`", "", f"Cannot be used: {error}", ""]
                continue
            intro = _first_line(kind.config)
            if kind.experimental:
                intro += " Experimental: it must be enabled by `experimental: true`."
            elif group in EXPERIMENTAL_GROUPS:
                intro += " `experimental` is accepted and means nothing here."
            if kind.protocols:
                intro += f" For routers with protocol {', '.join(sorted(kind.protocols))}."
            self.block(f"`{id}`", kind.config, intro, level=3)
        if later:
            self.lines += ["Not supported yet: " + ", ".join(f"`{id}` ({what})" for id, what in sorted(later.items())) + ".", ""]
        if never:
            self.lines += ["Out of scope: " + ", ".join(f"`{id}` ({what})" for id, what in sorted(never.items())) + ".", ""]

    def nested(self) -> None:
        """The sections of the blocks that other blocks hold."""
        if self._waiting:
            self.lines += ["## Nested blocks", ""]
        while self._waiting:
            title, config = self._waiting.pop(0)
            self.block(title, config, level=3)

    def _linked(self, title: str, config: type[Any]) -> str:
        if title not in self._known:
            self._known.add(title)
            self._waiting.append((title, config))
        return f"[{title}](#{_anchor(title)})"

    def _type(self, wanted: Any, field: Field) -> str:
        element, mapped = element_of(wanted), mapped_of(wanted)
        if element is not None:
            one = self._type(element, field)
            return f"{one}, or a list of them" if field.option.one_or_more else f"list of: {one}"
        if mapped is not None:
            return f"object with values: {self._type(mapped, field)}"
        if wanted is Chosen and field.option.kinds is not None:
            title = _TITLES.get(field.option.kinds, field.option.kinds)
            return f"block, see [{title}](#{_anchor(title)})"
        if field.option.variants is not None:
            choices = [self._linked(f"{wanted.__name__}, kind {kind}", config) for kind, config in field.option.variants.items()]
            return "block: " + ", ".join(choices)
        if is_block(wanted):
            return self._linked(wanted.__name__, wanted)
        if is_regex(wanted):
            return "regular expression"
        return _TYPES.get(wanted) or _WORDS.get(wanted.__name__, wanted.__name__.lower())


def _first_line(config: type[Any]) -> str:
    return (config.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ").replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-")


def _default(field: Field) -> str:
    if field.option.default_kind is not None:
        return f"`{field.option.default_kind}`"
    if field.is_required:
        return "required"
    if field.option.effective is not None:
        text = str(field.option.effective)
        return f"`{text}`" if text[:1] == "/" or text.isdigit() else text
    value = field.default_value()
    if value is None:
        return "none"
    if value in ((), {}, ""):
        return "empty"
    shown = getattr(value, "show", None)
    if callable(shown):
        return f"`{shown()}`" if shown() else "empty"
    if attrs.has(type(value)):
        return "all defaults"
    return str(value).lower() if isinstance(value, bool) else f"`{value}`"
