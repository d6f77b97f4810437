"""The loggers of meshgw's modules: txaio's, whose methods do nothing at all while no logger's level lets them through.

Source: ARCHITECTURE.md section 3 (logging on the hot path). They are named after the module, or the class, that makes them, and publish
events of ``twisted.logger``; which of those are written, logger by logger, is decided by ``telemetry.logs``. Nothing is started here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from txaio import tx


class Log(Protocol):
    """What modules use of a logger: a constant ``format`` in the manner of ``str.format``, and its fields by name."""

    def trace(self, format: str, **fields: Any) -> None:
        """What only somebody wants who follows a single thing step by step."""

    def debug(self, format: str, **fields: Any) -> None:
        """What helps to find a cause."""

    def info(self, format: str, **fields: Any) -> None:
        """What happens in a life cycle."""

    def warn(self, format: str, **fields: Any) -> None:
        """What an operator should act on."""

    def error(self, format: str, **fields: Any) -> None:
        """What failed and stays so until somebody acts."""

    def critical(self, format: str, **fields: Any) -> None:
        """What ends the process."""

    def failure(self, format: str, failure: Any = None, **fields: Any) -> None:
        """A defect, with the traceback of ``failure`` or else of the exception at hand."""


# the function itself and not one around it, as it looks who its caller is
make_logger: Final = cast("Callable[[], Log]", tx.make_logger)
"""A logger named after the module or class in which this is called."""


def set_least_level(name: str) -> None:
    """Let methods below a level of txaio (``trace`` to ``critical``, or ``none``) do nothing, in all of its loggers."""
    tx.set_global_log_level(name)  # type: ignore[no-untyped-call]  # txaio has few annotations
