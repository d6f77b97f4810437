"""The options of what is over ZooKeeper (linkerd-config spec 3.3, 3.7, 3.12)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshgw.config.loader import LoadResult, load
from meshgw.config.plain import config_to_json
from meshgw.kinds import Registry


def loaded(registry: Registry, **namer: Any) -> LoadResult:
    router = {"protocol": "http", "dtab": "/svc => /#/x", "servers": [{"port": 4140}]}
    return load(json.dumps({"namers": [{"kind": "io.l5d.serversets", **namer}], "routers": [router]}), "test.json", registry)


def test_ports_are_those_of_zookeeper_unless_told(registry: Registry) -> None:
    result = loaded(registry, zkAddrs=[{"host": "zk1"}, {"host": "2001:db8::1", "port": 2182}])
    assert result.config is not None
    config = result.config.namers[0].config
    assert [(address.host, address.port) for address in config.zk_addrs] == [("zk1", 2181), ("2001:db8::1", 2182)]


@pytest.mark.parametrize(
    ("namer", "problem"),
    [
        ({}, "zkAddrs"),
        ({"zkAddrs": []}, "at least one server is needed"),
        ({"zkAddrs": [{"host": "a,b"}]}, "'a,b' is no host name or address"),
        ({"zkAddrs": [{"host": "a/chroot"}]}, "'a/chroot' is no host name or address"),
        ({"zkAddrs": [{"host": "a", "port": 0}]}, "must be between 1 and 65535"),
        ({"kind": "io.l5d.zkLeader", "zkAddrs": [{"host": "a"}]}, "port"),
        ({"kind": "io.l5d.curator", "zkAddrs": [{"host": "a"}]}, "experimental"),
        ({"kind": "io.l5d.curator", "experimental": True, "zkAddrs": [{"host": "a"}], "basePath": "x"}, "'x' is no path of a node"),
        ({"zkAddrs": [{"host": "a"}], "sessionTimeoutMs": 10}, "must be between 1000 and 600000"),
    ],
)
def test_what_cannot_be_is_told(registry: Registry, namer: dict[str, Any], problem: str) -> None:
    result = loaded(registry, **namer)
    assert result.config is None
    assert any(problem in shown.show() for shown in result.problems), [shown.show() for shown in result.problems]


def test_credentials_are_not_shown(registry: Registry) -> None:
    result = loaded(registry, zkAddrs=[{"host": "a"}], authInfo={"auth": "mesh:sesame"})
    assert result.config is not None
    assert "sesame" not in json.dumps(config_to_json(result.config))
    assert "sesame" not in repr(result.config)
