"""curl in front of the gateway, nginx, HAProxy and Python's http.server behind it: what each of them sees of the other."""

from __future__ import annotations

import base64
import re
import struct
import subprocess
import time
from pathlib import Path
from urllib.parse import unquote_plus

import pytest

from support import servers
from support.gateways import LOOPBACK, SECONDS, Nginx, curl, file_server, gateway, run_curl, talk
from support.processes import Running, free_port, wait_until

pytestmark = pytest.mark.integration

HELLO = 'location / { return 200 "hello"; }'


def pages(running: Running) -> Path:
    """A directory of files to be served."""
    root = running.directory / "pages"
    (root / "folder").mkdir(parents=True)
    (root / "page.txt").write_text("a page\n")
    return root


def test_curl_gets_pages_of_nginx_and_of_python(running: Running) -> None:
    root = pages(running)
    nginx = Nginx(running, f"root {root};")
    gw = gateway(
        running, {"nginx": nginx.port, "python": file_server(running, root), "old": file_server(running, root, protocol="HTTP/1.0")}
    )
    for name in ("nginx", "python", "old"):
        url = f"http://{LOOPBACK}:{gw.port}/page.txt"
        got = curl(url, "-H", f"Host: {name}")
        assert (got.status, got.text) == (200, "a page\n"), name
        assert got.headers["via"] == "1.1 linkerd", name
        head = curl("--head", url, "-H", f"Host: {name}")
        assert (head.status, head.headers["content-length"], head.body) == (200, "7", b""), name
        assert curl(f"http://{LOOPBACK}:{gw.port}/none", "-H", f"Host: {name}").status == 404, name
    seen = nginx.wait_seen(3)
    assert [(line["method"], line["uri"], line["protocol"]) for line in seen] == [
        ("GET", "/page.txt", "HTTP/1.1"),
        ("HEAD", "/page.txt", "HTTP/1.1"),
        ("GET", "/none", "HTTP/1.1"),
    ]


def test_redirects_and_conditional_requests_pass(running: Running) -> None:
    root = pages(running)
    nginx = Nginx(running, f"root {root}; absolute_redirect off; location = /moved {{ return 302 /page.txt; }}")
    gw = gateway(running, {"web": nginx.port})
    base = f"http://{LOOPBACK}:{gw.port}"
    followed = curl("--location", f"{base}/moved", "-H", "Host: web")
    assert (followed.status, followed.text) == (200, "a page\n")
    unchanged = curl(f"{base}/page.txt", "-H", "Host: web", "-H", f"If-None-Match: {followed.headers['etag']}")
    assert (unchanged.status, unchanged.body) == (304, b"")
    part = curl(f"{base}/page.txt", "-H", "Host: web", "-H", "Range: bytes=2-5")
    assert (part.status, part.text) == (206, "page")
    assert [line["status"] for line in nginx.wait_seen(4)] == ["302", "200", "304", "206"]


def test_uploads_arrive_whole_in_every_framing(running: Running) -> None:
    root = running.directory / "uploads"
    root.mkdir()
    nginx = Nginx(running, f"root {root}; dav_methods PUT; create_full_put_path on; client_body_in_file_only clean;")
    gw = gateway(running, {"web": nginx.port})
    body = running.directory / "body"
    body.write_bytes(bytes(range(256)) * 20_000)
    base, host = f"http://{LOOPBACK}:{gw.port}", ("-H", "Host: web")
    assert curl("-T", str(body), f"{base}/length", *host).status == 201
    with body.open("rb") as source:
        assert curl("-T", "-", "-H", "Transfer-Encoding: chunked", f"{base}/chunked", *host, stdin=source).status == 201
    assert (
        curl("-T", str(body), "-H", "Expect: 100-continue", "--expect100-timeout", "20", f"{base}/expected", *host, seconds=60).status
        == 201
    )
    assert curl("--http1.0", "-T", str(body), f"{base}/old", *host).status == 201
    for name in ("length", "chunked", "expected", "old"):
        assert (root / name).read_bytes() == body.read_bytes(), name
    seen = {line["uri"]: line for line in nginx.wait_seen(4)}
    assert (seen["/length"]["content_length"], seen["/length"]["coding"]) == (str(body.stat().st_size), "")
    assert (seen["/chunked"]["content_length"], seen["/chunked"]["coding"]) == ("", "chunked")
    assert seen["/old"]["protocol"] == "HTTP/1.0"


