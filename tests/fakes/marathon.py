"""Marathon's REST API as documented for 1.4 to 1.11, with DC/OS's login before it, as a function for ``fakes.http_api``.

It has what is asked of it here: the list of apps, one app with its tasks, groups in ids, addresses per task, results of health checks,
the error for an unknown app, HTTP Basic, and DC/OS service accounts, whose signature it verifies. It has no event stream, deployments,
filters of the list or other ``embed`` values; it does not schedule anything; paths relative to a group are not understood.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from functools import cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fakes.http_api import Reply, Request, says

Json = dict[str, Any]
LOGIN = "/acs/api/v1/auth/login"
UID = "meshgw"


@cache
def private_key(_name: str) -> rsa.RSAPrivateKey:
    """A key for each name; making one takes long."""
    return rsa.generate_private_key(65537, 2048)


def service_account(**changes: object) -> tuple[str, rsa.RSAPublicKey]:
    """What DCOS_SERVICE_ACCOUNT_CREDENTIAL holds, with ``changes`` (None leaves a field out), and the public key of it."""
    key = private_key("own")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    fields = {"scheme": "RS256", "uid": UID, "private_key": pem, "login_endpoint": f"https://leader.mesos{LOGIN}", **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not None}), key.public_key()


class FakeMarathon:
    """Apps and their tasks. ``accounts`` (uid → key) and ``basic`` make it ask who is there; ``reply``, if set, is all it says."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.apps: dict[str, Json] = {}
        self.accounts: dict[str, rsa.RSAPublicKey] = {}
        self.basic = ""
        self.reply: Reply | None = None
        self.logins = 0
        self.tokens: set[str] = set()

    # --- what a test says

    def app(self, id: str, *addresses: str, checks: int = 0, discovery: int | None = None) -> Json:
        """Run an app with a running, healthy task at each ``host:port``, or at each IP address if it has a ``discovery`` port."""
        ports = {"ports": [{"number": discovery, "name": "http", "protocol": "tcp"}]} if discovery is not None else {"ports": []}
        app: Json = {
            "id": id,
            "cmd": "./run",
            "args": None,
            "instances": len(addresses),
            "cpus": 0.1,
            "mem": 32,
            "healthChecks": [{"protocol": "HTTP", "path": f"/health/{number}", "gracePeriodSeconds": 300} for number in range(checks)],
            "ipAddress": {"groups": [], "labels": {}, "discovery": ports, "networkName": "dcos"} if discovery is not None else None,
            "labels": {},
            "version": "2018-01-01T00:00:00.000Z",
            "tasksRunning": len(addresses),
            "tasks": [self.task(id, address, checks=checks, has_own_ip=discovery is not None) for address in addresses],
        }
        self.apps[id] = app
        return app

    @staticmethod
    def task(id: str, address: str, *, checks: int = 0, has_own_ip: bool = False) -> Json:
        host, _, port = address.partition(":")
        name = f"{id.strip('/').replace('/', '_')}.{address}"
        result = {"alive": True, "consecutiveFailures": 0, "firstSuccess": "2018-01-01T00:00:09.000Z", "taskId": name}
        task: Json = {
            "id": name,
            "appId": id,
            "slaveId": "s-1",
            "host": "192.0.2.250" if has_own_ip else host,
            "ports": [] if has_own_ip else [int(port), int(port) + 1],
            "ipAddresses": [{"ipAddress": host if has_own_ip else "172.17.0.9", "protocol": "IPv4"}],
            "state": "TASK_RUNNING",
            "startedAt": "2018-01-01T00:00:05.000Z",
        }
        if checks:
            task["healthCheckResults"] = [dict(result) for _ in range(checks)]
        return task

    def expire(self) -> None:
        """Forget all tokens that were given out."""
        self.tokens.clear()

    # --- what it answers

    def __call__(self, request: Request) -> Reply | None:
        if self.reply is not None:
            return self.reply
        if request.path == LOGIN and request.method == "POST":
            return self._log_in(request)
        if not request.path.startswith(f"{self.prefix}/v2/apps"):
            return Reply(404, b"<html>Not Found</html>", "text/html")
        if not self._lets_in(request.headers.get("authorization", "")):
            return says({"message": "Invalid username or password."}, 401)
        id = request.path.removeprefix(f"{self.prefix}/v2/apps")
        if not id:
            return says({"apps": [{name: value for name, value in app.items() if name != "tasks"} for app in self.apps.values()]})
        app = self.apps.get(id)
        if app is None:
            return says({"message": f"App '{id}' does not exist"}, 404)
        has_tasks = request.query.get("embed") == "app.tasks"
        return says({"app": {name: value for name, value in app.items() if has_tasks or name != "tasks"}})

    def _lets_in(self, authorization: str) -> bool:
        if self.accounts:
            return authorization.removeprefix("token=") in self.tokens and authorization.startswith("token=")
        return not self.basic or authorization == f"Basic {self.basic}"

    def _log_in(self, request: Request) -> Reply:
        self.logins += 1
        try:
            said = json.loads(request.body)
            head, claims, signature = said["token"].encode().split(b".")
            is_known = json.loads(_decoded(head))["alg"] == "RS256" and json.loads(_decoded(claims))["uid"] == said["uid"]
            key = self.accounts[said["uid"]]
            key.verify(_decoded(signature), head + b"." + claims, padding.PKCS1v15(), SHA256())
        except (ValueError, KeyError, InvalidSignature):
            is_known = False
        if not is_known:
            return says({"title": "Unauthorized", "description": f"Login failed for {request.body.decode()}"}, 401)
        token = f"issued.{self.logins}.{len(self.tokens)}"
        self.tokens.add(token)
        return says({"token": token})


def _decoded(part: bytes) -> bytes:
    return urlsafe_b64decode(part + b"=" * (-len(part) % 4))
