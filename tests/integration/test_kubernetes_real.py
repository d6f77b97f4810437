"""The Kubernetes namers of a running gateway against a real API server with etcd behind it (`make kube-apiserver`).

What leads to which addresses is read from ``/delegator.json``, as the server takes no loopback addresses for Endpoints; where requests are
made, the instances are on another address of this machine.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import pytest

from support.certs import authority
from support.gateways import Gateway, Nginx, gateway
from support.kubernetes import ADMIN, SECONDS, ApiServer, Etcd, Json, at, endpoints, hosts, missing, own_address, service, until
from support.processes import LOOPBACK, Process, Running

pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(missing()), reason=missing())]

READER, STRANGER, OTHER = "token-of-a-reader", "token-of-a-stranger", "token-of-another-reader"
USERS = {ADMIN: ("admin", "system:masters"), READER: ("reader", "people"), STRANGER: ("stranger", "people"), OTHER: ("other", "people")}
WATCHING = ("list", "watch")
WATCHED = ("endpoints", "services")
BINDING_MS = 1000
DISCOVERY = "discovery.k8s.io/v1beta1"


@attrs.define
class Cluster:
    """A server for the tests that only add namespaces of their own, and a ``kubectl proxy`` beside it."""

    etcd: Etcd
    server: ApiServer
    proxy: int

    def endpoints(self, namespace: str, name: str, addresses: Sequence[str], ports: Mapping[str, int], **more: Any) -> None:
        """Make or replace the Endpoints of a service."""
        self.server.api.put(at(namespace, "endpoints", name), endpoints(name, addresses, ports, **more))


@pytest.fixture(scope="module")
def started_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory: Path = tmp_path_factory.mktemp("cluster")
    with Running(directory) as running:
        etcd = Etcd(running)
        server = ApiServer(running, etcd, users=USERS)
        server.allow("reader", WATCHING, WATCHED)
        yield Cluster(etcd, server, port_of(server.proxy(READER)))


@pytest.fixture
def shared(started_once: Cluster) -> Cluster:
    """The cluster, whatever a test before has done to it."""
    if not started_once.server.process.is_running:
        started_once.server.start()
    return started_once


@pytest.fixture
def namespace(shared: Cluster) -> str:
    """One that only this test has."""
    return shared.server.namespace(f"ns-{next(_numbers)}")


_numbers = count(1)


def port_of(process: Process) -> int:
    assert process.port is not None
    return process.port


def namer(kind: str = "io.l5d.k8s", **options: Any) -> Json:
    return {"kind": kind, **options}


def started(running: Running, *namers: Json, dtab: str, **router: Any) -> Gateway:
    return gateway(running, router={"dtab": dtab, **router}, top={"namers": list(namers)})


def by_proxy(running: Running, cluster: Cluster, namespace: str, port: str = "http", **options: Any) -> Gateway:
    """A gateway as Linkerd was deployed: the API server is asked through ``kubectl proxy``."""
    dtab = f"/svc => /#/io.l5d.k8s/{namespace}/{port}"
    return started(running, namer(port=cluster.proxy, **options), dtab=dtab, bindingTimeoutMs=BINDING_MS)


def told(gw: Gateway, name: str, dtab: str = "") -> Json:
    """How the name is resolved."""
    found: Json = json.loads(gw.admin(f"/delegator.json?namespace=http&path=/svc/{name}&dtab={quote(dtab or dtab_of(gw))}").body)
    return found


def dtab_of(gw: Gateway) -> str:
    written: str = json.loads((gw.process.directory / "meshgw.yml").read_text())["routers"][0]["dtab"]
    return written


def addresses(gw: Gateway, name: str, dtab: str = "") -> set[str] | None:
    """The addresses that a name leads to, with ports; None if it is bound to nothing."""

    def all_in(value: Any) -> Iterator[str]:
        if isinstance(value, list):
            for each in value:
                yield from all_in(each)
        elif isinstance(value, dict) and "ip" in value:
            yield f"{value['ip']}:{value['port']}"
        elif isinstance(value, dict):
            yield from all_in(list(value.values()))

    found = told(gw, name, dtab)
    return set(all_in(found)) if '"bound"' in json.dumps(found) else None


def leads_to(gw: Gateway, name: str, expected: set[str] | None, dtab: str = "", seconds: float = SECONDS) -> None:
    """Wait until a name leads to exactly these addresses."""
    until(lambda: addresses(gw, name, dtab) == expected, f"{name} → {expected} (now {addresses(gw, name, dtab)})", seconds)


def state(gw: Gateway, name: str, group: str = "endpoints", prefix: str = "io.l5d.k8s") -> Json:
    """The entry in ``/namer_state``: ``state`` and ``watch``."""
    found: Json = json.loads(gw.admin(f"/namer_state/{prefix}.json").body)[group][name]
    return found


def metric(gw: Gateway, name: str, prefix: str = "io.l5d.k8s") -> float:
    return float(gw.metrics().get(f"namer/#/{prefix}/service/{name}", -1))


# --- coming and going


def test_endpoints_come_and_go_promptly_through_kubectl_proxy(running: Running, shared: Cluster, namespace: str) -> None:
    gw = by_proxy(running, shared, namespace)
    leads_to(gw, "web", None)
    shared.endpoints(namespace, "web", ["10.99.0.1"], {"http": 8080, "admin": 9990})
    leads_to(gw, "web", {"10.99.0.1:8080"})
    shared.endpoints(namespace, "web", ["10.99.0.1", "10.99.0.2"], {"http": 8081}, not_ready=["10.99.0.3"])
    leads_to(gw, "web", {"10.99.0.1:8081", "10.99.0.2:8081"})
    leads_to(gw, "web", {"10.99.0.1:8081", "10.99.0.2:8081"}, f"/svc => /#/io.l5d.k8s/{namespace}/HTTP")
    leads_to(gw, "web", None, f"/svc => /#/io.l5d.k8s/{namespace}/admin")
    shared.endpoints(namespace, "web", [], {})
    until(lambda: not addresses(gw, "web"), "no address is left")
    shared.endpoints(namespace, "web", ["10.99.0.4"], {"http": 8080})
    leads_to(gw, "web", {"10.99.0.4:8080"})
    shared.server.delete_endpoints(namespace, "web")
    leads_to(gw, "web", None)
    shared.endpoints(namespace, "web", ["10.99.0.5"], {"http": 8080})
    leads_to(gw, "web", {"10.99.0.5:8080"})
    assert state(gw, f"{namespace}/web")["watch"]["lists"] == 1, "all of it was told by one watch"
    assert "Traceback" not in gw.process.output()


@pytest.mark.skipif(not own_address(), reason="this machine has no address but loopback ones, which the API server refuses")
def test_requests_go_where_the_endpoints_are_and_none_fails_when_they_change(running: Running, shared: Cluster, namespace: str) -> None:
    host = own_address()
    one, two = (Nginx(running, f'location / {{ return 200 "{name}"; }}', name=name, listen=host) for name in ("one", "two"))
    shared.endpoints(namespace, "web", [host], {"http": one.port})
    gw = by_proxy(running, shared, namespace)
    assert gw.get("web").text == "one"
    seen = set()
    for turn in range(10):
        shared.endpoints(namespace, "web", [host], {"http": (two, one)[turn % 2].port})
        seen |= {gw.get("web").text for _ in range(5)}
    assert seen == {"one", "two"}
    until(lambda: gw.get("web").text == "one", "the last one")


def test_a_thousand_endpoints_come_at_once_and_go(running: Running, shared: Cluster, namespace: str) -> None:
    gw = by_proxy(running, shared, namespace)
    many = hosts(1000)
    shared.endpoints(namespace, "web", many[:1], {"http": 80})
    leads_to(gw, "web", {f"{many[0]}:80"})
    before = gw.resident()
    for _ in range(3):
        shared.endpoints(namespace, "web", many, {"http": 80})
        leads_to(gw, "web", {f"{host}:80" for host in many})
        shared.endpoints(namespace, "web", many[500:510], {"http": 80})
        leads_to(gw, "web", {f"{host}:80" for host in many[500:510]})
    assert gw.resident() - before < 20 << 20


def test_many_changes_in_a_row_end_with_the_last(running: Running, shared: Cluster, namespace: str) -> None:
    gw = by_proxy(running, shared, namespace)
    leads_to(gw, "web", None)
    for turn in range(200):
        shared.endpoints(namespace, "web", hosts(1 + turn % 7, net=turn % 250), {"http": 80})
    leads_to(gw, "web", {f"{host}:80" for host in hosts(1 + 199 % 7, net=199)})


def test_port_numbers_are_those_of_the_service(running: Running, shared: Cluster, namespace: str) -> None:
    gw = by_proxy(running, shared, namespace, "80")
    path = at(namespace, "services", "web")
    shared.server.api.put(path, service("web", [("http", 80, 8080), ("admin", 81, "ops")]))
    shared.endpoints(namespace, "web", ["10.99.0.1"], {"http": 8080, "ops": 9990})
    leads_to(gw, "web", {"10.99.0.1:8080"})
    leads_to(gw, "web", {"10.99.0.1:9990"}, f"/svc => /#/io.l5d.k8s/{namespace}/81")
    ports = [{"name": "unknown-to-endpoints", "port": 80, "targetPort": 8443}, {"name": "admin", "port": 81, "targetPort": "ops"}]
    shared.server.api.do("PATCH", path, {"spec": {"ports": ports}})
    leads_to(gw, "web", {"10.99.0.1:8443"})
    assert state(gw, f"{namespace}/web", "portMappings")["state"]["stale"] is False


def test_a_label_selects_services(running: Running, shared: Cluster, namespace: str) -> None:
    gw = by_proxy(running, shared, namespace, labelSelector="version")
    shared.endpoints(namespace, "web", ["10.99.0.1"], {"http": 80}, labels={"version": "v1"})
    leads_to(gw, "web/v1", {"10.99.0.1:80"})
    leads_to(gw, "web/v2", None)
    shared.endpoints(namespace, "web", ["10.99.0.2"], {"http": 80}, labels={"version": "v2"})
    leads_to(gw, "web/v1", None)
    leads_to(gw, "web/v2", {"10.99.0.2:80"})


def test_one_namespace_is_named_by_the_environment(
    running: Running, shared: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_NAMESPACE", namespace)
    gw = started(running, namer("io.l5d.k8s.ns", port=shared.proxy, envVar="MY_NAMESPACE"), dtab="/svc => /#/io.l5d.k8s.ns/http")
    shared.endpoints(namespace, "web", ["10.99.0.1"], {"http": 80})
    leads_to(gw, "web", {"10.99.0.1:80"})


def test_a_load_balancer_is_where_its_status_says(running: Running, shared: Cluster, namespace: str) -> None:
    api, path = shared.server.api, at(namespace, "services", "web")
    api.put(path, service("web", [("http", 80, 8080)], kind="LoadBalancer"))
    gw = started(
        running, namer("io.l5d.k8s.external", port=shared.proxy, experimental=True), dtab=f"/svc => /#/io.l5d.k8s.external/{namespace}/http"
    )
    leads_to(gw, "web", None)
    api.do("PATCH", f"{path}/status", {"status": {"loadBalancer": {"ingress": [{"ip": "10.99.9.9"}]}}})
    leads_to(gw, "web", {"10.99.9.9:80"})
    leads_to(gw, "web", {"10.99.9.9:80"}, f"/svc => /#/io.l5d.k8s.external/{namespace}/80")


def slice_of(name: str, owner: str, addresses: Sequence[str], *, ready: bool = True) -> Json:
    return {
        "apiVersion": DISCOVERY,
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": owner}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}} for address in addresses],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    }


@pytest.mark.parametrize("source", ["endpointSlices", "auto"])
def test_slices_of_the_older_version_are_put_together(running: Running, shared: Cluster, namespace: str, source: str) -> None:
    shared.server.allow("reader", WATCHING, ["endpointslices"], groups=["discovery.k8s.io"])
    gw = by_proxy(running, shared, namespace, source=source)
    api = shared.server.api
    name = f"web-{source.lower()}"
    for number in range(12):  # 100 in each, which is how the controller makes them
        part = slice_of(f"{name}-{number}", name, hosts(1200)[number * 100 : number * 100 + 100])
        api.put(at(namespace, "endpointslices", f"{name}-{number}", group=DISCOVERY), part)
    leads_to(gw, name, {f"{host}:80" for host in hosts(1200)})
    api.put(at(namespace, "endpointslices", f"{name}-3", group=DISCOVERY), slice_of(f"{name}-3", name, ["10.98.0.1"], ready=False))
    leads_to(gw, name, {f"{host}:80" for number, host in enumerate(hosts(1200)) if number // 100 != 3})


# --- without a proxy


def directly(cluster: Cluster, token_file: Path, **more: Any) -> Json:
    tls = {"trustCerts": [cluster.server.trust]}
    return namer(host=LOOPBACK, port=cluster.server.port, tls=tls, tokenFile=str(token_file), **more)


def replace(file: Path, text: str) -> None:
    """As Kubernetes exchanges a mounted token."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.rename(file)


