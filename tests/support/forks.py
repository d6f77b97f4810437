"""Gateways as copies of one process that has imported everything: of the second of work that a start takes, nearly all is imports.

A program started by :class:`Forks` is twistd with the given command line, in a process, a session and a directory of its own, as one that
is executed afresh; only what Python has read before is already there. Run as a program, this module is the process that is copied: it
takes one request in JSON a line on its standard input, and answers each with a line on its standard output.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

TWISTD = str(Path(sys.executable).with_name("twistd"))
POLL_SECONDS = 0.01


class ForksFailed(Exception):
    """The process to be copied has ended."""


class Forked:
    """A program started as a copy; the part of :class:`subprocess.Popen` that :class:`support.processes.Process` uses."""

    def __init__(self, forks: Forks, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._forks = forks

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._forks.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once there is one. Raises :class:`subprocess.TimeoutExpired`."""
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired(TWISTD, timeout or 0)
            time.sleep(POLL_SECONDS)
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:  # until it has been asked for its status, nobody else gets its pid
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


class Forks:
    """Starts copies; the process to be copied is started with the first, and ends with this one."""

    def __init__(self) -> None:
        self._source: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self, argv: Sequence[str], directory: Path, output: Path) -> Forked:
        """Run twistd with ``argv`` in ``directory``, what it prints is appended to the file ``output``."""
        return Forked(self, self.ask(argv=list(argv), directory=str(directory), output=str(output), environment=dict(os.environ)))

    def ask(self, **request: Any) -> Any:
        """One request to the process that is copied."""
        with self._lock:
            if self._source is None:
                argv = [sys.executable, "-P", __file__]
                self._source = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
            assert self._source.stdin is not None and self._source.stdout is not None
            self._source.stdin.write(json.dumps(request).encode() + b"\n")
            self._source.stdin.flush()
            answer = self._source.stdout.readline()
        if not answer:
            raise ForksFailed(f"the process that gateways are copied from ended with status {self._source.wait()}")
        return json.loads(answer)


# --- the process that is copied


def import_all() -> None:
    """What a gateway imports, and the parts that only some configurations need."""
    from importlib import import_module
    from pkgutil import walk_packages

    import meshgw

    for name in ("support.processes", "twisted.plugins", "twisted.scripts.twistd"):
        import_module(name)
    for module in walk_packages(meshgw.__path__, "meshgw."):
        if not module.name.startswith(("meshgw.cli", "meshgw.app.worker")):
            import_module(module.name)
    assert "twisted.internet.reactor" not in sys.modules, "each gateway installs its own"


def copy() -> int:
    """As :func:`os.fork`, but the copy already leads a session of its own when its pid is told."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
    os.close(done)
    os.read(ready, 1)  # until all have closed the other end
    os.close(ready)
    return pid


def become(request: dict[str, Any]) -> NoReturn:
    """Make this process, a fresh copy, the program that is asked for."""
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    for place, mode, descriptor in ((os.devnull, os.O_RDONLY, 0), (request["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 1)):
        opened = os.open(place, mode, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)
    sys.argv = request["argv"]
    sys.path.insert(0, str(Path(TWISTD).parent))

    from twisted.scripts.twistd import run

    from support.processes import raise_open_files

    raise_open_files()
    sys.exit(run())


def serve() -> None:
    """Answer until there are no more requests, then end what still runs; copies never come back from here."""
    alive = set()
    for line in iter(sys.stdin.buffer.readline, b""):
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            alive.discard(pid)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = copy()
            if answer == 0:
                become(request)
            alive.add(answer)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in alive:
        os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import_all()
    gc.freeze()  # copies share these pages as long as nobody writes into them
    serve()
