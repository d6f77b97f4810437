"""The dashboard's files: scripts, style sheets and icon, read once and served from memory by a fixed table of paths.

Source: linkerd-config spec 2.3 (``/files/*``, ``/admin/files/*``, ``/favicon.ico``). A path is looked up, never joined to a directory, so
that none leads out of it. Every file is there twice: under its plain name, where browsers ask each time whether it has changed, and under
the digest of all files together, where they keep it for good. Pages refer to the latter; as scripts import each other by relative paths,
one page always gets files of one version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import PurePosixPath

import attrs

PREFIXES = ("/admin/files", "/files")
ICON = "favicon.svg"

_TYPES = {
    "css": "text/css",
    "gif": "image/gif",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain",
}
_ASK_AGAIN = "no-cache"
_KEEP = "private, max-age=31536000, immutable"  # private: what needs a token must not stay in caches that others share


@attrs.frozen
class Asset:
    """A file as it is served; ``etag`` is a strong validator, with its quotes."""

    body: bytes
    content_type: str
    etag: str
    cache_control: str = _ASK_AGAIN


class Assets:
    """All files of the dashboard, by the path at which they are served."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        """``contents`` has the files by name."""
        self.digest = _digest(*(part for name in sorted(contents) for part in (name.encode(), contents[name])))
        self.by_path: dict[str, Asset] = {}
        for name, body in contents.items():
            asset = Asset(body, content_type(name), f'"{_digest(body)}"')
            kept = attrs.evolve(asset, cache_control=_KEEP)
            for prefix in PREFIXES:
                self.by_path[f"{prefix}/{name}"] = asset
                self.by_path[f"{prefix}/{self.digest}/{name}"] = kept
        if ICON in contents:
            self.by_path["/favicon.ico"] = self.by_path[f"{PREFIXES[0]}/{ICON}"]

    def url(self, name: str) -> str:
        """Where a page finds a file in this version."""
        return f"{PREFIXES[0]}/{self.digest}/{name}"


def packaged() -> Assets:
    """The files that are installed with this package."""
    directory = files("meshgw.admin") / "static"
    return Assets({file.name: file.read_bytes() for file in directory.iterdir() if file.is_file() and not file.name.startswith(".")})


def content_type(name: str) -> str:
    """The media type of a file name (spec 2.3)."""
    known = _TYPES.get(PurePosixPath(name).suffix[1:].lower())
    return f"{known};charset=UTF-8" if known else "application/octet-stream"


def is_current(etag: str, if_none_match: Iterable[str]) -> bool:
    """Whether a client that sent these fields ``If-None-Match`` has the file already (RFC 9110, 13.1.2: compared weakly)."""
    tags = [tag.strip() for field in if_none_match for tag in field.split(",")]
    return "*" in tags or etag in (tag.removeprefix("W/") for tag in tags)


def _digest(*parts: bytes) -> str:
    digest = sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()[:16]
