"""Has the data path become slower? `make guard` measures it, compares each figure with the last accepted one and fails above +5 %.

Where valgrind is installed the figures are instructions per request, which a busy machine does not disturb: the whole gateway, as twistd
starts it, runs twice under callgrind and answers 200 and 2,200 requests; the difference divided by 2,000 is free of what starting costs.
It says nothing about the kernel's part. Requests of HTTP/1.1 come one by one. Calls over HTTP/2 are those of `h2.py`, ten and a hundred
streams of one connection at a time, where h2load and nghttpd are installed; callgrind counts only while they are made. Otherwise, or with
`--cpu`, the figure is CPU per request divided by nginx's in the same rounds; that needs a quiet machine. Accepted figures are kept by
interpreter in accepted.json; `--accept` writes the present ones. Run it by hand and before a release: a figure of another machine's build
proves nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # support/, shared with the integration tests

import h2
import run
from native import Place
from pythonic import meshgw
from report import progress, within_rounds
from rig import Options, programs
from scenarios import SCENARIOS
from steady import request_head
from support.processes import Process, ProcessFailed, Running, free_port

ACCEPTED = Path(__file__).with_name("accepted.json")
INSTRUCTIONS, CPU = "instructions per request", "CPU per request ÷ nginx"
H2 = {streams: f"instructions per call over HTTP/2, {streams} streams" for streams in (10, 100)}
ALLOWED = 1.05
FEW, MANY = 200, 2200
CALLS = 1000
START_SECONDS = 300.0  # under callgrind everything takes some fifty times as long
ANSWER_SECONDS = 60.0
BODY = b"x" * 128
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 21:07:13 GMT\r\nContent-Type: text/plain\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%b" % (len(BODY), BODY)
)
REQUEST_ID = b"5b1f7a0c"
"""A part of the head that is another in each request, as ids are."""
CPU_ROUNDS, CPU_SECONDS = 7, 3.0


def instructions(python: str) -> float:
    """Instructions per request of the gateway that ``python`` runs. Raises :class:`ProcessFailed`."""
    with programs() as running:
        few, many = (_Counted(running, python, requests) for requests in (FEW, MANY))
        progress("starting two gateways under callgrind, which takes a minute or two …")
        return (many.instructions() - few.instructions()) / (MANY - FEW)


def h2_instructions(python: str, streams: int) -> float:
    """Instructions per call over HTTP/2, so many at a time on one connection. Raises :class:`ProcessFailed`."""
    with programs() as running:
        behind = running.add(h2.backend(running.directory))
        assert behind.port is not None
        progress("starting a gateway under callgrind, which takes a minute …")
        return _CountedCalls(running, python, behind.port, streams).instructions() / CALLS


class _Counting:
    """A gateway under callgrind, and what is asked of it."""

    def __init__(self, running: Running, name: str, plain: Process, python: str, *options: str) -> None:
        counting = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *options, python]
        # PYTHONHASHSEED: the same order of sets and dictionaries in both runs; no core: two may run at once
        self._process = Process(name, [*counting, *plain.argv], plain.directory, port=plain.port, env={"PYTHONHASHSEED": "0"})
        running.add(self._process, is_ready=lambda: True)  # not awaited here, so that both start side by side

    def instructions(self) -> int:
        """All instructions from start to end, with the requests in between."""
        self._process.wait_ready(START_SECONDS)
        self._ask()
        self._process.signal(signal.SIGTERM)
        if self._process.wait(ANSWER_SECONDS) is None:
            raise ProcessFailed(self._process.describe("did not end"))
        found = re.search(r"Collected : (\d+)", self._process.output())
        if not found:
            raise ProcessFailed(self._process.describe("did not say how many instructions it took"))
        return int(found[1])

    def _ask(self) -> None:
        raise NotImplementedError


class _CountedCalls(_Counting):
    """Calls over HTTP/2, which are counted apart from the start and from those before."""

    def __init__(self, running: Running, python: str, backend: int, streams: int) -> None:
        self._streams, self._port = streams, free_port()
        self._directory = running.directory / "calls"
        self._directory.mkdir()
        plain = h2.meshgw(Place(directory=self._directory, port=self._port, upstream=backend, core=0, python=python))
        super().__init__(running, f"counted-{streams}", plain, python, "--instr-atstart=no")

    def _ask(self) -> None:
        h2.call(self._port, self._streams, FEW, self._directory, seconds=START_SECONDS)
        self._count("on")
        h2.call(self._port, self._streams, CALLS, self._directory, seconds=START_SECONDS)
        self._count("off")

    def _count(self, state: str) -> None:
        command = ["callgrind_control", "-i", state, str(self._process.pid)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=ANSWER_SECONDS)
        if ran.returncode:
            raise ProcessFailed(f"{' '.join(command)} failed:\n{ran.stdout}{ran.stderr}")


class _Counted(_Counting):
    """Requests of HTTP/1.1, of the one caller that it has, and the backend behind it."""

    def __init__(self, running: Running, python: str, requests: int) -> None:
        self._requests, self._port = requests, free_port()
        self._backend = socket.create_server(("127.0.0.1", 0))
        self._backend.settimeout(ANSWER_SECONDS)
        upstream = self._backend.getsockname()[1]
        plain = meshgw(Place(directory=running.directory, port=self._port, upstream=upstream, core=0, python=python))
        super().__init__(running, f"counted-{requests}", plain, python)

    def _ask(self) -> None:
        with closing(self._backend), closing(socket.create_connection(("127.0.0.1", self._port), timeout=ANSWER_SECONDS)) as caller:
            self._talk(caller)

    def _talk(self, caller: socket.socket) -> None:
        head = request_head(12)
        upstream: socket.socket | None = None
        for number in range(self._requests):
            caller.sendall(head.replace(REQUEST_ID, b"%08x" % number))
            if upstream is None:
                upstream, _ = self._backend.accept()
                upstream.settimeout(ANSWER_SECONDS)
            _expect(upstream, b"\r\n\r\n")
            upstream.sendall(ANSWER)
            _expect(caller, BODY)
        if upstream is not None:
            upstream.close()


def _expect(sock: socket.socket, end: bytes) -> None:
    data = b""
    while not data.endswith(end):
        piece = sock.recv(65536)
        if not piece:
            raise ProcessFailed(f"the gateway closed a connection after {data!r}")
        data += piece


def cpu(python: str) -> float:
    """CPU per request divided by nginx's, the median of the ratios within each round. Raises :class:`ProcessFailed`."""
    scenario = attrs.evolve(SCENARIOS["small"], proxies=("nginx", "meshgw"), connections=(16,))
    section = run.measure(scenario, Options(rounds=CPU_ROUNDS, seconds=CPU_SECONDS, python=python))
    figures = section.figures.get("cpu c=16", {})
    if figures.keys() != {"nginx", "meshgw"}:
        raise ProcessFailed(f"nothing was measured: {section.missing}")
    return median(within_rounds(figures["meshgw"], figures["nginx"]))


