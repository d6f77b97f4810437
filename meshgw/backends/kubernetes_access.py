"""How the API server of Kubernetes is reached: through a proxy, with TLS and a token, from inside a pod, or as a kubeconfig says.

Source: linkerd-config spec 3.5; Kubernetes' documentation of service accounts (a pod's token is exchanged about every hour) and of
kubeconfig files. Tokens are read anew for each request, a kubeconfig when it changed. What is asked is ``backends.kubernetes``.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import attrs

from meshgw.backends.connecting import Connector
from meshgw.backends.hosts import Resolve
from meshgw.backends.http_client import ApiClient
from meshgw.backends.kubernetes_objects import told
from meshgw.backends.tls import TlsMaterial
from meshgw.config.kubeconfig import KubeconfigError, load_kubeconfig
from meshgw.config.kubernetes import KubernetesAccess
from meshgw.config.tls import ClientAuth, ClientTls
from meshgw.core.logger import make_logger
from meshgw.errors import BackendError, NamerError
from meshgw.telemetry.outcomes import Outcomes

_log = make_logger()

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
LARGEST_TOKEN: Final = 16_384
LARGEST_ANSWER: Final = 32 << 20
"""Bytes of one page of a list: objects have at most 1.5 MB each, and most have a few thousand bytes."""


@attrs.frozen(kw_only=True)
class AccessProblem(BackendError):
    """What is needed to ask the API server cannot be had: a token, a certificate, a kubeconfig."""

    @property
    def is_lasting(self) -> bool:
        return True


@attrs.frozen(kw_only=True)
class Reach:
    """One way to an API server, whatever the configuration says it by."""

    host: str
    port: int
    path: str = ""
    tls: ClientTls | None = None
    material: TlsMaterial = TlsMaterial()
    token: str | None = attrs.field(default=None, repr=False)
    token_file: str | None = None
    basic: str | None = attrs.field(default=None, repr=False)
    """User name and password, joined by a colon."""

    @property
    def shown(self) -> str:
        """Host and port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def reach_by_address(config: KubernetesAccess) -> Reach:
    """The server that host and port name."""
    host, port = config.address
    host = host.removeprefix("[").removesuffix("]")
    tls = config.tls
    if tls is not None and tls.common_name is None:
        tls = attrs.evolve(tls, common_name=host)
    return Reach(host=host, port=port, tls=tls, token_file=config.token_file)


def reach_in_cluster(environment: Mapping[str, str], service_account: str) -> Reach:
    """The server of the cluster that this process is a pod of. Raises :class:`NamerError` outside of one."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise NamerError(
            detail="inCluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set as in a pod; outside of a cluster use "
            "kubeconfig, or host and port of a kubectl proxy"
        )
    authority = os.path.join(service_account, "ca.crt")
    host = host.removeprefix("[").removesuffix("]")
    tls = ClientTls(common_name=host, trust_certs_bundle=authority)
    return Reach(host=host, port=int(port), tls=tls, token_file=os.path.join(service_account, "token"))


def reach_by_kubeconfig(path: str) -> Reach:
    """The server of a kubeconfig's current context. Raises :class:`KubeconfigError`."""
    found = load_kubeconfig(path)
    material = TlsMaterial(trust=found.authority, certificate=found.certificate, key=found.key, origin=path)
    own = None
    if found.certificate_file is not None and found.key_file is not None:
        own = ClientAuth(cert_path=found.certificate_file, key_path=found.key_file)
    elif found.certificate_file is not None or found.key_file is not None:  # one is in the file, the other beside it
        certificate, key = _content(found.certificate_file, found.certificate), _content(found.key_file, found.key)
        material = attrs.evolve(material, certificate=certificate, key=key)
    tls = ClientTls(
        common_name=found.server_name or found.host,
        disable_validation=found.insecure,
        trust_certs_bundle=found.authority_file,
        client_auth=own,
    )
    basic = f"{found.username}:{found.password or ''}" if found.username is not None else None
    return Reach(
        host=found.host,
        port=found.port,
        path=found.path,
        tls=tls if found.is_secure else None,
        material=material,
        token=found.token,
        token_file=found.token_file,
        basic=basic,
    )


def _content(path: str | None, data: bytes) -> bytes:
    if path is None:
        return data
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise KubeconfigError(f"{path}: {error.strerror or error}") from error


def _signature(path: str) -> object:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_size, found.st_ino


