"""A real Kubernetes API server with etcd behind it, and a client for its objects that also speaks to the fake one.

The programs come from `make kube-apiserver`; :func:`missing` says so where they are not. No controllers run: nothing makes
Endpoints of Services or Pods, tests do. The server refuses loopback addresses in Endpoints: those to be reached need :func:`own_address`.
"""

from __future__ import annotations

import base64
import csv
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import attrs
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from support.certs import authority, write_files
from support.processes import LOOPBACK, Process, Running, accepts, free_port, wait_until
from support.servers import ROOT

Json = dict[str, Any]
SECONDS = 20.0
START_SECONDS = 90.0  # four on an idle machine

ADMIN = "admin-token-of-tests"
USERS = {ADMIN: ("admin", "system:masters")}
"""Users that every server knows: token → name and group. The group of the administrator may do everything, whatever RBAC says."""


# --- what is needed


@cache
def programs() -> Path:
    """The folder with ``kube-apiserver``, ``etcd``, ``etcdctl`` and ``kubectl``, whether or not it is there."""
    where = subprocess.run([ROOT / ".ci" / "kube-apiserver", "where"], capture_output=True, text=True, check=True)
    return Path(where.stdout.strip())


def missing() -> str:
    """Why no real API server can be started, and what to do about it; empty if one can."""
    if all(os.access(programs() / name, os.X_OK) for name in ("kube-apiserver", "etcd", "etcdctl", "kubectl")):
        return ""
    return f"NOTHING IS TESTED AGAINST A REAL API SERVER: none in {programs()}; `make kube-apiserver` builds it, once, in ten minutes"


def own_address() -> str:
    """An IPv4 address of this machine that is no loopback one; empty if it has none. What is sent to it does not leave the machine."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses a route and sends nothing
        except OSError:
            return ""
        found: str = probe.getsockname()[0]
        return "" if found.startswith("127.") else found


# --- a client


@attrs.frozen
class Reply:
    """What the API answered: a status and an object."""

    status: int
    object: Json


class Events:
    """A watch under way."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection, self._response = connection, response
        self.status = response.status

    def next(self, seconds: float = SECONDS) -> Json | None:
        """The next event, or the error that came instead of a stream; None at the end. Raises TimeoutError."""
        if self._connection.sock is not None:
            self._connection.sock.settimeout(seconds)
        line = self._response.readline()
        return json.loads(line) if line.strip() else None

    def take(self, count: int) -> list[Json]:
        """So many events."""
        return [event for event in (self.next() for _ in range(count)) if event is not None]


class Api:
    """An API server at ``base``, such as ``https://127.0.0.1:6443``, as the user of ``token``; ``trust`` is a file of authorities."""

    def __init__(self, base: str, token: str = "", trust: str = "") -> None:
        self.base, self._token = base, token
        scheme, _, self._host = base.partition("://")
        self._context = ssl.create_default_context(cafile=trust or None) if scheme == "https" else None

    def _connect(self, seconds: float) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(self._host, timeout=seconds, context=self._context)
        return http.client.HTTPConnection(self._host, timeout=seconds)

    def _headers(self, content_type: str = "application/json") -> dict[str, str]:
        fields = {"Content-Type": content_type, "Accept": "application/json"}
        return {**fields, "Authorization": f"Bearer {self._token}"} if self._token else fields

    def ask(self, method: str, path: str, body: Json | None = None, *, patch: str = "merge-patch", **query: object) -> Reply:
        """One request; any status is an answer."""
        content_type = f"application/{patch}+json" if method == "PATCH" else "application/json"
        target = f"{path}?{urlencode(query)}" if query else path
        with closing(self._connect(SECONDS)) as connection:
            connection.request(method, target, json.dumps(body) if body is not None else None, self._headers(content_type))
            answer = connection.getresponse()
            data = answer.read()
        try:
            return Reply(answer.status, json.loads(data) if data else {})
        except ValueError:
            return Reply(answer.status, {"text": data.decode(errors="replace")})

    def do(self, method: str, path: str, body: Json | None = None, **query: object) -> Json:
        """As :meth:`ask`, and it must succeed."""
        reply = self.ask(method, path, body, **query)
        assert 200 <= reply.status < 300, f"{method} {path}: {reply.status} {reply.object.get('message', reply.object)}"
        return reply.object

    def put(self, path: str, body: Json) -> Json:
        """Make or replace the object at ``path``, whichever is needed, whatever version is there."""
        reply = self.ask("PUT", path, body)
        if reply.status == 404:
            return self.do("POST", path.rpartition("/")[0], body)
        assert reply.status < 300, f"PUT {path}: {reply.status} {reply.object.get('message', reply.object)}"
        return reply.object

    @contextmanager
    def watch(self, path: str, **query: object) -> Iterator[Events]:
        """Watch a list, with further parameters such as ``resourceVersion``."""
        with closing(self._connect(SECONDS)) as connection:
            connection.request("GET", f"{path}?{urlencode({'watch': 'true', **query})}", headers=self._headers())
            yield Events(connection, connection.getresponse())

    def version(self, path: str) -> str:
        """The resource version of a list as it is now."""
        found: str = self.do("GET", path)["metadata"]["resourceVersion"]
        return found


