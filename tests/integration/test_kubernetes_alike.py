"""The scripted Kubernetes API server beside a real one: the same requests, and a client sees the same.

What it is that they are compared in: statuses, reasons, kinds of objects and events, and what is in the objects but for what a server
makes up (versions, identifiers, times). Words of messages are not compared.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.kubernetes import ADMIN, Api, ApiServer, Etcd, Events, Json, Reply, at, endpoints, missing
from support.processes import LOOPBACK, Process, Running, free_port
from support.servers import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.skipif(bool(missing()), reason=missing())]

MADE_UP = {"resourceVersion", "uid", "creationTimestamp", "managedFields", "selfLink", "generation"}
NETWORKING = "networking.k8s.io/v1"
NOBODY = "token-of-nobody"
LIMITED = "token-of-limited"
USERS = {ADMIN: ("admin", "system:masters"), LIMITED: ("limited", "nothing")}
Seen = Iterator[tuple[str, Any]]


# --- the same view of both


def plain(value: Any) -> Any:
    """An object without what a server makes up, and without a status that says nothing."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {name: plain(each) for name, each in value.items() if name not in MADE_UP}
    if found.get("status") in ({}, {"loadBalancer": {}}):
        del found["status"]
    return found


def outcome(reply: Reply) -> Any:
    """A reply: of a refusal its status, code and reason."""
    if reply.status < 400:
        return reply.status, plain(reply.object)
    return reply.status, reply.object.get("kind"), reply.object.get("code"), reply.object.get("reason"), reply.object.get("status")


def told(event: Json | None) -> Any:
    """An event: of an error its code and reason."""
    if event is None:
        return "the end"
    if event["type"] == "ERROR":
        return "ERROR", event["object"]["kind"], event["object"]["code"], event["object"]["reason"]
    return event["type"], plain(event["object"])


def following(events: Events, count: int) -> list[Any]:
    """So many events as they come."""
    return [told(events.next()) for _ in range(count)]


def versions(objects: list[Json]) -> list[int]:
    """Their resource versions."""
    return [int(value["metadata"]["resourceVersion"]) for value in objects]


def refusal(api: Api, path: str, **query: object) -> Any:
    """What a watch is refused with."""
    with api.watch(path, **query) as events:
        answer = events.next()
        return events.status, answer and (answer.get("kind"), answer.get("code"), answer.get("reason"))


def changed(value: Json, **fields: Any) -> Json:
    return {**value, **fields}


# --- the script


def objects(api: Api) -> Seen:
    """Whole answers about single objects and lists."""
    path = at("alike", "endpoints")
    yield "a list of nothing", outcome(api.ask("GET", path))
    yield "what is not there", outcome(api.ask("GET", f"{path}/one"))
    yield "a patch of what is not there", outcome(api.ask("PATCH", f"{path}/one", {"subsets": []}))
    yield "the deletion of what is not there", outcome(api.ask("DELETE", f"{path}/one"))
    yield "a creation", outcome(api.ask("POST", path, one()))
    yield "the same once more", outcome(api.ask("POST", path, one()))
    yield "one object", outcome(api.ask("GET", f"{path}/one"))
    for name, color in (("two", "red"), ("three", "blue"), ("four", "red")):
        api.do("POST", path, endpoints(name, ["10.0.1.1"], {"http": 80}, labels={"color": color}))
    yield "a list", outcome(api.ask("GET", path))
    for selector in ("color=red", "color!=red", "color", "!color", "color==blue,color"):
        yield f"labels {selector}", outcome(api.ask("GET", path, labelSelector=selector))
    for selector in ("metadata.name=two", "metadata.name!=two", "metadata.namespace=alike,metadata.name=one", "metadata.name=none"):
        yield f"fields {selector}", outcome(api.ask("GET", path, fieldSelector=selector))
    yield "a list of all namespaces", plain([item for item in api.do("GET", "/api/v1/endpoints")["items"] if in_ours(item)])
    yield from pages(api, path)
    yield from updates(api, path)


def in_ours(value: Json) -> bool:
    return bool(value["metadata"]["namespace"] == "alike")


def one() -> Json:
    return endpoints("one", ["10.0.0.1", "10.0.0.2"], {"http": 8080}, labels={"app": "one"})


def pages(api: Api, path: str) -> Seen:
    """A list in pieces; the version is that of the first."""
    first = api.do("GET", path, limit=3)
    second = api.do("GET", path, limit=3, **{"continue": first["metadata"]["continue"]})
    yield "pages", [[item["metadata"]["name"] for item in page["items"]] for page in (first, second)]
    yield "the last page continues nowhere", second["metadata"].get("continue", "")
    yield "pages have one version", first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


