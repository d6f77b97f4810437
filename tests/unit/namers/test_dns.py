"""Host names by the machine's files alone: literal addresses, hosts and resolv.conf."""

from __future__ import annotations

import os
from pathlib import Path as File
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from meshgw.namers.resolvconf import (
    FixedServers,
    SystemServers,
    hosts_addresses,
    literal_address,
    read_resolv_conf,
    valid_name,
)


@given(st.text(max_size=30))
def test_no_host_text_makes_the_readers_raise(text: str) -> None:
    literal_address(text)
    name = valid_name(text)
    assert name is None or name == name.lower()


@given(st.ip_addresses())
def test_every_address_is_its_own_canonical_text(ip: Any) -> None:
    assert literal_address(str(ip)) == str(ip)
    assert literal_address(f"[{ip.exploded}]") == str(ip)


@pytest.mark.parametrize("host", ["localhost", "010.0.0.1", "0x7f.1", "1.2.3.4.5", "1.2.3.256", "127.1 x", "[127.1", "[127.1]", "", "١"])
def test_other_texts_are_no_literal_addresses(host: str) -> None:
    assert literal_address(host) is None


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Web.Example", "web.example"),
        ("a_b", "a_b"),
        ("web.example.", "web.example."),
        ("bücher.example", "xn--bcher-kva.example"),
        ("1.2.3", None),
    ],
)
def test_valid_names(host: str, name: str | None) -> None:
    assert valid_name(host) == name


def test_resolv_conf_is_read_as_libc_does() -> None:
    text = (
        "# comment\nnameserver 10.0.0.1 # here\nnameserver nonsense\nnameserver 2001:db8::1\nnameserver\n"
        "domain old.example\nsearch a.example. B.example\noptions rotate ndots:5 ndots:x\n; end\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n"
    )
    assert read_resolv_conf(text) == (("10.0.0.1", "2001:db8::1", "10.0.0.3"), ("a.example", "b.example"), 5)
    assert read_resolv_conf("") == ((), (), 1)


@given(st.text(max_size=80))
def test_no_resolv_conf_makes_the_reader_raise(text: str) -> None:
    read_resolv_conf(text + "\noptions " + text)


def test_candidates_follow_ndots_and_the_search_list(tmp_path: File) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\nsearch ns.svc.local svc.local\noptions ndots:2\n")
    servers = SystemServers(Clock(), str(conf))
    assert servers.candidates("web") == ("web.ns.svc.local", "web.svc.local", "web")
    assert servers.candidates("a.b.c") == ("a.b.c", "a.b.c.ns.svc.local", "a.b.c.svc.local")
    assert servers.candidates("web.") == ("web",)


def test_a_changed_resolv_conf_is_taken_over(tmp_path: File) -> None:
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\n")
    servers = SystemServers(Clock(), str(conf))
    assert servers.servers() == (("127.0.0.1", 53),)
    conf.write_text("nameserver 127.0.0.1\nsearch x\n")
    assert servers.candidates("web") == ("web.x", "web")
    conf.write_text("nameserver 127.0.0.2\n")
    os.utime(conf, ns=(1, 1))
    assert servers.servers() == (("127.0.0.2", 53),)
    assert servers.candidates("web") == ("web",)


def test_a_missing_resolv_conf_means_the_local_name_server(tmp_path: File) -> None:
    clock = Clock()
    assert SystemServers(clock, str(tmp_path / "none")).servers() == (("127.0.0.1", 53),)
    assert not clock.getDelayedCalls()


def test_hosts_addresses_are_those_of_the_file(tmp_path: File) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n::1 localhost ip6\n127.0.0.1 localhost vm # x web\nbad web\n")
    assert hosts_addresses(str(hosts), "localhost.") == ("127.0.0.1", "::1")
    assert hosts_addresses(str(hosts), "vm") == ("127.0.0.1",)
    assert hosts_addresses(str(hosts), "web") == ()
    assert hosts_addresses(str(tmp_path / "none"), "localhost") == ("127.0.0.1",)


def test_fixed_servers_have_no_search_list() -> None:
    client: Any = object()
    assert FixedServers(client).candidates("web.") == ("web",)
    assert FixedServers(client).client() is client
