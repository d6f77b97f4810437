"""What is asked of a Kubernetes API server and what it tells: resources, the key of a watch, a snapshot of objects, events.

Source: Kubernetes' API concepts (collections, field and label selectors, watch events, Status objects). All of it is values; the
server is spoken to in ``backends.kubernetes``. Objects stay JSON data: what they mean is for those who watch them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from meshgw.backends.http_client import api_path

JsonObject = Mapping[str, Any]
Name = tuple[str, str]
"""Namespace (empty for what is in none) and name of an object."""


@attrs.frozen
class Resource:
    """A kind of objects: API group (empty for the core), version, and its name in paths and in manifests."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api(self) -> str:
        """The path of its API group and version."""
        return api_path("apis", self.group, self.version) if self.group else api_path("api", self.version)

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """The path of all objects, of those in a namespace, of one object, or of a part of it."""
        inside = ("namespaces", namespace) if namespace is not None else ()
        return self.api + api_path(*inside, self.plural, *filter(None, (name, subresource)))

    def show(self) -> str:
        """Group, version and name, for messages."""
        return f"{self.group}/{self.version} {self.plural}" if self.group else f"{self.version} {self.plural}"


ENDPOINTS: Final = Resource("", "v1", "endpoints", "Endpoints")
SERVICES: Final = Resource("", "v1", "services", "Service")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")  # from Kubernetes 1.21
ENDPOINT_SLICES_BETA: Final = Resource("discovery.k8s.io", "v1beta1", "endpointslices", "EndpointSlice")  # 1.17 to 1.24
INGRESSES: Final = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")  # from Kubernetes 1.19
INGRESSES_BETA: Final = Resource("networking.k8s.io", "v1beta1", "ingresses", "Ingress")  # 1.14 to 1.21
INGRESSES_EXTENSIONS: Final = Resource("extensions", "v1beta1", "ingresses", "Ingress")  # until 1.21; what Linkerd asks for
INGRESS_CLASSES: Final = Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass")


@attrs.frozen
class Wanted:
    """What is watched: the objects of a resource in ``namespace`` (None: in all), those of one name, and those with labels or fields.

    ``labels`` and ``fields`` are selectors as kubectl takes them, for example ``app=web``.
    """

    resource: Resource
    namespace: str | None
    name: str | None = None
    labels: str = ""
    fields: str = ""

    @property
    def path(self) -> str:
        """The path of the collection."""
        return self.resource.path(self.namespace)

    @property
    def selectors(self) -> list[tuple[str, str]]:
        """The parameters that choose among the collection. One object is chosen by its name, for which the right to it alone is enough."""
        fields = ",".join(filter(None, (f"metadata.name={self.name}" if self.name is not None else "", self.fields)))
        return [(name, value) for name, value in (("labelSelector", self.labels), ("fieldSelector", fields)) if value]

    @property
    def is_whole(self) -> bool:
        """Whether it is a whole collection: such are few, and named by the configuration; names of callers choose objects."""
        return self.name is None and not self.selectors

    def show(self) -> str:
        """In messages: ``endpoints default/web``."""
        where = f"{self.namespace or '*'}/{self.name or '*'}"
        chosen = ",".join(filter(None, (self.labels, self.fields)))
        return f"{self.resource.plural} {where}{f':{chosen}' if chosen else ''}"


_NOISE: Final = frozenset(("kubectl.kubernetes.io/last-applied-configuration", "control-plane.alpha.kubernetes.io/leader"))
"""Annotations that are dropped: the first doubles an object's size, the second changes every two seconds and tells us nothing."""


@attrs.frozen
class Objects(Mapping[Name, JsonObject]):
    """The objects of one watch at a moment, by namespace and name, in the order of their names.

    ``metadata.managedFields`` and annotations of no use here are left out. Two are equal when the objects are, whatever their
    resourceVersion: one that changed in nothing else stays the one known before, so an update by it must be a patch or ask anew.
    """

    by_name: Mapping[Name, JsonObject] = attrs.field(factory=dict, hash=False)

    def __getitem__(self, key: Name) -> JsonObject:
        return self.by_name[key]

    def __iter__(self) -> Iterator[Name]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    def one(self) -> JsonObject | None:
        """The object of a watch of one name; None while it does not exist."""
        return next(iter(self.by_name.values()), None)

    def describe(self) -> dict[str, object]:
        """For admin: how many, and the first names; never what is in them, which may be secret."""
        names = [f"{namespace}/{name}" if namespace else name for namespace, name in self.by_name]
        return {"count": len(names), "names": names[:_MOST_SHOWN]}


NO_OBJECTS: Final = Objects()
_MOST_SHOWN: Final = 50


@attrs.frozen
class Status:
    """What a Status object says: an error's HTTP code, its reason in one word, and its message."""

    code: int
    reason: str
    message: str


def read_status(value: object) -> Status | None:
    """The Status that JSON data is; None if it is none, or one that tells of success."""
    if not isinstance(value, dict) or value.get("kind") != "Status" or value.get("status") == "Success":
        return None
    code = value.get("code")
    return Status(
        code=code if isinstance(code, int) and not isinstance(code, bool) and 100 <= code < 600 else 500,
        reason=str(value.get("reason") or ""),
        message=str(value.get("message") or ""),
    )


def told(body: bytes) -> str:
    """What the body of a refusal says: the message of a Status, else the text."""
    try:
        status = read_status(json.loads(body))
    except (ValueError, RecursionError):
        status = None
    return status.message or status.reason if status is not None else body.decode("utf-8", "replace")


def name_of(value: object) -> Name | None:
    """The name of an object; None for what is none."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if not isinstance(metadata, dict):
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace") or ""
    return (namespace, name) if isinstance(name, str) and name and isinstance(namespace, str) else None


def version_of(value: object) -> str:
    """The resourceVersion of an object or list; empty if it has none."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    version = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else ""


def is_before(version: str, other: str) -> bool:
    """Whether a version is older than another; versions that are no numbers cannot be compared."""
    return all(each.isascii() and each.isdigit() for each in (version, other)) and int(version) < int(other)


def pruned(value: dict[str, Any]) -> JsonObject:
    """The object without what nobody here reads and what changes all the time."""
    metadata = dict(value["metadata"])
    metadata.pop("managedFields", None)
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict) and not _NOISE.isdisjoint(annotations):
        metadata["annotations"] = {key: text for key, text in annotations.items() if key not in _NOISE}
    return {**value, "metadata": metadata}


def same(one: JsonObject, other: JsonObject) -> bool:
    """Whether two states of an object differ in nothing but their version."""
    if one.keys() != other.keys() or any(one[key] != other[key] for key in one if key != "metadata"):
        return False
    return _unversioned(one) == _unversioned(other)


def _unversioned(value: JsonObject) -> dict[str, Any]:
    return {key: each for key, each in value["metadata"].items() if key != "resourceVersion"}
