"""The scanner under paths, trees and dtabs, and the one error they all raise.

Source: dtab spec 2 (grammar) and 2.4 (errors). The scanner knows tokens and positions; the rules of each notation stand in
``path``, ``tree`` and ``dtab``.
"""

from __future__ import annotations

import re
from typing import ClassVar, NoReturn

from meshgw.errors import MeshError

SHOWABLE = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_:.#$%-"
_PLAIN = re.compile(r"[0-9A-Za-z_:.#$%-]+")
_BLANK = re.compile(r"(?:[ \t-\r\x1c-\x1f]|#[^\n]*)+")
_ESCAPE_DIGITS = "0123456789abcdefABCDEF"


class NameSyntaxError(MeshError, ValueError):
    """Text that is not a path, tree or dtab: what was expected at ``offset`` and what stands there instead."""

    phase: ClassVar[str] = "receive"
    status: ClassVar[int] = 400

    def __init__(self, text: str, offset: int, expected: str) -> None:
        super().__init__(text, offset, expected)
        self.text = text
        self.offset = offset
        self.expected = expected

    @property
    def found(self) -> str:
        """The offending character, or an empty string at the end of the input."""
        return self.text[self.offset : self.offset + 1]

    @property
    def line(self) -> int:
        """The line of the offending character, counted from 1."""
        return self.text.count("\n", 0, self.offset) + 1

    @property
    def column(self) -> int:
        """The column of the offending character, counted from 1."""
        return self.offset - self.text.rfind("\n", 0, self.offset)

    def caret(self) -> str:
        """Two lines: the offending line of the input, and a caret under the character."""
        start = self.text.rfind("\n", 0, self.offset) + 1
        end = self.text.find("\n", self.offset)
        line = self.text[start : end if end >= 0 else len(self.text)].rstrip("\r")
        # tabs are repeated before the caret, so that it stands right whatever their width is
        margin = "".join("\t" if character == "\t" else " " for character in self.text[start : self.offset])
        return f"{line}\n{margin}^"

    def __str__(self) -> str:
        found = repr(self.found) if self.found else "the end"
        where = f"line {self.line}, column {self.column}"
        before, after = self.text[: self.offset], self.text[self.offset + 1 :]
        return f"{self.expected} expected but {found} found at {where} in '{before}[{self.found}]{after}'"


class Scanner:
    """A position in a text, moved forward by the notations' rules."""

    __slots__ = ("offset", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.offset = 0

    def fail(self, expected: str) -> NoReturn:
        """Raise the syntax error for the present position."""
        raise NameSyntaxError(self.text, self.offset, expected)

    def peek(self) -> str:
        """The next character, or an empty string at the end."""
        return self.text[self.offset : self.offset + 1]

    def skip_blank(self) -> None:
        """Pass over white space and comments; ``#`` starts a comment only here."""
        blank = _BLANK.match(self.text, self.offset)
        if blank is not None:
            self.offset = blank.end()

    def accept(self, token: str) -> bool:
        """Pass over ``token`` if it comes next."""
        if self.text.startswith(token, self.offset):
            self.offset += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        """Pass over ``token`` or fail."""
        if not self.accept(token):
            self.fail(f"'{token}'")

    def expect_end(self) -> None:
        """Fail unless the whole text was read."""
        if self.offset != len(self.text):
            self.fail("the end of the input")

    def label(self) -> bytes | None:
        """The label at the present position, or ``None`` if no label character comes next."""
        plain = _PLAIN.match(self.text, self.offset)
        if plain is not None:
            self.offset = plain.end()
            if self.peek() != "\\":
                return plain.group().encode("ascii")
        elif self.peek() != "\\":
            return None
        return self._escaped_label(plain.group().encode("ascii") if plain is not None else b"")

    def _escaped_label(self, start: bytes) -> bytes:
        label = bytearray(start)
        while True:
            plain = _PLAIN.match(self.text, self.offset)
            if plain is not None:
                label += plain.group().encode("ascii")
                self.offset = plain.end()
            elif self.accept("\\"):
                self.expect("x")
                label.append(self._hex_digit() * 16 + self._hex_digit())
            else:
                return bytes(label)

    def _hex_digit(self) -> int:
        digit = self.peek()
        if not digit or digit not in _ESCAPE_DIGITS:
            self.fail("a hexadecimal digit")
        self.offset += 1
        return int(digit, 16)


def show_label(label: bytes) -> str:
    r"""A label's text: as it is, or every byte as ``\xNN`` if one of them cannot be shown (dtab spec 3)."""
    if not label.translate(None, SHOWABLE):
        return label.decode("ascii")
    return "".join(f"\\x{byte:02x}" for byte in label)