def test_tls_and_a_token_do_without_a_proxy_and_the_token_may_be_exchanged(running: Running, shared: Cluster, namespace: str) -> None:
    token = running.directory / "token"
    token.write_text(READER)
    shared.server.allow("other", WATCHING, WATCHED, namespace=namespace)
    gw = started(running, directly(shared, token), dtab=f"/svc => /#/io.l5d.k8s/{namespace}/http")
    for name in ("one", "two", "three"):
        shared.endpoints(namespace, name, ["10.99.0.1"], {"http": 80})
    leads_to(gw, "one", {"10.99.0.1:80"})
    replace(token, "no-such-token")
    until(lambda: "the token in" in json.dumps(told(gw, "two")), "the refusal is explained")
    assert "401" in json.dumps(told(gw, "two"))
    leads_to(gw, "one", {"10.99.0.1:80"})
    replace(token, OTHER)
    leads_to(gw, "two", {"10.99.0.1:80"}, seconds=60.0)  # the error is a lasting one, tried again with longer pauses
    leads_to(gw, "three", {"10.99.0.1:80"})
    everything = gw.process.output() + gw.admin("/namer_state/io.l5d.k8s.json").text + gw.admin("/config.json").text
    assert not [secret for secret in (READER, OTHER, "no-such-token") if secret in everything]


