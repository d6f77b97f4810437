"""What is pure in the namers of Marathon, Rancher and SRV records: names, options, credentials, and answers of any shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.marathon import service_account
from meshgw.backends.endpoints import Endpoints, NoEndpoints
from meshgw.backends.http_client import ApiAnswer, ApiClient
from meshgw.backends.marathon import BASIC, SERVICE_ACCOUNT, Basic, ServiceAccount, read_app_ids, read_credential, read_tasks
from meshgw.config.loader import LoadResult, load
from meshgw.errors import BackendError
from meshgw.kinds import Registry
from meshgw.namers.dnssrv import NameServer
from meshgw.namers.marathon import ApiName, app_of
from meshgw.namers.rancher import read_containers
from meshgw.naming.path import Path

SECRET = "do-not-tell"


def loaded(namer: str) -> LoadResult:
    return load(f"namers:\n- {namer}\nrouters: [{{protocol: http, dtab: /svc => /#/x, servers: [{{port: 0}}]}}]", "l.yaml", Registry())


def problems(namer: str) -> str:
    return "\n".join(problem.show() for problem in loaded(namer).problems)


def made(namer: str) -> Any:
    result = loaded(namer)
    assert result.config is not None, problems(namer)
    return result.config.namers[0].config


# --- options


def test_defaults_are_those_of_linkerd() -> None:
    marathon = made("{kind: io.l5d.marathon}")
    assert (marathon.host, marathon.port, marathon.prefix.show(), marathon.uri_prefix) == ("marathon.mesos", 80, "/io.l5d.marathon", "")
    assert (marathon.ttl_ms, marathon.jitter_ms, marathon.use_health_check, marathon.tls) == (5000, 50, False, None)
    rancher = made("{kind: io.l5d.rancher, experimental: true}")
    assert (rancher.host, rancher.port, rancher.max_wait, rancher.prefix.show()) == ("rancher-metadata", 80, 30, "/io.l5d.rancher")
    dnssrv = made("{kind: io.l5d.dnssrv, experimental: true}")
    assert (dnssrv.refresh_interval_seconds, dnssrv.dns_hosts, dnssrv.prefix.show()) == (5.0, (), "/io.l5d.dnssrv")


def test_options_are_read_as_linkerds_examples_have_them() -> None:
    dnssrv = made("{kind: io.l5d.dnssrv, experimental: true, refreshIntervalSeconds: 7, dnsHosts: [ns0.example.org, '10.0.0.1:8600']}")
    assert dnssrv.dns_hosts == (NameServer("ns0.example.org"), NameServer("10.0.0.1", 8600))
    rancher = made("{kind: io.l5d.rancher, experimental: true, portMappings: {admin: 9990}, maxWait: 10}")
    assert (rancher.port_mappings, rancher.max_wait) == ({"admin": 9990}, 10)
    marathon = made("{kind: io.l5d.marathon, dst: /$/inet/10.0.0.1/8080, uriPrefix: /marathon, ttlMs: 500, useHealthCheck: true}")
    assert (marathon.place, marathon.use_health_check) == (ApiName("10.0.0.1", 8080), True)


@pytest.mark.parametrize(
    ("namer", "problem"),
    [
        ("{kind: io.l5d.rancher}", "experimental"),
        ("{kind: io.l5d.dnssrv}", "experimental"),
        ("{kind: io.l5d.marathon, ttlMs: 0}", "namers[0].ttlMs: must be at least 1, not 0"),
        ("{kind: io.l5d.marathon, jitterMs: -1}", "namers[0].jitterMs: must be at least 0, not -1"),
        ("{kind: io.l5d.marathon, uriPrefix: 'a b'}", "namers[0].uriPrefix: 'a b' cannot be the beginning of a URL's path"),
        (
            "{kind: io.l5d.marathon, dst: /#/io.l5d.fs/marathon}",
            "namers[0].dst: only names of the form /$/inet/HOST/PORT are supported here",
        ),
        ("{kind: io.l5d.marathon, dst: /$/inet/h/99999}", "namers[0].dst: only names of the form"),
        ("{kind: io.l5d.marathon, port: '80'}", "namers[0].port: expected a port number"),
        ("{kind: io.l5d.rancher, experimental: true, maxWait: 0}", "namers[0].maxWait: must be between 1 and 500, not 0"),
        ("{kind: io.l5d.rancher, experimental: true, portMappings: {a: 70000}}", "namers[0].portMappings.a: 70000 outside valid range"),
        (
            "{kind: io.l5d.dnssrv, experimental: true, refreshIntervalSeconds: 0}",
            "namers[0].refreshIntervalSeconds: must be at least 0.1, not 0.0",
        ),
        (
            "{kind: io.l5d.dnssrv, experimental: true, dnsHosts: ['ns:0']}",
            "namers[0].dnsHosts[0]: expected the host or host:port of a name server, found 'ns:0'",
        ),
    ],
)
def test_wrong_option_is_told_with_its_place(namer: str, problem: str) -> None:
    said = problems(namer)
    assert said.startswith("l.yaml:2:")
    assert problem in said


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("ns.example", "ns.example", 53),
        ("NS.example:5353", "ns.example", 5353),
        ("10.0.0.1", "10.0.0.1", 53),
        ("10.0.0.1:8600", "10.0.0.1", 8600),
        ("::1", "::1", 53),
        ("[::1]", "::1", 53),
        ("[::1]:5353", "::1", 5353),
    ],
)
def test_name_server_is_read_and_shown(text: str, host: str, port: int) -> None:
    server = NameServer.read(text)
    assert (server.host, server.port) == (host, port)
    assert NameServer.read(server.show()) == server


@given(st.text(max_size=40) | st.from_regex(r"[\[\]:0-9a-f.]{0,20}"))
def test_no_name_server_raises_anything_but_valueerror(text: str) -> None:
    try:
        server = NameServer.read(text)
    except ValueError:
        return
    assert NameServer.read(server.show()) == server


# --- names of apps

IDS = frozenset({"/a", "/a/b", "/x/y", "/x/y/z"})


@given(st.lists(st.sampled_from(["a", "A", "b", "x", "X", "y", "z", "other"]), max_size=6))
def test_app_is_the_shortest_known_beginning(labels: list[str]) -> None:
    beginnings = ["/" + "/".join(labels[:count]).lower() for count in range(1, len(labels) + 1)]
    assert app_of(Path.of(*labels), IDS) == next((one for one in beginnings if one in IDS), None)


# --- credentials


def test_service_account_wins_over_basic_and_none_is_needed() -> None:
    text, _ = service_account()
    assert read_credential({}) is None
    assert read_credential({BASIC: "dTpw"}) == Basic("dTpw")
    found = read_credential({SERVICE_ACCOUNT: text, BASIC: "dTpw"})
    assert isinstance(found, ServiceAccount)
    assert (found.uid, found.login_path) == ("meshgw", "/acs/api/v1/auth/login")


@pytest.mark.parametrize(
    ("credential", "problem"),
    [
        (f'{{"private_key": "{SECRET}"', "is not a JSON object"),
        (f'["{SECRET}"]', "is not a JSON object"),
        (service_account(uid=None)[0], "lacks the text 'uid'"),
        (service_account(scheme=None)[0], "lacks the text 'scheme'"),
        (service_account(private_key=None)[0], "lacks the text 'private_key'"),
        (service_account(login_endpoint=None)[0], "lacks the text 'login_endpoint'"),
        (service_account(scheme="HS256")[0], "has the scheme 'HS256'; only RS256 is known"),
        (service_account(login_endpoint="leader")[0], "login_endpoint is not a URL with a path"),
        (service_account(private_key=SECRET)[0], "private_key is not an RSA key in PEM form without a password"),
        (
            service_account(private_key=f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n")[0],
            "private_key is not an RSA",
        ),
    ],
)
def test_bad_service_account_is_told_without_its_secrets(credential: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError) as caught:
        read_credential({SERVICE_ACCOUNT: credential})
    assert problem in str(caught.value)
    assert SECRET not in str(caught.value)
    monkeypatch.setenv(SERVICE_ACCOUNT, credential)
    assert f"namers[0]: {SERVICE_ACCOUNT}" in problems("{kind: io.l5d.marathon}")
    assert SECRET not in problems("{kind: io.l5d.marathon}")


@pytest.mark.parametrize("value", ["a b", "a\r\nX: y", "ü"])
def test_basic_credential_that_cannot_be_sent_is_refused(value: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_credential({BASIC: value})
    assert value not in str(caught.value)


def test_credentials_show_no_secret() -> None:
    text, _ = service_account()
    assert "PrivateKey" not in repr(read_credential({SERVICE_ACCOUNT: text}))
    assert "dTpw" not in repr(read_credential({BASIC: "dTpw"}))


# --- answers of any shape

_NAMES = ("apps", "app", "id", "tasks", "host", "ports", "ipAddresses", "ipAddress", "discovery", "number", "healthChecks")
_MORE_NAMES = ("healthCheckResults", "alive", "state", "stack_name", "service_name", "primary_ip")
_SCALARS = st.none() | st.booleans() | st.integers(-10, 70000) | st.sampled_from(["", "/web", "10.0.0.1", "TASK_RUNNING", "running"])
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES + _MORE_NAMES), inner, max_size=4),
    max_leaves=20,
)


@given(_JSON, st.booleans())
def test_no_answer_of_marathon_raises_anything_else(value: object, healthy_only: bool) -> None:
    agent: Any = None
    client = ApiClient(agent, agent, name="Marathon", base="http://x")
    for body in (json.dumps(value), json.dumps({"apps": value, "app": value}), json.dumps({"app": {"tasks": [value, {"ports": value}]}})):
        answer = ApiAnswer(status=200, headers={}, body=body.encode())
        try:
            ids = read_app_ids(client, answer, "its apps")
            assert all(id.startswith("/") for id in ids)
        except BackendError:
            pass
        try:
            found = read_tasks(client, answer, "/web", healthy_only=healthy_only)
        except BackendError:
            continue
        assert isinstance(found, NoEndpoints) or all(one.host and 1 <= one.port <= 65535 for one in found.endpoints)
        assert not isinstance(found, Endpoints) or found.endpoints


@given(_JSON)
def test_no_answer_of_rancher_raises(value: object) -> None:
    for found in (read_containers(value), read_containers([value])):
        assert found is None or all(ips and stack and service for (stack, service), ips in found.items())
