"""An endpoint of which nothing is needed but that it is there."""

from __future__ import annotations

from typing import Any

from meshgw.balance.nodes import Node


class Plain:
    """Does nothing when its address goes or returns."""

    def attach(self, node: Node[Any]) -> None:
        pass

    def retire(self) -> None:
        pass

    def revive(self) -> None:
        pass
