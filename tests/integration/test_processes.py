"""Several processes: who serves what, and what happens when one of them dies."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote

import pytest

from support.fleets import LISTENING, TOKEN, Fleet, Load, fleet, has_ended, sockets_of
from support.gateways import LOOPBACK, SECONDS, Nginx, read_until, talk
from support.processes import Running, free_port, is_free, wait_until

pytestmark = pytest.mark.integration

HELLO = 'location / { return 200 "hello"; }'
REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
IS_ROOT = os.geteuid() == 0
AS_ROOT = {"user": "root"} if IS_ROOT else {}  # temporary directories are their owner's alone


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("processes")
    directory.chmod(0o755)
    with Running(directory) as running:
        yield running


@pytest.fixture(scope="module")
def upstream(programs: Running) -> int:
    return Nginx(programs, HELLO).port


@pytest.fixture(scope="module")
def two(programs: Running, upstream: int) -> Fleet:
    """A master with two workers; every test leaves two behind."""
    return fleet(programs, upstream, workers=2, name="two")


@pytest.fixture(scope="module")
def mixed(programs: Running, upstream: int) -> Fleet:
    """Two routers share a worker, a third has its own; names come from a directory too."""
    root = programs.directory / "names"
    root.mkdir()
    (root / "files").write_text(f"{LOOPBACK} {upstream}\n")
    routers = [{"label": "a"}, {"label": "b", "processes": "own", "dtab": "/svc => /#/io.l5d.fs"}, {"label": "c"}]
    top = {"namers": [{"kind": "io.l5d.fs", "rootDir": str(root)}], **AS_ROOT}
    return fleet(programs, upstream, workers=1, routers=routers, admin={"httpIdentifierPort": free_port()}, top=top, name="mixed")


def ask(caller: socket.socket) -> bytes:
    caller.sendall(REQUEST)
    return read_until(caller, b"hello")


def call(port: int) -> socket.socket:
    return socket.create_connection((LOOPBACK, port), timeout=SECONDS)


def test_two_workers_share_connections_evenly(two: Fleet) -> None:
    port, workers = two.gateway.port, two.children()
    assert len(workers) == 2
    counts: list[int] = []

    def are_even() -> bool:
        with ExitStack() as callers:
            for _ in range(16):
                ask(callers.enter_context(closing(call(port))))
            counts[:] = [sockets_of(pid, port) for pid in workers]
        assert sum(counts) >= 16  # closed ones of a former try may be among them
        return sum(counts) == 16 and min(counts) >= 5

    assert wait_until(are_even, SECONDS), counts  # one that gets no processor for a while is not waited for


def test_workers_started_by_root_serve_as_nobody_and_the_master_stays_as_it_was(two: Fleet) -> None:
    def users(pid: int) -> set[int]:
        (line,) = re.findall(r"^Uid:\s+(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M)
        return set(map(int, line.split()))

    expected = pwd.getpwnam("nobody").pw_uid if IS_ROOT else os.getuid()
    assert [users(pid) for pid in two.children()] == [{expected}] * 2
    assert users(two.gateway.process.pid) == {os.getuid()}
    if IS_ROOT:
        groups = [re.findall(r"^Groups:\s*(.*?)\s*$", Path(f"/proc/{pid}/status").read_text(), re.M)[0] for pid in two.children()]
        assert all("0" not in found.split() for found in groups)
    assert two.gateway.get("web").body == b"hello"


def test_a_killed_worker_loses_at_most_its_own_requests_and_is_replaced(programs: Running, two: Fleet) -> None:
    port, name = two.gateway.port, f"rt/http/server/{LOOPBACK}/{two.gateway.port}/requests"
    known, restarts, told = len(two.started()), two.metric("workers/restarts"), [two.metric(name)]
    load = Load(programs, port, connections=16, name="killed")

    def more() -> bool:
        told.append(two.metric(name))
        return told[-1] > told[0] + 500

    assert wait_until(more, SECONDS)
    victim = two.children()[0]
    os.kill(victim, signal.SIGKILL)
    assert wait_until(lambda: more() and len(two.started()) == known + 1, SECONDS)
    loss = load.end()
    # of what it had accepted each connection had at most one request under way
    assert loss.errors <= 16, loss
    assert loss.refused == 0
    after = Load(programs, port, connections=16, name="after")
    told.append(two.metric(name))
    assert wait_until(lambda: two.metric(name) > told[-1] + 500, SECONDS)
    assert after.end().errors == 0
    told.append(two.metric(name))
    assert told == sorted(told), "the sum over workers went backwards"
    assert victim not in two.children()
    assert len(two.children()) == 2
    assert two.metric("workers/restarts") == restarts + 1
    assert two.gateway.process.says(f" (pid {victim}) was killed by SIGKILL; a new one starts in 0.1 s")


def test_a_level_reaches_all_workers_and_those_that_start_later(two: Fleet) -> None:
    def set_level(level: str) -> list[dict[str, str]]:
        form = f"logger={logger}&level={level}".encode()
        answer = two.gateway.admin("/logging.json", form, "application/x-www-form-urlencoded", Authorization=f"Bearer {TOKEN}")
        assert answer.status == 200
        levels: list[dict[str, str]] = json.loads(answer.body)
        return levels

    def replace_one() -> None:
        known = len(two.started())
        os.kill(two.children()[0], signal.SIGTERM)
        two.wait_started(known + 1)

    line = f"router http serves on {LOOPBACK}:{two.gateway.port}"
    logger = re.findall(rf"INFO (\S+): {re.escape(line)}", two.logged())[0]
    assert {"logger": logger, "level": "OFF"} in set_level("OFF")
    known = two.gateway.process.output().count(line)
    assert known >= 2
    replace_one()
    assert two.gateway.process.output().count(line) == known
    assert {"logger": logger, "level": "INFO"} in set_level("INFO")
    replace_one()
    assert two.gateway.process.output().count(line) == known + 1


def test_admin_shows_what_all_workers_know(two: Fleet) -> None:
    workers = two.children()
    with ExitStack() as callers:
        while not all(sockets_of(pid, two.gateway.port) for pid in workers):
            ask(callers.enter_context(closing(call(two.gateway.port))))
    (state,) = json.loads(two.gateway.admin("/client_state.json").body).values()
    assert state["state"] == "bound"
    assert len(state["addresses"]) == 1
    assert len(state["endpoints"]) == 2, "one of each worker"
    metrics = two.gateway.metrics()
    assert (metrics["workers/running"], metrics["workers/draining"]) == (2, 0)
    assert metrics["jvm/thread/count"] >= 3, "the master's and two workers'"


def test_a_router_with_processes_of_its_own_has_a_worker_to_itself(mixed: Fleet) -> None:
    ports = {router["label"]: router["servers"][0]["port"] for router in mixed.settings["routers"]}
    pids = dict(mixed.started())
    assert set(pids) == {"shared-0", "b-0"}
    listening = {name: {label for label, port in ports.items() if sockets_of(pid, port, LISTENING)} for name, pid in pids.items()}
    assert listening == {"shared-0": {"a", "c"}, "b-0": {"b"}}
    answers = [talk(port, b"GET / HTTP/1.1\r\nHost: files\r\nConnection: close\r\n\r\n") for port in (ports["b"], ports["c"])]
    assert answers[0].endswith(b"hello")


def test_each_worker_describes_what_it_watches(mixed: Fleet) -> None:
    port = next(router["servers"][0]["port"] for router in mixed.settings["routers"] if router["label"] == "b")
    talk(port, b"GET / HTTP/1.1\r\nHost: files\r\nConnection: close\r\n\r\n")
    workers = json.loads(mixed.gateway.admin("/namer_state/io.l5d.fs.json").body)["workers"]
    assert set(workers) == {"shared-0", "b-0"}
    assert workers["b-0"]["/files"]["state"]["running"] is True


def test_names_are_explained_by_the_worker_that_serves_the_router(mixed: Fleet) -> None:
    gw = mixed.gateway
    assert json.loads(gw.admin("/bound-names.json").body) == ["/#/io.l5d.fs/files"]
    for label, dtab, leaf in (
        ("b", "/svc => /#/io.l5d.fs", "/#/io.l5d.fs/files"),
        ("a", "/svc => /$/inet/127.0.0.1/80", "/$/inet/127.0.0.1/80"),
    ):
        asked = gw.admin(f"/delegator.json?namespace={label}&path=/svc/files&dtab={quote(dtab)}")
        assert asked.status == 200, asked.text
        assert leaf in asked.text
    assert gw.admin("/delegator.json?path=nonsense").status == 400


def test_requests_are_identified_for_every_router(mixed: Fleet) -> None:
    port = mixed.settings["admin"]["httpIdentifierPort"]
    answer = talk(port, b"GET /x HTTP/1.0\r\nHost: shop\r\n\r\n")
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert found == {label: {"path": "/svc/shop"} for label in "abc"}


def test_a_worker_that_cannot_start_again_is_tried_ever_more_slowly_until_it_can(running: Running, upstream: int) -> None:
    logs = running.directory / "logs"
    logs.mkdir()
    router = {"processes": "own", "label": "web", "httpAccessLog": str(logs / "access.log")}
    one = fleet(running, upstream, workers=1, routers=[router], top=AS_ROOT)
    assert one.gateway.get("web").body == b"hello"
    (logs / "access.log").unlink()
    logs.rmdir()
    os.kill(one.children()[0], signal.SIGKILL)
    text = r"could not start: cannot open log file .*; a new one starts in ([\d.]+) s"
    assert wait_until(lambda: len(re.findall(text, one.gateway.process.output())) >= 2, SECONDS)
    assert one.metric("workers/restarts") >= 3
    told = one.gateway.admin("/delegator.json?namespace=web&path=/svc/web&dtab=/svc=>/x")
    assert (told.status, told.text) == (503, "no worker serves at present; the log says why")
    waits = [float(seconds) for seconds in re.findall(r"starts in ([\d.]+) s", one.gateway.process.output())]
    assert waits == sorted(waits)
    logs.mkdir()
    assert one.gateway.get("web").body == b"hello", "whoever came meanwhile waits in the queue of the socket"
    assert len(one.children()) == 1


def test_workers_end_when_their_master_is_killed_and_free_the_ports(running: Running, upstream: int) -> None:
    killed = fleet(running, upstream, workers=2)
    workers, ports = killed.children(), (killed.gateway.port, killed.gateway.admin_port)
    with closing(call(killed.gateway.port)) as idle:
        ask(idle)
        killed.gateway.process.signal(signal.SIGKILL)
        assert idle.recv(100) == b"", "closed in good order"
    assert wait_until(lambda: all(map(has_ended, workers)) and all(map(is_free, ports)), SECONDS)


def test_a_first_start_that_fails_ends_with_status_1_and_the_reason(running: Running, upstream: int) -> None:
    port, admin_port = free_port(), free_port()
    router = {"protocol": "http", "servers": [{"port": port}], "httpAccessLog": str(running.directory / "none" / "access.log")}
    file = running.directory / "m.yml"
    file.write_text(json.dumps({"admin": {"port": admin_port}, "workers": 2, "routers": [router]}))
    argv = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=m.pid", "meshgw", str(file)]
    done = subprocess.run(argv, cwd=running.directory, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the workers could not start: cannot open log file" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert is_free(port)
    assert is_free(admin_port)
    assert not (running.directory / "m.pid").exists()


def test_the_log_file_of_a_daemon_has_the_lines_of_all_workers_whole(running: Running, upstream: int) -> None:
    log = running.directory / "gateway.log"
    logged = fleet(running, upstream, workers=2, routers=[{"httpAccessLog": "/dev/stdout"}], twistd=[f"--logfile={log}"], log=log)
    load = Load(running, logged.gateway.port)
    assert wait_until(lambda: log.read_text().count('"GET / HTTP/1.1" 200') > 1000, SECONDS)
    os.kill(logged.children()[0], signal.SIGTERM)
    logged.wait_started(3)
    load.end()
    known = re.compile(
        r"web 127\.0\.0\.1 - - \[[^]]+\] \"GET / HTTP/1\.1\" (200|499) \S+ \"-\" \"-\"|\d{4}-\d\d-\d\dT[\d:.]+Z [A-Z]+ [\w.]+: .+"
    )
    *lines, last = log.read_text().split("\n")
    assert last == ""
    assert [line for line in lines if not known.fullmatch(line)] == []


def test_a_single_process_takes_the_rights_of_the_configured_user(running: Running, upstream: int) -> None:
    user = pwd.getpwnam("nobody") if IS_ROOT else pwd.getpwuid(os.getuid())
    one = fleet(running, upstream, workers=1, top={"user": user.pw_name})
    assert one.gateway.get("web").body == b"hello"
    (line,) = re.findall(r"^Uid:\s+(.*)$", Path(f"/proc/{one.gateway.process.pid}/status").read_text(), re.M)
    assert set(map(int, line.split())) == {user.pw_uid}
    assert one.children() == []
