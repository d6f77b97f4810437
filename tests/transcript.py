"""Byte dialogues through a whole HTTP router in this process: real sockets on loopback, but events and time moved by hand.

A :class:`Mesh` is a router without a reactor. Tests write down what callers and services send and what they get to see; nothing
happens between two lines of a test, so that its order is exactly what is written.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import attrs
from twisted.internet.task import Clock

from fakes.transport import HandPoller
from meshgw.app.h2 import H2Router
from meshgw.app.http import HttpRouter
from meshgw.app.http_stacks import Shared
from meshgw.app.request_router import RequestRouter
from meshgw.app.sockets import Sockets, router_places
from meshgw.config.document import Chosen
from meshgw.config.loader import load
from meshgw.core.address import Addr, Address, Bound, Replicas
from meshgw.core.live import Live, Source
from meshgw.core.timers import Wheel
from meshgw.filters.tracing import Sampler
from meshgw.identify.request import RequestIdentifier
from meshgw.kinds import Interpreter, Kind, Registry, Runtime
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.naming.tree import Leaf, NameTree
from meshgw.telemetry.metrics import Metrics, Snapshot
from meshgw.telemetry.spans import Tracer

SECONDS = 5.0
"""The longest a dialogue waits for bytes that were sent to arrive."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
DONE = b"\r\n\r\nok"


class Names:
    """An interpreter whose answers the test gives: ``trees`` by logical name, pending until set. ``bound`` counts the bindings made."""

    def __init__(self) -> None:
        self.trees: dict[Path, Source[NameTree[Bound]]] = {}
        self.addresses: dict[Path, Source[Addr]] = {}
        self.bound: list[tuple[Dtab, Path]] = []

    def bind(self, dtab: Dtab, path: Path) -> Live[NameTree[Bound]]:
        self.bound.append((dtab, path))
        return self.tree(path)

    def tree(self, path: Path) -> Source[NameTree[Bound]]:
        return self.trees.setdefault(path, Source())

    def addr(self, id: str) -> Source[Addr]:
        return self.addresses.setdefault(Path.read(id), Source())

    def leaf(self, id: str, residual: str = "/") -> Leaf[Bound]:
        return Leaf(Bound(Path.read(id), self.addr(id), Path.read(residual)))

    def lead(self, name: str, *ports: int) -> None:
        """Make ``/svc/<name>`` lead to these ports of loopback through the id ``/#/<name>``."""
        self.addr(f"/#/{name}").set(Replicas(tuple(Address("127.0.0.1", port) for port in ports)))
        self.tree(Path.of("svc", name)).set(self.leaf(f"/#/{name}"))


class Mesh:
    """A router serving on a free port of loopback; ``router`` are YAML lines of its block, ``protocol`` gives it its label as well.

    Names are bound by ``interpreter`` and requests named by ``identifier``, if given. ``tracers`` get spans.
    """

    def __init__(
        self,
        router: str = "",
        server: str = "",
        *,
        protocol: str = "http",
        interpreter: Interpreter | None = None,
        identifier: RequestIdentifier | None = None,
        tracers: Sequence[Tracer] = (),
    ) -> None:
        text = f"routers:\n- protocol: {protocol}\n  servers:\n  - port: 0\n{_indented(server, 4)}{_indented(router, 2)}"
        loaded = load(text, "test.yml", Registry())
        assert loaded.config is not None, [problem.show() for problem in loaded.problems]
        self.clock, self.poller, self.metrics, self.names = Clock(), HandPoller(), Metrics(), Names()
        self.clock.advance(1000.0)
        self.wheel = Wheel(self.clock)
        runtime = Runtime(reactor=self.clock, metrics=self.metrics, random=Random(7), spawn=_unused, resolve=_unused)
        shared = Shared(
            runtime=runtime,
            poller=self.poller,
            wheel=self.wheel,
            clock=self.clock.seconds,
            now=self.clock.seconds,
            sampler=Sampler(tracers, 0) if tracers else None,
        )
        self._label, make = protocol, {"http": HttpRouter, "h2": H2Router}[protocol]
        block = loaded.config.routers[0].config
        if identifier is not None:
            kind = Kind(id=identifier.kind, config=object, build=lambda _config, _runtime, *, prefix: identifier)
            block = attrs.evolve(block, identifier=(Chosen(kind=kind, config=None),))
        scope = self.metrics.scope("rt", protocol)
        self.router: RequestRouter = make(block, protocol, interpreter or self.names, shared, scope)  # type: ignore[arg-type]  # of that protocol
        self.router.listen(Sockets.open(router_places(loaded.config.routers[0])).take)
        self.router.start()
        self.port = self.router.listeners[0].address[1]
        self._sides: list[Side] = []
        self._listeners: list[socket.socket] = []

    def __enter__(self) -> Mesh:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.router.stop_accepting()
        self.router.abort()
        self.router.stop()
        for side in self._sides:
            side.sock.close()
        for listener in self._listeners:
            listener.close()
        self.poller.close()

    def pump(self) -> None:
        """Handle what is ready now."""
        while self.poller.pump():
            self.clock.advance(0)
        self.clock.advance(0)

    def until(self, statement: Callable[[], object]) -> None:
        """Handle events until ``statement`` holds; fails after a bound."""
        end = time.monotonic() + SECONDS
        while not statement():
            assert time.monotonic() < end, [side.describe() for side in self._sides]
            self.poller.pump(0.005)
            self.clock.advance(0)
            for side in self._sides:
                side.read()

    def settle(self) -> None:
        """Handle events until none comes for a moment."""
        quiet = 0
        while quiet < 3:
            quiet = 0 if self.poller.pump(0.01) else quiet + 1
            self.clock.advance(0)
            for side in self._sides:
                quiet = 0 if side.read() else quiet

    def caller(self) -> Side:
        """A new connection to the router."""
        return self._side(socket.create_connection(("127.0.0.1", self.port)))

    def service(self, *names: str) -> Service:
        """A listening service; the names lead to it."""
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        self._listeners.append(listener)
        service = Service(self, listener)
        for name in names:
            self.names.lead(name, service.port)
        return service

    def _side(self, sock: socket.socket) -> Side:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)  # else the system keeps tens of megabytes for a slow reader
        side = Side(self, sock)
        self._sides.append(side)
        return side

    def snapshot(self) -> Snapshot:
        """The router's metrics."""
        return self.metrics.snapshot()

    def counter(self, name: str) -> int:
        """A counter of the router by its name below ``rt/<label>``, 0 when there is none."""
        found = [value for names, value in self.snapshot().counters.items() if "/".join(names) == f"rt/{self._label}/{name}"]
        return found[0] if found else 0


