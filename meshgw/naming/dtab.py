"""``Dtab``: the ordered delegation rules, their text and one step of rewriting.

Source: dtab spec 2.3 (notation), 3 (canonical text) and 4 (operations). Later entries are preferred; there is no longest-prefix rule.
Following names to the end is done in ``bind``; the value classes that record it are in ``naming.delegation``.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from enum import Enum
from typing import ClassVar, Final, Literal, SupportsIndex, overload

import attrs

from meshgw.naming.delegation import Delegation
from meshgw.naming.path import Path
from meshgw.naming.text import NameSyntaxError, Scanner, show_label
from meshgw.naming.tree import NEG, Alt, NameTree, Neg, map_leaves, scan_tree, show_tree, simplified

__all__ = ["WILDCARD", "Delegation", "Dentry", "Dtab", "DtabSyntaxError", "NameSyntaxError", "Prefix", "Wildcard"]

DtabSyntaxError = NameSyntaxError


class Wildcard(Enum):
    """The type of :data:`WILDCARD`."""

    ANY = "*"


WILDCARD: Final[Literal[Wildcard.ANY]] = Wildcard.ANY


class Prefix(tuple[bytes | Wildcard, ...]):
    """The left side of an entry: labels, or ``WILDCARD`` for exactly one label of any value."""

    __slots__ = ()

    @classmethod
    def of(cls, *elements: str | bytes | Wildcard) -> Prefix:
        """A prefix of these elements; the text ``"*"`` is the wildcard. Raises ``ValueError`` for an empty label."""
        prefix = cls(_element(element) for element in elements)
        if b"" in prefix:
            raise ValueError(f"a label of a prefix is empty: {elements!r}")
        return prefix

    @classmethod
    def read(cls, text: str) -> Prefix:
        """Parse a whole text. Raises :class:`DtabSyntaxError`."""
        scanner = Scanner(text)
        scanner.skip_blank()
        prefix = _scan_prefix(scanner)
        scanner.skip_blank()
        scanner.expect_end()
        return prefix

    def show(self) -> str:
        """The canonical text."""
        return "/" + "/".join(["*" if isinstance(element, Wildcard) else show_label(element) for element in self])

    def matches(self, path: Path) -> bool:
        """Whether the first labels of ``path`` are these, compared as whole labels."""
        if path.startswith(self):  # at the speed of tuples; wildcards equal no label and are rare
            return True
        return (
            WILDCARD in self
            and len(self) <= len(path)
            and all(element == label or element is WILDCARD for element, label in zip(self, path, strict=False))
        )

    def __repr__(self) -> str:
        return f"Prefix.read({self.show()!r})"


def _element(element: str | bytes | Wildcard) -> bytes | Wildcard:
    if isinstance(element, str):
        return WILDCARD if element == "*" else element.encode("utf-8")
    return element


@attrs.frozen
class Dentry:
    """One rule: names under ``prefix`` are rewritten to ``dst``, the rest of the name appended to each leaf."""

    prefix: Prefix
    dst: NameTree[Path]

    @classmethod
    def read(cls, text: str) -> Dentry:
        """Parse a whole text. Raises :class:`DtabSyntaxError`."""
        scanner = Scanner(text)
        scanner.skip_blank()
        dentry = _scan_dentry(scanner)
        scanner.skip_blank()
        scanner.expect_end()
        return dentry

    def show(self) -> str:
        """The canonical text."""
        return f"{self.prefix.show()}=>{show_tree(self.dst)}"

    def rewrite(self, path: Path) -> NameTree[Path]:
        """``dst`` for a path that the prefix matches."""
        rest = path.drop(len(self.prefix))
        return map_leaves(self.dst, lambda leaf: leaf + rest) if rest else self.dst


class Dtab(tuple[Dentry, ...]):
    """Delegation rules in order; ``+`` appends, and what comes later is preferred."""

    __slots__ = ()
    EMPTY: ClassVar[Dtab]

    @classmethod
    def of(cls, dentries: Iterable[Dentry]) -> Dtab:
        """A dtab of these entries."""
        return cls(dentries)

    @classmethod
    def read(cls, text: str) -> Dtab:
        """Parse a whole text; blank is the empty dtab. Raises :class:`DtabSyntaxError`."""
        work = cls.reading(text)
        while True:
            try:
                next(work)
            except StopIteration as ended:
                found: Dtab = ended.value
                return found

    @classmethod
    def reading(cls, text: str) -> Generator[None, None, Dtab]:
        """The same, entry by entry with a pause after each, for long texts: a megabyte takes seconds."""
        scanner = Scanner(text)
        dentries: list[Dentry] = []
        while True:
            scanner.skip_blank()
            if not scanner.peek():
                return cls(dentries)
            dentries.append(_scan_dentry(scanner))
            yield
            scanner.skip_blank()
            if not scanner.accept(";"):
                if scanner.peek():
                    scanner.fail("';' or the end of the input")
                return cls(dentries)

    def show(self) -> str:
        """The canonical text, entries joined by ``;``."""
        return ";".join([dentry.show() for dentry in self])

    def matches(self, path: Path) -> list[Dentry]:
        """The entries whose prefix matches, the last-defined first."""
        return [dentry for dentry in reversed(self) if dentry.prefix.matches(path)]

    def lookup(self, path: Path) -> NameTree[Path]:
        """One step of rewriting (dtab spec 4.1): neg, one entry's tree, or the alternatives of several."""
        trees = [dentry.rewrite(path) for dentry in self.matches(path)]
        if len(trees) > 1:
            return Alt(tuple(trees))
        return trees[0] if trees else NEG

    def simplified(self) -> Dtab:
        """Each dst simplified; entries whose dst became neg are dropped."""
        entries = [Dentry(dentry.prefix, simplified(dentry.dst)) for dentry in self]
        return Dtab(entry for entry in entries if not isinstance(entry.dst, Neg))

    def equivalent(self, other: Dtab) -> bool:
        """Same length and prefixes, and destinations that are equal once simplified."""
        return len(self) == len(other) and all(
            mine.prefix == theirs.prefix and simplified(mine.dst) == simplified(theirs.dst)
            for mine, theirs in zip(self, other, strict=True)
        )

    def strip_prefix(self, start: Dtab) -> Dtab:
        """What follows the entries of ``start``, or this dtab itself if it does not begin with them."""
        return self[len(start) :] if self[: len(start)] == start else self

    def __add__(self, other: tuple[Dentry, ...]) -> Dtab:  # type: ignore[override]  # narrower than tuple: entries only
        return Dtab(tuple.__add__(self, other))

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> Dentry: ...
    @overload
    def __getitem__(self, key: slice, /) -> Dtab: ...
    def __getitem__(self, key: SupportsIndex | slice, /) -> Dentry | Dtab:
        if isinstance(key, slice):
            return Dtab(tuple.__getitem__(self, key))
        return tuple.__getitem__(self, key)

    def __repr__(self) -> str:
        return f"Dtab.read({self.show()!r})"


Dtab.EMPTY = Dtab()


def _scan_dentry(scanner: Scanner) -> Dentry:
    prefix = _scan_prefix(scanner)
    scanner.skip_blank()
    scanner.expect("=>")
    return Dentry(prefix, scan_tree(scanner))


def _scan_prefix(scanner: Scanner) -> Prefix:
    scanner.expect("/")
    element = _scan_element(scanner)
    if element is None:
        return Prefix()
    elements = [element]
    while scanner.accept("/"):
        element = _scan_element(scanner)
        if element is None:
            scanner.fail("a label character or '*'")
        elements.append(element)
    return Prefix(elements)


def _scan_element(scanner: Scanner) -> bytes | Wildcard | None:
    return WILDCARD if scanner.accept("*") else scanner.label()
