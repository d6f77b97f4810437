"""Marathon's REST API: which apps there are, where their tasks run, and how to be let in.

Source: linkerd-config spec 3.6; Marathon's REST API (``/v2/apps``); DC/OS service accounts (RFC 7519 tokens signed with RS256). What
cannot be understood of one task leaves out that task, not the app. When it is asked is the namer's business.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.internet.defer import DeferredLock

from meshgw.backends.endpoints import NO_ENDPOINTS, Endpoint, Endpoints, Found
from meshgw.backends.http_client import ApiAnswer, ApiClient, api_path

SERVICE_ACCOUNT: Final = "DCOS_SERVICE_ACCOUNT_CREDENTIAL"
BASIC: Final = "MARATHON_HTTP_AUTH_CREDENTIAL"
LARGEST_ANSWER: Final = 32 << 20
"""Bytes: the list has every app's whole definition, some kilobytes each, and 5 MiB would end at some two thousand apps."""
ANSWER_SECONDS: Final = 9.0
"""Under the 10 s of a binding, so that its error names the cause."""


# --- credentials


@attrs.frozen(kw_only=True)
class ServiceAccount:
    """A DC/OS service account: it logs in with a token that it signs, and gets one that requests carry."""

    login_path: str
    uid: str
    key: RSAPrivateKey = attrs.field(repr=False)

    def signed_token(self) -> str:
        """The JSON web token that proves who we are."""
        signed = b".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "RS256", "typ": "JWT"}, {"uid": self.uid}))
        return b".".join((signed, _base64(self.key.sign(signed, PKCS1v15(), SHA256())))).decode("ascii")


@attrs.frozen
class Basic:
    """What follows ``Basic`` in ``Authorization``."""

    value: str = attrs.field(repr=False)


Credential = ServiceAccount | Basic


def read_credential(environment: Mapping[str, str]) -> Credential | None:
    """The credential in the environment; the service account counts if there are both. Raises ValueError, which shows no secret."""
    account, basic = environment.get(SERVICE_ACCOUNT), environment.get(BASIC)
    if account:
        return _read_account(account)
    if not basic:
        return None
    if not _is_token(basic):
        raise ValueError(f"{BASIC} must be the base64 text that follows `Basic` in a header, without spaces")
    return Basic(basic)


def _read_account(text: str) -> ServiceAccount:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ValueError(f"{SERVICE_ACCOUNT} is not a JSON object")
    for name in ("login_endpoint", "private_key", "scheme", "uid"):
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise ValueError(f"{SERVICE_ACCOUNT} lacks the text {name!r}")
    if fields["scheme"] != "RS256":
        raise ValueError(f"{SERVICE_ACCOUNT} has the scheme {fields['scheme'][:20]!r}; only RS256 is known")
    return ServiceAccount(login_path=_login_path(fields["login_endpoint"]), uid=fields["uid"], key=_read_key(fields["private_key"]))


def _login_path(endpoint: str) -> str:
    try:
        path = urlsplit(endpoint).path
    except ValueError:
        path = ""
    if not path.startswith("/") or not is_url_path(path):
        raise ValueError(f"{SERVICE_ACCOUNT}: login_endpoint is not a URL with a path, such as https://leader.mesos/acs/api/v1/auth/login")
    return path


def _read_key(pem: str) -> RSAPrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the reason is dropped: it may quote what it read
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(f"{SERVICE_ACCOUNT}: private_key is not an RSA key in PEM form without a password")
    return key


def is_url_path(text: str) -> bool:
    """Whether the text can stand in a request as it is."""
    return text.isascii() and text.isprintable() and not set(text) & set(' "<>\\^`{|}?#')