class Side:
    """One end of a connection, a caller's or a service's.

    ``got`` is what came (with ``last_only`` just the end of it), ``total`` its size, ``ending`` ``eof`` or ``reset`` once it ended.
    """

    def __init__(self, mesh: Mesh, sock: socket.socket) -> None:
        self._mesh, self.sock = mesh, sock
        self.got, self.ending = b"", ""
        self.is_reading = True
        self.total = 0
        self.last_only = False

    def describe(self) -> str:
        return f"{self.sock}: {self.ending or 'open'}, got {self.got[-300:]!r}"

    def read(self) -> bool:
        """Take what is there; whether anything was."""
        if not self.is_reading or self.ending:
            return False
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self.ending = "reset"
            return True
        if not data:
            self.ending = "eof"
        self.total += len(data)
        self.got = (self.got + data)[-1024:] if self.last_only else self.got + data
        return True

    def send(self, data: bytes) -> Side:
        """Send all of it, while the router handles events."""
        view = memoryview(data)
        end = time.monotonic() + SECONDS
        while view:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                self._mesh.poller.pump(0.005)
                for side in self._mesh._sides:
                    side.read()
                assert time.monotonic() < end, "nobody takes the bytes"
        return self

    def offer(self, data: bytes) -> int:
        """Send until the router takes no more, and give how much it took."""
        sent, quiet = 0, 0
        while sent < len(data) and quiet < 20:
            try:
                sent += self.sock.send(data[sent : sent + 65536])
                quiet = 0
            except BlockingIOError:
                quiet = 0 if self._mesh.poller.pump(0.005) else quiet + 1
        return sent

    def get(self, target: bytes = b"/", host: bytes = b"web", fields: bytes = b"", method: bytes = b"GET", version: bytes = b"1.1") -> Side:
        """Send a request without body."""
        return self.send(b"%b %b HTTP/%b\r\nHost: %b\r\n%b\r\n" % (method, target, version, host, fields))

    def expect(self, mark: bytes, times: int = 1) -> bytes:
        """Wait until ``mark`` came so many times; everything so far."""
        self._mesh.until(lambda: self.got.count(mark) >= times or self.ending)
        assert self.got.count(mark) >= times, self.describe()
        return self.got

    def expect_end(self) -> str:
        """Wait for the end of the connection: ``eof`` or ``reset``."""
        self._mesh.until(lambda: self.ending)
        return self.ending

    def take(self) -> bytes:
        """What came since the last call."""
        got, self.got = self.got, b""
        return got

    def end(self) -> None:
        """Half-close."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close in the ordinary way."""
        self.sock.close()
        self.ending = "closed"

    def reset(self) -> None:
        """Close with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.close()


class Service:
    """A listening service whose connections the test speaks for."""

    def __init__(self, mesh: Mesh, listener: socket.socket) -> None:
        self._mesh, self._listener = mesh, listener
        self.port: int = listener.getsockname()[1]

    def accept(self) -> Side:
        """The next connection of the router."""
        found: list[Side] = []

        def accepted() -> bool:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return False
            found.append(self._mesh._side(sock))
            return True

        self._mesh.until(accepted)
        return found[0]

    def has_more(self) -> bool:
        """Whether another connection waits to be accepted."""
        self._mesh.settle()
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return False
        sock.close()
        return True

    def close(self) -> None:
        """Stop listening: connects are refused from now on."""
        self._listener.close()


def asked(mesh: Mesh, request: bytes = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n", mark: bytes = b"\r\n\r\n") -> tuple[Side, Side, Service]:
    """A caller whose request has arrived at a service."""
    service = mesh.service("web")
    caller = mesh.caller().send(request)
    upstream = service.accept()
    upstream.expect(mark)
    return caller, upstream, service


def idle(mesh: Mesh) -> bool:
    """Whether nothing is under way and nothing is held for anybody."""
    routes = mesh.router.caches.routes.values()
    clients = mesh.router.caches.clients()
    busy = any(route.in_flight or route.waiters for route in routes) or any(client.waiters for client in clients)
    return not busy and not gauge(mesh, "loadbalancer/load") and not gauge(mesh, "pool_waiters")


def gauge(mesh: Mesh, name: str) -> float:
    """The sum of a gauge over all clients."""
    return sum(value for names, value in mesh.snapshot().gauges.items() if names[2:3] == ("client",) and "/".join(names[4:]) == name)


def _indented(text: str, by: int) -> str:
    return "".join(f"{' ' * by}{line}\n" for line in text.splitlines())


def _unused(*_: Any) -> Any:
    raise AssertionError("not expected in a dialogue")
