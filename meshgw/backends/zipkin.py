"""``io.l5d.zipkin``: traces to a Zipkin collector, over Scribe as Linkerd has it or over HTTP.

Source: linkerd-config spec 9.6. ``protocol``, ``path``, ``tls`` and ``timeoutMs`` are our own: today's servers speak Scribe only when told
to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from meshgw.backends.collectors import HttpCollector, ScribeCollector, SpanTelemeter
from meshgw.backends.connecting import Connector, ResolvedEndpoint
from meshgw.backends.http_client import ApiClient
from meshgw.config.document import at_least, between, one_of, option
from meshgw.config.tls import ClientTls, backend_tls_notice
from meshgw.config.values import Port
from meshgw.kinds import Kind, Runtime
from meshgw.telemetry.span_queue import Limits
from meshgw.telemetry.zipkin_json import encode_spans

ID: Final = "io.l5d.zipkin"
_PORTS: Final[Mapping[str, int]] = {"scribe": 9410, "http": 9411}
_LARGEST_ANSWER: Final = 64 << 10


def url_path(value: Any) -> str | None:
    """A check: the text can be the path of a URL."""
    return None if re.fullmatch(r"/[!-~]*", value) and not set(value) & {"?", "#"} else "must be an absolute path such as /api/v2/spans"


@attrs.frozen(kw_only=True)
class ZipkinConfig:
    """Traces to Zipkin. Spans wait for a collector that is away for about a minute, and within 8 MiB."""

    host: str = option(default="localhost", doc="Host of the collector.")
    port: Port | None = option(default=None, doc="Its port.", effective="9410, or 9411 over HTTP")
    sample_rate: float = option(
        default=0.001, doc="Part of the traces that begin here and are sampled, from 0 to 1.", check=between(0.0, 1.0)
    )
    protocol: str = option(
        default="scribe",
        doc="`scribe` is Linkerd's; `http` posts Zipkin's v2 spans as JSON, as today's servers expect it (meshgw's own option).",
        check=one_of("scribe", "http"),
    )
    path: str = option(default="/api/v2/spans", doc="Where they are posted over HTTP (meshgw's own option).", check=url_path)
    tls: ClientTls | None = option(
        default=None, doc="TLS to the collector, over HTTP only (meshgw's own option).", effective="off", notice=backend_tls_notice
    )
    timeout_ms: int = option(
        default=1000, doc="Milliseconds for one request, with connecting (meshgw's own option; Linkerd has 100).", check=at_least(1)
    )

    def __attrs_post_init__(self) -> None:
        if self.tls is not None and self.protocol == "scribe":
            raise ValueError("tls needs protocol: http")

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, _PORTS[self.protocol] if self.port is None else self.port


def build_zipkin(config: ZipkinConfig, runtime: Runtime) -> SpanTelemeter:
    """Make the telemeter."""
    host, port = config.place
    where = f"Zipkin at {f'[{host}]' if ':' in host else host}:{port}"
    collector: ScribeCollector | HttpCollector
    if config.protocol == "scribe":
        collector = ScribeCollector(ResolvedEndpoint(runtime.reactor, runtime.resolve, host, port))
    else:
        connector = Connector(runtime.reactor, runtime.resolve, host, port, tls=config.tls)
        client = ApiClient(
            connector.agent, runtime.reactor, name=where, base=connector.base, largest=_LARGEST_ANSWER, explain=connector.refusal
        )
        headers = {"Content-Type": "application/json"}
        collector = HttpCollector(connector, client, config.path, encode_spans, headers=lambda: headers)
    limits = Limits(request_seconds=config.timeout_ms / 1000)
    return SpanTelemeter(ID, runtime, collector, rate=config.sample_rate, where=where, host=host, port=port, limits=limits)


KIND = Kind(id=ID, config=ZipkinConfig, build=build_zipkin)
