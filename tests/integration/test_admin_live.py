"""The admin server of a running gateway: every endpoint answers with its type, and what is changed there takes effect."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest

from support.gateways import LOOPBACK, SECONDS, Nginx, gateway
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration

HELLO = 'location / { return 200 "hello"; }'
JSON, TEXT, HTML = "application/json;charset=UTF-8", "text/plain;charset=UTF-8", "text/html;charset=UTF-8"
TYPES = {
    "/": HTML,
    "/admin": TEXT,
    "/admin/index.txt": TEXT,
    "/admin/ping": TEXT,
    "/admin/server_info": JSON,
    "/admin/metrics.json": JSON,
    "/admin/metrics.json?pretty=true": JSON,
    "/admin/metrics.json?tree=true": JSON,
    "/config.json": JSON,
    "/bound-names.json": JSON,
    "/client_state.json": JSON,
    "/delegator.json?path=/svc/web": JSON,
    "/logging.json": JSON,
}


def test_every_endpoint_answers_with_its_type(running: Running) -> None:
    gw = gateway(running, {"web": Nginx(running, HELLO).port})
    gw.get("web")
    got = {path: gw.admin(path) for path in TYPES}
    assert {path: (answer.status, answer.headers["content-type"]) for path, answer in got.items()} == {
        path: (200, kind) for path, kind in TYPES.items()
    }
    for path, kind in TYPES.items():
        if kind == JSON:
            json.loads(got[path].body)
        head = gw.admin(path, method="HEAD")
        assert (head.status, head.headers["content-type"], head.body) == (200, kind, b""), path
    listed = got["/admin/index.txt"].text.split()
    assert {path.partition("?")[0] for path in TYPES} | {"/admin/shutdown", "/admin/metrics/prometheus"} <= set(listed)
    assert all(gw.admin(path).status in (200, 400, 405) for path in listed), "what is listed exists"
    assert gw.admin("/none").status == 404
    assert got["/admin/ping"].text == "pong"


def test_metrics_are_given_flat_as_a_tree_and_in_part(running: Running) -> None:
    gw = gateway(running, {"web": Nginx(running, HELLO).port})
    for _ in range(3):
        gw.get("web")
    assert gw.metrics()["rt/http/service/svc/web/success"] == 3
    tree = json.loads(gw.admin("/admin/metrics.json?tree=true").body)
    assert tree["rt"]["http"]["service"]["svc/web"]["success"] == {"counter": 3}
    part = json.loads(gw.admin("/admin/metrics.json?q=rt/http/service").body)
    assert part["svc/web/requests"] == 3
    missing = gw.admin("/admin/metrics.json?q=rt/none")
    assert (missing.status, json.loads(missing.body)) == (404, {"error": "No such subtree: rt/none"})


def test_prometheus_text_follows_its_grammar(running: Running) -> None:
    gw = gateway(running, {"web": Nginx(running, HELLO).port})
    gw.get("web")
    for path in ("/admin/metrics/prometheus", "/metrics"):
        answer = gw.admin(path)
        assert answer.headers["content-type"].startswith("text/plain")
        label = r'[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*"'
        line = re.compile(rf"(?:# .*|[a-zA-Z_:][\w:]*(?:\{{{label}(?:, ?{label})*\}})? (?:[-+]?[\d.]+(?:e[-+]?\d+)?|NaN|[-+]Inf))")
        wrong = [text for text in answer.text.splitlines() if not line.fullmatch(text)]
        assert wrong == []
        assert re.search(r'^rt:service:requests\{[^}]*service="svc/web"[^}]*\} 1$', answer.text, re.M), answer.text[:2000]


def test_names_and_clients_are_shown_with_their_addresses(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port, "idle": ()})
    assert json.loads(gw.admin("/bound-names.json").body) == ["/#/io.l5d.fs/idle", "/#/io.l5d.fs/web"]
    assert json.loads(gw.admin("/client_state.json").body) == {}
    gw.get("web")
    state = json.loads(gw.admin("/client_state.json").body)
    assert list(state) == ["/#/io.l5d.fs/web"]
    assert (state["/#/io.l5d.fs/web"]["state"], state["/#/io.l5d.fs/web"]["addresses"]) == ("bound", [f"{LOOPBACK}:{nginx.port}"])
    (gw.root / "web").unlink()
    assert wait_until(lambda: gw.admin("/bound-names.json").text == '["/#/io.l5d.fs/idle"]', SECONDS)


def test_a_delegation_is_explained_for_get_and_post(running: Running) -> None:
    gw = gateway(running, {"web": 8080}, router={"dtab": "/svc => /none | /#/io.l5d.fs"})
    dtab = "/svc => /none | /#/io.l5d.fs"
    asked = gw.admin(f"/delegator.json?namespace=http&path=/svc/web/x&dtab={quote(dtab)}")
    posted = gw.admin("/delegator.json", json.dumps({"namespace": "http", "dtab": dtab, "path": "/svc/web/x"}).encode(), "application/json")
    tree = json.loads(asked.body)
    assert json.loads(posted.body) == tree
    assert (tree["type"], tree["path"]) == ("alt", "/svc/web/x")
    leaf = tree["alt"][1]
    assert leaf["bound"]["id"] == "/#/io.l5d.fs/web"
    assert leaf["bound"]["addr"]["addrs"] == [{"ip": LOOPBACK, "port": 8080, "meta": {}}]
    assert gw.admin("/delegator.json?path=/svc/web&dtab=((").text.startswith("Invalid dtab: ")
    assert gw.admin("/delegator.json?path=svc").text.startswith("Invalid path: ")
    assert gw.admin("/delegator.json", b"{}", "application/json").text.startswith("Malformed delegation request: ")
    assert gw.admin("/delegator.json", b"a=b", "text/plain").status == 415
    assert gw.admin("/delegator.json", b"", method="DELETE").status == 405


def test_a_log_level_is_changed_while_running(running: Running) -> None:
    nginx = Nginx(running, HELLO)
    gw = gateway(running, {"web": nginx.port})
    gw.get("web")
    logger = "meshgw.namers.files"
    (gw.root / "web").write_text("first bad\n")
    assert wait_until(lambda: "'first bad'" in gw.process.output(), SECONDS)
    form = "application/x-www-form-urlencoded"
    levels = json.loads(gw.admin("/logging.json", f"logger={logger}&level=error".encode(), form).body)
    assert {"logger": logger, "level": "ERROR"} in levels
    assert {"logger": "root", "level": "INFO"} in levels
    (gw.root / "web").write_text("second bad\n")
    state = gw.admin
    assert wait_until(lambda: "second bad" in state("/client_state.json").text, SECONDS), "the file was read"
    assert gw.admin(f"/logging.json?logger={logger}&level=INFO", b"").status == 200
    (gw.root / "web").write_text("third bad\n")
    assert wait_until(lambda: "'third bad'" in gw.process.output(), SECONDS)
    assert "'second bad'" not in gw.process.output()
    assert gw.admin("/logging.json", b"logger=root", form).status == 400
    assert gw.admin("/logging.json", b"logger=none&level=nonsense", form).status == 200


def test_the_configuration_is_shown_as_it_was_read(running: Running) -> None:
    gw = gateway(running, {"web": 8080}, router={"label": "edge"})
    shown = json.loads(gw.admin("/config.json").body)
    assert shown["admin"]["port"] == gw.admin_port
    assert shown["routers"][0]["label"] == "edge"
    assert shown["routers"][0]["servers"][0]["port"] == gw.port
    assert shown["namers"] == [{"kind": "io.l5d.fs", "rootDir": str(gw.root)}]


def test_closed_categories_and_foreign_pages_are_refused(running: Running) -> None:
    security = {"controlEnabled": False, "diagnosticsEnabled": False, "pathWhitelist": ["/admin/ping"], "pathBlacklist": ["/config.*"]}
    gw = gateway(running, admin={"security": security})
    paths = ("/", "/admin/metrics.json", "/admin/ping", "/config.json", "/logging.json", "/admin/server_info")
    assert [gw.admin(path).status for path in paths] == [200, 200, 200, 404, 404, 404]
    assert gw.admin("/admin/shutdown", b"").status == 404
    assert gw.process.is_running
