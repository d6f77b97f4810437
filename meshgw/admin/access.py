"""``/access.json``: the rules of each router about who may call what, and how often each decided.

Source: our own. The rules are those of the configuration, the counts come with the metrics, so that they are those of all processes.
"""

from __future__ import annotations

from typing import Any

from meshgw.admin.api import Answer, GatewayView, Query, json_answer
from meshgw.config.access import AccessControl
from meshgw.telemetry.metrics import Snapshot


class AccessView:
    """The view; routers without rules do not appear."""

    def __init__(self, view: GatewayView) -> None:
        self._view = view

    async def __call__(self, query: Query) -> Answer:
        """Rules in their order, each with its hits."""
        snapshot = await self._view.snapshot()
        routers = self._view.routers
        return json_answer(
            {label: _described(router.access, label, snapshot) for label, router in routers.items() if router.access is not None}
        )


def _described(access: AccessControl, label: str, snapshot: Snapshot) -> dict[str, Any]:
    def count(*names: str) -> int:
        return snapshot.counters.get(("rt", label, "access", *names), 0)

    refused = "denied" if access.mode == "enforce" else "audited"
    return {
        "mode": access.mode,
        "allowed": count("allowed"),
        refused: count(refused),
        "rules": [{"rule": rule.show(), "hits": count("rules", str(number))} for number, rule in enumerate(access.rules, 1)],
        "default": {"rule": f"{access.default} everything", "hits": count("rules", "default")},
        "dtabOverrides": {"rule": "allow" if access.dtab_overrides else "deny", "hits": count("rules", "dtabOverrides")},
    }