def test_a_kubeconfig_leads_there_with_its_token_or_its_certificate(running: Running, shared: Cluster, namespace: str) -> None:
    issued = authority().leaf(name="reader", client=True)
    user = {
        "client-certificate-data": b64encode(issued.certificate_pem).decode(),
        "client-key-data": b64encode(issued.key_pem()).decode(),
    }
    shared.endpoints(namespace, "web", ["10.99.0.1"], {"http": 80})
    files = {
        "token": shared.server.kubeconfig(READER, name="by-token"),
        "certificate": shared.server.kubeconfig(user=user, name="by-certificate"),
    }
    namers = [namer(kubeconfig=file, prefix=f"/{title}") for title, file in files.items()]
    gw = started(running, *namers, dtab="/svc => /$/nil")
    for title in files:
        leads_to(gw, "web", {"10.99.0.1:80"}, f"/svc => /#/{title}/{namespace}/http")


# --- rights


def test_what_is_not_allowed_is_named_until_it_is_allowed(running: Running, shared: Cluster, namespace: str) -> None:
    token = running.directory / "token"
    token.write_text(STRANGER)
    gw = started(running, directly(shared, token), dtab=f"/svc => /#/io.l5d.k8s/{namespace}/http")
    shared.endpoints(namespace, "web", ["10.99.0.1"], {"http": 80})
    until(lambda: "grant verb 'list' on resource 'endpoints'" in json.dumps(told(gw, "web")), "the missing right is named")
    assert gw.get("web").status == 502
    assert f"may not list endpoints in namespace {namespace}" in gw.get("web").text
    shared.server.allow("stranger", ["list"], ["endpoints"], namespace=namespace)
    until(lambda: "grant verb 'watch' on resource 'endpoints'" in json.dumps(state(gw, f"{namespace}/web")), "and the next", 35.0)
    assert addresses(gw, "web") == {"10.99.0.1:80"}, "a list is better than nothing"
    shared.server.allow("stranger", ["watch"], ["endpoints"], namespace=namespace)
    until(lambda: metric(gw, "failing") == 0, "nothing is missing", 35.0)
    shared.endpoints(namespace, "web", ["10.99.0.2"], {"http": 80})
    leads_to(gw, "web", {"10.99.0.2:80"})


