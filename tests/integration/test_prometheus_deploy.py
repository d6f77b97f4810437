"""The files in deploy/prometheus and deploy/grafana, as they are: a real Prometheus reads them, scrapes a loaded gateway and is asked every
query of the rules and of the dashboard."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.certs import authority, write_files
from support.gateways import LOOPBACK, SECONDS, Gateway, Nginx, gateway
from support.metric_servers import Prometheus, promtool
from support.processes import Running, free_port, wait_until
from support.servers import ROOT

pytestmark = pytest.mark.integration

DEPLOY = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "meshgw.json").read_text())
HELLO = 'location / { return 200 "hello"; } location /bad { return 500 "bad"; }'
NEEDS_MORE = {
    "Stale answers of discovery": "a discovery service that went away",
    "Stale and failing watches": "a discovery service",
}
"""Panels that stay empty here, and what would fill them."""


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard as Grafana would send it with everything selected, with its panel's title."""
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "3s")
            yield panel["title"], re.sub(r"\$(job|instance|router|service|client)\b", ".*", expression)


def substituted(running: Running, name: str, places: dict[str, str]) -> str:
    """One of the configurations, put where its neighbours are, scraping more often and with the test's places in it."""
    directory = running.directory / "deploy"
    shutil.copytree(DEPLOY, directory, dirs_exist_ok=True)
    text = (directory / name).read_text()
    text = re.sub("scrape_(interval|timeout): .*", r"scrape_\1: 300ms", text)
    for before, after in {"- rules.yml": f"- {directory}/rules.yml", **places}.items():
        assert before in text, before
        text = text.replace(before, after)
    return text


def load(gw: Gateway) -> None:
    for _ in range(3):
        gw.get("web", "/")
    gw.get("web", "/bad")
    gw.get("none", "/")
    gw.get("dead", "/")


@pytest.mark.parametrize("name", ["prometheus", "secured", "kubernetes"])
def test_configurations_are_valid(name: str, tmp_path: Path) -> None:
    content = yaml.safe_load((DEPLOY / f"{name}.yml").read_text())
    for job in content["scrape_configs"]:
        if job.pop("kubernetes_sd_configs", None):  # Debian's Prometheus is built without it
            job["static_configs"] = [{"targets": ["127.0.0.1:9990"]}]
    path = tmp_path / "prometheus.yml"
    path.write_text(yaml.safe_dump(content))
    checked = promtool("check", "config", "--syntax-only", str(path))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_rules_do_what_their_tests_say() -> None:
    checked = promtool("check", "rules", str(DEPLOY / "rules.yml"))
    assert checked.returncode == 0, checked.stderr
    tested = promtool("test", "rules", str(DEPLOY / "rules-test.yml"))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_query_is_answered_for_a_loaded_gateway(running: Running) -> None:
    names = {"web": Nginx(running, HELLO).port, "dead": free_port()}
    telemetry = [{"kind": "io.l5d.prometheus"}, {"kind": "io.l5d.statsd", "experimental": True, "port": free_port()}]
    gw = gateway(running, names, options=("--histogram-interval", "1"), top={"telemetry": telemetry})
    prometheus = Prometheus(running, substituted(running, "prometheus.yml", {"127.0.0.1:9990": f"{LOOPBACK}:{gw.admin_port}"}))
    prometheus.wait_up(f"http://{LOOPBACK}:{gw.admin_port}/admin/metrics/prometheus")
    empty: dict[str, str] = {}

    def all_are_answered() -> bool:
        load(gw)
        nonlocal empty
        empty = {title: text for title, text in expressions() if not prometheus.query(text) and title not in NEEDS_MORE}
        return not empty

    assert wait_until(all_are_answered, 3 * SECONDS), empty
    for title, text in expressions():
        if title in NEEDS_MORE:
            assert prometheus.query(text) == [], f"{title}: {text}"
    rules = yaml.safe_load((DEPLOY / "rules.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        prometheus.query(rule["expr"])
    prometheus.becomes('count by (job) (rt:service:success{service="svc/web", mesh="main", job="meshgw"})', 1)
    prometheus.becomes('max by (client) (rt:client:loadbalancer:available{client="#/io.l5d.fs/web"})', 1)


def test_a_secured_gateway_is_scraped(running: Running) -> None:
    directory = running.directory
    (directory / "ca.crt").write_bytes(authority().pem)
    certificate, key = write_files(authority().leaf("meshgw.example"), directory, "admin")
    for role in ("operator", "reader"):
        (directory / role).write_text(f"{role}-0123456789abcdef\n")
    tokens = {"operatorTokenFile": str(directory / "operator"), "readerTokenFile": str(directory / "reader")}
    admin = {"tls": {"certPath": certificate, "keyPath": key}, "authentication": tokens}
    gw = gateway(running, {"web": 1}, admin=admin)
    places = {
        "/etc/prometheus/meshgw-ca.crt": f"{directory}/ca.crt",
        "/etc/prometheus/meshgw-reader-token": f"{directory}/reader",
        "[10.0.0.11:9990, 10.0.0.12:9990]": f"['{LOOPBACK}:{gw.admin_port}']",
    }
    prometheus = Prometheus(running, substituted(running, "secured.yml", places))
    prometheus.wait_up(f"https://{LOOPBACK}:{gw.admin_port}/admin/metrics/prometheus")


def test_the_dashboard_is_what_grafana_9_imports() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance", "router", "service", "client"]
    used = {name for _, text in ((panel["title"], json.dumps(panel)) for panel in panels()) for name in re.findall(r"\$\{?(\w+)", text)}
    assert used - {"__rate_interval"} <= set(variables)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert {panel["type"] for panel in DASHBOARD["panels"]} == {"row", "stat", "timeseries"}, "no plug-in is needed"
    assert all(panel["description"] and panel["targets"] for panel in panels())


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
