"""How the path of a request may be understood: exactly as it stands, or in every way in which some server reads it.

Source: RFC 3986 sections 2.1, 3.3 and 6.2. Whoever decides by a path must not be led astray by its spelling, and what a service makes of
``%2e%2e``, ``//``, ``\\`` or ``;`` is not known here. So there are two questions. *Surely below* a prefix: the first segments are those
of the prefix to the letter, and nothing in the rest can climb. *Possibly below*: with all escapes undone, repeatedly, and everything that
some server takes for a separator, a parameter or nothing taken as such. A path that no reading can be given, or that climbs, is possibly
everywhere and surely nowhere.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote_to_bytes

MOST_DECODINGS: Final = 4
"""Layers of escapes that are undone; a path with more is given no reading."""
# Not with possessive quantifiers: those of Python 3.11.0 to 3.11.2, which Debian 12 has, match what they must not.
_PLAIN: Final = re.compile(rb"(?:/[A-Za-z0-9_~!$&'()*+,=:@-]+(?:\.+[A-Za-z0-9_~!$&'()*+,=:@-]+)*)*/?\Z")
"""Paths with one reading, nearly all: no escapes, no empty segments, no dots at either end of one."""
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_PARAMETER: Final = re.compile(r"[;?#]")

Segments = tuple[str, ...]


def path_of(target: bytes) -> bytes:
    """The target without its query."""
    return target.partition(b"?")[0]


def exact(path: bytes) -> Segments:
    """The segments as they stand."""
    return tuple(path.decode("latin-1").split("/")[1:])


def generous(path: bytes) -> Segments | None:
    """The segments of the widest reading, with letters folded to one case; None for a path that has none, or that climbs."""
    if _PLAIN.match(path) is not None:
        return tuple(path.decode("ascii").casefold().strip("/").split("/")) if len(path) > 1 else ()
    if path[:1] != b"/" or _BAD_ESCAPE.search(path) is not None:
        return None
    for _ in range(MOST_DECODINGS):
        decoded = unquote_to_bytes(path)
        if decoded == path:
            break
        path = decoded
    else:
        return None
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        return None  # overlong forms of a dot or slash are among these
    if _CONTROL.search(text) is not None:
        return None
    # compatibility forms, such as a full-width slash, are taken for what they resemble by servers that map to their own alphabet
    return _segments(unicodedata.normalize("NFKC", text).casefold().replace("\\", "/"))


def _segments(text: str) -> Segments | None:
    found = []
    for part in text.split("/"):
        segment = _PARAMETER.split(part, maxsplit=1)[0].strip()
        if not segment.strip(". "):
            if segment.count(".") > 1:
                return None
            continue  # empty, or a single dot
        found.append(segment.rstrip(". "))  # file systems of Windows ignore these
    return tuple(found)


def is_surely_below(prefix: Segments, path: bytes) -> bool:
    """Whether every reading of the path begins with these segments."""
    return exact(path)[: len(prefix)] == prefix and path[:1] == b"/" and generous(path) is not None


def is_possibly_below(prefix: Segments, path: bytes) -> bool:
    """Whether some reading of the path begins with these segments, which are :func:`folded`."""
    reading = generous(path)
    return reading is None or reading[: len(prefix)] == prefix


def folded(prefix: Segments) -> Segments:
    """A prefix to compare with :func:`generous` readings."""
    return tuple(segment.casefold().rstrip(".") for segment in prefix)
