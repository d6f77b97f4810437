"""The helpers that start peers: each peer answers through loopback, and a program that fails tells why."""

from __future__ import annotations

import socket
import sys
import urllib.request
from pathlib import Path

import pytest

from support import servers
from support.forks import TWISTD, Forks
from support.ports import BLOCK, PortBlock, candidates
from support.processes import Process, ProcessFailed, Running, accepts, free_port, is_free

pytestmark = pytest.mark.integration


def fetch(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20.0) as answer:
        body: bytes = answer.read()
        return body


def test_a_named_service_answers_with_its_name(running: Running) -> None:
    process = running.add(servers.service(running.directory, "web01"))
    assert process.port is not None
    assert fetch(process.port).startswith(b"web01\nGET / ")


def test_nginx_serves_the_given_configuration(running: Running) -> None:
    port = free_port()
    config = f'events {{}}\nhttp {{ access_log off; server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello"; }} }} }}'
    running.add(servers.nginx(running.directory, config, port=port))
    assert fetch(port) == b"hello"


def test_haproxy_passes_requests_on(running: Running) -> None:
    origin = running.add(servers.service(running.directory, "web01"))
    port = free_port()
    config = (
        "defaults\n mode http\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n"
        f"listen front\n bind 127.0.0.1:{port}\n server one 127.0.0.1:{origin.port}\n"
    )
    running.add(servers.haproxy(running.directory, config, port=port))
    assert fetch(port).startswith(b"web01")


def test_a_program_that_ends_early_is_reported_with_its_output(tmp_path: Path) -> None:
    with Running(tmp_path) as running, pytest.raises(ProcessFailed, match=r"ended with status 3 before it was ready(.|\n)*no such luck"):
        running.add(Process("broken", [sys.executable, "-c", "print('no such luck'); raise SystemExit(3)"], tmp_path, port=free_port()))


def test_a_program_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match="no program 'surely-not-installed'"):
        Process("missing", ["surely-not-installed"], tmp_path).start()


def test_nothing_is_left_running(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        process = running.add(servers.service(tmp_path, "web01"))
        port = process.port or 0
        assert accepts(port)
    assert not process.is_running
    assert not accepts(port)


def test_a_port_in_use_is_not_free(running: Running) -> None:
    process = running.add(servers.service(running.directory, "web01"))
    assert not is_free(process.port or 0)


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    text = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = Process("stubborn", [sys.executable, "-c", text], tmp_path).start()
    process.wait_ready(is_ready=lambda: "up" in process.output())
    assert process.stop(seconds=0.2) == -9


@pytest.fixture
def forks() -> Forks:
    found = Process.forks
    assert found is not None
    return found


def test_a_copy_has_the_command_line_directory_and_environment_that_it_is_given(
    tmp_path: Path, forks: Forks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELL", "me")
    (tmp_path / "tells.py").write_text(
        "import os, sys\nprint(os.getcwd(), os.environ['TELL'], sys.argv[1:], os.getsid(0) == os.getpid())\n"
    )
    words = ["--nodaemon", "--pidfile=", "--python", "tells.py"]
    copied = forks.start([TWISTD, *words], tmp_path, tmp_path / "out")
    assert copied.wait(20.0) == 1, "a script that is no application"
    assert f"{tmp_path} me {words} True\n" in (tmp_path / "out").read_text()


def test_the_status_of_a_copy_is_known_and_a_signal_ends_it(tmp_path: Path, forks: Forks) -> None:
    (tmp_path / "waits.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    with Running(tmp_path) as running:
        process = Process("copy", [TWISTD, "--nodaemon", "--pidfile=", "--python", "waits.py"], tmp_path)
        running.add(process, is_ready=lambda: "up" in process.output())
        assert (process.state(), process.wait(0.01)) == ("running", None)
        process.kill()
        assert process.wait(20.0) == -9
        assert process.state() == "ended with status -9"


def test_ports_given_by_two_processes_differ() -> None:
    one, other = PortBlock(), PortBlock()
    assert not {one.take() for _ in range(BLOCK // 2)} & {other.take() for _ in range(BLOCK // 2)}


def test_a_port_comes_again_only_after_all_others_and_never_while_in_use() -> None:
    block = PortBlock()
    with socket.create_server(("127.0.0.1", block.take())) as server:
        given = [block.take() for _ in range(2 * BLOCK)]
        assert server.getsockname()[1] not in given
        first = given[: given.index(given[0], 1)]
        assert len(set(first)) == len(first) >= BLOCK // 2


@pytest.mark.parametrize(
    ("ephemeral", "expected"),
    [
        pytest.param((32768, 60999), range(10000, 32768), id="Linux"),
        pytest.param((10000, 30000), range(30001, 65536), id="below"),
        pytest.param((1024, 65535), range(10000, 65536), id="all"),
    ],
)
def test_ports_are_not_those_of_outgoing_connections_where_others_are_left(ephemeral: tuple[int, int], expected: range) -> None:
    assert candidates(ephemeral) == expected
