"""Prometheus, promtool and InfluxDB read what the gateway serves, whatever the names are."""

from __future__ import annotations

import json

import pytest

from meshgw.telemetry.influxdb import InfluxText
from meshgw.telemetry.metrics import Snapshot
from meshgw.telemetry.prometheus import PrometheusText
from support.gateways import LOOPBACK, Gateway, Nginx, gateway
from support.metric_servers import LINT_WARNINGS, SECONDS, InfluxDB, Prometheus, promtool
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration

HELLO = 'location / { return 200 "hello"; } location /bad { return 500 "bad"; }'
HOSTILE = ['"', "\\", "\\n", "a\nb", '\\"', "a,b=c", "{}", " ", "9", "é", "\t", 'x"} 1\ny', "a\\", "\\,", "\\ ", "\\=", "time", "#", "日本"]
LABEL = 'we"b\\ a,b=c é'


def hostile() -> Snapshot:
    """Counters, gauges with every name at every place where callers or servers may choose one."""
    counters: dict[tuple[str, ...], int] = {}
    for name in HOSTILE:
        counters |= {
            (name,): 1,
            ("rt", name, "bindcache", "path", "misses"): 2,
            ("rt", "http", "service", name, "requests"): 3,
            ("rt", "http", "client", "c", "service", name, "requests"): 4,
            ("rt", "http", "server", "s", "failures", name): 5,
            ("namer", name, "service", "stale"): 6,
        }
    return Snapshot(counters, {("jvm", name): 0.5 for name in HOSTILE})


def scrape_config(gw: Gateway, interval: str = "200ms") -> str:
    paths = {"linkerd": "/admin/metrics/prometheus", "alias": "/metrics"}
    jobs = [
        {"job_name": name, "metrics_path": path, "static_configs": [{"targets": [f"{LOOPBACK}:{gw.admin_port}"]}]}
        for name, path in paths.items()
    ]
    return json.dumps({"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": jobs})


def loaded(running: Running) -> Gateway:
    """A gateway with a hostile label that answered some requests for a hostile name, and failed at others."""
    router = {"label": LABEL, "identifier": {"kind": "io.l5d.header", "header": "to"}}
    telemetry = [{"kind": "io.l5d.prometheus"}, {"kind": "io.l5d.influxdb"}]
    gw = gateway(running, {"web": Nginx(running, HELLO).port}, router=router, top={"telemetry": telemetry})
    for _ in range(3):
        assert gw.get("h", "/", "to: /web").status == 200
        assert gw.get("h", "/bad", "to: /web").status == 500
    assert gw.get("h", "/", r"to: /no\x22\x5c").status == 502
    return gw


def test_promtool_reads_every_hostile_name() -> None:
    checked = promtool("check", "metrics", stdin=b"".join(PrometheusText().pieces(hostile())))
    assert checked.returncode in (0, LINT_WARNINGS), checked.stderr.decode()


def test_prometheus_scrapes_a_gateway_and_answers_questions(running: Running) -> None:
    gw = loaded(running)
    checked = promtool("check", "metrics", stdin=gw.admin("/metrics").body)
    assert checked.returncode in (0, LINT_WARNINGS), checked.stderr.decode()
    prometheus = Prometheus(running, scrape_config(gw))
    assert set(prometheus.wait_up(2).values()) == {"up"}
    label = json.dumps(LABEL, ensure_ascii=False)
    assert prometheus.value(f'rt:server:requests{{job="linkerd", rt={label}}}') == 7
    assert prometheus.value('rt:service:failures{job="alias", service="svc/web", exception=""}') == 3
    assert prometheus.value(r'rt:service:failures{job="alias", service="svc/\\x6e\\x6f\\x22\\x5c", exception=""}') == 1
    assert prometheus.value('count by (job) (count by (job, service) (rt:client:service:requests{job="linkerd"}))') == 1
    assert gw.get("h", "/", "to: /web").status == 200
    assert wait_until(lambda: prometheus.value('rt:service:success{job="linkerd", service="svc/web"}') == 4, SECONDS)
    assert prometheus.value('sum(scrape_samples_scraped{job="linkerd"} - scrape_samples_post_metric_relabeling)') == 0


def test_influxdb_takes_every_hostile_name_and_gives_back_those_that_it_can_keep(running: Running) -> None:
    influx = InfluxDB(running)
    influx.write(b"".join(InfluxText().pieces(hostile(), "here")))
    found = influx.points()
    services = {tags["service"]: fields["requests"] for name, tags, fields in found if name == "rt:service"}
    kept = [name for name in HOSTILE if not (set(name) & set("\n\t") or name.endswith("\\"))]
    assert {name: services.get(name) for name in kept} == dict.fromkeys(kept, 3.0)
    assert len(services) == len(HOSTILE)
    (root,) = [fields for name, _, fields in found if name == "root"]
    assert root['"'] == root["a,b=c"] == root["time_"] == root["日本"] == 1
    assert all(tags["host"] == "here" for _, tags, _ in found)


def test_what_a_gateway_tells_influxdb_is_found_there(running: Running) -> None:
    gw, influx = loaded(running), InfluxDB(running)
    influx.write(gw.admin("/admin/metrics/influxdb").body)
    points = influx.points()
    host = f"{LOOPBACK}:{gw.admin_port}"
    (web,) = [fields for name, tags, fields in points if name == "rt:service" and tags.get("service") == "svc/web"]
    assert (web["requests"], web["success"], web["failures"]) == (6, 3, 3)
    assert {tags["host"] for _, tags, _ in points} == {host}
    assert {tags["rt"] for name, tags, _ in points if name.startswith("rt:")} == {LABEL}
    assert [fields["uptime"] > 0 for name, _, fields in points if name == "jvm"] == [True]
