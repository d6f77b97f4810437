"""A delegation tree as JSON and as text: for ``/delegator.json``, ``meshgw dtab`` and the bodies of routing errors.

Source: linkerd-config spec 2.4 and namerd spec 3.4 (JSON), dtab spec 6; the text form is our own. Addresses are read as they are
now: pass a tree from ``delegate.with_addresses`` to have them known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from meshgw.bind.delegate import children
from meshgw.core.address import ADDR_NEG, WEIGHT_KEY, Addr, Address, Bound, Replicas
from meshgw.core.live import PENDING, Constant, Failed, Live, Ok, Pending, State, current
from meshgw.errors import NamerError
from meshgw.naming.delegation import (
    BoundName,
    DelegateAlt,
    DelegateEmpty,
    DelegateException,
    DelegateFail,
    DelegateLeaf,
    DelegateNeg,
    DelegateTo,
    DelegateTransformation,
    DelegateUnion,
    DelegateWeighted,
    Delegation,
)
from meshgw.naming.dtab import Dentry, Prefix
from meshgw.naming.path import ROOT, Path
from meshgw.naming.tree import read_tree, show_tree, show_weight

JsonObject = dict[str, object]

_FAIL_PREFIX: Final = Path.of("$", "fail")
_TYPES: Final[Mapping[type[Delegation], str]] = {
    DelegateTo: "delegate",
    DelegateAlt: "alt",
    DelegateUnion: "union",
    DelegateLeaf: "leaf",
    DelegateNeg: "neg",
    DelegateFail: "fail",
    DelegateEmpty: "empty",
    DelegateException: "exception",
    DelegateTransformation: "transformation",
}
MOST_TEXT: Final = 16 << 20
"""Characters of a delegation that is shown; each step repeats its dtab entry, so that a long one could fill the memory."""
LONGEST_STEP: Final = 200  # characters of a step in an error body; a destination may be a long union


def delegation_to_json(node: Delegation) -> JsonObject:
    """The node and all below it, keys in the order of the spec. Raises :class:`NamerError` for a tree whose text is beyond all reading."""
    return _Json().of(node)


class _Json:
    """One tree as JSON. Every node repeats the entry that led to it, which is written once, as it may have thousands of alternatives."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[str, str]] = {}  # by the identity of those of the tree
        self._left = MOST_TEXT

    def of(self, node: Delegation) -> JsonObject:
        json: JsonObject = {"type": _TYPES[type(node)], "path": self._counted(_shown_path(node))}
        if isinstance(node, DelegateTransformation):
            return json | {"name": node.name, "bound": bound_to_json(node.bound), "tree": self.of(node.tree)}
        if node.dentry is not None:
            json["dentry"] = self._entry(node.dentry)
        if isinstance(node, DelegateTo):
            json["delegate"] = self.of(node.tree)
        elif isinstance(node, DelegateAlt):
            json["alt"] = [self.of(tree) for tree in node.trees]
        elif isinstance(node, DelegateUnion):
            json["union"] = [{"weight": branch.weight, "tree": self.of(branch.tree)} for branch in node.branches]
        elif isinstance(node, DelegateLeaf):
            json["bound"] = bound_to_json(node.bound)
        elif isinstance(node, DelegateException):
            json["message"] = self._counted(node.message)
        elif isinstance(node, DelegateNeg) and node.reason:
            json["message"] = node.reason  # ours: Linkerd does not tell a failing source from a name that does not exist
        return json

    def _entry(self, dentry: Dentry) -> JsonObject:
        known = self._entries.get(id(dentry))
        if known is None:
            known = self._entries[id(dentry)] = dentry.prefix.show(), show_tree(dentry.dst)
        prefix, dst = known
        return {"prefix": prefix, "dst": self._counted(dst)}

    def _counted(self, text: str) -> str:
        self._left -= len(text)
        if self._left < 0:
            raise NamerError(detail=f"the delegation has more than {MOST_TEXT >> 20} MiB of text: its dtab entries multiply it")
        return text


def _shown_path(node: Delegation) -> str:
    if isinstance(node, DelegateNeg) and not node.path:
        return "~"
    if isinstance(node, DelegateFail) and not node.path.startswith(_FAIL_PREFIX):
        return "!"
    return node.path.show()


def bound_to_json(bound: BoundName) -> JsonObject:
    """``{addr, id, path}`` of a bound name."""
    return {"addr": addr_to_json(address_state(bound)), "id": bound.id.show(), "path": bound.residual.show()}


def address_state(bound: BoundName) -> State[Addr]:
    """The addresses of a bound name as they are now."""
    return cast("State[Addr]", current(bound.addr)) if isinstance(bound.addr, Live) else PENDING


