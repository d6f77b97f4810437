"""Bodies much larger than the memory they may take: both ways, slow readers, callers and services that vanish half-way.

`MESHGW_TEST_BODY_MIB` makes the large bodies smaller where 2 GiB take too long.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from support.gateways import LOOPBACK, SECONDS, Gateway, Nginx, gateway, read_all, read_until
from support.processes import POLL_SECONDS, Running, wait_until

pytestmark = pytest.mark.integration

SIZE = int(os.environ.get("MESHGW_TEST_BODY_MIB", "2048")) << 20
MOST_RESIDENT = 100 << 20
MOST_BUFFERED = 32 << 20
"""More than the buffers of the system for two connections and ours between them, less than any body here."""


def peak_while(gw: Gateway, transfer: subprocess.Popen[bytes], seconds: float = 240.0) -> int:
    """The gateway's largest resident size seen until ``transfer`` ended well."""
    peaks = [gw.resident()]

    def has_ended() -> bool:
        peaks.append(gw.resident())
        return transfer.poll() is not None

    try:
        assert wait_until(has_ended, seconds), "the transfer did not end"
    finally:
        transfer.kill()
        transfer.wait()
    assert transfer.returncode == 0
    return max(peaks)


def test_a_huge_download_passes_in_constant_memory(running: Running) -> None:
    root = running.directory / "files"
    root.mkdir()
    with (root / "huge").open("wb") as file:
        file.truncate(SIZE)
    nginx = Nginx(running, f"root {root}; sendfile on;")
    gw = gateway(running, {"web": nginx.port})
    script = f'curl -sS --noproxy "*" --fail -H "Host: web" http://{LOOPBACK}:{gw.port}/huge | wc -c > size; test "$(cat size)" -eq {SIZE}'
    with subprocess.Popen(["bash", "-o", "pipefail", "-c", script], cwd=running.directory) as transfer:
        assert peak_while(gw, transfer) < MOST_RESIDENT


def test_a_huge_upload_passes_in_constant_memory(running: Running) -> None:
    with closing(Service(take_all)) as service:
        gw = gateway(running, {"web": service.port})
        script = (
            f'head -c {SIZE} /dev/zero | curl -sS --noproxy "*" --fail -T - -H "Transfer-Encoding: chunked" -H "Expect:" -H "Host: web"'
            f" http://{LOOPBACK}:{gw.port}/up > answer"
        )
        with subprocess.Popen(["bash", "-o", "pipefail", "-c", script], cwd=running.directory) as transfer:
            assert peak_while(gw, transfer) < MOST_RESIDENT
        assert (running.directory / "answer").read_text() == "taken"
        assert SIZE <= service.count < SIZE * 1.01, "the body and its chunk sizes"


class Stalled:
    """A statement that is true once ``figure`` is more than 0 and has not moved for a while of polling."""

    def __init__(self, figure: Callable[[], int]) -> None:
        self._figure, self._last, self._times = figure, 0, 0

    def __call__(self) -> bool:
        last, self._last = self._last, self._figure()
        self._times = self._times + 1 if self._last == last > 0 else 0
        return self._times * POLL_SECONDS >= 0.6


def waiting_bytes(sock: socket.socket) -> int:
    """What the system has received for a socket that was not read yet."""
    answer = fcntl.ioctl(sock, termios.FIONREAD, bytes(4))
    return int.from_bytes(answer, sys.byteorder)


class Service:
    """A server for one connection, which ``play`` handles in a thread; it counts into ``count`` and may wait for ``go``."""

    def __init__(self, play: Callable[[Service, socket.socket], None]) -> None:
        self._listening = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listening.getsockname()[1]
        self.count = 0
        self.go, self.saw_end = threading.Event(), threading.Event()
        self._play = play
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            peer = self._listening.accept()[0]
        except OSError:
            return
        with closing(peer):
            peer.settimeout(240.0)
            self._play(self, peer)

    def close(self) -> None:
        self.go.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


def take_all(service: Service, peer: socket.socket) -> None:
    """Read a chunked request to its end, then answer."""
    buffer, tail = memoryview(bytearray(1 << 20)), b""
    head = read_until(peer, b"\r\n\r\n")
    service.count = len(head.partition(b"\r\n\r\n")[2])
    while not tail.endswith(b"0\r\n\r\n"):
        size = peer.recv_into(buffer)
        if not size:
            return
        service.count += size
        tail = (tail + bytes(buffer[max(0, size - 5) : size]))[-5:]
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ntaken")


STREAM = 96 << 20


def stream(service: Service, peer: socket.socket) -> None:
    """Answer with a long body, counting what the system takes."""
    read_until(peer, b"\r\n\r\n")
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % STREAM)
    piece = bytes(65536)
    try:
        while service.count < STREAM:
            peer.sendall(piece)
            service.count += len(piece)
    except OSError:
        service.saw_end.set()


