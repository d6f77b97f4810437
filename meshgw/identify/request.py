"""Identifiers: the logical name of an HTTP request, from its method and host, its path, or a header.

Source: linkerd-config spec 5.2. Names are ``dstPrefix`` plus what the identifier finds; labels keep the request's raw bytes. Ingress
rules are not here but in ``identify.ingress``.

Hot path: each identifier remembers the paths it made, keyed by the raw bytes they were made from, so that a request like an
earlier one costs a dictionary lookup and no parsing. Keys come from callers, hence the two limits below.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from meshgw.config.document import at_least, option
from meshgw.errors import BadRequest, Unidentified
from meshgw.kinds import Identified, Kind, Runtime
from meshgw.naming.path import Path

if TYPE_CHECKING:
    from meshgw.core.exchange import Exchange

MOST_REMEMBERED: Final = 1024  # as many as the route cache holds paths (dtab spec 5.6); dropped all at once, which needs no order
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
LONGEST_REMEMBERED: Final = 512  # bytes of a key, so that a memo stays under a megabyte


class RequestIdentifier(Protocol):
    """An identifier of this module: ``kind`` is its id, ``header_names`` are the lower-case names of the headers it looks at."""

    @property
    def kind(self) -> str:
        """The id as written in the configuration."""
        ...

    @property
    def header_names(self) -> tuple[bytes, ...]:
        """The lower-case names of the headers to keep at hand."""
        ...

    def identify(self, ex: Exchange) -> Identified:
        """The logical name, or the reason why there is none, or that it is not known yet."""
        ...


class Declined(str):
    """The last identifier's reason, with those of all that were tried as (kind, reason)."""

    __slots__ = ("tried",)

    tried: tuple[tuple[str, str], ...]


def unidentified(ex: Exchange, reason: str) -> Unidentified:
    """The error for a request that no identifier knows; ``reason`` is what ``identify`` returned."""
    tried = reason.tried if isinstance(reason, Declined) else ()
    line = b"%b %b" % (ex.method, ex.target)
    host, port = ex.peer[:2]
    request = f'Request("{line.decode("ascii", "backslashreplace")}", from /{host}:{port})'
    return Unidentified(request=request, reason=str(reason), tried=tried)


class MethodAndHost:
    """``/1.1/<METHOD>/<host in lower case>``, for HTTP/1.0 ``/1.0/<METHOD>``; with ``with_uri`` the URI's segments follow."""

    kind: Final = "io.l5d.methodAndHost"
    header_names: Final = (b"host",)

    __slots__ = ("_known", "_prefix", "_with_uri")

    def __init__(self, prefix: Path, *, with_uri: bool = False) -> None:
        self._prefix, self._with_uri = prefix, with_uri
        self._known: dict[tuple[bytes, ...], Path] = {}

    def identify(self, ex: Exchange) -> Path | str:
        """The name, or why there is none."""
        method, host = ex.method, None
        if ex.version == b"1.1":
            host = ex.host
            if not host:
                return "HTTP/1.1 request missing hostname"
            key = (method, host, ex.target) if self._with_uri else (method, host)
        elif ex.version == b"1.0":
            key = (method, b"", ex.target) if self._with_uri else (method, b"")
        else:
            return f"Unknown HTTP version HTTP/{ex.version.decode('ascii', 'backslashreplace')}"
        path = self._known.get(key)
        return self._made(key, method, host, ex.target) if path is None else path

    def _made(self, key: tuple[bytes, ...], method: bytes, host: bytes | None, target: bytes) -> Path:
        name: tuple[bytes, ...] = (b"1.0", method) if host is None else (b"1.1", method, host.lower())
        if self._with_uri:
            # Empty segments cannot be labels; a name has no place for them.
            name += tuple(segment for segment in target.partition(b"?")[0].split(b"/") if segment)
        path = self._prefix + name
        if sum(map(len, key)) <= LONGEST_REMEMBERED:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[key] = path
        return path


class _Remembering:
    """What the identifiers with a key of one byte string share: the memo."""

    __slots__ = ("_known", "_prefix")

    def __init__(self, prefix: Path) -> None:
        self._prefix = prefix
        self._known: dict[bytes, Path] = {}

    def _remember(self, key: bytes, path: Path) -> Path:
        if len(key) <= LONGEST_REMEMBERED:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[key] = path
        return path


