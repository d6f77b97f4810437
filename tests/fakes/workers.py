"""A reactor that starts workers which are objects of the test: they talk over in-memory transports and end when the test says so."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Mapping
from random import Random
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.test import iosim

from meshgw.admin.errors import Relayed
from meshgw.app.control import Channel
from meshgw.app.member import Settings


class Wire:
    """Two AMP protocols joined in memory; ``flush`` carries what they have written, ``cut`` ends the connection for both."""

    def __init__(self, one: Channel, other: Channel) -> None:
        self.one, self.other = one, other
        self._pump = iosim.connect(one, iosim.makeFakeServer(one), other, iosim.makeFakeClient(other), greet=False)
        self._is_cut = False

    def flush(self) -> bool:
        """Whether anything was carried."""
        return not self._is_cut and bool(self._pump.flush())

    def cut(self) -> None:
        if not self._is_cut:
            self._is_cut = True
            for side in (self.one, self.other):
                side.connectionLost(Failure(ConnectionDone()))


class FakeWorker:
    """A worker process: what it was asked is in ``asked``, what it answers in ``answers``; an exception there is raised.

    It is also the process as Twisted has it (``IProcessTransport``).
    """

    def __init__(self, reactor: WorkerReactor, protocol: Any, arguments: list[str], child_fds: Mapping[int, Any]) -> None:
        self._reactor, self._protocol = reactor, protocol
        self.name = arguments[arguments.index("--name") + 1]
        self.child_fds = dict(child_fds)
        self.pid = 1000 + len(reactor.workers)
        self.asked: list[tuple[str, Any]] = []
        self.answers: dict[str, Any] = {
            "begin": self.pid,
            "stop": None,
            "retire": None,
            "preset_level": None,
            "set_tracing": None,
            **reactor.answers,
        }
        self.channel = Channel("the master", self._answer, reactor)
        self.wire: Wire | None = None
        self.is_gone = False
        self.ignores_signals = False
        self.killed = 0

    async def _answer(self, word: str, argument: Any) -> Any:
        self.asked.append((word, argument))
        answer = self.answers.get(word, Relayed(code=501, text=f"{word}?"))
        if isinstance(answer, Exception):
            raise answer
        return await answer if isinstance(answer, Deferred) else answer

    def words(self) -> list[str]:
        return [word for word, _ in self.asked]

    def closeStdin(self) -> None:
        pass

    def signalProcess(self, name: str) -> None:
        assert name == "KILL"
        if self.is_gone:
            raise ProcessExitedAlready
        self.killed += 1
        if not self.ignores_signals:
            self._reactor.callLater(0, self.end, killed_by=signal.SIGKILL)

    def say(self, data: bytes, fd: int = 1) -> None:
        self._protocol.childDataReceived(fd, data)

    def end(self, status: int = 0, killed_by: int | None = None, *, cut_first: bool = True) -> None:
        """The process ends; its connection is seen to end before that, or after."""
        if self.is_gone:
            return
        self.is_gone = True
        if cut_first and self.wire is not None:
            self.wire.cut()
        reason = ProcessDone(0) if status == 0 and killed_by is None else ProcessTerminated(status, killed_by)
        self._protocol.processEnded(Failure(reason))
        if self.wire is not None:
            self.wire.cut()


class WorkerReactor(Clock):
    """Time, and processes that are :class:`FakeWorker` objects."""

    def __init__(self, **answers: Any) -> None:
        super().__init__()
        self.workers: list[FakeWorker] = []
        self.answers = answers
        """What workers that start from now on answer, besides the usual."""
        self.refusal: OSError | None = None
        """Raised instead of starting a process."""

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], env: Any, *, childFDs: Mapping[int, Any]) -> FakeWorker:
        if self.refusal is not None:
            raise self.refusal
        worker = FakeWorker(self, protocol, args, childFDs)
        self.workers.append(worker)
        return worker

    def adoptStreamConnection(self, fd: int, family: int, factory: Factory) -> None:
        protocol: Any = factory.buildProtocol(UNIXAddress(None))
        self.workers[-1].wire = Wire(protocol, self.workers[-1].channel)

    def settle(self) -> None:
        """Carry messages and run what is due until nothing moves."""
        for _ in range(50):
            flushed = [worker.wire.flush() for worker in self.workers if worker.wire is not None]
            calls = len(self.getDelayedCalls())
            self.advance(0)
            if not any(flushed) and calls == len(self.getDelayedCalls()):
                return
        raise AssertionError("it does not settle")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, handling what comes of it."""
        self.settle()
        self.advance(seconds)
        self.settle()

    @property
    def living(self) -> list[FakeWorker]:
        return [worker for worker in self.workers if not worker.is_gone]

    def of(self, name: str) -> list[FakeWorker]:
        """The workers of that name, in the order of their starts."""
        return [worker for worker in self.workers if worker.name == name]


def open_files() -> int:
    """Descriptors of this process. What earlier tests left to the garbage collector is closed first, lest it goes while one counts."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def settings(reactor: WorkerReactor, lines: list[str] | None = None) -> Settings:
    """What members have in common, with workers' output in ``lines``."""
    relay = (lines if lines is not None else []).append
    return Settings(reactor=reactor, random=Random(1), log_level="INFO", log_format="text", relay=relay)
