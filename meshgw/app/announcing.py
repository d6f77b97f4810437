"""Announcing of servers: which addresses are told to whom, and when that is taken back.

Source: linkerd-config spec 3.12. The process that was started does it, and not the workers: it has the sockets, and it lives on when a
worker dies or a configuration is reloaded, so that each server is announced once, and without a gap. What a reload leaves as it
was stays as it is. At the end everything is withdrawn before connections are refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import attrs
from twisted.application.service import IService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IDelayedCall

from meshgw.app.sockets import router_label, server_name
from meshgw.config.document import Chosen
from meshgw.config.models import Config
from meshgw.core.address import Address
from meshgw.core.interfaces import LocalAddresses
from meshgw.core.logger import make_logger
from meshgw.errors import MeshError
from meshgw.kinds import Announcement, Announcer, Runtime
from meshgw.naming.path import Path

_log = make_logger()

LOOK_SECONDS: Final = 30.0
"""How often the machine's addresses are looked at, for servers that listen on all of them."""
STOP_SECONDS: Final = 3.0
STATE_PATH: Final = "/announcer_state.json"
"""Where the admin server shows what is announced."""

Listening = Callable[[str], tuple[str, int]]
"""The address that the server of a name (``app.sockets.server_name``) is bound to."""
Key = tuple[str, Any]


@attrs.frozen
class Wish:
    """An address to be announced by the announcer ``key``, as ``name`` without its prefix."""

    key: Key
    name: Path
    host: str
    port: int

    @property
    def full_name(self) -> str:
        """The name as the configuration has it."""
        prefix: Path = self.key[1].prefix
        return (Path.of("#") + prefix + self.name).show()

    @property
    def address(self) -> str:
        """``host:port``."""
        return Address(self.host, self.port).show()


def to_announce(ip: str, local: Iterable[str]) -> list[str]:
    """The addresses under which others reach a server that listens on ``ip``; ``local`` are those of this machine.

    One that listens on all of them has those of its family, loopback and link-local ones apart, which mean something else elsewhere.
    """
    listens = ipaddress.ip_address(ip)
    if not listens.is_unspecified:
        return [ip]
    addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in sorted(local)]
    usable = [address for address in addresses if not (address.is_loopback or address.is_link_local)]
    return [str(address) for address in usable if listens.version == 6 or address.version == 4]  # an IPv6 socket takes both


