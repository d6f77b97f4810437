"""Nodes → frozen configuration classes, with every problem of the file gathered.

Source: linkerd-config spec 1.2. A value that cannot be read is reported at its place and left out; reading goes on, so that one
run shows all problems. The whole file is loaded by ``config.loader``; this module knows no particular block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from meshgw.config.document import Chosen, Option
from meshgw.config.fields import (
    EXPERIMENTAL_GROUPS,
    BadDeclaration,
    Field,
    discriminator,
    element_of,
    elsewhere_of,
    fields_of,
    is_block,
    later_of,
    mapped_of,
)
from meshgw.config.later import LATER_KINDS, OUT_OF_SCOPE_KINDS
from meshgw.config.nodes import Block, Items, Node, Scalar, locate
from meshgw.config.problems import Problem, Severity, near, pointed, position, quote
from meshgw.config.scalars import BadValue, read_scalar
from meshgw.kinds import Kind, KindError, Registry, UnknownKind


class _Broken:
    """The type of :data:`BROKEN`."""


BROKEN: Final = _Broken()
"""Stands for a value that was reported and cannot be used."""


class Binder:
    """Reads blocks of one file; ``problems`` gathers what is wrong, ``places`` where each value of the file stands."""

    def __init__(self, text: str, file: str, registry: Registry) -> None:
        self._text, self._file, self._registry = text, file, registry
        self.problems: list[Problem] = []
        self.places: dict[str, int] = {}
        self._protocol: str | None = None  # of the router that is being read; limits the kinds inside it

    def report(
        self,
        path: str,
        message: str,
        *,
        at: int | None = None,
        suggestion: str | None = None,
        excerpt: tuple[str, ...] = (),
        severity: Severity = Severity.ERROR,
    ) -> _Broken:
        """Record a problem at offset ``at``, or where ``path`` or its nearest parent stands; gives back :data:`BROKEN`."""
        place = self._place(path) if at is None else at
        line, column = position(self._text, place or 0)
        found = Problem(
            file=self._file,
            line=line,
            column=column,
            path=path,
            message=message,
            suggestion=suggestion,
            excerpt=excerpt,
            severity=severity,
        )
        self.problems.append(found)
        return BROKEN

    def line_of(self, path: str) -> int:
        """The line, from 1, on which the value at ``path`` or its nearest parent begins; 0 if the file holds neither."""
        place = self._place(path)
        return 0 if place is None else position(self._text, place)[0]

    def _place(self, path: str) -> int | None:
        while path:
            if path in self.places:
                return self.places[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return None

    def has_problem_at(self, path: str) -> bool:
        """Whether an error at ``path`` or below it was reported."""
        below = (f"{path}.", f"{path}[")
        return any(
            problem.severity is Severity.ERROR and (problem.path == path or problem.path.startswith(below)) for problem in self.problems
        )

    def repeated_keys(self, node: Node) -> None:
        """Report each key that an object of the document holds twice (spec 1.2)."""
        seen: set[int] = set()
        waiting: list[tuple[Node, str]] = [(node, "")]
        while waiting:
            current, path = waiting.pop()
            if id(current) in seen:  # an alias brought us here again
                continue
            seen.add(id(current))
            if isinstance(current, Items):
                waiting += [(item, f"{path}[{index}]") for index, item in enumerate(current.items)]
            elif isinstance(current, Block):
                first: dict[str, int] = {}
                for key, value in current.entries:
                    inner = _join(path, key.text)
                    if key.text in first:
                        line = position(self._text, first[key.text])[0]
                        self.report(inner, f"duplicate key {quote(key.text)}; it is given already on line {line}", at=key.start)
                    first.setdefault(key.text, key.start)
                    waiting.append((value, inner))

    def block(self, config: type[Any], node: Node, path: str, *, taken: frozenset[str] = frozenset()) -> Any:
        """Read an object into ``config``; fields in ``taken`` were dealt with by the caller. May give :data:`BROKEN`."""
        self.places.setdefault(path, node.start)
        if not isinstance(node, Block):
            return self.report(path, f"expected an object, found {_described(node)}", at=node.start)
        try:
            fields = fields_of(config)
        except BadDeclaration as error:
            return self.report(path, f"the configuration class is unusable: {error}", at=node.start)
        given: dict[str, tuple[Scalar, Node]] = {}
        for key, value in node.entries:
            given.setdefault(key.text, (key, value))
        self._unknown_fields(config, fields, given, path, taken)
        values: dict[str, Any] = {}
        is_whole, is_usable = True, True
        for field in fields:
            value = self._field(field, given.get(field.name), path, node)
            if isinstance(value, _Broken):
                is_whole = False
                # A default stands in where there is one, so that the checks of the whole file can still be made.
                is_usable = is_usable and not field.is_required and field.option.default_kind is None
            elif value is not attrs.NOTHING:
                values[field.attribute] = value
        if not is_usable:
            return BROKEN
        try:
            return config(**values)
        except (ValueError, TypeError) as error:  # a check over several fields, made by the class itself
            if is_whole:
                self.report(path, str(error), at=node.start)
            return BROKEN

    def _unknown_fields(
        self,
        config: type[Any],
        fields: tuple[Field, ...],
        given: Mapping[str, tuple[Scalar, Node]],
        path: str,
        taken: frozenset[str],
    ) -> None:
        names = {field.name for field in fields} | taken
        later = later_of(config)
        for name, (key, value) in given.items():
            inner = _join(path, name)
            if name in names:
                self.places.setdefault(inner, value.start)
            elif name in later:
                if not (isinstance(value, Scalar) and value.is_null):
                    self.report(inner, f"not supported yet: {later[name]} (`{name}`)", at=key.start)
            else:
                known = ", ".join(sorted(names)) or "none"
                advice = elsewhere_of(config).get(name) or near(name, [*sorted(names), *later])
                self.report(inner, f"unknown field {quote(name)}; known: {known}", at=key.start, suggestion=advice)

    def _field(self, field: Field, given: tuple[Scalar, Node] | None, path: str, parent: Node) -> Any:
        """The value of one option; ``attrs.NOTHING`` when the class's default is to be used."""
        inner = _join(path, field.name)
        option = field.option
        node = given[1] if given is not None else None
        if node is None or (isinstance(node, Scalar) and node.is_null):
            if option.default_kind is not None and option.kinds is not None:
                chosen = self._default_kind(option.kinds, option.default_kind, inner)
                return (chosen,) if element_of(field.type) is not None and not isinstance(chosen, _Broken) else chosen
            if not field.is_required:
                return attrs.NOTHING
            return self.report(inner, f"missing required field {quote(field.name)}", at=parent.start)
        value = self._value(field.type, option, node, inner)
        if isinstance(value, _Broken):
            return value
        if option.check is not None and (objection := option.check(value)) is not None:
            return self.report(inner, objection, at=node.start)
        if option.notice is not None and (remark := option.notice(value)) is not None:
            self.report(inner, remark, at=node.start, severity=Severity.NOTICE)
        return value

    def _value(self, wanted: Any, option: Option, node: Node, path: str) -> Any:
        self.places.setdefault(path, node.start)
        element, mapped = element_of(wanted), mapped_of(wanted)
        if element is not None:
            return self._list(element, option, node, path)
        if mapped is not None:
            return self._mapping(mapped, option, node, path)
        if option.kinds is not None:
            return self._chosen(option.kinds, node, path)
        if option.variants is not None:
            return self._variant(option.variants, option.default_variant, node, path)
        if is_block(wanted):
            return self.block(wanted, node, path)
        return self._scalar(wanted, node, path)

    def _list(self, element: Any, option: Option, node: Node, path: str) -> Any:
        if option.one_or_more and isinstance(node, Block):
            value = self._value(element, option, node, path)
            return BROKEN if value is BROKEN else (value,)
        if not isinstance(node, Items):
            return self.report(path, f"expected a list, found {_described(node)}", at=node.start)
        values = [self._value(element, option, item, f"{path}[{index}]") for index, item in enumerate(node.items)]
        whole = tuple(value for value in values if value is not BROKEN)
        # What can be read of a list of blocks is kept for the checks of the whole file; the problems are reported anyway.
        return whole if len(whole) == len(values) or (whole and isinstance(node.items[0], Block)) else BROKEN

    def _mapping(self, mapped: Any, option: Option, node: Node, path: str) -> Any:
        if not isinstance(node, Block):
            return self.report(path, f"expected an object, found {_described(node)}", at=node.start)
        values = {key.text: self._value(mapped, option, value, _join(path, key.text)) for key, value in node.entries}
        return BROKEN if any(value is BROKEN for value in values.values()) else values

    def _variant(self, variants: Mapping[str, type[Any]], default: str | None, node: Node, path: str) -> Any:
        found = self._kind_of(node, path, "kind", default, tuple(variants))
        if isinstance(found, _Broken):
            return found
        if found not in variants:
            return self._unknown_kind(found, tuple(sorted(variants)), (), f"{path}.kind")
        return self.block(variants[found], node, path, taken=frozenset({"kind"}))

    def _kind_of(self, node: Node, path: str, key: str, default: str | None, known: tuple[str, ...]) -> str | _Broken:
        if not isinstance(node, Block):
            return self.report(path, f"expected an object, found {_described(node)}", at=node.start)
        value = next((value for name, value in node.entries if name.text == key), None)
        inner = _join(path, key)
        if value is None or (isinstance(value, Scalar) and value.is_null):
            if default is not None:
                return default
            return self.report(inner, f"missing required field {quote(key)}; known: {', '.join(sorted(known))}", at=node.start)
        if not isinstance(value, Scalar):
            return self.report(inner, f"expected text, found {_described(value)}", at=value.start)
        self.places[inner] = value.start
        return value.text

    def _unknown_kind(self, found: str, known: tuple[str, ...], later: tuple[str, ...], path: str) -> _Broken:
        text = f"unknown kind {quote(found)}; known: {', '.join(known) or 'none'}"
        if later:
            text += f" (not supported yet: {', '.join(later)})"
        return self.report(path, text, suggestion=near(found, [*known, *later]))

    def _chosen(self, group: str, node: Node, path: str) -> Chosen | _Broken:
        key = discriminator(group)
        known = self._registry.known(group)
        found = self._kind_of(node, path, key, None, known)
        if isinstance(found, _Broken):
            return found
        kind = self._kind(group, found, _join(path, key))
        if isinstance(kind, _Broken):
            return kind
        taken, experimental = {key}, False
        if group in EXPERIMENTAL_GROUPS:
            is_enabled = self._is_experimental(group, kind, node, path)
            if isinstance(is_enabled, _Broken):
                return is_enabled
            taken.add("experimental")
            experimental = is_enabled
        outer = self._protocol
        self._protocol = kind.id if group == "protocols" else outer
        config = self.block(kind.config, node, path, taken=frozenset(taken))
        self._protocol = outer
        if isinstance(config, _Broken):
            return config
        return Chosen(kind=kind, config=config, path=path, line=self.line_of(path), experimental=experimental)

    def _kind(self, group: str, id: str, path: str) -> Kind | _Broken:
        known, later = self._registry.known(group), LATER_KINDS.get(group, {})
        if id not in known and id in OUT_OF_SCOPE_KINDS.get(group, {}):
            return self.report(path, f"out of scope: {OUT_OF_SCOPE_KINDS[group][id]} (`{id}`)")
        if id not in known and id in later:
            return self.report(path, f"not supported yet: {later[id]} (`{id}`)")
        try:
            kind = self._registry.kind(group, id)
        except UnknownKind:
            return self._unknown_kind(id, known, tuple(sorted(set(later) - set(known))), path)
        except KindError as error:
            return self.report(path, str(error))
        if kind.protocols and self._protocol is not None and self._protocol not in kind.protocols:
            allowed = ", ".join(sorted(kind.protocols))
            text = f"kind {quote(id)} is for routers with protocol {allowed}, not {self._protocol}"
            return self.report(path, text, suggestion=near(id, self._kinds_here(group)))
        return kind

    def _kinds_here(self, group: str) -> list[str]:
        """The ids of kinds that are for no other protocol than that of the router that is being read."""
        found = []
        for id in self._registry.known(group):
            try:
                protocols = self._registry.kind(group, id).protocols
            except KindError:  # `meshgw kinds` tells which and why
                continue
            if not protocols or self._protocol in protocols:
                found.append(id)
        return found

    def _is_experimental(self, group: str, kind: Kind, node: Node, path: str) -> bool | _Broken:
        inner = _join(path, "experimental")
        entries = node.entries if isinstance(node, Block) else ()
        value = next((value for name, value in entries if name.text == "experimental"), None)
        enabled: Any = False
        if value is not None and not (isinstance(value, Scalar) and value.is_null):
            enabled = self._scalar(bool, value, inner)
        if enabled is BROKEN or enabled is True or not kind.experimental:
            return enabled  # type: ignore[no-any-return]  # a bool or BROKEN, as read above
        text = (
            f"The {kind.id} {EXPERIMENTAL_GROUPS[group]} is experimental and must be explicitly enabled by setting the "
            "'experimental' parameter to 'true'"
        )
        return self.report(inner, f"{text} on each router." if group == "protocols" else f"{text}.")

    def _default_kind(self, group: str, id: str, path: str) -> Chosen | _Broken:
        """The kind that an absent block means; its ``line`` is 0."""
        kind = self._kind(group, id, path)
        if isinstance(kind, _Broken):
            return kind
        config = self.block(kind.config, Block(start=self._place(path) or 0, end=0, entries=()), path)
        return config if isinstance(config, _Broken) else Chosen(kind=kind, config=config, path=path)

    def _scalar(self, wanted: Any, node: Node, path: str) -> Any:
        if not isinstance(node, Scalar):
            return self.report(path, f"expected a single value, found {_described(node)}", at=node.start)
        try:
            return read_scalar(wanted, node)
        except BadDeclaration as error:
            return self.report(path, f"the configuration class is unusable: {error}", at=node.start)
        except BadValue as error:
            if error.offset is None:
                return self.report(path, str(error), at=node.start, suggestion=error.suggestion)
            at = locate(self._text, node, error.offset)
            excerpt = pointed(node.text, error.offset)
            return self.report(path, str(error), at=node.start if at is None else at, suggestion=error.suggestion, excerpt=excerpt)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _described(node: Node) -> str:
    if isinstance(node, Scalar):
        return "nothing" if node.is_null else quote(node.text)
    return "a list" if isinstance(node, Items) else "an object"
