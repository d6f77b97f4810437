"""Run a program beside a test, a benchmark or the demonstration: start it, wait until it accepts, stop it by its own pid.

Only the standard library is used, so that `benchmarks/` and `deploy/demo/` can share it without pytest. A program's output goes to a
file, never to a pipe: nobody has to read while it runs, and a failure can show all of it.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from pathlib import Path
from typing import ClassVar

from support.forks import TWISTD, Forked, Forks
from support.ports import LOOPBACK, PortBlock

POLL_SECONDS = 0.02
START_SECONDS = 60.0  # a second on an idle machine for what imports most
OPEN_FILES = 65536  # 10,000 idle connections and their upstream side, with room; root may raise the limit, others keep theirs

_ports = PortBlock()
"""Of this process: whoever starts servers wants ports that no other such process is given."""


class ProcessFailed(Exception):
    """A program ended early or did not become ready; the text holds its command and the end of its output."""


def free_port(host: str = LOOPBACK) -> int:
    """A port, for TCP or UDP, that nobody uses now and no other process of ours is given."""
    return _ports.take(host)


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on ``port`` now."""
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def accepts(port: int, host: str = LOOPBACK) -> bool:
    """Whether something accepts connections on ``port``."""
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def wait_until(statement: Callable[[], bool], seconds: float) -> bool:
    """Poll ``statement`` until it is true, at most ``seconds``; whether it became true."""
    end = time.monotonic() + seconds
    while not statement():
        if time.monotonic() >= end:
            return False
        time.sleep(POLL_SECONDS)
    return True


def raise_open_files() -> None:
    """Let this process open many files."""
    for limit in (OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            break
        except (ValueError, OSError):
            continue  # not allowed to raise the hard limit: take all that it allows


class Process:
    """One program: ``argv`` run in ``directory``, output in ``<name>.out`` there, pinned to CPU ``core`` (or some) if given."""

    forks: ClassVar[Forks | None] = None
    """If set, gateways are copies of a process that has imported them, as in the tests; benchmarks measure what users start."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        directory: Path,
        *,
        port: int | None = None,
        core: int | Set[int] | None = None,
        env: Mapping[str, str] | None = None,
        afresh: bool = False,
    ) -> None:
        """``afresh``: execute the program even where gateways are copied instead, see :attr:`forks`."""
        self.name, self.argv, self.directory, self.port, self.core = name, list(argv), directory, port, core
        self._env = {**os.environ, **env} if env is not None else None
        self.afresh = afresh
        self._popen: subprocess.Popen[bytes] | Forked | None = None
        self.output_file = directory / f"{name}.out"

    @property
    def pid(self) -> int:
        """The process id. Raises :class:`ProcessFailed` before ``start``."""
        if self._popen is None:
            raise ProcessFailed(f"{self.name} has not been started")
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Whether the program was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> Process:
        """Start the program without waiting for it."""
        is_plain = self.argv[0] == TWISTD and "--nodaemon" in self.argv and self._env is None and self.core is None
        if self.forks is not None and is_plain and not self.afresh:
            self._popen = self.forks.start(self.argv, self.directory, self.output_file)
            return self
        with self.output_file.open("ab") as output:
            try:
                self._popen = subprocess.Popen(
                    self.argv,
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    start_new_session=True,
                    preexec_fn=self._prepare,
                )
            except FileNotFoundError as error:
                raise ProcessFailed(f"{self.name}: no program {self.argv[0]!r}; install it (see .ci/packages)") from error
        return self

    def _prepare(self) -> None:
        raise_open_files()
        if self.core is not None:
            os.sched_setaffinity(0, {self.core} if isinstance(self.core, int) else self.core)

    def wait_ready(self, seconds: float = START_SECONDS, is_ready: Callable[[], bool] | None = None) -> Process:
        """Wait until ``is_ready()``, or until ``port`` accepts. Raises :class:`ProcessFailed` when it ends or takes longer."""
        check = is_ready or self._accepts
        reached = wait_until(lambda: not self.is_running or check(), seconds)
        if not self.is_running:
            code = self._popen.returncode if self._popen is not None else None
            raise ProcessFailed(self.describe(f"ended with status {code} before it was ready"))
        if not reached:
            raise ProcessFailed(self.describe(f"was not ready after {seconds:g} s"))
        return self

    def _accepts(self) -> bool:
        return self.port is None or accepts(self.port)

    def output(self) -> str:
        """Everything the program printed so far."""
        return self.output_file.read_text(errors="replace") if self.output_file.exists() else ""

    def state(self) -> str:
        """In words: whether it runs, or its exit status."""
        if self._popen is None:
            return "not started"
        status = self._popen.poll()
        return "running" if status is None else f"ended with status {status}"

    def says(self, text: str, seconds: float = 20.0) -> bool:
        """Whether the output has ``text``, or comes to have it: a line may be written a little after the answer that a caller has."""
        return wait_until(lambda: text in self.output(), seconds)

    def describe(self, problem: str, lines: int = 40) -> str:
        """A message: the problem, the command, the last ``lines`` of the output."""
        tail = "\n".join(self.output().splitlines()[-lines:])
        return f"{self.name} {problem}\n  command: {' '.join(self.argv)}\n  output:\n{tail or '(none)'}"

    def signal(self, number: int) -> None:
        """Send a signal to the program, if it still runs."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def wait(self, seconds: float) -> int | None:
        """The exit status, or None if the program still runs after ``seconds``."""
        if self._popen is None:
            return None
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, seconds: float = 20.0) -> int | None:
        """Ask the program to end, kill it and its children after ``seconds``; its exit status. Harmless when repeated."""
        if self._popen is None:
            return None
        if self._popen.poll() is None:
            self._popen.terminate()
            if self.wait(seconds) is None:
                self.kill()
        return self._popen.wait()

    def kill(self) -> None:
        """End the program and its children at once; the status is there as soon as they are gone, see :meth:`wait`."""
        if self._popen is not None and self._popen.poll() is None:
            os.killpg(self._popen.pid, signal.SIGKILL)  # its own session, see start(): nobody else is in the group


class Running:
    """The programs of one test or run, ended together.

    They are killed: how a program ends in good order is what single tests are about, and waiting for it after each of them takes minutes.
    """

    alive: ClassVar[list[Running]] = []
    """Those in use, the oldest first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: list[Process] = []

    def __iter__(self) -> Iterator[Process]:
        return iter(self._processes)

    def add(self, process: Process, *, seconds: float = START_SECONDS, is_ready: Callable[[], bool] | None = None) -> Process:
        """Start ``process``, wait until it is ready, and take care of its end even if it never is."""
        self._processes.append(process)
        return process.start().wait_ready(seconds, is_ready)

    def stop(self) -> None:
        """End everything."""
        ended, self._processes = self._processes, []
        for process in reversed(ended):
            process.kill()
        for process in ended:
            process.stop()

    def __enter__(self) -> Running:
        self.alive.append(self)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.alive.remove(self)
        self.stop()