def test_a_form_is_posted_with_its_length(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port})
    url = f"http://{LOOPBACK}:{gw.port}/form"
    assert curl("--data", "a=1&b=2", url, "-H", "Host: web").text == "hello"
    assert curl("--data", "", url, "-H", "Host: web").text == "hello"
    assert [(line["method"], line["content_length"]) for line in nginx.wait_seen(2)] == [("POST", "7"), ("POST", "0")]


def test_an_http10_caller_is_passed_on_as_http10(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port})
    assert curl("--http1.0", f"http://{LOOPBACK}:{gw.port}/", "-H", "Host: web").text == "hello"
    raw = talk(gw.port, b"GET / HTTP/1.0\r\nHost: web\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in raw
    seen = nginx.wait_seen(2)
    assert {(line["protocol"], line["via"]) for line in seen} == {("HTTP/1.0", "1.0 linkerd")}


def test_the_gateway_serves_as_a_plain_http_proxy(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port})
    got = curl("http://web/a/b?c=d", env={"http_proxy": f"http://{LOOPBACK}:{gw.port}"})
    assert got.text == "hello"
    line = nginx.wait_seen(1)[0]
    assert (line["uri"], line["host"], line["service"]) == ("/a/b?c=d", "web", "/svc/web")


def test_nginx_sees_where_the_request_was_routed_and_its_context(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port}, router={"dtab": "/svc => /#/io.l5d.fs ; /svc/alias => /#/io.l5d.fs/web/extra/parts"})
    trace = base64.b64encode(struct.pack(">QQQQ", 1, 2, 0xABCDEF, 6)).decode()
    url = f"http://{LOOPBACK}:{gw.port}/"
    curl(
        url,
        "-H",
        "Host: web",
        "-H",
        f"l5d-ctx-trace: {trace}",
        "-H",
        "l5d-sample: 1.0",
        "-H",
        "Via: 1.1 edge",
        "-H",
        "l5d-dst-service: /forged",
    )
    now = time.time_ns()
    aliased = curl(url, "-H", "Host: alias", "-H", f"l5d-ctx-deadline: {now} {now + 60 * 10**9}", "-H", "l5d-custom: kept")
    assert aliased.text == "hello"
    first, second = nginx.wait_seen(2)
    assert (first["service"], first["client"], first["residual"]) == ("/svc/web", "/#/io.l5d.fs/web", "")
    assert first["via"] == "1.1 edge, 1.1 linkerd"
    assert (first["reqid"], first["sample"]) == ("0000000000abcdef", "")
    span, parent, root, flags = struct.unpack(">QQQQ", base64.b64decode(first["trace"]))
    assert (root, flags) == (0xABCDEF, 6)
    assert len({span, parent, 1}) == 3, "one span for the server side and another for the client side"
    assert (second["service"], second["client"], second["residual"]) == ("/svc/alias", "/#/io.l5d.fs/web", "/extra/parts")
    assert (second["deadline"].split()[1], second["custom"]) == (str(now + 60 * 10**9), "kept")
    assert re.fullmatch("[0-9a-f]{16}", second["reqid"])
    assert second["reqid"] != first["reqid"]


