"""The master: groups of workers for a configuration, kept running, replaced as a whole by a reload, asked for what admin shows.

Source: ARCHITECTURE.md section 7; DATAPATH.md, design point 9. A generation is the workers of one configuration. A new one takes over only
when all of its workers serve; the old one then finishes what it has under way. Both accept from the same sockets meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from meshgw.admin.errors import NotDescribed, Relayed
from meshgw.app.control import Channel
from meshgw.app.identify_site import Head
from meshgw.app.job import Accepted, Job, Settings, groups, needs_master
from meshgw.app.member import Member
from meshgw.app.plane import PATIENCE
from meshgw.app.sockets import Sockets, router_label, router_places
from meshgw.config.models import Config
from meshgw.core.logger import make_logger
from meshgw.core.slices import Slices
from meshgw.errors import MeshError
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.server.shares import Shares, make_shares
from meshgw.telemetry.logs import LEVELS, LogLevels
from meshgw.telemetry.metrics import Metrics, Snapshot
from meshgw.telemetry.spans import TracingSwitch
from meshgw.telemetry.transfer import Heard, Retired

DEFAULT_USER = "nobody"
"""Whose rights workers keep when the master runs as root and the configuration names nobody else."""
NOBODY_SERVES = "no worker serves at present; the log says why"
MOST_PIECES = 10_000
"""Of a snapshot: many times what a full tree of metrics has."""
MOST_DRAINING = 3
"""Generations that may finish at the same time; a further reload waits for the oldest, so that memory is bounded."""

Make = Callable[[str, Job, Callable[[Member], None]], Member]
_log = make_logger()


def _user(config: Config) -> str | None:
    """Whose rights workers keep, if they begin with root's. The successor of a single process has those that it had."""
    if os.geteuid() != 0:
        return None
    return config.user or (DEFAULT_USER if needs_master(config) else None)


class Generation:
    """The workers of one configuration."""

    def __init__(
        self, accepted: Accepted, sockets: Sockets, make: Callable[[str, Job, Callable[[Member], None]], Member], first: bool
    ) -> None:
        """``make`` makes a member of a name, for a job; the given function is to be called when its process has ended."""
        self.config = accepted.config
        self.grace = accepted.config.admin.shutdown_grace_ms / 1000
        self.groups: dict[str, list[Member]] = {}
        """Members by the label of each router they serve."""
        self.members: list[Member] = []
        self._shares: dict[Member, tuple[Shares, int]] = {}
        self._fds: list[int] = []
        self._is_first = first
        try:
            for group, routers in groups(accepted.config).items():
                self._add_group(group, routers, accepted, sockets, make, first)
        except OSError:
            self._closed(None)
            raise

    def _add_group(self, group: str, routers: Sequence[Any], accepted: Accepted, sockets: Sockets, make: Make, first: bool) -> None:
        config = accepted.config
        slots = config.workers.count
        fd = make_shares(slots)
        self._fds.append(fd)
        shares = Shares(fd, slots)
        names = [place.name for chosen in routers for place in router_places(chosen)]
        labels = [router_label(chosen) for chosen in routers]
        members = []
        for slot in range(slots):
            job = Job(
                text=accepted.text,
                file=accepted.file,
                routers=labels,
                sockets={name: sockets.fileno(name) for name in names},
                shares=(fd, slots, slot),
                is_first=first and slot == 0,
                user=_user(config),
                levels={},
            )
            member = make(f"{group}-{slot}", job, self._vacated)
            self._shares[member] = (shares, slot)
            members.append(member)
        self.members += members
        self.groups |= dict.fromkeys(labels, members)

    def _vacated(self, member: Member) -> None:
        """A process ended: the others need not wait for it to take connections."""
        shares, slot = self._shares[member]
        shares.leave(slot)

    async def start(self) -> None:
        """Start all workers and wait until all serve. Raises the MeshError of one that does not; none is left then."""
        started = await DeferredList([Deferred.fromCoroutine(member.start()) for member in self.members], consumeErrors=True)
        failure = next((result for is_good, result in started if not is_good), None)
        if isinstance(failure, Failure):
            # those that did start have taken connections already; while others serve they finish them
            await self.end(0.0 if self._is_first else self.grace, close_idle=self._is_first)
            failure.raiseException()

    def end(self, grace: float, *, close_idle: bool) -> Deferred[None]:
        """Let the workers finish; fires when all processes have ended."""
        ended = DeferredList([member.end(grace, close_idle=close_idle) for member in self.members])
        return ended.addCallback(self._closed)

    def _closed(self, _results: object) -> None:
        for fd in self._fds:
            os.close(fd)
        for shares in {shares for shares, _ in self._shares.values()}:
            shares.close()
        self._fds.clear()
        self._shares.clear()


