"""The listening sockets of a configuration: bound once by the process that was started, shared by those that serve.

Source: DATAPATH.md, design point 9. Every worker accepts from the same socket, so that what waits in its queue is not lost when one of
them dies or is replaced; sockets that a new configuration names too are kept over a reload, with their queue.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

import attrs

from meshgw.config.document import Chosen
from meshgw.config.models import Config
from meshgw.config.router import RouterConfig, SocketOptions
from meshgw.server.listener import BACKLOG, bind_socket

ADMIN = "admin"
IDENTIFIER = "admin/identifier"


@attrs.frozen
class Place:
    """Where a configuration listens; ``name`` says who does."""

    name: str
    ip: str
    port: int
    options: SocketOptions

    @property
    def key(self) -> tuple[str, int, str]:
        """What makes a bound socket the right one: the address, or whose it is where the system chooses the port."""
        return (self.ip, self.port, "" if self.port else self.name)


def router_label(chosen: Chosen) -> str:
    """The label of a router: its own, or its protocol's name."""
    config = chosen.config
    assert isinstance(config, RouterConfig)
    return config.label or chosen.kind.id


def server_name(label: str, index: int) -> str:
    """The name of a router's listener in a table of sockets."""
    return f"router/{label}/{index}"


def places(config: Config) -> Iterator[Place]:
    """Everything that ``config`` listens on."""
    admin = config.admin
    yield Place(ADMIN, admin.ip, admin.port, admin.socket_options)
    if admin.http_identifier_port is not None:
        yield Place(IDENTIFIER, admin.ip, admin.http_identifier_port, admin.socket_options)
    for chosen in config.routers:
        yield from router_places(chosen)


def router_places(chosen: Chosen) -> Iterator[Place]:
    """Where one router listens."""
    label = router_label(chosen)
    for index, server in enumerate(chosen.config.servers):
        yield Place(server_name(label, index), server.ip, server.port, server.socket_options)


class Sockets:
    """Bound sockets by name. Whoever serves on one takes a duplicate, so that closing it there leaves it bound here."""

    def __init__(self, bound: Mapping[str, socket.socket], keys: Mapping[str, tuple[str, int, str]]) -> None:
        """See :meth:`open`."""
        self._bound, self._keys = dict(bound), dict(keys)

    @classmethod
    def open(cls, wanted: Iterable[Place], kept: Sockets | None = None) -> Sockets:
        """Bind every place, but for those that ``kept`` has already.

        Raises OSError naming the address that cannot be bound; nothing new is left open then.
        """
        by_key = {} if kept is None else {key: kept._bound[name] for name, key in kept._keys.items()}
        bound: dict[str, socket.socket] = {}
        fresh: list[socket.socket] = []
        keys: dict[str, tuple[str, int, str]] = {}
        try:
            for place in wanted:
                options = place.options
                backlog = options.backlog or BACKLOG
                known = by_key.get(place.key)
                if known is not None:
                    known.listen(backlog)  # the only option of a bound socket that a new configuration can change
                    bound[place.name] = known.dup()
                else:
                    bound[place.name] = bind_socket(
                        place.ip, place.port, backlog=backlog, reuse_port=options.reuse_port, reuse_address=options.reuse_addr
                    )
                keys[place.name] = place.key
                fresh.append(bound[place.name])
        except OSError:
            for sock in fresh:
                sock.close()
            raise
        return cls(bound, keys)

    def take(self, name: str) -> socket.socket:
        """A duplicate of the socket of that name, for the caller to close."""
        return self._bound[name].dup()

    def address(self, name: str) -> tuple[str, int]:
        """The address and port that the socket of that name is bound to."""
        host, port = self._bound[name].getsockname()[:2]
        return host, port

    def fileno(self, name: str) -> int:
        """The descriptor of the socket of that name, to be inherited by another process."""
        return self._bound[name].fileno()

    def close(self) -> None:
        """Let go of all; they stay bound where somebody holds a duplicate."""
        for sock in self._bound.values():
            with suppress(OSError):
                sock.close()
        self._bound.clear()
        self._keys.clear()


def inherited(fd: int) -> socket.socket:
    """The listening socket behind a descriptor that another process passed on."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock
