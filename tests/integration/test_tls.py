"""TLS as operators meet it: mutual TLS between gateways, what each refusal says, certificates by name, and their renewal under load."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote_plus

import attrs
import pytest
from cryptography import x509

from support import servers
from support.certs import PKCS1_OR_SEC1, SPIFFE, Authority, authority, write_files
from support.fleets import Loss, fleet
from support.gateways import LOOPBACK, SECONDS, Answer, Gateway, Json, Nginx, gateway, run_curl
from support.processes import Process, Running, accepts, free_port, wait_until

pytestmark = pytest.mark.integration

HELLO = 'location / { return 200 "hello $http_l5d_client_id"; }'
INCOMING = "incoming.mesh"


@attrs.frozen
class Pki:
    """Certificates in files."""

    directory: Path

    def ca(self, of: Authority | None = None, name: str = "ca") -> str:
        """The file of an authority, by default that of the tests."""
        path = self.directory / f"{name}.crt"
        path.write_bytes((of or authority()).pem)
        return str(path)

    def server(self, *dns: str, name: str = "server") -> Json:
        """A ``tls`` block for these names."""
        certificate, key = write_files(authority().leaf(*dns), self.directory, name)
        return {"certPath": certificate, "keyPath": key}

    def client(self, *, of: Authority | None = None, uri: str = SPIFFE, name: str = "client") -> Json:
        """A ``clientAuth`` block."""
        certificate, key = write_files((of or authority()).leaf(uris=(uri,), client=True), self.directory, name)
        return {"certPath": certificate, "keyPath": key}


@pytest.fixture
def pki(running: Running) -> Pki:
    running.directory.chmod(0o755)
    return Pki(running.directory)


@pytest.fixture
def nginx(running: Running) -> Nginx:
    return Nginx(running, HELLO)


def secure_nginx(running: Running, pki: Pki, issued: tuple[str, str], more: str = "") -> int:
    """nginx that serves TLS with this certificate; its port."""
    port = free_port()
    listen = f"listen {LOOPBACK}:{port} ssl; ssl_certificate {issued[0]}; ssl_certificate_key {issued[1]}; {more}"
    Nginx(running, f"{listen} location / {{ return 200 'secure'; }}", name=f"nginx-{port}")
    assert wait_until(lambda: accepts(port), SECONDS)
    return port


def through(running: Running, port: int, tls: Json, *, name: str = "outgoing") -> Gateway:
    """A plain gateway whose clients speak ``tls`` to ``port``."""
    return gateway(running, {"web": port}, router={"client": {"tls": tls}}, name=name)


def error_of(answer: Answer) -> str:
    """What a refused request is told, as header and as body."""
    assert answer.status == 502, answer
    assert unquote_plus(answer.headers["l5d-err"]) == answer.text
    return answer.text


def s_client(port: int, *words: str) -> str:
    """All that openssl's client says of a handshake."""
    argv = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{port}", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
    return (done.stdout + done.stderr).decode(errors="replace")


