"""HTTP/2 with other implementations as callers, as services and as proxies in front and behind: nghttp2, curl, nginx, HAProxy, grpcio."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support import servers
from support.certs import authority, write_files
from support.gateways import SECONDS, Gateway, curl, run_curl, talk
from support.grpc_peers import SERVICE, GrpcService, caller, wish
from support.h2_gateways import assert_at_rest, h2_gateway
from support.processes import LOOPBACK, Process, Running, accepts, free_port

pytestmark = pytest.mark.integration

NAME = "web.example"
BIG = 3_000_000
MIDDLE = 200_000
TRAILERS = {"x-sum": "42", "x-more": "1"}


class Nghttpd:
    """nghttpd over a folder with ``small``, ``middle`` and ``big``; it gives uploads back and ends every answer with ``TRAILERS``."""

    def __init__(self, running: Running, *options: str, tls: tuple[str, str] | None = None) -> None:
        root = running.directory / "files"
        root.mkdir(exist_ok=True)
        (root / "small").write_text("hello\n")
        (root / "middle").write_bytes(bytes(MIDDLE))
        (root / "big").write_bytes(bytes(range(250)) * (BIG // 250))
        self.port = free_port()
        trailers = [word for name, value in TRAILERS.items() for word in ("--trailer", f"{name}: {value}")]
        argv = [servers.tool("nghttpd"), "-a", LOOPBACK, "-d", str(root), "--echo-upload", *trailers, *options]
        argv += [str(self.port), tls[1], tls[0]] if tls else ["--no-tls", str(self.port)]
        self.process = running.add(Process("nghttpd", argv, running.directory, port=self.port))


def run(*argv: str) -> str:
    """What a program printed; it must end well."""
    done = subprocess.run([servers.tool(argv[0]), *argv[1:]], capture_output=True, text=True, timeout=300, check=False, errors="replace")
    assert done.returncode == 0, f"{argv}: {done.returncode} {done.stdout[-2000:]} {done.stderr[-2000:]}"
    return done.stdout


def nghttp(gw: Gateway, *words: str, path: str = "/small") -> str:
    """nghttp as a caller of ``web``."""
    return run("nghttp", "-H", ":authority: web", *words, f"http://{LOOPBACK}:{gw.port}{path}")


def loaded(gw: Gateway, *words: str, paths: tuple[str, ...] = ("/small",), scheme: str = "http", name: str = "web") -> dict[str, int]:
    """h2load as a caller; the requests that succeeded, failed and so on, and those answered 2xx."""
    urls = [f"{scheme}://{LOOPBACK}:{gw.port}{path}" for path in paths]
    text = run("h2load", "-H", f":authority: {name}", *words, *urls)
    found = {word: int(count) for count, word in re.findall(r"(\d+) (succeeded|failed|errored|timeout|2xx)", text)}
    return {word: count for word, count in found.items() if count}


def test_nghttp_gets_an_answer_with_trailers(running: Running) -> None:
    gw = h2_gateway(running, {"web": Nghttpd(running).port})
    told = nghttp(gw, "-v")
    assert ":status: 200" in told
    assert "via: h2 linkerd" in told
    assert "\nhello\n" in told
    assert "x-sum: 42" in told
    assert "x-more: 1" in told
    assert "ENABLE_PUSH" not in told, "that is for a client to say"
    assert_at_rest(gw)


def test_nghttp_depends_pads_and_continues(running: Running) -> None:
    service = Nghttpd(running, "-v")
    gw = h2_gateway(running, {"web": service.port})
    told = nghttp(gw, "-v", "--continuation", "--weight", "200")
    assert "send PRIORITY frame" in told
    assert ":status: 200" in told
    assert "x-sum: 42" in nghttp(gw, "-nv", "--padding", "200", "--no-dep", "--expect-continue")
    assert service.process.says("continuation-test-1"), "fields of all frames arrive"
    assert_at_rest(gw)


def test_nghttp_uploads_with_trailers(running: Running) -> None:
    service = Nghttpd(running, "-v")
    gw = h2_gateway(running, {"web": service.port})
    upload = running.directory / "upload"
    upload.write_bytes(bytes(range(256)) * 4000)
    told = nghttp(gw, "-nv", "-d", str(upload), "--trailer=x-end: 7", path="/echo")
    assert "content-length: 1024000" in told, "all of it came back"
    assert "x-sum: 42" in told
    assert service.process.says("x-end: 7")
    assert_at_rest(gw)


@pytest.mark.parametrize("windows", [("-w", "10", "-W", "10"), ("-w", "30", "-W", "30"), ("--max-concurrent-streams=2",)], ids=str)
def test_nghttp_with_small_and_large_windows(running: Running, windows: tuple[str, ...]) -> None:
    gw = h2_gateway(running, {"web": Nghttpd(running, "-w", "14", "-W", "14").port})
    got = nghttp(gw, "-ns", "-m", "8", *windows, path="/middle")
    assert len(re.findall(r" 200 +\d+K? /middle", got)) == 8, got
    assert_at_rest(gw)


def test_h2load_on_many_streams_and_connections(running: Running) -> None:
    service = Nghttpd(running)
    gw = h2_gateway(running, {"web": service.port})
    assert loaded(gw, "-n", "3000", "-c", "20", "-m", "100") == {"succeeded": 3000, "2xx": 3000}
    assert loaded(gw, "-n", "60", "-c", "3", "-m", "10", paths=("/big", "/small")) == {"succeeded": 60, "2xx": 60}
    upload = running.directory / "upload"
    upload.write_bytes(bytes(100_000))
    assert loaded(gw, "-n", "200", "-c", "4", "-m", "20", "-d", str(upload), paths=("/echo",)) == {"succeeded": 200, "2xx": 200}
    assert gw.server_metric("success", "h2") == 3260
    assert_at_rest(gw)


def test_a_service_of_few_streams_is_given_more_connections(running: Running) -> None:
    gw = h2_gateway(running, {"web": Nghttpd(running, "-m", "10").port})
    assert loaded(gw, "-n", "1000", "-c", "1", "-m", "100") == {"succeeded": 1000, "2xx": 1000}
    assert 1 < gw.metrics()["rt/h2/client/#/io.l5d.fs/web/connects"] <= 11
    assert_at_rest(gw)


def test_two_gateways_between_h2load_and_nghttpd(running: Running) -> None:
    far = h2_gateway(running, {"web": Nghttpd(running).port}, name="far")
    near = h2_gateway(running, {"web": far.port}, name="near")
    assert loaded(near, "-n", "2000", "-c", "5", "-m", "50") == {"succeeded": 2000, "2xx": 2000}
    assert "via: h2 linkerd, h2 linkerd" in nghttp(near, "-v")
    assert_at_rest(far, near)


# --- curl


def test_curl_by_prior_knowledge(running: Running) -> None:
    gw = h2_gateway(running, {"web": Nghttpd(running).port})
    url = f"http://{LOOPBACK}:{gw.port}"
    got = run_curl("--http2-prior-knowledge", "-i", "-H", "Host: web", f"{url}/small")
    assert got.stdout.startswith(b"HTTP/2 200 \r\n")
    assert got.stdout.endswith(b"\r\n\r\nhello\n")
    upload = running.directory / "upload"
    upload.write_bytes(bytes(range(256)) * 10_000)
    echoed = run_curl("--http2-prior-knowledge", "-H", "Host: web", "-T", str(upload), f"{url}/echo")
    assert echoed.stdout == upload.read_bytes()
    assert_at_rest(gw)


@pytest.mark.parametrize("words", [(), ("--http2",), ("--http1.0",)], ids=["1.1", "upgrade", "1.0"])
def test_curl_without_prior_knowledge_is_told_what_the_port_speaks(running: Running, words: tuple[str, ...]) -> None:
    gw = h2_gateway(running, {})
    got = curl(*words, "-H", "Host: web", f"http://{LOOPBACK}:{gw.port}/small")
    assert got.status == 505
    assert "prior knowledge" in got.text
    assert_at_rest(gw)


def certificate(running: Running, name: str = NAME) -> tuple[str, str]:
    """Files of a certificate of the tests' authority and of its key."""
    return write_files(authority().leaf(name), running.directory, name)


