"""The shared live DNS resolver: a host name and port as a live address set. It stands behind ``Runtime.resolve``.

Source: dtab spec 4.3 (``/$/inet``), linkerd-config spec 3.13. Addresses are asked again when their time to live ends, wherever
the name came from; a name server's failure keeps the last good addresses; a name that does not exist is ``ADDR_NEG``.
The hosts file is asked first, then A and AAAA records. SRV records are not looked up here.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final, cast

import attrs
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSQueryRefusedError, DNSServerError, DomainError
from twisted.python.failure import Failure

from meshgw.backends.dns_client import Answer
from meshgw.core.address import ADDR_NEG, Addr, Address, Replicas
from meshgw.core.live import Live, Observation, Ok, Source, State, constant
from meshgw.core.logger import make_logger
from meshgw.core.timers import Backoff
from meshgw.errors import MeshError, NamerError
from meshgw.namers.resolvconf import NameServers, hosts_addresses, literal_address, valid_name

if TYPE_CHECKING:
    from meshgw.telemetry.metrics import Metrics

_log = make_logger()

LEAST_TTL, MOST_TTL = 1.0, 300.0  # a TTL of 0 must not become a loop; one of a day must not hide a move for a day
HOSTS_SECONDS: Final = 5.0  # the hosts file has no TTL; containers rewrite it
ABSENT_SECONDS: Final = 5.0  # a name that appears is found this soon; a shorter negative TTL of the zone counts (RFC 2308)
RETRY_SECONDS: Final = (1.0, 30.0)
LOOKUP_SECONDS: Final = 9.0  # under the 10 s binding timeout, so that the error names the cause (spec 4.1)
LINGER_SECONDS: Final = 60.0
MOST_LINGERING: Final = 1000  # names come from callers' dtabs too; without a cap each would be asked for a minute

Ips = tuple[str, ...]


@attrs.frozen
class _Family:
    """One record type's outcome: addresses with their time to live, none and for how long, or an error."""

    ips: Ips = ()
    ttl: float = MOST_TTL
    negative: float = ABSENT_SECONDS
    error: Exception | None = None


@attrs.frozen
class HostState:
    """What is known of one host, for the admin pages; ``age`` is in seconds since the last good answer, None before it."""

    host: str
    addresses: Ips
    age: float | None
    error: str


