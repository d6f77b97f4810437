"""A gateway in front of pods that a (scripted) Kubernetes API server tells of, as its users configure it."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.kubernetes import Json, endpoint_slice, endpoints, service
from support.certs import authority, write_files
from support.gateways import LOOPBACK, MANY, SECONDS, Gateway, Nginx, gateway, write_name
from support.kubernetes_fake import FakeKubernetes
from support.processes import ProcessFailed, Running, wait_until

pytestmark = pytest.mark.integration

REWRITE: Json = {"kind": "io.l5d.rewrite", "prefix": "/portNsSvc", "pattern": "/{port}/{ns}/{svc}", "name": "/k8s/{ns}/{port}/{svc}"}
GUIDE = """
    /k8s       => /#/io.l5d.k8s ;
    /portNsSvc => /#/portNsSvc ;
    /host      => /portNsSvc/http/default ;
    /host      => /portNsSvc/http ;
    /svc       => /$/io.buoyant.http.domainToPathPfx/host ;
"""
SUBDOMAINS = """
    /k8s       => /#/io.l5d.k8s ;
    /portNsSvc => /#/portNsSvc ;
    /host      => /portNsSvc/http/default ;
    /svc       => /$/io.buoyant.http.subdomainOfPfx/mesh.example/host ;
"""


@pytest.fixture
def kubernetes(running: Running) -> FakeKubernetes:
    return FakeKubernetes(running)


def named(running: Running, name: str, ip: str = LOOPBACK) -> Nginx:
    """nginx that answers with its own name."""
    return Nginx(running, f'location / {{ return 200 "{name}"; }}', name=name, listen=ip)


def pods(name: str, *servers: Nginx, namespace: str = "default", **more: Any) -> Json:
    """Endpoints of one subset for each server, as each has its own port here."""
    value = endpoints(name, namespace=namespace, **more)
    value["subsets"] = [{"addresses": [{"ip": LOOPBACK}], "ports": [{"name": "http", "port": each.port}]} for each in servers]
    return value


def by_proxy(kubernetes: FakeKubernetes, **more: Any) -> Json:
    """The namer as it is configured with a ``kubectl proxy``."""
    return {"kind": "io.l5d.k8s", "host": "localhost", "port": kubernetes.port, **more}


def started(running: Running, *namers: Json, dtab: str = GUIDE, **more: Any) -> Gateway:
    return gateway(running, router={"dtab": dtab, **more}, top={"namers": [*namers, REWRITE]})


def answers(gw: Gateway, host: str = "web", count: int = MANY) -> set[str]:
    return {gw.get(host).text for _ in range(count)}


def becomes(gw: Gateway, *expected: str, host: str = "web") -> None:
    assert wait_until(lambda: answers(gw, host) == set(expected), SECONDS), answers(gw, host)


def meshgw_dtab(directory: Path, name: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from meshgw.cli.meshgw import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", program, "dtab", name, "--config", str(directory / "meshgw.yml")]
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)


def metric(gw: Gateway, name: str) -> float:
    return float(gw.metrics().get(f"namer/#/io.l5d.k8s/{name}", -1))


# --- the configurations of the guides


def test_hosts_lead_to_services_as_in_the_guide(running: Running, kubernetes: FakeKubernetes) -> None:
    one, two = named(running, "one"), named(running, "two")
    kubernetes.put("endpoints", pods("web", one))
    kubernetes.put("endpoints", pods("web", two, namespace="prod"))
    gw = started(running, by_proxy(kubernetes))
    assert answers(gw, "web") == {"one"}, "in the default namespace"
    assert answers(gw, "web.prod") == {"two"}, "in the namespace that the host names"
    assert answers(gw, "WEB.Default") == {"one"}
    assert gw.get("web.elsewhere").status == 502
    done = meshgw_dtab(running.directory, "/svc/web.prod")
    assert done.returncode == 0, done.stderr
    assert f"{LOOPBACK}:{two.port}" in done.stdout
    assert "bound to /#/io.l5d.k8s/prod/http/web" in done.stdout
    done = meshgw_dtab(running.directory, "/svc/web.elsewhere")
    assert done.returncode == 1
    assert "/#/io.l5d.k8s/elsewhere/http/web by /k8s => /#/io.l5d.k8s: no such name" in done.stdout
    body = json.dumps({"namespace": "http", "dtab": GUIDE, "path": "/svc/web"}).encode()
    explained = gw.admin("/delegator.json", body, "application/json")
    assert explained.status == 200, explained.text
    assert "/#/io.l5d.k8s/default/http/web" in explained.text
    state = json.loads(gw.admin("/namer_state/io.l5d.k8s.json").body)
    assert state["endpoints"]["default/web"]["state"]["stale"] is False
    assert state["server"] == f"http://localhost:{kubernetes.port}"
    assert "Traceback" not in gw.process.output()


def test_subdomains_lead_to_services(running: Running, kubernetes: FakeKubernetes) -> None:
    one = named(running, "one")
    kubernetes.put("endpoints", pods("web", one))
    gw = started(running, by_proxy(kubernetes), dtab=SUBDOMAINS)
    assert answers(gw, "web.mesh.example") == {"one"}
    assert gw.get("web.other.example").status == 502
    done = meshgw_dtab(running.directory, "/svc/web.mesh.example:80")
    assert done.returncode == 0, done.stdout + done.stderr


def test_numbered_ports_and_slices_lead_to_the_same_pods(running: Running, kubernetes: FakeKubernetes) -> None:
    one = named(running, "one")
    kubernetes.put("services", service("web", {"name": "http", "port": 80, "targetPort": "anything"}))
    kubernetes.put("endpointslices", endpoint_slice("web-abc", LOOPBACK, of="web", ports={"http": one.port}))
    gw = started(running, by_proxy(kubernetes, source="auto"), dtab="/svc => /#/io.l5d.k8s/default/80")
    assert answers(gw) == {"one"}


# --- pods that come and go


def test_no_request_fails_while_pods_are_exchanged(running: Running, kubernetes: FakeKubernetes) -> None:
    one, two = named(running, "one"), named(running, "two")
    kubernetes.put("endpoints", pods("web", one))
    gw = started(running, by_proxy(kubernetes))
    assert answers(gw) == {"one"}
    seen: Counter[str] = Counter()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            seen[gw.get("web").text] += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for turn in range(20):
            before = sum(seen.values())
            kubernetes.put("endpoints", pods("web", (two, one)[turn % 2]))
            assert wait_until(lambda before=before: sum(seen.values()) > before + 2, SECONDS)  # type: ignore[misc]
    finally:
        stop.set()
        thread.join()
    assert set(seen) == {"one", "two"}


def test_a_pod_that_is_removed_gets_no_more_requests(running: Running, kubernetes: FakeKubernetes) -> None:
    one, two = named(running, "one"), named(running, "two")
    kubernetes.put("endpoints", pods("web", one, two))
    gw = started(running, by_proxy(kubernetes))
    becomes(gw, "one", "two")
    kubernetes.put("endpoints", pods("web", two))
    becomes(gw, "two")
    kubernetes.delete("endpoints", "web")
    assert wait_until(lambda: gw.get("web").status == 502, SECONDS)
    assert "/#/io.l5d.k8s/default/http/web" in gw.get("web").text
    kubernetes.put("endpoints", pods("web", one))
    becomes(gw, "one")


# --- outages


def test_an_outage_of_the_api_server_is_survived_and_told(running: Running, kubernetes: FakeKubernetes) -> None:
    one, two = named(running, "one"), named(running, "two")
    kubernetes.put("endpoints", pods("web", one))
    gw = started(running, by_proxy(kubernetes), bindingTimeoutMs=1000)
    assert answers(gw) == {"one"}
    kubernetes.stop()
    assert wait_until(lambda: metric(gw, "service/stale") == 1, SECONDS)
    assert answers(gw) == {"one"}
    unknown = gw.get("other")
    assert unknown.status == 502
    assert f"Kubernetes at localhost:{kubernetes.port}: connection refused" in unknown.text, "who asks for something else is told why"
    kubernetes.start()
    kubernetes.put("endpoints", pods("web", two))
    kubernetes.control(set={"version": 90000, "oldest": 90000}, compact=[])
    becomes(gw, "two")
    assert wait_until(lambda: metric(gw, "service/failing") == 0, SECONDS)
    log = gw.process.output()
    assert log.count("connection refused") + log.count("the connection broke") <= 4, log
    assert "answers again after" in log


def test_a_gateway_that_starts_first_finds_its_pods_later(running: Running, kubernetes: FakeKubernetes) -> None:
    one = named(running, "one")
    kubernetes.stop()
    gw = started(running, by_proxy(kubernetes), bindingTimeoutMs=500)
    assert gw.get("web").status == 502
    kubernetes.start()
    kubernetes.put("endpoints", pods("web", one))
    becomes(gw, "one")


def test_a_missing_right_is_named_to_those_who_ask_and_may_be_granted(running: Running, kubernetes: FakeKubernetes) -> None:
    one = named(running, "one")
    kubernetes.put("endpoints", pods("web", one))
    kubernetes.control(set={"forbidden": [["list", "endpoints", "*"]]})
    gw = started(running, by_proxy(kubernetes))
    told = gw.get("web")
    assert told.status == 502
    assert "grant verb 'list' on resource 'endpoints'" in told.text
    assert wait_until(lambda: "grant verb 'list' on resource 'endpoints'" in gw.process.output(), SECONDS)
    kubernetes.control(set={"forbidden": []})
    becomes(gw, "one")


# --- without a proxy


def secured(running: Running) -> FakeKubernetes:
    """A server with TLS that wants the token ``first``."""
    certificate, key = write_files(authority().leaf("kubernetes", name="api"), running.directory, "api")
    kubernetes = FakeKubernetes(running, tls=(Path(certificate), Path(key)))
    kubernetes.control(set={"tokens": ["first"]})
    return kubernetes


def test_tls_with_a_token_that_is_exchanged(running: Running) -> None:
    kubernetes, one, two = secured(running), named(running, "one"), named(running, "two")
    kubernetes.put("endpoints", pods("web", one))
    token, ca = running.directory / "token", running.directory / "ca.pem"
    token.write_text("first\n")
    ca.write_bytes(authority().pem)
    tls = {"commonName": "kubernetes", "trustCertsBundle": str(ca)}
    gw = started(running, by_proxy(kubernetes, tls=tls, tokenFile=str(token)))
    assert answers(gw) == {"one"}
    fresh = running.directory / "token.new"
    fresh.write_text("second\n")
    fresh.rename(token)
    kubernetes.control(set={"tokens": ["second"]}, end_watches=[])
    kubernetes.put("endpoints", pods("web", two))
    becomes(gw, "two")
    assert "first" not in gw.process.output() and "second" not in gw.process.output()


def test_a_certificate_for_another_name_is_refused_with_what_it_shows(running: Running) -> None:
    kubernetes, token, ca = secured(running), running.directory / "token", running.directory / "ca.pem"
    token.write_text("first\n")
    ca.write_bytes(authority().pem)
    gw = started(running, by_proxy(kubernetes, tls={"trustCertsBundle": str(ca)}, tokenFile=str(token)), bindingTimeoutMs=500)
    told = gw.get("web").text
    assert "its TLS certificate is refused" in told
    assert "expected name: localhost" in told
    assert "DNS:kubernetes" in told


def test_a_kubeconfig_is_used_as_kubectl_uses_it(running: Running) -> None:
    kubernetes, one = secured(running), named(running, "one")
    kubernetes.put("endpoints", pods("web", one))
    cluster = {
        "server": f"https://{LOOPBACK}:{kubernetes.port}",
        "certificate-authority-data": base64.b64encode(authority().pem).decode(),
        "tls-server-name": "kubernetes",
    }
    file = running.directory / "kubeconfig"
    file.write_text(
        yaml.safe_dump(
            {
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": "first"}}],
            }
        )
    )
    gw = started(running, {"kind": "io.l5d.k8s", "kubeconfig": str(file)})
    assert answers(gw) == {"one"}


# --- transformers


def test_a_transformer_of_one_namer_leaves_the_names_of_another_alone(running: Running, kubernetes: FakeKubernetes) -> None:
    """Calls to pods go through the daemonset on their node, calls to elsewhere do not."""
    daemon, elsewhere = named(running, "daemon", "127.9.1.9"), named(running, "elsewhere")
    kubernetes.put("endpoints", endpoints("web", "127.9.1.1", "127.9.1.2", ports={"http": 1}))
    kubernetes.put("endpoints", endpoints("l5d", "127.9.1.9", "127.9.2.9", ports={"incoming": daemon.port}))
    transformer = {
        "kind": "io.l5d.k8s.daemonset",
        "namespace": "default",
        "port": "incoming",
        "service": "l5d",
        "k8sHost": "localhost",
        "k8sPort": kubernetes.port,
    }
    root = running.directory / "egress"
    root.mkdir()
    write_name(root, "partner", elsewhere.port)
    namers = (by_proxy(kubernetes, transformers=[transformer]), {"kind": "io.l5d.fs", "rootDir": str(root)})
    gw = started(running, *namers, dtab="/svc => /#/io.l5d.fs ; /svc => /#/io.l5d.k8s/default/http")
    assert answers(gw, "web") == {"daemon"}
    assert answers(gw, "partner") == {"elsewhere"}
    clients = gw.admin("/client_state.json").text
    assert "/%/io.l5d.k8s.daemonset/default/incoming/l5d/#/io.l5d.k8s/default/http/web" in clients
    state = json.loads(gw.admin("/namer_state/io.l5d.k8s.json").body)
    assert "endpoints default/l5d" in state["transformers"]["io.l5d.k8s.daemonset"]["watches"]
    metrics = gw.metrics()
    assert metrics["namer/#/io.l5d.k8s/transformer/io.l5d.k8s.daemonset/service/opens"] == 1
    done = meshgw_dtab(running.directory, "/svc/web")
    assert done.returncode == 0
    assert f"127.9.1.9:{daemon.port}" in done.stdout


def test_only_pods_of_this_node_are_called(running: Running, kubernetes: FakeKubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    here = named(running, "here", "127.8.1.1")
    kubernetes.put("endpoints", endpoints("web", "127.8.1.1", "127.8.2.1", ports={"http": here.port}))
    monkeypatch.setenv("POD_IP", "127.8.1.200")
    transformers = [{"kind": "io.l5d.k8s.localhost"}]  # the other spelling of localnode
    router = {"dtab": "/svc => /#/io.l5d.k8s/default/http", "interpreter": {"kind": "default", "transformers": transformers}}
    gw = started(running, by_proxy(kubernetes), **router)
    assert answers(gw) == {"here"}
    assert "/%/io.l5d.k8s.localnode/127.8.1.200/#/io.l5d.k8s/default/http/web" in gw.admin("/client_state.json").text


def test_an_environment_without_what_is_needed_refuses_the_start_in_one_line(running: Running) -> None:
    with pytest.raises(ProcessFailed) as caught:
        started(running, {"kind": "io.l5d.k8s.ns", "envVar": "NO_SUCH_VARIABLE"})
    assert "meshgw cannot start: io.l5d.k8s.ns: could not find namespace for envVar NO_SUCH_VARIABLE: it is not set" in str(caught.value)
    assert "Traceback" not in str(caught.value)
