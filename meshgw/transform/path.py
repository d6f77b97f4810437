"""Transformers that put another name in place of what was bound: ``io.l5d.replace`` and ``io.l5d.const``.

Source: linkerd-config spec 8.3. The other name is bound by the same interpreter with an empty dtab. What the request's own name
led to is no longer visible behind it, so delegations through these transformers cannot be explained.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from meshgw.config.document import option
from meshgw.core.address import Bound
from meshgw.core.live import Live, Source, constant, live_flat_map, live_map
from meshgw.errors import NamerError
from meshgw.kinds import Kind, Runtime
from meshgw.naming.path import Path
from meshgw.naming.tree import Alt, Leaf, NameTree, Union, Weighted, leaves, map_leaves, simplified


def _grafted(tree: NameTree[Bound], replacement: NameTree[Bound]) -> NameTree[Bound]:
    """``tree`` with every leaf replaced."""
    if isinstance(tree, Leaf):
        return replacement
    if isinstance(tree, Alt):
        return Alt(tuple(_grafted(child, replacement) for child in tree.trees))
    if isinstance(tree, Union):
        return Union(tuple(Weighted(branch.weight, _grafted(branch.tree, replacement)) for branch in tree.branches))
    return tree


@attrs.frozen(eq=False)
class _Replacement:
    """Another name, bound; ``bind`` is called when the value is observed, since the interpreter is still being built before."""

    path: Path
    prefix: Path
    bind: Callable[[Path], Live[NameTree[Bound]]]

    def live(self) -> Live[NameTree[Bound]]:
        """The live tree of the other name, its ids prefixed."""

        def start(out: Source[NameTree[Bound]]) -> Callable[[], None]:
            return self.bind(self.path).observe(out.put).close

        return live_map(Source(start, forget=True), lambda tree: map_leaves(tree, self._prefixed))

    def _prefixed(self, bound: Bound) -> Bound:
        return Bound(self.prefix + bound.id, bound.addr, bound.residual)


@attrs.frozen(eq=False)
class ReplaceTransformer:
    """Every bound name becomes the replacement; a name that does not exist stays so."""

    name: str
    replacement: _Replacement

    @property
    def can_delegate(self) -> bool:
        """The name's own steps are hidden."""
        return False

    def transform(self, tree: Live[NameTree[Bound]]) -> Live[NameTree[Bound]]:
        """The tree with the replacement for every leaf."""

        def replaced(value: NameTree[Bound]) -> Live[NameTree[Bound]]:
            if not leaves(value):
                return constant(value)
            return live_map(self.replacement.live(), lambda other: simplified(_grafted(value, other)))

        return live_flat_map(tree, replaced)


@attrs.frozen(eq=False)
class ConstTransformer:
    """Every name, existing or not, becomes the replacement; the name itself is not even looked up."""

    name: str
    replacement: _Replacement

    @property
    def can_delegate(self) -> bool:
        """The name's own steps are hidden."""
        return False

    def transform(self, tree: Live[NameTree[Bound]]) -> Live[NameTree[Bound]]:
        """The replacement."""
        return self.replacement.live()


@attrs.frozen(kw_only=True)
class ReplaceConfig:
    """Replaces every bound name by another one."""

    path: Path = option(doc="The name to use instead; it is bound by namers alone, without a dtab.")
    prefix: Path | None = option(default=None, doc="Put after `/%` in front of the ids of bound names.", effective="/io.l5d.replace")


@attrs.frozen(kw_only=True)
class ConstConfig:
    """Binds every name, even one that does not exist, to one fixed name."""

    path: Path = option(doc="The name to use always; it is bound by namers alone, without a dtab.")
    prefix: Path | None = option(default=None, doc="Put after `/%` in front of the ids of bound names.", effective="/io.l5d.const")


def _replacement(kind: str, path: Path, prefix: Path | None, runtime: Runtime) -> _Replacement:
    if runtime.bind is None:
        raise NamerError(detail=f"{kind}: names cannot be bound at this place of the configuration; put the transformer on an interpreter")
    return _Replacement(path, Path.of("%") + (Path.of(kind) if prefix is None else prefix), runtime.bind)


def build_replace(config: ReplaceConfig, runtime: Runtime) -> ReplaceTransformer:
    """The transformer for a configuration block. Raises :class:`NamerError` where nothing can be bound."""
    return ReplaceTransformer(REPLACE.id, _replacement(REPLACE.id, config.path, config.prefix, runtime))


def build_const(config: ConstConfig, runtime: Runtime) -> ConstTransformer:
    """The transformer for a configuration block. Raises :class:`NamerError` where nothing can be bound."""
    return ConstTransformer(CONST.id, _replacement(CONST.id, config.path, config.prefix, runtime))


REPLACE = Kind(id="io.l5d.replace", config=ReplaceConfig, build=build_replace)
CONST = Kind(id="io.l5d.const", config=ConstConfig, build=build_const)
