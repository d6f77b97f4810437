"""The admin server over TLS: curl verifies it, clients may have to show certificates, and changed files count without restart."""

from __future__ import annotations

import json
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import attrs
import pytest
from cryptography import x509

from support import servers
from support.certs import authority, write_files
from support.gateways import LOOPBACK, SECONDS, Answer, Gateway, config, curl, gateway, run_curl, talk
from support.processes import Running, free_port, wait_until

pytestmark = pytest.mark.integration


@attrs.frozen
class Files:
    """Paths of an authority, a server's certificate and key, and a client's."""

    ca: str
    server: tuple[str, str]
    client: tuple[str, str]

    @property
    def block(self) -> dict[str, object]:
        return {"certPath": self.server[0], "keyPath": self.server[1]}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority().pem)
    server = write_files(authority().leaf("localhost"), tmp_path, "server")
    return Files(str(ca), server, write_files(authority().leaf("operator.example", client=True), tmp_path, "client"))


def ask(port: int, files: Files, path: str, *words: str) -> Answer:
    return curl("--resolve", f"localhost:{port}:{LOOPBACK}", "--cacert", files.ca, *words, f"https://localhost:{port}{path}")


def test_everything_of_admin_is_served_over_tls_and_nothing_in_cleartext(running: Running, files: Files) -> None:
    identifier = free_port()
    gw = gateway(running, {"web": 1}, admin={"tls": files.block, "httpIdentifierPort": identifier})
    for words in ((), ("--http2",), ("--tls-max", "1.2")):
        assert ask(gw.admin_port, files, "/admin/ping", *words).text == "pong"
    assert json.loads(ask(identifier, files, "/", "--header", "Host: web").body) == {"http": {"path": "/svc/web"}}
    refused = talk(gw.admin_port, b"GET /admin/ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 400 ") and refused.endswith(b"this port speaks TLS\n")
    assert talk(gw.admin_port, b"\0\0\0\0\0") == b""
    counted = json.loads(ask(gw.admin_port, files, "/admin/metrics.json?q=admin/tls").body)
    assert (counted["handshakes"], counted["failures/http"], counted["failures/garbage"]) == (5, 1, 1)
    assert ask(gw.admin_port, files, "/admin/shutdown", "--request", "POST").text == "quitting"
    assert gw.process.wait(SECONDS) == 0


def test_clients_without_a_trusted_certificate_are_refused(running: Running, files: Files) -> None:
    gw = gateway(running, {"web": 1}, admin={"tls": {**files.block, "requireClientAuth": True, "caCertPath": files.ca}})
    shown = ("--cert", files.client[0], "--key", files.client[1])
    assert ask(gw.admin_port, files, "/admin/server_info", *shown).status == 200
    stranger = write_files(authority("strangers").leaf("operator.example", client=True), running.directory, "stranger")
    for words in (("--cert", stranger[0], "--key", stranger[1]), ()):
        address = ("--resolve", f"localhost:{gw.admin_port}:{LOOPBACK}", "--cacert", files.ca)
        assert run_curl(*address, *words, f"https://localhost:{gw.admin_port}/admin/server_info").returncode != 0
    assert gw.process.says("the caller's certificate was refused")


def serial(port: int, files: Files) -> int:
    context = ssl.create_default_context(cafile=files.ca)
    raw = socket.create_connection((LOOPBACK, port), timeout=SECONDS)
    with closing(context.wrap_socket(raw, server_hostname="localhost")) as secured:
        return x509.load_der_x509_certificate(secured.getpeercert(binary_form=True) or b"").serial_number


def replaced(files: Files, directory: Path) -> Callable[[Gateway], bool]:
    issued = authority().leaf("localhost")
    write_files(issued, directory, "server")
    wanted = x509.load_pem_x509_certificate(issued.certificate_pem).serial_number
    return lambda gw: serial(gw.admin_port, files) == wanted


def test_a_renewed_certificate_is_shown_without_restart_and_after_a_reload(running: Running, files: Files) -> None:
    gw = gateway(running, {"web": 1}, admin={"tls": files.block})
    is_shown = replaced(files, running.directory)
    assert wait_until(lambda: is_shown(gw), SECONDS)
    gw.process.signal(signal.SIGHUP)
    assert wait_until(lambda: "the configuration is reloaded" in gw.process.output(), SECONDS)
    assert ask(gw.admin_port, files, "/admin/ping").text == "pong"
    is_shown = replaced(files, running.directory)
    assert wait_until(lambda: is_shown(gw), SECONDS), "the files are followed after a reload too"


def test_files_that_cannot_be_used_end_the_start_with_the_reason(running: Running, files: Files) -> None:
    Path(files.server[1]).write_text("not a key")
    settings = config(running.directory, free_port(), free_port())
    settings["admin"]["tls"] = files.block
    process = servers.meshgw(running.directory, json.dumps(settings), port=0).start()
    try:
        assert process.wait(SECONDS) not in (0, None)
    finally:
        process.stop()
    assert "meshgw cannot start" in process.output() and "server.key" in process.output()
    assert "not a key" not in process.output()