class Supervisor:
    """Runs workers for one configuration after another; it is the :class:`meshgw.app.plane.Plane` over all of them."""

    def __init__(self, settings: Settings, levels: LogLevels, metrics: Metrics, tracing: TracingSwitch | None = None) -> None:
        """``metrics`` are those of this process, to which it adds its own; ``tracing`` is what it begins with."""
        self._settings, self._levels = settings, levels
        self._slices = Slices(settings.reactor)
        self._tracing = TracingSwitch() if tracing is None else tracing
        self._starting: Generation | None = None
        self._is_stopped = False
        self._current: Generation | None = None
        self._draining: dict[Generation, Deferred[None]] = {}
        self._retired = Retired(settings.reactor.seconds)
        self._restarts = metrics.counter("workers", "restarts")
        self._silent = metrics.counter("workers", "unanswered")
        metrics.gauge("workers", "running", function=lambda: float(sum(member.is_running for member in self._members())))
        metrics.gauge("workers", "draining", function=lambda: float(sum(len(generation.members) for generation in self._draining)))

    def retire(self, snapshot: Snapshot) -> None:
        """Keep what was counted by somebody who serves no more."""
        self._retired.add(snapshot)

    # --- life

    async def start(self, accepted: Accepted, sockets: Sockets, *, is_first: bool) -> None:
        """Let workers for ``accepted`` take over from those at work, if any. Raises MeshError; then nothing has changed."""
        while len(self._draining) >= MOST_DRAINING:
            await _either(list(self._draining.values()))
        if self._is_stopped:
            raise Relayed(code=503, text="the process is ending")
        try:
            generation = self._starting = Generation(accepted, sockets, self._member, is_first)
            await generation.start()
        except OSError as error:
            raise Relayed(code=500, text=f"the workers cannot be started: {error}") from error
        finally:
            self._starting = None
        if self._is_stopped:
            raise Relayed(code=503, text="the process is ending")
        former, self._current = self._current, generation
        if former is not None:
            self._drain(former, generation.grace, close_idle=False)

    def _member(self, name: str, job: Job, vacated: Callable[[Member], None]) -> Member:
        def ended(member: Member) -> None:
            vacated(member)
            snapshot, member.snapshot = member.snapshot, Snapshot()
            self.retire(snapshot)

        return Member(name, job, self._settings, levels=self._levels.chosen, tracing=self._tracing, restarts=self._restarts, vacated=ended)

    def _drain(self, generation: Generation, grace: float, *, close_idle: bool) -> Deferred[None]:
        ended = self._draining[generation] = generation.end(grace, close_idle=close_idle)

        def forget(_nothing: None) -> None:
            self._draining.pop(generation, None)

        return ended.addCallback(forget)

    async def stop(self, grace: float) -> None:
        """End all workers within ``grace`` seconds."""
        self._is_stopped = True
        generations = [*self._draining, *(each for each in (self._starting, self._current) if each is not None)]
        self._starting = self._current = None
        await DeferredList([self._drain(generation, grace, close_idle=True) for generation in generations])

    def _members(self) -> list[Member]:
        """All that may serve: those that start take connections before the last of them is there."""
        others = (each for each in (self._starting, self._current) if each is not None)
        return [member for generation in (*self._draining, *others) for member in generation.members]

    # --- what is asked of the workers (app.plane.Plane)

    def _channels(self) -> list[tuple[Member, Channel]]:
        return [(member, member.channel) for member in self._members() if member.channel is not None]

    async def _ask_all(self, word: str, argument: Any = None) -> list[Any]:
        """The answers of those workers that give one."""
        asked = [Deferred.fromCoroutine(channel.ask(word, argument)) for _, channel in self._channels()]
        answers = await DeferredList(asked, consumeErrors=True)
        self._silent.incr(sum(not is_good for is_good, _ in answers))
        return [answer for is_good, answer in answers if is_good]

    async def snapshot(self, below: str = "") -> Snapshot:
        """The figures of all workers. For a worker that does not answer in time those count that it told last, which are all it has."""

        async def refresh(member: Member, channel: Channel) -> None:
            before = member.snapshot
            try:
                snapshot = await _snapshot(channel)
            except MeshError:
                self._silent.incr()
                return
            # what an ended process had counted has been retired already, and its farewell is newer than what it told piece by piece
            if member.channel is channel and member.snapshot is before:
                member.snapshot = snapshot

        await DeferredList([Deferred.fromCoroutine(refresh(*each)) for each in self._channels()])
        return await self._slices.run(self._retired.merging([member.snapshot for member in self._members()]))

    async def bound_names(self) -> Sequence[str]:
        """See :class:`meshgw.app.plane.Plane`."""
        return sorted(set().union(*await self._ask_all("bound_names")))

    async def client_state(self) -> Mapping[str, Any]:
        """The clients of all workers. One that several have is shown as the first has it, with the endpoints' states of each."""
        merged: dict[str, Any] = {}
        for states in await self._ask_all("client_state"):
            for label, state in states.items():
                known = merged.setdefault(label, state)
                if known is not state:
                    _join_state(known, state)
        return merged

    async def recent_requests(self) -> Sequence[Mapping[str, Any]]:
        """See :class:`meshgw.app.plane.Plane`."""
        return [row for rows in await self._ask_all("recent_requests") for row in rows]

    async def described(self) -> Sequence[str]:
        """See :class:`meshgw.app.plane.Plane`."""
        return sorted(set().union(*await self._ask_all("described")))

    async def description(self, path: str) -> Mapping[str, Any]:
        """See :class:`meshgw.app.plane.Plane`. Each worker watches by itself, so each that serves ``path`` is shown, by its name."""
        shown: dict[str, Any] = {}
        unknown: MeshError = Relayed(code=503, text=NOBODY_SERVES)

        async def ask(name: str, channel: Channel) -> None:
            nonlocal unknown
            try:
                shown[name] = await channel.ask("description", path)
            except MeshError as error:
                if error.status == NotDescribed.status:
                    unknown = error
                else:
                    shown[name] = {"error": str(error)}

        members = [] if self._current is None else self._current.members
        serving = [(member.name, member.channel) for member in members if member.channel is not None]
        await DeferredList([Deferred.fromCoroutine(ask(name, channel)) for name, channel in serving])
        if not shown:
            raise unknown
        return {"workers": dict(sorted(shown.items()))}

    async def loggers(self) -> Sequence[tuple[str, str]]:
        """See :class:`meshgw.app.plane.Plane`."""
        levels = dict(self._levels.loggers())
        for answer in await self._ask_all("loggers"):
            for name, level in answer:
                levels.setdefault(name, level)
        return sorted(levels.items())

    async def set_level(self, logger: str, level: str) -> None:
        """See :class:`meshgw.app.plane.Plane`; workers that are yet to start get it too."""
        if level.upper() not in LEVELS or logger not in dict(await self.loggers()):
            return
        self._levels.preset(logger, level)
        await self._ask_all("preset_level", [logger, level])

    async def tracing(self) -> bool:
        """See :class:`meshgw.app.plane.Plane`."""
        return self._tracing.enabled

    async def set_tracing(self, enabled: bool) -> None:
        """See :class:`meshgw.app.plane.Plane`; workers that are yet to start get it too."""
        self._tracing.enabled = enabled
        await self._ask_all("set_tracing", enabled)

    async def delegate(self, namespace: str | None, dtab: Dtab, path: Path) -> Mapping[str, Any]:
        """See :class:`meshgw.app.plane.Plane`; a worker that serves the router is asked."""
        if namespace is None and self._current is not None and len(self._current.config.routers) > 1:
            namespace = ""  # no router is meant; the worker may have one alone and would take that
        answer: Mapping[str, Any] = await self._serving(namespace).ask("delegate", [namespace, dtab.show(), path.show()])
        return answer

    async def identify(self, head: Head) -> Mapping[str, Any]:
        """See :class:`meshgw.app.plane.Plane`; one worker of each group is asked."""
        answers: dict[str, Any] = {}
        if self._current is not None:
            for label in self._current.groups:
                if label not in answers:
                    answers |= await self._serving(label).ask("identify", head.to_plain())
        return answers

    async def diagnose(self, word: str, argument: Any = None, *, seconds: float = PATIENCE) -> Mapping[str, Any]:
        """See :class:`meshgw.app.plane.Plane`; the workers of the present configuration are asked."""
        found: dict[str, Any] = {}

        async def ask(member: Member) -> None:
            try:
                if member.channel is None:
                    raise Relayed(code=503, text="it does not serve")
                found[member.name] = await member.channel.ask("diagnose", [word, argument], seconds=seconds)
            except MeshError as error:
                found[member.name] = {"error": str(error)}

        members = [] if self._current is None else self._current.members
        asked: list[tuple[bool, Any]]
        asked = await DeferredList([Deferred.fromCoroutine(ask(member)) for member in members], consumeErrors=True)
        for is_done, failure in asked:
            if not is_done:
                failure.raiseException()  # a defect, or the caller has gone
        return dict(sorted(found.items()))

    def groups(self) -> Sequence[Sequence[str]]:
        """See :class:`meshgw.app.plane.Plane`."""
        groups = {} if self._current is None else self._current.groups
        return list({tuple(member.name for member in members): None for members in groups.values()})

    def _serving(self, label: str | None) -> Channel:
        """A worker that serves the router ``label``, or any if there is no such router."""
        members: Iterable[Member] = ()
        if self._current is not None:
            members = self._current.groups.get(label or "", self._current.members)
        for member in members:
            if member.channel is not None:
                return member.channel
        raise Relayed(code=503, text=NOBODY_SERVES)


