"""What the admin server answers instead of a view, and how any error of a view is put: a status and a sentence.

Source: linkerd-config spec 2.4 (statuses of ``/delegator.json``). Both parts are plain data, so that a process that was asked by
another one can send its error there, where :class:`Relayed` stands for it.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from meshgw.errors import MeshError


class AdminError(MeshError):
    """Answered with its ``status`` and its text; any other :class:`MeshError` is answered 500 with its text."""

    phase: ClassVar[str] = "admin"
    status: ClassVar[int] = 500


@attrs.frozen(kw_only=True)
class CannotDelegate(AdminError):
    """The interpreter of ``namespace`` cannot explain itself."""

    status: ClassVar[int] = 501
    namespace: str

    def __str__(self) -> str:
        return f"Name Interpreter for {self.namespace} cannot show delegations"


@attrs.frozen(kw_only=True)
class NoAnswer(AdminError):
    """``who``, for example ``worker 2``, was asked and has not answered within ``seconds``."""

    status: ClassVar[int] = 504
    who: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.who} did not answer within {self.seconds:g} s"


@attrs.frozen(kw_only=True)
class NotResolved(AdminError):
    """No delegation came in time; ``waiting_for`` is what it still waits for, with its last error if it has one."""

    status: ClassVar[int] = 503
    waiting_for: str

    def __str__(self) -> str:
        return f"Request timed out.{f' Still waiting for {self.waiting_for}.' if self.waiting_for else ''}"


@attrs.frozen(kw_only=True)
class NotDescribed(AdminError):
    """Nothing describes itself at ``path``; ``known`` are the paths where something does."""

    status: ClassVar[int] = 404
    path: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return f"nothing describes itself at {self.path}; known: {', '.join(self.known) or 'none'}\n"


class ReloadUnderWay(AdminError):
    """The configuration is being reloaded already."""

    status: ClassVar[int] = 409

    def __str__(self) -> str:
        return "a reload is under way"


class ProfileUnderWay(AdminError):
    """A profile is being taken already."""

    status: ClassVar[int] = 409

    def __str__(self) -> str:
        return "a profile is being taken; there is one at a time"


@attrs.frozen(kw_only=True)
class Relayed(AdminError):
    """An error as it is answered, of this process or another one."""

    code: int
    text: str

    @property
    def status(self) -> int:  # type: ignore[override]  # varies by instance
        """The HTTP status of the answer."""
        return self.code

    def __str__(self) -> str:
        return self.text


def relayed(error: MeshError | TimeoutError) -> Relayed:
    """``error`` as status and text, to be answered here or sent to the process that asked."""
    if isinstance(error, TimeoutError):
        return Relayed(code=503, text="Request timed out.")
    return Relayed(code=error.status if isinstance(error, AdminError) else 500, text=str(error))
