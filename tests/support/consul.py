"""A real Consul agent in development mode, which is a server of its own datacenter in memory, and the calls that tests make to it.

The program comes from ``.ci/packages consul``; :func:`missing` says so where it is not.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from typing import Any

from support.processes import LOOPBACK, Process, Running, free_port, wait_until
from support.servers import tool

Json = dict[str, Any]
START_SECONDS = 60.0  # two on an idle machine
MOST_IN_ONE_TRANSACTION = 60
"""Operations; Consul takes 64."""


def missing() -> str:
    """Why tests against a real Consul cannot run here; empty if they can."""
    if os.access(tool("consul"), os.X_OK):
        return ""
    return "consul is not installed: NOT testing against a real Consul (as root: .ci/packages consul)"


class Agent:
    """One agent; ``options`` are lines of its configuration in HCL. It may be stopped and started again on the same ports."""

    def __init__(
        self,
        running: Running,
        *,
        datacenter: str = "dc1",
        options: str = "",
        token: str = "",
        join: Agent | None = None,
        start: bool = True,
    ) -> None:
        self._running, self.datacenter, self.token = running, datacenter, token
        self.port, self._rpc, self._lan, self.wan = (free_port() for _ in range(4))
        self._options = options
        self._join = join
        self.process: Process | None = None
        if start:
            self.start()

    def start(self) -> None:
        """Start with empty state and wait until it has a leader, namely itself."""
        file = self._running.directory / f"consul-{self.port}.hcl"
        file.write_text(f'datacenter = "{self.datacenter}"\nnode_name = "node-{self.port}"\n{self._options}\n')
        argv = [tool("consul"), "agent", "-dev", f"-bind={LOOPBACK}", f"-client={LOOPBACK}", f"-http-port={self.port}", "-dns-port=-1"]
        argv += ["-grpc-port=-1", f"-serf-lan-port={self._lan}", f"-serf-wan-port={self.wan}", f"-server-port={self._rpc}"]
        argv += ["-log-level=warn", "-disable-host-node-id", f"-config-file={file}"]
        if self._join is not None:
            argv.append(f"-retry-join-wan={LOOPBACK}:{self._join.wan}")
        process = Process(f"consul-{self.port}", argv, self._running.directory)
        self.process = self._running.add(process, seconds=START_SECONDS, is_ready=self._is_ready)

    def stop(self, seconds: float = 5.0) -> None:
        """End it, with all it knows."""
        assert self.process is not None
        self.process.stop(seconds)

    def _is_ready(self) -> bool:
        try:
            leader = self.call("GET", "/v1/status/leader")
            nodes = self.call("GET", "/v1/catalog/nodes")
        except (OSError, ValueError):
            return False
        return bool(leader) and (bool(nodes) or "acl" in self._options)  # a node that is not in the catalog yet has no services

    def call(self, method: str, path: str, body: object = None, *, token: str | None = None) -> Any:
        """One call of its API; what it answers. Raises ``OSError`` when it refuses."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{LOOPBACK}:{self.port}{path}", data=data, method=method)
        secret = self.token if token is None else token
        if secret:
            request.add_header("X-Consul-Token", secret)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=20.0) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise OSError(f"{method} {path}: {error.code} {error.read()!r}") from error
        return json.loads(text) if text else None

    def register(self, service: str, port: int, *, tags: Sequence[str] = (), address: str = LOOPBACK, **fields: Any) -> None:
        """Register an instance at the agent, ``fields`` as the API has them; replaces the one of that service and port."""
        body: Json = {"Name": service, "ID": f"{service}-{port}", "Port": port, "Address": address, "Tags": list(tags), **fields}
        self.call("PUT", "/v1/agent/service/register", body)

    def deregister(self, service: str, port: int) -> None:
        """Take an instance away."""
        self.call("PUT", f"/v1/agent/service/deregister/{service}-{port}")

    def register_many(self, service: str, ports: Iterable[int], *, node: str = "elsewhere", at_once: int = MOST_IN_ONE_TRANSACTION) -> None:
        """Register instances on a node of the catalog that has no agent, ``at_once`` in a transaction."""
        operations: list[Json] = [{"Node": {"Verb": "set", "Node": {"Node": node, "Address": LOOPBACK}}}]
        for port in ports:
            instance = {"ID": f"{service}-{port}", "Service": service, "Port": port}
            operations.append({"Service": {"Verb": "set", "Node": node, "Service": instance}})
        for first in range(0, len(operations), at_once):
            self.call("PUT", "/v1/txn", operations[first : first + at_once])

    def forget_node(self, node: str = "elsewhere") -> None:
        """Take away such a node with all instances on it."""
        self.call("PUT", "/v1/catalog/deregister", {"Datacenter": self.datacenter, "Node": node})

    def check(self, service: str, port: int, status: str) -> None:
        """Set the TTL check of an instance: pass, warn or fail."""
        self.call("PUT", f"/v1/agent/check/{status}/service:{service}-{port}")

    def joined(self, count: int) -> None:
        """Wait until it knows ``count`` datacenters."""
        assert wait_until(lambda: len(self.call("GET", "/v1/catalog/datacenters")) == count, START_SECONDS)
