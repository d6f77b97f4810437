"""Stacks of filters, compiled so that a request runs over tuples of bound methods.

Source: ARCHITECTURE.md section 3. A :class:`Stack` is the immutable template of one level; a :class:`Pipeline` is the stack compiled with
the parameters of one listener, path, bound name or endpoint. A filter that a configuration does not need builds to None and is left out.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from meshgw.core.exchange import Exchange
from meshgw.wire.headers import Headers


class Role(enum.Enum):
    """What a filter is there for; its value is how ``/admin/registry.json`` and plug-ins name it."""

    STATS = "stats"
    ACCESS_LOG = "accessLog"
    CLEAR_CONTEXT = "clearContext"
    TIMESTAMP = "timestampHeader"
    FORWARDED = "addForwardedHeader"
    X_FORWARDED = "xForwardedHeaders"
    CONTEXT = "context"
    TRACING = "tracing"
    HYGIENE = "headerHygiene"
    DESTINATION = "destinationHeaders"
    DIAGNOSTIC = "diagnosticTrace"
    AUTHORITY = "authority"
    CONCURRENCY_LIMIT = "maxConcurrentRequests"
    TIMEOUT = "timeout"
    FAULTS = "faults"
    SUCCESS_CLASS = "successClass"
    STRICT_TRANSPORT = "hsts"
    REDIRECT = "redirectToHttps"
    SERVER_NAME = "checkServerName"
    CLIENT_ID = "clientId"
    CONNECT = "connect"
    GRPC_DEADLINE = "grpcDeadline"
    GRPC_TIMEOUT = "grpcTimeout"


@attrs.frozen
class Reply:
    """An answer made here instead of asking a service."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Wait(enum.Enum):
    """The type of :data:`WAIT`."""

    WAIT = "wait"


WAIT = Wait.WAIT
"""What a request hook returns when the exchange has to wait: ``ex.walk.resume`` is called later, once."""

RequestHook = Callable[[Exchange], Reply | Wait | None]
ResponseHook = Callable[[Exchange], Reply | None]
EndHook = Callable[[Exchange], None]


class Pipeline:
    """A compiled level.

    ``requests`` run in order on the way down; ``responses`` and ``ends`` in reverse order on the way up. ``partial[i]`` holds the
    response and end hooks of the filters passed when request hook ``i`` answered itself. ``stats`` is what counts at this level: it has no
    hooks here, as the walk counts most requests at once for several levels.
    """

    __slots__ = ("ends", "log_ends", "partial", "requests", "responses", "roles", "stats")

    def __init__(self, filters: Iterable[tuple[Role, Any]]) -> None:
        requests: list[RequestHook] = []
        partial: list[tuple[tuple[ResponseHook, ...], tuple[EndHook, ...]]] = []
        responses: list[ResponseHook] = []
        ends: list[EndHook] = []
        roles = []
        kept = list(filters)
        self.stats: Any = None
        for role, item in kept:
            roles.append(role)
            if role is Role.STATS:
                self.stats = item
                continue
            if hasattr(item, "on_request"):
                requests.append(item.on_request)
                partial.append((tuple(reversed(responses)), tuple(reversed(ends))))
            if hasattr(item, "on_response"):
                responses.append(item.on_response)
            if hasattr(item, "on_end"):
                ends.append(item.on_end)
        self.requests = tuple(requests)
        self.partial = tuple(partial)
        self.responses = tuple(reversed(responses))
        self.ends = tuple(reversed(ends))
        self.roles = tuple(roles)
        self.log_ends = tuple(item.on_end for role, item in kept if role is Role.ACCESS_LOG)
        """For messages that could not even be read: they are logged, and no other filter knew of them."""


EMPTY = Pipeline(())

Build = Callable[[Any], Any]


@attrs.frozen
class Stack:
    """An immutable list of (role, build function) of one level; a build function takes the level's parameters and may return None."""

    level: str
    entries: tuple[tuple[Role, Build], ...] = ()

    def then(self, role: Role, build: Build) -> Stack:
        """A stack with one more filter at the inner end."""
        return Stack(self.level, (*self.entries, (role, build)))

    def insert_before(self, role: Role, new: Role, build: Build) -> Stack:
        """A stack with a filter put outside of ``role``. Raises KeyError when that role is not in the stack."""
        for index, (present, _) in enumerate(self.entries):
            if present is role:
                return Stack(self.level, (*self.entries[:index], (new, build), *self.entries[index:]))
        raise KeyError(role)

    def without(self, *roles: Role) -> Stack:
        """A stack without the filters of these roles."""
        return Stack(self.level, tuple(entry for entry in self.entries if entry[0] not in roles))

    def compile(self, parameters: Any) -> Pipeline:
        """Build every filter for one place and collect the hooks of those that are needed there."""
        built = ((role, build(parameters)) for role, build in self.entries)
        return Pipeline((role, item) for role, item in built if item is not None)

    def describe(self) -> list[str]:
        """The roles from outside to inside."""
        return [role.value for role, _ in self.entries]


def reply_headers(reply: Reply) -> Headers:
    """The reply's header section."""
    return Headers([name + b": " + value for name, value in reply.headers], {name.lower(): value for name, value in reply.headers})
