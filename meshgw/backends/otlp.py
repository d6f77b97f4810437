"""``io.meshgw.otlp``: traces to an OpenTelemetry collector, or to whatever speaks its protocol over HTTP.

Source: the specification of OTLP 1.x, section OTLP/HTTP (protobuf in binary form; what is retried; partial success). Linkerd has no such
telemeter.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import attrs

from meshgw import __version__
from meshgw.backends.collectors import HttpCollector, SpanTelemeter
from meshgw.backends.connecting import Connector
from meshgw.backends.http_client import ApiClient
from meshgw.config.document import at_least, between, one_of, option
from meshgw.config.tls import ClientTls, backend_tls_notice
from meshgw.config.values import header_name
from meshgw.kinds import Kind, Runtime
from meshgw.telemetry.otlp_spans import encode_spans, read_partial_success, read_status
from meshgw.telemetry.span_queue import CollectorAway, Limits, PartlyRefused
from meshgw.telemetry.spans import Span

ID: Final = "io.meshgw.otlp"
DEFAULT_PATH: Final = "/v1/traces"
LARGEST_SECRET: Final = 16 << 10
_LARGEST_ANSWER: Final = 64 << 10
_OURS: Final = frozenset({"content-type", "content-length", "content-encoding", "transfer-encoding", "host", "connection"})
_URL: Final = re.compile(r"[!-~]+")
_VALUE: Final = re.compile(r"[ -~]*")


@attrs.frozen
class Url:
    """Where spans are posted: ``http://HOST:PORT/PATH`` or ``https://…``; without a path it is ``/v1/traces``."""

    is_tls: bool
    host: str
    port: int
    path: str

    @classmethod
    def read(cls, text: str) -> Url:
        """Read it. Raises ValueError, whose text has no part of a password."""
        try:
            parts = urlsplit(text.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = None, None, None
        if parts is None or not host or parts.scheme not in ("http", "https") or not _URL.fullmatch(text.strip()) or parts.fragment:
            raise ValueError("expected a URL such as http://127.0.0.1:4318/v1/traces")
        if "@" in parts.netloc:
            raise ValueError("a URL must not hold a name or password; headers can carry them")
        is_tls = parts.scheme == "https"
        path = (parts.path if parts.path != "/" else "") or DEFAULT_PATH
        return cls(is_tls, host, port or (443 if is_tls else 80), path + (f"?{parts.query}" if parts.query else ""))

    def show(self) -> str:
        """As it may be shown: without its query, which may hold a key."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        path, mark, _ = self.path.partition("?")
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}{path}{'?***' if mark else ''}"


def _names(value: Mapping[str, str]) -> str | None:
    for name in value:
        problem = header_name(name)
        if problem is not None:
            return problem
        if name.lower() in _OURS:
            return f"{name} is written by meshgw itself"
    return None


def _absent(value: Mapping[str, str]) -> str | None:
    """A remark: files are read when they are needed, perhaps on another machine."""
    missing = next((path for path in value.values() if not os.path.exists(path)), None)
    return None if missing is None else f"there is no {missing} on this machine now"


def _headers(value: Mapping[str, str]) -> str | None:
    """The check's text never quotes a value."""
    wrong = next((name for name, text in value.items() if not _VALUE.fullmatch(text)), None)
    return _names(value) or (None if wrong is None else f"the value of {wrong} has characters that a header cannot carry")


@attrs.frozen(kw_only=True)
class OtlpConfig:
    """Traces in OpenTelemetry's protocol over HTTP. Spans wait for a collector that is away for about a minute, and within 8 MiB."""

    endpoint: Url = option(
        factory=lambda: Url.read("http://127.0.0.1:4318/v1/traces"), doc="URL to post to; without a path it is `/v1/traces`."
    )
    sample_rate: float = option(
        default=0.001, doc="Part of the traces that begin here and are sampled, from 0 to 1.", check=between(0.0, 1.0)
    )
    headers: Mapping[str, str] = option(factory=dict, doc="Headers of each request, shown nowhere.", check=_headers, secret=True)
    header_files: Mapping[str, str] = option(
        factory=dict,
        doc="Headers whose values are in files, by the files' paths; they are read at each request.",
        check=_names,
        notice=_absent,
    )
    service_name: str | None = option(default=None, doc="`service.name` of all routers.", effective="each router's label")
    resource: Mapping[str, str] = option(factory=dict, doc="Further attributes of the resource, such as `deployment.environment`.")
    compression: str = option(default="none", doc="`gzip` costs some time and saves most of the bytes.", check=one_of("none", "gzip"))
    tls: ClientTls | None = option(
        default=None,
        doc="TLS to an `https` endpoint, where the defaults will not do.",
        effective="the system's authorities, and the host's name",
        notice=backend_tls_notice,
    )
    timeout_ms: int = option(default=5000, doc="Milliseconds for one request, with connecting.", check=at_least(1))

    def __attrs_post_init__(self) -> None:
        if self.tls is not None and not self.endpoint.is_tls:
            raise ValueError("tls needs an endpoint with https")


class OtlpRequests:
    """What goes into requests, and what becomes of their answers."""

    def __init__(self, config: OtlpConfig) -> None:
        self._config = config
        self._resource: Mapping[str, str] | None = None

    def encode(self, spans: Sequence[Span]) -> bytes:
        """The body."""
        if self._resource is None:  # not before: a daemon gets the pid that it keeps only when it is started
            name = socket.gethostname()
            own = {"service.version": __version__, "service.instance.id": f"{name}-{os.getpid()}", "host.name": name}
            self._resource = own | dict(self._config.resource)
        return encode_spans(spans, self._config.service_name, self._resource, __version__)

    def headers(self) -> dict[str, str]:
        """The headers. Raises :class:`CollectorAway` when a file cannot be used, as it may be better soon."""
        own = {"Content-Type": "application/x-protobuf", "Accept": "application/x-protobuf"}
        return {**own, **self._config.headers, **{name: _secret(name, path) for name, path in self._config.header_files.items()}}

    def taken(self, body: bytes) -> None:
        """The collector took it. Raises :class:`PartlyRefused` if it was not all of it."""
        partial = read_partial_success(body)
        if partial is not None:
            raise PartlyRefused(rejected=partial.rejected, reason=partial.reason or "it does not say why")


def _secret(name: str, path: str) -> str:
    try:
        with open(path, "rb", opener=_at_once) as file:
            text = (file.read(LARGEST_SECRET + 1) or b"").decode("ascii").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise CollectorAway(reason=f"the header {name} cannot be read from {path}: {reason}") from None
    if not text or len(text) > LARGEST_SECRET or not _VALUE.fullmatch(text):
        raise CollectorAway(reason=f"{path} does not hold one line that can be the header {name}")
    return text


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold the process up


def build_otlp(config: OtlpConfig, runtime: Runtime) -> SpanTelemeter:
    """Make the telemeter."""
    url = config.endpoint
    where = f"the collector at {url.show()}"
    tls = (config.tls or ClientTls()) if url.is_tls else None
    connector = Connector(runtime.reactor, runtime.resolve, url.host, url.port, tls=tls)
    client = ApiClient(
        connector.agent,
        runtime.reactor,
        name=where,
        base=connector.base,
        largest=_LARGEST_ANSWER,
        explain=connector.refusal,
        tell=read_status,
    )
    requests = OtlpRequests(config)
    collector = HttpCollector(
        connector,
        client,
        url.path,
        requests.encode,
        headers=requests.headers,
        compressed=config.compression == "gzip",
        taken=requests.taken,
    )
    limits = Limits(request_seconds=config.timeout_ms / 1000)
    return SpanTelemeter(ID, runtime, collector, rate=config.sample_rate, where=where, host=url.host, port=url.port, limits=limits)


KIND = Kind(id=ID, config=OtlpConfig, build=build_otlp)
