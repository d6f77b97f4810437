"""The gateway as an ingress: rules, certificates and statuses of a scripted API server, seen by curl and openssl."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from fakes.ingresses import ingress, ingress_class, rule, tls_secret
from meshgw.cli.certs import Issued
from support.certs import authority, write_files
from support.gateways import LOOPBACK, SECONDS, Answer, Gateway, Json, Nginx, curl, gateway, run_curl
from support.processes import Process, Running, free_port, wait_until
from support.servers import ROOT

pytestmark = pytest.mark.integration

AS_ROOT = {"user": "root"} if os.getuid() == 0 else {}  # temporary directories are their owner's alone
STATE = "/http/identifier_state/io.l5d.ingress.json"


class Api:
    """A scripted API server as a process."""

    def __init__(self, running: Running) -> None:
        self.port = free_port()
        argv = [sys.executable, "-m", "fakes.kubernetes_server", str(self.port)]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        self.process = running.add(Process("kubernetes", argv, running.directory, port=self.port, env=env))

    def do(self, **calls: Any) -> Any:
        """Have it do something; see ``fakes.kubernetes_server``."""
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/control", json.dumps(calls).encode(), timeout=SECONDS) as answer:
            return json.load(answer)

    def put(self, name: str, *rules: Json, **more: Any) -> None:
        self.do(put=["ingresses", ingress(name, *rules, **more)])

    def status(self, name: str, namespace: str = "shop") -> Any:
        """What an ingress says about where it is served."""
        path = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}"
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}{path}", timeout=SECONDS) as answer:
            return json.load(answer).get("status", {}).get("loadBalancer", {}).get("ingress")


@pytest.fixture
def api(running: Running) -> Api:
    return Api(running)


def edge(running: Running, api: Api, *names: str, identifier: Json | None = None, **settings: Any) -> Gateway:
    """A gateway over the API server, and nginx that answers for each service with its name."""
    locations = "location / { return 200 $http_l5d_dst_service; }"
    nginx = Nginx(running, locations, name="services")
    router = {
        "identifier": {"kind": "io.l5d.ingress", "host": LOOPBACK, "port": api.port, **(identifier or {})},
        "dtab": "/svc/shop/80 => /#/io.l5d.fs",
    }
    router |= settings.pop("router", {})
    return gateway(running, dict.fromkeys(names or ("web", "cart", "rest", "one", "two"), nginx.port), router=router, **settings)


def answer(gw: Gateway, host: str, target: str = "/") -> str:
    """The service that a request reaches, or the status it is answered with."""
    found = gw.get(host, target)
    return found.text.rpartition("/")[2] if found.status == 200 else str(found.status)


def becomes(gw: Gateway, host: str, target: str, expected: str) -> None:
    assert wait_until(lambda: answer(gw, host, target) == expected, SECONDS), answer(gw, host, target)


def state(gw: Gateway) -> Json:
    """What admin shows of the identifier."""
    found: Json = json.loads(gw.admin(STATE).body)
    return found


# --- rules


def test_requests_over_http2_are_led_by_the_same_rules(running: Running, api: Api) -> None:
    api.put("shop", rule("shop.example.com", ("/", "web"), ("/cart", "cart")))
    gw = edge(running, api, router={"protocol": "h2", "client": {"protocol": "http/1.1"}})

    def reached(target: str) -> str:
        url = f"http://{LOOPBACK}:{gw.port}{target}"
        return run_curl("--http2-prior-knowledge", "-H", "Host: shop.example.com", url).stdout.decode()

    assert wait_until(lambda: reached("/cart/1").endswith("/cart"), SECONDS), reached("/cart/1")
    assert reached("/").endswith("/web")


def test_hosts_and_paths_lead_to_services(running: Running, api: Api) -> None:
    api.put(
        "shop",
        rule("shop.example.com", ("/", "web"), ("/cart", "cart")),
        defaultBackend={"service": {"name": "rest", "port": {"number": 80}}},
    )
    api.put("exact", rule("*.example.com", ("/only", "one"), kind="Exact"))
    api.put("regex", rule("old.org", ("/v[12]/.*", "two"), kind="ImplementationSpecific"))
    gw = edge(running, api)
    reached = {
        (host, target): answer(gw, host, target)
        for host, target in (
            ("shop.example.com", "/"),
            ("SHOP.example.com:8080", "/cart/1?x"),
            ("shop.example.com", "/carts"),
            ("other.example.com", "/only"),
            ("other.example.com", "/only/not"),
            ("old.org", "/v2/x"),
            ("old.org", "/v3/x"),
        )
    }
    assert list(reached.values()) == ["web", "cart", "web", "one", "rest", "two", "rest"], reached
    url = f"http://shop.example.com:{gw.port}/cart"
    assert curl("--resolve", f"shop.example.com:{gw.port}:{LOOPBACK}", url).text == "/svc/shop/80/cart"
    assert "Traceback" not in gw.process.output()


def test_rules_change_while_requests_run(running: Running, api: Api) -> None:
    gw = edge(running, api)
    refused = gw.get("a.com")
    assert (refused.status, "no ingress rule matches" in refused.text) == (400, True)
    api.put("a", rule("a.com", ("/", "one")))
    becomes(gw, "a.com", "/", "one")
    api.put("a", rule("a.com", ("/", "two")))
    becomes(gw, "a.com", "/", "two")
    api.do(delete=["ingresses", "a", "shop"])
    becomes(gw, "a.com", "/", "400")


def test_classes_say_which_ingresses_count(running: Running, api: Api) -> None:
    api.do(put=["ingressclasses", ingress_class("edge", "meshgw.io/ingress-controller")])
    api.put("mine", rule("mine.com", ("/", "one")), ingressClassName="edge")
    api.put("annotated", rule("annotated.com", ("/", "one")), annotated="linkerd")
    api.put("nobodys", rule("nobodys.com", ("/", "one")))
    api.put("theirs", rule("theirs.com", ("/", "one")), annotated="nginx")
    api.put("unknown", rule("unknown.com", ("/", "one")), ingressClassName="other")
    gw = edge(running, api)
    hosts = ("mine.com", "annotated.com", "nobodys.com", "theirs.com", "unknown.com")
    assert [answer(gw, host) for host in hosts] == ["one", "one", "one", "400", "400"]
    assert state(gw)["problems"] == ["shop/unknown: spec.ingressClassName: there is no IngressClass 'other', so the ingress is not served"]


def test_several_workers_each_follow_the_rules(running: Running, api: Api) -> None:
    api.put("a", rule("a.com", ("/", "one")))
    gw = edge(running, api, top={"workers": 2, **AS_ROOT})
    assert wait_until(lambda: gw.metrics().get("rt/http/ingress/ready") == 2, SECONDS)
    assert {answer(gw, "a.com") for _ in range(10)} == {"one"}
    api.put("a", rule("a.com", ("/", "two")))
    assert wait_until(lambda: [answer(gw, "a.com") for _ in range(8)] == ["two"] * 8, SECONDS)


# --- outages


def test_requests_wait_for_an_api_server_that_comes_up_late(running: Running, api: Api) -> None:
    api.put("a", rule("a.com", ("/", "one")))
    api.do(set={"delay": 2.0})
    gw = edge(running, api)
    assert answer(gw, "a.com") == "one"


def test_without_an_api_server_the_wait_ends_with_a_reason(running: Running, api: Api) -> None:
    api.process.stop()
    gw = edge(running, api, router={"bindingTimeoutMs": 800})
    refused = gw.get("a.com")
    assert refused.status == 503
    assert "Exceeded 0.8.seconds binding timeout while waiting for the rules that name requests" in refused.text
    assert f"{LOOPBACK}:{api.port}" in refused.text
    api.process.start()
    assert wait_until(lambda: answer(gw, "a.com") == "400", SECONDS)
    api.put("a", rule("a.com", ("/", "one")))
    becomes(gw, "a.com", "/", "one")


def test_a_right_that_is_missing_is_told_at_once_with_what_to_grant(running: Running, api: Api) -> None:
    api.put("a", rule("a.com", ("/", "one")))
    api.do(set={"forbidden": [["list", "ingresses", "*"]]})
    gw = edge(running, api)
    refused = gw.get("a.com")
    assert refused.status == 503
    assert "grant verb 'list' on resource 'ingresses' of apiGroup 'networking.k8s.io' by a ClusterRole" in refused.text
    assert gw.process.output().count("may not list ingresses") == 1
    api.do(set={"forbidden": []})
    becomes(gw, "a.com", "/", "one")


def test_the_last_good_rules_outlive_the_api_server_and_its_restart(running: Running, api: Api) -> None:
    api.put("a", rule("a.com", ("/", "one")))
    gw = edge(running, api)
    assert answer(gw, "a.com") == "one"
    api.process.signal(signal.SIGKILL)
    api.process.wait(SECONDS)
    assert wait_until(lambda: state(gw)["stale"], SECONDS)
    assert answer(gw, "a.com", "/new") == "one"
    assert gw.metrics()["rt/http/ingress/service/stale"] == 1
    api.process.start().wait_ready()
    api.do(set={"version": 5000})  # the real one goes on counting
    api.put("a", rule("a.com", ("/", "two")))
    becomes(gw, "a.com", "/", "two")
    assert wait_until(lambda: not state(gw)["stale"], SECONDS)


# --- TLS


SECURE = {"tls": {"sni": {"ingress": True, "strict": True}}}


def shown(port: int, name: str) -> int | None:
    """The serial number of the certificate that is shown for a server name; None if none is."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((LOOPBACK, port), SECONDS) as raw, context.wrap_socket(raw, server_hostname=name) as secure:
            found = secure.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        assert "UNRECOGNIZED_NAME" in str(error) or "unrecognized name" in str(error), error
        return None
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def serial(issued: Issued) -> int:
    return x509.load_pem_x509_certificate(issued.certificate_pem).serial_number