def shown(port: int, name: str | None) -> x509.Certificate:
    """The certificate that a listener shows for a server name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((LOOPBACK, port), SECONDS) as raw, context.wrap_socket(raw, server_hostname=name) as secure:
        found = secure.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found)


def names(port: int, name: str | None) -> list[str]:
    found = shown(port, name).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.value.get_values_for_type(x509.DNSName)


# --- between gateways


def test_two_gateways_know_each_other_and_the_service_is_told_who_calls(running: Running, pki: Pki, nginx: Nginx) -> None:
    tls = {**pki.server(INCOMING), "caCertPath": pki.ca(), "requireClientAuth": True}
    incoming = gateway(running, {"web": nginx.port}, server={"tls": tls}, name="incoming")
    outgoing = through(running, incoming.port, {"commonName": INCOMING, "trustCertsBundle": pki.ca(), "clientAuth": pki.client()})
    for _ in range(3):
        assert outgoing.get("web", "/", "l5d-client-id: forged").text == f"hello {SPIFFE}"
    metrics = incoming.metrics()
    assert metrics[f"rt/http/server/{LOOPBACK}/{incoming.port}/tls/handshakes"] == 1, "one pooled connection serves all"


DEPLOY = Path(__file__).parents[2] / "deploy" / "tls"


def test_the_configuration_to_try_out_works_as_its_page_says(running: Running, pki: Pki, nginx: Nginx) -> None:
    directory = pki.directory
    page = (DEPLOY / "README.md").read_text()
    commands = [line.split() for line in page.splitlines() if line.startswith("meshgw certs")]
    assert len(commands) == 3
    for command in commands:
        subprocess.run([str(Path(sys.executable).with_name("meshgw")), *command[1:]], cwd=directory, check=True, timeout=SECONDS)
    ports = {"9990": free_port(), "4140": free_port(), "4143": free_port(), "8080": nginx.port}
    text = (DEPLOY / "gateways.yml").read_text()
    for written, port in ports.items():
        assert written in text
        text = text.replace(written, str(port))
    running.add(servers.meshgw(directory, text, port=ports["4140"]))
    plain = run_curl("-H", "Host: web", f"http://{LOOPBACK}:{ports['4140']}/")
    assert plain.stdout == b"hello spiffe://mesh.example/outgoing"
    secure = ports["4143"]
    resolve = ("--resolve", f"incoming.mesh:{secure}:{LOOPBACK}", "--cacert", str(directory / "pki" / "ca.crt"))
    assert b"certificate required" in run_curl(*resolve, f"https://incoming.mesh:{secure}/").stderr


FAILURES = {
    "another authority": "its issuer is not trusted",
    "expired": "expired",
    "another name": "the certificate is for other names",
    "no certificate of ours": "No required SSL certificate was sent",
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_service_that_may_not_be_talked_to_is_refused_with_the_reason(running: Running, pki: Pki, what: str) -> None:
    issued = authority("elsewhere") if what == "another authority" else authority()
    leaf = issued.expired("web.mesh") if what == "expired" else issued.leaf("other.mesh" if what == "another name" else "web.mesh")
    more = f"ssl_verify_client on; ssl_client_certificate {pki.ca()};" if what == "no certificate of ours" else ""
    port = secure_nginx(running, pki, write_files(leaf, pki.directory, "leaf"), more)
    outgoing = through(running, port, {"commonName": "web.mesh", "trustCertsBundle": pki.ca()})
    if what == "no certificate of ours":  # nginx completes the handshake, and tells it as an answer
        answer = outgoing.get("web")
        assert answer.status == 400
        assert FAILURES[what] in answer.text
        return
    text = error_of(outgoing.get("web"))
    assert FAILURES[what] in text
    assert "expected name: web.mesh" in text
    assert f"certificate of {LOOPBACK}:{port} refused" in text
    assert "valid 20" in text, "what the certificate is, so that nobody has to look it up"


def refused(gw: Gateway) -> float:
    """Handshakes that failed for what the caller showed."""
    return gw.server_metric("tls/failures/handshake")


def test_a_gateway_that_wants_a_certificate_says_so_to_one_that_has_none(running: Running, pki: Pki, nginx: Nginx) -> None:
    tls = {**pki.server(INCOMING), "caCertPath": pki.ca(), "requireClientAuth": True}
    incoming = gateway(running, {"web": nginx.port}, server={"tls": tls}, name="incoming")
    outgoing = through(running, incoming.port, {"commonName": INCOMING, "trustCertsBundle": pki.ca()})
    answer = outgoing.get("web")
    assert answer.status == 502
    assert "certificate required" in answer.text, answer.text
    assert wait_until(lambda: "did not return a certificate" in incoming.process.output(), SECONDS)
    stranger = through(
        running,
        incoming.port,
        {"commonName": INCOMING, "trustCertsBundle": pki.ca(), "clientAuth": pki.client(of=authority("elsewhere"))},
        name="stranger",
    )
    before = refused(incoming)
    assert stranger.get("web").status == 502
    assert refused(incoming) > before


def test_validation_may_be_off_while_our_certificate_is_shown(running: Running, pki: Pki) -> None:
    leaf = write_files(authority("elsewhere").leaf("whatever"), pki.directory, "leaf")
    port = secure_nginx(running, pki, leaf, f"ssl_verify_client on; ssl_client_certificate {pki.ca()};")
    outgoing = through(running, port, {"disableValidation": True, "clientAuth": pki.client()})
    assert outgoing.get("web").text == "secure"
    assert outgoing.process.says("any certificate is taken")


def test_names_come_from_the_client_and_may_be_addresses(running: Running, pki: Pki) -> None:
    named = secure_nginx(running, pki, write_files(authority().leaf("web.mesh"), pki.directory, "named"))
    addressed = secure_nginx(running, pki, write_files(authority().leaf(ips=(LOOPBACK,)), pki.directory, "addressed"))
    ca = pki.ca()
    configs = [
        {"prefix": "/#/io.l5d.fs/{service}", "tls": {"commonName": "{service}.mesh", "trustCertsBundle": ca}},
        {"prefix": "/#/io.l5d.fs/address", "tls": {"commonName": LOOPBACK, "trustCertsBundle": ca}},
    ]
    names = {"web": named, "shop": named, "address": addressed}
    gw = gateway(running, names, router={"client": {"kind": "io.l5d.static", "configs": configs}})
    assert gw.get("web").text == gw.get("address").text == "secure"
    assert "expected name: shop.mesh" in error_of(gw.get("shop"))


# --- listeners


def test_plain_http_on_a_port_of_tls_is_told_so(running: Running, pki: Pki, nginx: Nginx) -> None:
    gw = gateway(running, {"web": nginx.port}, server={"tls": pki.server("web")})
    done = run_curl("--include", f"http://{LOOPBACK}:{gw.port}/")
    assert b"400 Bad Request" in done.stdout and b"this port speaks TLS" in done.stdout
    assert wait_until(lambda: "plain HTTP" in gw.process.output(), SECONDS)


@pytest.mark.parametrize("key_type", ["rsa", "ec"])
def test_keys_of_older_forms_are_served(running: Running, pki: Pki, nginx: Nginx, key_type: str) -> None:
    certificate, key = write_files(authority().leaf("web", key_type=key_type), pki.directory, "older", form=PKCS1_OR_SEC1)
    assert Path(key).read_text().startswith(f"-----BEGIN {key_type.upper()} PRIVATE KEY")
    gw = gateway(running, {"web": nginx.port}, server={"tls": {"certPath": certificate, "keyPath": key}})
    assert names(gw.port, "web") == ["web"]


def test_an_unknown_server_name_is_refused_as_haproxy_does(running: Running, pki: Pki, nginx: Nginx) -> None:
    listed = [pki.server("*.shop.example", name="wild"), pki.server("one.shop.example", name="exact")]
    sni = {"certificates": listed, "strict": True}
    gw = gateway(running, {"web": nginx.port}, server={"tls": {**pki.server("default.example"), "sni": sni}})
    assert names(gw.port, "one.shop.example") == ["one.shop.example"]
    assert names(gw.port, "two.shop.example") == ["*.shop.example"]
    certificates = pki.directory / "haproxy"
    certificates.mkdir()
    leaf = authority().leaf("one.shop.example")
    (certificates / "one.pem").write_bytes(leaf.certificate_pem + leaf.key_pem())
    port = free_port()
    times = " timeout connect 60s\n timeout client 60s\n timeout server 60s\n"
    text = f"defaults\n mode http\n{times}frontend f\n bind {LOOPBACK}:{port} ssl crt {certificates} strict-sni\n"
    (pki.directory / "haproxy.cfg").write_text(text)
    running.add(Process("haproxy", ["haproxy", "-db", "-f", str(pki.directory / "haproxy.cfg")], pki.directory, port=port))
    for unknown in (("-servername", "a.b.shop.example"), ("-noservername",)):
        ours, theirs = s_client(gw.port, *unknown), s_client(port, *unknown)
        for told in (ours, theirs):
            assert "alert" in told and "no peer certificate available" in told
        assert "unrecognized name" in ours


def test_a_directory_of_certificates_is_followed_while_serving(running: Running, pki: Pki, nginx: Nginx) -> None:
    directory = pki.directory / "certificates"
    (directory / "mounted").mkdir(parents=True)
    write_files(authority().leaf("one.example"), directory, "one")
    write_files(authority().leaf("mounted.example"), directory / "mounted", "tls")
    server = {"tls": {**pki.server("default.example"), "sni": {"directory": str(directory)}}}
    gw = gateway(running, {"web": nginx.port}, server=server)
    assert [names(gw.port, name)[0] for name in ("one.example", "mounted.example", "new.example")] == [
        "one.example",
        "mounted.example",
        "default.example",
    ]
    write_files(authority().leaf("new.example"), directory, "new")
    assert wait_until(lambda: names(gw.port, "new.example") == ["new.example"], SECONDS)
    for file in directory.glob("one.*"):
        file.unlink()
    assert wait_until(lambda: names(gw.port, "one.example") == ["default.example"], SECONDS)


class Callers:
    """wrk over TLS, each request on a connection of its own."""

    def __init__(self, running: Running, port: int, *, connections: int = 4, keep_alive: bool = False) -> None:
        headers = ["-H", "Host: web", *([] if keep_alive else ["-H", "Connection: close"])]
        argv = ["wrk", "-t1", f"-c{connections}", "-d600s", "--timeout", "5s", *headers, f"https://{LOOPBACK}:{port}/"]
        self._process = running.add(Process("wrk", argv, running.directory))

    def end(self) -> Loss:
        self._process.signal(2)
        assert self._process.wait(SECONDS) is not None
        return Loss.read(self._process.output())


def test_renewal_under_load_loses_nothing_and_a_broken_pair_changes_nothing(running: Running, pki: Pki, nginx: Nginx) -> None:
    tls = pki.server("web")
    gw = gateway(running, {"web": nginx.port}, server={"tls": tls})
    callers = Callers(running, gw.port)
    seen = shown(gw.port, "web").serial_number
    for _ in range(3):
        fresh = authority().leaf("web")
        write_files(fresh, pki.directory, "server")
        serial = x509.load_pem_x509_certificate(fresh.certificate_pem).serial_number
        assert serial != seen
        assert wait_until(lambda serial=serial: shown(gw.port, "web").serial_number == serial, SECONDS)  # type: ignore[misc]
        seen = serial
    Path(tls["keyPath"]).write_bytes(authority().leaf("web").key_pem())
    assert wait_until(lambda: "does not" in gw.process.output() or "do not" in gw.process.output(), SECONDS), gw.process.output()
    assert shown(gw.port, "web").serial_number == seen
    loss = callers.end()
    assert (loss.errors, loss.refused) == (0, 0), loss
    assert loss.requests > 10


@pytest.mark.parametrize("workers", [1, 2])
def test_reloads_under_load_of_tls_lose_nothing(running: Running, pki: Pki, nginx: Nginx, workers: int) -> None:
    port = free_port()
    router = {"servers": [{"port": port, "tls": pki.server("web")}]}
    gw = fleet(running, nginx.port, workers=workers, routers=[{}, {**router, "label": "secure"}])
    callers = Callers(running, port, keep_alive=True)
    for _ in range(3):
        gw.reload_by_signal()
    loss = callers.end()
    assert (loss.errors, loss.refused) == (0, 0), loss
    assert loss.requests > 10


def scan(words: Sequence[str]) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False).stdout


def test_a_scanner_finds_nothing_in_a_default_listener(running: Running, pki: Pki, nginx: Nginx) -> None:
    if shutil.which("sslscan") is None:
        pytest.skip("sslscan is not installed: NOT scanning a default listener (apt-get install sslscan)")
    gw = gateway(running, {"web": nginx.port}, server={"tls": pki.server("web")})
    found = scan(["sslscan", "--no-colour", "--sni-name=web", f"{LOOPBACK}:{gw.port}"])
    assert "TLSv1.3   enabled" in found and "TLSv1.2   enabled" in found, found
    for old in ("SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"):
        assert f"{old}     disabled" in found or f"{old}   disabled" in found, found
    assert "Session renegotiation not supported" in found
    assert found.count("not vulnerable to heartbleed") == 2
    accepted = [line.split()[4] for line in found.splitlines() if line.startswith(("Preferred", "Accepted"))]
    assert accepted
    assert all(name.startswith(("TLS_", "ECDHE-")) and ("GCM" in name or "CHACHA20" in name) for name in accepted), accepted


def test_what_goes_over_tls_is_what_was_sent(running: Running, pki: Pki, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(range(256)) * 32768)
    files = Nginx(running, f"location / {{ root {tmp_path}; }}")
    tls = {**pki.server(INCOMING), "caCertPath": pki.ca(), "requireClientAuth": True}
    incoming = gateway(running, {"web": files.port}, server={"tls": tls}, name="incoming")
    outgoing = through(running, incoming.port, {"commonName": INCOMING, "trustCertsBundle": pki.ca(), "clientAuth": pki.client()})
    tmp_path.chmod(0o755)
    for _ in range(2):
        done = run_curl("-H", "Host: web", f"http://{LOOPBACK}:{outgoing.port}/large")
        assert done.stdout == (tmp_path / "large").read_bytes()
    head = run_curl("--head", "-H", "Host: web", f"http://{LOOPBACK}:{outgoing.port}/large")
    assert b"Content-Length: 8388608" in head.stdout