def addr_to_json(state: State[Addr]) -> JsonObject:
    """``{type: bound | failed | neg | pending, ...}`` of an address set's state; ``stale`` is why a good one may be outdated."""
    if isinstance(state, Pending):
        return {"type": "pending"}
    if isinstance(state, Failed):
        return {"type": "failed", "cause": str(state.error)}
    stale: JsonObject = {} if state.error is None else {"stale": str(state.error)}
    if not isinstance(state.value, Replicas):
        return {"type": "neg"} | stale
    addresses = [{"ip": one.host, "port": one.port, "meta": _address_meta(one)} for one in state.value.addresses]
    return {"type": "bound", "addrs": addresses, "meta": dict(state.value.meta)} | stale


def _address_meta(address: Address) -> JsonObject:
    meta = dict(address.meta)
    if address.weight != 1.0:
        meta[WEIGHT_KEY] = address.weight
    return meta


# Reading


def delegation_from_json(json: object) -> Delegation:
    """The tree that a running process described. Raises ``ValueError`` for anything else."""
    try:
        return _read_node(json)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a delegation tree: {type(error).__name__} {error}") from error


def _read_node(json: Any) -> Delegation:
    kind, text = json["type"], json["path"]
    path = ROOT if text in ("~", "!") else Path.read(text)
    entry = json.get("dentry")
    dentry = Dentry(Prefix.read(entry["prefix"]), read_tree(entry["dst"])) if entry else None
    if kind == "delegate":
        return DelegateTo(path, dentry, _read_node(json["delegate"]))
    if kind == "alt":
        return DelegateAlt(path, dentry, tuple([_read_node(tree) for tree in json["alt"]]))
    if kind == "union":
        return DelegateUnion(
            path, dentry, tuple([DelegateWeighted(float(branch["weight"]), _read_node(branch["tree"])) for branch in json["union"]])
        )
    if kind == "leaf":
        return DelegateLeaf(path, dentry, _read_bound(json["bound"]))
    if kind == "exception":
        return DelegateException(path, dentry, str(json["message"]))
    if kind == "transformation":
        return DelegateTransformation(path, dentry, str(json["name"]), _read_bound(json["bound"]), _read_node(json["tree"]))
    if kind == "neg":
        return DelegateNeg(path, dentry, str(json.get("message", "")))
    plain = {"fail": DelegateFail, "empty": DelegateEmpty}.get(kind)
    if plain is None:
        raise ValueError(f"not a delegation tree: a node of type {kind!r}")
    return plain(path, dentry)


def _read_bound(json: Any) -> Bound:
    return Bound(Path.read(json["id"]), Constant(_read_addr(json["addr"])), Path.read(json["path"]))


def _read_addr(json: Any) -> State[Addr]:
    kind = json["type"]
    stale = NamerError(detail=str(json["stale"])) if "stale" in json else None
    if kind == "bound":
        addresses = [
            Address(str(one["ip"]), int(one["port"]), float(one.get("meta", {}).get(WEIGHT_KEY, 1.0)), one.get("meta", {}))
            for one in json["addrs"]
        ]
        return Ok(Replicas(tuple(addresses), json.get("meta", {})), stale)
    if kind == "failed":
        return Failed(NamerError(detail=str(json.get("cause", ""))))
    return Ok(ADDR_NEG, stale) if kind == "neg" else PENDING


# What evaluation makes of a tree


def verdict(node: Delegation) -> str:
    """What routing gets: ``leaf``, ``neg``, ``fail``, ``empty`` or ``exception`` (dtab spec 5.3 and 5.4)."""
    if isinstance(node, DelegateAlt):
        return next((answer for answer in map(verdict, node.trees) if answer != "neg"), "neg")
    if isinstance(node, DelegateUnion):
        answers = [verdict(branch.tree) for branch in node.branches]
        if answers and all(answer == "exception" for answer in answers):
            return "exception"
        return next((answer for answer in ("leaf", "empty") if answer in answers), "neg")
    below = children(node)
    return verdict(below[0]) if below else _TYPES[type(node)]


def chosen_nodes(root: Delegation) -> list[Delegation]:
    """The nodes that routing goes through: of alternatives the first that is not neg, of a union all that answer."""
    found: list[Delegation] = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, DelegateAlt):
            waiting.extend([tree for tree in node.trees if verdict(tree) != "neg"][:1])
        elif isinstance(node, DelegateUnion):
            waiting.extend(branch.tree for branch in reversed(node.branches) if verdict(branch.tree) in ("leaf", "empty"))
        else:
            waiting.extend(children(node))
    return found