class ApiServer:
    """The API server as we reach it. ``client`` gives what to ask it with; ``start`` and ``stop`` follow the files of its TLS."""

    def __init__(
        self,
        reactor: Any,
        resolve: Resolve,
        config: KubernetesAccess,
        *,
        environment: Mapping[str, str],
        service_account: str = SERVICE_ACCOUNT,
        connector: Callable[..., Connector] = Connector,
        outcomes: Outcomes | None = None,
    ) -> None:
        """``outcomes`` counts what is asked. Raises :class:`NamerError` for a configuration that cannot be used in this process."""
        self._reactor, self._resolve, self._connect = reactor, resolve, connector
        self._kubeconfig, self._outcomes = config.kubeconfig, outcomes
        self._seen: object = None
        self._complaint = ""
        self._connector: Connector | None = None
        self._client: ApiClient | None = None
        self._credentials = ""
        self._is_started = False
        self._reach: Reach | None = None
        if config.in_cluster:
            self._reach = reach_in_cluster(environment, service_account)
        elif config.kubeconfig is None:
            self._reach = reach_by_address(config)
        else:
            with suppress(OSError, KubeconfigError):  # it is read again when the server is asked, and told about then
                self._seen, self._reach = _signature(config.kubeconfig), reach_by_kubeconfig(config.kubeconfig)
        where = f"at {self._reach.shown}" if self._reach is not None else f"of {config.kubeconfig}"
        self.name = f"Kubernetes {where}"
        """What messages call it."""

    @property
    def url(self) -> str:
        """Where it is now, for admin; empty while a kubeconfig that says so cannot be read."""
        reach = self._reach
        if reach is None:
            return ""
        return f"{'http' if reach.tls is None or not reach.tls.enabled else 'https'}://{reach.shown}{reach.path}"

    @property
    def path(self) -> str:
        """What goes in front of the paths of the API."""
        return self._reach.path if self._reach is not None else ""

    @property
    def how(self) -> str:
        """What we prove with who we are, in a message's words."""
        reach = self._reach
        if reach is not None and reach.token_file is not None:
            return f"the token in {reach.token_file}"
        if self._kubeconfig is not None:
            return f"what {self._kubeconfig} has for its current user"
        return "the proxy's credentials" if reach is None or reach.tls is None else "a request without a token"

    @property
    def clock(self) -> Any:
        """The reactor, as a clock."""
        return self._reactor

    def seconds(self) -> float:
        """The time of the clock."""
        now: float = self._reactor.seconds()
        return now

    def client(self) -> ApiClient:
        """What to ask with now. Raises :class:`BackendError` while a token or the kubeconfig cannot be read."""
        connector, reach = self._current()
        credentials = self._authorization(reach)
        if self._client is None or credentials != self._credentials:
            self._credentials = credentials
            self._client = ApiClient(
                connector.agent,
                self._reactor,
                name=self.name,
                base=connector.base,
                headers={"Authorization": credentials} if credentials else {},
                largest=LARGEST_ANSWER,
                explain=connector.refusal,
                tell=told,
                outcomes=self._outcomes,
            )
        return self._client

    def hide(self, text: str) -> str:
        """The text without our token, should the server have repeated it."""
        _, _, secret = self._credentials.partition(" ")
        return text.replace(secret, "***") if secret else text

    def _current(self) -> tuple[Connector, Reach]:
        if self._kubeconfig is not None:
            self._look(self._kubeconfig)
        reach = self._reach
        if reach is None:
            raise AccessProblem(backend=self.name, reason="it is not known how to reach it")  # pragma: no cover - _look has raised
        if self._connector is None:
            self._connector = self._connect(self._reactor, self._resolve, reach.host, reach.port, tls=reach.tls, material=reach.material)
            if self._is_started:
                self._connector.start()
        return self._connector, reach

    def _look(self, path: str) -> None:
        """Take over the kubeconfig if it changed; one that turned bad leaves what was good before."""
        try:
            seen = _signature(path)
            if seen == self._seen:
                return
            reach = reach_by_kubeconfig(path)
        except (OSError, KubeconfigError) as error:
            reason = str(error) if isinstance(error, KubeconfigError) else f"{path}: {error.strerror or error}"
            if self._reach is None:
                raise AccessProblem(backend=self.name, reason=reason) from error
            if reason != self._complaint:
                self._complaint = reason
                _log.warn("{name}: what the kubeconfig said before stays in use: {reason}", name=self.name, reason=reason)
            return
        self._seen, self._complaint = seen, ""
        if reach != self._reach:
            self._reach, self._client = reach, None
            self._drop()

    def _authorization(self, reach: Reach) -> str:
        if reach.token_file is not None:
            return f"Bearer {self._token(reach.token_file)}"
        if reach.token is not None:
            return f"Bearer {reach.token}"
        if reach.basic is not None:
            return f"Basic {base64.b64encode(reach.basic.encode()).decode('ascii')}"
        return ""

    def _token(self, path: str) -> str:
        try:
            with open(path, "rb") as file:
                token = file.read(LARGEST_TOKEN + 1).strip()
        except OSError as error:
            raise AccessProblem(backend=self.name, reason=f"the token cannot be read: {path}: {error.strerror or error}") from error
        if not token or len(token) > LARGEST_TOKEN or not token.isascii() or any(byte <= 0x20 or byte == 0x7F for byte in token):
            raise AccessProblem(backend=self.name, reason=f"{path} holds no token")
        return token.decode("ascii")

    def start(self) -> None:
        """Begin to follow the files of TLS."""
        self._is_started = True
        if self._connector is not None:
            self._connector.start()

    def stop(self) -> None:
        """End that, and close idle connections."""
        self._is_started = False
        self._drop()

    def _drop(self) -> None:
        connector, self._connector, self._client = self._connector, None, None
        if connector is not None:
            connector.stop()
