"""Start and end of the process: bad configurations, ports in use, other reactors; draining at SIGTERM and at POST /admin/shutdown."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support import servers
from support.gateways import LOOPBACK, SECONDS, Gateway, Nginx, config, gateway, parse_answer, read_all
from support.processes import Process, Running, accepts, free_port, wait_until

pytestmark = pytest.mark.integration

HELLO = 'location / { return 200 "hello"; }'
TWISTD = str(Path(sys.executable).with_name("twistd"))


class Held:
    """A service that answers its one request when it is told to."""

    def __init__(self) -> None:
        self._listening = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listening.getsockname()[1]
        self.has_request, self._go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            peer = self._listening.accept()[0]
        except OSError:
            return
        with closing(peer):
            peer.recv(65536)
            self.has_request.set()
            self._go.wait(3 * SECONDS)
            try:
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nended")
            except OSError:
                pass  # the gateway has given up, which is what some tests are about

    def answer(self) -> None:
        self._go.set()

    def close(self) -> None:
        self._go.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@pytest.fixture
def held() -> Iterator[Held]:
    service = Held()
    yield service
    service.close()


def ask(gw: Gateway, held: Held) -> socket.socket:
    """A caller whose request the held service has."""
    caller = socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)
    caller.sendall(b"GET / HTTP/1.1\r\nHost: slow\r\n\r\n")
    assert held.has_request.wait(SECONDS)
    return caller


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "admin"])
def test_a_request_under_way_is_answered_before_a_graceful_end(running: Running, held: Held, how: str) -> None:
    gw = gateway(running, {"slow": held.port}, afresh=True)
    idle = socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)
    with closing(idle), closing(ask(gw, held)) as caller:
        if how == "admin":
            assert gw.admin("/admin/shutdown", b"").text == "quitting"
        else:
            gw.process.signal(getattr(signal, how))
        assert wait_until(lambda: not accepts(gw.port), SECONDS), "still accepts"
        assert idle.recv(100) == b""
        assert gw.admin("/admin/ping").text == "pong", "health checks go on while requests drain"
        assert gw.process.is_running
        held.answer()
        got = parse_answer(read_all(caller))
    assert (got.status, got.body, got.headers["connection"]) == (200, b"ended", "close")
    assert gw.process.wait(SECONDS) == 0
    assert "Traceback" not in gw.process.output()


def test_a_request_longer_than_the_grace_period_is_cut_and_the_end_is_timely(running: Running, held: Held) -> None:
    gw = gateway(running, {"slow": held.port}, admin={"shutdownGraceMs": 400})
    with closing(ask(gw, held)) as caller:
        gw.process.signal(signal.SIGTERM)
        assert read_all(caller) == b""
        assert gw.process.wait(SECONDS) == 0
    assert "1 connections did not finish within the grace period of 0.4 s" in gw.process.output()


def test_shutdown_takes_its_own_grace_and_may_be_asked_twice(running: Running, held: Held) -> None:
    gw = gateway(running, {"slow": held.port}, admin={"shutdownGraceMs": 600_000})
    assert gw.admin("/admin/shutdown").status == 405
    assert gw.admin("/admin/shutdown?grace=soon", b"").status == 400
    with closing(ask(gw, held)) as caller:
        assert gw.admin("/admin/shutdown?grace=500.milliseconds", b"").text == "quitting"
        assert gw.admin("/admin/shutdown", b"").text == "quitting"
        gw.process.signal(signal.SIGTERM)
        assert read_all(caller) == b""
    assert gw.process.wait(SECONDS) == 0, "the configured ten minutes do not count"
    assert "Traceback" not in gw.process.output()


def start(directory: Path, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    argv = [TWISTD, "--nodaemon", "--pidfile=", "meshgw", *words]
    return subprocess.run(argv, cwd=directory, input=stdin, capture_output=True, text=True, timeout=300, check=False)


def test_a_bad_configuration_ends_the_start_with_every_problem_at_its_place(tmp_path: Path) -> None:
    file = tmp_path / "linkerd.yaml"
    file.write_text("admin:\n  port: 99999\nrouters:\n- protocol: http\n  dtab: /svc => ((\n  nosuch: 1\n  servers: [{port: 0}]\n")
    done = start(tmp_path, "--config", str(file))
    output = done.stdout + done.stderr
    assert done.returncode not in (0, -signal.SIGTERM)
    for line, key in ((2, "admin.port"), (5, "routers[0].dtab"), (6, "routers[0].nosuch")):
        assert f"{file}:{line}" in output, output
        assert key in output
    assert "Traceback" not in output


@pytest.mark.parametrize("words", [(), ("--config", "none.yml"), ("a.yml", "b.yml")])
def test_a_wrong_command_line_ends_with_a_message(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = start(tmp_path, *words)
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stdout + done.stderr
    assert any(word in done.stdout + done.stderr for word in ("usage: twistd meshgw --config FILE", "none.yml"))


def test_a_port_in_use_is_named_and_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "names").mkdir()
    with closing(socket.create_server((LOOPBACK, 0))) as taken:
        port = taken.getsockname()[1]
        for file, settings in (
            ("server.yml", config(tmp_path / "names", port, free_port())),
            ("admin.yml", config(tmp_path / "names", free_port(), port)),
        ):
            (tmp_path / file).write_text(json.dumps(settings))
            done = start(tmp_path, "--config", file)
            output = done.stdout + done.stderr
            assert done.returncode != 0, file
            assert f"{LOOPBACK}:{port}" in output, output
            assert "in use" in output, output


def test_the_configuration_is_read_from_standard_input(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    root = running.directory / "names"
    root.mkdir()
    port, admin_port = free_port(), free_port()
    text = running.directory / "text"
    text.write_text(json.dumps(config(root, port, admin_port)))
    script = f'exec "{TWISTD}" --nodaemon --pidfile= meshgw --config - < text'
    process = running.add(Process("meshgw", ["/bin/sh", "-c", script], running.directory), is_ready=lambda: accepts(port))
    gw = Gateway(process, port, admin_port, root)
    gw.serve("web", nginx.port)
    assert gw.get("web").body == b"hello"


def test_the_command_is_known_outside_the_checkout_without_its_imports(tmp_path: Path) -> None:
    done = subprocess.run([TWISTD, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert "A service mesh gateway" in done.stdout
    done = subprocess.run([TWISTD, "--help-reactors"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert "meshgw" in done.stdout


@pytest.mark.parametrize("reactor", ["select", "poll", "epoll", "meshgw"])
def test_the_gateway_works_on_any_reactor(running: Running, held: Held, reactor: str) -> None:
    root = running.directory / "files"
    root.mkdir()
    (root / "big").write_bytes(bytes(3_000_000))
    nginx = Nginx(running, f"root {root}; dav_methods PUT;")
    gw = gateway(running, {"web": nginx.port, "slow": held.port, "refused": free_port()}, twistd=[f"--reactor={reactor}"], afresh=True)
    assert len(gw.get("web", "/big").body) == 3_000_000
    assert gw.get("refused").status == 502
    with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
        caller.sendall(b"PUT /new HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: 2000000\r\n\r\n" + bytes(2_000_000))
        assert parse_answer(read_all(caller)).status == 201
    assert (root / "new").stat().st_size == 2_000_000
    with closing(ask(gw, held)) as caller:
        gw.process.signal(signal.SIGTERM)
        assert wait_until(lambda: not accepts(gw.port), SECONDS)
        held.answer()
        assert parse_answer(read_all(caller)).body == b"ended"
    assert gw.process.wait(SECONDS) == 0
    assert "Traceback" not in gw.process.output()


def test_a_daemon_writes_its_pid_and_log_and_ends_on_sigterm(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    root = running.directory / "names"
    root.mkdir()
    port, admin_port = free_port(), free_port()
    servers.written(running.directory, "m.yml", json.dumps(config(root, port, admin_port)))
    argv = [TWISTD, "--pidfile=gateway.pid", "--logfile=gateway.log", "meshgw", "m.yml"]
    subprocess.run(argv, cwd=running.directory, capture_output=True, timeout=300, check=True)
    pid_file = running.directory / "gateway.pid"
    assert wait_until(lambda: accepts(port) and pid_file.exists(), SECONDS)
    pid = int(pid_file.read_text())
    try:
        (root / "web").write_text(f"{LOOPBACK} {nginx.port}\n")
        with closing(socket.create_connection((LOOPBACK, port), timeout=SECONDS)) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            assert parse_answer(read_all(caller)).body == b"hello"
    finally:
        os.kill(pid, signal.SIGTERM)
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists() and not pid_file.exists(), SECONDS)
    assert f"router http serves on {LOOPBACK}:{port}" in (running.directory / "gateway.log").read_text()
