"""How many requests survive when backends fail: five backends behind the gateway, steady load, one kind of fault after another.

`python benchmarks/chaos.py --seconds 60 --seed 1`; prints a Markdown report, and exits with 1 when a bound is broken: fewer than 99.9 % of
the requests succeed although one backend is always well, a caller gets an answer that is not its own or a second one, or the gateway holds
connections, places or descriptors afterwards that it did not hold before. Loopback only; it needs no other program.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # support/, shared with the integration tests

from support.gateways import Gateway, gateway
from support.processes import LOOPBACK, Process, Running, accepts, free_port, wait_until

BACKENDS = 5
LEAST_SUCCESS = 0.999
FAULTS = ("kill", "stop", "slow", "reset", "half-close", "garbage", "refuse", "error")
PAUSE = 0.5
"""Seconds without a fault between two of them, as part of the next."""
RATE = 60.0
"""Requests per second and connection: steady load far below what anybody could handle, so that only faults make errors."""
ANSWER_SECONDS = 10.0
"""A caller that waits longer counts as failed."""
SETTLE_SECONDS = 15.0
UNRULY = Path(__file__).resolve().parents[1] / "tests" / "support" / "unruly.py"

CLIENT: dict[str, Any] = {
    "requestAttemptTimeoutMs": 400,
    "connectTimeoutMs": 300,
    "failFast": True,
    "failureAccrual": {"kind": "io.l5d.consecutiveFailures", "failures": 3, "backoff": {"kind": "jittered", "minMs": 300, "maxMs": 2000}},
    "clientSession": {"idleTimeMs": 1000},  # so that afterwards every connection that is left is a leak
}
SERVICE: dict[str, Any] = {
    "responseClassifier": {"kind": "io.l5d.http.retryableIdempotent5XX"},
    "retries": {"budget": {"ttlSecs": 10, "minRetriesPerSec": 20, "percentCanRetry": 0.5}},
}
DEFENCELESS: dict[str, Any] = {
    "client": {"failureAccrual": {"kind": "none"}, "requestAttemptTimeoutMs": 400, "clientSession": {"idleTimeMs": 1000}}
}


class Backend:
    """One unruly service: its process and the way to its modes."""

    def __init__(self, running: Running, number: int) -> None:
        self.name = f"backend{number}"
        self.port, self._control = free_port(), free_port()
        argv = [sys.executable, str(UNRULY), self.name, str(self.port), str(self._control)]
        self._process = Process(self.name, argv, running.directory, port=self.port)
        running.add(self._process)

    def begin(self, fault: str) -> None:
        """Let the fault begin."""
        if fault == "kill":
            self._process.signal(signal.SIGKILL)
            self._process.wait(5.0)
        elif fault == "stop":
            self._process.signal(signal.SIGSTOP)
        else:
            self._set(fault)

    def end(self, fault: str) -> None:
        """Make it well again, and wait until it is."""
        if fault == "kill":
            self._process.start().wait_ready(10.0)
        elif fault == "stop":
            self._process.signal(signal.SIGCONT)
        else:
            self._set("ok")
            wait_until(lambda: accepts(self.port), 5.0)

    def _set(self, mode: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            control.settimeout(5.0)
            control.sendto(mode.encode(), (LOOPBACK, self._control))
            if control.recv(100).decode() != mode:
                raise RuntimeError(f"{self.name} did not take mode {mode}")


@attrs.define
class Tally:
    """What the callers saw while one fault lasted."""

    fault: str = ""
    ill: int = 0
    sent: int = 0
    failures: list[str] = attrs.field(factory=list)
    seconds: list[float] = attrs.field(factory=list)


class Load:
    """Callers on keep-alive connections, each sending one request after the other with ids that never repeat."""

    def __init__(self, port: int, callers: int) -> None:
        self._port = port
        self.tally = Tally("none")
        self.tallies = [self.tally]
        self.strange: list[str] = []
        """Answers that were not the caller's own, or came without a request."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,), daemon=True) for number in range(callers)]

    def start(self) -> None:
        """Begin to call."""
        for thread in self._threads:
            thread.start()

    def during(self, fault: str, ill: int) -> None:
        """Count under this fault from now on."""
        self.tally = Tally(fault, ill)
        self.tallies.append(self.tally)

    def stop(self) -> None:
        """Let each caller finish its request."""
        self._stop.set()
        for thread in self._threads:
            thread.join(ANSWER_SECONDS + 5.0)

    def _call(self, caller: int) -> None:
        sock: socket.socket | None = None
        number = 0
        due = time.monotonic() + caller / RATE / len(self._threads)
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1.0 / RATE, time.monotonic() - 0.1)
            number += 1
            sock = self._one(sock, f"{caller}-{number}", is_put=number % 4 == 0)
        if sock is not None:
            sock.settimeout(0.3)
            self._expect_nothing(sock)
            sock.close()

    def _one(self, sock: socket.socket | None, id: str, *, is_put: bool) -> socket.socket | None:
        """Do one request; the connection if it can be used again."""
        began, tally = time.monotonic(), self.tally
        try:
            if sock is None:
                sock = socket.create_connection((LOOPBACK, self._port), timeout=ANSWER_SECONDS)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            body = id.encode() if is_put else b""
            length = b"Content-Length: %d\r\n" % len(body) if is_put else b""
            sock.sendall(b"%b /%b HTTP/1.1\r\nHost: web\r\n%b\r\n%b" % (b"PUT" if is_put else b"GET", id.encode(), length, body))
            status, text, rest = read_answer(sock)
        except (OSError, EOFError) as error:
            self._count(tally, began, f"{id}: {type(error).__name__} {error}")
            if sock is not None:
                sock.close()
            return None
        if status == 200 and text.split()[1:] != [id] or rest:
            self.strange.append(f"{id} was answered {text!r} and then {rest!r}")
        self._count(tally, began, "" if status == 200 else f"{id}: {status} {text.splitlines()[0] if text else ''}")
        return sock

    def _count(self, tally: Tally, began: float, failure: str) -> None:
        with self._lock:
            tally.sent += 1
            tally.seconds.append(time.monotonic() - began)
            if failure:
                tally.failures.append(failure)

    def _expect_nothing(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(65536)
        except TimeoutError:
            return
        except OSError as error:
            data = str(error).encode()
        self.strange.append(f"after the last answer came {data!r}")


def read_answer(sock: socket.socket) -> tuple[int, str, bytes]:
    """Status, body, and what came behind it. Raises EOFError when the connection ends before."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        body += _more(sock)
    return int(head.split(b" ", 2)[1]), body[:length].decode(), body[length:]


def _more(sock: socket.socket) -> bytes:
    piece = sock.recv(65536)
    if not piece:
        raise EOFError("the gateway closed the connection")
    return piece


def episodes(random: Random, seconds: float) -> Iterator[tuple[str, list[int], float]]:
    """The faults to come: which, on which backends, for how many seconds. All kinds come once before any comes again."""
    rounds = max(1, round(seconds / (len(FAULTS) * 3.0)))
    each = seconds / (rounds * len(FAULTS))
    for _ in range(rounds):
        kinds = list(FAULTS)
        random.shuffle(kinds)
        for kind in kinds:
            yield kind, random.sample(range(BACKENDS), random.randint(1, BACKENDS - 1)), max(0.5, each - PAUSE)


def held(mesh: Gateway) -> dict[str, float]:
    """What the gateway holds for requests; all of it is 0 when none is under way and the pools have gone idle."""
    found: dict[str, float] = {}
    for name, value in mesh.metrics().items():
        if name.startswith("rt/") and name.rsplit("/", 1)[-1] in ("pending", "pool_size", "pool_waiters", "load", "connections"):
            found[name] = float(value)
    for label, client in json.loads(mesh.admin("/client_state.json").body).items():
        for endpoint in client["endpoints"]:
            found[f"{label} {endpoint['address']} load"] = float(endpoint["load"])
            found[f"{label} {endpoint['address']} connections"] = float(endpoint["connections"]["open"])
    return found


def descriptors(mesh: Gateway) -> dict[str, str]:
    """The gateway's open files by what they lead to; of a TCP connection with its ports and state (in hexadecimal, as the system shows)."""
    table = {}
    for line in Path(f"/proc/{mesh.process.pid}/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        table[f"socket:[{words[9]}]"] = f"{words[1]} to {words[2]}, state {words[3]}"
    found = {}
    for file in Path(f"/proc/{mesh.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            target = str(file.readlink())
            found[f"{file.name} {target}"] = table.get(target, "")
    return found


def at_rest(mesh: Gateway) -> dict[str, str]:
    """The open files once they stay the same: a connection of the admin server is closed a little after its answer."""
    seen = descriptors(mesh)

    def stays() -> bool:
        nonlocal seen
        before, seen = seen, descriptors(mesh)
        return before == seen

    time.sleep(PAUSE)
    wait_until(stays, SETTLE_SECONDS)
    return seen


def settled(mesh: Gateway, files: int | None) -> list[str]:
    """Wait until the gateway is idle, with no more open files than given; what it still holds."""
    wait_until(lambda: not any(held(mesh).values()), SETTLE_SECONDS)
    left = [f"{name} is {value:g}" for name, value in held(mesh).items() if value]
    if files is not None:
        wait_until(lambda: len(descriptors(mesh)) <= files, SETTLE_SECONDS)
        open_now = at_rest(mesh)
        if len(open_now) > files:
            left.append(f"{len(open_now)} open files, {files} before: {open_now}")
    return left


@attrs.frozen
class Result:
    """What one run showed."""

    tallies: Sequence[Tally]
    strange: Sequence[str]
    left: Sequence[str]
    defects: Sequence[str]
    least: float

    @property
    def sent(self) -> int:
        """Requests of the whole run."""
        return sum(tally.sent for tally in self.tallies)

    @property
    def success(self) -> float:
        """The part of them that succeeded."""
        return 1.0 - sum(len(tally.failures) for tally in self.tallies) / max(1, self.sent)

    def problems(self) -> list[str]:
        """The bounds that were broken."""
        found = [*self.strange, *self.left, *self.defects]
        if not self.sent:
            found.append("no request was sent")
        if self.success < self.least:
            found.append(f"only {self.success:.3%} of {self.sent} requests succeeded, {self.least:.1%} is the bound")
        return found


def run(directory: Path, *, seconds: float, seed: int, callers: int, defenceless: bool, least: float) -> Result:
    """One run in ``directory``."""
    random = Random(seed)
    with ExitStack() as stack:
        running = stack.enter_context(Running(directory))
        backends = [Backend(running, number) for number in range(BACKENDS)]
        router = DEFENCELESS if defenceless else {"client": CLIENT, "service": SERVICE}
        mesh = gateway(running, {"web": [backend.port for backend in backends]}, router=router)
        mesh.get("web", "/warm-up")
        settled(mesh, None)
        files = len(at_rest(mesh))
        load = Load(mesh.port, callers)
        load.start()
        for fault, ill, lasting in episodes(random, seconds):
            time.sleep(PAUSE)
            load.during(fault, len(ill))
            for number in ill:
                backends[number].begin(fault)
            time.sleep(lasting)
            for number in ill:
                backends[number].end(fault)
        load.stop()
        left = settled(mesh, files)
        defects = [line for line in mesh.process.output().splitlines() if "defect" in line or line.startswith("Traceback")]
        return Result(load.tallies, load.strange, left, defects, least)


def report(result: Result, seed: int) -> Iterator[str]:
    """Markdown lines."""
    yield f"{BACKENDS} backends, at least one of them well; seed {seed}."
    yield ""
    yield "| Fault | Backends | Requests | Failed | p50 ms | p99 ms | most ms |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for tally in result.tallies:
        times = sorted(tally.seconds) or [0.0]
        figures = (statistics.median(times), times[int(len(times) * 0.99)], times[-1])
        shown = " | ".join(f"{figure * 1000:.1f}" for figure in figures)
        yield f"| {tally.fault} | {tally.ill} | {tally.sent} | {len(tally.failures)} | {shown} |"
    yield ""
    yield f"{result.success:.3%} of {result.sent} requests succeeded."
    for failure in [failure for tally in result.tallies for failure in tally.failures][:10]:
        yield f"- failed: {failure}"
    problems = result.problems()
    yield "" if problems else "No wrong answer, nothing left behind."
    for problem in problems:
        yield f"- **{problem}**"


def main(argv: Sequence[str] | None = None) -> int:
    """Run and report; 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults go on")
    parser.add_argument("--seed", type=int, default=1, help="of the order of faults and the choice of backends")
    parser.add_argument("--callers", type=int, default=4, help="keep-alive connections that send requests")
    parser.add_argument("--defenceless", action="store_true", help="without retries and breakers, to see what they are good for")
    parser.add_argument("--least", type=float, default=LEAST_SUCCESS, help="the part of the requests that has to succeed")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory:
        result = run(Path(directory), **vars(options))
    sys.stdout.write("\n".join(report(result, options.seed)) + "\n")
    return 1 if result.problems() else 0


if __name__ == "__main__":
    raise SystemExit(main())
