"""The PROXY header that trusted load balancers put in front of a connection, taken off before anybody else reads from it.

Source: "The PROXY protocol, versions 1 & 2" (haproxy.org), section 2 and its advice on security: only addresses that are known to send the
header are asked for it, and those must send it. The bytes are looked at before they are taken from the socket, so that nothing of what
follows, HTTP or a TLS handshake, ever leaves it: whoever serves the connection then begins as if the header had not been there.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from meshgw.core.logger import make_logger
from meshgw.core.networks import Networks
from meshgw.core.reactor import IN, Poller
from meshgw.core.timers import Timer, Wheel
from meshgw.core.transport import describe
from meshgw.server.listener import Accepted, ServerConnection
from meshgw.wire.proxy_protocol import LONGEST_V2, ProxyHeader, ProxyHeaderError, ProxyHeaderReader

LOOK_BYTES = LONGEST_V2 + 16
LOG_SECONDS = 10.0
"""Of each kind of failure one line is logged in this time, which tells how many there were."""

_log = make_logger()


class Counter(Protocol):
    """What is counted up."""

    def incr(self) -> None:
        """Once more."""
        ...


class ProxyStats:
    """Counters of one listener: headers taken, and connections closed for want of one, by kind. ``clock`` gives seconds."""

    KINDS = ("missing", "malformed", "timeout", "closed")

    def __init__(self, counter: Callable[..., Counter], clock: Callable[[], float], address: str) -> None:
        """``counter`` makes one of a name; ``address`` is the listener's, for the log."""
        self.taken = counter("proxy_protocol", "headers").incr
        self._failures = {kind: counter("proxy_protocol", "failures", kind) for kind in self.KINDS}
        self._clock, self._address = clock, address
        self._logged: dict[str, tuple[float, int]] = {}

    def failed(self, kind: str, peer: tuple[str, int], reason: str) -> None:
        """Count, and log unless one of this kind was logged a moment ago; who left without a byte was only a probe."""
        self._failures[kind].incr()
        if kind == "closed":
            return
        now = self._clock()
        since, kept = self._logged.get(kind, (now - LOG_SECONDS, 0))
        if now - since < LOG_SECONDS:
            self._logged[kind] = (since, kept + 1)
            return
        self._logged[kind] = (now, 0)
        _log.warn(
            "{address}: connection from {peer} closed, as a trusted load balancer must begin with a PROXY header: {reason}{more}",
            address=self._address,
            peer=f"{peer[0]} port {peer[1]}",
            reason=reason,
            more=f" ({kept} more of this kind since the last line)" if kept else "",
        )


class ProxyHeaders:
    """Stands between a listener and what serves its connections; :meth:`accepted` is the listener's ``accepted``. Times are seconds."""

    def __init__(
        self,
        serve: Accepted,
        *,
        trusted: Networks,
        timeout: float,
        poller: Poller,
        wheel: Wheel,
        stats: ProxyStats,
        replaced: Callable[[ServerConnection, ServerConnection], None],
        closed: Callable[[ServerConnection], None],
    ) -> None:
        """``serve`` makes the protocol of a connection. ``replaced`` and ``closed`` are the listener's: it knows the connections."""
        self.serve, self.poller, self.wheel, self.stats = serve, poller, wheel, stats
        self.replaced, self.closed, self.timeout = replaced, closed, timeout
        self._trusted = trusted

    def accepted(self, sock: socket.socket, peer: tuple[str, int], local: tuple[str, int]) -> ServerConnection:
        """What serves the connection: at once, or after its header if it comes from a trusted address."""
        if self._trusted.contains(peer[0]):
            return AwaitedHeader(self, sock, peer, local)
        return self.serve(sock, peer, local)


class AwaitedHeader:
    """A connection whose header has not arrived yet."""

    __slots__ = ("_closing", "_gate", "_local", "_peer", "_reader", "_sock", "_timer")

    def __init__(self, gate: ProxyHeaders, sock: socket.socket, peer: tuple[str, int], local: tuple[str, int]) -> None:
        self._gate, self._sock, self._peer, self._local = gate, sock, peer, local
        self._reader: ProxyHeaderReader | None = ProxyHeaderReader()
        self._timer: Timer | None = None
        self._closing = False

    def start(self) -> None:
        """Begin to wait."""
        gate = self._gate
        gate.poller.watch(self._sock.fileno(), self._look, IN)
        self._timer = gate.wheel.after(gate.timeout, lambda: self._fail("timeout", f"it did not come within {gate.timeout:g} s"))

    def _look(self, _events: int) -> None:
        reader = self._reader
        if reader is None:
            return  # an event of the same round
        try:
            data = self._sock.recv(LOOK_BYTES, socket.MSG_PEEK)
            if not data:
                self._fail("closed", "the connection was closed")
                return
            header = reader.feed(data)
            self._sock.recv(len(data) - len(reader.rest))  # incomplete, it is all of the header
        except BlockingIOError:
            return  # meant for the descriptor's former owner
        except ProxyHeaderError as error:
            self._fail("missing" if error.is_missing else "malformed", str(error))
            return
        except OSError as error:
            self._fail("closed", describe(error))
            return
        if header is not None:
            self._hand_over(header)

    def _hand_over(self, header: ProxyHeader) -> None:
        gate = self._gate
        self._release()
        gate.stats.taken()
        source, destination = header.source, header.destination
        if source is None or destination is None:  # the load balancer itself, with a health check
            source, destination = self._peer, self._local
        served = gate.serve(self._sock, source, destination)
        gate.replaced(self, served)
        served.start()
        if self._closing:
            served.drain(close_idle=False)

    def _fail(self, kind: str, reason: str) -> None:
        self._gate.stats.failed(kind, self._peer, reason)
        self._close()

    def _close(self) -> None:
        if self._reader is not None:
            self._release()
            self._sock.close()
            self._gate.closed(self)

    def _release(self) -> None:
        self._reader = None
        if self._timer is not None:
            self._timer.cancel()
        self._gate.poller.forget(self._sock.fileno())

    # --- see meshgw.server.listener.ServerConnection

    def drain(self, *, close_idle: bool = True) -> None:
        """Close, as nothing is under way, or, with ``close_idle`` false, serve one request."""
        if close_idle:
            self._close()
        else:
            self._closing = True

    def abort(self) -> None:
        """Close now."""
        self._close()

    def check(self) -> None:
        """Nothing to do: the wait is bounded by a timer."""
