"""A running gateway for integration tests, and the few ways to talk to it: raw bytes, curl, its admin server.

The configuration is plain data, written as JSON; names are files of an ``io.l5d.fs`` directory, so that a test can change them
while it runs.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs

from support import servers
from support.processes import LOOPBACK, Process, Running, accepts, free_port, wait_until

Json = dict[str, Any]
SECONDS = 20.0
"""The longest a test waits for one thing."""
MANY = 40
"""Requests that tell which instances are used: balancers choose at random, and a dozen that miss one of two come by every day."""


@attrs.frozen
class Answer:
    """A response as a caller got it; header names are lower-case, the last line of a name wins."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@attrs.define
class Gateway:
    """A gateway's process, ports and directory of names."""

    process: Process
    port: int
    admin_port: int
    root: Path

    def serve(self, name: str, *ports: int, host: str = LOOPBACK) -> None:
        """Make ``name`` lead to these ports, replacing its file at once."""
        write_name(self.root, name, *ports, host=host)

    def admin(
        self,
        path: str,
        body: bytes | None = None,
        content_type: str = "",
        method: str | None = None,
        seconds: float = SECONDS,
        **headers: str,
    ) -> Answer:
        """Ask the admin server, with further ``headers`` (an underscore stands for a hyphen); an error status is an answer too."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://{LOOPBACK}:{self.admin_port}{path}", data=body, headers=fields, method=method)
        if content_type:
            request.add_header("Content-Type", content_type)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=seconds) as answer:
                return Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, {name.lower(): value for name, value in error.headers.items()}, error.read())

    def metrics(self) -> Json:
        """``/admin/metrics.json``."""
        found: Json = json.loads(self.admin("/admin/metrics.json").body)
        return found

    def server_metric(self, name: str, label: str = "http") -> float:
        """A metric of the first listener's scope; 0 while it does not exist."""
        return float(self.metrics().get(f"rt/{label}/server/{LOOPBACK}/{self.port}/{name}", 0))

    def resident(self) -> int:
        """The process's resident memory now, in bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def get(self, host: str, target: str = "/", *lines: str) -> Answer:
        """A GET on a connection of its own, with further header ``lines``."""
        head = "\r\n".join((f"GET {target} HTTP/1.1", f"Host: {host}", *lines, "Connection: close", "", ""))
        return parse_answer(talk(self.port, head.encode("latin-1")))


def write_name(root: Path, name: str, *ports: int, host: str = LOOPBACK) -> None:
    """Write the file of a name by renaming a complete one into place."""
    fresh = root / f".{name}.new"
    fresh.write_text("".join(f"{host} {port}\n" for port in ports))
    fresh.rename(root / name)


def config(
    root: Path, port: int, admin_port: int, *, router: Json | None = None, server: Json | None = None, top: Json | None = None
) -> Json:
    """One HTTP router over the names in ``root``; the mappings are laid over the router's, its server's and the file's own keys."""
    one: Json = {"protocol": "http", "dtab": "/svc => /#/io.l5d.fs", "servers": [{"port": port, **(server or {})}], **(router or {})}
    return {
        "admin": {"port": admin_port, "shutdownGraceMs": 10_000},
        "namers": [{"kind": "io.l5d.fs", "rootDir": str(root)}],
        "telemetry": [{"kind": "io.l5d.prometheus"}],
        "routers": [one],
        **(top or {}),
    }


def gateway(
    running: Running,
    names: Mapping[str, Sequence[int] | int] | None = None,
    *,
    router: Json | None = None,
    server: Json | None = None,
    admin: Json | None = None,
    top: Json | None = None,
    port: int | None = None,
    name: str = "meshgw",
    twistd: Sequence[str] = (),
    options: Sequence[str] = (),
    afresh: bool = False,
) -> Gateway:
    """Start a gateway whose ``names`` lead to ports and wait until it serves on ``port``, by default a free one.

    ``twistd`` are options put before ``meshgw``, ``options`` those behind. ``afresh``: see :class:`support.processes.Process`.
    """
    directory = running.directory
    root = directory / f"{name}-names"
    root.mkdir(exist_ok=True)
    for service, ports in (names or {}).items():
        write_name(root, service, *((ports,) if isinstance(ports, int) else ports))
    address = (server or {}).get("ip", LOOPBACK)
    port, admin_port = port or free_port(address), free_port()
    settings = config(root, port, admin_port, router=router, server=server, top=top)
    settings["admin"].update(admin or {})
    text = json.dumps(settings)
    process = servers.meshgw(directory, text, port=port, name=name)
    at = process.argv.index("meshgw")
    process.argv += options
    process.afresh = afresh
    process.argv[at:at] = list(twistd)
    running.add(process, is_ready=lambda: accepts(port, address) and accepts(admin_port))
    return Gateway(process, port, admin_port, root)


