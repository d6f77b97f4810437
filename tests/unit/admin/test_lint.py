"""Each rule finds what it is for, and nothing in a gateway that is as it should be."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from meshgw.admin.lint import MOST_ISSUES, RULES, Facts, interesting, results
from meshgw.config.models import AdminAuthentication, AdminConfig, Config
from meshgw.config.tls import ServerTls
from meshgw.core.slices import finished
from meshgw.telemetry.metrics import Snapshot

TOKENS = AdminAuthentication(operator_token_file="token")
TLS = ServerTls(cert_path="a", key_path="b")
EXPORTER: Any = object()
WELL = Facts(
    config=Config(routers=(), telemetry=(EXPORTER,)),
    remarks=[],
    counted={},
    loggers=[("meshgw", "INFO"), ("root", "INFO")],
    found=[],
    unanswered={},
)


def issues(**changes: Any) -> dict[str, list[str]]:
    found = finished(results(attrs.evolve(WELL, **changes)))["lint_results"]
    return {rule["id"]: rule["issues"] for rule in found["failed_rules"]}


def admin(**block: Any) -> Config:
    return Config(routers=(), telemetry=(EXPORTER,), admin=AdminConfig(ip="0.0.0.0", **block))


def counted(*names: str) -> dict[tuple[str, ...], int]:
    others: dict[tuple[str, ...], int] = {("rt", "web", str(number)): number for number in range(3000)}
    return finished(interesting(Snapshot(counters=others | {("rt", "a", "access_log", "lost"): 0, names: 3})))


def test_a_gateway_that_is_as_it_should_be_has_no_issues() -> None:
    found = finished(results(WELL))["lint_results"]
    assert found["failed_rules"] == [] and found["metadata"] == {"num_rules": len(RULES), "num_issues": 0}
    assert [rule["id"] for rule in found["ok_rules"]] == [rule.id for rule in RULES]


@pytest.mark.parametrize(
    ("rule", "changes", "told"),
    [
        ("admin-for-everybody", {"config": admin()}, "0.0.0.0"),
        ("tokens-in-cleartext", {"config": admin(authentication=TOKENS)}, "0.0.0.0"),
        ("certificates", {"found": [("certificates", "ends soon")]}, "ends soon"),
        ("configuration", {"remarks": ["a.yml:1: x"]}, "a.yml:1: x"),
        ("no-telemetry", {"config": Config(routers=())}, "telemetry"),
        ("verbose-logging", {"loggers": [("meshgw.bind", "DEBUG"), ("root", "INFO")]}, "meshgw.bind"),
        ("verbose-logging", {"loggers": [("root", "TRACE")]}, "root"),
        ("stale-discovery", {"found": [("stale-discovery", "refused")]}, "refused"),
        ("no-endpoint", {"found": [("no-endpoint", "accrual")]}, "accrual"),
        ("metrics-dropped", {"counted": counted("metrics", "dropped")}, "3 metrics"),
        ("access-log", {"counted": counted("rt", "web", "access_log", "lost")}, "router web: 3 lines"),
        ("bindings", {"counted": counted("rt", "web", "bindcache", "path", "oneshots")}, "router web: 3"),
        ("faults", {"counted": counted("rt", "web", "service", "svc/a", "faults", "aborts")}, "web svc/a: 3"),
        ("worker-restarts", {"counted": counted("workers", "restarts")}, "3 times"),
        ("unanswered", {"unanswered": {"shared-1": "too slow"}}, "shared-1"),
        ("stalls", {"found": [("stalls", "300 ms")]}, "300 ms"),
        ("descriptors", {"found": [("descriptors", "9 of 10")]}, "9 of 10"),
    ],
)
def test_a_rule_tells_what_it_finds(rule: str, changes: dict[str, Any], told: str) -> None:
    found = issues(**changes)
    assert list(found) == [rule]
    assert told in found[rule][0]


@pytest.mark.parametrize("config", [admin(authentication=TOKENS, tls=TLS), admin(tls=attrs.evolve(TLS, require_client_auth=True))])
def test_an_admin_server_that_asks_who_is_there_over_tls_is_well(config: Config) -> None:
    assert issues(config=config) == {}


def test_issues_of_a_rule_are_bounded_and_all_counted() -> None:
    found = finished(results(attrs.evolve(WELL, remarks=[str(number) for number in range(200)])))["lint_results"]
    assert len(found["failed_rules"][0]["issues"]) == MOST_ISSUES and found["metadata"]["num_issues"] == 200


def test_every_rule_has_an_id_of_its_own() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
