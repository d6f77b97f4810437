"""Rancher 1's metadata service, version 2015-12-19, as documented, as a function for ``fakes.http_api``.

It has the version with its long poll, in JSON or plain text as ``Accept`` has it, and the list of containers. It has no other parts of
the tree, no ``self``, and no answers by keys below ``/containers``.
"""

from __future__ import annotations

from typing import Any

from fakes.http_api import Reply, Request, says

Json = dict[str, Any]
API = "/2015-12-19"


class FakeRancher:
    """Containers of an environment; every change is a new version. ``reply``, if set, is all it says."""

    def __init__(self) -> None:
        self.containers: list[Json] = []
        self.version = 1
        self.reply: Reply | None = None
        self.fetched = 0

    def run(self, stack: str, service: str, *ips: str, state: str = "running") -> None:
        """Have exactly these containers in a service."""
        kept = [one for one in self.containers if (one["stack_name"], one["service_name"]) != (stack, service)]
        self.containers = kept + [self.container(stack, service, number, ip, state) for number, ip in enumerate(ips, 1)]
        self.version += 1

    @staticmethod
    def container(stack: str, service: str, number: int, ip: str | None, state: str) -> Json:
        return {
            "create_index": number,
            "health_state": None,
            "host_uuid": "7f0a",
            "hostname": None,
            "ips": [ip] if ip is not None else [],
            "labels": {"io.rancher.stack_service.name": f"{stack}/{service}"},
            "name": f"{stack}-{service}-{number}",
            "ports": [],
            "primary_ip": ip,
            "service_index": str(number),
            "service_name": service,
            "stack_name": stack,
            "start_count": 1,
            "state": state,
            "system": False,
            "uuid": f"{stack}-{service}-{number}",
        }

    def __call__(self, request: Request) -> Reply | None:
        if self.reply is not None:
            return self.reply
        if request.path == f"{API}/containers":
            self.fetched += 1
            return says(self.containers)
        if request.path != f"{API}/version":
            return Reply(404, b"Not found", "text/plain")
        now = f"v{self.version}"
        is_waiting = request.query.get("wait") == "true" and request.query.get("value") == now
        if is_waiting and not request.has_waited:
            return None
        return says(now) if "json" in request.headers.get("accept", "") else Reply(200, now.encode(), "text/plain")
