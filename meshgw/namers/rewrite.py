"""``io.l5d.rewrite`` and the rewriting utilities under ``/$``: namers that answer with another name.

Source: linkerd-config spec 3.10 and 3.13, dtab spec 4.3. A name that does not fit is neg. Beyond the spec, an IPv6 host in brackets
is understood wherever a host with a port is: brackets are no label characters, such a label is shown with every byte escaped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from typing import Final

import attrs

from meshgw.config.document import Chosen, option
from meshgw.config.values import PathMatcher
from meshgw.core.address import Bound
from meshgw.core.live import Live, constant, failed
from meshgw.errors import NamerError
from meshgw.kinds import Kind, Runtime
from meshgw.naming.path import Path
from meshgw.naming.pattern import substitute_path
from meshgw.naming.text import NameSyntaxError
from meshgw.naming.tree import NEG, Leaf, NameTree

Rewrite = Callable[[Path], NameTree[Path]]

_METHOD: Final = re.compile(rb"[A-Z]+")
_HOST: Final = re.compile(rb"[A-Za-z0-9.:_-]+")
_PORT: Final = re.compile(rb"[a-z0-9][-a-z0-9]{0,62}")  # a DNS label: the port may be a name
_BRACKETED: Final = re.compile(rb"\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\](?::(.*))?", re.DOTALL)


class RewriteNamer:
    """Answers a path that begins as ``pattern`` says with ``name``, captures replaced; labels beyond the pattern are dropped."""

    def __init__(self, pattern: PathMatcher, name: str) -> None:
        self._pattern, self._name = pattern, name

    def lookup(self, path: Path) -> Live[NameTree[Path | Bound]]:
        """The name to look up next, or neg; failed if the name with its captures is no path."""
        captures = self._pattern.match(path)
        if captures is None:
            return constant(NEG)
        try:
            answer: NameTree[Path | Bound] = Leaf(substitute_path(self._name, captures))
        except NameSyntaxError as error:
            return failed(NamerError(detail=f"io.l5d.rewrite: name {self._name!r} for {path.show()} is no path: {error}"))
        return constant(answer)


def _host_and_port(label: bytes) -> tuple[bytes, bytes] | None:
    bracketed = _BRACKETED.fullmatch(label)
    if bracketed is not None:
        host, port = bracketed.group(1), bracketed.group(2)
        return (host, port) if _is_ipv6(host) and port is not None and _PORT.fullmatch(port) else None
    host, colon, port = label.partition(b":")
    return (host, port) if host and colon and not host.startswith(b"[") and _PORT.fullmatch(port) else None


def _is_ipv6(host: bytes) -> bool:
    try:
        IPv6Address(host.decode("ascii"))
    except ValueError:
        return False
    return True


def _is_host(label: bytes) -> bool:
    return _HOST.fullmatch(label) is not None or _BRACKETED.fullmatch(label) is not None


def _without_port(label: bytes) -> bytes:
    bracketed = _BRACKETED.fullmatch(label)
    return bracketed.group(1) if bracketed is not None else label.partition(b":")[0]


def _hostport_prefix(path: Path) -> NameTree[Path]:
    found = _host_and_port(path[1]) if len(path) > 1 else None
    return NEG if found is None else Leaf(Path((path[0], *found)) + path.drop(2))


def _porthost_prefix(path: Path) -> NameTree[Path]:
    found = _host_and_port(path[1]) if len(path) > 1 else None
    return NEG if found is None else Leaf(Path((path[0], *reversed(found))) + path.drop(2))


def _any_method(path: Path) -> NameTree[Path]:
    return Leaf(path.drop(1)) if path and _METHOD.fullmatch(path[0]) else NEG


def _any_host(path: Path) -> NameTree[Path]:
    return Leaf(path.drop(1)) if path and _is_host(path[0]) else NEG


def _subdomain(domain: bytes, label: bytes) -> bytes | None:
    if not _is_host(label):
        return None
    host, suffix = _without_port(label), b"." + domain
    return host[: -len(suffix)] if host.endswith(suffix) and len(host) > len(suffix) else None


def _subdomain_of(path: Path) -> NameTree[Path]:
    sub = _subdomain(path[0], path[1]) if len(path) > 1 else None
    return NEG if sub is None else Leaf(Path((sub,)) + path.drop(2))


def _subdomain_of_prefix(path: Path) -> NameTree[Path]:
    sub = _subdomain(path[0], path[2]) if len(path) > 2 else None
    return NEG if sub is None else Leaf(Path((path[1], sub)) + path.drop(3))


def _domain_to_path(path: Path) -> NameTree[Path]:
    if not path or not _is_host(path[0]):
        return NEG
    if _BRACKETED.fullmatch(path[0]):  # the dots of an embedded IPv4 address do not separate domains
        return Leaf(path)
    return Leaf(Path(part for part in reversed(path[0].split(b".")) if part) + path.drop(1))


def _under_prefix(rewrite: Rewrite) -> Rewrite:
    """``rewrite`` applied behind a first label, which stays in front."""

    def rewrite_rest(path: Path) -> NameTree[Path]:
        answer = rewrite(path.drop(1))
        return Leaf(path.take(1) + answer.value) if path and isinstance(answer, Leaf) else NEG

    return rewrite_rest


UTILITIES: Final[Mapping[bytes, Rewrite]] = {
    b"io.buoyant.hostportPfx": _hostport_prefix,
    b"io.buoyant.porthostPfx": _porthost_prefix,
    b"io.buoyant.http.anyMethod": _any_method,
    b"io.buoyant.http.anyMethodPfx": _under_prefix(_any_method),
    b"io.buoyant.http.anyHost": _any_host,
    b"io.buoyant.http.anyHostPfx": _under_prefix(_any_host),
    b"io.buoyant.http.subdomainOf": _subdomain_of,
    b"io.buoyant.http.subdomainOfPfx": _subdomain_of_prefix,
    b"io.buoyant.http.domainToPath": _domain_to_path,
    b"io.buoyant.http.domainToPathPfx": _under_prefix(_domain_to_path),
}
"""Name under ``/$`` to the function that rewrites the path behind the name; handed to the built-in namer."""


@attrs.frozen(kw_only=True)
class RewriteConfig:
    """Rewrites names that match a pattern to other names."""

    prefix: Path = option(doc="The namer answers names under /# and this path. Required: there is no sensible default to share.")
    pattern: PathMatcher = option(doc="What names begin with, behind the prefix: literals, * for any label, and {captures}.")
    name: str = option(doc="The name to look up instead, with {captures} of the pattern; the rest of the path is dropped.")
    transformers: tuple[Chosen, ...] = option(
        default=(), kinds="transformers", doc="Transformers of the bound names' replica sets, applied in the order given."
    )


def build_rewrite(config: RewriteConfig, runtime: Runtime) -> RewriteNamer:
    """The namer of a ``namers`` entry."""
    return RewriteNamer(config.pattern, config.name)


KIND = Kind(id="io.l5d.rewrite", config=RewriteConfig, build=build_rewrite)
