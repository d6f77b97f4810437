"""What serves the routers, as the rest of the application sees it: in this process, or in others that are asked.

A worker answers its master's questions with the same methods (:func:`answering`); their answers are plain JSON data.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs

from meshgw.admin.delegations import Delegations
from meshgw.admin.errors import NotDescribed, Relayed
from meshgw.app.diagnosis import Diagnosis
from meshgw.app.gateway import Gateway
from meshgw.app.identify_site import Head, identified
from meshgw.bind.explain import delegation_to_json
from meshgw.core.slices import Slices
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.telemetry.logs import LogLevels
from meshgw.telemetry.metrics import Snapshot
from meshgw.telemetry.transfer import Telling

PROCESS = "main"
"""The name of a process that serves on its own."""
PATIENCE = 5.0
"""Seconds within which another process answers, unless the question says otherwise."""

Answering = Callable[[str, Any], Awaitable[Any]]
"""Answers a question: a word and its argument as plain JSON data; raises MeshError for what is to be told to the other side."""


class Plane(Protocol):
    """The routers of a configuration, wherever they run. What is asked may fail with a MeshError."""

    async def snapshot(self, below: str = "") -> Snapshot:
        """All metrics, or at least those ``below`` a path."""
        ...

    async def bound_names(self) -> Sequence[str]:
        """The names that enumerating namers know."""
        ...

    async def client_state(self) -> Mapping[str, Any]:
        """The clients of all routers with their addresses."""
        ...

    async def recent_requests(self) -> Sequence[Mapping[str, Any]]:
        """The latest traced requests, if they are kept (``telemetry.recent_requests``)."""
        ...

    async def described(self) -> Sequence[str]:
        """The paths of the admin server where namers, interpreters and identifiers describe themselves."""
        ...

    async def description(self, path: str) -> Mapping[str, Any]:
        """What is shown at one of them, as JSON data. Raises :class:`NotDescribed`."""
        ...

    async def loggers(self) -> Sequence[tuple[str, str]]:
        """The known loggers with their level."""
        ...

    async def set_level(self, logger: str, level: str) -> None:
        """Set the level of a logger."""
        ...

    async def tracing(self) -> bool:
        """Whether requests are traced (``telemetry.spans.TracingSwitch``)."""
        ...

    async def set_tracing(self, enabled: bool) -> None:
        """Trace requests from now on, or no more."""
        ...

    async def delegate(self, namespace: str | None, dtab: Dtab, path: Path) -> Mapping[str, Any]:
        """How ``path`` resolves, as JSON data (see ``admin.delegations``)."""
        ...

    async def identify(self, head: Head) -> Mapping[str, Any]:
        """What the routers would call a request, by label."""
        ...

    def groups(self) -> Sequence[Sequence[str]]:
        """The names of the processes that serve the same routers, each group once; none while nothing is served."""
        ...

    async def diagnose(self, word: str, argument: Any = None, *, seconds: float = PATIENCE) -> Mapping[str, Any]:
        """The answers of :class:`meshgw.app.diagnosis.Diagnosis` by the name of the process that gave them.

        That of a process which should serve and does not answer within ``seconds`` is ``{"error": …}``.
        """
        ...


class LocalPlane:
    """The routers of this process."""

    def __init__(self, gateway: Gateway, levels: LogLevels, reactor: Any) -> None:
        self.gateway, self._levels = gateway, levels
        self.slices = Slices(reactor)
        self.diagnosis = Diagnosis(reactor, gateway, gateway.stalls, self.slices)
        interpreters = {label: router.interpreter for label, router in gateway.routers.items()}
        self._delegations = Delegations(interpreters, gateway.names.plain, delegation_to_json, reactor)

    async def snapshot(self, below: str = "") -> Snapshot:
        """See :class:`Plane`."""
        return await self.slices.run(self.gateway.reading(below))

    async def bound_names(self) -> Sequence[str]:
        """See :class:`Plane`."""
        return self.gateway.bound_names()

    async def client_state(self) -> Mapping[str, Any]:
        """See :class:`Plane`."""
        return await self.slices.run(self.gateway.client_state())

    async def recent_requests(self) -> Sequence[Mapping[str, Any]]:
        """See :class:`Plane`."""
        return await self.slices.run(self.gateway.recent_requests())

    async def described(self) -> Sequence[str]:
        """See :class:`Plane`."""
        return sorted(self.gateway.described())

    async def description(self, path: str) -> Mapping[str, Any]:
        """See :class:`Plane`."""
        described = self.gateway.described()
        if path not in described:
            raise NotDescribed(path=path, known=tuple(sorted(described)))
        return described[path]()

    async def loggers(self) -> Sequence[tuple[str, str]]:
        """See :class:`Plane`."""
        return self._levels.loggers()

    async def set_level(self, logger: str, level: str) -> None:
        """See :class:`Plane`."""
        self._levels.set(logger, level)

    def preset_level(self, logger: str, level: str) -> None:
        """Set the level of a logger that another process has heard of."""
        self._levels.preset(logger, level)

    async def tracing(self) -> bool:
        """See :class:`Plane`."""
        return self.gateway.tracing.enabled

    async def set_tracing(self, enabled: bool) -> None:
        """See :class:`Plane`."""
        self.gateway.tracing.enabled = enabled

    async def delegate(self, namespace: str | None, dtab: Dtab, path: Path) -> Mapping[str, Any]:
        """See :class:`Plane`."""
        return await self._delegations.delegate(namespace, dtab, path)

    def groups(self) -> Sequence[Sequence[str]]:
        """See :class:`Plane`."""
        return [[PROCESS]]

    async def diagnose(self, word: str, argument: Any = None, *, seconds: float = PATIENCE) -> Mapping[str, Any]:
        """See :class:`Plane`."""
        return {PROCESS: await self.diagnosis.answer(word, argument)}

    async def identify(self, head: Head) -> Mapping[str, Any]:
        """See :class:`Plane`."""
        return identified({label: router.identifier for label, router in self.gateway.routers.items()}, head)


@attrs.frozen
class Large:
    """An answer that may have thousands of members, to be written in slices: it takes tens of milliseconds at once."""

    value: Any


def answering(plane: LocalPlane) -> Answering:
    """Answers questions of another process about ``plane``; the words are the names of its methods."""

    telling = Telling(plane.slices, plane.gateway.reading)

    async def answer(word: str, argument: Any) -> Any:
        match word:
            case "snapshot":
                return await telling.next(argument)
            case "bound_names":
                return list(await plane.bound_names())
            case "client_state":
                return Large(await plane.client_state())
            case "recent_requests":
                return list(await plane.recent_requests())
            case "described":
                return list(await plane.described())
            case "description":
                return await plane.description(argument)
            case "loggers":
                return await plane.loggers()
            case "preset_level":
                return plane.preset_level(*argument)
            case "set_tracing":
                return await plane.set_tracing(argument)
            case "delegate":
                namespace, dtab, path = argument
                return await plane.delegate(namespace, await plane.slices.run(Dtab.reading(dtab)), Path.read(path))
            case "diagnose":
                return await plane.diagnosis.answer(*argument)
            case "identify":
                return await plane.identify(Head.from_plain(argument))
        raise Relayed(code=501, text=f"{word!r} is not a question that this process knows")

    return answer
