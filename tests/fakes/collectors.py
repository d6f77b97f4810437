"""Collectors of spans on loopback, in threads: a Scribe server as another Thrift library makes it, and HTTP ones for Zipkin and OTLP.

Each decodes what it is told by the published schema as it comes, so that what cannot be read fails the request and not only a test.
"""

from __future__ import annotations

import json
import ssl
import threading
from base64 import b64decode
from typing import Any

import jsonschema
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from thriftpy2.protocol.binary import TBinaryProtocolFactory
from thriftpy2.server import TThreadedServer
from thriftpy2.thrift import TProcessor
from thriftpy2.transport import TServerSocket
from thriftpy2.transport.framed import TFramedTransportFactory

from fakes.http_api import LOOPBACK, ApiServer, Reply, Request
from fakes.zipkin_schema import V2_SPANS, decode_span, scribe


class ScribeServer:
    """Zipkin's Scribe collector. ``codes`` are its next answers: 0 for OK, 1 for TRY_LATER; then it is always OK."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.spans: list[Any] = []
        self.calls = 0
        self.codes: list[int] = []
        self._server: Any = None

    def Log(self, messages: list[Any]) -> int:
        """As the IDL has it."""
        self.calls += 1
        if self.codes and self.codes.pop(0) != 0:
            return 1
        self.spans += [decode_span(b64decode(entry.message, validate=True)) for entry in messages if entry.category == "zipkin"]
        return 0

    def start(self) -> ScribeServer:
        socket = TServerSocket(LOOPBACK, self.port)
        processor = TProcessor(scribe.Scribe, self)
        server = TThreadedServer(
            processor, socket, iprot_factory=TBinaryProtocolFactory(), itrans_factory=TFramedTransportFactory(), daemon=True
        )
        socket.listen()
        self._server = server
        threading.Thread(target=self._serve, args=(server,), daemon=True).start()
        return self

    @staticmethod
    def _serve(server: Any) -> None:
        try:
            server.serve()
        except OSError:
            return  # its socket was closed

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()


class ZipkinServer(ApiServer):
    """Zipkin's HTTP API, v2."""

    def __init__(self, port: int) -> None:
        super().__init__(self._take, port)
        self.spans: list[dict[str, Any]] = []

    def _take(self, request: Request) -> Reply:
        if (request.method, request.path) != ("POST", "/api/v2/spans"):
            return Reply(404)
        if request.headers.get("content-type") != "application/json":
            return Reply(415)
        found = json.loads(request.body)
        jsonschema.validate(found, V2_SPANS)
        self.spans += found
        return Reply(202)


class OtlpServer(ApiServer):
    """A collector that speaks OTLP over HTTP. ``replies`` are its next answers; then it takes everything."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._take, port, tls)
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.replies: list[Reply] = []

    @property
    def spans(self) -> list[Any]:
        """All spans, with the name of the service each is of."""
        return [
            (one.resource.attributes[0].value.string_value, span)
            for request in self.requests
            for one in request.resource_spans
            for scope in one.scope_spans
            for span in scope.spans
        ]

    def _take(self, request: Request) -> Reply:
        if (request.method, request.path) != ("POST", "/v1/traces"):
            return Reply(404)
        if request.headers.get("content-type") != "application/x-protobuf":
            return Reply(415)
        self.headers.append(request.headers)
        if self.replies:
            return self.replies.pop(0)
        self.requests.append(ExportTraceServiceRequest.FromString(request.body))
        return Reply(200, ExportTraceServiceResponse().SerializeToString(), "application/x-protobuf")
