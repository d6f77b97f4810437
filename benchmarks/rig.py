"""What every measurement shares: the options of a run, and the programs of one scenario, which all end with it."""

from __future__ import annotations

import contextlib
import http.client
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import attrs

from accounting import stolen_and_total
from load import Load
from native import Place
from peers import Participant
from report import Section, progress
from scenarios import Scenario
from support.processes import Process, ProcessFailed, Running, free_port

SECONDS = 4.0
WARM_UP_SECONDS = 1.0
WARM_UP_CONNECTIONS = 16
START_SECONDS = 30.0


@attrs.frozen(kw_only=True)
class Options:
    """How to measure; None leaves the rounds to the scenario."""

    rounds: int | None = None
    seconds: float = SECONDS
    python: str = sys.executable
    load_core: int = 0
    proxy_core: int = 1
    worker_cores: frozenset[int] = frozenset()
    """CPUs of proxies with several workers; empty: that of all proxies."""


class Rig:
    """The programs of one scenario in a directory of its own, and the section of the report that they fill."""

    def __init__(self, scenario: Scenario, options: Options, running: Running) -> None:
        self.scenario, self.options, self._running = scenario, options, running
        self.rounds = options.rounds or scenario.rounds
        self.section = Section(scenario=scenario)
        self.load = Load(headers=scenario.headers, seconds=options.seconds, core=options.load_core, is_keep_alive=scenario.is_keep_alive)
        self._stolen, self._total = stolen_and_total(options.proxy_core)

    @property
    def directory(self) -> Path:
        """Where the programs keep their files; gone afterwards."""
        return self._running.directory

    def start(self, process: Process) -> Process:
        """Start a program of the surroundings, such as the backend."""
        return self._running.add(process, seconds=START_SECONDS)

    def start_proxies(self, names: Sequence[str], upstream: int, host: str = "web") -> dict[str, Process]:
        """Start and warm up those that can be had; why others cannot is noted in the section."""
        started: dict[str, Process] = {}
        for name in names:
            try:
                started[name] = self.start_proxy(name, upstream, host)
            except ProcessFailed as error:
                progress(f"{name} takes no part: {error}")
                self.section.missing[name] = reason(error)
        return started

    def start_proxy(self, name: str, upstream: int, host: str = "web") -> Process:
        """Start one proxy and wait until it serves ``host``. Raises :class:`ProcessFailed`."""
        participant = Participant.read(name)
        directory = self._running.directory / name.replace(":", "-")
        directory.mkdir()
        place = Place(
            directory=directory,
            port=free_port(),
            upstream=upstream,
            core=(self.options.worker_cores if participant.workers > 1 else None) or self.options.proxy_core,
            python=self.options.python,
            workers=participant.workers,
        )
        self.section.versions[name] = participant.peer.version(self.options.python)
        process = participant.peer.make(place)
        self._running.add(process, seconds=START_SECONDS, is_ready=lambda: serves(place.port, host))
        return process

    def warm_up(self, started: dict[str, Process]) -> None:
        """Let each work a little: caches fill, connections to the backend open."""
        for process in started.values():
            self.load.run(port_of(process), WARM_UP_CONNECTIONS, seconds=WARM_UP_SECONDS)

    def worker_cores(self) -> str:
        """Where proxies with several workers run, as the end of a sentence."""
        if not any(":" in name for name in self.scenario.proxies):
            return ""
        cores = sorted(self.options.worker_cores)
        if cores:
            return f", those with several workers on CPUs {', '.join(map(str, cores))}"
        return ", also those with several workers, which take turns on it: what they could do with a core each is calculated, not seen"

    def settings(self, *sentences: str) -> None:
        """Say in the section how it was measured."""
        stolen, total = stolen_and_total(self.options.proxy_core)
        share = (stolen - self._stolen) / max(1, total - self._total)
        self.section.settings = " ".join([*sentences, f"The hypervisor gave {share:.0%} of the proxies' CPU to others meanwhile."])


def reason(error: ProcessFailed) -> str:
    """An error in one line: what happened, and the last line that the program said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if len(lines) == 1 else f"{lines[0]} ({lines[-1]})"


def port_of(process: Process) -> int:
    """The port the process serves on."""
    if process.port is None:
        raise ProcessFailed(f"{process.name} has no port")
    return process.port


def serves(port: int, host: str = "web") -> bool:
    """Whether a request for ``host`` is answered with 200; a proxy accepts before its backend is known."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)) as connection:
        try:
            connection.request("GET", "/index.html", headers={"Host": host})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


@contextlib.contextmanager
def programs() -> Iterator[Running]:
    """A directory and the programs that run in it. They are stopped whatever happens; a second Ctrl-C does not get in between."""
    with tempfile.TemporaryDirectory(prefix="meshgw-bench-") as place:
        directory = Path(place)
        directory.chmod(0o755)  # nginx's worker leaves root's account
        running = Running(directory)
        try:
            yield running
        finally:
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                running.stop()
            finally:
                signal.signal(signal.SIGINT, before)
