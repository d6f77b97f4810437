"""The live DNS resolver under a Clock, with name servers that answer when the test says so."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path as File
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError
from twisted.python.failure import Failure

from meshgw.core.address import ADDR_NEG, Addr, Address, Replicas
from meshgw.core.live import Failed, Live, Ok, Pending, current
from meshgw.namers.dns import LINGER_SECONDS, LOOKUP_SECONDS, MOST_LINGERING, Resolver
from meshgw.namers.resolvconf import FixedServers
from meshgw.telemetry.metrics import Metrics

NAME = "web.example.com"


class Client:
    """A DNS client that records questions and answers them from ``zone``; names without an entry wait."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.cancelled = 0
        self.waiting: list[Deferred[Any]] = []
        self.zone: dict[tuple[str, str], list[tuple[int, str]] | Exception] = {}

    def lookupAddress(self, name: str, timeout: Any = None) -> Deferred[Any]:
        return self._ask("A", name)

    def lookupIPV6Address(self, name: str, timeout: Any = None) -> Deferred[Any]:
        return self._ask("AAAA", name)

    def _cancelled(self, _deferred: Deferred[Any]) -> None:
        self.cancelled += 1

    def _ask(self, kind: str, name: str) -> Deferred[Any]:
        self.asked.append((kind, name))
        answer: Deferred[Any] = Deferred(self._cancelled)
        entry = self.zone.get((kind, name))
        if entry is None:
            self.waiting.append(answer)
        elif isinstance(entry, Exception):
            answer.errback(Failure(entry))
        else:
            answer.callback(([record(kind, name, ttl, text) for ttl, text in entry], [], []))
        return answer

    def knows(self, *ips: str, ttl: int = 60, name: str = NAME) -> None:
        self.zone["A", name] = [(ttl, ip) for ip in ips if ":" not in ip]
        self.zone["AAAA", name] = [(ttl, ip) for ip in ips if ":" in ip]

    def fails(self, error: Exception, *kinds: str, name: str = NAME) -> None:
        for kind in kinds or ("A", "AAAA"):
            self.zone[kind, name] = error


def record(kind: str, name: str, ttl: int, text: str) -> dns.RRHeader:
    if text.startswith("cname "):
        return dns.RRHeader(name, dns.CNAME, ttl=ttl, payload=dns.Record_CNAME(text[6:], ttl))
    payload = dns.Record_A(text, ttl) if kind == "A" else dns.Record_AAAA(text, ttl)
    return dns.RRHeader(name, dns.A if kind == "A" else dns.AAAA, ttl=ttl, payload=payload)


class Setting:
    """A resolver, its clock, its name servers and its hosts file."""

    def __init__(self, hosts: File) -> None:
        self.clock, self.client, self.hosts, self.metrics = Clock(), Client(), hosts, Metrics()
        self.servers = FixedServers(self.client)
        self.resolver = Resolver(self.clock, self.servers, Random(1), self.metrics, hosts_file=str(hosts))

    def watch(self, host: str = NAME, port: int = 80) -> tuple[list[Any], Callable[[], None]]:
        seen: list[Any] = []
        return seen, self.resolver.resolve(host, port).observe(seen.append).close

    def count(self, name: str) -> int:
        return self.metrics.scope("inet", "dns").counter(name).value


@pytest.fixture
def on(tmp_path: File) -> Setting:
    return Setting(tmp_path / "hosts")


def addr(*ips: str, port: int = 80) -> Addr:
    return Replicas(tuple(Address(ip, port) for ip in ips))


def value(live: Live[Addr]) -> Addr:
    state = current(live)
    assert isinstance(state, Ok)
    return state.value


