"""What a case of the suite is: what is sent, step by step, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from support import h2_frames as f
from support.h2_peer import Wire

Step = bytes | Callable[[Wire], object]
"""Bytes to send, or something to wait for."""


@attrs.frozen
class Goaway:
    """The connection ends with a GOAWAY of this code."""

    code: int


@attrs.frozen
class Reset:
    """The stream is reset with this code, and the connection stays usable."""

    stream: int
    code: int


@attrs.frozen
class Answer:
    """The stream is answered with this status, to its end unless told otherwise, and the connection stays usable."""

    stream: int = 1
    status: int = 200
    is_whole: bool = True


@attrs.frozen
class Ignored:
    """Nothing ends, and the connection stays usable."""


@attrs.frozen
class Case:
    """One rule: its section, what happens, and the outcome. ``opening`` is what the connection begins with."""

    section: str
    title: str
    steps: tuple[Step, ...]
    outcome: Goaway | Reset | Answer | Ignored
    opening: bytes = f.OPENING

    @property
    def id(self) -> str:
        """How it is called in reports."""
        return f"{self.section} {self.title}"


def case(section: str, title: str, *steps: Step | Goaway | Reset | Answer | Ignored, opening: bytes = f.OPENING) -> Case:
    """A case; the last of ``steps`` is its outcome."""
    *before, outcome = steps
    assert isinstance(outcome, Goaway | Reset | Answer | Ignored)
    return Case(section, title, tuple(step for step in before if isinstance(step, bytes) or callable(step)), outcome, opening)


def has_answer(stream: int) -> Callable[[Wire], bool]:
    """The head of an answer came."""
    return lambda wire: wire.status(stream) > 0


def has_ended(stream: int) -> Callable[[Wire], bool]:
    """An answer came to its end."""
    return lambda wire: wire.ended(stream)


def has_reset(stream: int) -> Callable[[Wire], bool]:
    """A stream was reset."""
    return lambda wire: wire.reset(stream) is not None


def has_ponged(wire: Wire) -> bool:
    """A PING was answered."""
    return bool(wire.pongs())