def _is_token(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _base64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


# --- asking


class MarathonApi:
    """The API behind ``client``. ``prefix`` stands before its paths, ``host`` is what requests are addressed to."""

    def __init__(self, client: ApiClient, *, prefix: str, host: str, credential: Credential | None) -> None:
        self._client, self._prefix, self._headers, self._credential = client, prefix, {"Host": host}, credential
        self._token = f"Basic {credential.value}" if isinstance(credential, Basic) else ""
        self._turn = DeferredLock()

    async def app_ids(self) -> frozenset[str]:
        """The ids of all apps. Raises :class:`BackendError`."""
        asked = "its apps"
        return read_app_ids(self._client, await self._get(api_path("v2", "apps"), (), asked), asked)

    async def tasks(self, app: str, *, healthy_only: bool) -> Found:
        """Where the tasks of an app can be reached; none if there are none, or no such app. Raises :class:`BackendError`."""
        path = api_path("v2", "apps", *app.strip("/").split("/"))
        answer = await self._get(path, (("embed", "app.tasks"),), app)
        if answer.status == 404:
            return NO_ENDPOINTS
        return read_tasks(self._client, answer, app, healthy_only=healthy_only)

    async def _get(self, path: str, query: tuple[tuple[str, str], ...], asked: str) -> ApiAnswer:
        token = await self._authorization("")
        answer = await self._send(path, query, asked, token)
        if answer.status == 401 and isinstance(self._credential, ServiceAccount):
            token = await self._authorization(token)
            answer = await self._send(path, query, asked, token)
        if not answer.is_good and not (answer.status == 404 and query):
            raise self._client.refused(_without(answer, token), asked)
        return answer

    async def _send(self, path: str, query: tuple[tuple[str, str], ...], asked: str, token: str) -> ApiAnswer:
        headers = {**self._headers, "Authorization": token} if token else self._headers
        return await self._client.get(self._prefix + path, query, seconds=ANSWER_SECONDS, asked=asked, headers=headers)

    async def _authorization(self, refused: str) -> str:
        """What requests carry; a new one if the present one is what was ``refused``. One login serves all that wait for it."""
        account = self._credential
        if not isinstance(account, ServiceAccount) or self._token != refused:
            return self._token
        await self._turn.acquire()
        try:
            if self._token == refused:
                self._token = f"token={await self._log_in(account)}"
            return self._token
        finally:
            self._turn.release()

    async def _log_in(self, account: ServiceAccount) -> str:
        client, asked, proof = self._client, f"a login as {account.uid}", account.signed_token()
        body = json.dumps({"uid": account.uid, "token": proof}).encode()
        headers = {**self._headers, "Content-Type": "application/json"}
        answer = await client.request("POST", account.login_path, seconds=ANSWER_SECONDS, asked=asked, headers=headers, body=body)
        if not answer.is_good:
            raise client.refused(_without(answer, proof), asked)
        fields = client.read_json(answer.body, asked)
        token = fields.get("token") if isinstance(fields, dict) else None
        if not isinstance(token, str) or not token or not _is_token(token):
            raise client.malformed("a login without token", asked)
        return token


def _without(answer: ApiAnswer, secret: str) -> ApiAnswer:
    """The answer, if it repeats what we sent, without that."""
    for part in (secret, secret.partition("=")[2], secret.partition(" ")[2]):
        if part:
            answer = attrs.evolve(answer, body=answer.body.replace(part.encode(), b"***"))
    return answer


# --- reading


def read_app_ids(client: ApiClient, answer: ApiAnswer, asked: str) -> frozenset[str]:
    """The ids in an answer of ``/v2/apps``. ``client`` makes the errors."""
    fields = client.read_json(answer.body, asked)
    apps = fields.get("apps") if isinstance(fields, dict) else None
    if not isinstance(apps, list):
        raise client.malformed("what is no list of apps", asked)
    ids = [app.get("id") for app in apps if isinstance(app, dict)]
    found = frozenset(f"/{id.strip('/')}" for id in ids if isinstance(id, str) and id.strip("/"))
    if apps and not found:  # surely not meant as "no apps": that would take all names away
        raise client.malformed("apps without ids", asked)
    return found


def read_tasks(client: ApiClient, answer: ApiAnswer, app: str, *, healthy_only: bool) -> Found:
    """The endpoints of an app in an answer of ``/v2/apps/ID?embed=app.tasks``."""
    fields = client.read_json(answer.body, app)
    found = fields.get("app") if isinstance(fields, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("tasks"), list):
        raise client.malformed("what is no app with tasks", app)
    checks = found.get("healthChecks")
    expected = len(checks) if isinstance(checks, list) else 0
    discovery = _discovery_port(found)
    endpoints = [
        _endpoint(task, discovery) for task in found["tasks"] if isinstance(task, dict) and (not healthy_only or is_healthy(task, expected))
    ]
    distinct = dict.fromkeys(endpoint for endpoint in endpoints if endpoint is not None)
    return Endpoints(tuple(sorted(distinct, key=lambda one: (one.host, one.port)))) if distinct else NO_ENDPOINTS


def is_healthy(task: Mapping[str, Any], checks: int) -> bool:
    """Whether a task runs and passes all of the app's ``checks``; one without results yet passes none."""
    if task.get("state") != "TASK_RUNNING":
        return False
    results = task.get("healthCheckResults")
    passed = sum(isinstance(result, dict) and result.get("alive") is True for result in results) if isinstance(results, list) else 0
    return passed >= checks


def _discovery_port(app: Mapping[str, Any]) -> Any:
    """The port of an app whose tasks have addresses of their own; None if they share that of their host."""
    address = app.get("ipAddress")
    discovery = address.get("discovery") if isinstance(address, dict) else None
    ports = discovery.get("ports") if isinstance(discovery, dict) else None
    first = ports[0] if isinstance(ports, list) and ports else None
    return first.get("number") if isinstance(first, dict) else None


def _endpoint(task: Mapping[str, Any], discovery: Any) -> Endpoint | None:
    if discovery is not None:
        addresses = task.get("ipAddresses")
        first = addresses[0] if isinstance(addresses, list) and addresses else None
        host, port = first.get("ipAddress") if isinstance(first, dict) else None, discovery
    else:
        ports = task.get("ports")
        host, port = task.get("host"), ports[0] if isinstance(ports, list) and ports else None
    if not isinstance(host, str) or not host or not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        return None
    return Endpoint(host, port)
