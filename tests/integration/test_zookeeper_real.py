"""Names in a real ZooKeeper: server sets, leaders and Curator's services through changes, outages and expired sessions."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from support.gateways import LOOPBACK, SECONDS, Gateway, Json, Nginx, gateway
from support.processes import Process, Running, free_port, wait_until
from support.zookeeper import StallingProxy, ZkServer, missing

STOPPING = """
import json, sys, threading
from random import Random
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from meshgw.backends.kazoo_session import Ensemble
from meshgw.backends.zookeeper import ZooKeeper
from meshgw.errors import BackendError
from meshgw.telemetry.metrics import Metrics

async def run():
    client = ZooKeeper(reactor, Random(1), Metrics(), Ensemble((("127.0.0.1", int(sys.argv[1])),), 2.0))
    client.startService()
    try:
        await client.view()
        print("connected", flush=True)
    except BackendError as error:
        print("not connected", flush=True)
    await task.deferLater(reactor, 0.5)
    running = len(kazoo())
    await client.stopService()
    while kazoo():
        await task.deferLater(reactor, 0.05)
    print(json.dumps({"running": running}), flush=True)

def kazoo():
    return [thread for thread in threading.enumerate() if thread.name.startswith("kazoo")]

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()).addBoth(lambda _: reactor.stop()))
reactor.run()
"""

pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(missing()), reason=missing())]

SESSION_MS = 2000
MANY = 1000


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZkServer]:
    """A server for the tests that leave it as it is; each uses nodes of its own."""
    with Running(tmp_path_factory.mktemp("zookeeper")) as programs:
        yield ZkServer(programs)


@pytest.fixture
def proxy(shared: ZkServer) -> Iterator[StallingProxy]:
    made = StallingProxy(shared.port)
    yield made
    made.close()


def member(port: int, **fields: Any) -> bytes:
    return json.dumps(
        {"serviceEndpoint": {"host": LOOPBACK, "port": port}, "additionalEndpoints": {}, "status": "ALIVE", **fields}
    ).encode()


def join(client: Any, group: str, data: bytes) -> str:
    path: str = client.create(f"{group}/member_", data, ephemeral=True, sequence=True, makepath=True)
    return path


def through(running: Running, port: int, group: str, *, kind: str = "io.l5d.serversets", name: str = "meshgw", **fields: Any) -> Gateway:
    """A gateway whose names are below a node of the ZooKeeper on ``port``."""
    namer = {"kind": kind, "zkAddrs": [{"host": LOOPBACK, "port": port}], "sessionTimeoutMs": SESSION_MS, **fields}
    router = {"dtab": f"/svc => /#/{kind}{group}; /svc/shard => /#/{kind}{group}/web:admin#1", "bindingTimeoutMs": 15_000}
    return gateway(running, router=router, top={"namers": [namer]}, name=name)


def state(gw: Gateway, kind: str = "io.l5d.serversets") -> Json:
    found: Json = json.loads(gw.admin(f"/namer_state/{kind}.json").body)
    return found


def watched(gw: Gateway, path: str, kind: str = "io.l5d.serversets") -> Json:
    found: Json = state(gw, kind).get(path, {"state": {"value": None, "stale": None}, "poll": {}})
    return found


def count(gw: Gateway, path: str) -> int:
    """How many members of a group are known."""
    return len(watched(gw, path)["state"]["value"] or ())


def becomes(gw: Gateway, status: int, host: str = "web") -> None:
    reached = wait_until(lambda: gw.get(host).status == status, SECONDS)
    assert reached, f"{gw.get(host).text}\n{state(gw)}"


def is_stale(gw: Gateway, path: str, expected: bool) -> bool:
    return wait_until(lambda: watched(gw, path)["state"]["stale"] is expected, SECONDS)


# Changes


def test_members_come_change_and_go(running: Running, shared: ZkServer) -> None:
    web = Nginx(running, 'location / { return 200 "web"; }')
    gw = through(running, shared.port, "/changes")
    with shared.client() as client:
        assert gw.get("web").status == 502
        path = join(client, "/changes/web", member(web.port, shard=0))
        becomes(gw, 200)
        assert gw.get("web:admin").status == gw.get("shard").status == 502
        client.set(path, member(web.port, status="STOPPING"))
        becomes(gw, 502)
        client.set(path, member(1, shard=1, additionalEndpoints={"admin": {"host": "localhost", "port": web.port}}))
        becomes(gw, 200, "web:admin")
        becomes(gw, 200, "shard")
    becomes(gw, 502, "web:admin")  # its session has ended
    assert "Traceback" not in gw.process.output()


def test_the_rest_of_a_name_is_its_residual(running: Running, shared: ZkServer) -> None:
    seen = Nginx(running, "location / { return 200; }")
    gw = through(running, shared.port, "/residual")
    with shared.client() as client:
        join(client, "/residual", member(seen.port))
        becomes(gw, 200, "anything")
    assert seen.wait_seen(1)[-1]["residual"] == "/anything"
    assert seen.seen()[-1]["client"] == "/#/io.l5d.serversets/residual"


def test_a_thousand_members_come_and_go_at_once(running: Running, shared: ZkServer) -> None:
    gw = through(running, shared.port, "/many")
    gw.get("web")
    with shared.client() as client:
        for made in [client.create_async("/many/web/member_", member(port + 1), sequence=True, makepath=True) for port in range(MANY)]:
            made.get(timeout=30)
        assert wait_until(lambda: count(gw, "/many/web") == MANY, SECONDS), count(gw, "/many/web")
        size = gw.metrics()["rt/http/client/#/io.l5d.serversets/many/web/loadbalancer/size"]
        assert wait_until(lambda: gw.metrics()["rt/http/client/#/io.l5d.serversets/many/web/loadbalancer/size"] == MANY, SECONDS), size
        for gone in [client.delete_async(f"/many/web/{name}") for name in client.get_children("/many/web")]:
            gone.get(timeout=30)
        assert wait_until(lambda: watched(gw, "/many/web")["state"]["value"] == [], SECONDS)
        client.delete("/many/web")
        assert wait_until(lambda: watched(gw, "/many/web")["state"]["value"] is None, SECONDS)
    assert gw.metrics()["namer/#/io.l5d.serversets/zookeeper/requests"] == 0


def test_malformed_members_are_left_out_and_told(running: Running, shared: ZkServer) -> None:
    web = Nginx(running, 'location / { return 200 "web"; }')
    gw = through(running, shared.port, "/malformed")
    with shared.client() as client:
        for data in (b"", b"junk", b"\xff\xfe", b"[" * 100_000, member(0), member(web.port)):
            join(client, "/malformed/web", data)
        becomes(gw, 200)
        told = watched(gw, "/malformed/web")
        assert len(told["state"]["value"]) == 1
        assert len(told["poll"]["unusable"]) == 5
        assert gw.process.output().count("is left out") == 5
    assert "Traceback" not in gw.process.output()


def test_leaders_are_followed_through_an_election(running: Running, shared: ZkServer) -> None:
    first, second = (Nginx(running, f'location / {{ return 200 "{name}"; }}', name=name) for name in ("first", "second"))
    gw = through(running, shared.port, "/lead", kind="io.l5d.zkLeader")
    named = gateway(running, name="named", router={"dtab": f"/svc => /$/io.buoyant.namer.zk.leader/{LOOPBACK}:{shared.port}/lead"})
    with shared.client() as client:
        leader = join(client, "/lead/us", f"{LOOPBACK}:{first.port}".encode())
        join(client, "/lead/us", f"{LOOPBACK}:{second.port}".encode())
        for each in (gw, named):
            becomes(each, 200, "us") if each is gw else None
            assert wait_until(lambda each=each: each.get("us").text == "first", SECONDS)  # type: ignore[misc]
        client.delete(leader)
        for each in (gw, named):
            assert wait_until(lambda each=each: each.get("us").text == "second", SECONDS)  # type: ignore[misc]


def test_services_of_curator_are_found(running: Running, shared: ZkServer) -> None:
    web = Nginx(running, 'location / { return 200 "web"; }')
    gw = through(running, shared.port, "", kind="io.l5d.curator", basePath="/curated", experimental=True)
    with shared.client() as client:
        assert "no addresses" in gw.get("shop").text, "it is bound, to nothing"
        instance = {"name": "shop", "id": "1", "address": "localhost", "port": web.port, "sslPort": None, "payload": None}
        client.create("/curated/shop/1", json.dumps(instance).encode(), ephemeral=True, makepath=True)
        becomes(gw, 200, "shop")


# Outages


def test_the_last_good_members_serve_while_the_server_is_gone_and_those_who_start_meanwhile_wait(running: Running) -> None:
    server, web = ZkServer(running), Nginx(running, 'location / { return 200 "web"; }')
    gw = through(running, server.port, "/outage")
    with server.client() as client:
        client.create("/outage/web/member_0000000001", member(web.port), makepath=True)
    becomes(gw, 200)
    server.stop()
    assert is_stale(gw, "/outage/web", True)
    assert gw.get("web").status == 200
    missing_name = gw.get("other")
    assert missing_name.status == 502
    assert f"ZooKeeper at {LOOPBACK}:{server.port}: {LOOPBACK}: Connection refused" in missing_name.text
    early = through(running, server.port, "/outage", name="early")
    refused = early.get("web")
    assert refused.status == 502 and "Connection refused" in refused.text
    server.start()
    assert is_stale(gw, "/outage/web", False)
    becomes(early, 200)
    assert gw.process.output().count("the last good answer stays in use") <= 2, "told once for each reason"
    assert gw.process.says("answers again after")
    server.stop()
    assert is_stale(gw, "/outage/web", True)
    server.start(fresh=True)
    becomes(gw, 502)
    with server.client() as client:
        join(client, "/outage/web", member(web.port))
        becomes(gw, 200)
    assert "Traceback" not in gw.process.output()


def test_a_stalled_connection_is_noticed_and_watches_do_not_grow_by_expired_sessions(
    running: Running, shared: ZkServer, proxy: StallingProxy
) -> None:
    web = Nginx(running, 'location / { return 200 "web"; }')
    gw = through(running, proxy.port, "/expired")
    with shared.client() as client:
        for _ in range(20):
            join(client, "/expired/web", member(web.port))
        becomes(gw, 200)
        watches = shared.figure("zk_watch_count")
        assert watches >= 21
        session = state(gw)["zookeeper"]["session"]
        for turn in range(2):
            proxy.stall()
            assert is_stale(gw, "/expired/web", True)
            assert gw.get("web").status == 200
            assert wait_until(lambda: shared.figure("zk_watch_count") < 21, SECONDS), "the server ends the session"
            join(client, "/expired/web", member(web.port))
            proxy.go_on()
            assert is_stale(gw, "/expired/web", False)
            assert wait_until(lambda turn=turn: count(gw, "/expired/web") == 21 + turn, SECONDS)  # type: ignore[misc]
            assert shared.figure("zk_watch_count") == watches + turn + 1
        assert state(gw)["zookeeper"]["session"] != session
        assert gw.metrics()["namer/#/io.l5d.serversets/zookeeper/watches"] == watches + 2
    assert "Traceback" not in gw.process.output()


def test_a_slow_server_delays_answers_and_nothing_else(running: Running, shared: ZkServer, proxy: StallingProxy) -> None:
    web = Nginx(running, 'location / { return 200 "web"; }')
    proxy.delay = 0.2
    gw = through(running, proxy.port, "/slow")
    with shared.client() as client:
        for _ in range(100):
            join(client, "/slow/web", member(web.port))
        becomes(gw, 200)
        assert watched(gw, "/slow/web")["state"]["stale"] is False


def test_what_is_no_zookeeper_is_told_and_harms_nobody(running: Running) -> None:
    other = Nginx(running, 'location / { return 200 "web"; }')
    gw = through(running, other.port, "/none")
    answer = gw.get("web")
    assert answer.status == 502
    assert f"ZooKeeper at {LOOPBACK}:{other.port}" in answer.text
    assert gw.admin("/namer_state/io.l5d.serversets.json").status == 200
    assert "Traceback" not in gw.process.output()


def test_an_answer_that_claims_to_be_huge_is_not_awaited(running: Running) -> None:
    listener = socket.create_server((LOOPBACK, 0))
    taken: list[bool] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with sock, contextlib.suppress(OSError):
                    sock.recv(1024)
                    sock.sendall(struct.pack(">i", 1 << 30) + bytes(1024))
                    sock.settimeout(SECONDS)
                    try:
                        taken.append(sock.recv(1) == b"")
                    except ConnectionResetError:  # it was closed with bytes unread
                        taken.append(True)

    threading.Thread(target=serve, daemon=True).start()
    gw = through(running, listener.getsockname()[1], "/huge")
    before = gw.resident()
    answer = gw.get("web")
    assert answer.status == 502 and "it announces an answer of 1073741824 bytes" in answer.text
    listener.close()
    assert taken and all(taken), "the connection is closed at once"
    assert gw.resident() - before < 64 << 20


def test_a_server_whose_name_cannot_be_resolved_is_told(running: Running) -> None:
    namer = {"kind": "io.l5d.serversets", "zkAddrs": [{"host": "nowhere.invalid"}]}
    router = {"dtab": "/svc => /#/io.l5d.serversets", "bindingTimeoutMs": 15_000}
    gw = gateway(running, router=router, top={"namers": [namer]})
    assert wait_until(lambda: "nowhere.invalid: its name cannot be resolved" in gw.get("web").text, SECONDS), gw.get("web").text


# Access lists


def test_nodes_with_access_lists_need_credentials_which_nobody_gets_to_see(running: Running, shared: ZkServer) -> None:
    from kazoo.security import make_digest_acl

    web = Nginx(running, 'location / { return 200 "web"; }')
    acl = [make_digest_acl("mesh", "sesame-7", all=True)]
    with shared.client(auth_data=[("digest", "mesh:sesame-7")]) as client:
        client.create("/guarded", acl=acl)
        client.create("/guarded/web", acl=acl)
        client.create("/guarded/web/member_0000000001", member(web.port), acl=acl)
    stranger = through(running, shared.port, "/guarded")
    refused = stranger.get("web")
    assert refused.status == 502 and "access denied by the node's access list" in refused.text
    auth = {"scheme": "digest", "auth": "mesh:sesame-7"}
    namer = {"kind": "io.l5d.serversets", "zkAddrs": [{"host": LOOPBACK, "port": shared.port}], "authInfo": auth}
    gw = gateway(running, name="known", router={"dtab": "/svc => /#/io.l5d.serversets/guarded"}, top={"namers": [namer]})
    assert wait_until(lambda: gw.get("web").status == 200, SECONDS)
    for page in ("/config.json", "/namer_state/io.l5d.serversets.json", "/admin/metrics.json"):
        assert b"sesame-7" not in gw.admin(page).body
    assert "sesame-7" not in gw.process.output()


def test_credentials_that_zookeeper_does_not_take_are_told(running: Running, shared: ZkServer) -> None:
    gw = through(running, shared.port, "/unknown", authInfo={"scheme": "nonsense", "auth": "sesame-7"})
    for _ in range(2):
        refused = gw.get("web")
        assert refused.status == 502 and "authentication failed; see authInfo" in refused.text
    assert "sesame-7" not in gw.process.output()
    assert "Traceback" not in gw.process.output()


# The end


def test_a_gateway_ends_in_time_although_zookeeper_is_stuck(running: Running, shared: ZkServer, proxy: StallingProxy) -> None:
    gw = through(running, proxy.port, "/end")
    gw.get("web")
    proxy.stall()
    gw.process.signal(15)
    assert gw.process.wait(SECONDS) == 0


def test_a_gateway_ends_in_time_while_it_connects(running: Running) -> None:
    gw = through(running, free_port(), "/end")
    gw.get("web")
    gw.process.signal(15)
    assert gw.process.wait(SECONDS) == 0
    assert "Traceback" not in gw.process.output()


@pytest.mark.parametrize("stalls", ["never", "when connected", "from the beginning"])
def test_all_threads_end_soon_after_the_client_is_stopped(running: Running, proxy: StallingProxy, stalls: str) -> None:
    if stalls == "from the beginning":
        proxy.stall()
    program = Process("stopping", [sys.executable, "-c", STOPPING, str(proxy.port)], running.directory)
    running.add(program, is_ready=lambda: "connected" in program.output())
    if stalls == "when connected":
        proxy.stall()
    assert program.wait(SECONDS) == 0, program.output()
    told = json.loads(program.output().splitlines()[-1])
    assert told["running"] == 3