def updates(api: Api, path: str) -> Seen:
    """Changes, with and without the version that they are based on."""
    before = api.do("GET", f"{path}/one")
    fresh = changed(before, subsets=[{"addresses": [{"ip": "10.0.0.3"}], "ports": [{"name": "http", "port": 1, "protocol": "TCP"}]}])
    yield "a change of the version that is there", outcome(api.ask("PUT", f"{path}/one", fresh))
    yield "a change of an older version", outcome(api.ask("PUT", f"{path}/one", fresh))
    yield "a patch of an older version", outcome(api.ask("PATCH", f"{path}/one", before))
    yield "a patch", outcome(api.ask("PATCH", f"{path}/one", {"metadata": {"labels": {"app": None, "color": "green"}}}))
    yield "a patch of another kind", outcome(api.ask("PATCH", f"{path}/one", {}, patch="no-such-patch"))
    now = api.do("GET", f"{path}/one")
    again = api.do("PUT", f"{path}/one", now)
    yield "what changes nothing makes no version", versions([now, again])[0] == versions([now, again])[1]
    yield "versions grow", versions([before])[0] < versions([again])[0]


def watches(api: Api) -> Seen:
    """Streams of events."""
    path = at("alike", "endpoints")
    begin = api.version(path)
    with api.watch(path, resourceVersion=begin) as events:
        yield "a watch begins with", events.status
        api.do("POST", path, endpoints("new", ["10.0.2.1"], {"http": 80}, labels={"color": "red"}))
        api.do("PATCH", f"{path}/new", {"metadata": {"labels": {"color": "blue"}}})
        last = api.do("GET", f"{path}/new")
        yield "a deletion", outcome(api.ask("DELETE", f"{path}/new"))[0]
        seen = events.take(3)
        yield "creation, change, deletion", [told(event) for event in seen]
        numbers = versions([event["object"] for event in seen])
        yield "each event has a version of its own", numbers == sorted(set(numbers))
        yield "a deletion has a version after the last change", numbers[2] > versions([last])[0]
    with api.watch(path, resourceVersion=begin) as events:
        yield "the same events to who comes later", following(events, 3)
    with api.watch(path, resourceVersion=begin, labelSelector="color=red") as events:
        yield "what is chosen no more is deleted", following(events, 2)
    with api.watch(path, resourceVersion=begin, labelSelector="color=blue") as events:
        yield "what is chosen now is added", following(events, 2)
    with api.watch(path, resourceVersion=begin, fieldSelector="metadata.name=one") as events:
        api.do("PATCH", f"{path}/one", {"metadata": {"labels": {"color": "black"}}})
        yield "one object's events", following(events, 1)
    with api.watch(path) as events:
        found = events.take(4)
        yield "without a version all that is there is added", sorted(json.dumps(told(event), sort_keys=True) for event in found)
    with api.watch("/api/v1/endpoints", resourceVersion=begin) as events:
        yield "all namespaces", following(events, 3)
    yield "a version that is none", refusal(api, path, resourceVersion="none")[0] >= 400


def endings(api: Api, expire: Callable[[], None]) -> Seen:
    """How watches end, and cannot begin."""
    path = at("alike", "endpoints")
    begin = api.version(path)
    with api.watch(path, resourceVersion=begin, timeoutSeconds=4, allowWatchBookmarks="true") as events:
        api.do("PATCH", f"{path}/two", {"metadata": {"labels": {"seen": "no"}}})
        now = api.version(path)
        seen: list[Json] = []
        while (event := events.next()) is not None:
            seen.append(event)
        yield "events before the end in time", [event["type"] for event in seen if event["type"] != "BOOKMARK"]
        bookmarks = [event["object"] for event in seen if event["type"] == "BOOKMARK"]
        yield "a bookmark comes before the end", bool(bookmarks)
        yield "what is in a bookmark", plain(bookmarks[-1])
        yield "a bookmark has the version of now", bookmarks[-1]["metadata"]["resourceVersion"] == now
    with api.watch(path, resourceVersion=begin, timeoutSeconds=1, fieldSelector="metadata.name=one") as events:
        yield "without bookmarks nothing comes", following(events, 1)
    part = api.do("GET", path, limit=1)["metadata"]["continue"]
    api.do("PATCH", f"{path}/two", {"metadata": {"labels": {"seen": "yes"}}})
    expire()
    with api.watch(path, resourceVersion=begin) as events:
        yield "a watch from too old a version", (events.status, following(events, 2))
    yield "the rest of too old a list", outcome(api.ask("GET", path, limit=1, **{"continue": part}))
    with api.watch(path, resourceVersion=api.version(path), timeoutSeconds=1) as events:
        yield "a watch from the present version", following(events, 1)


