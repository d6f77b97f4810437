"""The options at the edge: PROXY protocol, trusted forwarders, health checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshgw.config.edge import plain_path
from meshgw.config.loader import load, load_file
from meshgw.config.plain import config_to_json
from meshgw.kinds import Registry
from meshgw.naming.path import Path as Name

EDGE = Path(__file__).parents[2] / "fixtures" / "configs" / "supported" / "edge.yaml"

BAD = {
    "servers: [{proxyProtocol: {}}]": "servers[0].proxyProtocol.trusted: missing required field 'trusted'",
    "servers: [{proxyProtocol: {trusted: []}}]": (
        "servers[0].proxyProtocol.trusted: must name at least one network; 0.0.0.0/0 and ::/0 are everybody"
    ),
    "servers: [{proxyProtocol: {trusted: [10.0.0.1/8]}}]": (
        "servers[0].proxyProtocol.trusted[0]: 10.0.0.1/8 has bits set to the right of its length; the network is 10.0.0.0/8"
    ),
    "servers: [{proxyProtocol: {trusted: [lb], timeoutMs: 0}}]": (
        "servers[0].proxyProtocol.trusted[0]: expected a network such as 10.0.0.0/8 or 2001:db8::/32, or an address, found 'lb'"
    ),
    "servers: [{proxyProtocol: {trusted: [10.0.0.1], timeoutMs: 0}}]": "servers[0].proxyProtocol.timeoutMs: must be at least 1, not 0",
    "servers: [{healthPath: healthz}]": "servers[0].healthPath: 'healthz' is not a path such as /healthz, without escapes and query",
    "servers: [{}], client: {proxyProtocol: v3}": "client.proxyProtocol: must be one of v1, v2, none, not v3",
}


@pytest.mark.parametrize("fields", BAD)
def test_a_bad_value_is_told_in_full(fields: str, registry: Registry) -> None:
    problems = load(f"routers: [{{protocol: http, {fields}}}]", "file.yml", registry).problems
    assert problems[0].show().partition(": ")[2] == f"routers[0].{BAD[fields]}"


def test_the_configuration_is_shown_as_it_was_written(registry: Registry) -> None:
    config = load_file(str(EDGE), registry).config
    assert config is not None
    shown = json.loads(json.dumps(config_to_json(config)))["routers"][0]
    assert shown["servers"][0]["proxyProtocol"] == {"trusted": ["10.0.0.5", "10.0.1.0/24", "2001:db8::/64"], "timeoutMs": 2000}
    assert shown["servers"][1]["trustedForwarders"] == ["127.0.0.1", "::1"]
    assert load(json.dumps(config_to_json(config)), "again.json", registry).config is not None


def test_a_later_entry_takes_the_proxy_protocol_back(registry: Registry) -> None:
    config = load_file(str(EDGE), registry).config
    assert config is not None
    client = config.routers[0].config.client
    assert client.for_name(Name.read("/$/inet/127.1/9090"))[0].proxy_protocol == "v2"
    assert client.for_name(Name.read("/$/inet/127.1/8080"))[0].proxy_protocol == "none"


@pytest.mark.parametrize("path", ["/", "/healthz", "/a/b.c-d_e~f"])
def test_a_plain_path_is_one(path: str) -> None:
    assert plain_path(path) is None


@pytest.mark.parametrize("path", ["", "healthz", "/a b", "/a?b", "/a%20b", "/é", "/a#b", "/a\n"])
def test_other_text_is_no_plain_path(path: str) -> None:
    assert "is not a path" in (plain_path(path) or "")
