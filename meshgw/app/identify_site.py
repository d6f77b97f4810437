"""The identifier debug listener: what would the HTTP routers call this request?

Source: linkerd-config spec 2.6 (``admin.httpIdentifierPort``). Any method and path; nothing is routed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from meshgw.core.exchange import Exchange
from meshgw.errors import MeshError
from meshgw.filters.context import ServerContext
from meshgw.kinds import Identifier
from meshgw.naming.path import Path
from meshgw.wire.headers import Headers


class _Identify(Resource):
    isLeaf = True

    def __init__(self, identifiers: Mapping[str, Identifier]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._identifiers = identifiers
        self._context = ServerContext(lambda: 0, 0, lambda _ex: None)

    def render(self, request: Request) -> bytes:
        """The name, or the reason why there is none, by router label."""
        request.setHeader(b"Content-Type", b"application/json")  # type: ignore[no-untyped-call]
        return json.dumps({label: self._answer(identifier, request) for label, identifier in self._identifiers.items()}).encode() + b"\n"

    def _answer(self, identifier: Identifier, request: Request) -> dict[str, str]:
        ex = Exchange()  # one for each: an identifier may rewrite the target
        ex.method, ex.target, ex.version = request.method, request.uri, request.clientproto.rpartition(b"/")[2]
        ex.headers = Headers()
        for name, values in request.requestHeaders.getAllRawHeaders():
            for value in values:
                ex.headers.add(name.lower(), value)
        ex.peer = (request.getClientAddress().host, request.getClientAddress().port)  # type: ignore[no-untyped-call]
        reply = self._context.on_request(ex)
        if reply is not None:
            return {"error": reply.body.decode()}
        try:
            found = identifier.identify(ex)
        except MeshError as error:
            return {"error": str(error)}
        if not isinstance(found, Path):
            return {"error": str(found)}
        return {"path": found.show(), "dtab": ex.dtab.show()} if ex.dtab is not None else {"path": found.show()}


def identify_site(identifiers: Mapping[str, Identifier]) -> Site:
    """The site to serve; ``identifiers`` by router label."""
    return Site(_Identify(identifiers), timeout=30)  # type: ignore[no-untyped-call]
