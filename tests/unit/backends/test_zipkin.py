"""The Zipkin telemeter's block: Linkerd's fields and defaults, and ours."""

from __future__ import annotations

import pytest

from meshgw.backends.zipkin import ZipkinConfig
from meshgw.config.loader import load
from meshgw.kinds import Registry

ROUTERS = "routers: [{protocol: http, servers: [{}]}]\n"


def block(fields: str) -> ZipkinConfig:
    result = load(f"{ROUTERS}telemetry: [{{kind: io.l5d.zipkin, {fields}}}]\n", "l.yaml", Registry())
    assert result.config is not None, result.problems
    config = result.config.telemetry[0].config
    assert isinstance(config, ZipkinConfig)
    return config


def test_defaults_are_those_of_linkerd() -> None:
    config = block("")
    assert (config.place, config.sample_rate, config.protocol) == (("localhost", 9410), 0.001, "scribe")


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ("protocol: http", ("localhost", 9411)),
        ("protocol: http, port: 80", ("localhost", 80)),
        ("host: zipkin, port: 1234", ("zipkin", 1234)),
        ("host: '::1'", ("::1", 9410)),
    ],
)
def test_port_follows_the_protocol_unless_it_is_given(fields: str, place: tuple[str, int]) -> None:
    assert block(fields).place == place


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ("sampleRate: -0.1", "must be between 0 and 1, not -0.1"),
        ("protocol: kafka", "must be one of scribe, http, not kafka"),
        ("path: api", "must be an absolute path such as /api/v2/spans"),
        ("path: '/api?key=1'", "must be an absolute path such as /api/v2/spans"),
        ("tls: {commonName: z}", "tls needs protocol: http"),
    ],
)
def test_bad_option_is_told(fields: str, told: str) -> None:
    result = load(f"{ROUTERS}telemetry: [{{kind: io.l5d.zipkin, {fields}}}]\n", "l.yaml", Registry())
    assert [problem.message for problem in result.problems] == [told]
