"""The scripted Kubernetes API server behind a socket.

In a test's own process: :func:`site`. As a process: ``python -m fakes.kubernetes_server PORT [CERTIFICATE KEY]`` with ``tests`` on the
path; it then serves ``POST /control`` beside the API, with a JSON object of one call: ``{"put": ["endpoints", {…}]}``, or any other
method of :class:`fakes.kubernetes.Server` by its name with a list or an object of arguments, or ``{"set": {"split": 3}}`` for an
attribute. The answer is what the call gave.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from fakes.kubernetes import Asked, Server, Stream


class ApiResource(Resource):
    """All paths of the API, and ``/control``."""

    isLeaf = True

    def __init__(self, server: Server, clock: Any) -> None:
        super().__init__()
        self._server, self._clock = server, clock

    def render(self, request: Any) -> Any:
        path = request.path.decode("ascii")
        if path == "/control":
            return self._control(json.loads(request.content.read()))
        query = {name.decode(): values[0].decode() for name, values in request.args.items()}
        headers = {name.decode().lower(): values[0].decode("latin-1") for name, values in request.requestHeaders.getAllRawHeaders()}
        asked = Asked(request.method.decode(), path, query, headers, request.content.read())
        gone: list[object] = []
        request.notifyFinish().addErrback(gone.append)
        if self._server.delay:
            self._clock.callLater(self._server.delay, lambda: None if gone else self._answer(request, asked))
        else:
            self._answer(request, asked)
        return NOT_DONE_YET

    def _control(self, calls: dict[str, Any]) -> bytes:
        given: Any = None
        for name, arguments in calls.items():
            if name == "set":
                for attribute, value in arguments.items():
                    known = getattr(self._server, attribute)
                    if attribute in ("tokens", "forbidden"):
                        value = {tuple(each) if isinstance(each, list) else each for each in value} if value is not None else None
                    elif not isinstance(value, type(known)) and not isinstance(known, float):
                        raise TypeError(f"{attribute} is {known!r}")
                    setattr(self._server, attribute, value)
            else:
                method = getattr(self._server, name)
                given = method(**arguments) if isinstance(arguments, dict) else method(*arguments)
        return json.dumps(given).encode()

    def _answer(self, request: Request, asked: Asked) -> None:
        answer = self._server.answer(asked)
        if isinstance(answer, Stream):
            request.setHeader(b"content-type", b"application/json")
            request.write(b"")  # the head at once, as the real one does
            is_open = [True]

            def closed(_reason: object) -> None:
                is_open[0] = False
                answer.closed()

            def finish(properly: bool) -> None:
                if is_open[0]:
                    is_open[0] = False
                    if properly:
                        request.finish()
                    else:
                        request.transport.abortConnection()

            request.notifyFinish().addErrback(closed)
            answer.connect(request.write, finish)
            return
        request.setResponseCode(answer.status)
        for name, value in answer.headers.items():
            request.setHeader(name.encode(), value.encode())
        request.setHeader(b"content-length", str(len(answer.body)).encode())
        request.write(answer.body)
        request.finish()


def site(server: Server, clock: Any) -> Site:
    """What listens for a server."""
    return Site(ApiResource(server, clock))


def main(arguments: list[str]) -> None:
    """Serve until the process is ended."""
    from twisted.internet import reactor as running

    reactor: Any = running
    port, *files = arguments
    factory = site(Server(reactor), reactor)
    if files:
        certificate, key = files
        reactor.listenSSL(int(port), factory, DefaultOpenSSLContextFactory(key, certificate), interface="127.0.0.1")
    else:
        reactor.listenTCP(int(port), factory, interface="127.0.0.1")
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
