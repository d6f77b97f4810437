"""What ``role`` of a router means: safe defaults for the options that the file does not write, laid over the document before it is read.

Source: our own; Linkerd's guides describe the same four places as ready-made files. An option that is written, be it as ``null``, stays as
it is, and within a block only absent options are added. Added nodes stand where the role stands, so that a problem with one points there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from meshgw.config.nodes import Block, Items, Node, Scalar
from meshgw.config.scoped import GLOBAL, STATIC

ROLES: Final = ("incoming", "outgoing", "ingress", "egress")

Plain = str | Sequence["Plain"] | Mapping[str, "Plain"]

HEAD_MS: Final = "5000"
"""A caller from outside that takes longer to send a head is slow on purpose."""
BODY_MS: Final = "30000"
IDLE_MS: Final = "60000"
"""Long enough for a browser's next click, short enough that idle connections do not pile up."""
MOST_REQUESTS: Final = "10000"
"""Some 300 MB of requests under way; beyond it, refusing is better than running out of memory."""
RINET: Final = "/$/io.buoyant.rinet/443"

INGRESS_SERVER: Final[Mapping[str, Plain]] = {
    "clearContext": "true",
    "xForwardedHeaders": "replace",
    "headTimeoutMs": HEAD_MS,
    "bodyTimeoutMs": BODY_MS,
    "serverSession": {"idleTimeMs": IDLE_MS},
    "maxConcurrentRequests": MOST_REQUESTS,
}
MOST_STREAMS: Final = "100"
"""What RFC 9113 recommends as the least, and other edges allow a browser."""
H2_INGRESS_SERVER: Final[Mapping[str, Plain]] = {**INGRESS_SERVER, "maxConcurrentStreamsPerConnection": MOST_STREAMS}
EGRESS_ROUTER: Final[Mapping[str, Plain]] = {
    # the port may be written, but only the one of HTTPS leads anywhere
    "dtab": f"/ph/443 => {RINET} ; /svc => {RINET} ; /svc => /$/io.buoyant.porthostPfx/ph",
    "egress": {},
}
EGRESS_CLIENTS: Final[tuple[Plain, ...]] = (
    {"prefix": "/", "stripContext": "true"},
    {"prefix": f"{RINET}/{{service}}", "tls": {"commonName": "{service}"}},
)
H2_EGRESS_CLIENTS: Final[tuple[Plain, ...]] = (
    EGRESS_CLIENTS[0],
    # who is outside may not know HTTP/2
    {"prefix": f"{RINET}/{{service}}", "tls": {"commonName": "{service}"}, "protocol": "auto"},
)


def with_roles(root: Node) -> Node:
    """The document with the defaults of each router's role in it."""
    if not isinstance(root, Block):
        return root
    return _changed(root, "routers", lambda routers: _each(routers, _router))


def _router(node: Node) -> Node:
    if not isinstance(node, Block):
        return node
    lay = _OVERLAYS.get(_text(node, "protocol") or "", {}).get(_text(node, "role") or "")
    role = _entry(node, "role")
    return node if lay is None or role is None else lay(node, role.start)


def _outgoing(router: Block, at: int) -> Node:
    return _laid(router, {"originator": "true"}, at)


def _incoming(router: Block, at: int) -> Node:
    """A server that knows whose certificates it trusts asks for one, so that callers have an identity."""

    def server(node: Node) -> Node:
        def with_clients(tls: Node) -> Node:
            if not isinstance(tls, Block) or _text(tls, "caCertPath") is None:
                return tls
            return _laid(tls, {"requireClientAuth": "true"}, at)

        return _changed(node, "tls", with_clients)

    return _changed(router, "servers", lambda servers: _each(servers, server))


def _ingress(router: Block, at: int, *, options: Mapping[str, Plain] = INGRESS_SERVER) -> Node:
    def server(node: Node) -> Node:
        if not isinstance(node, Block):
            return node
        laid = _laid(node, options, at)
        return _laid(laid, {"checkServerName": "true"}, at) if _is_given(laid, "tls") else laid

    return _changed(router, "servers", lambda servers: _each(servers, server))


