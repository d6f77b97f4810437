"""The OTLP telemeter's block: which URLs and headers it takes, and what it never shows."""

from __future__ import annotations

import json

import pytest

from meshgw.backends.otlp import Url
from meshgw.config.loader import load
from meshgw.config.plain import MASK, config_to_json
from meshgw.kinds import Registry

ROUTERS = "routers: [{protocol: http, servers: [{}]}]\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"),
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("http://collector", "http://collector:80/v1/traces"),
        ("https://collector/otlp?key=s3cret", "https://collector:443/otlp?***"),
        ("HTTP://Collector:4318/X", "http://collector:4318/X"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ],
)
def test_url_is_read_and_shown(text: str, shown: str) -> None:
    assert Url.read(text).show() == shown


def test_query_is_sent() -> None:
    assert Url.read("https://collector/otlp?key=1").path == "/otlp?key=1"


@pytest.mark.parametrize(
    "text", ["", "collector:4318", "grpc://collector:4317", "http://", "http://a:b", "http://a:99999", "http://a/ b", "http://a/#x"]
)
def test_what_is_no_url_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected a URL such as http://127"):
        Url.read(text)


def test_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="must not hold a name or password") as refused:
        Url.read("http://user:s3cret@collector:4318")
    assert "s3cret" not in str(refused.value)


def problems(block: str) -> list[str]:
    result = load(f"{ROUTERS}telemetry: [{{kind: io.meshgw.otlp, {block}}}]\n", "l.yaml", Registry())
    return [f"{problem.path}: {problem.message}" for problem in result.problems]


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("headers: {'a b': x}", "telemetry[0].headers: 'a b' cannot be the name of a header"),
        ("headers: {Content-Type: x}", "telemetry[0].headers: Content-Type is written by meshgw itself"),
        ('headers: {x-key: "s3\\ncret"}', "telemetry[0].headers: the value of x-key has characters that a header cannot carry"),
        ("headerFiles: {Host: /x}", "telemetry[0].headerFiles: Host is written by meshgw itself"),
        ("sampleRate: 2", "telemetry[0].sampleRate: must be between 0 and 1, not 2.0"),
        ("compression: zstd", "telemetry[0].compression: must be one of none, gzip, not zstd"),
        ("timeoutMs: 0", "telemetry[0].timeoutMs: must be at least 1, not 0"),
        ("tls: {commonName: x}", "telemetry[0]: tls needs an endpoint with https"),
    ],
)
def test_bad_option_is_told_with_its_place(block: str, told: str) -> None:
    assert problems(block) == [told]


def test_header_values_are_masked() -> None:
    text = f"{ROUTERS}telemetry: [{{kind: io.meshgw.otlp, headers: {{x-key: s3cret}}, endpoint: 'http://c:4318'}}]\n"
    config = load(text, "l.yaml", Registry()).config
    assert config is not None
    shown = json.dumps(config_to_json(config))
    assert MASK in shown and "s3cret" not in shown and "s3cret" not in repr(config)
    assert '"endpoint": "http://c:4318/v1/traces"' in shown