class UriPath(_Remembering):
    """The first ``segments`` of the URI's path; with ``consume`` they are cut from the forwarded URI."""

    kind: Final = "io.l5d.path"
    header_names: Final[tuple[bytes, ...]] = ()

    __slots__ = ("_consume", "_segments")

    def __init__(self, prefix: Path, *, segments: int = 1, consume: bool = False) -> None:
        super().__init__(prefix)
        self._segments, self._consume = segments, consume

    def identify(self, ex: Exchange) -> Path | str:
        """The name, or why there is none."""
        target = ex.target
        limit = target.find(b"?")
        if limit < 0:
            limit = len(target)
        end = 0
        for _ in range(self._segments):
            # An empty segment cannot be a label, so it ends the name: `//a` has no first segment.
            if target[end : end + 1] != b"/" or end + 1 >= limit or target[end + 1] == 0x2F:
                return "not enough segments in path"
            end = target.find(b"/", end + 1, limit)
            if end < 0:
                end = limit
        head = target[:end]
        path = self._known.get(head)
        if path is None:
            path = self._remember(head, self._prefix + tuple(head.split(b"/")[1:]))
        if self._consume:
            rest = target[end:]
            ex.target = rest if rest[:1] == b"/" else b"/" + rest
        return path


class _ByHeader(_Remembering):
    """What the identifiers by a header share; the subclass makes a name of a value that was not seen before."""

    __slots__ = ("_absent", "_header", "header_names")

    def __init__(self, prefix: Path, header: str) -> None:
        super().__init__(prefix)
        lower = header.lower()
        self._header = b"host" if lower == ":authority" else lower.encode("latin-1", "replace")
        self.header_names = (self._header,)
        self._absent = f"{header} header is absent"

    def identify(self, ex: Exchange) -> Path | str:
        """The name, or why there is none. May raise :class:`BadRequest` for the header's value."""
        value = ex.header(self._header)
        if not value:
            return self._absent
        path = self._known.get(value)
        return self._remember(value, self._prefix + self._named(value)) if path is None else path

    def _named(self, value: bytes) -> tuple[bytes, ...]:
        raise NotImplementedError  # pragma: no cover - abstract


class HeaderPath(_ByHeader):
    """The value of a header, read as a path. Raises :class:`BadRequest` for a value that is no path."""

    kind: Final = "io.l5d.header"

    __slots__ = ()

    def __init__(self, prefix: Path, *, header: str = "l5d-name") -> None:
        super().__init__(prefix, header)

    def _named(self, value: bytes) -> Path:
        try:
            return Path.read(value.decode("latin-1"))
        except ValueError as error:
            raise BadRequest(reason=str(error)) from error


class HeaderToken(_ByHeader):
    """The exact value of a header as one label."""

    kind: Final = "io.l5d.header.token"

    __slots__ = ()

    def __init__(self, prefix: Path, *, header: str = "Host") -> None:
        super().__init__(prefix, header)

    def _named(self, value: bytes) -> tuple[bytes, ...]:
        return (value,)


class PathHeader:
    """The first ``segments`` of a header that holds a URI's path, by default that of the request; all of them without a number."""

    kind: Final = "io.l5d.header.path"

    __slots__ = ("_header", "_known", "_prefix", "_segments", "header_names")

    def __init__(self, prefix: Path, *, header: str = ":path", segments: int | None = None) -> None:
        self._prefix, self._segments = prefix, segments
        self._header = None if header == ":path" else header.lower().encode("latin-1", "replace")
        self.header_names = () if self._header is None else (self._header,)
        self._known: dict[bytes, Path] = {}

    def identify(self, ex: Exchange) -> Path | str:
        """The name, or why there is none."""
        value = ex.target if self._header is None else ex.header(self._header)
        if not value:
            return "Missing destination path"
        path = self._known.get(value)
        return self._made(value) if path is None else path

    def _made(self, value: bytes) -> Path | str:
        # an empty segment cannot be a label; one trailing slash counts for nothing (spec 6.1)
        labels = value.partition(b"?")[0].removesuffix(b"/").split(b"/")
        if labels[0] or len(labels) == 1:
            return "Missing destination path"
        labels = labels[1 : None if self._segments is None else self._segments + 1]
        if self._segments is not None and (len(labels) < self._segments or not all(labels)):
            return f"Path must have at least {self._segments} segment(s)"
        if not all(labels):
            return "Path has an empty segment"
        path = self._prefix + tuple(labels)
        if len(value) <= LONGEST_REMEMBERED:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[value] = path
        return path


class Static:
    """Always the same name."""

    kind: Final = "io.l5d.static"
    header_names: Final[tuple[bytes, ...]] = ()

    __slots__ = ("_path",)

    def __init__(self, prefix: Path, path: Path) -> None:
        self._path = prefix + path

    def identify(self, ex: Exchange) -> Path | str:
        """The name."""
        return self._path