@pytest.mark.parametrize(
    ("host", "ip"),
    [("192.0.2.1", "192.0.2.1"), ("127.1", "127.0.0.1"), ("8080", "0.0.31.144"), ("::1", "::1"), ("[2001:DB8::1]", "2001:db8::1")],
)
def test_literal_addresses_need_no_lookup(on: Setting, host: str, ip: str) -> None:
    assert value(on.resolver.resolve(host, 80)) == addr(ip)
    assert not on.client.asked


@pytest.mark.parametrize("host", ["", ".", "a..b", "-a.example", "x" * 64, "a b", "1.2.3.256", "010.0.0.1", "ü" * 300, "a/b"])
def test_what_cannot_be_a_name_is_negative_without_a_question(on: Setting, host: str) -> None:
    assert value(on.resolver.resolve(host, 80)) == ADDR_NEG
    assert not on.client.asked


def test_both_families_are_asked_at_once_and_joined(on: Setting) -> None:
    seen, _ = on.watch()
    assert on.client.asked == [("A", NAME), ("AAAA", NAME)]
    assert seen == [Pending(f"DNS of {NAME}")]
    on.client.waiting[1].callback(([record("AAAA", NAME, 60, "2001:db8::1")], [], []))
    assert len(seen) == 1
    on.client.waiting[0].callback(([record("A", NAME, 60, "192.0.2.2"), record("A", NAME, 60, "192.0.2.1")], [], []))
    assert seen[-1] == Ok(addr("192.0.2.1", "192.0.2.2", "2001:db8::1"))


def test_names_are_asked_again_when_their_time_to_live_ends(on: Setting) -> None:
    on.client.knows("192.0.2.1", ttl=30)
    seen, _ = on.watch()
    on.client.knows("192.0.2.2", ttl=30)
    on.clock.advance(29.9)
    assert seen == [Ok(addr("192.0.2.1"))]
    on.clock.advance(0.2)
    assert seen == [Ok(addr("192.0.2.1")), Ok(addr("192.0.2.2"))]


@pytest.mark.parametrize(("ttl", "seconds"), [(0, 1.0), (86400, 300.0)])
def test_time_to_live_is_kept_between_limits(on: Setting, ttl: int, seconds: float) -> None:
    on.client.knows("192.0.2.1", ttl=ttl)
    on.watch()
    on.clock.advance(seconds - 0.01)
    assert len(on.client.asked) == 2
    on.clock.advance(0.02)
    assert len(on.client.asked) == 4


def test_an_alias_shortens_the_time_to_live(on: Setting) -> None:
    on.client.zone["A", NAME] = [(5, "cname real.example.com"), (3600, "192.0.2.1")]
    on.client.zone["AAAA", NAME] = [(5, "cname real.example.com")]
    seen, _ = on.watch()
    assert seen[-1] == Ok(addr("192.0.2.1"))
    on.clock.advance(5.1)
    assert len(on.client.asked) == 4


def test_rotated_records_are_no_change(on: Setting) -> None:
    on.client.knows("192.0.2.1", "192.0.2.2", ttl=1)
    seen, _ = on.watch()
    on.client.knows("192.0.2.2", "192.0.2.1", ttl=1)
    on.clock.advance(1.1)
    assert len(seen) == 1


@pytest.mark.parametrize("answer", [DNSNameError(), []])
def test_a_name_that_does_not_exist_is_negative_and_found_soon_after_it_appears(on: Setting, answer: Any) -> None:
    on.client.zone["A", NAME] = on.client.zone["AAAA", NAME] = answer
    seen, _ = on.watch()
    assert seen == [Ok(ADDR_NEG)]
    on.client.knows("192.0.2.1")
    on.clock.advance(6.1)
    assert seen[-1] == Ok(addr("192.0.2.1"))
    assert (on.count("absent"), on.count("successes"), on.count("failures"), on.count("lookups")) == (1, 1, 0, 2)


def soa(ttl: int, minimum: int) -> dns.RRHeader:
    return dns.RRHeader("example.com", dns.SOA, ttl=ttl, payload=dns.Record_SOA(minimum=minimum, ttl=ttl))


