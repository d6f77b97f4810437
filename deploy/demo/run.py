"""The demonstration: start the gateway and two instances of a service, and show what it does, checking every step.

`make demo` runs it and leaves everything up until Ctrl-C; `make demo ARGS=--once` ends after the last step. The exit status is 0 when
every step was as expected. Everything happens in a temporary directory and on loopback ports.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shlex
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))  # support/processes.py: start, wait, stop

from screen import Screen, standard

from support.processes import LOOPBACK, Process, ProcessFailed, Running, free_port, is_free, wait_until

HERE = Path(__file__).resolve().parent
PROXY_PORT, ADMIN_PORT = 4140, 9990
PATIENCE = 10.0  # seconds for a change to become visible; on an idle machine it takes milliseconds


class Reply:
    """An HTTP answer: ``status``, ``headers`` (a message object) and ``body`` as text."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers = answer.status, answer.headers
        self.body = answer.read().decode(errors="replace")

    def show(self) -> str:
        """Status line, the headers of interest, and the body, as `curl -i` prints them."""
        lines = [f"HTTP/1.1 {self.status}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items() if name.lower().startswith("l5d-")]
        return "\n".join([*lines, "", self.body])


class Demo:
    """The running pieces of the demonstration and its steps."""

    def __init__(self, screen: Screen, running: Running) -> None:
        self._screen, self._running, self._place = screen, running, running.directory
        self.proxy = PROXY_PORT if is_free(PROXY_PORT) else free_port()
        self.admin = ADMIN_PORT if is_free(ADMIN_PORT) else free_port()
        self._instances: dict[str, int] = {}
        self._answered = 0  # requests that an instance answered with 200

    def start(self) -> None:
        """Start web01, web02 and the gateway. Raises ProcessFailed when one does not come up."""
        shutil.copytree(HERE / "disco", self._place / "disco")
        for name in ("web01", "web02"):
            self._add_instance(name)
        self._write_disco("web01", "web02")
        self._screen.say(f"web01 and web02 serve on ports {self._instances['web01']} and {self._instances['web02']}.")
        for wanted, chosen, what in ((PROXY_PORT, self.proxy, "proxy"), (ADMIN_PORT, self.admin, "admin")):
            if wanted != chosen:
                self._screen.say(f"Port {wanted} is taken by another program: the {what} port is {chosen} here.")
        config = (HERE / "demo.yml").read_text().replace(str(PROXY_PORT), str(self.proxy)).replace(str(ADMIN_PORT), str(self.admin))
        (self._place / "demo.yml").write_text(config)
        twistd = Path(sys.executable).with_name("twistd")
        argv = [str(twistd), "--nodaemon", "--pidfile=", "meshgw", "--config", "demo.yml"]
        self._screen.command("twistd -n meshgw --config demo.yml")
        gateway = Process("meshgw", argv, self._place, port=self.proxy)
        self._running.add(gateway, seconds=30.0, is_ready=self._is_ready)
        self._screen.verdict(True, f"the gateway answers on port {self.proxy}, its admin pages on port {self.admin}")

    def _is_ready(self) -> bool:
        try:
            return self._ask("/admin/ping", port=self.admin).status == 200 and self._ask("/", host="web").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def _add_instance(self, name: str) -> None:
        port = free_port()
        self._running.add(Process(name, [sys.executable, str(HERE / "service.py"), name, str(port)], self._place, port=port))
        self._instances[name] = port

    def _write_disco(self, *names: str) -> None:
        # Written beside and renamed, as a deployment tool should: a reader never sees half a file.
        file = self._place / "disco" / "web"
        beside = file.with_name(".web.new")
        beside.write_text("".join(f"{LOOPBACK} {self._instances[name]}\n" for name in names))
        beside.replace(file)

    def _ask(self, target: str, *, host: str | None = None, port: int | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection(LOOPBACK, port or self.proxy, timeout=5.0)
        try:
            connection.request("GET", target, headers={**({"Host": host} if host else {}), **(headers or {})})
            reply = Reply(connection.getresponse())
        finally:
            connection.close()
        self._answered += host == "web" and reply.status == 200
        return reply

    def _curl(self, *options: str, target: str = "/", port: int | None = None, pipe: str = "") -> None:
        words = ["curl", "-s", *options, f"http://localhost:{port or self.proxy}{target}"]
        self._screen.command(" ".join(shlex.quote(word) for word in words) + pipe)

    def _names(self, count: int, headers: Mapping[str, str] | None = None) -> Counter[str]:
        answers = (self._ask("/", host="web", headers=headers) for _ in range(count))
        return Counter(answer.body.partition("\n")[0] if answer.status == 200 else f"status {answer.status}" for answer in answers)

    def _reaches(self, *expected: str) -> tuple[bool, Counter[str]]:
        """Whether the instances that answer are, within PATIENCE, exactly the expected ones; and the last counts."""
        seen: list[Counter[str]] = []

        def is_so() -> bool:
            seen.append(self._names(20))
            return set(seen[-1]) == set(expected)

        return wait_until(is_so, PATIENCE), seen[-1]

    def _counts(self, counts: Counter[str]) -> str:
        return "\n".join(f"{number:3} × {name}" for name, number in sorted(counts.items()))

    def balanced(self) -> None:
        """Ten requests reach both instances."""
        self._screen.title("Ten requests for the name `web`")
        self._screen.command(
            f"for i in $(seq 10); do curl -s -H 'Host: web' http://localhost:{self.proxy}/; done | grep web | sort | uniq -c"
        )
        counts = self._names(10)
        if len(counts) == 1:  # the choice is random: once in about 500 times ten requests go one way
            self._screen.output(self._counts(counts))
            self._screen.say("All the same by chance; once more.")
            counts = self._names(10)
        self._screen.output(self._counts(counts))
        good = set(counts) == {"web01", "web02"} and counts.total() == 10
        self._screen.verdict(good, "all ten answered, spread over both instances", self._counts(counts))

    def discovery(self) -> None:
        """An instance joins and leaves without a restart."""
        self._screen.title("An instance joins, and leaves again, without a restart")
        self._add_instance("web03")
        self._screen.command(f"echo '{LOOPBACK} {self._instances['web03']}' >> disco/web")
        self._write_disco("web01", "web02", "web03")
        good, counts = self._reaches("web01", "web02", "web03")
        self._screen.output(self._counts(counts))
        self._screen.verdict(good, "web03 gets its share", self._counts(counts))
        self._screen.command(f"sed -i '/ {self._instances['web03']}$/d' disco/web")
        self._write_disco("web01", "web02")
        good, counts = self._reaches("web01", "web02")
        self._screen.output(self._counts(counts))
        self._screen.verdict(good, "web03 is asked no more", self._counts(counts))

    def unknown(self) -> None:
        """A name that nobody knows is explained."""
        self._screen.title("A name that nobody knows")
        self._curl("-i", "-H", "Host: nobody")
        answer = self._ask("/", host="nobody")
        self._screen.output(answer.show())
        self._screen.verdict(answer.status == 502, "answered with 502", f"status {answer.status}")
        self._screen.verdict("l5d-err" in answer.headers, "the header l5d-err tells the reason to programs", answer.show())
        self._screen.verdict("/svc/nobody" in answer.body, "the body tells it to people, with the name", answer.body)

    def steered(self) -> None:
        """One request goes where its own dtab says."""
        self._screen.title("One request is sent to one instance by its own delegation table")
        dtab = f"/svc/web => /$/inet/{LOOPBACK}/{self._instances['web02']}"
        self._curl("-H", "Host: web", "-H", f"l5d-dtab: {dtab}")
        counts = self._names(5, {"l5d-dtab": dtab})
        self._screen.output(self._counts(counts))
        self._screen.verdict(set(counts) == {"web02"}, "five of five went to web02; other callers notice nothing", self._counts(counts))

    def logged(self) -> None:
        """The access log has one line for each request, whoever answered it."""
        self._screen.title("The access log")
        file = self._place / "access.log"

        def lines(host: str) -> list[str]:
            return [line for line in file.read_text(errors="replace").splitlines() if line.startswith(f"{host} ")] if file.exists() else []

        def all_there() -> bool:
            return len(lines("web")) >= self._answered and len(lines("nobody")) >= 1

        wait_until(all_there, PATIENCE)
        good, refused = lines("web"), lines("nobody")
        self._screen.command("grep ^web access.log | tail -n 3")
        self._screen.output("\n".join(good[-3:]))
        counted = len(good) == self._answered and all('" 200 ' in line for line in good)
        self._screen.verdict(counted, f"each of the {self._answered} answers of an instance has its line", "\n".join(good[-20:]))
        self._screen.command("grep ^nobody access.log")
        self._screen.output("\n".join(refused))
        told = len(refused) == 1 and '" 502 ' in refused[0]
        self._screen.verdict(told, "and so has the request that the gateway answered itself", "\n".join(refused))

    def counted(self) -> None:
        """Metrics in both formats."""
        self._screen.title("Metrics")
        self._curl(target="/admin/metrics/prometheus", port=self.admin, pipe=" | grep requests")
        answer = self._ask("/admin/metrics/prometheus", port=self.admin)
        chosen = [line for line in answer.body.splitlines() if line.startswith("rt:") and "requests" in line]
        self._screen.output("\n".join(sorted(chosen)) or answer.show(), limit=8)
        good = answer.status == 200 and any('rt="demo"' in line for line in chosen)
        self._screen.verdict(good, "Prometheus can read what the router `demo` counted", answer.show())
        target = f"/admin/metrics.json?pretty=true&q=rt/demo/server/{LOOPBACK}/{self.proxy}"
        self._curl(target=target, port=self.admin)
        answer = self._ask(target, port=self.admin)
        self._screen.output(answer.body, limit=12)
        self._screen.verdict(answer.status == 200 and "requests" in answer.body, "the same as JSON", answer.show())

    def explained(self) -> None:
        """The delegator explains a name."""
        self._screen.title("How a name is resolved")
        target = "/delegator.json?namespace=demo&path=/svc/web&dtab=/svc=>/%23/io.l5d.fs"
        self._curl(target=target, port=self.admin, pipe=" | python3 -m json.tool")
        answer = self._ask(target, port=self.admin)
        self._screen.output(json.dumps(json.loads(answer.body), indent=2) if answer.status == 200 else answer.show(), limit=40)
        good = answer.status == 200 and str(self._instances["web01"]) in answer.body
        self._screen.verdict(good, "every step of the delegation, down to the addresses", answer.show())

    def steps(self) -> Sequence[Callable[[], None]]:
        """The steps in the order they are shown."""
        return (self.balanced, self.discovery, self.unknown, self.steered, self.logged, self.counted, self.explained)

    def farewell(self) -> None:
        """Where to look by oneself."""
        self._screen.say("Try it yourself:")
        self._screen.say(f"  proxy      curl -H 'Host: web' http://localhost:{self.proxy}/")
        self._screen.say(f"  admin      http://localhost:{self.admin}/")
        self._screen.say(
            f"  delegator  http://localhost:{self.admin}/delegator.json?namespace=demo&path=/svc/web&dtab=/svc=>/%23/io.l5d.fs"
        )
        self._screen.say(f"  files      {self._place}")


def show(screen: Screen, running: Running, once: bool) -> None:
    """The whole demonstration; failures are counted by the screen."""
    demo = Demo(screen, running)
    try:
        demo.start()
        for step in demo.steps():
            step()
    except (ProcessFailed, OSError, http.client.HTTPException) as error:
        gateway = next((process for process in running if process.name == "meshgw"), None)
        detail = "" if gateway is None or isinstance(error, ProcessFailed) else gateway.describe("was running")
        screen.verdict(False, "the demonstration runs to its end", f"{type(error).__name__}: {error}\n{detail}")
        return
    screen.title("Everything was as expected" if not screen.failures else f"{screen.failures} statements did not hold")
    if once:
        return
    demo.farewell()
    screen.say("Everything stays up until Ctrl-C.")
    stay_up(screen, running)


def stay_up(screen: Screen, running: Running) -> None:
    """Wait for Ctrl-C or SIGTERM; a program that ends meanwhile is a failure and ends the wait."""
    try:
        wait_until(lambda: not all(process.is_running for process in running), float("inf"))
    except KeyboardInterrupt:
        screen.say("\nStopping the gateway and its services; nothing is left behind.")
        return
    for process in running:
        screen.verdict(process.is_running, f"{process.name} stays up", process.describe("ended"))


def main() -> int:
    """Parse the command line and run; 0 when every step was as expected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="end after the last step instead of staying up")
    options = parser.parse_args()
    screen = standard()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: the programs stop, the files go
    place = Path(tempfile.mkdtemp(prefix="meshgw-demo-"))
    try:
        with Running(place) as running:
            show(screen, running, options.once)
    except KeyboardInterrupt:
        screen.say("\nInterrupted before the last step.")
        return 130
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return 1 if screen.failures else 0


if __name__ == "__main__":
    sys.exit(main())
