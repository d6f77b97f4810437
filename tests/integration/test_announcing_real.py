"""Servers that announce themselves in a real ZooKeeper: once, through the death of workers, reloads and expired sessions."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from meshgw.app.announcing import to_announce
from meshgw.core.interfaces import interface_addresses
from support.gateways import LOOPBACK, SECONDS, Gateway, Json, Nginx, gateway
from support.processes import Running, wait_until
from support.zookeeper import StallingProxy, ZkServer, missing

pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(missing()), reason=missing())]

SHORT_SESSION_MS, LONG_SESSION_MS = 2000, 60_000  # the long one does not end by itself, however slow the machine is
SERVES = re.compile(r"worker (\S+) serves, pid (\d+)")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZkServer]:
    """A server for all tests; each uses nodes of its own."""
    with Running(tmp_path_factory.mktemp("zookeeper")) as programs:
        yield ZkServer(programs)


@pytest.fixture
def client(shared: ZkServer) -> Iterator[Any]:
    with shared.client() as connected:
        yield connected


@pytest.fixture
def proxy(shared: ZkServer) -> Iterator[StallingProxy]:
    made = StallingProxy(shared.port)
    yield made
    made.close()


def announcing(
    running: Running, port: int, *names: str, ip: str = LOOPBACK, upstream: int = 1, session_ms: int = LONG_SESSION_MS, **top: Any
) -> Gateway:
    """A gateway that announces its server, to the ZooKeeper on ``port``."""
    announcer = {"kind": "io.l5d.serversets", "zkAddrs": [{"host": LOOPBACK, "port": port}], "sessionTimeoutMs": session_ms}
    router = {"dtab": f"/svc => /$/inet/{LOOPBACK}/{upstream}", "announcers": [announcer]}
    return gateway(running, router=router, server={"announce": list(names), "ip": ip}, top=top, name="announcing")


def members(client: Any, group: str) -> dict[str, Json]:
    """What is announced in a group, by the name of the node."""
    if not client.exists(group):
        return {}
    found = {}
    for name in client.get_children(group):
        try:
            found[name] = json.loads(client.get(f"{group}/{name}")[0])
        except client_errors():
            continue
    return found


def client_errors() -> type[Exception]:
    from kazoo.exceptions import NoNodeError

    error: type[Exception] = NoNodeError
    return error


def announced(client: Any, group: str, count: int = 1) -> dict[str, Json]:
    assert wait_until(lambda: len(members(client, group)) == count, SECONDS), members(client, group)
    return members(client, group)


def reload(running: Running, gw: Gateway, change: Any) -> None:
    """Have ``change`` change the settings, and wait until they hold."""
    file = running.directory / "announcing.yml"
    settings = json.loads(file.read_text())
    change(settings)
    file.write_text(json.dumps(settings))
    before = gw.process.output().count("the configuration is reloaded")
    gw.process.signal(signal.SIGHUP)
    assert wait_until(lambda: gw.process.output().count("the configuration is reloaded") > before, 2 * SECONDS)


def test_a_server_is_found_by_its_announcement_until_it_ends(running: Running, shared: ZkServer, client: Any) -> None:
    web = Nginx(running, 'location / { return 200 "web"; }')
    gw = announcing(running, shared.port, "/#/io.l5d.serversets/one/web", upstream=web.port)
    found = announced(client, "/discovery/one/web")
    expected = {"serviceEndpoint": {"host": LOOPBACK, "port": gw.port}, "additionalEndpoints": {}, "status": "ALIVE", "shard": 0}
    assert list(found.values()) == [expected]
    assert re.fullmatch(r"member_\d{10}", next(iter(found)))
    namer = {"kind": "io.l5d.serversets", "zkAddrs": [{"host": LOOPBACK, "port": shared.port}]}
    other = gateway(running, name="other", router={"dtab": "/svc => /#/io.l5d.serversets/discovery/one"}, top={"namers": [namer]})
    assert wait_until(lambda: other.get("web").text == "web", SECONDS), other.get("web").text
    gw.process.signal(signal.SIGTERM)
    assert gw.process.wait(SECONDS) == 0
    assert members(client, "/discovery/one/web") == {}, "it is withdrawn, and does not wait for the session to expire"
    assert "Traceback" not in gw.process.output()


def test_several_workers_announce_their_server_once_whatever_becomes_of_them(running: Running, shared: ZkServer, client: Any) -> None:
    gw = announcing(running, shared.port, "/#/io.l5d.serversets/fleet/web", workers=2)
    before = announced(client, "/discovery/fleet/web")

    def serving() -> list[tuple[str, str]]:
        return SERVES.findall(gw.process.output())

    assert wait_until(lambda: len(serving()) == 2, SECONDS)
    os.kill(int(serving()[0][1]), signal.SIGKILL)
    assert wait_until(lambda: len(serving()) == 3, SECONDS)
    assert members(client, "/discovery/fleet/web") == before
    reload(running, gw, lambda settings: settings.update(workers=1))
    assert members(client, "/discovery/fleet/web") == before, "what stays as it was is not announced anew"


def test_a_reload_announces_what_is_new_and_withdraws_what_is_gone(running: Running, shared: ZkServer, client: Any) -> None:
    gw = announcing(running, shared.port, "/#/io.l5d.serversets/a/web", "/#/io.l5d.serversets/b/web")
    kept = announced(client, "/discovery/a/web")
    announced(client, "/discovery/b/web")

    def change(settings: Json) -> None:
        settings["routers"][0]["servers"][0]["announce"] = ["/#/io.l5d.serversets/a/web", "/#/io.l5d.serversets/c/web"]

    reload(running, gw, change)
    announced(client, "/discovery/c/web")
    announced(client, "/discovery/b/web", 0)
    assert members(client, "/discovery/a/web") == kept
    reload(running, gw, lambda settings: settings["routers"][0].pop("announcers"))
    announced(client, "/discovery/a/web", 0)
    assert gw.process.says("no announcer found for /#/io.l5d.serversets/a/web of router http")
    assert gw.get("web").status == 502


def test_an_announcement_comes_back_once_after_its_session_expired(running: Running, client: Any, proxy: StallingProxy) -> None:
    gw = announcing(running, proxy.port, "/#/io.l5d.serversets/expired/web", session_ms=SHORT_SESSION_MS)
    before = announced(client, "/discovery/expired/web")
    for _ in range(2):
        proxy.stall()
        announced(client, "/discovery/expired/web", 0)
        proxy.go_on()
        now = announced(client, "/discovery/expired/web")
        assert now.keys() != before.keys()
        before = now
    client.delete(f"/discovery/expired/web/{next(iter(before))}")
    assert wait_until(lambda: len(members(client, "/discovery/expired/web").keys() - before.keys()) == 1, SECONDS)
    assert "Traceback" not in gw.process.output()


def test_a_server_serves_and_tells_while_it_cannot_be_announced(running: Running, client: Any, proxy: StallingProxy) -> None:
    proxy.stall()
    web = Nginx(running, 'location / { return 200 "web"; }')
    gw = announcing(running, proxy.port, "/#/io.l5d.serversets/late/web", upstream=web.port, session_ms=SHORT_SESSION_MS)
    assert gw.get("web").status == 200
    assert wait_until(lambda: "cannot be announced: ZooKeeper at" in gw.process.output(), SECONDS)
    state = json.loads(gw.admin("/announcer_state.json").body)["/#/io.l5d.serversets/late/web"][f"{LOOPBACK}:{gw.port}"]
    assert state["announced"] is False and "ZooKeeper at" in state["error"]
    assert b"/announcer_state.json" in gw.admin("/admin/index.txt").body
    metrics = gw.metrics()
    assert (metrics["announcements/wanted"], metrics["announcements/there"]) == (1, 0)
    proxy.go_on()
    announced(client, "/discovery/late/web")
    assert wait_until(lambda: gw.metrics()["announcements/there"] == 1, SECONDS)


def test_a_server_on_all_addresses_is_announced_with_each(running: Running, shared: ZkServer, client: Any) -> None:
    gw = announcing(running, shared.port, "/#/io.l5d.serversets/all/web", ip="0.0.0.0")
    expected = {(host, gw.port) for host in to_announce("0.0.0.0", interface_addresses())}
    found = announced(client, "/discovery/all/web", len(expected)).values()
    assert {(one["serviceEndpoint"]["host"], one["serviceEndpoint"]["port"]) for one in found} == expected


def test_a_process_that_is_killed_leaves_no_announcement_behind(running: Running, shared: ZkServer, client: Any) -> None:
    gw = announcing(running, shared.port, "/#/io.l5d.serversets/killed/web", session_ms=SHORT_SESSION_MS)
    announced(client, "/discovery/killed/web")
    gw.process.signal(signal.SIGKILL)
    announced(client, "/discovery/killed/web", 0)
