"""The Consul namer of a running gateway against a real agent: what is registered there is where requests go."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from meshgw.namers.consul import LEAST_SECONDS
from support import consul
from support.certs import authority, write_files
from support.consul import Agent
from support.gateways import LOOPBACK, MANY, Answer, Gateway, Nginx, gateway
from support.processes import Running, free_port, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(consul.missing()), reason=consul.missing())]

SECONDS = 20.0
DTAB = "/svc => /#/io.l5d.consul/dc1"
BASE_DTAB = "/unused => /$/nil"
"""Nothing to fall back on: each request brings its own dtab."""


@attrs.frozen
class Place:
    """An agent, a gateway with a namer of each sort, and two instances that answer with their names."""

    agent: Agent
    gateway: Gateway
    one: Nginx
    two: Nginx

    def answers(self, service: str, dtab: str = DTAB, count: int = MANY) -> set[str]:
        """What a number of requests are answered: the instance's name, or the status of an error."""
        found = [self.get(service, dtab) for _ in range(count)]
        return {answer.text if answer.status == 200 else str(answer.status) for answer in found}

    def get(self, service: str, dtab: str = DTAB) -> Answer:
        """A request for a service by this dtab."""
        return self.gateway.get(service, "/", f"l5d-dtab: {dtab}")

    def becomes(self, service: str, *expected: str, dtab: str = DTAB, seconds: float = SECONDS) -> None:
        """Wait until requests are answered by exactly these instances."""
        reached = wait_until(lambda: self.answers(service, dtab) == set(expected), seconds)
        assert reached, self.gateway.process.describe(f"{service}: {self.answers(service, dtab)}")

    def state(self, name: str, prefix: str = "io.l5d.consul") -> dict[str, Any]:
        """The entry of a name in ``/namer_state``."""
        found: dict[str, Any] = json.loads(self.gateway.admin(f"/namer_state/{prefix}.json").body)[name]
        return found


def namers(port: int) -> list[dict[str, Any]]:
    def one(prefix: str, **options: Any) -> dict[str, Any]:
        return {"kind": "io.l5d.consul", "host": LOOPBACK, "port": port, "prefix": f"/{prefix}", **options}

    return [
        one("io.l5d.consul"),
        one("tagged", includeTag=True),
        one("healthy", useHealthCheck=True),
        one("warned", useHealthCheck=True, healthStatuses=["passing", "warning"]),
        one("hosted", setHost=True),
        one("stale", consistencyMode="stale"),
        one("consistent", consistencyMode="consistent"),
        one("weighted", weights=[{"tag": "big", "weight": 9.0}], transferMetadata=True),
    ]


def instance(running: Running, name: str, locations: str = "") -> Nginx:
    return Nginx(running, f'{locations} location / {{ return 200 "{name}"; }}', name=name)


