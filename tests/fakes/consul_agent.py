"""Consul's agent in memory: every question waits until the test answers it; and entries as its API has them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, unquote

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

Json = dict[str, Any]


class Response:
    """What twisted.web gives for an answer."""

    def __init__(self, code: int, headers: Headers, body: bytes) -> None:
        self.code, self.headers, self._body = code, headers, body

    def deliverBody(self, protocol: Protocol) -> None:
        protocol.dataReceived(self._body)
        protocol.connectionLost(Failure(ResponseDone()))


class Asked:
    """One question, and its answer to be."""

    def __init__(self, uri: bytes, headers: Headers) -> None:
        path, _, query = uri.decode().partition("?")
        self.path = unquote(path.partition("//")[2].partition("/")[2])
        self.raw_path = path
        self.query = dict(parse_qsl(query))
        self.headers = {name.decode().lower(): values[0].decode() for name, values in headers.getAllRawHeaders()}
        self.is_cancelled = False
        self.response: Deferred[Response] = Deferred(self._cancelled)

    def _cancelled(self, _response: object) -> None:
        self.is_cancelled = True

    def answer(self, said: object = (), *, index: object = 1, status: int = 200, **headers: str) -> None:
        """Answer with JSON, or with bytes as they are; ``index`` None leaves the header out."""
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        fields = Headers({name.replace("_", "-"): [value] for name, value in headers.items()})
        if index is not None:
            fields.setRawHeaders("X-Consul-Index", [str(index)])
        self.response.callback(Response(status, fields, body))

    def fail(self, error: Exception) -> None:
        """Have no answer."""
        self.response.errback(error)


class FakeConsul:
    """Stands for ``backends.connecting.Connector`` and its agent. ``asked`` has all questions, in order."""

    base = "http://localhost:8500"

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.agent = self
        self.is_started = False

    def request(self, method: bytes, uri: bytes, headers: Headers, _body: object = None) -> Deferred[Response]:
        """As ``IAgent.request``."""
        assert method == b"GET"
        self.asked.append(Asked(uri, headers))
        return self.asked[-1].response

    @staticmethod
    def refusal() -> str:
        """TLS refused nothing."""
        return ""

    def start(self) -> None:
        self.is_started = True

    def stop(self) -> None:
        self.is_started = False

    @property
    def open(self) -> list[Asked]:
        """The questions that wait."""
        return [asked for asked in self.asked if not asked.response.called]

    def only(self) -> Asked:
        """The question that waits, when it is one."""
        (asked,) = self.open
        return asked


def catalog_entry(port: int = 8080, address: str = "192.0.2.1", **fields: Any) -> Json:
    """An entry of `/v1/catalog/service`, with ``fields`` laid over it."""
    entry = {
        "ID": "2d5b5b0c-0000-0000-0000-000000000001",
        "Node": "one",
        "Address": address,
        "Datacenter": "dc1",
        "NodeMeta": {"consul-network-segment": ""},
        "ServiceID": f"web-{port}",
        "ServiceName": "web",
        "ServiceTags": [],
        "ServiceAddress": "",
        "ServiceWeights": {"Passing": 1, "Warning": 1},
        "ServiceMeta": {},
        "ServicePort": port,
        "CreateIndex": 13,
        "ModifyIndex": 13,
    }
    return {**entry, **fields}


def health_entry(port: int = 8080, *statuses: str, address: str = "192.0.2.1", **service: Any) -> Json:
    """An entry of `/v1/health/service` whose checks have these statuses."""
    return {
        "Node": {"Node": "one", "Address": address, "Meta": {"rack": "r1"}},
        "Service": {"ID": f"web-{port}", "Service": "web", "Tags": [], "Address": "", "Meta": {}, "Port": port, **service},
        "Checks": [{"CheckID": f"check:{number}", "Status": status} for number, status in enumerate(statuses)],
    }


AGENT = {"Config": {"Datacenter": "dc7", "NodeName": "one", "Version": "1.8.7"}, "DebugConfig": {"DNSDomain": "mesh.test."}}
"""The part of `/v1/agent/self` that counts, as Consul 1.8 gives it."""