class _Host:
    """One host name while somebody watches it, and a minute longer: its addresses and the next lookup."""

    def __init__(self, resolver: Resolver, name: str) -> None:
        self.name, self._resolver = name, resolver
        self.value: Source[Ips | None] = Source(self._watched)
        self._good: dict[str, Ips] = {}
        self.good_at: float | None = None
        self._backoff = Backoff(resolver.rng, least=RETRY_SECONDS[0], most=RETRY_SECONDS[1])
        self._lookup: Deferred[None] | None = None
        self._next: IDelayedCall | None = None
        self.linger: IDelayedCall | None = None
        self._complained = False

    def _watched(self, source: Source[Ips | None]) -> Callable[[], None]:
        if self.linger is not None:
            self.linger.cancel()
            self.linger = None
        else:
            source.pend(f"DNS of {self.name}")
            self._start_lookup()
        return partial(self._resolver.unwatched, self)

    def close(self) -> None:
        """Stop all work for the name."""
        for call in (self._next, self.linger):
            if call is not None and call.active():
                call.cancel()
        self._next = self.linger = None
        if self._lookup is not None:
            self._lookup.cancel()

    def _start_lookup(self) -> None:
        self._next = None
        deferred: Deferred[None] = Deferred.fromCoroutine(self._look_up())
        if not deferred.called:
            self._lookup = deferred
        deferred.addBoth(self._ended)

    def _ended(self, result: object) -> None:
        self._lookup = None
        if isinstance(result, Failure) and not isinstance(result.value, CancelledError):
            _log.failure("defect while resolving {host}", result, host=self.name)
            self._again(RETRY_SECONDS[1])

    def _again(self, seconds: float) -> None:
        self._next = self._resolver.clock.callLater(seconds, self._start_lookup)

    async def _look_up(self) -> None:
        resolver = self._resolver
        local = hosts_addresses(resolver.hosts_file, self.name)
        if local:
            self._found({"": local}, HOSTS_SECONDS)
            return
        resolver.lookups.incr()
        v4 = v6 = _Family()
        for name in resolver.servers.candidates(self.name):
            v4, v6 = await self._ask(name)
            if v4.ips or v6.ips or v4.error or v6.error:
                break  # libc too stops the search list at a server's failure: the next domain's host could be another one
        self._take(v4, v6)

    async def _ask(self, name: str) -> tuple[_Family, _Family]:
        client = self._resolver.servers.client()
        # Both questions leave together; the second must not wait for the first one's timeout.
        asked = [self._asked(client.lookupAddress, name, dns.A), self._asked(client.lookupIPV6Address, name, dns.AAAA)]
        (answered, v4), (also_answered, v6) = await DeferredList(asked, consumeErrors=True)
        if not (answered and also_answered):
            raise CancelledError  # only that fails a question; all other failures are part of its answer
        return v4, v6

    def _asked(self, lookup: Callable[[str], Deferred[Answer]], name: str, kind: int) -> Deferred[_Family]:
        def failed(failure: Failure) -> _Family | Failure:
            error = failure.value
            if isinstance(error, DNSNameError):
                message = error.args[0] if error.args else None
                return _Family(negative=_negative(getattr(message, "authority", ())))
            return failure if isinstance(error, CancelledError) or not isinstance(error, Exception) else _Family(error=error)

        deferred = maybeDeferred(lookup, name).addTimeout(LOOKUP_SECONDS, self._resolver.clock)
        return deferred.addCallbacks(lambda answer: _family(answer, kind), failed)

    def _take(self, v4: _Family, v6: _Family) -> None:
        """Publish the two answers; a family that failed keeps its last good addresses."""
        error = v4.error or v6.error
        families = {"v4": v4, "v6": v6}
        known = {key: self._good.get(key, ()) if family.error else family.ips for key, family in families.items()}
        if error is not None:
            self._resolver.failures.incr()
        if not any(known.values()):
            if error is not None:
                self._failed(error)
            else:
                self._absent(min(v4.negative, v6.negative))
        elif error is None:
            self._found(known, min(family.ttl for family in (v4, v6) if family.ips))
        elif any(family.ips for family in (v4, v6)):
            self._found(known, self._backoff.next(), complete=False)
        else:
            self._failed(error)

    def _found(self, known: dict[str, Ips], seconds: float, *, complete: bool = True) -> None:
        self._good, self.good_at = known, self._resolver.clock.seconds()
        self._again(seconds)
        if complete:
            self._backoff.reset()
            self._complained = False
            self._resolver.successes.incr()
        self.value.set(tuple(dict.fromkeys(ip for ips in known.values() for ip in ips)))

    def _absent(self, seconds: float) -> None:
        self._good, self.good_at = {}, self._resolver.clock.seconds()
        self._backoff.reset()
        self._complained = False
        self._resolver.absent.incr()
        self._again(seconds * self._resolver.rng.uniform(0.8, 1.2))
        self.value.set(None)

    def _failed(self, error: Exception) -> None:
        self._again(self._backoff.next())
        reason = _reason(error)
        if not self._complained:  # once per outage, not per attempt
            self._complained = True
            kept = "its last addresses stay in use" if isinstance(self.value.state, Ok) else "no address is known yet"
            _log.warn("{host}: DNS lookup failed ({reason}); {kept}, trying again", host=self.name, reason=reason, kept=kept)
        self.value.fail(NamerError(detail=f"{self.name}: DNS lookup failed: {reason}"))


def _family(answer: Answer, kind: int) -> _Family:
    """The addresses among the answers; aliases on the way shorten the time to live."""
    relevant = [record for record in answer[0] if record.type in (kind, dns.CNAME)]
    ips = [_address(record) for record in relevant if record.type == kind]
    if not ips:
        return _Family(negative=_negative(answer[1]))
    ttl = min(float(record.ttl or 0) for record in relevant)
    # Name servers rotate the records; sorting keeps an unchanged set from looking like a change.
    return _Family(ips=tuple(sorted(set(ips))), ttl=min(max(ttl, LEAST_TTL), MOST_TTL))


