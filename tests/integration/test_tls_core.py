"""TLS connections against real peers: curl, OpenSSL's own client and server, and Python's standard library."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from meshgw.core.certificates import CertificateStore, PeerIdentity
from meshgw.core.connecting import Connecting
from meshgw.core.reactor import IN, MeshReactor
from meshgw.core.timers import Wheel
from meshgw.core.tls import ClientSettings, HandshakeFailed, ServerSettings
from meshgw.core.tls_connection import TlsConnection
from meshgw.core.tls_ends import ClientTlsConnection, ServerTlsConnection
from meshgw.core.tls_sides import ClientSecurity, TlsClient, TlsServer
from meshgw.core.transport import Connection, SocketOptions
from meshgw.errors import MeshError
from support.certs import SPIFFE, authority, pair_of, write_files
from support.gateways import SECONDS, run_curl
from support.processes import LOOPBACK, Process, Running, accepts, free_port, wait_until

pytestmark = pytest.mark.integration
NAME = "web.mesh.example"


class Echo:
    """Answers each request head with its caller's identity, as HTTP, and keeps the connection."""

    def __init__(self, connection: TlsConnection) -> None:
        self.connection, self.buffer = connection, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            _, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            body = f"{self.connection.peer_identity() or 'nobody'} {self.connection.alpn.decode()}\n".encode()
            self.connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def eof_received(self) -> None:
        self.connection.close()

    def drained(self) -> None:
        pass

    def connection_lost(self, reason: str) -> None:
        pass