def has_endpoints(root: Delegation) -> bool:
    """Whether a request would find an address: a chosen leaf has at least one."""
    return any(_addresses(node) for node in chosen_nodes(root) if isinstance(node, DelegateLeaf))


def _addresses(leaf: DelegateLeaf) -> tuple[Address, ...]:
    state = address_state(leaf.bound)
    return state.value.addresses if isinstance(state, Ok) and isinstance(state.value, Replicas) else ()


def failures(root: Delegation, limit: int = 5) -> tuple[str, ...]:
    """What the sources that fail say, each once, at most ``limit``."""
    found: dict[str, None] = {}
    for node, _, _ in _walk(root):
        if isinstance(node, DelegateNeg) and node.reason:
            found[node.reason] = None
        elif isinstance(node, DelegateException):
            found[node.message] = None
    return tuple(found)[:limit]


# Text


def render_delegation(root: Delegation) -> list[str]:
    """The tree for a terminal, one line per step, indented; what routing goes through is marked by ``>``."""
    chosen = {id(node) for node in chosen_nodes(root)}
    lines = []
    for node, depth, label in _walk(root):
        mark = ">" if id(node) in chosen else " "
        lines.append(f"{mark} {'  ' * depth}{label}{_describe(node)}")
        if isinstance(node, DelegateLeaf):
            lines += [f"{mark} {'  ' * (depth + 1)}{text}" for text in _describe_addresses(node)]
    return lines


def explain_steps(root: Delegation, limit: int = 30) -> tuple[str, ...]:
    """The steps as short plain lines for an error's body, at most ``limit``; addresses are left out."""
    lines = [f"{'  ' * depth}{label}{_describe(node)}" for node, depth, label in _walk(root)]
    if len(lines) > limit:
        lines[limit - 1 :] = [f"... and {len(lines) - limit + 1} more steps"]
    return tuple([line if len(line) <= LONGEST_STEP else f"{line[: LONGEST_STEP - 3]}..." for line in lines])


def _walk(root: Delegation) -> list[tuple[Delegation, int, str]]:
    """All nodes in reading order, with their depth and what stands before their text."""
    found = []
    waiting = [(root, 0, "")]
    while waiting:
        node, depth, label = waiting.pop()
        found.append((node, depth, label))
        labels = _labels(node)
        waiting.extend((child, depth + 1, text) for child, text in reversed(list(zip(children(node), labels, strict=True))))
    return found


def _labels(node: Delegation) -> Sequence[str]:
    if isinstance(node, DelegateAlt):
        return [f"{number}. " for number in range(1, len(node.trees) + 1)]
    if isinstance(node, DelegateUnion):
        return [f"weight {show_weight(branch.weight)}: " for branch in node.branches]
    return ["" for _ in children(node)]


def _describe(node: Delegation) -> str:
    by = f" by {node.dentry.prefix.show()} => {show_tree(node.dentry.dst)}" if node.dentry is not None else ""
    return f"{_shown_path(node)}{by}{_outcome(node)}"


def _outcome(node: Delegation) -> str:
    if isinstance(node, DelegateLeaf):
        residual = f", residual {node.bound.residual.show()}" if node.bound.residual else ""
        return f": bound to {node.bound.id.show()}{residual}"
    if isinstance(node, DelegateException):
        return f": failed: {node.message}"
    if isinstance(node, DelegateTransformation):
        return f": {node.bound.id.show()} transformed by {node.name}"
    if isinstance(node, DelegateNeg) and node.reason:
        return f": taken as unknown, for its source fails: {node.reason}"
    if isinstance(node, DelegateNeg):
        return ": no such name" if node.path else ": no such name, says the entry"
    if isinstance(node, DelegateFail):
        return ": fail, no further alternative is tried"
    if isinstance(node, DelegateEmpty):
        return ": empty, the name exists without replicas"
    if isinstance(node, DelegateAlt):
        return ": the first of these that is known"
    return ": a draw by weight" if isinstance(node, DelegateUnion) else ""


def _describe_addresses(leaf: DelegateLeaf) -> list[str]:
    state = address_state(leaf.bound)
    if isinstance(state, Pending):
        return [f"addresses not known yet{f' (waiting for {state.waiting_for})' if state.waiting_for else ''}"]
    if isinstance(state, Failed):
        return [f"addresses cannot be had: {state.error}"]
    if not isinstance(state.value, Replicas):
        return ["no addresses: the name does not exist"]
    shown = [one.show() + (f" weight {one.weight:g}" if one.weight != 1.0 else "") for one in state.value.addresses]
    stale = [f"(last good answer; since then: {state.error})"] if state.error is not None else []
    return (shown or ["no addresses"]) + stale