async def _snapshot(channel: Channel) -> Snapshot:
    """All pieces of a worker's snapshot. Raises MeshError."""
    heard = Heard()
    number = None
    for _ in range(MOST_PIECES):
        piece = await channel.ask("snapshot", number)
        heard.add(piece)
        number = piece.get("more")
        if number is None:
            return heard.snapshot
    raise Relayed(code=502, text=f"{channel.name} does not come to an end with its metrics")


def _join_state(known: dict[str, Any], other: Mapping[str, Any]) -> None:
    for address in other["addresses"]:
        if address not in known["addresses"]:
            known["addresses"].append(address)
    known["endpoints"] = [*known["endpoints"], *other["endpoints"]]
    known["secondsSinceChange"] = min(known["secondsSinceChange"], other["secondsSinceChange"])
    if known["state"] == "Pending" != other["state"]:
        known["state"] = other["state"]
        known.pop("waitingFor", None)
    if "stale" in other:
        known.setdefault("stale", other["stale"])


async def _either(waiting: Sequence[Awaitable[Any]]) -> None:
    """Wait for the first of several to end."""
    first: Deferred[None] = Deferred()

    async def follow(one: Awaitable[Any]) -> None:
        await one
        if not first.called:
            first.callback(None)

    for one in waiting:
        Deferred.fromCoroutine(follow(one))
    await first
