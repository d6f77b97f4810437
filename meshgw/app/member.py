"""One worker as its master sees it: the process, the channel to it, its output, and its replacement when it ends unasked.

Source: ARCHITECTURE.md section 7. A worker that keeps ending is started again ever more slowly, up to ``SLOWEST`` seconds apart.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.python.failure import Failure

from meshgw.admin.errors import Relayed
from meshgw.app.control import Channel
from meshgw.app.job import Job, Settings
from meshgw.core.logger import make_logger
from meshgw.core.timers import equal_jittered
from meshgw.errors import MeshError
from meshgw.telemetry.metrics import Counter, Snapshot
from meshgw.telemetry.spans import TracingSwitch
from meshgw.telemetry.transfer import from_plain

START_SECONDS = 30.0
"""Within which a new worker serves, or is killed."""
STEADY_SECONDS = 10.0
"""A worker that lived this long was well: the next one starts at once."""
FASTEST, SLOWEST = 0.1, 10.0
END_MARGIN = 5.0
"""Seconds beyond the grace period after which a worker that was told to end is killed."""
FIRST_FD = 3
LONGEST_LINE = 65536
"""Bytes of a worker's output kept while the end of a line is missing."""

_log = make_logger()


class Member(ProcessProtocol):
    """A worker's place in its group. ``job`` has descriptors of this process; the worker gets copies under other numbers."""

    def __init__(
        self,
        name: str,
        job: Job,
        settings: Settings,
        *,
        levels: Callable[[], Mapping[str, str]],
        tracing: TracingSwitch,
        restarts: Counter,
        vacated: Callable[[Member], None],
    ) -> None:
        """``levels`` gives those of the loggers at present, ``tracing`` is shared by all members; ``vacated`` is called whenever the
        process has ended.
        """
        self.name, self._job, self._settings, self._restarts, self._vacated = name, job, settings, restarts, vacated
        self._levels, self._tracing = levels, tracing
        self.channel: Channel | None = None
        """The connection to the process while it serves."""
        self.snapshot = Snapshot()
        """The last figures that the process told."""
        self._process: Any = None
        self._pid = 0
        self._waits = equal_jittered(settings.random, FASTEST, SLOWEST)
        self._is_wanted = True
        self._is_starting = False
        self._started_at = 0.0
        self._again: Any = None
        self._ended: list[Deferred[None]] = []
        self._output: dict[int, bytes] = {}  # by descriptor: what came of a line whose end is missing

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    # --- start

    async def start(self) -> None:
        """Start the process and wait until it serves. Raises MeshError; the process has been killed then."""
        self._is_starting = True
        self._started_at = self._settings.reactor.seconds()
        try:
            channel = self._spawn()
            levels, traces = dict(self._levels()), self._tracing.enabled
            shares = (self._shares_fd(), *self._job.shares[1:])
            job = attrs.evolve(self._job, sockets=self._numbers(), shares=shares, levels=levels, tracing=traces)
            self._pid = await channel.ask("begin", job.to_plain(), seconds=START_SECONDS)
            if self._process is None:  # its end may be reported before the answer that it sent
                raise Relayed(code=500, text=f"worker {self.name} ended when it had begun")
            self.channel = channel
            for changed in self._levels().items() - levels.items():
                await channel.ask("preset_level", list(changed))
            if self._tracing.enabled != traces:
                await channel.ask("set_tracing", self._tracing.enabled)
        except MeshError:
            self._kill()
            await self._gone()
            raise
        finally:
            self._is_starting = False
        if self._is_wanted:
            _log.info("worker {name} serves, pid {pid}", name=self.name, pid=self._pid)

    def _spawn(self) -> Channel:
        settings = self._settings
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise self._cannot_start(error) from error
        ours.setblocking(False)
        channel = Channel(f"worker {self.name}", self._answer, settings.reactor)
        command = ["--name", self.name, "--control", str(FIRST_FD), "--reactor", type(settings.reactor).__module__]
        command += ["--log-level", settings.log_level, "--log-format", settings.log_format]
        command += ["--histogram-interval", str(settings.histogram_interval)]
        # the worker finds the very modules that this process uses, and none that lie in the working directory
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        inherited: dict[int, int | str] = {0: "w", 1: "r", 2: "r", FIRST_FD: theirs.fileno()}
        inherited |= {number: self._job.sockets[name] for name, number in self._numbers().items()}
        inherited[self._shares_fd()] = self._job.shares[0]
        try:
            self._process = settings.reactor.spawnProcess(
                self, sys.executable, [sys.executable, "-P", "-m", "meshgw.app.worker", *command], environment, childFDs=inherited
            )
            settings.reactor.adoptStreamConnection(ours.fileno(), ours.family, Factory.forProtocol(lambda: channel))
        except OSError as error:
            raise self._cannot_start(error) from error
        finally:
            ours.close()  # both have duplicates by now
            theirs.close()
        self._process.closeStdin()
        return channel

    def _cannot_start(self, error: OSError) -> Relayed:
        return Relayed(code=500, text=f"worker {self.name} cannot be started: {error}")

    def _numbers(self) -> dict[str, int]:
        """The descriptors under which the worker has the sockets."""
        return {name: FIRST_FD + 1 + index for index, name in enumerate(self._job.sockets)}

    def _shares_fd(self) -> int:
        return FIRST_FD + 1 + len(self._job.sockets)

    async def _answer(self, word: str, argument: Any) -> Any:
        if word != "farewell":
            raise Relayed(code=501, text=f"{word!r} is not a question that a master knows")
        self.snapshot = from_plain(argument)

    # --- end

    def end(self, grace: float, *, close_idle: bool) -> Deferred[None]:
        """Let the process finish what is under way, then end; fires when it has. None will follow it."""
        self._is_wanted = False
        done = self._gone()
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self.channel is None:
            self._kill()
            return done
        asked = Deferred.fromCoroutine(self.channel.ask("stop" if close_idle else "retire", grace))
        asked.addErrback(lambda _failure: None)  # a busy one may hear of it later, and one that has lost us ends by itself
        self._settings.reactor.callLater(grace + END_MARGIN, self._kill_late, self._process)
        return done

    def _gone(self) -> Deferred[None]:
        """Fires when there is no process any more."""
        done: Deferred[None] = Deferred()
        if self._process is None:
            done.callback(None)
        else:
            self._ended.append(done)
        return done

    def _kill_late(self, process: Any) -> None:
        if self._process is process and process is not None:
            _log.warn("worker {name} did not end within its grace period and is killed", name=self.name)
            self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            try:
                self._process.signalProcess("KILL")
            except ProcessExitedAlready:
                pass  # its end is about to be reported

    def processEnded(self, reason: Failure) -> None:
        """The process is gone: told to go, or to be replaced."""
        # starting ends while those are told who wait for the end of the process, and has its own ways to try again
        is_to_be_replaced = self._is_wanted and not self._is_starting
        self._process, self.channel = None, None
        for rest in self._output.values():
            if rest:
                self._settings.relay(rest.decode(errors="replace") + "\n")
        self._output.clear()
        self._vacated(self)
        ended, self._ended = self._ended, []
        for done in ended:
            done.callback(None)
        if is_to_be_replaced:
            self._replace(_how(reason))

    def _replace(self, how: str) -> None:
        reactor = self._settings.reactor
        if reactor.seconds() - self._started_at >= STEADY_SECONDS:
            self._waits = equal_jittered(self._settings.random, FASTEST, SLOWEST)
        seconds = next(self._waits)
        self._restarts.incr()
        _log.error(
            "worker {name} (pid {pid}) {how}; a new one starts in {seconds:.1f} s", name=self.name, pid=self._pid, how=how, seconds=seconds
        )
        self._again = reactor.callLater(seconds, self._restart)

    def _restart(self) -> None:
        self._again = None
        # what was to be begun anew was so by the first
        self._job = attrs.evolve(self._job, is_first=False)
        Deferred.fromCoroutine(self.start()).addErrback(self._not_started)

    def _not_started(self, failure: Failure) -> None:
        if self._is_wanted:
            self._replace(f"could not start: {failure.getErrorMessage()}")

    # --- output

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Pass the worker's log on, whole lines at a time."""
        lines, end, rest = (self._output.get(childFD, b"") + data).rpartition(b"\n")
        if len(rest) > LONGEST_LINE:
            lines, end, rest = lines + end + rest, b"\n", b""
        self._output[childFD] = rest
        if end:
            self._settings.relay((lines + end).decode(errors="replace"))


def _how(reason: Any) -> str:
    number = getattr(reason.value, "signal", None)
    if number is not None:
        return f"was killed by {signal.Signals(number).name}"
    return f"ended with status {reason.value.exitCode}"
