"""The options that everything asking a Kubernetes API server has in common: where it is, and how we prove who we are.

Source: linkerd-config spec 3.5 (``host``, ``port``: a ``kubectl proxy`` beside the gateway). ``tls``, ``tokenFile``, ``inCluster`` and
``kubeconfig`` are meshgw's own: they do without the proxy. A class of options inherits from :class:`KubernetesServer`.
"""

from __future__ import annotations

import os
from typing import Any, Final

import attrs

from meshgw.config.document import at_least, option
from meshgw.config.kubeconfig import KubeconfigError, is_loopback, load_kubeconfig
from meshgw.config.tls import ClientTls
from meshgw.config.values import Port

DEFAULT_HOST: Final = "localhost"
DEFAULT_PORT: Final = 8001  # where `kubectl proxy` listens
DEFAULT_WATCHES: Final = 400
"""Less than half of the open files that a process may have by default on most systems: callers need the others."""


def _token_file(value: Any) -> str | None:
    """The file is read when it is used, perhaps on another machine, so its absence here is no error yet."""
    return None if os.path.exists(value) else f"there is no {value} on this machine now"


def _kubeconfig(value: Any) -> str | None:
    if not os.path.exists(value):
        return None
    try:
        load_kubeconfig(value)
    except KubeconfigError as error:
        return str(error)
    return None


def _tls(value: ClientTls) -> str | None:
    return "trustCerts and trustCertsBundle exclude each other" if value.trust_certs and value.trust_certs_bundle else None


@attrs.frozen(kw_only=True)
class KubernetesAccess:
    """How we are let in; where the server is, subclasses say."""

    tls: ClientTls | None = option(
        default=None,
        doc="Speak HTTPS to host and port (meshgw's own option). `commonName` is the host unless given.",
        check=_tls,
        effective="plain HTTP, to a proxy on this machine",
    )
    token_file: str | None = option(
        default=None,
        doc="File of a bearer token, sent with each request and read again for each (meshgw's own option).",
        notice=_token_file,
        effective="none",
    )
    in_cluster: bool = option(
        default=False,
        doc="Ask the API server of the cluster this process is a pod of, as its service account (meshgw's own option).",
    )
    kubeconfig: str | None = option(
        default=None,
        doc="File as kubectl has it; its current context says which server is asked, and how (meshgw's own option).",
        check=_kubeconfig,
        notice=_token_file,
        effective="none",
    )
    max_watches: int = option(
        default=DEFAULT_WATCHES,
        doc="How many objects that names lead to are watched at a time, in each process, a quarter of these for names without any; the "
        "others are listed every 5 s, or 30 s if there is none. Each watch is a connection (meshgw's own option).",
        check=at_least(0),
    )

    @property
    def given_host(self) -> str | None:
        """The host that the file gives."""
        raise NotImplementedError  # pragma: no cover - abstract

    @property
    def given_port(self) -> int | None:
        """The port that the file gives."""
        raise NotImplementedError  # pragma: no cover - abstract

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server, unless the service account or a kubeconfig says where it is."""
        port = self.given_port
        return self.given_host or DEFAULT_HOST, DEFAULT_PORT if port is None else port

    @property
    def speaks_tls(self) -> bool:
        """Whether host and port are spoken to in HTTPS."""
        return self.tls is not None and self.tls.enabled

    def __attrs_post_init__(self) -> None:
        by_address = [
            name
            for name, value in (("host", self.given_host), ("port", self.given_port), ("tls", self.tls), ("tokenFile", self.token_file))
            if value is not None
        ]
        ways = [name for name, is_chosen in (("inCluster", self.in_cluster), ("kubeconfig", self.kubeconfig is not None)) if is_chosen]
        if by_address:
            ways.append(" and ".join(by_address))
        if len(ways) > 1:
            raise ValueError(f"{', '.join(ways)}: these are several ways to reach the API server of Kubernetes; only one may be given")
        if self.token_file is not None and not self.speaks_tls and not is_loopback(self.address[0]):
            raise ValueError(f"tokenFile without tls would send the token to {self.address[0]} in plain text")


@attrs.frozen(kw_only=True)
class KubernetesServer(KubernetesAccess):
    """Where the API server is, and how we are let in. By default it is a ``kubectl proxy`` on this machine."""

    host: str | None = option(
        default=None, doc="Host of the API server, or of a `kubectl proxy` that speaks to it for us.", effective=DEFAULT_HOST
    )
    port: Port | None = option(default=None, doc="Its port.", effective=DEFAULT_PORT)

    @property
    def given_host(self) -> str | None:
        return self.host

    @property
    def given_port(self) -> int | None:
        return self.port
