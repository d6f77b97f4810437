"""What a configuration's router and server blocks do to requests, seen by nginx behind: identifiers, prefixes, listeners, headers added."""

from __future__ import annotations

import re
import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from support.gateways import LOOPBACK, SECONDS, Json, Nginx, gateway, parse_answer, talk
from support.processes import Running, free_port, wait_until

pytestmark = pytest.mark.integration

HELLO = 'location / { add_header l5d-inner told; return 200 "hello"; }'
FS = "/#/io.l5d.fs"

IDENTIFIERS: dict[str, tuple[Any, str, str, str, tuple[str, ...], str, str]] = {
    # identifier, dtab, host, target, further lines → service name, target that nginx sees
    "default": (None, f"/svc => {FS}", "web", "/x", (), "/svc/web", "/x"),
    "methodAndHost": (
        {"kind": "io.l5d.methodAndHost"}, f"/svc/1.1/GET => {FS}", "WEB", "/x", (), "/svc/1.1/GET/web", "/x",
    ),
    "methodAndHost with path": (
        {"kind": "io.l5d.methodAndHost", "httpUriInDst": True}, f"/svc/1.1/GET => {FS}", "web", "/a/b", (), "/svc/1.1/GET/web/a/b", "/a/b",
    ),
    "path": ({"kind": "io.l5d.path"}, f"/svc => {FS}", "any", "/web/a?b=c", (), "/svc/web", "/web/a?b=c"),
    "path consumed": (
        {"kind": "io.l5d.path", "segments": 2, "consume": True}, f"/svc/v1 => {FS}", "any", "/v1/web/a/?b=c", (), "/svc/v1/web", "/a/?b=c",
    ),
    "path consumed to nothing": (
        {"kind": "io.l5d.path", "consume": True}, f"/svc => {FS}", "any", "/web", (), "/svc/web", "/",
    ),
    "header": ({"kind": "io.l5d.header"}, f"/svc/deep => {FS}", "any", "/", ("l5d-name: /deep/web",), "/svc/deep/web", "/"),
    "header token": (
        {"kind": "io.l5d.header.token", "header": "X-Service"}, f"/svc => {FS}", "any", "/", ("x-service: web",), "/svc/web", "/",
    ),
    "static": ({"kind": "io.l5d.static", "path": "/fixed/web"}, f"/svc/fixed => {FS}", "any", "/", (), "/svc/fixed/web", "/"),
    "chain": (
        [{"kind": "io.l5d.header"}, {"kind": "io.l5d.path", "segments": 3}, {"kind": "io.l5d.header.token"}],
        f"/svc => {FS}", "web", "/a", (), "/svc/web", "/a",
    ),
    "chain, first known": (
        [{"kind": "io.l5d.header"}, {"kind": "io.l5d.header.token"}],
        f"/svc/named => {FS}", "none", "/a", ("l5d-name: /named/web",), "/svc/named/web", "/a",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", IDENTIFIERS.values(), ids=IDENTIFIERS.keys())
def test_an_identifier_names_the_request(running: Running, case: tuple[Any, str, str, str, tuple[str, ...], str, str]) -> None:
    identifier, dtab, host, target, lines, name, passed = case
    nginx = Nginx(running, HELLO)
    router: Json = {"dtab": dtab}
    if identifier is not None:
        router["identifier"] = identifier
    gw = gateway(running, {"web": nginx.port}, router=router)
    got = gw.get(host, target, *lines)
    assert (got.status, got.body) == (200, b"hello"), got
    seen = nginx.wait_seen(1)[0]
    assert (seen["service"], seen["uri"], seen["host"]) == (name, passed, host)


def test_the_prefix_of_names_can_be_chosen(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port}, router={"dstPrefix": "/my/http", "dtab": f"/my/http => {FS}"})
    assert gw.get("web").body == b"hello"
    assert nginx.wait_seen(1)[0]["service"] == "/my/http/web"
    assert gw.metrics()["rt/http/service/my/http/web/requests"] == 1


def test_routers_of_one_process_have_their_own_names_ports_and_counts(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    inner = free_port()
    first = {"protocol": "http", "label": "in", "dtab": f"/svc => {FS}", "servers": [{"port": inner}]}
    second = {"protocol": "http", "label": "out", "dtab": f"/svc/* => /$/inet/{LOOPBACK}/{inner}", "servers": []}
    outer, third = free_port(), free_port()
    second["servers"] = [{"port": outer}, {"port": third}]
    gw = gateway(running, {"web": nginx.port}, top={"routers": [first, second]}, port=outer)
    for port in (outer, third):
        got = parse_answer(talk(port, b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"))
        assert (got.status, got.headers["via"]) == (200, "1.1 linkerd, 1.1 linkerd")
    assert [line["via"] for line in nginx.wait_seen(2)] == ["1.1 linkerd, 1.1 linkerd"] * 2
    metrics = gw.metrics()
    assert metrics["rt/in/service/svc/web/requests"] == metrics["rt/out/service/svc/web/requests"] == 2
    assert metrics[f"rt/out/server/{LOOPBACK}/{third}/requests"] == 1


def test_a_trace_keeps_its_root_through_two_routers(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    inner, outer = free_port(), free_port()
    first = {"protocol": "http", "label": "in", "dtab": f"/svc => {FS}", "servers": [{"port": inner}]}
    second = {"protocol": "http", "label": "out", "dtab": f"/svc/* => /$/inet/{LOOPBACK}/{inner}", "servers": [{"port": outer}]}
    gw = gateway(running, {"web": nginx.port}, top={"routers": [first, second]}, port=outer)
    gw.get("web", "/", "l5d-ctx-trace: AAAAAAAAAAEAAAAAAAAAAgAAAAAAAAADAAAAAAAAAAA=")
    assert nginx.wait_seen(1)[0]["reqid"] == "0000000000000003"


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here: NOT testing it")
def test_ipv6_works_on_both_sides(running: Running) -> None:
    nginx = Nginx(running, HELLO, listen="::1")
    gw = gateway(running, server={"ip": "::1", "addForwardedHeader": {"by": {"kind": "ip:port"}, "for": {"kind": "ip"}}})
    gw.serve("web", nginx.port, host="::1")
    got = parse_answer(talk(gw.port, b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", host="::1"))
    assert (got.status, got.body) == (200, b"hello")
    line = nginx.wait_seen(1)[0]
    assert line["forwarded"].startswith(f'by="[::1]:{gw.port}";for="[::1]"')
    assert gw.metrics()[f"rt/http/server/::1/{gw.port}/requests"] == 1
    refused = free_port("::1")
    gw.serve("gone", refused, host="::1")

    def answer() -> str:
        return parse_answer(talk(gw.port, b"GET / HTTP/1.1\r\nHost: gone\r\nConnection: close\r\n\r\n", host="::1")).text

    assert wait_until(lambda: f"Unable to establish connection to [::1]:{refused}." in answer(), SECONDS), answer()


def test_a_forwarded_header_names_both_ends(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    labels = {"by": {"kind": "router"}, "for": {"kind": "ip"}}
    gw = gateway(running, {"web": nginx.port}, server={"addForwardedHeader": labels})
    gw.get("web")
    assert nginx.wait_seen(1)[0]["forwarded"] == f"by=_http;for={LOOPBACK};host=web"


def test_a_forwarded_header_is_random_by_default(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port}, server={"addForwardedHeader": {}})
    gw.get("web")
    gw.get("web")
    values = [line["forwarded"] for line in nginx.wait_seen(2)]
    assert all(re.fullmatch(r"by=_\w{6};for=_\w{6};host=web", value) for value in values), values
    assert values[0] != values[1]


def test_a_time_stamp_is_added(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port}, server={"timestampHeader": "x-arrived"})
    before = int(time.time() * 1000)
    gw.get("web")
    assert before <= int(nginx.wait_seen(1)[0]["stamp"]) <= int(time.time() * 1000)


def test_an_untrusted_caller_neither_steers_nor_learns(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port, "secret": nginx.port}, server={"clearContext": True})
    got = gw.get(
        "web", "/", "L5D-Dtab: /svc/web => /svc/secret", "l5d-custom: mine", "l5d-ctx-trace: AAAAAAAAAAEAAAAAAAAAAgAAAAAAAAADAAAAAAAAAAA="
    )
    assert got.body == b"hello"
    assert [name for name in got.headers if name.startswith("l5d-")] == []
    line = nginx.wait_seen(1)[0]
    assert (line["client"], line["ctx_dtab"], line["custom"]) == (f"{FS}/web", "", "")
    assert line["reqid"] not in ("", "0000000000000003")
    hidden = gw.get("unknown")
    assert (hidden.status, hidden.body) == (502, b"")
    assert [name for name in hidden.headers if name.startswith("l5d-")] == []
    assert gw.get("web", "/", "l5d-dtab: ((").status == 200


def test_a_loop_of_proxies_ends_with_400(running: Running) -> None:
    outer = free_port()
    loop = {"dtab": f"/svc/* => /$/inet/{LOOPBACK}/{outer}"}
    gw = gateway(running, router=loop, server={"maxCallDepth": 5}, port=outer)
    got = gw.get("web")
    assert got.status == 400
    assert got.text == "Maximum number of calls (5) has been exceeded. Please check for proxy loops."
    assert gw.server_metric("requests") == 7


def test_limits_of_sizes_are_those_of_the_configuration(running: Running) -> None:
    nginx = Nginx(running, 'location /big { return 200 "$request_uri$request_uri"; } location / { return 200 "hello"; }')
    limits = {"maxInitialLineKB": 1, "maxHeadersKB": 2, "maxRequestKB": 1, "maxResponseKB": 1}
    gw = gateway(running, {"web": nginx.port}, router=limits)
    assert gw.get("web", "/" + "a" * 900).status == 200
    assert gw.get("web", "/" + "a" * 1100).status == 414
    assert gw.get("web", "/", "X: " + "a" * 1500).status == 200
    assert gw.get("web", "/", "X: " + "a" * 2500).status == 431
    assert gw.get("web", "/big" + "a" * 900).status == 502
    post = "POST / HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    assert [parse_answer(talk(gw.port, (post % (size, "a" * size)).encode())).status for size in (1024, 1025)] == [200, 413]


def test_the_access_log_has_a_line_for_every_request(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    log = running.directory / "access.log"
    gw = gateway(running, {"web": nginx.port}, router={"httpAccessLog": str(log)})
    gw.get("web", "/page?x=1", "User-Agent: test", "Referer: http://from/")
    gw.get("nowhere", "/lost")
    assert wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == 2, SECONDS), log.read_text()
    first, second = log.read_text().splitlines()
    assert re.fullmatch(r'web 127\.0\.0\.1 - - \[.+\] "GET /page\?x=1 HTTP/1\.1" 200 5 "http://from/" "test"', first), first
    assert re.fullmatch(r'nowhere 127\.0\.0\.1 - - \[.+\] "GET /lost HTTP/1\.1" 502 \d+ "-" "-"', second), second


def test_a_binding_that_never_ends_is_a_502_after_its_time(running: Running) -> None:
    with ExitStack() as held:
        full = held.enter_context(closing(socket.create_server((LOOPBACK, 0), backlog=0)))
        port = full.getsockname()[1]
        for _ in range(4):  # a full queue: the system answers no further attempt to connect
            one = held.enter_context(closing(socket.socket()))
            one.setblocking(False)
            one.connect_ex((LOOPBACK, port))
        gw = gateway(running, {"web": port}, router={"bindingTimeoutMs": 300, "client": {"connectTimeoutMs": 600_000}})
        got = gw.get("web")  # the time of a connect is far beyond what it waits
    assert got.status == 502
    assert got.text.startswith("Exceeded 0.3.seconds binding timeout while resolving name: /svc/web")
    assert f"a connection to {LOOPBACK}:{port}" in got.text