def talk(port: int, data: bytes, *, host: str = LOOPBACK, seconds: float = SECONDS) -> bytes:
    """Send ``data`` and give all that comes back until the other side closes."""
    with closing(socket.create_connection((host, port), timeout=seconds)) as sock:
        sock.sendall(data)
        return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the peer closes; a reset ends it as well. Raises TimeoutError when it does neither."""
    pieces = []
    while True:
        try:
            piece = sock.recv(65536)
        except ConnectionResetError:
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces)


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    """Everything up to and with ``mark``, and what came along behind it. Raises EOFError when the peer closes before."""
    data = b""
    while mark not in data:
        piece = sock.recv(65536)
        if not piece:
            raise EOFError(f"closed after {data!r}")
        data += piece
    return data


def parse_answer(data: bytes) -> Answer:
    """The last answer in ``data``: interim ones and those to earlier requests of a redirect come before it."""
    head, _, body = data.partition(b"\r\n\r\n")
    while re.match(rb"HTTP/1\.[01] \d{3} ", body):
        head, _, body = body.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(first.split(" ")[1]), headers, body)


def curl(*words: str, env: Mapping[str, str] | None = None, stdin: Any = subprocess.DEVNULL, seconds: float = 30.0) -> Answer:
    """curl as its users run it; its exit status must be 0. The answer is decoded from any transfer coding."""
    done = run_curl("--include", *words, env=env, stdin=stdin, seconds=seconds)
    assert done.returncode == 0, f"curl {' '.join(words)}: {done.stderr.decode()}"
    return parse_answer(done.stdout)


def run_curl(
    *words: str, env: Mapping[str, str] | None = None, stdin: Any = subprocess.DEVNULL, seconds: float = 30.0
) -> subprocess.CompletedProcess[bytes]:
    """curl with any exit status; proxies of the surroundings do not count."""
    inherited = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    argv = ["curl", "--silent", "--show-error", "--max-time", str(seconds), *words]
    return subprocess.run(argv, env={**inherited, **(env or {})}, stdin=stdin, capture_output=True, timeout=seconds + 10, check=False)


def file_server(running: Running, root: Path, *, bind: str = LOOPBACK, protocol: str = "HTTP/1.1") -> int:
    """Python's own ``http.server`` over a directory; its port."""
    port = free_port(bind)
    argv = [sys.executable, "-m", "http.server", "--bind", bind, "--directory", str(root), "--protocol", protocol, str(port)]
    running.add(Process(f"files-{port}", argv, running.directory, port=port), is_ready=lambda: accepts(port, bind))
    return port


SEEN = {
    "method": "request_method",
    "uri": "request_uri",
    "protocol": "server_protocol",
    "host": "http_host",
    "via": "http_via",
    "service": "http_l5d_dst_service",
    "client": "http_l5d_dst_client",
    "residual": "http_l5d_dst_residual",
    "reqid": "http_l5d_reqid",
    "trace": "http_l5d_ctx_trace",
    "ctx_dtab": "http_l5d_ctx_dtab",
    "deadline": "http_l5d_ctx_deadline",
    "dtab": "http_l5d_dtab",
    "sample": "http_l5d_sample",
    "custom": "http_l5d_custom",
    "connection": "http_connection",
    "keep_alive": "http_keep_alive",
    "te": "http_te",
    "trailer": "http_trailer",
    "upgrade": "http_upgrade",
    "proxy_authorization": "http_proxy_authorization",
    "private": "http_x_private",
    "kept": "http_x_kept",
    "forwarded": "http_forwarded",
    "stamp": "http_x_arrived",
    "coding": "http_transfer_encoding",
    "content_length": "http_content_length",
    "length": "request_length",
    "status": "status",
    "sent": "bytes_sent",
}
"""What nginx writes down of each request: our word → its variable."""


class Nginx:
    """nginx with the given ``locations``, writing one JSON object per request into its access log."""

    def __init__(self, running: Running, locations: str, *, name: str = "nginx", listen: str = LOOPBACK, events: str = "") -> None:
        self.port = free_port(listen)
        self.log = running.directory / f"{name}-access.log"
        fields = ",".join(f'"{word}":"${variable}"' for word, variable in SEEN.items())
        address = f"[{listen}]" if ":" in listen else listen
        text = (
            f"{'user root;' if os.getuid() == 0 else ''}\nevents {{ {events} }}\n"  # workers must be able to enter the test's directory
            f"http {{ log_format seen escape=json '{{{fields}}}'; access_log {self.log} seen; "
            f"client_max_body_size 0; client_body_temp_path {running.directory}/{name}-body; keepalive_requests 1000000; "
            f"server {{ listen {address}:{self.port}; {locations} }} }}"
        )
        process = servers.nginx(running.directory, text, port=self.port, name=name)
        self.process = running.add(process, is_ready=lambda: accepts(self.port, listen))

    def seen(self) -> list[dict[str, str]]:
        """The requests logged so far."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines]

    def wait_seen(self, count: int) -> list[dict[str, str]]:
        """The requests logged, once there are ``count``; nginx writes the line a little after its peer has the answer."""
        assert wait_until(lambda: len(self.seen()) >= count, SECONDS), f"nginx saw {len(self.seen())} of {count} requests"
        return self.seen()
