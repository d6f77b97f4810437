"""HTTP/2 over TLS with real peers: what ALPN agrees on, certificates by name, who calls, and endpoints of every kind."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_plus

import pytest

from support import h2_frames as f
from support import servers
from support.certs import SPIFFE, authority, write_files
from support.gateways import LOOPBACK, SECONDS, Answer, Gateway, Json, Nginx, gateway, run_curl
from support.h2_gateways import assert_at_rest, h2_gateway
from support.h2_peer import Wire
from support.processes import Process, Running, accepts, free_port, wait_until

pytestmark = pytest.mark.integration

NAME = "web.example"
OTHER = "shop.example"
HELLO = 'location / { return 200 "$server_protocol $http_l5d_client_id"; }'


@pytest.fixture
def directory(running: Running) -> Path:
    running.directory.chmod(0o755)
    return running.directory


@pytest.fixture
def ca(directory: Path) -> str:
    path = directory / "ca.crt"
    path.write_bytes(authority().pem)
    return str(path)


def shown(directory: Path, *names: str) -> Json:
    """A ``tls`` block of a server for these names."""
    certificate, key = write_files(authority().leaf(*names), directory, names[0])
    return {"certPath": certificate, "keyPath": key}


@pytest.fixture
def secure(running: Running, directory: Path) -> Iterator[Gateway]:
    """HTTP/2 over TLS for two names, in front of nginx, which tells what it was asked in."""
    service = Nginx(running, HELLO)
    sni = {"certificates": [shown(directory, OTHER)]}
    gw = h2_gateway(
        running,
        {NAME: service.port, OTHER: service.port},
        router={"client": {"protocol": "http/1.1"}},
        server={"tls": {**shown(directory, NAME), "sni": sni}},
    )
    yield gw
    assert "Traceback" not in gw.process.output()


def dial(port: int, ca: str, *alpn: str, name: str = NAME, client: tuple[str, str] | None = None, version: str = "") -> ssl.SSLSocket:
    """A TLS connection that offers these protocols."""
    context = ssl.create_default_context(cafile=ca)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if client is not None:
        context.load_cert_chain(*client)
    if version:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    return context.wrap_socket(socket.create_connection((LOOPBACK, port), SECONDS), server_hostname=name)


def get(name: str, path: str = "/") -> tuple[tuple[str, str], ...]:
    return ((":method", "GET"), (":scheme", "https"), (":path", path), (":authority", name))


# --- listeners


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_callers_that_offer_h2_or_nothing_are_served(secure: Gateway, ca: str, version: str) -> None:
    for alpn in (("h2",), ("http/1.1", "h2"), ()):
        sock = dial(secure.port, ca, *alpn, version=version)
        assert sock.selected_alpn_protocol() == ("h2" if alpn else None)
        with Wire(sock) as wire:
            wire.send(f.OPENING + f.headers(1, get(NAME)))
            assert wire.until(lambda wire: wire.ended(1)), wire.describe()
            assert wire.body(1).startswith(b"HTTP/1.1")


def test_callers_that_offer_something_else_are_refused_in_the_handshake(secure: Gateway, ca: str) -> None:
    with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        dial(secure.port, ca, "http/1.1")
    assert wait_until(lambda: "none of the protocols http/1.1 is served" in secure.process.output(), SECONDS)
    assert secure.server_metric("tls/failures/hello", "h2") == 1


def test_a_caller_of_http1_that_did_not_say_so_is_told_what_is_spoken(secure: Gateway, ca: str) -> None:
    with dial(secure.port, ca) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 505 ")
    assert b"This port speaks HTTP/2" in answer


def test_a_connection_is_for_the_names_of_its_certificate(secure: Gateway, ca: str) -> None:
    for name, other in ((NAME, OTHER), (OTHER, NAME)):
        with Wire(dial(secure.port, ca, "h2", name=name)) as wire:
            wire.send(f.OPENING + f.headers(1, get(name)) + f.headers(3, get(other)) + f.headers(5, get(f"{name.upper()}:443")))
            assert wire.until(lambda wire: all(wire.status(stream) for stream in (1, 3, 5))), wire.describe()
            assert [wire.status(stream) for stream in (1, 3)] == [200, 421]
            assert wire.status(5) != 421


def test_who_may_call_is_decided_by_certificate_for_each_request(running: Running, directory: Path, ca: str) -> None:
    service = Nginx(running, HELLO)
    rules = {"rules": [{"allow": {"identity": SPIFFE, "path": "/ours"}}]}
    tls = {**shown(directory, NAME), "caCertPath": ca, "requireClientAuth": True}
    router = {"client": {"protocol": "http/1.1"}, "accessControl": rules}
    gw = h2_gateway(running, {NAME: service.port}, router=router, server={"tls": tls})
    ours = write_files(authority().leaf(uris=(SPIFFE,), client=True), directory, "ours")
    theirs = write_files(authority().leaf(uris=("spiffe://mesh.example/ns/other/sa/x",), client=True), directory, "theirs")
    for pair, expected in ((ours, [200, 403]), (theirs, [403, 403])):
        with Wire(dial(gw.port, ca, "h2", client=pair)) as wire:
            forged = (*get(NAME, "/ours"), ("l5d-client-id", "forged"))
            wire.send(f.OPENING + f.headers(1, forged) + f.headers(3, get(NAME, "/theirs")))
            assert wire.until(lambda wire: wire.ended(1) and wire.ended(3)), wire.describe()
            assert [wire.status(1), wire.status(3)] == expected
            if pair is ours:
                assert wire.body(1) == f"HTTP/1.1 {SPIFFE}".encode()
    done = run_curl("--http2", "--cacert", ca, "--resolve", f"{NAME}:{gw.port}:{LOOPBACK}", f"https://{NAME}:{gw.port}/ours")
    assert b"certificate required" in done.stderr


def test_two_gateways_speak_http2_over_mutual_tls(running: Running, directory: Path, ca: str) -> None:
    service = Nginx(running, HELLO)
    tls = {**shown(directory, NAME), "caCertPath": ca, "requireClientAuth": True}
    incoming = h2_gateway(running, {NAME: service.port}, router={"client": {"protocol": "http/1.1"}}, server={"tls": tls}, name="incoming")
    certificate, key = write_files(authority().leaf(uris=(SPIFFE,), client=True), directory, "client")
    ours = {"certPath": certificate, "keyPath": key}
    client = {"protocol": "h2", "tls": {"commonName": NAME, "trustCertsBundle": ca, "clientAuth": ours}}
    outgoing = gateway(running, {NAME: incoming.port}, router={"client": client}, name="outgoing")
    for _ in range(3):
        assert outgoing.get(NAME).text == f"HTTP/1.1 {SPIFFE}"
    assert incoming.server_metric("tls/handshakes", "h2") == 1
    assert_at_rest(incoming)


def test_renewed_certificates_are_shown_while_connections_go_on(secure: Gateway, directory: Path, ca: str) -> None:
    with Wire(dial(secure.port, ca, "h2")) as wire:
        wire.send(f.OPENING + f.headers(1, get(NAME)))
        assert wire.until(lambda wire: wire.ended(1))
        before = wire.sock.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        shown(directory, NAME)

        def is_new() -> bool:
            with dial(secure.port, ca, "h2") as sock:
                return sock.getpeercert(binary_form=True) != before

        assert wait_until(is_new, SECONDS)
        wire.send(f.headers(3, get(NAME)))
        assert wire.until(lambda wire: wire.status(3) == 200), wire.describe()


# --- endpoints


def endpoint(running: Running, directory: Path, listen: str, port: int, name: str) -> Process:
    """nginx with TLS on ``port``, which tells in what it was asked."""
    tls = shown(directory, NAME)
    text = (
        "user root;\nevents {} http { access_log off; "
        f"server {{ listen {LOOPBACK}:{port} {listen}; ssl_certificate {tls['certPath']}; ssl_certificate_key {tls['keyPath']}; "
        'location / { return 200 "$server_protocol"; } } }'
    )
    return running.add(servers.nginx(directory, text, port=port, name=name), is_ready=lambda: accepts(port))


def calling(running: Running, ca: str, port: int, protocol: str) -> Gateway:
    """A gateway that calls ``port`` over TLS, for callers of HTTP/1.1."""
    client = {"protocol": protocol, "tls": {"commonName": NAME, "trustCertsBundle": ca}}
    return gateway(running, {"web": port}, router={"client": client}, name=f"calling-{protocol.replace('/', '')}")


def error_of(answer: Answer) -> str:
    assert answer.status == 502, answer
    return unquote_plus(answer.headers["l5d-err"])


@pytest.mark.parametrize(("listen", "auto"), [("ssl http2", "HTTP/2.0"), ("ssl", "HTTP/1.1")])
def test_nginx_is_spoken_to_in_what_it_agrees_to(running: Running, directory: Path, ca: str, listen: str, auto: str) -> None:
    port = free_port()
    endpoint(running, directory, listen, port, "endpoint")
    assert calling(running, ca, port, "auto").get("web").text == auto
    assert calling(running, ca, port, "http/1.1").get("web").text == "HTTP/1.1"
    strict = calling(running, ca, port, "h2")
    answer = strict.get("web")
    if auto == "HTTP/2.0":
        assert answer.text == auto
    else:
        assert f"TLS handshake with {LOOPBACK}:{port} failed: " in error_of(answer)
        assert strict.metrics()["rt/http/client/#/io.l5d.fs/web/tls/failures"] > 0


@pytest.mark.parametrize(("alpn", "auto"), [("alpn h2,http/1.1", "HTTP/2.0"), ("alpn http/1.1", "HTTP/1.1"), ("no-alpn", "HTTP/1.1")])
def test_haproxy_is_spoken_to_in_what_it_agrees_to(running: Running, directory: Path, ca: str, alpn: str, auto: str) -> None:
    leaf = authority().leaf(NAME)
    (directory / "both.pem").write_bytes(leaf.certificate_pem + leaf.key_pem())
    port = free_port()
    times = " timeout connect 60s\n timeout client 60s\n timeout server 60s\n"
    bound = f" bind {LOOPBACK}:{port} ssl crt {directory}/both.pem {'' if alpn == 'no-alpn' else alpn}\n"
    asked = ' http-request return status 200 content-type text/plain lf-string "HTTP/%[req.ver]"\n'
    running.add(servers.haproxy(directory, f"defaults\n mode http\n{times}frontend f\n{bound}{asked}", port=port))
    assert calling(running, ca, port, "auto").get("web").text == auto
    told = calling(running, ca, port, "h2").get("web")
    if auto == "HTTP/2.0":
        assert told.text == auto
    else:
        assert f"TLS handshake with {LOOPBACK}:{port} failed: " in error_of(told)


def test_a_server_without_alpn_is_not_spoken_to_in_http2(running: Running, directory: Path, ca: str) -> None:
    tls = shown(directory, NAME)
    port = free_port()
    argv = ["openssl", "s_server", "-accept", str(port), "-cert", tls["certPath"], "-key", tls["keyPath"], "-www", "-quiet"]
    running.add(Process("s_server", argv, directory, port=port), is_ready=lambda: accepts(port))
    strict = calling(running, ca, port, "h2")
    assert "the endpoint does not speak h2: it chose no protocol (ALPN)" in error_of(strict.get("web"))
    assert calling(running, ca, port, "auto").get("web").status == 200


def test_an_endpoint_that_changes_its_mind_is_followed_both_ways(running: Running, directory: Path, ca: str) -> None:
    port = free_port()
    current = endpoint(running, directory, "ssl", port, "first")
    gw = calling(running, ca, port, "auto")
    assert gw.get("web").text == "HTTP/1.1"
    for number, (listen, spoken) in enumerate((("ssl http2", "HTTP/2.0"), ("ssl", "HTTP/1.1"), ("ssl http2", "HTTP/2.0"))):
        current.stop()
        current = endpoint(running, directory, listen, port, f"next-{number}")
        assert wait_until(lambda spoken=spoken: gw.get("web").text == spoken, SECONDS)  # type: ignore[misc]


def test_an_egress_speaks_to_origins_what_they_agree_to(running: Running, directory: Path, ca: str) -> None:
    ports = {"ssl http2": free_port(), "ssl": free_port()}
    for listen, port in ports.items():
        endpoint(running, directory, listen, port, f"origin-{port}")
    rinet = "/$/io.buoyant.rinet"
    dtab = " ; ".join(f"/svc/{name} => /$/inet/{LOOPBACK}/{port}" for name, port in (("new", ports["ssl http2"]), ("old", ports["ssl"])))
    configs = [{"prefix": f"/$/inet/{LOOPBACK}", "protocol": "auto", "tls": {"commonName": NAME, "trustCertsBundle": ca}}]
    router = {
        "role": "egress",
        "dtab": dtab,
        "egress": {"allowNetworks": [LOOPBACK]},
        "client": {"kind": "io.l5d.static", "configs": configs},
    }
    gw = h2_gateway(running, {}, router=router)
    for name, spoken in (("new", b"HTTP/2.0"), ("old", b"HTTP/1.1")):
        with Wire.connect(gw.port, f.OPENING + f.headers(1, get(name))) as wire:
            assert wire.until(lambda wire: wire.ended(1)), wire.describe()
            assert wire.body(1) == spoken
    shown_config = json.loads(gw.admin("/config.json").text)["routers"][0]["client"]["configs"]
    assert [entry["protocol"] for entry in shown_config if entry["prefix"].startswith(rinet)] == ["auto"]
