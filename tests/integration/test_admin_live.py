"""The admin server of a running gateway: every endpoint answers with its type, and what is changed there takes effect."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pwd import getpwuid
from urllib.parse import quote

import pytest

from support.gateways import LOOPBACK, SECONDS, Nginx, config, gateway
from support.processes import Running, free_port, wait_until
from support.servers import meshgw

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
    "/services": HTML,
    "/logging": HTML,
    "/delegator": HTML,
    "/help": HTML,
    "/admin/ready": TEXT,
    "/admin/ready.json": JSON,
    "/admin/threads": TEXT,
    "/admin/threads.json": JSON,
    "/admin/contention": TEXT,
    "/admin/lint": TEXT,
    "/admin/lint.json": JSON,
    "/admin/registry.json": JSON,
    "/admin/addresses.json": JSON,
    "/admin/announcer": TEXT,
    "/admin/tracing": TEXT,
    "/admin/metrics/usage": JSON,
    "/admin/pprof/profile?seconds=0.1": "application/octet-stream",
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
    asked = {path: gw.admin(path).status for path in listed if path not in (*TYPES, "/admin/pprof/profile")}
    assert {path for path, status in asked.items() if status not in (200, 400, 405)} == {"/requests.json"}, "which needs a telemeter"
    assert gw.admin("/none").status == 404
    assert got["/admin/ping"].text == "pong"


def test_the_log_says_where_admin_is(running: Running) -> None:
    gw = gateway(running)
    said = f" admin serves on http://{LOOPBACK}:{gw.admin_port}/\n"
    assert wait_until(lambda: said in gw.process.output(), SECONDS)  # the port is bound before


def test_a_namer_describes_what_it_watches(running: Running) -> None:
    port = Nginx(running, HELLO).port
    gw = gateway(running, {"web": port})
    gw.get("web")
    path = "/namer_state/io.l5d.fs.json"
    assert path in gw.admin("/admin").text.split()
    assert json.loads(gw.admin(path).body)["/web"]["state"] == {"running": True, "stale": False, "value": [f"{LOOPBACK}:{port}"]}
    unknown = gw.admin("/namer_state/io.l5d.none.json")
    assert (unknown.status, unknown.text) == (404, f"nothing describes itself at /namer_state/io.l5d.none.json; known: {path}\n")


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


def test_tokens_are_needed_and_may_be_rotated_while_running(running: Running) -> None:
    operator, reader = running.directory / "operator", running.directory / "reader"
    operator.write_text("operator-0123456789\n")
    reader.write_text("reader-0123456789abc\n")
    tokens = {"operatorTokenFile": str(operator), "readerTokenFile": str(reader)}
    gw = gateway(running, {"web": Nginx(running, HELLO).port}, admin={"authentication": tokens})
    as_operator, as_reader = {"Authorization": "Bearer operator-0123456789"}, {"Authorization": "Bearer reader-0123456789abc"}
    assert (gw.admin("/admin/ping").status, gw.admin("/config.json").status, gw.admin("/metrics").status) == (200, 401, 401)
    shown = gw.admin("/config.json", **as_reader)
    assert json.loads(shown.body)["admin"]["authentication"] == tokens and "0123456789" not in shown.text
    level = "/logging.json?logger=root&level=DEBUG"
    assert [gw.admin(level, b"", **who).status for who in ({}, as_reader, as_operator)] == [401, 403, 200]
    reader.write_text("rotated-0123456789abc\n")
    assert gw.admin("/metrics", **as_reader).status == 401
    rotated = {"Authorization": "Bearer rotated-0123456789abc"}
    assert "admin:authentication_failures 1\n" in gw.admin("/metrics", **rotated).text
    program = "import sys; from meshgw.cli.meshgw import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", program, "dtab", "--admin", f"http://{LOOPBACK}:{gw.admin_port}", "/svc/web"]
    assert subprocess.run([*argv, "--token-file", str(reader)], capture_output=True, timeout=300, check=False).returncode == 0
    assert b"answered 401" in subprocess.run(argv, capture_output=True, timeout=300, check=False).stderr
    assert (gw.admin("/admin/shutdown", b"").status, gw.admin("/admin/shutdown", b"", **as_operator).text) == (401, "quitting")
    assert wait_until(lambda: not gw.process.is_running, SECONDS)
    assert "0123456789" not in gw.process.output()


def test_missing_token_file_ends_the_start_with_its_name(running: Running) -> None:
    missing = running.directory / "none"
    settings = config(running.directory, free_port(), free_port(), top={"admin": {"authentication": {"operatorTokenFile": str(missing)}}})
    argv = meshgw(running.directory, json.dumps(settings), port=None).argv
    done = subprocess.run(argv, cwd=running.directory, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode not in (0, None)
    assert f"admin.authentication.operatorTokenFile: {missing}: No such file or directory" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_browsers_are_refused_by_foreign_names_and_programs_are_not(running: Running) -> None:
    gw = gateway(running, admin={"hostNames": ["mesh.corp"]})
    browser = {"User_Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}
    hosts = ("evil.example", "mesh.corp", "localhost", f"{LOOPBACK}:{gw.admin_port}")
    assert [gw.admin("/config.json", Host=host, **browser).status for host in hosts] == [403, 200, 200, 200]
    assert gw.admin("/metrics", Host="meshgw.default.svc", User_Agent="Prometheus/2.53.0").status == 200


def test_an_operator_reloads_the_configuration_and_is_told_what_is_wrong_with_it(running: Running) -> None:
    token = running.directory / "operator"
    token.write_text("operator-0123456789")
    tokens = {"authentication": {"operatorTokenFile": str(token)}}
    me = getpwuid(os.getuid()).pw_name  # a worker of root would be nobody, who may not enter the test's directory
    gw = gateway(running, {"web": Nginx(running, HELLO).port}, admin=tokens, top={"user": me})
    operator, file = {"Authorization": "Bearer operator-0123456789"}, running.directory / "meshgw.yml"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"routers": [settings["routers"][0] | {"dtap": "/svc => /x"}]}))
    refused = gw.admin("/admin/reload", b"", **operator)
    assert refused.status == 422 and "routers[0].dtap: unknown field 'dtap'" in refused.text and refused.text.endswith("\n")
    missing = {"operatorTokenFile": str(running.directory / "none")}
    file.write_text(json.dumps(settings | {"admin": settings["admin"] | {"authentication": missing}}))
    assert "none: No such file or directory" in gw.admin("/admin/reload", b"", **operator).text
    file.write_text(json.dumps(settings | {"routers": [settings["routers"][0] | {"dtab": "/svc => /x;/svc => /#/io.l5d.fs"}]}))
    done = gw.admin("/admin/reload", b"", **operator)
    assert (done.status, done.text) == (200, "reloaded\n")
    assert json.loads(gw.admin("/config.json").body)["routers"][0]["dtab"] == "/svc=>/x;/svc=>/#/io.l5d.fs"
    assert gw.get("web").body == b"hello"
    assert gw.admin("/admin/reload", b"").status == 401
