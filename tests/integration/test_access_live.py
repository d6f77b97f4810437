"""Identity, access control, roles and rules of the edge with real certificates: curl calls, nginx serves behind."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from support.certs import SPIFFE, authority, write_files
from support.gateways import LOOPBACK, SECONDS, Answer, Gateway, Json, Nginx, curl, gateway, run_curl
from support.processes import Running, accepts, free_port, wait_until

pytestmark = pytest.mark.integration

SEEN = 'return 200 "$http_l5d_client_id|$http_x_forwarded_proto|$http_via|$http_l5d_dst_service|$http_x_forwarded_for|$host";'
OWN = f"location / {{ add_header Strict-Transport-Security max-age=1 always; {SEEN} }}"
NAMES = ("web", "shop")


@attrs.frozen
class Files:
    """Paths of an authority, a server's certificate, and those of two callers."""

    ca: str
    server: tuple[str, str]
    web: tuple[str, str]
    admin: tuple[str, str]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    tmp_path.chmod(0o755)
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority().pem)
    return Files(
        ca=str(ca),
        server=write_files(authority().leaf(*NAMES), tmp_path, "server"),
        web=write_files(authority().leaf(uris=(SPIFFE,), client=True), tmp_path, "web"),
        admin=write_files(authority().leaf("admin.example", client=True), tmp_path, "admin"),
    )


def tls(files: Files, **more: object) -> Json:
    return {"certPath": files.server[0], "keyPath": files.server[1], **more}


def call(gw: Gateway, files: Files, target: str = "/", *words: str, name: str = "web", by: tuple[str, str] | None = None) -> Answer:
    """curl over TLS, which verifies the gateway's certificate."""
    own = ("--cert", by[0], "--key", by[1]) if by is not None else ()
    resolve = ("--resolve", f"{name}:{gw.port}:{LOOPBACK}")
    return curl(*resolve, "--cacert", files.ca, *own, "--path-as-is", *words, f"https://{name}:{gw.port}{target}")


def test_callers_are_told_apart_by_their_certificates(tmp_path: Path, files: Files) -> None:
    rules = {
        "rules": [
            {"deny": {"path": "/admin", "identity": "spiffe://*"}},
            {"allow": {"identity": "spiffe://mesh.example/ns/prod/*", "methods": ["GET"]}},
            {"allow": {"identity": "admin.example"}},
        ]
    }
    with Running(tmp_path) as running:
        nginx = Nginx(running, OWN)
        server = {"tls": tls(files, caCertPath=files.ca)}
        router = {"role": "incoming", "accessControl": rules, "label": "users", "identifier": {"kind": "io.l5d.static", "path": "/web"}}
        gw = gateway(running, {"web": nginx.port}, router=router, server=server)
        answer = call(gw, files, "/x", "--header", "l5d-client-id: spiffe://mesh.example/root", by=files.web)
        assert answer.status == 200
        assert answer.text.split("|")[0] == SPIFFE
        assert "l5d-client-id" not in answer.headers
        refused = call(gw, files, "/x/%2e%2e/admin", by=files.web)
        assert refused.status == 403
        assert "rule 1" in refused.text
        assert call(gw, files, "/x", "--request", "DELETE", by=files.web).status == 403
        assert call(gw, files, "/admin", by=files.admin).text.split("|")[0] == "admin.example"
        without = run_curl("--resolve", f"web:{gw.port}:{LOOPBACK}", "--cacert", files.ca, f"https://web:{gw.port}/")
        assert without.returncode != 0
        told = json.loads(gw.admin("/access.json").body)["users"]
        assert [rule["hits"] for rule in told["rules"]] == [1, 1, 1]
        assert (told["allowed"], told["denied"], told["default"]["hits"]) == (2, 2, 1)
        assert gw.metrics()["rt/users/role/incoming"] == 1
        assert gw.process.says("router users (incoming) serves on")
        assert gw.process.says("refused: access denied by rule 1")


