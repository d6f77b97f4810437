"""The client of name servers under a clock: several servers, silence, truncation, refusals, and a bound on what is under way."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.names import dns
from twisted.names.error import DNSNameError
from twisted.python.failure import Failure

from fakes.name_server import DnsReactor, Say, answer, srv
from meshgw.backends.dns_client import MOST_AT_ONCE, QUESTION_SECONDS, NameServerClient
from meshgw.core.address import ADDR_NEG, Address, Replicas
from meshgw.core.live import constant
from meshgw.errors import BackendMalformed, BackendRefused, BackendSilent, BackendUnreachable
from meshgw.wire import dns as wire

NAME = "_http._tcp.web.test"
ONE, TWO = ("192.0.2.1", 53), ("192.0.2.2", 5353)


def known(question: dns.Message, _kind: str) -> bytes:
    return answer(question, srv("a.test", 80))


def coded(code: int) -> Say:
    return lambda question, _kind: answer(question, code=code)


def silent(_question: dns.Message, _kind: str) -> None:
    return None


class Setting:
    def __init__(self, **servers: Say) -> None:
        self.reactor = DnsReactor()
        for server, say in zip((ONE, TWO), servers.values(), strict=False):
            self.reactor.servers[server] = say
        self.hosts = [(ONE, TWO)[number] for number in range(len(servers))]
        self.client = NameServerClient(self.reactor, lambda: self.hosts)

    def ask(self, seconds: float = 0.1, *, name: str = NAME) -> Any:
        """What comes of a question within a time: a message, an error, or None."""
        asked: Deferred[Any] = Deferred.fromCoroutine(self.client.ask(name, dns.SRV))
        asked.addErrback(lambda failure: failure.value)
        return self.wait(asked, seconds)

    def wait(self, asked: Deferred[Any], seconds: float = 0.1) -> Any:
        results: list[Any] = []
        asked.addBoth(results.append)
        self.reactor.pump([seconds / 50] * 51)
        return results[0] if results else None

    @property
    def asked(self) -> list[tuple[tuple[str, int], str]]:
        return [(server, kind) for server, kind, _ in self.reactor.asked]


def test_answer_of_the_first_server_is_given() -> None:
    on = Setting(one=known, two=known)
    message = on.ask()
    assert [record.data.port for record in message.answers] == [80]
    assert on.asked == [(ONE, "udp")]
    assert not on.reactor.open_ports
    assert not on.reactor.getDelayedCalls()


def test_name_that_does_not_exist_is_an_answer() -> None:
    assert Setting(one=coded(dns.ENAME), two=known).ask().code == wire.NO_SUCH_NAME


@pytest.mark.parametrize("code", [dns.ESERVER, dns.EREFUSED, 9])
def test_next_server_is_asked_when_one_does_not_want_to_answer(code: int) -> None:
    on = Setting(one=coded(code), two=known)
    assert on.ask().answers
    assert on.asked == [(ONE, "udp"), (TWO, "udp")]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(dns.ESERVER, "it reports a failure (SERVFAIL)"), (dns.EREFUSED, "it refuses the question (REFUSED)"), (9, "it answers with error 9")],
)
def test_refusals_name_the_server_and_its_reason(code: int, reason: str) -> None:
    error = Setting(one=coded(code)).ask()
    assert isinstance(error, BackendRefused)
    assert str(error) == f"name server 192.0.2.1:53: {reason} (asked for {NAME})"


def test_server_that_is_not_there_is_told_at_once() -> None:
    on = Setting(one=known)
    on.reactor.servers.clear()
    error = on.ask()
    assert isinstance(error, BackendUnreachable)
    assert str(error) == "name server 192.0.2.1:53: connection refused"


def test_silent_servers_are_asked_in_three_rounds_within_the_limit() -> None:
    on = Setting(one=silent, two=silent)
    assert on.ask(QUESTION_SECONDS - 0.5) is None
    assert [server for server, _ in on.asked] == [ONE, TWO, ONE, TWO, ONE]
    on = Setting(one=silent)
    error = on.ask(7.5)
    assert isinstance(error, BackendSilent)
    assert len(on.asked) == 3
    assert not on.reactor.open_ports


def test_all_of_it_has_a_limit() -> None:
    on = Setting(one=silent, two=silent)
    error = on.ask(QUESTION_SECONDS + 0.1)
    assert isinstance(error, BackendSilent)
    assert "no answer from any name server" in str(error)
    assert not on.reactor.open_ports
    assert not on.reactor.getDelayedCalls()


def test_lost_datagram_is_made_up_for() -> None:
    said: list[bytes | None] = [None]
    on = Setting(one=lambda question, kind: said.pop() if said else known(question, kind))
    assert on.ask(1.5).answers


def test_truncated_answer_is_fetched_over_a_connection_to_the_same_server() -> None:
    records = [srv(f"n{number}.test", 80) for number in range(1200)]

    def large(question: dns.Message, kind: str) -> bytes:
        return answer(question, *records) if kind == "tcp" else answer(question, records[0], truncated=True)

    on = Setting(one=coded(dns.ESERVER), two=large)
    message = on.ask()
    assert len(message.answers) == 1200
    assert on.asked[1:] == [(TWO, "udp"), (TWO, "tcp")]
    assert not on.reactor.connections[0].is_open


@pytest.mark.parametrize(("end", "seconds"), [(b"", 0.1), (None, 4.1)])
def test_truncated_answer_alone_is_no_answer(end: bytes | None, seconds: float) -> None:
    on = Setting(one=lambda question, kind: end if kind == "tcp" else answer(question, srv("a.test", 80), truncated=True))
    error = on.ask(seconds) if end == b"" else on.ask(QUESTION_SECONDS + 0.1)
    assert isinstance(error, BackendUnreachable | BackendSilent)
    assert not any(transport.is_open for transport in on.reactor.connections)


def test_answer_that_is_truncated_even_over_a_connection_is_none() -> None:
    error = Setting(one=lambda question, _kind: answer(question, srv("a.test", 80), truncated=True)).ask()
    assert "truncated even over a connection" in str(error)


def test_server_that_only_points_elsewhere_is_not_believed() -> None:
    def lame(question: dns.Message, _kind: str) -> bytes:
        return dns.Message(id=question.id, answer=1, recDes=1).toStr()

    assert "does not ask others" in str(Setting(one=lame).ask())
    assert Setting(one=lame, two=known).ask().answers


@pytest.mark.parametrize("code", [dns.EFORMAT, dns.ENOTIMP])
def test_server_without_edns_is_asked_without(code: int) -> None:
    def old(question: dns.Message, _kind: str) -> bytes:
        return answer(question, code=code) if question.additional else answer(question, srv("a.test", 80))

    assert Setting(one=old).ask().answers


def test_malformed_answer_is_told_and_the_next_server_asked() -> None:
    def garbage(question: dns.Message, _kind: str) -> bytes:
        return question.id.to_bytes(2, "big") + b"\x81\x80\x00\x01\x00\x05"

    error = Setting(one=garbage).ask()
    assert isinstance(error, BackendMalformed)
    assert "no DNS message" in str(error)
    assert Setting(one=garbage, two=known).ask().answers


def test_forged_answers_are_passed_over() -> None:
    on = Setting(one=silent)
    asked: Deferred[Any] = Deferred.fromCoroutine(on.client.ask(NAME, dns.SRV))
    (_, _, question) = on.reactor.asked[0]
    forged = dns.Message(id=question.id ^ 0x55)
    forged.queries = question.queries
    on.reactor.ports[0].receive(answer(forged, srv("evil.test", 80)))
    on.reactor.ports[0].receive(answer(forged, srv("evil.test", 80))[:20])
    on.reactor.ports[0].receive(b"x")
    on.reactor.ports[0].receive(answer(question, srv("good.test", 80)))
    message = on.wait(asked)
    assert [record.data.target for record in message.answers] == ["good.test"]


def test_servers_given_by_name_are_resolved() -> None:
    on = Setting(one=known)
    named = {"ns.test": Replicas((Address(*ONE),)), "none.test": ADDR_NEG}
    client = NameServerClient(on.reactor, lambda: [("none.test", 53), ("ns.test", 53)], lambda host, _port: constant(named[host]))
    assert on.wait(Deferred.fromCoroutine(client.ask(NAME, dns.SRV))).answers


def test_server_whose_name_is_unknown_is_told() -> None:
    on = Setting(one=known)
    client = NameServerClient(on.reactor, lambda: [("none.test", 53)], lambda _host, _port: constant(ADDR_NEG))
    failed = on.wait(Deferred.fromCoroutine(client.ask(NAME, dns.SRV)))
    assert isinstance(failed, Failure)
    assert str(failed.value) == "name server none.test:53: none.test: no such host"


def test_without_servers_there_is_an_error() -> None:
    assert str(Setting().ask()) == "DNS: no name server is known"


def test_questions_under_way_are_bounded_and_none_is_lost() -> None:
    on = Setting(one=lambda question, _kind: answer(question, srv("a.test", 80)))
    asked = [Deferred.fromCoroutine(on.client.ask(f"n{number}.test", dns.SRV)) for number in range(500)]
    on.reactor.pump([0.01] * 100)
    assert on.reactor.most_open == MOST_AT_ONCE
    assert all(isinstance(one.result, wire.Answer) for one in asked)


def test_a_name_that_was_answered_waits_for_none_whose_servers_are_silent() -> None:
    def say(question: dns.Message, kind: str) -> bytes | None:
        return known(question, kind) if question.queries[0].name.name == NAME.encode() else None

    on = Setting(one=say)
    assert on.ask().answers
    invented = [Deferred.fromCoroutine(on.client.ask(f"n{number}.test", dns.SRV)) for number in range(10 * MOST_AT_ONCE)]
    assert on.ask().answers
    assert on.ask().answers
    assert on.reactor.open_ports == MOST_AT_ONCE
    for one in invented:
        one.addErrback(lambda _failure: None)
        one.cancel()


def test_a_name_that_is_silent_counts_as_one_that_was_never_answered() -> None:
    on = Setting(one=known)
    assert on.ask().answers
    on.reactor.servers[ONE] = silent
    assert isinstance(on.ask(QUESTION_SECONDS + 1.0), BackendSilent)
    asked = [Deferred.fromCoroutine(on.client.ask(NAME, dns.SRV)) for _ in range(MOST_AT_ONCE + 1)]
    assert on.reactor.open_ports == MOST_AT_ONCE
    for one in asked:
        one.addErrback(lambda _failure: None)
        one.cancel()


def test_cancelled_questions_leave_nothing_behind() -> None:
    on = Setting(one=silent)
    asked = [Deferred.fromCoroutine(on.client.ask(NAME, dns.SRV)) for _ in range(MOST_AT_ONCE + 10)]
    errors: list[Any] = []
    for one in asked:
        one.addErrback(errors.append)
        one.cancel()
    assert len([error for error in errors if error.check(CancelledError)]) == len(asked)
    assert not on.reactor.open_ports
    assert not on.reactor.getDelayedCalls()
    on.reactor.servers[ONE] = known
    assert on.ask().answers


def test_addresses_are_given_as_the_resolver_of_hosts_takes_them() -> None:
    record = dns.RRHeader("a.test", dns.A, dns.IN, 60, dns.Record_A("192.0.2.7", 60))
    on = Setting(one=lambda question, _kind: answer(question, record))
    answers, _, _ = on.wait(on.client.lookupAddress("a.test"))
    assert [one.payload.dottedQuad() for one in answers] == ["192.0.2.7"]
    on = Setting(one=coded(dns.ENAME))
    failed = on.wait(on.client.lookupIPV6Address("a.test"))
    assert isinstance(failed, Failure)
    assert failed.check(DNSNameError)
