"""The SRV namer under a clock, over a name server in memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.names import dns

from fakes.looked import Looked, runtime
from fakes.name_server import DnsReactor, Server, answer, srv
from meshgw.backends.dns_client import NameServerClient
from meshgw.backends.endpoints import GATHER_SECONDS
from meshgw.core.address import ADDR_NEG, Addr, Address, Replicas
from meshgw.core.live import Live, Ok, Pending, Source
from meshgw.errors import NamerError
from meshgw.namers.dnssrv import DnsSrvConfig, DnsSrvNamer, NameServer, build_dnssrv
from meshgw.naming.path import Path

NAME = "_http._tcp.web.test"
SERVER: Server = ("192.0.2.53", 53)


class Setting:
    """A namer, its name server, and hosts that have the addresses in ``hosts``; others are not known yet."""

    def __init__(self, interval: float = 5.0) -> None:
        self.reactor = DnsReactor()
        self.reactor.servers[SERVER] = self._say
        self.records: dict[str, list[dns.RRHeader]] = {}
        self.code = dns.OK
        self.hosts: dict[str, Source[Addr]] = {}
        self.runtime = runtime(self.reactor, self._resolve)
        client = NameServerClient(self.reactor, lambda: [SERVER])
        prefix = Path.read("/#/io.l5d.dnssrv")
        self.namer = DnsSrvNamer(self.runtime, client, self._resolve, prefix=prefix, interval=interval, backend="DNS")
        self.namer.startService()

    def _resolve(self, host: str, _port: int) -> Live[Addr]:
        return self.hosts.setdefault(host, Source())

    def _say(self, question: dns.Message, _kind: str) -> bytes:
        name = question.queries[0].name.name.decode()
        if self.code != dns.OK:
            return answer(question, code=self.code)
        records = self.records.get(name)
        return answer(question, code=dns.ENAME) if records is None else answer(question, *records)

    def host(self, name: str, *ips: str) -> None:
        """Give a host addresses; none means that there is no such host."""
        addr = Replicas(tuple(Address(ip, 0) for ip in ips)) if ips else ADDR_NEG
        self.hosts.setdefault(name, Source()).set(addr)

    def serve(self, *targets: str, name: str = NAME) -> None:
        """Have SRV records for these ``host:port``."""
        pairs = (target.rpartition(":") for target in targets)
        self.records[name] = [srv(host, int(port), name=name) for host, _, port in pairs]

    def look(self, name: str = NAME) -> Looked:
        looked = Looked(self.namer, f"/{name}")
        self.reactor.advance(0)
        return looked

    def later(self, seconds: float = 5.6) -> None:
        self.reactor.pump([seconds / 20] * 21)

    def count(self, *names: str) -> int:
        return self.runtime.metrics.counter(*names).value

    def state(self) -> Any:
        return json.loads(json.dumps(self.namer.describe()))["dnssrv"][NAME]


@pytest.fixture
def on() -> Setting:
    setting = Setting()
    for number in range(1, 10):
        setting.host(f"h{number}.test", f"192.0.2.{number}")
    setting.serve("h1.test:8080", "h2.test:8081")
    return setting


def test_service_is_found_with_hosts_and_ports_of_its_records(on: Setting) -> None:
    looked = on.look(f"{NAME}/users")
    assert looked.addresses == ["192.0.2.1:8080", "192.0.2.2:8081"]
    assert (looked.bound.id.show(), looked.bound.residual.show()) == (f"/#/io.l5d.dnssrv/{NAME}", "/users")


def test_priorities_and_weights_do_not_count(on: Setting) -> None:
    on.records[NAME] = [srv("h1.test", 80, priority=1, weight=0), srv("h2.test", 80, priority=9, weight=99)]
    looked = on.look()
    assert looked.addresses == ["192.0.2.1:80", "192.0.2.2:80"]
    assert isinstance(looked.addr, Ok)
    assert isinstance(looked.addr.value, Replicas)
    assert {address.weight for address in looked.addr.value.addresses} == {1.0}


def test_records_are_asked_for_at_each_interval_whatever_their_time_to_live(on: Setting) -> None:
    looked = on.look()
    told = looked.trees
    on.serve("h3.test:8080")
    on.later()
    assert looked.addresses == ["192.0.2.3:8080"]
    assert looked.trees == told
    on.later(56)
    assert 10 <= len(on.reactor.asked) <= 16


def test_questions_may_be_an_hour_apart_without_being_taken_for_an_outage() -> None:
    on = Setting(interval=3600.0)
    on.host("h1.test", "192.0.2.1")
    on.serve("h1.test:80")
    on.look()
    on.later(3 * 3600)
    assert not on.count("service", "errors")
    assert on.count("service", "opens") == 1


def test_rotated_records_are_no_change(on: Setting) -> None:
    on.look()
    on.records[NAME].reverse()
    on.later()
    assert on.count("service", "updates") == 1


def test_several_ports_of_a_host_are_several_endpoints_and_one_host_is_resolved_once(on: Setting) -> None:
    on.serve("many.test:1", "many.test:2", "many.test:2")
    on.host("many.test", "192.0.2.50", "192.0.2.51")
    assert on.look().addresses == ["192.0.2.50:1", "192.0.2.51:1", "192.0.2.50:2", "192.0.2.51:2"]


def test_addresses_of_hosts_are_followed_between_questions(on: Setting) -> None:
    looked = on.look()
    on.host("h1.test", "198.51.100.1")
    assert looked.addresses == ["198.51.100.1:8080", "192.0.2.2:8081"]
    assert len(on.reactor.asked) == 1


def test_unknown_hosts_are_left_out_and_counted(on: Setting) -> None:
    on.serve("h1.test:80", "none.test:80")
    on.host("none.test")
    assert on.look().addresses == ["192.0.2.1:80"]
    assert on.count("unknown_srv_hosts_results_total") == 1


def test_service_whose_hosts_are_all_unknown_is_neg_so_that_alternatives_are_tried(on: Setting) -> None:
    on.serve("none.test:80", "nowhere.test:80")
    looked = on.look()
    assert isinstance(looked.state, Pending)
    on.host("none.test")
    on.host("nowhere.test")
    assert looked.is_neg
    assert "no address for none.test, nowhere.test" in looked.error
    on.host("none.test", "192.0.2.88")
    assert looked.addresses == ["192.0.2.88:80"]


@pytest.mark.parametrize("records", [None, [], [srv("", 0)], [srv("h1.test", 0)]])
def test_service_that_is_not_there_is_neg_and_found_when_it_appears(on: Setting, records: list[dns.RRHeader] | None) -> None:
    if records is None:
        del on.records[NAME]
    else:
        on.records[NAME] = records
    looked = on.look()
    assert looked.is_neg
    assert not looked.error
    assert on.count("lookup_zero_results_total") == 1
    on.serve("h1.test:80")
    on.later()
    assert looked.addresses == ["192.0.2.1:80"]


def test_service_that_vanishes_becomes_neg(on: Setting) -> None:
    looked = on.look()
    del on.records[NAME]
    on.later()
    assert looked.is_neg


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, r"\xff", "1.2.3.4"])
def test_what_cannot_be_a_name_is_neg_without_a_question(on: Setting, name: str) -> None:
    assert on.look(name).is_neg
    assert not on.reactor.asked


def test_names_are_one_whatever_their_case_and_final_dot(on: Setting) -> None:
    assert on.look().addresses == on.look("_HTTP._tcp.Web.test.").addresses
    assert len(on.reactor.asked) == 1


def test_additional_and_other_records_do_not_count(on: Setting) -> None:
    alias = dns.RRHeader(NAME, dns.CNAME, dns.IN, 60, dns.Record_CNAME("_http._tcp.real.test", 60))
    on.records[NAME] = [alias, srv("h1.test", 80, name="_http._tcp.real.test")]
    assert on.look().addresses == ["192.0.2.1:80"]


def test_thousand_endpoints_change_at_once_and_are_told_a_few_times(on: Setting) -> None:
    for number in range(1000):
        on.host(f"a{number}.test", f"10.0.{number // 250}.{number % 250}")
    on.serve(*(f"a{number}.test:80" for number in range(1000)))
    looked = on.look()
    assert len(looked.addresses) == 1000
    on.serve(*(f"b{number}.test:80" for number in range(1000)))
    on.later()
    told: list[int] = []
    looked.bound.addr.observe(lambda state: told.append(1))
    for number in range(1000):
        on.host(f"b{number}.test", f"10.1.{number // 250}.{number % 250}")
        on.reactor.advance(0.0001)
    on.reactor.advance(GATHER_SECONDS)
    assert len(looked.addresses) == 1000
    assert {address.split(".")[1] for address in looked.addresses} == {"1"}
    assert len(told) < 10


# --- trouble


@pytest.mark.parametrize("code", [dns.ESERVER, dns.EREFUSED])
def test_failure_before_any_answer_is_neg_with_the_reason(on: Setting, code: int) -> None:
    on.code = code
    looked = on.look()
    assert looked.is_neg
    assert "name server 192.0.2.53:53: it re" in looked.error
    assert (on.count("lookup_failures_total"), on.count("unexpected_code_total"), on.count("lookup_successes_total")) == (1, 1, 0)
    on.code = dns.OK
    on.later()
    assert looked.addresses == ["192.0.2.1:8080", "192.0.2.2:8081"]


def test_outage_leaves_the_last_good_endpoints(on: Setting) -> None:
    looked = on.look()
    del on.reactor.servers[SERVER]
    on.later(120)
    assert looked.addresses == ["192.0.2.1:8080", "192.0.2.2:8081"]
    assert on.state()["state"]["stale"] is True
    assert on.state()["poll"]["error"] == "name server 192.0.2.53:53: connection refused"
    on.reactor.servers[SERVER] = on._say
    on.serve("h5.test:80")
    on.later(6)
    assert looked.addresses == ["192.0.2.5:80"]
    assert on.state()["state"]["stale"] is False


def test_host_whose_lookup_fails_keeps_its_addresses(on: Setting) -> None:
    looked = on.look()
    on.hosts["h1.test"].fail(NamerError(detail="h1.test: SERVFAIL"))
    assert looked.addresses == ["192.0.2.1:8080", "192.0.2.2:8081"]
    assert isinstance(looked.addr, Ok)
    assert looked.addr.error is not None


def test_metrics_are_those_of_linkerd_and_go_with_the_name(on: Setting) -> None:
    looked = on.look()
    on.later()
    assert on.count("lookup_dns", "iteration", NAME) == 2
    assert (on.count("lookups"), on.count("lookup_successes_total"), on.count("lookup_failures_total")) == (1, 2, 0)
    on.runtime.metrics.rotate()
    assert ("request_duration_ms",) in on.runtime.metrics.snapshot().histograms
    looked.close()
    on.later(70)
    assert not [names for names in on.runtime.metrics.snapshot().counters if NAME in names]
    assert not on.reactor.getDelayedCalls()


def test_state_tells_endpoints_and_answer(on: Setting) -> None:
    on.look()
    assert on.state()["state"]["value"]["addresses"][0] == {"host": "h1.test", "port": 8080, "weight": 1.0}
    assert on.state()["poll"] == {"answer": "2 records"}
    del on.records[NAME]
    on.later()
    assert on.state()["poll"] == {"answer": "no such name"}


def test_stopping_ends_all_work(on: Setting) -> None:
    on.look()
    on.look("_other._tcp.web.test")
    on.namer.stopService()
    assert not on.reactor.getDelayedCalls()


def test_given_name_servers_are_asked_for_the_hosts_too() -> None:
    reactor = DnsReactor()

    def say(question: dns.Message, _kind: str) -> bytes:
        match question.queries[0].type:
            case dns.SRV:
                return answer(question, srv("node.dc1.consul", 80))
            case dns.A:
                return answer(question, dns.RRHeader("node.dc1.consul", dns.A, dns.IN, 5, dns.Record_A("192.0.2.77", 5)))
            case _:
                return answer(question)

    reactor.servers["192.0.2.53", 8600] = say
    namer = build_dnssrv(DnsSrvConfig(dns_hosts=(NameServer("192.0.2.53", 8600),)), runtime(reactor))
    namer.startService()
    looked = Looked(namer, "/web.service.consul")
    reactor.pump([0.01] * 5)
    assert looked.addresses == ["192.0.2.77:80"]
    assert namer.describe()["hosts"]["node.dc1.consul"]["addresses"] == ["192.0.2.77"]
    namer.stopService()
    assert not reactor.getDelayedCalls()