def trusted(running: Running) -> str:
    bundle = running.directory / "authority.pem"
    bundle.write_bytes(authority().pem)
    return str(bundle)


def secure_gateway(running: Running, port: int, **router: object) -> Gateway:
    """A gateway whose listener speaks HTTP/2 over TLS."""
    chain, key = certificate(running)
    server = {"tls": {"certPath": chain, "keyPath": key}}
    everything = {"identifier": {"kind": "io.l5d.static", "path": "/web"}, **router}
    return h2_gateway(running, {"web": port}, router=everything, server=server)


def test_curl_and_h2load_over_tls(running: Running) -> None:
    gw = secure_gateway(running, Nghttpd(running).port)
    resolve = ("--cacert", trusted(running), "--resolve", f"{NAME}:{gw.port}:{LOOPBACK}")
    got = run_curl("--http2", "-i", *resolve, f"https://{NAME}:{gw.port}/small")
    assert got.stdout.startswith(b"HTTP/2 200 \r\n")
    assert loaded(gw, "-n", "500", "-c", "4", "-m", "50", scheme="https", name=NAME) == {"succeeded": 500, "2xx": 500}
    assert_at_rest(gw)


def test_a_service_over_tls_is_asked_in_http2(running: Running) -> None:
    service = Nghttpd(running, tls=certificate(running))
    client = {"tls": {"commonName": NAME, "trustCertsBundle": trusted(running)}}
    gw = h2_gateway(running, {"web": service.port}, router={"client": client})
    assert loaded(gw, "-n", "500", "-c", "4", "-m", "50") == {"succeeded": 500, "2xx": 500}
    assert gw.metrics()["rt/h2/client/#/io.l5d.fs/web/connects"] <= 2
    assert_at_rest(gw)


