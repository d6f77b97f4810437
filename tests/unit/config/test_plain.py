"""The configuration as ``/config.json`` shows it."""

from __future__ import annotations

import json
from collections.abc import Callable

from meshgw.config.loader import LoadResult, load
from meshgw.config.plain import MASK, config_to_json
from meshgw.kinds import Registry

Loaded = Callable[[str], LoadResult]


def plain(loaded: Loaded, text: str) -> dict[str, object]:
    result = loaded(text)
    assert result.config is not None, [problem.show() for problem in result.problems]
    return config_to_json(result.config)


def test_absent_options_are_omitted(loaded: Loaded) -> None:
    assert plain(loaded, "routers: [{protocol: http, servers: [{}]}]") == {"routers": [{"protocol": "http", "servers": [{}]}]}


def test_values_are_shown_as_they_are_written(loaded: Loaded) -> None:
    document = {
        "admin": {"port": 1, "security": {"pathWhitelist": ["/a.*"]}},
        "routers": [
            {
                "protocol": "http",
                "label": "x",
                "dtab": "/svc=>/a | /b",
                "dstPrefix": "/http",
                "identifier": [{"kind": "io.l5d.path", "segments": 2}],
                "client": {
                    "kind": "io.l5d.static",
                    "configs": [{"loadBalancer": {"kind": "p2c", "maxEffort": 9}, "prefix": "/{a}/*"}],
                },
                "servers": [{"addForwardedHeader": {"by": {"kind": "static", "label": "me"}}, "port": 3}],
            }
        ],
    }
    assert plain(loaded, json.dumps(document)) == document


def test_secrets_are_masked(loaded: Loaded) -> None:
    text = "namers: [{kind: trial.namer, experimental: true, password: hush, weights: {a: 1}}]\nrouters: [{protocol: http, servers: [{}]}]"
    shown = plain(loaded, text)
    assert shown["namers"] == [{"kind": "trial.namer", "experimental": True, "password": MASK, "weights": {"a": 1.0}}]


def test_secrets_are_not_in_the_repr(loaded: Loaded) -> None:
    text = "namers: [{kind: trial.namer, experimental: true, password: hush}]\nrouters: [{protocol: http, servers: [{}]}]"
    assert "hush" not in repr(loaded(text))


def test_shown_configuration_loads_again(loaded: Loaded, registry: Registry) -> None:
    text = "admin: {port: 5}\nrouters: [{protocol: http, client: {connectTimeoutMs: 7}, servers: [{ip: '::1'}]}]"
    first = plain(loaded, text)
    again = load(json.dumps(first), "again", registry).config
    assert again is not None
    assert config_to_json(again) == first