def negative(*authority: dns.RRHeader, exists: bool) -> Any:
    """The answer of a zone that has no address for a name, or no such name."""
    if exists:
        return ([], list(authority), [])
    message = dns.Message()
    message.authority = list(authority)
    return DNSNameError(message)


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(
    ("authority", "most"), [([soa(2, 60)], 2.4), ([soa(60, 2)], 2.4), ([soa(900, 900)], 6.0), ([soa(0, 0)], 1.2), ([], 6.0)]
)
def test_the_zone_tells_how_soon_an_absent_name_is_asked_again(
    on: Setting, authority: list[dns.RRHeader], most: float, exists: bool
) -> None:
    seen, _ = on.watch()
    for waiting in on.client.waiting[:]:
        answer = negative(*authority, exists=exists)
        if isinstance(answer, Exception):
            waiting.errback(Failure(answer))
        else:
            waiting.callback(answer)
    assert seen[-1] == Ok(ADDR_NEG)
    on.clock.advance(most * 0.66)
    assert len(on.client.asked) == 2
    on.clock.advance(most * 0.35)
    assert len(on.client.asked) == 4


def test_a_name_that_vanishes_becomes_negative(on: Setting) -> None:
    on.client.knows("192.0.2.1", ttl=1)
    seen, _ = on.watch()
    on.client.fails(DNSNameError())
    on.clock.advance(1.1)
    assert seen[-1] == Ok(ADDR_NEG)


@pytest.mark.parametrize("error", [DNSServerError(), TimeoutError()])
def test_a_server_failure_before_any_answer_is_a_failure(on: Setting, error: Exception) -> None:
    on.client.fails(error)
    seen, _ = on.watch()
    assert isinstance(seen[-1], Failed)
    assert str(seen[-1].error).startswith(f"{NAME}: DNS lookup failed: ")
    on.client.knows("192.0.2.1")
    on.clock.advance(3.1)
    assert seen[-1] == Ok(addr("192.0.2.1"))
    assert on.count("failures") == 1


def test_a_server_failure_keeps_the_last_good_addresses_and_is_retried_ever_less_often(on: Setting) -> None:
    on.client.knows("192.0.2.1", ttl=1)
    seen, _ = on.watch()
    on.client.fails(DNSServerError())
    on.clock.pump([0.5] * 600)
    assert {state.value for state in seen} == {addr("192.0.2.1")}
    assert seen[-1].error is not None
    assert 300 / 30 <= on.count("failures") <= 300 / 30 * 6
    on.client.knows("192.0.2.9")
    on.clock.pump([0.5] * 61)
    assert seen[-1] == Ok(addr("192.0.2.9"))


def test_a_family_that_fails_keeps_its_last_good_addresses(on: Setting) -> None:
    on.client.knows("192.0.2.1", "2001:db8::1", ttl=1)
    seen, _ = on.watch()
    on.client.fails(DNSServerError(), "AAAA")
    on.client.zone["A", NAME] = [(1, "192.0.2.2")]
    on.clock.advance(1.1)
    assert seen[-1] == Ok(addr("192.0.2.2", "2001:db8::1"))


def test_half_an_answer_is_no_proof_that_a_name_does_not_exist(on: Setting) -> None:
    on.client.fails(DNSNameError(), "A")
    on.client.fails(DNSServerError(), "AAAA")
    assert isinstance(on.watch()[0][-1], Failed)


def test_servers_that_do_not_answer_end_the_lookup_within_the_binding_timeout(on: Setting) -> None:
    seen, _ = on.watch()
    on.clock.advance(LOOKUP_SECONDS + 0.1)
    assert isinstance(seen[-1], Failed)
    assert "no answer from the name servers in time" in str(seen[-1].error)