# --- nginx


def nginx(running: Running, name: str, server: str) -> int:
    """nginx with one server of HTTP/2 in cleartext; its port."""
    port = free_port()
    root = running.directory
    paths = " ".join(f"{kind}_temp_path {root}/{name}-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    text = f"events {{}} http {{ access_log off; client_max_body_size 0; {paths} server {{ listen {LOOPBACK}:{port} http2; {server} }} }}"
    user = "user root;\n" if Path("/proc/self").owner() == "root" else ""
    running.add(servers.nginx(root, user + text, port=port, name=name), is_ready=lambda: accepts(port))
    return port


def test_nginx_behind(running: Running) -> None:
    Nghttpd(running)  # for its files
    port = nginx(running, "behind", f"root {running.directory}/files; location /told {{ return 200 '$server_protocol $http_via $host'; }}")
    gw = h2_gateway(running, {"web": port})
    url = f"http://{LOOPBACK}:{gw.port}"
    assert run_curl("--http2-prior-knowledge", "-H", "Host: web", f"{url}/told").stdout == b"HTTP/2.0 h2 linkerd web"
    assert len(run_curl("--http2-prior-knowledge", "-H", "Host: web", f"{url}/big").stdout) == BIG
    assert loaded(gw, "-n", "2000", "-c", "10", "-m", "50") == {"succeeded": 2000, "2xx": 2000}, "nginx goes away every 1,000 requests"
    assert_at_rest(gw)


def test_nginx_in_front_and_grpc_through_both(running: Running) -> None:
    router = {"identifier": {"kind": "io.l5d.header.path", "segments": 1}}
    with GrpcService() as service:
        gw = h2_gateway(running, {SERVICE: service.port}, router=router)
        port = nginx(running, "front", f"location / {{ grpc_pass grpc://{LOOPBACK}:{gw.port}; }}")
        with caller(port) as calls:
            assert len(calls.unary()(wish(100_000, size=100_000), timeout=SECONDS)) == 100_000
            assert [len(message) for message in calls.output()(wish(sizes=[5, 100_000]), timeout=SECONDS)] == [5, 100_000]
            assert calls.input()(iter([wish(5), wish(6)]), timeout=SECONDS) == b"2 11"
        assert_at_rest(gw)


# --- HAProxy and nghttpx

HAPROXY = "global\ndefaults\n mode http\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n"


def haproxy(running: Running, name: str, to: int) -> int:
    """HAProxy that speaks HTTP/2 in cleartext on both sides; its port."""
    port = free_port()
    text = f"{HAPROXY}listen all\n bind {LOOPBACK}:{port} proto h2\n server next {LOOPBACK}:{to} proto h2\n"
    running.add(servers.haproxy(running.directory, text, port=port, name=name))
    return port


def nghttpx(running: Running, to: int) -> int:
    """nghttpx that speaks HTTP/2 in cleartext on both sides; its port."""
    port = free_port()
    argv = [servers.tool("nghttpx"), f"--frontend={LOOPBACK},{port};no-tls", f"--backend={LOOPBACK},{to};;proto=h2", "--workers=1"]
    running.add(Process("nghttpx", [*argv, "--no-ocsp", "--conf=/dev/null"], running.directory, port=port))
    return port


@pytest.mark.parametrize("proxy", ["haproxy", "nghttpx"])
def test_another_proxy_in_front_and_behind(running: Running, proxy: str) -> None:
    service = Nghttpd(running)
    behind = haproxy(running, "behind", service.port) if proxy == "haproxy" else service.port
    gw = h2_gateway(running, {"web": behind})
    front = haproxy(running, "front", gw.port) if proxy == "haproxy" else nghttpx(running, gw.port)
    url = f"http://{LOOPBACK}:{front}"
    got = run_curl("--http2-prior-knowledge", "-i", "-H", "Host: web", f"{url}/small")
    assert got.stdout.startswith(b"HTTP/2 200 ")
    assert len(run_curl("--http2-prior-knowledge", "-H", "Host: web", f"{url}/big").stdout) == BIG
    upload = running.directory / "upload"
    upload.write_bytes(bytes(range(256)) * 4000)
    assert run_curl("--http2-prior-knowledge", "-H", "Host: web", "-T", str(upload), f"{url}/echo").stdout == upload.read_bytes()
    text = run("h2load", "-H", ":authority: web", "-n", "1000", "-c", "5", "-m", "20", f"{url}/small")
    assert "1000 succeeded" in text
    assert "1000 2xx" in text
    assert_at_rest(gw)


def test_grpc_through_haproxy_on_both_sides(running: Running) -> None:
    router = {"identifier": {"kind": "io.l5d.header.path", "segments": 1}}
    with GrpcService() as service:
        gw = h2_gateway(running, {SERVICE: haproxy(running, "behind", service.port)}, router=router)
        with caller(haproxy(running, "front", gw.port)) as calls:
            assert len(calls.unary()(wish(100_000, size=100_000), timeout=SECONDS)) == 100_000
            asked = iter([wish(sizes=[5]), wish(sizes=[100_000])])
            assert [len(message) for message in calls.duplex()(asked, timeout=SECONDS)] == [5, 100_000]
        assert_at_rest(gw)


def test_what_speaks_neither_is_cut_off(running: Running) -> None:
    gw = h2_gateway(running, {})
    answer = talk(gw.port, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100))
    assert answer[3:4] == b"\x07" or answer == b"", "at most a GOAWAY"
    assert gw.server_metric("h2/connection_errors/PROTOCOL_ERROR", "h2") == 1