def test_hop_by_hop_headers_end_at_the_gateway(running: Running) -> None:
    nginx = Nginx(running, 'location / { add_header Proxy-Authenticate Basic; add_header X-Kept yes; return 200 "hello"; }')
    gw = gateway(running, {"web": nginx.port})
    got = gw.get(
        "web", "/", "Keep-Alive: timeout=5", "TE: trailers", "Trailer: X-Sum", "Upgrade: h2c", "Proxy-Authorization: Basic eDp5",
        "X-Private: secret", "X-Kept: yes", "Connection: x-private, te",
    )  # fmt: skip
    line = nginx.wait_seen(1)[0]
    hidden = ("connection", "keep_alive", "te", "trailer", "upgrade", "proxy_authorization", "private")
    assert {word: line[word] for word in hidden} == dict.fromkeys(hidden, "")
    assert line["kept"] == "yes"
    assert "proxy-authenticate" not in got.headers
    assert got.headers["x-kept"] == "yes"


def test_a_local_dtab_steers_one_request_and_travels_on(running: Running) -> None:
    nginx = Nginx(running, f"{HELLO}")
    other = Nginx(running, 'location / { return 200 "other"; }', name="other")
    gw = gateway(running, {"web": nginx.port, "canary": other.port})
    url = f"http://{LOOPBACK}:{gw.port}/"
    override = "/svc/web => /#/io.l5d.fs/canary"
    assert curl(url, "-H", "Host: web", "-H", f"l5d-dtab: {override}").text == "other"
    assert curl(url, "-H", "Host: web").text == "hello"
    assert curl(url, "-H", "Host: web", "-H", "l5d-ctx-dtab: /svc/web=>/none", "-H", f"l5d-dtab: {override}").text == "other"
    first, second = other.wait_seen(2)
    assert (first["service"], first["client"], first["dtab"]) == ("/svc/web", "/#/io.l5d.fs/canary", "")
    assert re.sub(r"\s", "", first["ctx_dtab"]) == "/svc/web=>/#/io.l5d.fs/canary"
    assert re.sub(r"\s", "", second["ctx_dtab"]) == "/svc/web=>/none;/svc/web=>/#/io.l5d.fs/canary"


def test_a_malformed_local_dtab_is_answered_400_with_the_parsers_words(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port})
    for header in ("l5d-dtab", "l5d-ctx-dtab"):
        got = curl(f"http://{LOOPBACK}:{gw.port}/", "-H", "Host: web", "-H", f"{header}: /svc => ((")
        assert got.status == 400
        assert got.text.startswith(f"{header}: ")
        assert "expected" in got.text
        assert unquote_plus(got.headers["l5d-err"]) == got.text
    assert nginx.seen() == []


def test_errors_made_here_tell_what_failed(running: Running) -> None:
    closed = free_port()
    gw = gateway(running, {"refused": closed, "empty": ()})
    url = f"http://{LOOPBACK}:{gw.port}/"
    unknown, refused, empty = (curl(url, "-H", f"Host: {name}") for name in ("unknown", "refused", "empty"))
    for got in (unknown, refused, empty):
        assert got.status == 502
        assert got.headers["content-type"] == "text/plain"
        assert unquote_plus(got.headers["l5d-err"]) == got.text
        assert "via" not in got.headers
    assert unknown.text.startswith("Unable to route request!\n\nservice name: /svc/unknown\n")
    assert "/svc => /#/io.l5d.fs" in unknown.text
    assert refused.text.startswith(f"Unable to establish connection to {LOOPBACK}:{closed}.\n")
    assert "client name: /#/io.l5d.fs/refused\n" in refused.text
    assert "Connection refused" in refused.text
    assert "no hosts available" in empty.text
    assert curl("--head", url, "-H", "Host: unknown").headers["content-length"] == str(len(unknown.body))


def test_a_request_without_a_name_is_answered_400_with_the_reason(running: Running) -> None:
    gw = gateway(running, router={"identifier": [{"kind": "io.l5d.header", "header": "x-name"}, {"kind": "io.l5d.path", "segments": 2}]})
    got = gw.get("web", "/one")
    assert got.status == 400
    assert got.text.startswith('Unknown destination: Request("GET /one", from /127.0.0.1:')
    assert "not enough segments in path" in got.text
    assert "x-name header is absent" in got.text