def interpreter(python: str) -> str:
    """Version, compiler and architecture of ``python``: figures of another build cannot be compared."""
    ask = "import platform as p; print(p.python_version(), p.python_compiler(), p.machine())"
    return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def accepted() -> dict[str, dict[str, float]]:
    """The accepted figures: kind of figure → interpreter → value."""
    found: dict[str, dict[str, float]] = json.loads(ACCEPTED.read_text()) if ACCEPTED.exists() else {}
    return found


def accept(kind: str, build: str, value: float) -> None:
    """Keep ``value`` as the figure to compare with."""
    known = accepted()
    known.setdefault(kind, {})[build] = round(value, 3)
    ACCEPTED.write_text(json.dumps(known, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def verdict(value: float, before: float) -> tuple[int, str]:
    """The exit status and what to say."""
    change = f"{value / before - 1:+.1%} against the accepted {before:,.3f}"
    if value > before * ALLOWED:
        return 1, f"{change}: slower than allowed. Find out why, or accept it with --accept and say why in the commit."
    if value * ALLOWED < before:
        return 0, f"{change}: faster. Keep the gain with --accept."
    return 0, f"{change}: as before."


def figures(*, is_cpu: bool) -> list[tuple[str, Callable[[str], float]]]:
    """What can be measured here, and how; the functions take the interpreter and raise :class:`ProcessFailed`."""
    if is_cpu:
        return [(CPU, cpu)]
    found: list[tuple[str, Callable[[str], float]]] = [(INSTRUCTIONS, instructions)]
    if shutil.which("h2load") and shutil.which("nghttpd"):
        found += [(kind, partial(h2_instructions, streams=streams)) for streams, kind in H2.items()]
    return found


def compared(kind: str, build: str, value: float, *, is_accepted: bool) -> int:
    """Say how a figure stands, or keep it; gives the exit status."""
    sys.stdout.write(f"{kind}: {value:,.3f} with Python {build}\n")
    if is_accepted:
        accept(kind, build, value)
        sys.stdout.write(f"accepted in benchmarks/{ACCEPTED.name}\n")
        return 0
    before = accepted().get(kind, {}).get(build)
    if before is None:
        sys.stdout.write(f"{ACCEPTED.name} has no such figure for this interpreter; --accept keeps this one\n")
        return 2
    status, text = verdict(value, before)
    sys.stdout.write(text + "\n")
    return status


def main(arguments: Sequence[str] | None = None) -> int:
    """0 as before or faster, 1 slower, 2 when there is nothing to compare or nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accept", action="store_true", help=f"keep the figures in {ACCEPTED.name}")
    parser.add_argument("--cpu", action="store_true", help="compare CPU with nginx's even where valgrind is installed")
    parser.add_argument("--only", default="", help="only figures whose name contains this, such as 'HTTP/2'")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment that meshgw runs in (default: this one)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, which stops what was started
    build, found = interpreter(options.python), []
    try:
        for kind, measure in figures(is_cpu=options.cpu or not shutil.which("valgrind")):
            if options.only in kind:
                found.append(compared(kind, build, measure(options.python), is_accepted=options.accept))
    except (ProcessFailed, OSError, subprocess.TimeoutExpired) as error:
        progress(f"nothing was measured: {error}")
        return 2
    return 1 if 1 in found else max(found, default=2)


if __name__ == "__main__":
    sys.exit(main())