def test_a_right_that_is_taken_away_keeps_the_last_good_addresses(running: Running, shared: Cluster, namespace: str) -> None:
    shared.endpoints(namespace, "web", ["10.99.0.1"], {"http": 80})
    shared.server.allow("other", WATCHING, WATCHED)
    token = running.directory / "token"
    token.write_text(OTHER)
    gw = started(running, directly(shared, token), dtab=f"/svc => /#/io.l5d.k8s/{namespace}/http")
    leads_to(gw, "web", {"10.99.0.1:80"})
    shared.server.forbid("other", WATCHING, WATCHED)
    shared.server.kill()
    shared.server.start()  # ends the watch that was allowed before
    until(lambda: "grant verb" in json.dumps(state(gw, f"{namespace}/web")), "the missing right is named", 35.0)
    assert state(gw, f"{namespace}/web")["state"]["stale"] is True
    assert addresses(gw, "web") == {"10.99.0.1:80"}


# --- outages, and versions that are forgotten


def test_a_server_that_dies_keeps_the_last_good_addresses_until_it_is_back(running: Running, shared: Cluster, namespace: str) -> None:
    shared.endpoints(namespace, "one", ["10.99.0.1"], {"http": 80})
    second = ApiServer(running, shared.etcd, users=USERS, name="second")  # for what happens while the first is away
    gw = by_proxy(running, shared, namespace)
    leads_to(gw, "one", {"10.99.0.1:80"})
    shared.server.kill()
    until(lambda: state(gw, f"{namespace}/one")["state"]["stale"] is True, "it is told to be stale")
    assert addresses(gw, "one") == {"10.99.0.1:80"}
    until(lambda: "connection refused" in gw.get("two").text, "who asks for something else is told why")
    second.api.put(at(namespace, "endpoints", "one"), endpoints("one", ["10.99.0.2"], {"http": 80}))
    second.api.put(at(namespace, "endpoints", "two"), endpoints("two", ["10.99.0.3"], {"http": 80}))
    shared.server.start()
    leads_to(gw, "one", {"10.99.0.2:80"})
    leads_to(gw, "two", {"10.99.0.3:80"})
    second.api.put(at(namespace, "endpoints", "two"), endpoints("two", ["10.99.0.4"], {"http": 80}))
    leads_to(gw, "two", {"10.99.0.4:80"})
    until(lambda: metric(gw, "failing") == 0 and metric(gw, "stale") == 0, "nothing fails any more", 10.0)
    log = gw.process.output()
    assert "answers again after" in log
    assert log.count("WARNING") <= 4, "an outage is told once"