def secure_curl(running: Running, gw: Gateway, host: str) -> Answer:
    trust = Path(running.directory) / "ca.crt"
    trust.write_bytes(authority().pem)
    return curl("--cacert", str(trust), "--resolve", f"{host}:{gw.port}:{LOOPBACK}", f"https://{host}:{gw.port}/")


def test_each_host_is_served_with_the_certificate_of_its_ingress_and_rotation_needs_no_restart(running: Running, api: Api) -> None:
    a, b, renewed = authority().leaf("a.com"), authority().leaf("*.b.com"), authority().leaf("a.com")
    api.do(put=["secrets", tls_secret("a-tls", a)])
    api.put("a", rule("a.com", ("/", "one")), tls={"a-tls": ["a.com"]})
    api.put("b", rule("x.b.com", ("/", "two")), tls={"b-tls": ["x.b.com"]})
    gw = edge(running, api, server=SECURE)
    assert wait_until(lambda: shown(gw.port, "a.com") == serial(a), SECONDS)
    assert (shown(gw.port, "x.b.com"), shown(gw.port, "c.com")) == (None, None)
    assert state(gw)["tls"]["problems"] == ["shop/b: spec.tls[0]: there is no secret shop/b-tls"]
    api.do(put=["secrets", tls_secret("b-tls", b)])
    assert wait_until(lambda: shown(gw.port, "x.b.com") == serial(b), SECONDS)
    assert shown(gw.port, "y.b.com") is None, "the ingress does not name it"
    assert [secure_curl(running, gw, host).text for host in ("a.com", "x.b.com")] == ["/svc/shop/80/one", "/svc/shop/80/two"]
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{LOOPBACK}:{gw.port}", "-servername", "a.com"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert (
        f"{serial(a):x}"
        in subprocess.run(["openssl", "x509", "-noout", "-serial"], input=done.stdout, capture_output=True, timeout=SECONDS, check=True)
        .stdout.decode()
        .lower()
    )
    api.do(put=["secrets", tls_secret("a-tls", renewed)])
    assert wait_until(lambda: shown(gw.port, "a.com") == serial(renewed), SECONDS)
    api.do(put=["secrets", tls_secret("a-tls", renewed, key=a)])
    assert wait_until(lambda: "does not belong" in str(state(gw)["tls"]["problems"]), SECONDS)
    assert shown(gw.port, "a.com") == serial(renewed), "the last good one stays"
    api.do(delete=["secrets", "a-tls", "shop"])
    assert wait_until(lambda: shown(gw.port, "a.com") is None, SECONDS)
    output = gw.process.output() + gw.admin(STATE).text + gw.admin("/config.json").text
    assert "PRIVATE" not in output
    assert a.key_pem().decode()[60:100] not in output
    assert "Traceback" not in output


