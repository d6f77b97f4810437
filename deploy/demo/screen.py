"""How the demonstration looks: commands with their output, coloured on a terminal, plain text everywhere else."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

BOLD, DIM, RED, GREEN, CYAN, RESET = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[0m"


class Screen:
    """Writes titles, commands, output and verdicts to ``stream``, and counts the failures."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._coloured = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self.failures = 0

    def title(self, text: str) -> None:
        """Begin a step."""
        self._line("")
        self._line(self._paint(BOLD, f"━━ {text}" if self._coloured else f"== {text}"))

    def say(self, text: str) -> None:
        """A plain sentence."""
        self._line(text)

    def command(self, text: str) -> None:
        """A command that the reader could type."""
        self._line(self._paint(CYAN, f"$ {text}"))

    def output(self, text: str, limit: int = 20) -> None:
        """What the command printed, indented; at most ``limit`` lines."""
        lines = text.rstrip().splitlines()
        for line in lines[:limit]:
            self._line("  " + self._paint(DIM, self._clipped(line)))
        if len(lines) > limit:
            self._line("  " + self._paint(DIM, f"… {len(lines) - limit} more lines"))

    def verdict(self, is_good: bool, statement: str, otherwise: str = "") -> None:
        """Whether a statement held; ``otherwise`` says what was found instead."""
        if is_good:
            self._line(self._paint(GREEN, f"✓ {statement}" if self._coloured else f"ok: {statement}"))
            return
        self.failures += 1
        self._line(self._paint(RED, f"✗ NOT: {statement}" if self._coloured else f"FAILED: {statement}"))
        self.output(otherwise)

    def _clipped(self, line: str) -> str:
        """On a terminal a line that would wrap ends in an ellipsis; a file gets all of it."""
        if not self._coloured:
            return line
        room = max(40, shutil.get_terminal_size().columns - 2)
        return line if len(line) <= room else line[: room - 1] + "…"

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{RESET}" if self._coloured else text

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


def standard() -> Screen:
    """The screen of this process; characters the terminal's encoding lacks are replaced, not fatal."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return Screen(sys.stdout)