def test_a_caller_that_stops_reading_pauses_the_service_and_gets_all_when_it_reads_on(running: Running) -> None:
    with closing(Service(stream)) as service:
        gw = gateway(running, {"web": service.port})
        with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            assert wait_until(Stalled(lambda: service.count), SECONDS)
            assert 0 < service.count < MOST_BUFFERED
            assert gw.resident() < MOST_RESIDENT
            size, body = 0, read_until(caller, b"\r\n\r\n").partition(b"\r\n\r\n")[2]
            while body:
                size += len(body)
                body = caller.recv(1 << 20)
        assert size == service.count == STREAM


def test_nginx_sends_little_to_a_caller_that_does_not_read(running: Running) -> None:
    root = running.directory / "files"
    root.mkdir()
    with (root / "huge").open("wb") as file:
        file.truncate(STREAM)
    nginx = Nginx(running, f"root {root}; sendfile on;")
    gw = gateway(running, {"web": nginx.port})
    with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
        caller.sendall(b"GET /huge HTTP/1.1\r\nHost: web\r\n\r\n")
        read_until(caller, b"\r\n\r\n")
        assert wait_until(Stalled(lambda: waiting_bytes(caller)), SECONDS)
        assert gw.resident() < MOST_RESIDENT
    line = nginx.wait_seen(1)[0]
    assert int(line["sent"]) < MOST_BUFFERED


def test_a_service_that_does_not_read_pauses_the_caller(running: Running) -> None:
    def hold(service: Service, peer: socket.socket) -> None:
        service.go.wait(SECONDS)
        take_all(service, peer)

    with closing(Service(hold)) as service:
        gw = gateway(running, {"web": service.port})
        with closing(socket.create_connection((LOOPBACK, gw.port), timeout=0.5)) as caller:
            caller.sendall(b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n")
            piece, sent = b"10000\r\n" + bytes(65536) + b"\r\n", 0
            rest = memoryview(piece)
            with pytest.raises(TimeoutError):
                while sent < STREAM:
                    size = caller.send(rest)
                    sent, rest = sent + size, rest[size:] or memoryview(piece)
            assert sent < MOST_BUFFERED
            assert gw.resident() < MOST_RESIDENT
            service.go.set()
            caller.settimeout(SECONDS)
            caller.sendall(rest)
            caller.sendall(b"0\r\n\r\n")
            assert read_until(caller, b"taken").startswith(b"HTTP/1.1 200 ")


def test_a_caller_that_goes_away_ends_the_upstream_request(running: Running) -> None:
    def wait_for_end(service: Service, peer: socket.socket) -> None:
        read_until(peer, b"\r\n\r\n")
        service.go.set()
        if not read_all(peer):
            service.saw_end.set()

    with closing(Service(wait_for_end)) as service:
        gw = gateway(running, {"web": service.port})
        caller = socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)
        caller.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        assert service.go.wait(SECONDS)
        caller.close()
        assert service.saw_end.wait(SECONDS)
        assert wait_until(lambda: gw.metrics().get("rt/http/service/svc/web/failures") == 1, SECONDS)
        assert gw.metrics()["rt/http/service/svc/web/pending"] == 0


def test_a_caller_that_goes_away_amid_the_answer_ends_the_upstream_request(running: Running) -> None:
    with closing(Service(stream)) as service:
        gw = gateway(running, {"web": service.port})
        caller = socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)
        caller.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        read_until(caller, b"\r\n\r\n")
        caller.close()
        assert service.saw_end.wait(SECONDS)
        assert service.count < MOST_BUFFERED


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("how", ["end", "reset"])
def test_an_answer_that_breaks_off_is_cut_for_the_caller_too(running: Running, framing: bytes, how: str) -> None:
    def break_off(service: Service, peer: socket.socket) -> None:
        read_until(peer, b"\r\n\r\n")
        peer.sendall(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n5\r\npart\n\r\n")
        service.go.wait(SECONDS)
        if how == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with closing(Service(break_off)) as service:
        gw = gateway(running, {"web": service.port})
        with closing(socket.create_connection((LOOPBACK, gw.port), timeout=SECONDS)) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            read_until(caller, b"part\n")
            service.go.set()
            rest = b""
            with pytest.raises(ConnectionResetError):
                while piece := caller.recv(100):
                    rest += piece
            assert b"0\r\n\r\n" not in rest, "no end was made up"


def test_a_service_that_dies_before_its_answer_is_a_502(running: Running) -> None:
    def die(_service: Service, peer: socket.socket) -> None:
        read_until(peer, b"\r\n\r\n")

    with closing(Service(die)) as service:
        gw = gateway(running, {"web": service.port})
        got = gw.get("web")
        assert got.status == 502
        assert f"{LOOPBACK}:{service.port} closed the connection before answering" in got.text