class Loop:
    """Our reactor in a thread of its own, with a listener that speaks TLS."""

    def __init__(self) -> None:
        self.reactor: Any = MeshReactor()
        self.wheel = Wheel(self.reactor)
        self.listening = socket.create_server((LOOPBACK, 0))
        self.listening.setblocking(False)
        self.port: int = self.listening.getsockname()[1]
        self.opened: list[ServerTlsConnection] = []
        self.tls: TlsServer | None = None
        self._thread = threading.Thread(target=self.reactor.run, kwargs={"installSignalHandlers": False}, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def serve(self, settings: ServerSettings | None = None, *, strict: bool = False) -> TlsServer:
        store = CertificateStore()
        store.set("test", [pair_of(authority().leaf(NAME, ips=(LOOPBACK,))), pair_of(authority().leaf("api.mesh.example"))])
        self.tls = TlsServer(
            store, settings or ServerSettings(), clock=self.reactor.seconds, address=f"{LOOPBACK}:{self.port}", strict=strict
        )
        self.call(lambda: self.reactor.watch(self.listening.fileno(), self._accept, IN))
        return self.tls

    def _accept(self, _events: int) -> None:
        sock, peer = self.listening.accept()
        sock.setblocking(False)
        assert self.tls is not None
        connection = ServerTlsConnection(Connection(sock, self.reactor, self.wheel), self.wheel, self.tls, (peer[0], peer[1]))
        connection.receiver = Echo(connection)
        self.opened.append(connection)
        connection.start()

    def call(self, function: Any) -> None:
        self.reactor.callFromThread(function)

    def stop(self) -> None:
        self.call(self.reactor.stop)
        self._thread.join(SECONDS)
        self.listening.close()
        assert not self._thread.is_alive()


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def trusted(tmp_path: Path) -> str:
    (tmp_path / "ca.crt").write_bytes(authority().pem)
    return str(tmp_path / "ca.crt")


def curl(loop: Loop, *words: str, name: str = NAME) -> subprocess.CompletedProcess[bytes]:
    return run_curl("--resolve", f"{name}:{loop.port}:{LOOPBACK}", *words, f"https://{name}:{loop.port}/")


# --- our server


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_is_served(loop: Loop, trusted: str, version: str) -> None:
    loop.serve(ServerSettings(alpn=(b"http/1.1",)))
    done = curl(loop, "--cacert", trusted, f"--tlsv{version}", "--tls-max", version)
    assert (done.returncode, done.stdout) == (0, b"nobody http/1.1\n"), done.stderr


def test_curl_gets_the_certificate_of_the_name_it_asks_for(loop: Loop, trusted: str) -> None:
    loop.serve(strict=True)
    assert curl(loop, "--cacert", trusted, name="api.mesh.example").returncode == 0
    unknown = curl(loop, "--cacert", trusted, name="unknown.mesh.example")
    assert unknown.returncode == 35
    assert b"unrecognized name" in unknown.stderr


def test_curl_is_known_by_its_certificate(loop: Loop, trusted: str, tmp_path: Path) -> None:
    tls = loop.serve(ServerSettings(require_client_auth=True, trust=authority().pem))
    certificate, key = write_files(authority().leaf(name="caller", uris=(SPIFFE,), client=True), tmp_path, "caller")
    done = curl(loop, "--cacert", trusted, "--cert", certificate, "--key", key)
    assert (done.returncode, done.stdout) == (0, f"{SPIFFE} \n".encode()), done.stderr
    assert curl(loop, "--cacert", trusted).returncode != 0
    assert wait_until(lambda: tls.failures["handshake"] == 1, SECONDS)


def test_curl_without_tls_is_told_so(loop: Loop) -> None:
    tls = loop.serve()
    done = run_curl("--include", f"http://{LOOPBACK}:{loop.port}/")
    assert done.stdout.startswith(b"HTTP/1.1 400 Bad Request")
    assert done.stdout.endswith(b"this port speaks TLS\n")
    assert wait_until(lambda: tls.failures == {"http": 1}, SECONDS)  # counted behind the answer, in the loop's thread


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssls_client_resumes_its_session(loop: Loop, trusted: str, tmp_path: Path, version: str) -> None:
    loop.serve()
    session = str(tmp_path / "session.pem")
    words = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{loop.port}", "-servername", NAME, "-CAfile", trusted, version]
    request = b"GET / HTTP/1.1\r\n\r\n"
    told = talk([*words, "-sess_out", session], request)
    assert "Verify return code: 0 (ok)" in told
    assert "New, TLSv1." in told
    told = talk([*words, "-sess_in", session], request)
    assert "Reused, TLSv1." in told


def talk(words: list[str], request: bytes) -> str:
    """Send the request through OpenSSL's client, and end after the answer."""
    client = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert client.stdin is not None
    assert client.stdout is not None
    try:
        client.stdin.write(request)
        client.stdin.flush()
        told = b""
        while b"nobody" not in told:
            line = client.stdout.readline()
            assert line, told.decode()
            told += line
        client.stdin.close()
        told += client.stdout.read()
    finally:
        client.wait(SECONDS)
    return told.decode()


def test_openssls_client_cannot_renegotiate(loop: Loop, trusted: str) -> None:
    tls = loop.serve()
    words = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{loop.port}", "-CAfile", trusted, "-tls1_2"]
    done = subprocess.run(words, input=b"R\n", capture_output=True, timeout=SECONDS, check=False)
    assert b"RENEGOTIATING" in done.stdout + done.stderr
    assert b"no renegotiation" in done.stderr
    assert tls.handshakes == 1


@pytest.mark.parametrize("words", [["-tls1_1"], ["-tls1"], ["-cipher", "AES128-SHA", "-tls1_2"]])
def test_old_versions_and_suites_are_refused(loop: Loop, words: list[str]) -> None:
    loop.serve()
    argv = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{loop.port}", "-cipher", "ALL:@SECLEVEL=0", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
    assert b"alert" in done.stderr
    assert b"Cipher is (NONE)" in done.stdout


def test_the_standard_library_is_served_and_hears_the_end_announced(loop: Loop, trusted: str) -> None:
    loop.serve()
    context = ssl.create_default_context(cafile=trusted)
    with (
        closing(socket.create_connection((LOOPBACK, loop.port), timeout=SECONDS)) as plain,
        context.wrap_socket(plain, server_hostname=NAME, suppress_ragged_eofs=False) as sock,
    ):
        for _ in range(3):
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert sock.recv(65536).endswith(b"nobody \n")
        loop.call(loop.opened[0].close)
        assert sock.recv(1) == b""  # without close_notify this would raise


# --- our client


@attrs.define
class Asked:
    """What came of connecting and asking."""

    data: bytes = b""
    events: list[str] = attrs.field(factory=list)
    outcomes: list[MeshError | None] = attrs.field(factory=list)
    connection: ClientTlsConnection | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> None:
        self.events.append("eof")
        assert self.connection is not None
        self.connection.close_now()

    def drained(self) -> None:
        pass

    def connection_lost(self, reason: str) -> None:
        self.events.append(f"lost: {reason}")


def ask(loop: Loop, port: int, client: TlsClient, request: bytes = b"GET / HTTP/1.0\r\n\r\n") -> Asked:
    """Connect, send ``request``, and wait until the connection has ended."""
    asked = Asked()

    def connected(raw: Connection | None, reason: str) -> None:
        assert raw is not None, reason
        asked.connection = ClientTlsConnection(raw, loop.wheel, client, f"{LOOPBACK}:{port}", asked)
        asked.connection.on_secured = asked.outcomes.append
        asked.connection.start()
        asked.connection.write(request)

    loop.call(lambda: Connecting(loop.reactor, loop.wheel, connected).start(LOOPBACK, port, 5.0, SocketOptions()))
    assert wait_until(lambda: any(event.startswith("lost") for event in asked.events), SECONDS), asked
    return asked


def client_of(**settings: Any) -> TlsClient:
    return TlsClient(ClientSecurity(ClientSettings(trust=authority().pem, **settings)), NAME)


def openssl_server(running: Running, tmp_path: Path, *words: str) -> tuple[int, Process]:
    certificate, key = write_files(authority().leaf(NAME), tmp_path, "server")
    port = free_port()
    argv = ["openssl", "s_server", "-accept", f"{LOOPBACK}:{port}", "-cert", certificate, "-key", key, "-www", *words]
    return port, running.add(Process("s_server", argv, tmp_path, port=port), is_ready=lambda: accepts(port))


@pytest.mark.parametrize(("version", "name"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
def test_openssls_server_is_talked_to_and_its_session_resumed(
    loop: Loop, running: Running, tmp_path: Path, version: str, name: str
) -> None:
    port, _ = openssl_server(running, tmp_path, version)
    client = client_of()
    first, second = ask(loop, port, client), ask(loop, port, client)
    assert first.outcomes == second.outcomes == [None]
    assert b"HTTP/1.0 200 ok" in first.data
    assert f"New, {name}".encode() in first.data
    assert f"Reused, {name}".encode() in second.data
    assert client.resumed == 1


def test_openssls_server_knows_us_by_our_certificate(loop: Loop, running: Running, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(authority().pem)
    port, process = openssl_server(running, tmp_path, "-Verify", "1", "-CAfile", str(tmp_path / "ca.crt"), "-verify_return_error")
    asked = ask(loop, port, client_of(pair=pair_of(authority().leaf(name="caller", client=True))))
    assert b"HTTP/1.0 200 ok" in asked.data, process.output()
    assert asked.connection is not None
    assert asked.connection.peer_identity() == PeerIdentity(NAME, "dns")
    refused = ask(loop, port, client_of())
    assert b"200 ok" not in refused.data
    assert "the peer answered with the alert" in refused.events[-1]


class StandardServer:
    """A server of the standard library that serves one connection after the other."""

    def __init__(self, tmp_path: Path, *, announce: bool) -> None:
        certificate, key = write_files(authority().leaf(NAME), tmp_path, "standard")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.listening = socket.create_server((LOOPBACK, 0))
        self.port: int = self.listening.getsockname()[1]
        self.announce = announce
        self.reused: list[bool | None] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self.listening.accept()
            except OSError:
                return
            plain.settimeout(SECONDS)
            sock = self.context.wrap_socket(plain, server_side=True)
            self.reused.append(sock.session_reused)
            sock.recv(65536)
            sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000)
            if self.announce:
                sock = sock.unwrap()  # type: ignore[assignment]  # gives back the plain socket
            sock.close()


def test_an_answer_that_ends_without_announcement_is_not_taken_for_whole(loop: Loop, tmp_path: Path) -> None:
    server = StandardServer(tmp_path, announce=False)
    with closing(server.listening):
        asked = ask(loop, server.port, client_of())
    assert asked.data.endswith(b"x" * 1000)
    assert "eof" not in asked.events
    assert asked.events[-1].startswith("lost: the peer closed without close_notify")


def test_an_answer_whose_end_is_announced_is_whole(loop: Loop, tmp_path: Path) -> None:
    server = StandardServer(tmp_path, announce=True)
    client = client_of()
    with closing(server.listening):
        for _ in range(2):
            asked = ask(loop, server.port, client)
            assert len(asked.data) == 100_019
            assert asked.events == ["eof", "lost: closed"]
    assert server.reused == [False, True]
    assert client.resumed == 1


def test_a_client_whose_authorities_are_broken_fails_each_connection(loop: Loop) -> None:
    broken = TlsClient(ClientSecurity(ClientSettings(trust=b"nonsense")), NAME)
    with socket.create_server((LOOPBACK, 0)) as deaf:
        asked = ask(loop, deaf.getsockname()[1], broken)
    assert isinstance(asked.outcomes[0], HandshakeFailed)
    assert asked.outcomes[0].reason == "trustCerts: no PEM certificate in it"
    assert asked.events == [f"lost: {asked.outcomes[0]}"]