def test_watchers_of_one_host_share_its_lookups(on: Setting) -> None:
    on.client.knows("192.0.2.1")
    first, second = on.watch(port=80)[0], on.watch(host="WEB.Example.com", port=81)[0]
    assert first[-1] == Ok(addr("192.0.2.1"))
    assert second[-1] == Ok(addr("192.0.2.1", port=81))
    assert len(on.client.asked) == 2


def test_a_host_stays_fresh_for_a_minute_after_its_last_watcher(on: Setting) -> None:
    on.client.knows("192.0.2.1", ttl=20)
    _, close = on.watch()
    close()
    on.clock.pump([1.0] * 50)
    assert len(on.client.asked) == 6
    seen, close = on.watch()
    assert seen == [Ok(addr("192.0.2.1"))]
    assert len(on.client.asked) == 6
    close()
    on.clock.pump([1.0] * (int(LINGER_SECONDS) + 1))
    assert not on.clock.getDelayedCalls()
    assert not on.resolver.states()


def test_hosts_that_nobody_watches_are_bounded(on: Setting) -> None:
    for number in range(MOST_LINGERING + 50):
        on.watch(f"h{number}.example")[1]()
    assert len(on.resolver.states()) == MOST_LINGERING


def test_a_forgotten_lookup_is_cancelled_quietly(on: Setting) -> None:
    failures: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            failures.append(event)

    globalLogPublisher.addObserver(observe)
    on.watch()[1]()
    on.clock.advance(LOOKUP_SECONDS / 2)
    on.resolver.stopService()
    gc.collect()  # an unhandled failure is logged when its Deferred is collected
    globalLogPublisher.removeObserver(observe)
    assert on.client.cancelled == 2
    assert not failures
    assert not on.clock.getDelayedCalls()


def test_stopping_ends_all_work(on: Setting) -> None:
    on.client.knows("192.0.2.1")
    _, close = on.watch()
    on.watch("b.example")
    on.resolver.stopService()
    assert not on.clock.getDelayedCalls()
    close()
    assert not on.clock.getDelayedCalls()


def test_the_hosts_file_comes_first_and_is_looked_at_again(on: Setting) -> None:
    on.hosts.write_text("# local\n192.0.2.5 other Web.Example.com\n2001:db8::5 web.example.com\n192.0.2.5 web.example.com\n")
    seen, _ = on.watch()
    assert seen == [Ok(addr("192.0.2.5", "2001:db8::5"))]
    assert not on.client.asked
    on.hosts.write_text("192.0.2.6 web.example.com\n")
    on.clock.advance(5.1)
    assert seen[-1] == Ok(addr("192.0.2.6"))
    on.hosts.unlink()
    on.client.knows("192.0.2.7")
    on.clock.advance(5.1)
    assert seen[-1] == Ok(addr("192.0.2.7"))


def test_localhost_is_known_without_hosts_file_and_name_servers(on: Setting) -> None:
    assert on.watch("localhost")[0] == [Ok(addr("127.0.0.1"))]
    assert not on.client.asked


def test_search_candidates_are_tried_in_order(on: Setting) -> None:
    class Searching(FixedServers):
        def candidates(self, host: str) -> tuple[str, ...]:
            return (f"{host}.one", f"{host}.two", host)

    on.resolver.servers = Searching(on.client)
    on.client.fails(DNSNameError(), name="web.one")
    on.client.knows("192.0.2.1", name="web.two")
    assert on.watch("web")[0] == [Ok(addr("192.0.2.1"))]
    assert [name for kind, name in on.client.asked if kind == "A"] == ["web.one", "web.two"]


def test_states_tell_addresses_age_and_error(on: Setting) -> None:
    on.client.knows("192.0.2.1", ttl=1)
    on.watch()
    on.client.fails(DNSServerError())
    on.clock.advance(1.0)
    on.clock.advance(0.5)
    (state,) = on.resolver.states()
    assert (state.host, state.addresses, state.age) == (NAME, ("192.0.2.1",), 1.5)
    assert "SERVFAIL" in state.error
