"""HTTP APIs that a test scripts: a function that answers, behind an agent in memory or behind a real server on loopback.

The function gets a :class:`Request` and gives a :class:`Reply`, or None to let the caller wait, as long polls do, and be asked again.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers

LOOPBACK = "127.0.0.1"


@attrs.frozen
class Request:
    """A request; names of ``headers`` are lower-case. ``has_waited``: whoever waited for it does so no longer."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    has_waited: bool = False

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))


@attrs.frozen
class Reply:
    """An answer."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"


def says(value: object, status: int = 200) -> Reply:
    """A JSON answer."""
    return Reply(status, json.dumps(value).encode())


Answering = Callable[[Request], Reply | None]


class _Response:
    def __init__(self, reply: Reply) -> None:
        self.code, self.headers = reply.status, Headers({"Content-Type": [reply.content_type]})
        self._body = reply.body

    def deliverBody(self, protocol: Protocol) -> None:
        protocol.dataReceived(self._body)
        protocol.connectionLost(Failure(ResponseDone()))


class ApiAgent:
    """Stands for ``backends.connecting.Connector`` and its agent. ``requests`` has all requests, ``error`` is what keeps new ones
    from being sent, ``is_slow`` lets them wait for :meth:`turn`."""

    base = "http://api.test"

    def __init__(self, answering: Answering) -> None:
        self.answering, self.agent = answering, self
        self.requests: list[Request] = []
        self.error: Exception | None = None
        self.is_slow = self.is_started = False
        self._waiting: list[tuple[Request, Deferred[Any]]] = []

    def request(self, method: bytes, uri: bytes, headers: Headers, producer: Any = None) -> Deferred[Any]:
        """As ``IAgent.request``."""
        fields = {name.decode().lower(): values[0].decode() for name, values in headers.getAllRawHeaders()}
        body: list[bytes] = []
        if producer is not None:
            producer.startProducing(type("Consumer", (), {"write": staticmethod(body.append)}))
        request = Request(method.decode(), uri.decode().removeprefix(self.base), fields, b"".join(body))
        self.requests.append(request)
        answer: Deferred[Any] = Deferred()
        if self.error is not None:
            answer.errback(self.error)
        else:
            self._waiting.append((request, answer))
            if not self.is_slow:
                self.turn()
        return answer

    def turn(self, *, has_waited: bool = False) -> None:
        """Answer what can be answered now."""
        waiting, self._waiting = self._waiting, []
        for request, answer in waiting:
            reply = self.answering(attrs.evolve(request, has_waited=has_waited))
            if answer.called:
                continue  # cancelled
            if reply is None:
                self._waiting.append((request, answer))
            else:
                answer.callback(_Response(reply))

    def drop(self, error: Exception) -> None:
        """Break what waits."""
        waiting, self._waiting = self._waiting, []
        for _, answer in waiting:
            if not answer.called:
                answer.errback(error)

    @staticmethod
    def refusal() -> str:
        """TLS refused nothing."""
        return ""

    def start(self) -> None:
        self.is_started = True

    def stop(self) -> None:
        self.is_started = False


class ApiServer:
    """The function behind a server on loopback, in threads; ``tls`` makes it an HTTPS server. One that is stopped may start again."""

    def __init__(self, answering: Answering, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._answering, self.port, self._tls = answering, port, tls
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._stopping = threading.Event()

    def start(self) -> ApiServer:
        self._stopping.clear()
        server = ThreadingHTTPServer((LOOPBACK, self.port), self._handler())
        server.daemon_threads = True
        if self._tls is not None:
            server.socket = self._tls.wrap_socket(server.socket, server_side=True)
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def _reply(self, request: Request, longest: float) -> Reply:
        end = time.monotonic() + longest
        while True:
            late = time.monotonic() >= end or self._stopping.is_set()
            with self._lock:
                reply = self._answering(attrs.evolve(request, has_waited=late))
            if reply is not None:
                return reply
            if self._stopping.is_set():
                raise ConnectionAbortedError
            time.sleep(0.02)

    def _handler(outer: ApiServer) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def _answer(self) -> None:
                fields = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(fields.get("content-length", 0)))
                request = Request(self.command, self.path, fields, body)
                try:
                    reply = outer._reply(request, float(request.query.get("maxWait", 0)))
                except ConnectionAbortedError:
                    self.close_connection = True
                    return
                if outer._stopping.is_set():
                    self.close_connection = True  # a server that has ended answers nobody
                    return
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            do_GET = do_POST = _answer

            def log_message(self, *_words: Any) -> None:
                """Nobody reads it."""

        return Handler