# --- objects


def at(namespace: str, plural: str, name: str = "", *, group: str = "") -> str:
    """The path of a namespace's objects of a kind, or of one; ``group`` is such as ``networking.k8s.io/v1``, empty for the core's."""
    root = f"/apis/{group}" if group else "/api/v1"
    return f"{root}/namespaces/{namespace}/{plural}{f'/{name}' if name else ''}"


def metadata(name: str, **further: Any) -> Json:
    """The head of an object; ``labels`` and ``annotations`` are mappings."""
    return {"name": name, **further}


def service(name: str, ports: Sequence[tuple[str, int, int | str]], *, kind: str = "ClusterIP", **further: Any) -> Json:
    """A Service with ports of name, number and target."""
    listed = [{"name": title, "port": number, "targetPort": target, "protocol": "TCP"} for title, number, target in ports]
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(name, **further), "spec": {"type": kind, "ports": listed}}


def endpoints(name: str, hosts: Sequence[str], ports: Mapping[str, int], *, not_ready: Sequence[str] = (), **further: Any) -> Json:
    """Endpoints of one subset; without hosts there is no subset, as the controller has it."""
    subset: Json = {"ports": [{"name": title, "port": port, "protocol": "TCP"} for title, port in ports.items()]}
    if hosts:
        subset["addresses"] = [{"ip": host} for host in hosts]
    if not_ready:
        subset["notReadyAddresses"] = [{"ip": host} for host in not_ready]
    subsets = [subset] if hosts or not_ready else []
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata(name, **further), "subsets": subsets}


def hosts(count: int, *, net: int = 99) -> list[str]:
    """So many different addresses that lead nowhere."""
    return [f"10.{net}.{number // 250}.{number % 250 + 1}" for number in range(count)]


# --- the server


class Etcd:
    """One etcd."""

    def __init__(self, running: Running) -> None:
        self.port, peer = free_port(), free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        members = f"http://{LOOPBACK}:{peer}"
        argv = [str(programs() / "etcd"), "--data-dir", str(running.directory / "etcd-data"), "--log-level", "warn"]
        argv += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        argv += ["--listen-peer-urls", members, "--initial-advertise-peer-urls", members, "--initial-cluster", f"default={members}"]
        self.process = running.add(Process("etcd", argv, running.directory, port=self.port))

    def _ctl(self, *words: str) -> str:
        argv = [str(programs() / "etcdctl"), f"--endpoints={self.url}", *words]
        done = subprocess.run(argv, env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, text=True, timeout=SECONDS, check=True)
        return done.stdout

    def compact(self) -> None:
        """Forget all versions but the latest, as the API server has it done every five minutes."""
        status = json.loads(self._ctl("endpoint", "status", "--write-out=json"))
        self._ctl("compaction", str(status[0]["Status"]["header"]["revision"]))


