"""The identifier debug listener: what would the HTTP routers call this request?

Source: linkerd-config spec 2.6 (``admin.httpIdentifierPort``). Any method and path; nothing is routed.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from meshgw.core.exchange import Exchange
from meshgw.core.logger import make_logger
from meshgw.errors import MeshError
from meshgw.filters.context import ServerContext
from meshgw.kinds import Identifier
from meshgw.naming.path import Path
from meshgw.wire.headers import Headers

TIMEOUT_SECONDS = 30
_log = make_logger()


@attrs.frozen
class Head:
    """The head of a request to be identified, as text (latin-1)."""

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    peer: tuple[str, int]

    def to_plain(self) -> list[Any]:
        """As JSON data."""
        return [self.method, self.target, self.version, self.headers, self.peer]

    @classmethod
    def from_plain(cls, content: Any) -> Head:
        """What :meth:`to_plain` wrote."""
        method, target, version, headers, (host, port) = content
        return cls(method, target, version, tuple((name, value) for name, value in headers), (host, port))


def identified(identifiers: Mapping[str, Identifier], head: Head) -> dict[str, dict[str, str]]:
    """The name, or the reason why there is none, by router label."""
    context = ServerContext(lambda: 0, 0, lambda _ex: None)
    return {label: _answer(identifier, context, head) for label, identifier in identifiers.items()}


def _answer(identifier: Identifier, context: ServerContext, head: Head) -> dict[str, str]:
    ex = Exchange()  # one for each: an identifier may rewrite the target
    ex.method, ex.target, ex.version = head.method.encode("latin-1"), head.target.encode("latin-1"), head.version.encode("latin-1")
    ex.headers = Headers()
    for name, value in head.headers:
        ex.headers.add(name.lower().encode("latin-1"), value.encode("latin-1"))
    ex.peer = head.peer
    reply = context.on_request(ex)
    if reply is not None:
        return {"error": reply.body.decode()}
    try:
        found = identifier.identify(ex)
    except MeshError as error:
        return {"error": str(error)}
    if not isinstance(found, Path):
        return {"error": str(found)}
    return {"path": found.show(), "dtab": ex.dtab.show()} if ex.dtab is not None else {"path": found.show()}


class _Identify(Resource):
    isLeaf = True

    def __init__(self, identify: Callable[[Head], Awaitable[Mapping[str, Any]]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._identify = identify

    def render(self, request: Request) -> int:
        working = Deferred.fromCoroutine(self._answered(request))
        request.notifyFinish().addErrback(lambda _gone: working.cancel())
        working.addErrback(_gone)
        return NOT_DONE_YET

    async def _answered(self, request: Any) -> None:
        try:
            content = await self._identify(_head(request))
            request.setHeader(b"Content-Type", b"application/json")
            body = json.dumps(content).encode() + b"\n"
        except MeshError as error:
            request.setResponseCode(503)
            body = str(error).encode() + b"\n"
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - the rim: identifiers may be plug-ins
            _log.failure("a request could not be identified")
            request.setResponseCode(500)
            body = b"internal error; the log has the details\n"
        request.write(body)
        request.finish()


def _gone(failure: Failure) -> None:
    failure.trap(CancelledError)  # type: ignore[no-untyped-call]


def _head(request: Any) -> Head:
    address = request.getClientAddress()
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, values in request.requestHeaders.getAllRawHeaders() for value in values
    ]
    version = request.clientproto.rpartition(b"/")[2].decode("latin-1")
    return Head(request.method.decode("latin-1"), request.uri.decode("latin-1"), version, tuple(headers), (address.host, address.port))


def identify_site(identify: Callable[[Head], Awaitable[Mapping[str, Any]]]) -> Site:
    """The site to serve; ``identify`` answers for a head, by router label."""
    return Site(_Identify(identify), timeout=TIMEOUT_SECONDS)  # type: ignore[no-untyped-call]