def place(running: Running, agent: Agent, **top: Any) -> Place:
    gw = gateway(running, router={"dtab": BASE_DTAB}, top={"namers": namers(agent.port), **top})
    back = (
        "location = /moved { return 302 http://$http_host/there; } "
        'location = /later { add_header Refresh "5; url=http://$http_host/x"; return 204; }'
    )
    return Place(agent, gw, instance(running, "one", back), instance(running, "two"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for the tests that only add services of their own."""
    directory: Path = tmp_path_factory.mktemp("consul")
    directory.chmod(0o755)
    directory.parent.chmod(0o755)
    with Running(directory) as running:
        yield place(running, Agent(running))


# --- coming and going


def test_instances_come_and_go_promptly(shared: Place) -> None:
    agent, one, two = shared.agent, shared.one, shared.two
    assert shared.answers("web") == {"502"}
    agent.register("web", one.port)
    shared.becomes("web", "one")
    agent.register("web", two.port)
    shared.becomes("web", "one", "two")
    agent.deregister("web", one.port)
    shared.becomes("web", "two")
    agent.deregister("web", two.port)
    shared.becomes("web", "502")


def test_no_request_fails_while_instances_are_exchanged(shared: Place) -> None:
    agent, one, two = shared.agent, shared.one, shared.two
    agent.register("swap", one.port)
    shared.becomes("swap", "one")
    seen: set[str] = set()
    for turn in range(6):
        new, old = (two, one) if turn % 2 == 0 else (one, two)
        agent.register("swap", new.port)
        agent.deregister("swap", old.port)
        expected = {"two" if new is two else "one"}
        assert wait_until(lambda: seen.update(now := shared.answers("swap", count=4)) or now == expected, SECONDS)  # noqa: B023
    assert seen == {"one", "two"}


def test_a_thousand_instances_come_and_go_at_once(shared: Place) -> None:
    agent = shared.agent
    agent.register_many("crowd", [shared.one.port, *range(20_000, 21_000)])
    assert shared.get("crowd").status in (200, 502)
    size = "rt/http/client/#/io.l5d.consul/dc1/crowd/loadbalancer/size"
    assert wait_until(lambda: shared.gateway.metrics().get(size) == 1001, SECONDS)
    agent.forget_node()
    shared.becomes("crowd", "502", seconds=SECONDS)


def test_changes_in_a_row_are_taken_together(shared: Place) -> None:
    agent, updates = shared.agent, "namer/#/io.l5d.consul/service/updates"
    agent.register_many("row", [shared.one.port])
    shared.becomes("row", "one")
    before, began = shared.gateway.metrics()[updates], time.monotonic()
    agent.register_many("row", range(21_000, 21_300), at_once=1)
    size = "rt/http/client/#/io.l5d.consul/dc1/row/loadbalancer/size"
    assert wait_until(lambda: shared.gateway.metrics()[size] == 301, SECONDS)
    most = (time.monotonic() - began) / LEAST_SECONDS + 1
    assert shared.gateway.metrics()[updates] - before <= most, "one in each pause, however many changes there are"
    agent.forget_node()


def test_addresses_are_the_services_own_or_else_those_of_the_node(shared: Place) -> None:
    shared.agent.register("bare", shared.one.port, address="")
    shared.becomes("bare", "one")
    shared.agent.register("named", shared.two.port, address="localhost")
    shared.becomes("named", "two")


def test_service_name_is_found_in_any_case(shared: Place) -> None:
    shared.agent.register("mixed", shared.one.port)
    shared.becomes("MiXeD", "one", dtab="/svc => /#/io.l5d.consul/dc1 ; /svc/mixed => /#/io.l5d.consul/dc1/MiXeD")
    assert "/#/io.l5d.consul/dc1/MiXeD" in json.loads(shared.gateway.admin("/client_state.json").body)


def test_local_is_the_datacenter_of_the_agent(shared: Place) -> None:
    shared.agent.register("near", shared.one.port)
    shared.becomes("near", "one", dtab="/svc => /#/io.l5d.consul/.local")
    assert shared.state("/.local/near")["poll"]["request"].endswith("dc=dc1")


def test_unknown_datacenter_is_a_502_that_says_so(shared: Place) -> None:
    answer = shared.get("web", "/svc => /#/io.l5d.consul/nowhere")
    assert answer.status == 502
    assert f"Consul at {LOOPBACK}:{shared.agent.port}: 500 (No path to datacenter)" in answer.text


# --- options


def test_tags_of_a_name_choose_instances_and_a_union_makes_a_canary(shared: Place) -> None:
    agent, one, two = shared.agent, shared.one, shared.two
    agent.register("shop", one.port, tags=["prod", "v1"])
    agent.register("shop", two.port, tags=["Canary", "v2"])
    shared.becomes("shop", "one", dtab="/svc => /#/tagged/dc1/prod")
    shared.becomes("shop", "two", dtab="/svc => /#/tagged/dc1/canary")
    shared.becomes("shop", "502", dtab="/svc => /#/tagged/dc1/none")
    canary = "/svc => 9 * /#/tagged/dc1/prod & 1 * /#/tagged/dc1/canary"
    share = sum(shared.get("shop", canary).text == "one" for _ in range(200)) / 200
    assert 0.75 <= share < 1, share
    shared.becomes("shop", "one", dtab="/svc => /#/tagged/dc1/prod ; /svc => /#/tagged/dc1/blue | /#/tagged/dc1/prod")


def test_health_checks_take_instances_out_and_in(shared: Place) -> None:
    agent, one, two = shared.agent, shared.one, shared.two
    agent.register("sick", one.port, Check={"TTL": "10m", "Status": "passing"})
    agent.register("sick", two.port, Check={"TTL": "10m", "Status": "warning"})
    healthy, warned = "/svc => /#/healthy/dc1", "/svc => /#/warned/dc1"
    shared.becomes("sick", "one", dtab=healthy)
    shared.becomes("sick", "one", "two", dtab=warned)
    agent.check("sick", one.port, "fail")
    shared.becomes("sick", "502", dtab=healthy)
    shared.becomes("sick", "two", dtab=warned)
    shared.becomes("sick", "one", "two")
    agent.check("sick", one.port, "pass")
    agent.check("sick", two.port, "pass")
    shared.becomes("sick", "one", "two", dtab=healthy)
    agent.call("PUT", f"/v1/agent/service/maintenance/sick-{two.port}?enable=true&reason=test")
    shared.becomes("sick", "one", dtab=healthy)
    shared.becomes("sick", "one", dtab=warned)


@pytest.mark.parametrize("mode", ["stale", "consistent"])
def test_consistency_modes_are_understood_by_consul(shared: Place, mode: str) -> None:
    shared.agent.register("sure", shared.one.port)
    shared.becomes("sure", "one", dtab=f"/svc => /#/{mode}/dc1")
    assert f"{mode}=true" in shared.state("/dc1/sure", mode)["poll"]["request"]


def test_host_is_the_name_in_consuls_dns_and_redirects_are_turned_back(shared: Place) -> None:
    dtab = "/svc => /#/hosted/dc1"
    shared.agent.register("site", shared.one.port)
    shared.becomes("site", "one", dtab=dtab)
    assert shared.one.seen()[-1]["host"] == "site.service.dc1.consul"
    moved = shared.gateway.get("site", "/moved", f"l5d-dtab: {dtab}")
    assert (moved.status, moved.headers["location"]) == (302, "http://site/there")
    later = shared.gateway.get("site", "/later", f"l5d-dtab: {dtab}")
    assert (later.status, later.headers["refresh"]) == (204, "5; url=http://site/x")
    assert shared.one.seen()[-1]["host"] == "site.service.dc1.consul"


def test_weights_by_tag_and_metadata_are_shown_by_the_delegator(shared: Place) -> None:
    agent = shared.agent
    agent.register("heavy", shared.one.port, tags=["big"], Meta={"version": "7"})
    agent.register("heavy", shared.two.port, Meta={"version": "7"})
    shared.becomes("heavy", "one", "two", dtab="/svc => /#/weighted/dc1")
    share = sum(shared.get("heavy", "/svc => /#/weighted/dc1").text == "one" for _ in range(200)) / 200
    assert share > 0.75, share
    found = json.loads(shared.gateway.admin("/delegator.json?namespace=http&path=/svc/heavy&dtab=/svc=>/%23/weighted/dc1").body)
    addr = leaf_of(found)["bound"]["addr"]
    assert addr["meta"]["version"] == "7"
    assert {one["port"]: one["meta"].get("endpoint_addr_weight") for one in addr["addrs"]} == {shared.one.port: 9.0, shared.two.port: None}


# --- the dtabs of the guides


def leaf_of(node: dict[str, Any]) -> dict[str, Any]:
    while node["type"] == "delegate":
        node = node["delegate"]
    return node


GUIDES = {
    "/svc => /#/io.l5d.consul/dc1": ("/svc/guide", "/#/io.l5d.consul/dc1/guide"),
    "/consul => /#/io.l5d.consul/dc1; /svc => /$/io.buoyant.http.domainToPathPfx/consul": (
        "/svc/guide.example",
        "/#/io.l5d.consul/dc1/example",
    ),
    "/host => /#/io.l5d.consul/.local ; /svc => /$/io.buoyant.http.subdomainOfPfx/mesh.test/host": (
        "/svc/guide.mesh.test",
        "/#/io.l5d.consul/.local/guide",
    ),
}


@pytest.mark.parametrize("dtab", GUIDES)
def test_dtab_of_the_guides_resolves_in_the_delegator(shared: Place, dtab: str) -> None:
    path, bound = GUIDES[dtab]
    for service in ("guide", "example"):
        shared.agent.register(service, shared.one.port)
    body = json.dumps({"namespace": "http", "dtab": dtab, "path": path}).encode()
    answer = shared.gateway.admin("/delegator.json", body, "application/json")
    leaf = leaf_of(json.loads(answer.body))
    assert (leaf["type"], leaf.get("bound", {}).get("id")) == ("leaf", bound)
    assert leaf["bound"]["addr"]["addrs"] == [{"ip": LOOPBACK, "port": shared.one.port, "meta": {}}]


def test_dtab_command_explains_the_canary_over_a_real_consul(shared: Place) -> None:
    shared.agent.register("cli", shared.one.port, tags=["prod"])
    shared.agent.register("cli", shared.two.port, tags=["canary"])
    dtab = "/svc => 9 * /#/tagged/dc1/prod & 1 * /#/tagged/dc1/canary"
    text = {"namers": namers(shared.agent.port), "routers": [{"protocol": "http", "dtab": dtab, "servers": [{"port": 0}]}]}
    file = Path(shared.gateway.root) / "explained.yml"
    file.write_text(json.dumps(text))
    program = "import sys; from meshgw.cli.meshgw import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", program, "dtab", "/svc/cli", "--config", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for tag, weight, server in (("prod", "9.00", shared.one), ("canary", "1.00", shared.two)):
        assert f"weight {weight}: /#/tagged/dc1/{tag}/cli" in done.stdout
        assert f"{LOOPBACK}:{server.port}" in done.stdout


# --- outages


def test_outage_keeps_the_last_good_instances_and_shows_it_and_lost_state_is_learned_anew(running: Running) -> None:
    here = place(running, Agent(running))
    here.agent.register("web", here.one.port)
    here.becomes("web", "one")
    index = here.state("/dc1/web")["poll"]["response"]["index"]
    for number in range(40):  # the index before the restart is well beyond that after it
        here.agent.register("other", 30_000 + number)
    here.agent.register("web", here.two.port)
    here.becomes("web", "one", "two")
    assert here.state("/dc1/web")["poll"]["response"]["index"] > index + 20

    here.agent.stop(0.1)
    where = f"Consul at {LOOPBACK}:{here.agent.port}: "
    assert wait_until(lambda: here.state("/dc1/web")["state"]["stale"], SECONDS)
    assert here.answers("web") == {"one", "two"}
    assert here.state("/dc1/web")["poll"]["error"].startswith(where)
    assert here.gateway.metrics()["namer/#/io.l5d.consul/service/stale"] == 1
    assert where in json.loads(here.gateway.admin("/client_state.json").body)["/#/io.l5d.consul/dc1/web"]["stale"]
    unknown = here.get("unheard-of")
    assert unknown.status == 502
    assert f"{where}connection refused" in unknown.text

    here.agent.start()
    here.agent.register("web", here.one.port)
    here.becomes("web", "one", seconds=SECONDS)
    here.agent.deregister("web", here.one.port)
    here.becomes("web", "502")
    here.agent.register("web", here.two.port)
    here.becomes("web", "two")
    output = here.gateway.process.output()
    assert output.count("the last good answer stays in use") <= 2, "told once, or once each way an agent can go"
    assert f"Consul at {LOOPBACK}:{here.agent.port} answers again after" in output
    assert "Traceback" not in output


def test_agent_that_starts_after_the_gateway_is_found(running: Running) -> None:
    agent = Agent(running, start=False)
    here = place(running, agent)
    assert "connection refused" in here.get("web").text
    assert "connection refused" in here.get("web", "/svc => /#/hosted/.local").text
    agent.start()
    agent.register("web", here.one.port)
    here.becomes("web", "one", seconds=SECONDS)
    here.becomes("web", "one", dtab="/svc => /#/hosted/.local", seconds=SECONDS)


ACL = 'acl {{ enabled = true default_policy = "deny" tokens {{ master = "{root}" }} }}'
ROOT_TOKEN = "8a1fc1ae-0000-0000-0000-000000000001"
MESH_TOKEN = "8a1fc1ae-0000-0000-0000-000000000002"


def test_acl_token_is_needed_sent_and_never_shown(running: Running) -> None:
    agent = Agent(running, options=ACL.format(root=ROOT_TOKEN), token=ROOT_TOKEN)
    assert wait_until(lambda: _is_registered(agent), SECONDS)
    namer = {"kind": "io.l5d.consul", "host": LOOPBACK, "port": agent.port}
    top = {"namers": [{**namer, "token": MESH_TOKEN}, {**namer, "prefix": "/bare"}]}
    here = Place(agent, gateway(running, router={"dtab": BASE_DTAB}, top=top), instance(running, "one"), instance(running, "two"))
    agent.register("web", here.one.port)
    denied = here.get("web")
    assert denied.status == 502
    assert f"Consul at {LOOPBACK}:{agent.port}: 403 (ACL not found)" in denied.text
    assert "403 (Permission denied)" in here.get("web", "/svc => /#/bare/.local").text

    rules = 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" } agent_prefix "" { policy = "read" }'
    agent.call("PUT", "/v1/acl/policy", {"Name": "mesh", "Rules": rules})
    agent.call("PUT", "/v1/acl/token", {"SecretID": MESH_TOKEN, "Policies": [{"Name": "mesh"}]})
    here.becomes("web", "one", seconds=40.0)
    agent.call("DELETE", f"/v1/acl/token/{_accessor(agent)}")
    agent.register("web", here.two.port)
    assert wait_until(lambda: here.state("/dc1/web")["state"]["stale"], 2 * SECONDS)
    assert here.answers("web") == {"one"}, "a token that is gone takes no instance away"
    shown = [here.gateway.process.output(), denied.text, *(here.gateway.admin(page).text for page in PAGES)]
    assert not [text for text in shown if MESH_TOKEN in text]


PAGES = ("/config.json", "/namer_state/io.l5d.consul.json", "/client_state.json", "/admin/metrics.json", "/admin/registry.json")


def _is_registered(agent: Agent) -> bool:
    try:
        agent.register("probe", 1)
    except OSError:  # ACLs take a moment after the leader is there
        return False
    return bool(agent.call("GET", "/v1/catalog/service/probe"))


def _accessor(agent: Agent) -> str:
    tokens = agent.call("GET", "/v1/acl/tokens")
    found: str = next(token["AccessorID"] for token in tokens if [policy["Name"] for policy in token.get("Policies") or ()] == ["mesh"])
    return found


def test_consul_is_spoken_to_over_tls_and_a_wrong_certificate_is_told(running: Running) -> None:
    directory, root = running.directory, authority()
    certificate, key = write_files(root.leaf("consul.test"), directory, "consul")
    (directory / "ca.crt").write_bytes(root.pem)
    port = free_port()
    options = f'ports {{ https = {port} }}\ncert_file = "{certificate}"\nkey_file = "{key}"\nca_file = "{directory / "ca.crt"}"'
    agent = Agent(running, options=options)

    def namer(prefix: str, name: str) -> dict[str, Any]:
        tls = {"commonName": name, "trustCerts": [str(directory / "ca.crt")]}
        return {"kind": "io.l5d.consul", "host": LOOPBACK, "port": port, "prefix": f"/{prefix}", "tls": tls}

    gw = gateway(running, router={"dtab": BASE_DTAB}, top={"namers": [namer("good", "consul.test"), namer("bad", "other.test")]})
    here = Place(agent, gw, instance(running, "one"), instance(running, "two"))
    agent.register("web", here.one.port)
    here.becomes("web", "one", dtab="/svc => /#/good/dc1", seconds=SECONDS)
    refused = here.get("web", "/svc => /#/bad/dc1")
    assert refused.status == 502
    assert f"Consul at {LOOPBACK}:{port}: its TLS certificate is refused: " in refused.text
    assert "expected name: other.test" in refused.text


def test_datacenters_that_are_joined_are_reached_through_one_agent(running: Running) -> None:
    near = Agent(running)
    far = Agent(running, datacenter="far", join=near)
    here = place(running, near)
    near.joined(2)
    near.register("web", here.one.port)
    far.register("web", here.two.port)
    here.becomes("web", "one", seconds=SECONDS)
    here.becomes("web", "two", dtab="/svc => /#/io.l5d.consul/far", seconds=SECONDS)
    fallback = "/svc => /#/io.l5d.consul/far ; /svc => /#/io.l5d.consul/.local | /#/io.l5d.consul/far"
    here.becomes("web", "one", dtab=fallback)
    near.deregister("web", here.one.port)
    here.becomes("web", "two", dtab=fallback)


def test_more_services_than_consul_grants_connections_are_all_followed(running: Running) -> None:
    agent = Agent(running, options="limits { http_max_conns_per_client = 12 }")
    namer = {"kind": "io.l5d.consul", "host": LOOPBACK, "port": agent.port, "maxBlockingQueries": 4}
    here = Place(
        agent, gateway(running, router={"dtab": BASE_DTAB}, top={"namers": [namer]}), instance(running, "one"), instance(running, "two")
    )
    names = [f"s{number}" for number in range(14)]
    for name in names:
        agent.register(name, here.one.port)
    for name in names:
        here.becomes(name, "one", seconds=SECONDS)
    for name in names:
        agent.register(name, here.two.port)
        agent.deregister(name, here.one.port)
    for name in names:
        here.becomes(name, "two", seconds=SECONDS)
    metrics = here.gateway.metrics()
    assert metrics["namer/#/io.l5d.consul/service/active"] == 14
    assert metrics["namer/#/io.l5d.consul/service/blocking"] <= 4