class ApiServer:
    """A kube-apiserver on a free port over ``etcd``, with RBAC. Several over one etcd are one cluster."""

    def __init__(
        self,
        running: Running,
        etcd: Etcd,
        *options: str,
        users: Mapping[str, tuple[str, str]] = USERS,
        name: str = "apiserver",
        core: int | None = None,
    ) -> None:
        self._running, directory = running, running.directory
        self.port = free_port()
        self.trust = str(directory / "authority.crt")
        Path(self.trust).write_bytes(authority().pem)
        certificate, key = write_files(authority().leaf("localhost", ips=(LOOPBACK,)), directory, name)
        tokens = directory / f"{name}-tokens.csv"
        with tokens.open("w", newline="") as file:
            csv.writer(file).writerows([token, user, user, group] for token, (user, group) in users.items())
        argv = [str(programs() / "kube-apiserver"), f"--etcd-servers={etcd.url}", "--etcd-compaction-interval=0"]
        argv += [
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            f"--secure-port={self.port}",
            "--endpoint-reconciler-type=none",
        ]
        argv += [f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}", f"--cert-dir={directory / name}"]
        argv += [f"--client-ca-file={self.trust}", f"--token-auth-file={tokens}", "--authorization-mode=RBAC"]
        argv += ["--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={_signing_key(directory)}"]
        argv += [f"--service-account-signing-key-file={_signing_key(directory)}", "--disable-admission-plugins=ServiceAccount"]
        argv += ["--service-cluster-ip-range=10.96.0.0/16", "--profiling=false", *options]
        self.process = Process(name, argv, directory, port=self.port, core=core)
        self.api = self.as_user(ADMIN)
        running.add(self.process, seconds=START_SECONDS, is_ready=self._is_ready)

    def as_user(self, token: str) -> Api:
        """A client with this token; without one it is anonymous."""
        return Api(f"https://{LOOPBACK}:{self.port}", token, self.trust)

    def _is_ready(self) -> bool:
        try:
            return accepts(self.port) and self.api.ask("GET", "/readyz").status == 200 and self.api.ask("GET", NAMESPACES).status == 200
        except (OSError, http.client.HTTPException):
            return False

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.process.signal(signal.SIGKILL)
        self.process.wait(SECONDS)

    def start(self) -> None:
        """Start it again on the same port."""
        self.process.start().wait_ready(START_SECONDS, self._is_ready)

    def namespace(self, name: str) -> str:
        """Make a namespace; its name."""
        self.api.do("POST", NAMESPACES, {"metadata": {"name": name}})
        return name

    def delete_endpoints(self, namespace: str, name: str) -> None:
        """Take the Endpoints of a service away."""
        self.api.do("DELETE", at(namespace, "endpoints", name))

    @property
    def processes(self) -> Iterator[Process]:
        """All programs that run beside it."""
        return iter(self._running)

    def proxy(self, token: str = ADMIN, *, name: str = "proxy") -> Process:
        """``kubectl proxy`` as Linkerd had it beside it."""
        port = free_port()
        argv = [str(programs() / "kubectl"), f"--kubeconfig={self.kubeconfig(token, name=name)}"]
        argv += ["proxy", f"--port={port}", f"--address={LOOPBACK}"]
        return self._running.add(Process(f"kubectl-{name}", argv, self._running.directory, port=port))

    def kubeconfig(self, token: str = "", *, user: Json | None = None, name: str = "kubeconfig") -> str:
        """The path of a file for kubectl with one context, whose user has ``token`` or is described by ``user``."""
        trust = base64.b64encode(Path(self.trust).read_bytes()).decode()
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": self.api.base, "certificate-authority-data": trust}}],
            "users": [{"name": "someone", "user": user or {"token": token}}],
            "contexts": [{"name": "default", "context": {"cluster": "here", "user": "someone"}}],
            "current-context": "default",
        }
        path = self._running.directory / f"{name}.json"  # JSON is YAML too
        path.write_text(json.dumps(document))
        return str(path)

    def allow(
        self, user: str, verbs: Sequence[str], resources: Sequence[str], *, namespace: str = "", groups: Sequence[str] = ("",)
    ) -> None:
        """Let a user do this, in one namespace or in all; it adds to what was allowed before."""
        scope = "" if namespace else "Cluster"
        root = f"/apis/rbac.authorization.k8s.io/v1{f'/namespaces/{namespace}' if namespace else ''}"
        version, title = "rbac.authorization.k8s.io/v1", f"{user}-{'-'.join((*verbs, *resources))}".lower().replace("/", "-")
        rule = {"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)}
        role = {"apiVersion": version, "kind": f"{scope}Role", "metadata": {"name": title}, "rules": [rule]}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": f"{scope}Role", "name": title}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
        binding = {
            "apiVersion": version,
            "kind": f"{scope}RoleBinding",
            "metadata": {"name": title},
            "roleRef": reference,
            "subjects": [subject],
        }
        plural = f"{scope.lower()}role"
        self.api.put(f"{root}/{plural}s/{title}", role)
        self.api.put(f"{root}/{plural}bindings/{title}", binding)

    def forbid(self, user: str, verbs: Sequence[str], resources: Sequence[str], *, namespace: str = "") -> None:
        """Take back what :meth:`allow` gave with the same words."""
        root = f"/apis/rbac.authorization.k8s.io/v1{f'/namespaces/{namespace}' if namespace else ''}"
        title = f"{user}-{'-'.join((*verbs, *resources))}".lower().replace("/", "-")
        self.api.do("DELETE", f"{root}/{'' if namespace else 'cluster'}rolebindings/{title}")


NAMESPACES = "/api/v1/namespaces"


def _signing_key(directory: Path) -> str:
    """The key of tokens for service accounts."""
    path = directory / "accounts.key"
    if not path.exists():
        key = rsa.generate_private_key(65537, 2048)
        form = serialization.PrivateFormat.TraditionalOpenSSL
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return str(path)


def until(statement: Any, what: str, seconds: float = SECONDS) -> None:
    """Wait until ``statement()`` is true, which it must become."""
    assert wait_until(statement, seconds), f"{what}: not within {seconds:g} s"
