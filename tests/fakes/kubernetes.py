"""A scripted Kubernetes API server: objects with versions, lists, watches with history, and every way they are known to go wrong.

Built from Kubernetes' API concepts. This module is the server without its connections: :meth:`Server.answer` takes a request and gives
an answer, or a stream of events. ``fakes.kubernetes_agent`` connects it to a client in memory, under a clock that a test moves;
``fakes.kubernetes_server`` puts it behind a real socket, in a test's process or in one of its own.

What it does not do: validate objects; convert between versions (an object is served in each version as it was put, but for its
``apiVersion``); keep history by resource (a compaction is for all); server-side apply, tables, protobuf, and selectors beyond ``a=b``,
``a==b``, ``a!=b``, ``a`` and ``!a``; of fields it knows ``metadata.name`` and ``metadata.namespace``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import attrs

Json = dict[str, Any]
Key = tuple[str, str, str]
"""Plural, namespace, name."""

APIS: Mapping[str, tuple[str, ...]] = {
    "v1": ("endpoints", "services", "secrets", "configmaps"),
    "discovery.k8s.io/v1": ("endpointslices",),
    "networking.k8s.io/v1": ("ingresses", "ingressclasses"),
}
KINDS = {
    "endpoints": "Endpoints",
    "services": "Service",
    "secrets": "Secret",
    "configmaps": "ConfigMap",
    "endpointslices": "EndpointSlice",
    "ingresses": "Ingress",
    "ingressclasses": "IngressClass",
}
UNNAMESPACED = ("ingressclasses",)
HAVE_STATUS = ("ingresses", "services")
"""What has a status that is changed by requests of its own."""


class Clock(Protocol):
    """The reactor, or a test's clock."""

    def callLater(self, delay: float, function: Callable[..., object], *args: object) -> Any: ...


