"""What describes itself for the admin server, by the path where it is shown: namers, and each router's interpreter and identifiers.

Source: linkerd-config spec 2.3 (``/namer_state``, ``interpreter_state``); ``identifier_state`` is ours. What has a ``describe`` method
(:class:`meshgw.kinds.Describing`) is shown, whatever its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from meshgw.kinds import Identifier, Interpreter, Namer
from meshgw.naming.path import Path

Describe = Callable[[], Mapping[str, Any]]


def namer_states(namers: Iterable[tuple[Path, Namer]]) -> dict[str, Describe]:
    """Those of namers, which are given with their whole prefix; of two with the same prefix the later, which is asked first."""
    return _describing((f"/namer_state{prefix.drop(1).show()}.json", namer) for prefix, namer in namers)


def router_states(label: str, kind: str, interpreter: Interpreter, identifiers: Iterable[tuple[str, Identifier]]) -> dict[str, Describe]:
    """Those of a router; ``kind`` is the interpreter's, and each identifier comes with its own."""
    found = _describing([(f"/{label}/interpreter_state/{kind}.json", interpreter)])
    return found | _describing((f"/{label}/identifier_state/{kind}.json", identifier) for kind, identifier in identifiers)


def _describing(items: Iterable[tuple[str, object]]) -> dict[str, Describe]:
    return {path: item.describe for path, item in items if hasattr(item, "describe")}