def _negative(authority: Iterable[dns.RRHeader]) -> float:
    """How long a name may be believed not to exist (RFC 2308 section 5), within our bounds."""
    found = [
        min(float(record.ttl or 0), float(cast("dns.Record_SOA", record.payload).minimum)) for record in authority if record.type == dns.SOA
    ]
    return max(LEAST_TTL, min([ABSENT_SECONDS, *found]))


def _address(record: dns.RRHeader) -> str:
    packed = cast("bytes", cast("dns.Record_A | dns.Record_AAAA", record.payload).address)
    return socket.inet_ntop(socket.AF_INET if record.type == dns.A else socket.AF_INET6, packed)


def _reason(error: Exception) -> str:
    """The error in an operator's words; the texts of ``twisted.names`` print whole messages."""
    if isinstance(error, MeshError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "no answer from the name servers in time"
    if isinstance(error, DNSServerError):
        return "the name server reports a failure (SERVFAIL)"
    if isinstance(error, DNSQueryRefusedError):
        return "the name server refuses the query"
    if isinstance(error, DomainError):
        return type(error).__name__
    return f"{type(error).__name__}: {error}"


class Resolver(Service):
    """Resolves host names to live address sets; names are shared while watched and for 60 s after.

    ``reactor`` is the clock, ``servers`` says whom to ask (``SystemServers`` for the machine's resolv.conf), ``rng`` jitters the
    retries, ``metrics`` is the root scope under which ``inet/dns/…`` is counted. Stopping the service ends all lookups.
    """

    def __init__(
        self, reactor: IReactorTime, servers: NameServers, rng: Random, metrics: Metrics, *, hosts_file: str = "/etc/hosts"
    ) -> None:
        self.clock, self.servers, self.rng, self.hosts_file = reactor, servers, rng, hosts_file
        scope = metrics.scope("inet", "dns")
        self.lookups, self.successes = scope.counter("lookups"), scope.counter("successes")
        self.failures, self.absent = scope.counter("failures"), scope.counter("absent")
        self._hosts: dict[str, _Host] = {}
        self._lingering: dict[str, _Host] = {}

    def resolve(self, host: str, port: int) -> Live[Addr]:
        """The live addresses of ``host`` with ``port``: a literal address at once, else what hosts file and DNS say."""
        literal = literal_address(host)
        if literal is not None:
            return constant(Replicas((Address(literal, port),)))
        name = valid_name(host)
        if name is None:
            return constant(ADDR_NEG)

        def start(out: Source[Addr]) -> Callable[[], None]:
            def notify(state: State[Ips | None]) -> None:
                out.put(Ok(_addr(state.value, port), state.error) if isinstance(state, Ok) else state)

            observation: Observation = self._host(name).value.observe(notify)
            return observation.close

        return Source(start, forget=True)

    def states(self) -> list[HostState]:
        """What is known of each name that is watched or was until a minute ago."""
        return [self._described(host) for _, host in sorted(self._hosts.items())]

    def stopService(self) -> None:
        """End all lookups; watched names keep their last state."""
        super().stopService()  # type: ignore[no-untyped-call]
        for host in self._hosts.values():
            host.close()
        self._hosts.clear()
        self._lingering.clear()

    def unwatched(self, host: _Host) -> None:
        """Nobody watches ``host`` any more: keep it fresh for a while, since the next caller is likely to want it."""
        if self._hosts.get(host.name) is not host:
            return  # stopped already
        if len(self._lingering) >= MOST_LINGERING:
            self._forget(next(iter(self._lingering.values())))
        self._lingering[host.name] = host
        host.linger = self.clock.callLater(LINGER_SECONDS, self._forget, host)

    def _host(self, name: str) -> _Host:
        self._lingering.pop(name, None)
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(self, name)
        return host

    def _forget(self, host: _Host) -> None:
        host.close()
        del self._hosts[host.name]
        self._lingering.pop(host.name, None)

    def _described(self, host: _Host) -> HostState:
        state = host.value.state
        known = state.value if isinstance(state, Ok) and state.value else ()
        error = getattr(state, "error", None)
        age = None if host.good_at is None else self.clock.seconds() - host.good_at
        return HostState(host=host.name, addresses=known, age=age, error="" if error is None else str(error))


def _addr(ips: Ips | None, port: int) -> Addr:
    return ADDR_NEG if ips is None else Replicas(tuple(Address(ip, port) for ip in ips))
