"""``Path``: a sequence of labels, the name of everything that is routed to.

Source: dtab spec 1, 2.1 and 3. A path is a tuple of non-empty byte strings, so it is compared and hashed at the speed of
tuples; the route cache relies on it.
"""

from __future__ import annotations

from typing import ClassVar, SupportsIndex, overload

from meshgw.naming.text import NameSyntaxError, Scanner, show_label

__all__ = ["ROOT", "NameSyntaxError", "Path", "scan_path"]


class Path(tuple[bytes, ...]):
    """A name: zero or more labels. ``Path(labels)`` trusts its caller; ``of`` and ``read`` check."""

    __slots__ = ()
    ROOT: ClassVar[Path]

    @classmethod
    def of(cls, *labels: str | bytes) -> Path:
        """A path of these labels, text as UTF-8. Raises ``ValueError`` for an empty label."""
        path = cls(label.encode("utf-8") if isinstance(label, str) else label for label in labels)
        if b"" in tuple(path):
            raise ValueError(f"a label of a path is empty: {labels!r}")
        return path

    @classmethod
    def read(cls, text: str) -> Path:
        """Parse a whole text. Raises :class:`NameSyntaxError`."""
        scanner = Scanner(text)
        scanner.skip_blank()
        path = scan_path(scanner)
        scanner.skip_blank()
        scanner.expect_end()
        return path

    def show(self) -> str:
        """The canonical text; reading it gives the same path."""
        return "/" + "/".join([show_label(label) for label in self])

    def take(self, count: int) -> Path:
        """The first ``count`` labels, or all if there are fewer."""
        return Path(tuple.__getitem__(self, slice(count)))

    def drop(self, count: int) -> Path:
        """All but the first ``count`` labels."""
        return Path(tuple.__getitem__(self, slice(count, None)))

    def startswith(self, other: tuple[object, ...]) -> bool:
        """Whether the labels of ``other`` are the first of this path."""
        return tuple.__getitem__(self, slice(len(other))) == other

    def __add__(self, other: tuple[bytes, ...]) -> Path:  # type: ignore[override]  # narrower than tuple: labels only
        return Path(tuple.__add__(self, other))

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> bytes: ...
    @overload
    def __getitem__(self, key: slice, /) -> Path: ...
    def __getitem__(self, key: SupportsIndex | slice, /) -> bytes | Path:
        if isinstance(key, slice):
            return Path(tuple.__getitem__(self, key))
        return tuple.__getitem__(self, key)

    def __str__(self) -> str:
        return self.show()

    def __repr__(self) -> str:
        return f"Path.read({self.show()!r})"


ROOT = Path()
Path.ROOT = ROOT


def scan_path(scanner: Scanner) -> Path:
    """The path at the scanner's position; a ``/`` that no label character follows is the root and ends it."""
    scanner.expect("/")
    label = scanner.label()
    if label is None:
        return ROOT
    labels = [label]
    while scanner.accept("/"):
        label = scanner.label()
        if label is None:
            scanner.fail("a label character")
        labels.append(label)
    return Path(labels)