class Chain:
    """Several identifiers in order: the first name counts; if there is none, the last reason, as :class:`Declined`."""

    kind: Final = "chain"

    __slots__ = ("_identifiers", "header_names")

    def __init__(self, identifiers: Sequence[RequestIdentifier]) -> None:
        self._identifiers = tuple(identifiers)
        self.header_names = tuple(dict.fromkeys(name for one in self._identifiers for name in one.header_names))

    def identify(self, ex: Exchange) -> Identified:
        """The name, or why there is none. What an identifier raises ends the chain, as does one that cannot tell yet."""
        for identifier in self._identifiers:
            found = identifier.identify(ex)
            if not isinstance(found, str):
                return found
        return self._declined(ex)

    def _declined(self, ex: Exchange) -> Declined:
        # Asked once more for all the reasons: this happens only to requests that fail, so the others need not collect any.
        tried = tuple((identifier.kind, str(identifier.identify(ex))) for identifier in self._identifiers)
        declined = Declined(tried[-1][1])
        declined.tried = tried
        return declined


def chain(identifiers: Sequence[RequestIdentifier]) -> RequestIdentifier:
    """One identifier for several; a single one is returned as it is. Raises ``ValueError`` for none."""
    if not identifiers:
        raise ValueError("a router needs at least one identifier")
    return identifiers[0] if len(identifiers) == 1 else Chain(identifiers)


@attrs.frozen(kw_only=True)
class MethodAndHostConfig:
    """Names a request by HTTP version, method and Host header: `/1.1/GET/example.com`; an HTTP/1.0 request as `/1.0/GET`."""

    http_uri_in_dst: bool = option(default=False, doc="Append the segments of the URI's path to the name.")


@attrs.frozen(kw_only=True)
class PathConfig:
    """Names a request by the first segments of its URI's path."""

    segments: int = option(default=1, doc="How many segments to take; a shorter path has no name.", check=at_least(1))
    consume: bool = option(default=False, doc="Cut these segments from the URI that is forwarded.")


def _header_name(value: str) -> str | None:
    return None if _TOKEN.fullmatch(value.removeprefix(":")) else "must be the name of an HTTP header"


def _segments(value: int | None) -> str | None:
    return None if value is None or value >= 1 else "`segments` must be >= 1"


@attrs.frozen(kw_only=True)
class HeaderConfig:
    """Names a request by a header whose value is a path."""

    header: str = option(default="l5d-name", doc="The header that holds the path, which begins with `/`.", check=_header_name)


@attrs.frozen(kw_only=True)
class HeaderTokenConfig:
    """Names a request by the exact value of a header, taken as one label."""

    header: str = option(default="Host", doc="The header that holds the label.", check=_header_name)


@attrs.frozen(kw_only=True)
class HeaderPathConfig:
    """Names a request by the segments of a path: for gRPC, two are the service and the method."""

    header: str = option(default=":path", doc="The header that holds the path.", check=_header_name)
    segments: int | None = option(
        default=None, doc="How many segments to take; a shorter path has no name.", check=_segments, effective="all of them"
    )


@attrs.frozen(kw_only=True)
class StaticConfig:
    """Gives every request the same name."""

    path: Path = option(doc="The name.")


def _build_method_and_host(config: MethodAndHostConfig, runtime: Runtime, *, prefix: Path) -> MethodAndHost:
    return MethodAndHost(prefix, with_uri=config.http_uri_in_dst)


def _build_path(config: PathConfig, runtime: Runtime, *, prefix: Path) -> UriPath:
    return UriPath(prefix, segments=config.segments, consume=config.consume)


def _build_header(config: HeaderConfig, runtime: Runtime, *, prefix: Path) -> HeaderPath:
    return HeaderPath(prefix, header=config.header)


def _build_header_token(config: HeaderTokenConfig, runtime: Runtime, *, prefix: Path) -> HeaderToken:
    return HeaderToken(prefix, header=config.header)


def _build_header_path(config: HeaderPathConfig, runtime: Runtime, *, prefix: Path) -> PathHeader:
    return PathHeader(prefix, header=config.header, segments=config.segments)


def _build_static(config: StaticConfig, runtime: Runtime, *, prefix: Path) -> Static:
    return Static(prefix, config.path)


_HTTP: Final = frozenset({"http"})
_BOTH: Final = frozenset({"http", "h2"})
METHOD_AND_HOST = Kind(id=MethodAndHost.kind, config=MethodAndHostConfig, build=_build_method_and_host, protocols=_HTTP)
PATH = Kind(id=UriPath.kind, config=PathConfig, build=_build_path, protocols=_HTTP)
HEADER = Kind(id=HeaderPath.kind, config=HeaderConfig, build=_build_header, protocols=_HTTP)
HEADER_TOKEN = Kind(id=HeaderToken.kind, config=HeaderTokenConfig, build=_build_header_token, protocols=_BOTH)
HEADER_PATH = Kind(id=PathHeader.kind, config=HeaderPathConfig, build=_build_header_path, protocols=frozenset({"h2"}))
STATIC = Kind(id=Static.kind, config=StaticConfig, build=_build_static, protocols=_BOTH)