@attrs.define
class Asked:
    """A request; the server keeps all of them."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") in ("true", "1")


@attrs.define
class Answer:
    """A whole answer."""

    status: int
    body: bytes
    headers: dict[str, str] = attrs.field(factory=lambda: {"content-type": "application/json"})


@attrs.define(eq=False)
class Stream:
    """An open watch. ``send`` and ``end`` are set by whoever connects it; until then what is sent waits."""

    server: Server
    asked: Asked
    place: Place
    version: int
    waiting: list[bytes] = attrs.field(factory=list)
    write: Callable[[bytes], None] | None = None
    finish: Callable[[bool], None] | None = None
    ended: bool | None = None
    calls: list[Any] = attrs.field(factory=list)
    is_dead: bool = False
    """It sends nothing more, and does not end."""

    def connect(self, write: Callable[[bytes], None], finish: Callable[[bool], None]) -> None:
        """Where its bytes go; ``finish(True)`` ends it properly, ``finish(False)`` breaks it off."""
        self.write, self.finish = write, finish
        waiting, self.waiting = self.waiting, []
        for data in waiting:
            write(data)
        if self.ended is not None:
            finish(self.ended)

    def send(self, data: bytes) -> None:
        """Send bytes, in pieces if the server is told to."""
        if self.ended is not None or self.is_dead:
            return
        size = self.server.split or len(data)
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            if self.write is None:
                self.waiting.append(piece)
            else:
                self.write(piece)

    def event(self, kind: str, value: Json) -> None:
        """Send an event."""
        self.send(json.dumps({"type": kind, "object": value}).encode() + b"\n")

    def end(self, *, properly: bool = True) -> None:
        """End it."""
        if self.ended is None and not self.is_dead:
            self.ended = properly
            self.closed()
            if self.finish is not None:
                self.finish(properly)

    def closed(self) -> None:
        """The client has gone, or it was ended."""
        for call in self.calls:
            if call.active():
                call.cancel()
        self.server.streams.discard(self)

    def bookmark(self) -> None:
        """Tell the present version, if the client takes that."""
        if self.asked.query.get("allowWatchBookmarks") == "true":
            api = self.place.api_version
            value = {"kind": self.place.kind, "apiVersion": api, "metadata": {"resourceVersion": str(self.server.version)}}
            self.event("BOOKMARK", value)


@attrs.frozen
class Place:
    """What a path is about."""

    group: str
    version: str
    plural: str
    namespace: str | None = None
    name: str = ""
    subresource: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def kind(self) -> str:
        return KINDS.get(self.plural, self.plural)


def place_of(path: str) -> Place | None:
    """Read a path of the API; None for what is none of a resource."""
    labels = path.strip("/").split("/")
    if labels[0] == "api" and len(labels) > 2:
        group, version, rest = "", labels[1], labels[2:]
    elif labels[0] == "apis" and len(labels) > 3:
        group, version, rest = labels[1], labels[2], labels[3:]
    else:
        return None
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    return Place(group, version, rest[0], namespace, *rest[1:3])


def matches(selector: str, values: Mapping[str, str]) -> bool:
    """Whether labels or fields are as a selector says."""
    for term in filter(None, selector.split(",")):
        if "!=" in term:
            key, wanted = term.split("!=", 1)
            if values.get(key) == wanted:
                return False
        elif "=" in term:
            key, wanted = term.replace("==", "=").split("=", 1)
            if values.get(key) != wanted:
                return False
        elif (term.lstrip("!") in values) == term.startswith("!"):
            return False
    return True


@attrs.frozen
class Change:
    """One step of history."""

    version: int
    key: Key
    before: Json | None
    after: Json | None


@attrs.define
class Fault:
    """What the next ``count`` requests of a verb on a resource get instead of an answer."""

    verb: str
    plural: str
    count: int
    status: int
    body: bytes
    headers: dict[str, str]


class Server:
    """The server. Its objects are changed by :meth:`put` and :meth:`delete`, its behaviour by the public attributes and methods."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.objects: dict[Key, Json] = {}
        self.version = 1000
        self.oldest = 0
        """Versions before this one have been compacted away."""
        self.history: list[Change] = []
        self.streams: set[Stream] = set()
        self.asked: list[Asked] = []
        self.apis: dict[str, tuple[str, ...]] = dict(APIS)
        self.tokens: set[str] | None = None
        """Bearer tokens that are accepted; None: no token is needed."""
        self.forbidden: set[tuple[str, str, str]] = set()
        """Verb, plural, namespace that are answered 403; ``*`` stands for any."""
        self.delay = 0.0
        """Seconds before each answer."""
        self.expired = "status"
        """How a watch from too old a version ends: ``status`` (410), or 200 with an ERROR ``event``, or with a bare Status ``object``."""
        self.split = 0
        """Bytes of a stream that are sent at a time; 0: whole events."""
        self.bookmark_seconds = 0.0
        """Time between bookmarks; 0: none."""
        self.ignores_timeouts = False
        self.faults: list[Fault] = []
        self.pages: dict[str, tuple[int, list[Json]]] = {}

    # --- objects

    def put(self, plural: str, value: Json) -> Json:
        """Create or replace an object; it must have ``metadata.name``, and ``metadata.namespace`` if it is in one."""
        metadata = value["metadata"]
        key = (plural, "" if plural in UNNAMESPACED else metadata.get("namespace", "default"), metadata["name"])
        before = self.objects.get(key)
        self.version += 1
        stored = {name: copy.deepcopy(each) for name, each in value.items() if name not in ("kind", "apiVersion")}
        stored["metadata"] |= {"resourceVersion": str(self.version), "uid": f"uid-{plural}-{key[1]}-{key[2]}"}
        if key[1]:
            stored["metadata"]["namespace"] = key[1]
        self.objects[key] = stored
        self._changed(Change(self.version, key, before, stored))
        return stored

    def delete(self, plural: str, name: str, namespace: str = "default") -> None:
        """Delete an object."""
        key = (plural, "" if plural in UNNAMESPACED else namespace, name)
        before = self.objects.pop(key)
        self.version += 1
        last = copy.deepcopy(before)
        last["metadata"]["resourceVersion"] = str(self.version)
        self._changed(Change(self.version, key, last, None))

    def _changed(self, change: Change) -> None:
        self.history.append(change)
        for stream in list(self.streams):
            self._send(stream, change)

    def compact(self) -> None:
        """Forget all history: watches can begin at the present version only."""
        self.version += 1
        self.oldest, self.history = self.version, []

    def restore(self, version: int) -> None:
        """Be a server that was restored from a backup: versions count from an earlier one again."""
        self.end_watches(properly=False)
        self.version, self.oldest, self.history = version, 0, []

    # --- behaviour

    def fail(
        self,
        verb: str,
        plural: str,
        *,
        count: int = 1,
        status: int = 500,
        body: bytes | str = b"",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answer the next requests of ``verb`` (list, watch, get, …, or ``*``) on ``plural`` (or ``*``) with this."""
        data = body.encode() if isinstance(body, str) else body
        self.faults.append(Fault(verb, plural, count, status, data, headers or {"content-type": "application/json"}))

    def end_watches(self, *, properly: bool = True) -> None:
        """End all open watches, or break them off."""
        for stream in list(self.streams):
            stream.end(properly=properly)

    def silence(self) -> None:
        """Let all open watches die without a word, as when something between us loses their connections; new ones are as always."""
        for stream in list(self.streams):
            stream.is_dead = True

    def garbage(self, data: str) -> None:
        """Send raw text on all open watches."""
        for stream in list(self.streams):
            stream.send(data.encode())

    def error_event(self, code: int, reason: str = "", message: str = "") -> None:
        """Send an ERROR event on all open watches."""
        for stream in list(self.streams):
            stream.event("ERROR", status(code, reason, message))

    def bookmarks(self) -> None:
        """Send a bookmark on all open watches."""
        for stream in list(self.streams):
            stream.bookmark()

    def count(self, verb: str, plural: str) -> int:
        """How many requests there were."""
        return sum(1 for asked in self.asked if (place := place_of(asked.path)) and place.plural == plural and _verb(asked, place) == verb)

    # --- requests

    def answer(self, asked: Asked) -> Answer | Stream:
        """What a request gets, after ``delay``, which is the connection's business."""
        self.asked.append(asked)
        if self.tokens is not None and asked.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return failure(401, "Unauthorized", "Unauthorized")
        place = place_of(asked.path)
        if place is None:
            return self._discovery(asked.path)
        verb = _verb(asked, place)
        fault = next((each for each in self.faults if each.verb in ("*", verb) and each.plural in ("*", place.plural)), None)
        if fault is not None:
            fault.count -= 1
            if not fault.count:
                self.faults.remove(fault)
            return Answer(fault.status, fault.body, fault.headers)
        if place.plural not in self.apis.get(place.api_version, ()):
            return failure(404, "NotFound", "the server could not find the requested resource", text="404 page not found\n")
        if self._is_forbidden(verb, place):
            resource = "/".join(filter(None, (place.plural, place.subresource)))
            message = f'{resource} is forbidden: User "system:serviceaccount:mesh:meshgw" cannot {verb} resource "{resource}" in API group'
            return failure(403, "Forbidden", f'{message} "{place.group}" in the namespace "{place.namespace or ""}"')
        if verb == "list":
            return self._list(asked, place)
        if verb == "watch":
            return self._watch(asked, place)
        return self._one(asked, place, verb)

    def _is_forbidden(self, verb: str, place: Place) -> bool:
        resource = "/".join(filter(None, (place.plural, place.subresource)))
        return any(
            each[0] in ("*", verb) and each[1] in ("*", resource) and each[2] in ("*", place.namespace or "") for each in self.forbidden
        )

    def _discovery(self, path: str) -> Answer:
        api = path.strip("/").removeprefix("apis/").removeprefix("api/")
        if api not in self.apis:
            return failure(404, "NotFound", "the server could not find the requested resource", text="404 page not found\n")
        names = [{"name": name, "kind": KINDS[name], "namespaced": name not in UNNAMESPACED} for name in self.apis[api]]
        return whole({"kind": "APIResourceList", "groupVersion": api, "resources": names})

    def _is_chosen(self, asked: Asked, place: Place, key: Key, value: Json | None) -> bool:
        if value is None or key[0] != place.plural or (place.namespace is not None and key[1] != place.namespace):
            return False
        fields = {"metadata.name": key[2], "metadata.namespace": key[1]}
        labels = value["metadata"].get("labels") or {}
        return matches(asked.query.get("labelSelector", ""), labels) and matches(asked.query.get("fieldSelector", ""), fields)

    def _list(self, asked: Asked, place: Place) -> Answer:
        limit, following = int(asked.query.get("limit", "0")), asked.query.get("continue", "")
        if following:
            version, rest = self.pages.pop(following, (-1, []))
            if version < self.oldest:
                return failure(410, "Expired", "The provided continue parameter is too old")
        else:
            version = self.version
            rest = [self.objects[key] for key in sorted(self.objects) if self._is_chosen(asked, place, key, self.objects[key])]
        metadata: Json = {"resourceVersion": str(version)}
        page, rest = (rest[:limit], rest[limit:]) if limit else (rest, [])
        if rest:
            metadata["continue"] = f"page-{version}-{len(self.asked)}"
            self.pages[metadata["continue"]] = (version, rest)
        return whole({"kind": f"{place.kind}List", "apiVersion": place.api_version, "metadata": metadata, "items": page})

    def _shown(self, place: Place, value: Json) -> Json:
        return {**value, "kind": place.kind, "apiVersion": place.api_version}

    def _watch(self, asked: Asked, place: Place) -> Answer | Stream:
        text = asked.query.get("resourceVersion") or "0"
        if not text.isdigit():
            return failure(500, "", f'resourceVersion: Invalid value: "{text}"')
        begin = int(text)
        stream = Stream(self, asked, place, begin)
        if 0 < begin < self.oldest:
            old = status(410, "Expired", f"too old resource version: {begin} ({self.oldest})")
            if self.expired == "status":
                return Answer(410, json.dumps(old).encode())
            if self.expired == "event":
                stream.event("ERROR", old)
            else:
                stream.send(json.dumps(old).encode() + b"\n")
            stream.end()
            return stream
        if begin == 0:
            for key, value in sorted(self.objects.items(), key=_by_key):
                if self._is_chosen(asked, place, key, value):
                    stream.event("ADDED", self._shown(place, value))
            stream.version = self.version
        self.streams.add(stream)
        for change in self.history:
            self._send(stream, change)
        if not self.ignores_timeouts and asked.query.get("timeoutSeconds", "").isdigit():
            stream.calls.append(self.clock.callLater(int(asked.query["timeoutSeconds"]), stream.end))
        if self.bookmark_seconds:
            self._bookmark_later(stream)
        return stream

    def _bookmark_later(self, stream: Stream) -> None:
        def send() -> None:
            stream.calls[:] = [call for call in stream.calls if call.active()]
            stream.bookmark()
            self._bookmark_later(stream)

        stream.calls.append(self.clock.callLater(self.bookmark_seconds, send))

    def _send(self, stream: Stream, change: Change) -> None:
        if change.version <= stream.version:  # as the real one does, so that a version from the future sees nothing
            return
        stream.version = change.version
        was = self._is_chosen(stream.asked, stream.place, change.key, change.before)
        now = self._is_chosen(stream.asked, stream.place, change.key, change.after)
        if now and change.after is not None:
            stream.event("MODIFIED" if was else "ADDED", self._shown(stream.place, change.after))
        elif was and change.before is not None:
            stream.event("DELETED", self._shown(stream.place, change.before))

    def _one(self, asked: Asked, place: Place, verb: str) -> Answer:
        key = (place.plural, place.namespace or "", place.name)
        known = self.objects.get(key)
        if verb == "create":
            value = json.loads(asked.body)
            value["metadata"]["namespace"] = place.namespace or ""
            if place.plural in HAVE_STATUS:
                value.pop("status", None)
            if (place.plural, place.namespace or "", value["metadata"]["name"]) in self.objects:
                return failure(409, "AlreadyExists", f"{place.plural} already exists")
            return whole(self._shown(place, self.put(place.plural, value)), 201)
        if known is None:
            return failure(404, "NotFound", f'{place.plural} "{place.name}" not found')
        if verb == "get":
            return whole(self._shown(place, known))
        if verb == "delete":
            self.delete(place.plural, place.name, key[1])
            return whole({"kind": "Status", "status": "Success"})
        value = json.loads(asked.body)
        if verb == "patch":
            if asked.headers.get("content-type") != "application/merge-patch+json":
                return failure(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
            value = merged(known, value)
        version = value.get("metadata", {}).get("resourceVersion")
        if version not in (None, known["metadata"]["resourceVersion"]):
            return failure(409, "Conflict", f'Operation cannot be fulfilled on {place.plural} "{place.name}": the object has been modified')
        if place.subresource == "status":
            value = {**known, "status": value.get("status", {})}
        elif place.plural in HAVE_STATUS:
            value = {**value, "status": known.get("status", {})}
        fixed = ("resourceVersion", "uid", "namespace")
        value["metadata"] = {**value.get("metadata", {}), **{name: known["metadata"][name] for name in fixed if name in known["metadata"]}}
        if self._shown(place, value) == self._shown(place, known):
            return whole(self._shown(place, known))  # what changes nothing makes no version
        return whole(self._shown(place, self.put(place.plural, value)))


def _verb(asked: Asked, place: Place) -> str:
    if asked.method == "GET":
        return "watch" if asked.is_watch else "get" if place.name else "list"
    return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[asked.method]


def merged(value: Any, patch: Any) -> Any:
    """A JSON merge patch applied (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, each in patch.items():
        if each is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), each)
    return result


def status(code: int, reason: str = "", message: str = "") -> Json:
    """A Status object that tells of a failure."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}


def failure(code: int, reason: str, message: str, text: str = "") -> Answer:
    """A refusal, as a Status or as text."""
    if text:
        return Answer(code, text.encode(), {"content-type": "text/plain"})
    return Answer(code, json.dumps(status(code, reason, message)).encode())


def whole(value: Json, code: int = 200) -> Answer:
    """A good answer."""
    return Answer(code, json.dumps(value).encode())


# --- objects as manifests have them


def endpoints(
    name: str,
    *ips: str,
    ports: Mapping[str, int] | None = None,
    namespace: str = "default",
    not_ready: tuple[str, ...] = (),
    node: str | None = None,
    **metadata: Any,
) -> Json:
    """An Endpoints object of one subset; an empty port name is that of an unnamed port."""
    listed = [{**({"name": port} if port else {}), "port": number, "protocol": "TCP"} for port, number in (ports or {"http": 8080}).items()]
    subset: Json = {"ports": listed}
    if ips:
        subset["addresses"] = list(_addresses(ips, node))
    if not_ready:
        subset["notReadyAddresses"] = list(_addresses(not_ready, node))
    return {"metadata": {"name": name, "namespace": namespace, **metadata}, "subsets": [subset] if ips or not_ready else []}


def _addresses(ips: tuple[str, ...], node: str | None) -> Iterator[Json]:
    for ip in ips:
        yield {"ip": ip, **({"nodeName": node} if node else {})}


def service(name: str, *ports: Json, namespace: str = "default", **more: Any) -> Json:
    """A Service with these ``spec.ports``."""
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"ports": list(ports)}, **more}


def endpoint_slice(
    name: str,
    *items: Json | str,
    of: str,
    ports: Mapping[str, int] | None = None,
    namespace: str = "default",
    family: str = "IPv4",
    labels: Mapping[str, str] | None = None,
) -> Json:
    """An EndpointSlice of the service ``of``; an item is an address, or an endpoint as it stands in a manifest."""
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": of, **(labels or {})}},
        "addressType": family,
        "endpoints": [{"addresses": [item], "conditions": {"ready": True}} if isinstance(item, str) else item for item in items],
        "ports": [{"name": port, "port": number, "protocol": "TCP"} for port, number in (ports or {"http": 8080}).items()],
    }


def _by_key(item: tuple[Key, Json]) -> Key:
    return item[0]