class Announcements:
    """All that is announced at present. ``runtime`` is for the announcers; ``local`` tells the machine's addresses."""

    def __init__(self, runtime: Runtime, local: LocalAddresses) -> None:
        self._runtime, self._local = runtime, local
        self._announcers: dict[Key, Announcer] = {}
        self._announced: dict[Wish, Announcement] = {}
        self._refused: set[Wish] = set()
        self._look: IDelayedCall | None = None
        scope = runtime.metrics.scope("announcements")
        scope.gauge("wanted", function=lambda: float(len(self._announced) + len(self._refused)))
        scope.gauge("there", function=lambda: float(sum(one.is_there for one in self._announced.values())))

    def update(self, config: Config, listening: Listening) -> Deferred[None]:
        """Announce what ``config`` wants and nothing else; fires when the rest is withdrawn. Its servers are to listen already."""
        self._forget_look()
        for chosen in config.routers:
            for name in _unmatched(chosen.config):
                _log.warn("no announcer found for {name} of router {label}", name=name.show(), label=router_label(chosen))
        return self._adjust(config, listening)

    def describe(self) -> dict[str, Any]:
        """By name and address, whether each is announced, and what else its announcement tells; as JSON data."""
        found: dict[str, Any] = {}
        for wish in self._refused:
            found.setdefault(wish.full_name, {})[wish.address] = {"announced": False, "error": "the log tells why it cannot be announced"}
        for wish, one in self._announced.items():
            more = one.describe() if hasattr(one, "describe") else {}
            found.setdefault(wish.full_name, {})[wish.address] = {"announced": one.is_there, **more}
        return found

    def withdraw(self) -> Deferred[None]:
        """Announce nothing any more; fires when that is done, within some seconds."""
        self._forget_look()
        return self._leave(list(self._announced), list(self._announcers))

    def _adjust(self, config: Config, listening: Listening) -> Deferred[None]:
        wishes: dict[Wish, Chosen] = {}
        follows = False
        for chosen in config.routers:
            for index, server in enumerate(chosen.config.servers):
                ip, port = listening(server_name(router_label(chosen), index)) if server.announce else ("", 0)
                hosts = to_announce(ip, self._local.now()) if server.announce else []
                follows = follows or (bool(ip) and ipaddress.ip_address(ip).is_unspecified)
                for announcer, name in _matched(chosen.config.announcers, server.announce):
                    wishes |= {Wish(_key(announcer), name, host, port): announcer for host in hosts}
        self._refused &= wishes.keys()
        for wish, announcer in wishes.items():
            if wish not in self._announced and wish not in self._refused:
                self._announce(wish, announcer)
        if follows:
            self._look = self._runtime.reactor.callLater(LOOK_SECONDS, self._adjust, config, listening)
        wanted = {wish.key for wish in wishes}
        return self._leave([wish for wish in self._announced if wish not in wishes], [key for key in self._announcers if key not in wanted])

    def _announce(self, wish: Wish, chosen: Chosen) -> None:
        try:
            self._announced[wish] = self._announcer(wish.key, chosen).announce(wish.name, wish.host, wish.port)
        except MeshError as error:
            self._refused.add(wish)
            _log.error("{host}:{port} is not announced: {error}", host=wish.host, port=wish.port, error=str(error))
        except Exception:  # noqa: BLE001 - the rim: an announcer may be plug-in code, whose defect must not keep servers from serving
            self._refused.add(wish)
            _log.failure("{host}:{port} is not announced, as {kind} has a defect", host=wish.host, port=wish.port, kind=chosen.kind.id)

    def _announcer(self, key: Key, chosen: Chosen) -> Announcer:
        known = self._announcers.get(key)
        if known is not None:
            return known
        metrics = self._runtime.metrics.scope("announcer", _prefix(chosen).show()[1:])
        announcer: Announcer = chosen.kind.build(chosen.config, attrs.evolve(self._runtime, metrics=metrics))
        if IService.providedBy(announcer):
            announcer.startService()  # type: ignore[no-untyped-call]
        self._announcers[key] = announcer
        return announcer

    async def _left(self, announced: list[Announcement], announcers: list[Announcer]) -> None:
        await DeferredList([one.withdraw() for one in announced], consumeErrors=True)
        services: list[Any] = [announcer for announcer in announcers if IService.providedBy(announcer)]
        await DeferredList([maybeDeferred(service.stopService) for service in services], consumeErrors=True)

    def _leave(self, wishes: list[Wish], keys: list[Key]) -> Deferred[None]:
        announced = [self._announced.pop(wish) for wish in wishes]
        announcers = [self._announcers.pop(key) for key in keys]
        left = Deferred.fromCoroutine(self._left(announced, announcers))
        return left.addTimeout(STOP_SECONDS, self._runtime.reactor, lambda *_: None)

    def _forget_look(self) -> None:
        look, self._look = self._look, None
        if look is not None and look.active():
            look.cancel()


def _prefix(chosen: Chosen) -> Path:
    prefix: Path = chosen.config.prefix
    return Path.of("#") + prefix


def _key(chosen: Chosen) -> Key:
    """What makes two blocks the same announcer."""
    return (chosen.kind.id, chosen.config)


def _matched(announcers: Iterable[Chosen], names: Iterable[Path]) -> Iterator[tuple[Chosen, Path]]:
    """Every announcer with each name that begins with its prefix; the name without it (spec 3.12)."""
    for name in names:
        for chosen in announcers:
            prefix = _prefix(chosen)
            if name.startswith(prefix):
                yield chosen, name.drop(len(prefix))


def _unmatched(router: Any) -> list[Path]:
    """The names that no announcer of the router takes."""
    names = [name for server in router.servers for name in server.announce]
    return [name for name in dict.fromkeys(names) if not any(True for _ in _matched(router.announcers, (name,)))]