def test_haproxy_in_front_and_behind_sees_via_and_the_route(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    front, back = free_port(), free_port()
    gw = gateway(running, {"web": back})

    def proxy(name: str, port: int, server: int) -> None:
        captures = "".join(f" http-request capture req.hdr({field}) len 80\n" for field in ("via", "l5d-dst-service", "connection"))
        text = (
            "global\n log stdout format raw local0\n"
            "defaults\n mode http\n log global\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n"
            ' log-format "SAW %ST [%[capture.req.hdr(0)]|%[capture.req.hdr(1)]|%[capture.req.hdr(2)]] %[capture.res.hdr(0)]"\n'
            f"listen {name}\n bind {LOOPBACK}:{port}\n{captures}"
            " declare capture response len 80\n http-response capture res.hdr(via) id 0\n"
            f" server one {LOOPBACK}:{server}\n"
        )
        running.add(servers.haproxy(running.directory, text, port=port, name=name))

    proxy("back", back, nginx.port)
    proxy("front", front, gw.port)
    got = curl(f"http://{LOOPBACK}:{front}/", "-H", "Host: web")
    assert got.text == "hello"
    behind = (running.directory / "back.out", "SAW 200 [1.1 linkerd|/svc/web|-] -")
    before = (running.directory / "front.out", "SAW 200 [-|-|-] 1.1 linkerd")
    for file, line in (behind, before):
        assert wait_until(lambda file=file, line=line: line in file.read_text(), SECONDS), file.read_text()  # type: ignore[misc]


def test_many_requests_of_one_caller_share_one_connection_each_way(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port})
    url = f"http://{LOOPBACK}:{gw.port}/[1-20]"
    done = run_curl(url, "-H", "Host: web", "--output", "-", "--write-out", "%{num_connects}\n")
    assert done.stdout.decode().count("hello") == 20
    assert sum(int(number) for number in re.findall(r"hello(\d+)", done.stdout.decode())) == 1
    assert gw.metrics()["rt/http/client/#/io.l5d.fs/web/connects"] == 1


def test_load_without_a_single_error_is_counted_exactly_and_spread_evenly(running: Running) -> None:
    one, two = Nginx(running, f"access_log off; {HELLO}", name="one"), Nginx(running, f"access_log off; {HELLO}", name="two")
    gw = gateway(running, {"web": (one.port, two.port)})
    argv = ["wrk", "-t1", "-c16", "-d2s", "--timeout", "60s", "-H", "Host: web", f"http://{LOOPBACK}:{gw.port}/"]
    output = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True).stdout
    assert "Non-2xx" not in output, output
    assert "Socket errors" not in output, output
    match = re.search(r"(\d+) requests in", output)
    assert match is not None, output
    count = int(match[1])
    assert count > 16
    assert wait_until(lambda: gw.server_metric("connections") == 0, SECONDS)
    metrics = gw.metrics()
    for scope in (f"server/{LOOPBACK}/{gw.port}", "service/svc/web", "client/#/io.l5d.fs/web"):
        assert count <= metrics[f"rt/http/{scope}/requests"] <= count + 16, scope
    assert metrics[f"rt/http/server/{LOOPBACK}/{gw.port}/status/200"] >= count
    assert metrics.get("rt/http/service/svc/web/failures", 0) <= 16, "only those that wrk broke off at its end"


def test_load_is_spread_over_two_backends(running: Running) -> None:
    one, two = Nginx(running, HELLO, name="one"), Nginx(running, HELLO, name="two")
    gw = gateway(running, {"web": (one.port, two.port)})
    argv = ["wrk", "-t1", "-c8", "-d1s", "--timeout", "60s", "-H", "Host: web", f"http://{LOOPBACK}:{gw.port}/"]
    subprocess.run(argv, capture_output=True, timeout=300, check=True)
    total = gw.metrics()["rt/http/client/#/io.l5d.fs/web/requests"]
    assert wait_until(lambda: len(one.log.read_text().splitlines()) + len(two.log.read_text().splitlines()) >= total - 8, SECONDS)
    share = len(one.log.read_text().splitlines()) / total
    assert 0.02 <= share <= 0.98, "however slow one of them is on a busy machine"