def _egress(router: Block, at: int, *, clients: tuple[Plain, ...] = EGRESS_CLIENTS) -> Node:
    laid = _laid(router, EGRESS_ROUTER, at)
    ours = tuple(_node(entry, at) for entry in clients)
    if not _is_given(laid, "client"):
        rest = tuple(entry for entry in laid.entries if entry[0].text != "client")
        return _with(laid, (*rest, _made("client", {"kind": STATIC, "configs": ()}, at)), ours)
    return _with(laid, laid.entries, ours)


def _with(router: Block, entries: tuple[tuple[Scalar, Node], ...], ours: tuple[Node, ...]) -> Node:
    """Put entries before the client's own, of which the last one counts: TLS is not lost by writing something else."""

    def client(node: Node) -> Node:
        if not isinstance(node, Block):
            return node
        kind = _text(node, "kind") or GLOBAL
        if kind == STATIC:
            return _changed(node, "configs", lambda configs: _prepended(configs, ours))
        if kind != GLOBAL:
            return node
        own = tuple(entry for entry in node.entries if entry[0].text != "kind")
        everywhere = Block(start=node.start, end=node.end, size=node.size, entries=(_made("prefix", "/", node.start), *own))
        configs: Node = Items(start=node.start, end=node.end, size=node.size, items=(*ours, everywhere))
        return _resized(node, (_made("kind", STATIC, node.start), (_made("configs", "", node.start)[0], configs)))

    return _changed(_resized(router, entries), "client", client)


def _prepended(node: Node, items: tuple[Node, ...]) -> Node:
    if not isinstance(node, Items):
        return node
    return Items(start=node.start, end=node.end, size=node.size, items=(*items, *node.items))


_Overlay = Callable[[Block, int], Node]
_OVERLAYS: Final[Mapping[str, Mapping[str, _Overlay]]] = {
    "http": {"incoming": _incoming, "outgoing": _outgoing, "ingress": _ingress, "egress": _egress},
    "h2": {
        "incoming": _incoming,
        "outgoing": _outgoing,
        "ingress": partial(_ingress, options=H2_INGRESS_SERVER),
        "egress": partial(_egress, clients=H2_EGRESS_CLIENTS),
    },
}
"""By protocol and role."""


# --- nodes


def _laid(node: Block, defaults: Mapping[str, Plain], at: int) -> Block:
    """``node`` with the options of ``defaults`` that it does not have."""
    entries = list(node.entries)
    for name, value in defaults.items():
        index = next((index for index, entry in enumerate(entries) if entry[0].text == name), None)
        if index is None:
            entries.append(_made(name, value, at))
            continue
        key, present = entries[index]
        if isinstance(present, Block) and isinstance(value, Mapping):
            entries[index] = (key, _laid(present, value, at))
    return _resized(node, tuple(entries))


def _made(name: str, value: Plain, at: int) -> tuple[Scalar, Node]:
    return Scalar(start=at, end=at, text=name, plain=True), _node(value, at)


def _node(value: Plain, at: int) -> Node:
    if isinstance(value, str):
        return Scalar(start=at, end=at, text=value, plain=True)
    if isinstance(value, Mapping):
        return Block(start=at, end=at, entries=tuple(_made(name, each, at) for name, each in value.items()))
    return Items(start=at, end=at, items=tuple(_node(each, at) for each in value))


def _resized(node: Block, entries: tuple[tuple[Scalar, Node], ...]) -> Block:
    return Block(start=node.start, end=node.end, size=node.size, entries=entries)


def _changed(node: Node, name: str, change: Callable[[Node], Node]) -> Node:
    """``node`` with one of its values changed, if it is a block that has it."""
    if not isinstance(node, Block):
        return node
    return _resized(node, tuple((key, change(value) if key.text == name else value) for key, value in node.entries))


def _each(node: Node, change: Callable[[Node], Node]) -> Node:
    if not isinstance(node, Items):
        return node
    return Items(start=node.start, end=node.end, size=node.size, items=tuple(change(item) for item in node.items))


def _entry(node: Block, name: str) -> Node | None:
    return next((value for key, value in node.entries if key.text == name), None)


def _is_given(node: Block, name: str) -> bool:
    value = _entry(node, name)
    return value is not None and not (isinstance(value, Scalar) and value.is_null)


def _text(node: Block, name: str) -> str | None:
    value = _entry(node, name)
    return value.text if isinstance(value, Scalar) and not value.is_null else None
