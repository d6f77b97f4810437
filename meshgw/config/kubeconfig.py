"""A kubeconfig file: the server of its current context, and the user's credentials.

Source: Kubernetes' reference of kubeconfig v1. What would run other programs, or send requests another way, is refused with what to do
instead. Relative paths are relative to the file. No message shows a secret.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import yaml

LARGEST_FILE: Final = 4 << 20
"""Bytes; a file with the certificates of some hundred clusters has one million."""


class KubeconfigError(ValueError):
    """The file cannot be used."""


@attrs.frozen(kw_only=True)
class ClusterAccess:
    """One server and how it is spoken to. Of each pair of data and file at most one is given, data being decoded PEM."""

    host: str
    port: int
    path: str = ""
    """In front of the paths of the API, as some installations have it; without a slash at its end."""
    is_secure: bool = True
    insecure: bool = False
    server_name: str | None = None
    authority: bytes = attrs.field(default=b"", repr=False)
    authority_file: str | None = None
    certificate: bytes = attrs.field(default=b"", repr=False)
    certificate_file: str | None = None
    key: bytes = attrs.field(default=b"", repr=False)
    key_file: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    token_file: str | None = None
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)


def load_kubeconfig(path: str) -> ClusterAccess:
    """What the file says. Raises :class:`KubeconfigError`."""
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise KubeconfigError(f"{path}: {error.strerror or error}") from error
    if len(text) > LARGEST_FILE:
        raise KubeconfigError(f"{path}: larger than {LARGEST_FILE} bytes")
    try:
        return read_kubeconfig(text, os.path.dirname(os.path.abspath(path)))
    except KubeconfigError as error:
        raise KubeconfigError(f"{path}: {error}") from error


def read_kubeconfig(text: bytes, directory: str) -> ClusterAccess:
    """What a kubeconfig's text says; ``directory`` is where relative paths begin. Raises :class:`KubeconfigError`."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise KubeconfigError(f"no YAML{f' (line {mark.line + 1})' if mark is not None else ''}") from error
    if not isinstance(document, dict):
        raise KubeconfigError("no kubeconfig: expected an object with clusters, contexts and users")
    current = _text(document, "current-context", "")
    if not current:
        raise KubeconfigError("it has no current-context; choose one by `kubectl config use-context`")
    context = _named(document, "contexts", "context", current)
    cluster_name = _text(context, "cluster", f"context {current!r}")
    user_name = _text(context, "user", f"context {current!r}")
    if not cluster_name:
        raise KubeconfigError(f"context {current!r} names no cluster")
    cluster = _named(document, "clusters", "cluster", cluster_name)
    user = _named(document, "users", "user", user_name) if user_name else {}
    return _Reader(directory, f"cluster {cluster_name!r}", cluster, f"user {user_name!r}", user).access()


@attrs.frozen
class _Reader:
    directory: str
    in_cluster: str
    cluster: Mapping[str, Any]
    in_user: str
    user: Mapping[str, Any]

    def access(self) -> ClusterAccess:
        self._refuse_what_we_cannot()
        server = _text(self.cluster, "server", self.in_cluster)
        if not server:
            raise KubeconfigError(f"{self.in_cluster} has no server")
        host, port, path, is_secure = _address(server, self.in_cluster)
        authority, authority_file = self._data(self.cluster, self.in_cluster, "certificate-authority")
        certificate, certificate_file = self._data(self.user, self.in_user, "client-certificate")
        key, key_file = self._data(self.user, self.in_user, "client-key")
        if bool(certificate or certificate_file) != bool(key or key_file):
            raise KubeconfigError(f"{self.in_user}: client-certificate and client-key go together")
        insecure = self.cluster.get("insecure-skip-tls-verify", False)
        if not isinstance(insecure, bool):
            raise KubeconfigError(f"{self.in_cluster}: insecure-skip-tls-verify must be true or false")
        if insecure and (authority or authority_file):
            raise KubeconfigError(f"{self.in_cluster}: insecure-skip-tls-verify and certificate-authority exclude each other")
        token_file = _text(self.user, "tokenFile", self.in_user)
        if not is_secure and not is_loopback(host) and (token_file or any(self.user.get(name) for name in ("token", "username"))):
            raise KubeconfigError(
                f"{self.in_user} has credentials that would be sent to {host} in plain text; {self.in_cluster} needs https"
            )
        return ClusterAccess(
            host=host,
            port=port,
            path=path,
            is_secure=is_secure,
            insecure=insecure,
            server_name=_text(self.cluster, "tls-server-name", self.in_cluster) or None,
            authority=authority,
            authority_file=authority_file,
            certificate=certificate,
            certificate_file=certificate_file,
            key=key,
            key_file=key_file,
            token=None if token_file else _text(self.user, "token", self.in_user) or None,  # the file prevails, as with kubectl
            token_file=self._path(token_file) if token_file else None,
            username=_text(self.user, "username", self.in_user) or None,
            password=_text(self.user, "password", self.in_user) or None,
        )

    def _refuse_what_we_cannot(self) -> None:
        for name in ("exec", "auth-provider"):
            if self.user.get(name):
                raise KubeconfigError(
                    f"{self.in_user}: {name} runs a program that fetches credentials, which meshgw does not do; use a service account's "
                    "token (tokenFile, or inCluster: true in a pod), a client certificate, or a kubectl proxy"
                )
        if self.cluster.get("proxy-url"):
            raise KubeconfigError(f"{self.in_cluster}: proxy-url is not supported; let a kubectl proxy speak to the server (host, port)")
        for name in ("as", "as-uid", "as-groups", "as-user-extra"):
            if self.user.get(name):
                raise KubeconfigError(f"{self.in_user}: impersonation ({name}) is not supported")

    def _data(self, block: Mapping[str, Any], where: str, name: str) -> tuple[bytes, str | None]:
        """The decoded ``name-data``, which prevails as with kubectl, or the path."""
        encoded = _text(block, f"{name}-data", where)
        if encoded:
            try:
                return base64.b64decode("".join(encoded.split()), validate=True), None
            except (binascii.Error, ValueError) as error:
                raise KubeconfigError(f"{where}: {name}-data is not base64") from error
        path = _text(block, name, where)
        return b"", self._path(path) if path else None

    def _path(self, path: str) -> str:
        return os.path.join(self.directory, path)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def _address(server: str, where: str) -> tuple[str, int, str, bool]:
    try:
        url = urlsplit(server if "://" in server else f"https://{server}")
        host, port = url.hostname, url.port
    except ValueError as error:
        raise KubeconfigError(f"{where}: server is no URL: {error}") from error
    if url.scheme not in ("http", "https") or not host or url.username is not None or url.query or url.fragment:
        raise KubeconfigError(f"{where}: server must be a URL such as https://host:6443")
    is_secure = url.scheme == "https"
    return host, port or (443 if is_secure else 80), url.path.rstrip("/"), is_secure


def _named(document: Mapping[str, Any], group: str, key: str, name: str) -> Mapping[str, Any]:
    entries = document.get(group) or []
    if not isinstance(entries, list):
        raise KubeconfigError(f"{group} must be a list")
    for entry in entries:
        if isinstance(entry, dict) and entry.get("name") == name:
            found = entry.get(key) or {}
            if not isinstance(found, dict):
                raise KubeconfigError(f"{key} {name!r} must be an object")
            return found
    raise KubeconfigError(f"it has no {key} {name!r}")


def _text(block: Mapping[str, Any], name: str, where: str) -> str:
    value = block.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise KubeconfigError(f"{where}: {name} must be text" if where else f"{name} must be text")
    return value
