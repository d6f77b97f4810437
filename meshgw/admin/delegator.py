"""``/delegator.json``: how a name is, or would be, resolved.

Source: linkerd-config spec 2.3 and 2.4.
"""

from __future__ import annotations

import json

import attrs
from twisted.internet.interfaces import IReactorTime

from meshgw.admin.api import Answer, GatewayView, Query, json_answer
from meshgw.core.slices import Slices
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path


@attrs.frozen
class _Asked:
    namespace: str | None
    dtab: str
    path: str


class _Refused(Exception):
    """A delegation request that cannot be met; the argument is the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(text, status=status)


class DelegatorView:
    """``/delegator.json``: how a name is, or would be, resolved."""

    def __init__(self, view: GatewayView, reactor: IReactorTime) -> None:
        self._view, self._slices = view, Slices(reactor)

    async def __call__(self, query: Query) -> Answer:
        """The delegation tree as JSON."""
        try:
            asked = _posted(query) if query.method == "POST" else _from_args(query)
            dtab, path = await self._read(asked)
        except _Refused as refused:
            return refused.answer
        return json_answer(dict(await self._view.delegate(asked.namespace, dtab, path)))

    async def _read(self, asked: _Asked) -> tuple[Dtab, Path]:
        try:
            dtab = await self._slices.run(Dtab.reading(asked.dtab))
        except ValueError as error:
            raise _Refused(400, f"Invalid dtab: {error}") from error
        try:
            return dtab, Path.read(asked.path)
        except ValueError as error:
            raise _Refused(400, f"Invalid path: {error}") from error


def _from_args(query: Query) -> _Asked:
    path = query.first("path")
    if path is None:
        raise _Refused(400, "Invalid path: the parameter path is required")
    return _Asked(query.first("namespace"), query.first("dtab") or "", path)


def _posted(query: Query) -> _Asked:
    if query.media_type != "application/json":
        raise _Refused(415, "expected a body with Content-Type: application/json")
    try:
        content = json.loads(query.body)
    except (ValueError, RecursionError) as error:
        raise _Refused(400, f"Malformed delegation request: {error}") from error
    if not isinstance(content, dict):
        raise _Refused(400, "Malformed delegation request: expected a JSON object")
    namespace, dtab, path = content.get("namespace"), content.get("dtab"), content.get("path")
    if not isinstance(dtab, str) or not isinstance(path, str) or not isinstance(namespace, str | None):
        raise _Refused(400, "Malformed delegation request: dtab and path are required strings, namespace an optional one")
    try:
        f"{namespace}{dtab}{path}".encode()
    except UnicodeEncodeError as error:  # JSON can escape half of a character
        raise _Refused(400, f"Malformed delegation request: {error.reason}") from error
    return _Asked(namespace, dtab, path)
