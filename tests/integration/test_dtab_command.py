"""``meshgw dtab`` as a program: over a configuration file, and over the admin interface of a process that is played here."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path as File
from urllib.parse import parse_qs, urlsplit

import pytest

pytestmark = pytest.mark.integration

CONFIG = """
namers:
- kind: io.l5d.fs
  rootDir: {root}
routers:
- protocol: http
  label: web
  dtab: /svc => /zz | /#/io.l5d.fs
  servers: [{{port: 0}}]
"""
LEAF = {
    "type": "leaf",
    "path": "/#/io.l5d.fs/web",
    "bound": {
        "addr": {"type": "bound", "addrs": [{"ip": "10.0.0.1", "port": 80, "meta": {}}], "meta": {}},
        "id": "/#/io.l5d.fs/web",
        "path": "/",
    },
}


def meshgw_dtab(*words: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from meshgw.cli.meshgw import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", program, "dtab", *words], capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def config(tmp_path: File) -> str:
    root = tmp_path / "disco"
    root.mkdir()
    (root / "web").write_text("127.0.0.1 8001\n")
    (root / "idle").write_text("")
    file = tmp_path / "linkerd.yaml"
    file.write_text(CONFIG.format(root=root))
    return str(file)


def test_a_bound_name_with_an_address_ends_with_status_0(config: str) -> None:
    done = meshgw_dtab("/svc/web/x", "--config", config)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == [
        ">   2. /#/io.l5d.fs/web/x by /svc => /zz | /#/io.l5d.fs: bound to /#/io.l5d.fs/web, residual /x",
        ">     127.0.0.1:8001",
    ]


@pytest.mark.parametrize("words", [("/svc/none",), ("/svc/idle",), ("/svc/web", "--dtab", "/svc=>!")])
def test_a_name_without_address_ends_with_status_1(config: str, words: tuple[str, ...]) -> None:
    done = meshgw_dtab(*words, "--config", config)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_tree_is_printed_as_json(config: str) -> None:
    done = meshgw_dtab("/#/io.l5d.fs/web", "--config", config, "--json")
    assert json.loads(done.stdout)["bound"]["id"] == "/#/io.l5d.fs/web"


@pytest.mark.parametrize("words", [("--router", "none"), ("--config", "missing.yaml")])
def test_what_cannot_be_asked_ends_with_status_2(config: str, words: tuple[str, ...]) -> None:
    done = meshgw_dtab("/svc/web", "--config", config, *words)
    assert done.returncode == 2
    assert done.stderr.startswith("meshgw dtab: ")
    assert "Traceback" not in done.stderr


class Admin(BaseHTTPRequestHandler):
    """Answers as the admin server does, for one router with a dtab; keeps the queries."""

    queries: list[dict[str, list[str]]]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/config.json":
            body: object = {"routers": [{"protocol": "http", "dtab": "/svc=>/#/io.l5d.fs"}]}
        else:
            self.queries.append(parse_qs(url.query))
            body = LEAF
        if "/svc/late" in str(self.queries):
            self.send_error(503, "Request timed out.")
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def admin() -> Iterator[tuple[str, list[dict[str, list[str]]]]]:
    queries: list[dict[str, list[str]]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Played", (Admin,), {"queries": queries}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", queries
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_running_process_is_asked_with_its_routers_dtab(admin: tuple[str, list[dict[str, list[str]]]]) -> None:
    url, queries = admin
    done = meshgw_dtab("/svc/web", "--admin", url, "--dtab", "/x=>/y")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "> /#/io.l5d.fs/web: bound to /#/io.l5d.fs/web\n>   10.0.0.1:80\n"
    assert queries == [{"path": ["/svc/web"], "dtab": ["/svc=>/#/io.l5d.fs;/x=>/y"], "namespace": ["http"]}]


def test_an_unknown_router_and_an_error_of_the_process_end_with_status_2(admin: tuple[str, list[dict[str, list[str]]]]) -> None:
    url, _ = admin
    unknown, late = meshgw_dtab("/a", "--admin", url, "--router", "x"), meshgw_dtab("/svc/late", "--admin", url)
    assert (unknown.returncode, late.returncode) == (2, 2)
    assert "no router 'x'; it has http" in unknown.stderr
    assert "answered 503" in late.stderr


class Moved(BaseHTTPRequestHandler):
    """Sends everybody on to ``elsewhere``; keeps who was shown which token."""

    elsewhere = ""
    shown: list[str | None]

    def do_GET(self) -> None:
        self.shown.append(self.headers["Authorization"])
        self.send_response(302 if self.elsewhere else 500)
        self.send_header("Location", self.elsewhere)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


def test_the_token_is_shown_to_the_given_address_only(tmp_path: File) -> None:
    (tmp_path / "token").write_text("reader-0123456789abc\n")
    shown: dict[str, list[str | None]] = {"other": [], "given": []}
    servers: list[HTTPServer] = []
    for name in shown:
        elsewhere = f"http://127.0.0.1:{servers[0].server_port}/" if servers else ""
        handler = type("Playing", (Moved,), {"elsewhere": elsewhere, "shown": shown[name]})
        servers.append(HTTPServer(("127.0.0.1", 0), handler))
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    try:
        done = meshgw_dtab("/a", "--admin", f"http://127.0.0.1:{servers[1].server_port}", "--token-file", str(tmp_path / "token"))
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()
    assert done.returncode == 2
    assert shown == {"other": [None], "given": ["Bearer reader-0123456789abc"]}


@pytest.mark.parametrize("content", [None, "", "two words", "caf\xe9"])
def test_an_unusable_token_file_ends_with_status_2_and_is_not_shown(tmp_path: File, content: str | None) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    done = meshgw_dtab("/a", "--admin", "http://127.0.0.1:1", "--token-file", str(tmp_path / "token"))
    assert done.returncode == 2 and str(tmp_path / "token") in done.stderr
    assert not content or content not in done.stderr