def test_a_compacted_version_is_found_out_and_everything_is_listed_anew(running: Running, shared: Cluster, namespace: str) -> None:
    """410 in a stream that began with 200: the server has no memory of its own here, and etcd has forgotten."""
    forgetful = ApiServer(running, shared.etcd, "--watch-cache=false", users=USERS, name="forgetful")
    shared.endpoints(namespace, "web", ["10.99.0.1"], {"http": 80})
    proxy = forgetful.proxy(READER)
    gw = started(running, namer(port=port_of(proxy)), dtab=f"/svc => /#/io.l5d.k8s/{namespace}/http")
    leads_to(gw, "web", {"10.99.0.1:80"})
    proxy.stop()
    for turn in range(2, 5):
        shared.endpoints(namespace, "web", [f"10.99.0.{turn}"], {"http": 80})
    shared.etcd.compact()
    proxy.start().wait_ready()
    leads_to(gw, "web", {"10.99.0.4:80"})
    watch = state(gw, f"{namespace}/web")["watch"]
    assert (watch["lists"], watch["expired"]) == (2, 1)
    shared.endpoints(namespace, "web", ["10.99.0.5"], {"http": 80})
    leads_to(gw, "web", {"10.99.0.5:80"})


def test_a_watch_that_breaks_goes_on_where_it_was(running: Running, shared: Cluster, namespace: str) -> None:
    shared.endpoints(namespace, "web", ["10.99.0.1"], {"http": 80})
    proxy = shared.server.proxy(READER, name="broken")
    gw = started(running, namer(port=port_of(proxy)), dtab=f"/svc => /#/io.l5d.k8s/{namespace}/http")
    leads_to(gw, "web", {"10.99.0.1:80"})
    for turn in range(2, 6):
        proxy.stop()
        shared.endpoints(namespace, "web", [f"10.99.0.{turn}"], {"http": 80})
        proxy.start().wait_ready()
        leads_to(gw, "web", {f"10.99.0.{turn}:80"}, seconds=SECONDS)
    watch = state(gw, f"{namespace}/web")["watch"]
    assert (watch["lists"], watch["expired"]) == (1, 0), "the server told what had happened meanwhile"


def test_bookmarks_carry_a_watch_past_changes_of_others(running: Running, shared: Cluster, namespace: str) -> None:
    """A watch of one quiet object goes on from the last bookmark, not from the object's own version, which may be forgotten by then."""
    shared.endpoints(namespace, "quiet", ["10.99.0.1"], {"http": 80})
    gw = by_proxy(running, shared, namespace)
    leads_to(gw, "quiet", {"10.99.0.1:80"})
    before = int(state(gw, f"{namespace}/quiet")["watch"]["resourceVersion"])
    for turn in range(5):
        shared.endpoints(namespace, "loud", hosts(turn + 1), {"http": 80})

    def is_ahead() -> bool:
        assert addresses(gw, "quiet"), "somebody keeps asking"
        return int(state(gw, f"{namespace}/quiet")["watch"]["resourceVersion"]) > before

    until(is_ahead, "a bookmark", 90.0)  # the server sends one a minute
    assert state(gw, f"{namespace}/quiet")["watch"]["lists"] == 1
    assert metric(gw, "updates") == 1, "a bookmark is no change"