def rule(host: str) -> Json:
    service = {"name": "web", "port": {"name": "http"}}
    return {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": service}}]}}


def status(ip: str) -> Json:
    return {"loadBalancer": {"ingress": [{"ip": ip}]}}


def subresources(api: Api) -> Seen:
    """The status of an ingress, which is changed apart."""
    path = at("alike", "ingresses", "web", group=NETWORKING)
    ingress = {"apiVersion": NETWORKING, "kind": "Ingress", "metadata": {"name": "web"}, "spec": {"rules": [rule("a.test")]}}
    yield "a change of what is not there", outcome(api.ask("PUT", path, ingress))
    yield "an ingress", outcome(api.ask("POST", path.rpartition("/")[0], ingress))
    with api.watch(path.rpartition("/")[0], resourceVersion=api.version(path.rpartition("/")[0])) as events:
        patch = {"status": status("192.0.2.1"), "spec": {"rules": [rule("b.test")]}}
        yield "a patch of the status", outcome(api.ask("PATCH", f"{path}/status", patch))
        yield "is an event", following(events, 1)
    now = api.do("GET", path)
    yield (
        "a change of all but the status",
        outcome(api.ask("PUT", path, changed(now, status=status("192.0.2.2"), spec={"rules": [rule("c.test")]}))),
    )
    stale = changed(now, status=status("192.0.2.3"))
    yield "a status based on an older version", outcome(api.ask("PUT", f"{path}/status", stale))
    yield "a status of what is not there", outcome(api.ask("PATCH", f"{path}-not/status", {"status": status("192.0.2.3")}))
    yield "the deletion of an ingress", outcome(api.ask("DELETE", path))[0]


def apis(api: Api) -> Seen:
    """What is served, and what is not."""
    for path in ("/api/v1", f"/apis/{NETWORKING}"):
        found = api.do("GET", path)
        wanted = ("endpoints", "services", "secrets", "configmaps", "ingresses", "ingressclasses")
        listed = sorted((one["name"], one["kind"], one["namespaced"]) for one in found["resources"] if one["name"] in wanted)
        yield f"what is in {path}", (found["kind"], found["groupVersion"], listed)
    for path in ("/apis/networking.k8s.io/v9", "/apis/no.such.group/v1", "/apis/networking.k8s.io/v1/namespaces/alike/nothings"):
        yield f"{path}, which is not served", api.ask("GET", path).status
        yield f"a watch of {path}", refusal_status(api, path)


def refusal_status(api: Api, path: str) -> int:
    return api.ask("GET", path, watch="true").status


def strangers(nobody: Api, limited: Api) -> Seen:
    """Users that are unknown, or may do nothing."""
    path = at("alike", "endpoints")
    for title, api in (("somebody unknown", nobody), ("somebody without rights", limited)):
        yield f"{title} lists", outcome(api.ask("GET", path))
        yield f"{title} watches", refusal(api, path)
        yield f"{title} changes", outcome(api.ask("PATCH", at("alike", "ingresses", "web/status", group=NETWORKING), {}))


def script(api: Api, nobody: Api, limited: Api, expire: Callable[[], None]) -> Seen:
    """All of it."""
    yield from apis(api)
    yield from objects(api)
    yield from watches(api)
    yield from subresources(api)
    yield from endings(api, expire)
    yield from strangers(nobody, limited)


# --- both


def real(running: Running) -> list[tuple[str, Any]]:
    etcd = Etcd(running)
    server = ApiServer(running, etcd, users=USERS)
    server.namespace("alike")

    def expire() -> None:
        etcd.compact()
        server.kill()  # it remembers what happened since it was started, whatever etcd has forgotten
        server.start()

    return list(script(server.api, server.as_user(NOBODY), server.as_user(LIMITED), expire))


def fake(running: Running) -> list[tuple[str, Any]]:
    port = free_port()
    env = {"PYTHONPATH": str(ROOT / "tests")}
    argv = [sys.executable, "-m", "fakes.kubernetes_server", str(port)]
    running.add(Process("fake", argv, running.directory, port=port, env={**os.environ, **env}))

    def control(**calls: Any) -> None:
        urllib.request.urlopen(f"http://{LOOPBACK}:{port}/control", json.dumps(calls).encode(), timeout=20.0).close()

    control(set={"expired": "event", "bookmark_seconds": 0.7, "tokens": [ADMIN, LIMITED]})
    base = f"http://{LOOPBACK}:{port}"

    def steps() -> Seen:
        api = Api(base, ADMIN)
        *most, last = (apis(api), objects(api), watches(api), subresources(api), endings(api, lambda: control(compact=[])), None)
        assert last is None
        for part in most:
            yield from part
        control(set={"forbidden": [["*", "*", "alike"]]})
        yield from strangers(Api(base, NOBODY), Api(base, LIMITED))

    return list(steps())


def test_a_client_sees_the_same_of_the_fake_and_of_a_real_server(running: Running) -> None:
    expected, found = dict(real(running)), dict(fake(running))
    assert expected.keys() == found.keys()
    different = [f"{name}\n  real: {expected[name]}\n  fake: {found[name]}" for name in expected if expected[name] != found[name]]
    assert not different, "\n".join(different)
    assert len(expected) > 50
