"""The Marathon and Rancher namers in a running gateway, over real sockets to servers that speak their APIs."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from fakes.http_api import ApiServer, Reply, says
from fakes.marathon import UID, FakeMarathon, service_account
from fakes.rancher import FakeRancher
from support.certs import authority, write_files
from support.gateways import LOOPBACK, MANY, SECONDS, Gateway, Nginx, gateway
from support.processes import Running, free_port, wait_until

pytestmark = pytest.mark.integration


def named(running: Running, name: str) -> Nginx:
    """nginx that answers with its own name."""
    return Nginx(running, f'location / {{ return 200 "{name}"; }}', name=name)


@pytest.fixture
def servers() -> Iterator[list[ApiServer]]:
    started: list[ApiServer] = []
    yield started
    for server in started:
        server.stop()


def answers(gw: Gateway, path: str, count: int = MANY) -> set[str]:
    return {gw.get("web", path).text for _ in range(count)}


def becomes(gw: Gateway, path: str, *expected: str) -> None:
    assert wait_until(lambda: answers(gw, path) == set(expected), SECONDS), answers(gw, path)


def by_path(running: Running, namer: dict[str, Any], prefix: str, **more: Any) -> Gateway:
    """A gateway that takes names from the first labels of the path."""
    router = {"dtab": f"/svc => {prefix}", "identifier": {"kind": "io.l5d.path", "segments": 2, "consume": False}}
    return gateway(running, top={"namers": [namer]}, router=router, **more)


# --- Marathon


def marathon_gateway(running: Running, port: int, **options: Any) -> Gateway:
    namer = {"kind": "io.l5d.marathon", "host": LOOPBACK, "port": port, "ttlMs": 300, "useHealthCheck": True, **options}
    return by_path(running, namer, "/#/io.l5d.marathon")


def test_apps_of_marathon_are_followed_through_changes_an_outage_and_nonsense(running: Running, servers: list[ApiServer]) -> None:
    one, two = named(running, "one"), named(running, "two")
    marathon, port = FakeMarathon("/marathon"), free_port()
    servers.append(ApiServer(marathon, port).start())
    gw = marathon_gateway(running, port, uriPrefix="/marathon")
    assert gw.get("web", "/shop/web").status == 502
    marathon.app("/shop/web", f"{LOOPBACK}:{one.port}", checks=1)
    becomes(gw, "/shop/web/x", "one")
    app = marathon.app("/shop/web", f"{LOOPBACK}:{one.port}", f"{LOOPBACK}:{two.port}", checks=1)
    becomes(gw, "/shop/web/x", "one", "two")
    app["tasks"][0]["healthCheckResults"][0]["alive"] = False
    becomes(gw, "/shop/web/x", "two")
    for trouble in (says({"message": "leader is away"}, 503), Reply(200, b"{", "application/json")):
        marathon.reply = trouble
        assert wait_until(lambda: tasks(gw)["/shop/web"]["state"]["stale"], SECONDS)
        assert answers(gw, "/shop/web/x") == {"two"}
        marathon.reply = None
        assert wait_until(lambda: not tasks(gw)["/shop/web"]["state"]["stale"], SECONDS)
    servers[0].stop()
    assert wait_until(lambda: "connection refused" in str(tasks(gw)["/shop/web"]["poll"]), SECONDS)
    assert answers(gw, "/shop/web/x") == {"two"}
    marathon.app("/shop/web", f"{LOOPBACK}:{one.port}")
    servers[0].start()
    becomes(gw, "/shop/web/x", "one")
    del marathon.apps["/shop/web"]
    assert wait_until(lambda: gw.get("web", "/shop/web/x").status == 502, SECONDS)


def tasks(gw: Gateway) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gw.admin("/namer_state/io.l5d.marathon.json").body)["tasks"]
    return found


def test_first_request_is_told_that_marathon_is_away(running: Running) -> None:
    port = free_port()
    answer = marathon_gateway(running, port).get("web", "/shop/web")
    assert answer.status in (502, 503)
    assert f"Marathon at 127.0.0.1:{port}: connection refused" in answer.text


def test_thousand_tasks_are_taken_over_at_once(running: Running, servers: list[ApiServer]) -> None:
    marathon, port = FakeMarathon(), free_port()
    servers.append(ApiServer(marathon, port).start())
    marathon.app("/shop/web", *(f"127.0.{number // 250}.{number % 250 + 1}:1" for number in range(1000)))
    gw = marathon_gateway(running, port)
    gw.get("web", "/shop/web")
    size = "rt/http/client/#/io.l5d.marathon/shop/web/loadbalancer/size"
    assert gw.metrics()[size] == 1000
    marathon.app("/shop/web", *(f"127.1.{number // 250}.{number % 250 + 1}:1" for number in range(999)))
    assert wait_until(lambda: gw.metrics()[size] == 999, SECONDS)


def test_service_account_logs_in_over_tls_with_a_client_certificate_and_nothing_shows_its_secrets(
    running: Running, servers: list[ApiServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, port, ca = named(running, "one"), free_port(), authority()
    certificate, key = write_files(ca.leaf("leader.mesos"), running.directory, "leader")
    own, own_key = write_files(ca.leaf("meshgw", client=True), running.directory, "own")
    trust = running.directory / "trust.pem"
    trust.write_bytes(ca.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(trust)
    context.verify_mode = ssl.CERT_REQUIRED
    marathon = FakeMarathon("/marathon")
    text, public = service_account()
    marathon.accounts[UID] = public
    marathon.app("/shop/web", f"{LOOPBACK}:{one.port}")
    servers.append(ApiServer(marathon, port, context).start())
    monkeypatch.setenv("DCOS_SERVICE_ACCOUNT_CREDENTIAL", text)
    tls = {
        "commonName": "leader.mesos",
        "trustCertsBundle": str(trust),
        "clientAuth": {"certPath": str(own), "keyPath": str(own_key)},
    }
    gw = marathon_gateway(running, port, host="leader.mesos", dst=f"/$/inet/{LOOPBACK}/{port}", uriPrefix="/marathon", tls=tls)
    becomes(gw, "/shop/web", "one")
    first = set(marathon.tokens)
    marathon.expire()
    assert wait_until(lambda: bool(marathon.tokens), SECONDS)
    assert answers(gw, "/shop/web") == {"one"}
    shown = gw.process.output() + gw.admin("/namer_state/io.l5d.marathon.json").text + gw.admin("/config.json").text
    assert UID in shown
    for secret in (*first, *marathon.tokens, "PRIVATE KEY"):
        assert secret not in shown


def test_bad_credential_is_told_at_start(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCOS_SERVICE_ACCOUNT_CREDENTIAL", service_account(scheme="HS256")[0])
    with pytest.raises(Exception) as caught:
        marathon_gateway(running, free_port())
    assert "namers[0]: DCOS_SERVICE_ACCOUNT_CREDENTIAL has the scheme 'HS256'; only RS256 is known" in str(caught.value)


# --- Rancher


def test_services_of_rancher_are_followed_through_changes_an_outage_and_a_restart(running: Running, servers: list[ApiServer]) -> None:
    web = Nginx(running, 'location / { return 200 "web"; }', name="web")
    rancher, port = FakeRancher(), free_port()
    servers.append(ApiServer(rancher, port).start())
    namer = {
        "kind": "io.l5d.rancher",
        "experimental": True,
        "host": LOOPBACK,
        "port": port,
        "maxWait": 2,
        "portMappings": {"web": web.port},
    }
    gw = by_path(running, namer, "/#/io.l5d.rancher/web")
    assert gw.get("web", "/shop/web").status == 502
    rancher.run("Shop", "Web", LOOPBACK)
    becomes(gw, "/shop/web", "web")
    rancher.run("Shop", "Web", LOOPBACK, state="stopped")
    assert wait_until(lambda: gw.get("web", "/shop/web").status == 502, SECONDS)
    rancher.run("Shop", "Web", LOOPBACK)
    becomes(gw, "/shop/web", "web")
    servers[0].stop()
    assert wait_until(lambda: bool(containers(gw)["state"]["stale"]), SECONDS)
    assert answers(gw, "/shop/web") == {"web"}
    rancher.run("Shop", "Web", "127.0.0.9", "127.0.0.8")
    servers[0].start()
    size = "rt/http/client/#/io.l5d.rancher/web/shop/web/loadbalancer/size"
    assert wait_until(lambda: gw.metrics()[size] == 2, SECONDS)
    rancher.run("Shop", "Web", *(f"127.0.{number // 250}.{number % 250 + 1}" for number in range(1000)))
    assert wait_until(lambda: gw.metrics()[size] == 1000, SECONDS)


def containers(gw: Gateway) -> Any:
    return json.loads(gw.admin("/namer_state/io.l5d.rancher.json").body)["containers"]