def test_an_ingress_keeps_browsers_on_https_and_on_their_host(tmp_path: Path, files: Files) -> None:
    with Running(tmp_path) as running:
        nginx = Nginx(running, OWN)
        server = {"tls": tls(files), "hsts": {"maxAge": 3600, "includeSubDomains": True}}
        gw = gateway(running, dict.fromkeys(NAMES, nginx.port), router={"role": "ingress"}, server=server)
        host = ("--header", "Host: web")
        answer = call(gw, files, "/", *host, "--header", "X-Forwarded-For: 192.0.2.1")
        assert answer.headers["strict-transport-security"] == "max-age=3600; includeSubDomains"
        assert answer.text.split("|")[1] == "https"
        assert answer.text.split("|")[4] == LOOPBACK
        assert call(gw, files, "/", "--header", "Host: shop").status == 200
        misdirected = call(gw, files, "/", "--header", "Host: bank")
        assert misdirected.status == 421
        assert not [name for name in misdirected.headers if name.startswith("l5d-")]
        assert misdirected.headers["strict-transport-security"].startswith("max-age=3600")
        assert gw.admin("/access.json").body == b"{}"


def test_plaintext_callers_are_sent_to_https(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        gw = gateway(running, {}, server={"redirectToHttps": {"port": 8443}, "healthPath": "/healthz"})
        answer = gw.get("web.example:80", "/a?b=c")
        assert (answer.status, answer.headers["location"]) == (308, "https://web.example:8443/a?b=c")
        assert "strict-transport-security" not in answer.headers
        assert gw.get("web.example", "/healthz").status == 200


def test_an_egress_calls_over_tls_and_says_nothing_of_the_inside(tmp_path: Path, files: Files) -> None:
    with Running(tmp_path) as running:
        certificate, key = write_files(authority().leaf("localhost"), tmp_path, "outside")
        port = free_port()
        Nginx(running, f"listen {LOOPBACK}:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key}; {OWN}", name="outside")
        router: Json = {
            "role": "egress",
            "dtab": f"/svc => /$/io.buoyant.rinet/{port}",
            "egress": {"allowNetworks": [LOOPBACK, "::1"]},
            "client": {
                "kind": "io.l5d.static",
                "configs": [
                    {"prefix": f"/$/io.buoyant.rinet/{port}/{{service}}", "tls": {"commonName": "{service}", "trustCertsBundle": files.ca}}
                ],
            },
        }
        gw = gateway(running, {}, router=router)
        answer = gw.get("localhost", "/", "X-Forwarded-For: 10.0.0.1", "Via: 1.1 inner", "l5d-client-id: x")
        assert answer.status == 200, answer.text
        assert answer.text == "||1.1 linkerd|||localhost"
        assert gw.get("127.0.0.1").status in (502, 503)  # the certificate is not for this name


def test_an_egress_does_not_lead_inside(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        nginx = Nginx(running, OWN)
        router = {"role": "egress", "dtab": f"/svc => /$/io.buoyant.rinet/{nginx.port}", "client": {"tls": {"enabled": False}}}
        gw = gateway(running, {}, router=router)
        for host in ("localhost", "127.0.0.1", "127.1"):
            answer = gw.get(host)
            assert answer.status == 403, answer.text
            assert "egress.denyNetworks" in answer.text
        override = gw.get("x", "/", f"l5d-dtab: /svc/x => /$/inet/127.0.0.1/{nginx.port}")
        assert override.status == 403
        assert nginx.seen() == []


def test_rules_are_counted_over_all_workers(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        gw = gateway(running, {}, router={"accessControl": {"rules": []}}, top={"workers": 2})
        assert wait_until(lambda: accepts(gw.port), SECONDS)
        for _ in range(6):
            assert gw.get("web").status == 403
        assert json.loads(gw.admin("/access.json").body)["http"]["denied"] == 6
        assert gw.admin("/admin/metrics.json").status == 200
