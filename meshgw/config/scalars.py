"""One scalar of the file → a value of the wanted type.

Source: linkerd-config spec 1.2 (value types and coercions). Numbers may be given as text and the reverse, except that a port must
be a number as such. A type with a ``read(text)`` class method (Path, Dtab, PathMatcher, ...) reads itself and raises ValueError.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from meshgw.config.fields import BadDeclaration, is_regex
from meshgw.config.nodes import Scalar
from meshgw.config.problems import near, quote
from meshgw.config.values import Directory, File, Ip, Port
from meshgw.naming.text import NameSyntaxError

_INT: Final = re.compile(r"[+-]?[0-9](?:_?[0-9])*(?:\.0*)?\Z")
_FLOAT: Final = re.compile(r"[+-]?(?:[0-9](?:_?[0-9])*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
# Linkerd's integers are 32 or 64 bits wide; nothing in the file has a meaning beyond that.
_INT_LIMIT: Final = 2**63


class BadValue(ValueError):
    """A scalar is no value of the wanted type; ``offset`` is the offending character in its text, if known."""

    def __init__(self, message: str, *, offset: int | None = None, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.offset, self.suggestion = offset, suggestion


def read_scalar(wanted: Any, node: Scalar) -> Any:
    """The value of type ``wanted`` that ``node`` writes. Raises :class:`BadValue`, for an unknown type BadDeclaration."""
    if node.is_null:
        raise BadValue("expected a value, found nothing")
    if is_regex(wanted):
        return _regex(node)
    reader = _READERS.get(wanted)
    if reader is not None:
        return reader(node)
    if hasattr(wanted, "__supertype__"):
        return read_scalar(wanted.__supertype__, node)
    if isinstance(wanted, type) and callable(getattr(wanted, "read", None)):
        return _self_reading(wanted, node)
    raise BadDeclaration(f"no value of type {wanted!r} can be read from the file")


def _bool(node: Scalar) -> bool:
    if node.text in _TRUE:
        return True
    if node.text in _FALSE:
        return False
    meant = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(node.text.lower())
    suggestion = f"write {meant}" if meant else near(node.text, ("true", "false"))
    raise BadValue(f"expected true or false, found {quote(node.text)}", suggestion=suggestion)


def _int(node: Scalar) -> int:
    text = node.text.strip()
    if len(text) > 40 or _INT.match(text) is None:
        raise BadValue(f"expected a whole number, found {quote(node.text)}")
    value = int(text.partition(".")[0].replace("_", ""))
    if not -_INT_LIMIT <= value < _INT_LIMIT:
        raise BadValue(f"{text} is too large for a number of 64 bits")
    return value


def _float(node: Scalar) -> float:
    text = node.text.strip()
    value = float(text.replace("_", "")) if _FLOAT.match(text) else math.inf
    if not math.isfinite(value):
        raise BadValue(f"expected a number, found {quote(node.text)}")
    return value


def _port(node: Scalar) -> int:
    if not node.plain:
        raise BadValue(f"expected a port number, found the text {quote(node.text)}", suggestion="write it without quotes")
    value = _int(node)
    if not 0 <= value <= 65535:
        raise BadValue(f"{value} outside valid range for ports", suggestion="expected 0 to 65535")
    return value


def _ip(node: Scalar) -> str:
    try:
        ipaddress.ip_address(node.text)
    except ValueError:
        suggestion = "host names are not resolved here"
        raise BadValue(f"expected a literal IPv4 or IPv6 address, found {quote(node.text)}", suggestion=suggestion) from None
    return node.text


def _local(node: Scalar, is_there: Callable[[str], bool], what: str) -> str:
    try:
        found = is_there(node.text)
    except (OSError, ValueError):  # a NUL in the name
        found = False
    if not found:
        detail = "it does not exist" if "\0" in node.text or not os.path.lexists(node.text) else None
        raise BadValue(f"{node.text} is not a {what}", suggestion=detail)
    return node.text


def _directory(node: Scalar) -> str:
    return _local(node, os.path.isdir, "directory")


def _file(node: Scalar) -> str:
    return _local(node, os.path.isfile, "file")


def _text(node: Scalar) -> str:
    return node.text


def _regex(node: Scalar) -> re.Pattern[str]:
    try:
        return re.compile(node.text)
    except (re.error, OverflowError, RecursionError) as error:
        offset = error.pos if isinstance(error, re.error) else None
        raise BadValue(f"not a regular expression: {error}", offset=offset) from error


def _self_reading(wanted: type[Any], node: Scalar) -> Any:
    what = {"Dtab": "dtab", "Path": "path", "Prefix": "prefix", "PathMatcher": "path pattern"}.get(wanted.__name__, wanted.__name__)
    try:
        return wanted.read(node.text)
    except (ValueError, RecursionError) as error:
        if not isinstance(error, NameSyntaxError):
            raise BadValue(str(error) or f"not a valid {what}") from error
        found = repr(error.found) if error.found else "the end"
        raise BadValue(f"not a valid {what}: expected {error.expected}, found {found}", offset=error.offset) from error


_READERS: Final[Mapping[Any, Callable[[Scalar], Any]]] = {
    bool: _bool,
    int: _int,
    float: _float,
    str: _text,
    Port: _port,
    Ip: _ip,
    Directory: _directory,
    File: _file,
}