def test_files_come_first_and_are_the_default(running: Running, api: Api) -> None:
    own, other = authority().leaf("a.com", "edge.example.com"), authority().leaf("a.com", "b.com")
    certificate, key = write_files(own, running.directory, "own")
    api.do(put=["secrets", tls_secret("tls", other)])
    api.put("a", rule("a.com", ("/", "one")), tls={"tls": ["a.com", "b.com"]})
    gw = edge(running, api, server={"tls": {"certPath": certificate, "keyPath": key, "sni": {"ingress": True}}})
    assert wait_until(lambda: shown(gw.port, "b.com") == serial(other), SECONDS)
    assert (shown(gw.port, "a.com"), shown(gw.port, "unknown.com")) == (serial(own), serial(own))


def test_secrets_are_not_asked_for_unless_a_listener_wants_them(running: Running, api: Api) -> None:
    api.do(put=["secrets", tls_secret("tls", authority().leaf("a.com"))])
    api.put("a", rule("a.com", ("/", "one")), tls={"tls": ["a.com"]})
    gw = edge(running, api)
    assert answer(gw, "a.com") == "one"
    assert api.do(count=["list", "secrets"]) == 0


def test_one_name_cannot_be_used_to_reach_the_rules_of_another(running: Running, api: Api) -> None:
    for host in ("a.com", "b.com"):
        api.do(put=["secrets", tls_secret(host, authority().leaf(host))])
        api.put(host, rule(host, ("/", "one")), tls={host: [host]})
    gw = edge(running, api, server=SECURE)
    assert wait_until(lambda: shown(gw.port, "a.com") is not None and shown(gw.port, "b.com") is not None, SECONDS)
    done = run_curl("-k", "-i", "--resolve", f"a.com:{gw.port}:{LOOPBACK}", "-H", "Host: b.com", f"https://a.com:{gw.port}/")
    assert done.stdout.startswith(b"HTTP/1.1 421 ")


# --- statuses


def test_statuses_are_written_into_ingresses_of_our_class(running: Running, api: Api) -> None:
    api.put("a", rule("a.com", ("/", "one")), annotated="linkerd")
    api.put("nobodys", rule("b.com", ("/", "one")))
    gw = edge(running, api, identifier={"publishAddress": ["192.0.2.1", "edge.example.com"]}, top={"workers": 2, **AS_ROOT})
    expected = [{"hostname": "edge.example.com"}, {"ip": "192.0.2.1"}]
    assert wait_until(lambda: api.status("a") == expected, SECONDS)
    assert wait_until(lambda: gw.metrics().get("rt/http/ingress/status/outdated") == 0, SECONDS)
    assert api.status("nobodys") is None
    assert api.do(count=["patch", "ingresses"]) <= 2
    told = [one["status"] for one in state(gw)["workers"].values()]
    assert told == [{"addresses": ["edge.example.com", "192.0.2.1"], "outdated": [], "problem": None}] * 2
