"""The options about failures: what they read, their defaults, and every refusal in its words (linkerd-config spec 4.2 to 4.8, 10)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from meshgw.config.loader import LoadResult
from meshgw.config.models import HttpRouterConfig
from meshgw.config.plain import config_to_json
from meshgw.config.reference import reference
from meshgw.config.retries import ConstantBackoff, JitteredBackoff, RetryBudgetConfig
from meshgw.config.schema import file_schema
from meshgw.config.scoped import (
    AbortFault,
    ClientParams,
    DelayFault,
    FaultsConfig,
    HostConnectionPool,
    RetriesConfig,
    ServiceParams,
    Session,
)
from meshgw.kinds import Registry
from meshgw.naming.path import Path

Shown = Callable[[str], list[str]]
Loaded = Callable[[str], LoadResult]

BALANCERS = ("aperture", "ewma", "heap", "p2c", "roundRobin")
ACCRUALS = ("io.l5d.consecutiveFailures", "io.l5d.successRate", "io.l5d.successRateWindowed", "none")
GRPC = ("alwaysRetryable", "compliant", "default", "neverRetryable", "retryableStatusCodes")
IDEMPOTENT = ("retryableIdempotent5XX", "retryableRead5XX")
CLASSIFIERS = tuple(
    f"io.l5d.{protocol}.{name}"
    for protocol, names in {
        "h2": ("allSuccessful", *(f"grpc.{name}" for name in GRPC), "nonRetryable5XX", "retryableAll5XX", *IDEMPOTENT),
        "http": ("allSuccessful", "nonRetryable5XX", "retryableAll5XX", *IDEMPOTENT),
    }.items()
    for name in names
)
NAME = Path.read("/svc/web")


def file(fields: str, server: str = "{}") -> str:
    return f"routers:\n- protocol: http\n  servers: [{server}]\n  {fields}\n"


def router(loaded: Loaded, fields: str, server: str = "{}") -> HttpRouterConfig:
    result = loaded(file(fields, server))
    assert result.problems == ()
    assert result.config is not None
    config = result.config.routers[0].config
    assert isinstance(config, HttpRouterConfig)
    return config


def client(loaded: Loaded, block: str) -> ClientParams:
    return router(loaded, f"client: {block}").client.for_name(Path.read("/#/io.l5d.fs/web"))[0]


def service(loaded: Loaded, block: str) -> ServiceParams:
    return router(loaded, f"service: {block}").service.for_name(NAME)[0]


# --- refusals

CLIENTS = {
    "failFast: 1": "failFast: expected true or false, found '1'",
    "connectTimeoutMs: 0": "connectTimeoutMs: must be at least 1, not 0",
    "requestAttemptTimeoutMs: 0": "requestAttemptTimeoutMs: must be at least 1, not 0",
    "requestAttemptTimeoutMs: 1.5": "requestAttemptTimeoutMs: expected a whole number, found '1.5'",
    "requeueBudget: {ttlSecs: 0}": "requeueBudget.ttlSecs: must be between 1 and 60, not 0",
    "requeueBudget: {ttlSecs: 61}": "requeueBudget.ttlSecs: must be between 1 and 60, not 61",
    "requeueBudget: {minRetriesPerSec: -1}": "requeueBudget.minRetriesPerSec: must be at least 0, not -1",
    "requeueBudget: {percentCanRetry: -0.1}": "requeueBudget.percentCanRetry: must be between 0 and 1000, not -0.1",
    "requeueBudget: {percentCanRetry: 1001}": "requeueBudget.percentCanRetry: must be between 0 and 1000, not 1001.0",
    "requeueBudget: {percentCanRetry: x}": "requeueBudget.percentCanRetry: expected a number, found 'x'",
    "requeueBudget: {ttl: 5}": (
        "requeueBudget.ttl: unknown field 'ttl'; known: minRetriesPerSec, percentCanRetry, ttlSecs; did you mean 'ttlSecs'?"
    ),
    "requeueBudget: 5": "requeueBudget: expected an object, found '5'",
    "clientSession: {idleTimeMs: 0}": "clientSession.idleTimeMs: must be at least 1, not 0",
    "clientSession: {lifeTimeMs: -1}": "clientSession.lifeTimeMs: must be at least 1, not -1",
    "hostConnectionPool: {minSize: -1}": "hostConnectionPool.minSize: must be at least 0, not -1",
    "hostConnectionPool: {maxSize: 0}": "hostConnectionPool.maxSize: must be at least 1, not 0",
    "hostConnectionPool: {idleTimeMs: 0}": "hostConnectionPool.idleTimeMs: must be at least 1, not 0",
    "hostConnectionPool: {maxWaiters: -1}": "hostConnectionPool.maxWaiters: must be at least 0, not -1",
    "failureAccrual: {failures: 5}": f"failureAccrual.kind: missing required field 'kind'; known: {', '.join(ACCRUALS)}",
    "failureAccrual: {kind: io.l5d.successRat, successRate: 1}": (
        f"failureAccrual.kind: unknown kind 'io.l5d.successRat'; known: {', '.join(ACCRUALS)}; did you mean 'io.l5d.successRate'?"
    ),
    "failureAccrual: {kind: io.l5d.consecutiveFailures}": "failureAccrual.failures: missing required field 'failures'",
    "failureAccrual: {kind: io.l5d.consecutiveFailures, failures: 0}": "failureAccrual.failures: must be at least 1, not 0",
    "failureAccrual: {kind: io.l5d.successRate, requests: 9}": "failureAccrual.successRate: missing required field 'successRate'",
    "failureAccrual: {kind: io.l5d.successRate, successRate: 0.5}": "failureAccrual.requests: missing required field 'requests'",
    "failureAccrual: {kind: io.l5d.successRate, successRate: 1.1, requests: 9}": (
        "failureAccrual.successRate: must be between 0 and 1, not 1.1"
    ),
    "failureAccrual: {kind: io.l5d.successRate, successRate: 1, requests: 0}": "failureAccrual.requests: must be at least 1, not 0",
    "failureAccrual: {kind: io.l5d.successRate, successRate: 1, requests: 9, colour: 9}": (
        "failureAccrual.colour: unknown field 'colour'; known: backoff, kind, requests, successRate"
    ),
    "failureAccrual: {kind: io.l5d.successRateWindowed, successRate: 0.5}": "failureAccrual.window: missing required field 'window'",
    "failureAccrual: {kind: io.l5d.successRateWindowed, window: 9}": "failureAccrual.successRate: missing required field 'successRate'",
    "failureAccrual: {kind: io.l5d.successRateWindowed, successRate: 0.5, window: 0}": "failureAccrual.window: must be at least 1, not 0",
    "failureAccrual: {kind: none, failures: 5}": "failureAccrual.failures: unknown field 'failures'; known: backoff, kind",
    "failureAccrual: {kind: none, backoff: {kind: jittered, minMs: 1}}": "failureAccrual.backoff.maxMs: missing required field 'maxMs'",
    "loadBalancer: {kind: p2c, maxEffort: 0}": "loadBalancer.maxEffort: must be at least 1, not 0",
    "loadBalancer: {kind: p2c, enableProbation: 1}": "loadBalancer.enableProbation: expected true or false, found '1'",
    "loadBalancer: {kind: ewma, decayTimeMs: 0}": "loadBalancer.decayTimeMs: must be at least 1, not 0",
    "loadBalancer: {kind: heap, maxEffort: 5}": "loadBalancer.maxEffort: unknown field 'maxEffort'; known: enableProbation, kind",
    "loadBalancer: {kind: roundRobin, maxEffort: 0}": "loadBalancer.maxEffort: must be at least 1, not 0",
    "loadBalancer: {kind: aperture, minAperture: 0}": "loadBalancer.minAperture: must be at least 1, not 0",
    "loadBalancer: {kind: aperture, smoothWindowMs: 0}": "loadBalancer.smoothWindowMs: must be at least 1, not 0",
    "loadBalancer: {kind: aperture, lowLoad: -1}": "loadBalancer.lowLoad: must be at least 0, not -1.0",
    "loadBalancer: {kind: aperture, lowLoad: 2}": "loadBalancer: lowLoad must be below highLoad, but 2 is not below 2",
    "socketOptions: {noDelay: true}": "socketOptions: not supported yet: socket options of clients (`socketOptions`)",
}


@pytest.mark.parametrize("fields", CLIENTS)
def test_bad_value_of_a_client_is_told_in_full(fields: str, shown: Shown) -> None:
    told = [problem.partition(": ")[2] for problem in shown(file(f"client: {{{fields}}}"))]
    assert told == [f"routers[0].client.{CLIENTS[fields]}"]


SERVICES = {
    "totalTimeoutMs: soon": "totalTimeoutMs: expected a whole number, found 'soon'",
    "retries: {backoff: {}}": "retries.backoff.kind: missing required field 'kind'; known: constant, jittered",
    "retries: {backoff: {kind: exponential}}": "retries.backoff.kind: unknown kind 'exponential'; known: constant, jittered",
    "retries: {backoff: {kind: constant, ms: -1}}": "retries.backoff.ms: must be at least 0, not -1",
    "retries: {backoff: {kind: constant, minMs: 1}}": "retries.backoff.minMs: unknown field 'minMs'; known: kind, ms",
    "retries: {backoff: {kind: jittered, maxMs: 10}}": "retries.backoff.minMs: missing required field 'minMs'",
    "retries: {backoff: {kind: jittered, minMs: 10}}": "retries.backoff.maxMs: missing required field 'maxMs'",
    "retries: {backoff: {kind: jittered, minMs: 0, maxMs: 10}}": "retries.backoff.minMs: must be at least 1, not 0",
    "retries: {backoff: {kind: jittered, minMs: 11, maxMs: 10}}": ("retries.backoff: minMs must be at most maxMs, but 11 is more than 10"),
    "retries: {budget: {ttlSecs: 61}}": "retries.budget.ttlSecs: must be between 1 and 60, not 61",
    "retries: {max: 3}": "retries.max: unknown field 'max'; known: backoff, budget",
    "responseClassifier: {}": f"responseClassifier.kind: missing required field 'kind'; known: {', '.join(CLASSIFIERS)}",
    "responseClassifier: {kind: io.l5d.http.retryableRead5XX, methods: []}": (
        "responseClassifier.methods: unknown field 'methods'; known: kind"
    ),
    "responseClassifier: {kind: io.l5d.h2.nonRetryable5XX}": (
        "responseClassifier.kind: kind 'io.l5d.h2.nonRetryable5XX' is for routers with protocol h2, not http; "
        "did you mean 'io.l5d.http.nonRetryable5XX'?"
    ),
    "faults: {delay: {ms: 5}}": "faults.delay.percent: missing required field 'percent'",
    "faults: {delay: {percent: 5}}": "faults.delay.ms: missing required field 'ms'",
    "faults: {delay: {percent: 101, ms: 5}}": "faults.delay.percent: must be between 0 and 100, not 101.0",
    "faults: {delay: {percent: 1, ms: 3600001}}": "faults.delay.ms: must be between 0 and 3.6e+06, not 3600001",
    "faults: {abort: {status: 503}}": "faults.abort.percent: missing required field 'percent'",
    "faults: {abort: {percent: -1}}": "faults.abort.percent: must be between 0 and 100, not -1.0",
    "faults: {abort: {percent: 1, status: 199}}": "faults.abort.status: must be between 200 and 599, not 199",
    "faults: {abort: {percent: 1, status: 600}}": "faults.abort.status: must be between 200 and 599, not 600",
    "faults: {header: l5d-fault}": "faults.header: expected true or false, found 'l5d-fault'",
    "classificationTimeoutMs: 5": (
        "classificationTimeoutMs: unknown field 'classificationTimeoutMs'; known: faults, kind, responseClassifier, retries, "
        "totalTimeoutMs; it is for services in routers of protocol h2"
    ),
}


@pytest.mark.parametrize("fields", SERVICES)
def test_bad_value_of_a_service_is_told_in_full(fields: str, shown: Shown) -> None:
    told = [problem.partition(": ")[2] for problem in shown(file(f"service: {{{fields}}}"))]
    assert told == [f"routers[0].service.{SERVICES[fields]}"]


SERVERS = {
    "maxConcurrentRequests: 0": "maxConcurrentRequests: must be at least 1, not 0",
    "timeoutMs: 0": "timeoutMs: must be at least 1, not 0",
    "serverSession: {idleTimeMs: 0}": "serverSession.idleTimeMs: must be at least 1, not 0",
    "serverSession: {lifeTimeMs: 0}": "serverSession.lifeTimeMs: must be at least 1, not 0",
    "serverSession: {idleTime: 5}": (
        "serverSession.idleTime: unknown field 'idleTime'; known: idleTimeMs, lifeTimeMs; did you mean 'idleTimeMs'?"
    ),
    "socketOptions: {readTimeoutMs: 5}": "socketOptions.readTimeoutMs: not supported yet: read timeout of connections (`readTimeoutMs`)",
    "socketOptions: {writeTimeoutMs: 5}": (
        "socketOptions.writeTimeoutMs: not supported yet: write timeout of connections (`writeTimeoutMs`)"
    ),
}


@pytest.mark.parametrize("fields", SERVERS)
def test_bad_value_of_a_server_is_told_in_full(fields: str, shown: Shown) -> None:
    told = [problem.partition(": ")[2] for problem in shown(file("label: a", f"{{{fields}}}"))]
    assert told == [f"routers[0].servers[0].{SERVERS[fields]}"]


def test_classifier_of_another_protocol_is_refused(shown: Shown) -> None:
    text = (
        "routers: [{protocol: trial, experimental: true, servers: [{}], service: {responseClassifier: {kind: io.l5d.http.allSuccessful}}}]"
    )
    assert [problem.partition(": ")[2] for problem in shown(text)] == [
        "routers[0].service.responseClassifier.kind: kind 'io.l5d.http.allSuccessful' is for routers with protocol http, not trial"
    ]


def test_kilobytes_kept_for_retries_are_not_negative(shown: Shown) -> None:
    assert [problem.partition(": ")[2] for problem in shown(file("streamAfterContentLengthKB: -1"))] == [
        "routers[0].streamAfterContentLengthKB: must be at least 0, not -1"
    ]


# --- what is read


def test_absent_blocks_mean_the_documented_defaults(loaded: Loaded) -> None:
    config = router(loaded, "label: a")
    params, _ = config.client.for_name(Path.read("/#/x"))
    assert params.requeue_budget == RetryBudgetConfig(ttl_secs=10, min_retries_per_sec=10, percent_can_retry=0.2)
    assert (params.fail_fast, params.failure_accrual, params.request_attempt_timeout_ms) == (False, None, None)
    assert params.client_session == Session(idle_time_ms=None, life_time_ms=None)
    assert config.service.for_name(NAME)[0] == ServiceParams()
    server = config.servers[0]
    assert (server.max_concurrent_requests, server.timeout_ms, server.server_session) == (None, None, Session())
    assert config.stream_after_content_length_kb is None


def test_client_reads_its_options(loaded: Loaded) -> None:
    params = client(
        loaded,
        "{failFast: true, requestAttemptTimeoutMs: 200, requeueBudget: {percentCanRetry: 1000},"
        " clientSession: {idleTimeMs: 1, lifeTimeMs: 2}, failureAccrual: {kind: io.l5d.successRate, successRate: 0.9, requests: 100,"
        " backoff: {kind: jittered, minMs: 5, maxMs: 5}}, loadBalancer: {kind: aperture, minAperture: 3}}",
    )
    assert (params.fail_fast, params.request_attempt_timeout_ms) == (True, 200)
    assert params.requeue_budget == RetryBudgetConfig(percent_can_retry=1000.0)
    assert params.client_session == Session(idle_time_ms=1, life_time_ms=2)
    assert params.failure_accrual is not None and params.load_balancer is not None
    accrual = params.failure_accrual.config
    assert (accrual.success_rate, accrual.requests, accrual.backoff) == (0.9, 100, JitteredBackoff(min_ms=5, max_ms=5))
    assert (params.load_balancer.kind.id, params.load_balancer.config.min_aperture) == ("aperture", 3)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("io.l5d.consecutiveFailures", ", failures: 1"),
        ("io.l5d.successRate", ", successRate: 0, requests: 1"),
        ("io.l5d.successRateWindowed", ", successRate: 1, window: 1"),
        ("none", ""),
    ],
)
@pytest.mark.parametrize(("backoff", "expected"), [("", None), (", backoff: {kind: constant, ms: 7}", ConstantBackoff(ms=7))])
def test_every_accrual_kind_takes_a_backoff_or_none(
    kind: str, fields: str, backoff: str, expected: ConstantBackoff | None, loaded: Loaded
) -> None:
    accrual = client(loaded, f"{{failureAccrual: {{kind: {kind}{fields}{backoff}}}}}").failure_accrual
    assert accrual is not None
    assert (accrual.kind.id, accrual.config.backoff) == (kind, expected)


@pytest.mark.parametrize("kind", [id for id in CLASSIFIERS if id.startswith("io.l5d.http.")])
def test_every_http_classifier_needs_no_options(kind: str, loaded: Loaded) -> None:
    chosen = service(loaded, f"{{responseClassifier: {{kind: {kind}}}}}").response_classifier
    assert chosen is not None and chosen.kind.id == kind


def test_service_reads_its_options(loaded: Loaded) -> None:
    params = service(
        loaded,
        "{totalTimeoutMs: -5, retries: {budget: {ttlSecs: 60, minRetriesPerSec: 0, percentCanRetry: 0}, backoff: {kind: constant}},"
        " faults: {delay: {percent: 0.5, ms: 0}, abort: {percent: 100}, header: true}}",
    )
    assert params == ServiceParams(
        total_timeout_ms=-5,  # 0 or less is no limit (spec 4.7)
        retries=RetriesConfig(
            budget=RetryBudgetConfig(ttl_secs=60, min_retries_per_sec=0, percent_can_retry=0.0), backoff=ConstantBackoff(ms=0)
        ),
        faults=FaultsConfig(delay=DelayFault(percent=0.5, ms=0), abort=AbortFault(percent=100.0, status=503), header=True),
    )


def test_server_reads_its_limits(loaded: Loaded) -> None:
    server = router(loaded, "label: a", "{maxConcurrentRequests: 1, timeoutMs: 1, serverSession: {idleTimeMs: 1}}").servers[0]
    assert (server.max_concurrent_requests, server.timeout_ms, server.server_session) == (1, 1, Session(idle_time_ms=1))


@pytest.mark.parametrize("size", [0, 5, 1024])
def test_kilobytes_kept_for_retries_are_read_without_a_notice(size: int, loaded: Loaded) -> None:
    assert router(loaded, f"streamAfterContentLengthKB: {size}").stream_after_content_length_kb == size


# --- merging (spec 4.8)


def test_later_budget_leaves_an_earlier_backoff(loaded: Loaded) -> None:
    block = (
        "{kind: io.l5d.static, configs: ["
        "{prefix: /, totalTimeoutMs: 9, retries: {budget: {ttlSecs: 5, minRetriesPerSec: 1}, backoff: {kind: constant, ms: 7}}},"
        "{prefix: /svc, retries: {budget: {ttlSecs: 6}}}]}"
    )
    params = service(loaded, block)
    # of a budget nothing is left: it is one parameter
    assert params.retries == RetriesConfig(budget=RetryBudgetConfig(ttl_secs=6), backoff=ConstantBackoff(ms=7))
    assert params.total_timeout_ms == 9


def test_later_backoff_leaves_an_earlier_budget(loaded: Loaded) -> None:
    block = (
        "{kind: io.l5d.static, configs: ["
        "{prefix: /, retries: {budget: {ttlSecs: 5}, backoff: {kind: constant, ms: 7}}},"
        "{prefix: /svc/web, retries: {backoff: {kind: jittered, minMs: 1, maxMs: 2}}},"
        "{prefix: /svc/other, retries: {budget: {ttlSecs: 8}, backoff: {kind: constant, ms: 8}}}]}"
    )
    assert service(loaded, block).retries == RetriesConfig(
        budget=RetryBudgetConfig(ttl_secs=5), backoff=JitteredBackoff(min_ms=1, max_ms=2)
    )


def test_every_other_block_is_replaced_whole(loaded: Loaded) -> None:
    params = client(
        loaded,
        "{kind: io.l5d.static, configs: ["
        "{prefix: /, failFast: true, hostConnectionPool: {minSize: 1, maxSize: 2}, requeueBudget: {ttlSecs: 5, minRetriesPerSec: 1},"
        " clientSession: {idleTimeMs: 5}, failureAccrual: {kind: none}},"
        "{prefix: '/#/io.l5d.fs', hostConnectionPool: {maxWaiters: 3}, requeueBudget: {percentCanRetry: 1},"
        " clientSession: {lifeTimeMs: 6}, failureAccrual: {kind: io.l5d.consecutiveFailures, failures: 2}}]}",
    )
    assert params.fail_fast is True
    assert params.host_connection_pool == HostConnectionPool(max_waiters=3)
    assert params.requeue_budget == RetryBudgetConfig(percent_can_retry=1.0)
    assert params.client_session == Session(life_time_ms=6)
    assert params.failure_accrual is not None and params.failure_accrual.config.failures == 2


def test_later_false_overrides_an_earlier_true(loaded: Loaded) -> None:
    block = "{kind: io.l5d.static, configs: [{prefix: /, failFast: true}, {prefix: /#/io.l5d.fs, failFast: false}]}"
    assert client(loaded, block).fail_fast is False


def test_faults_of_a_later_entry_replace_the_earlier_ones(loaded: Loaded) -> None:
    block = "{kind: io.l5d.static, configs: [{prefix: /, faults: {abort: {percent: 1}}}, {prefix: /svc/web, faults: {header: true}}]}"
    assert service(loaded, block).faults == FaultsConfig(header=True)


# --- the same options elsewhere

NESTED = (
    "client: {requeueBudget: {ttlSecs: 30}, failureAccrual: {kind: none}, clientSession: {lifeTimeMs: 5}}\n"
    "  service: {retries: {backoff: {kind: jittered, minMs: 1, maxMs: 2}}, faults: {abort: {percent: 1}}}"
)


def test_configuration_as_understood_shows_them(loaded: Loaded) -> None:
    result = loaded(file(NESTED))
    assert result.config is not None
    shown: Any = json.loads(json.dumps(config_to_json(result.config)))["routers"][0]
    assert shown["client"]["requeueBudget"] == {"ttlSecs": 30}
    assert shown["client"]["failureAccrual"] == {"kind": "none"}
    assert shown["service"]["retries"]["backoff"] == {"kind": "jittered", "minMs": 1, "maxMs": 2}
    assert shown["service"]["faults"] == {"abort": {"percent": 1.0}}


@pytest.mark.parametrize(("group", "ids"), [("balancers", BALANCERS), ("accruals", ACCRUALS), ("classifiers", CLASSIFIERS)])
def test_schema_and_reference_know_every_kind(group: str, ids: tuple[str, ...], registry: Registry) -> None:
    assert registry.known(group) == tuple(sorted(ids))
    schema, page = file_schema(registry), reference(registry)
    assert {choice["$ref"] for choice in schema["$defs"][group]["oneOf"]} == {f"#/$defs/{group}.{id}" for id in ids}
    assert [id for id in ids if f"`{id}`" not in page] == []


def test_schema_knows_the_bounds_that_are_objects(registry: Registry) -> None:
    router = file_schema(registry)["$defs"]["protocols.http"]
    text = json.dumps(file_schema(registry))
    assert "streamAfterContentLengthKB" in router["properties"]
    for name in ("requeueBudget", "failFast", "faults", "serverSession", "maxConcurrentRequests"):
        assert f'"{name}"' in text, name
