"""Prometheus, promtool, InfluxDB and a StatsD server read what the gateway tells, whatever the names are."""

from __future__ import annotations

import json
import re
import socket
from contextlib import closing, suppress

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


def scrape_config(gw: Gateway, interval: str = "500ms") -> str:
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
    prometheus.wait_up(*(f"http://{LOOPBACK}:{gw.admin_port}{path}" for path in ("/admin/metrics/prometheus", "/metrics")))
    label = json.dumps(LABEL, ensure_ascii=False)
    prometheus.becomes(f'rt:server:requests{{job="linkerd", rt={label}}}', 7)
    prometheus.becomes('rt:service:failures{job="alias", service="svc/web", exception=""}', 3)
    prometheus.becomes(r'rt:service:failures{job="alias", service="svc/\\x6e\\x6f\\x22\\x5c", exception=""}', 1)
    prometheus.becomes('count by (job) (count by (job, service) (rt:client:service:requests{job="linkerd"}))', 1)
    assert gw.get("h", "/", "to: /web").status == 200
    prometheus.becomes('rt:service:success{job="linkerd", service="svc/web"}', 4)
    prometheus.becomes('sum(scrape_samples_scraped{job="linkerd"} - scrape_samples_post_metric_relabeling)', 0)


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


class StatsdRecorder:
    """A StatsD server that adds up what it is told, and keeps what it cannot read."""

    LINE = re.compile(rb"(?P<name>[A-Za-z0-9_.]+):(?P<value>[+-]?\d+(?:\.\d+)?)\|(?P<kind>c|g|ms)(?:\|@(?P<rate>0\.\d+|1))?")

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOOPBACK, 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]
        self.counters: dict[str, int] = {}
        self.gauges: dict[str, float] = {}
        self.bad: list[bytes] = []
        self.history: list[tuple[str, float]] = []
        """The values of gauges in the order in which they came."""

    def close(self) -> None:
        self._socket.close()

    def read(self) -> StatsdRecorder:
        """Take all that has come so far."""
        with suppress(BlockingIOError):
            while True:
                for line in self._socket.recv(65536).split(b"\n"):
                    self._take(line)
        return self

    def _take(self, line: bytes) -> None:
        found = self.LINE.fullmatch(line)
        if found is None:
            self.bad.append(line)
            return
        name, value = found["name"].decode(), found["value"]
        if found["kind"] == b"c":
            self.counters[name] = self.counters.get(name, 0) + int(value)
        elif found["kind"] == b"g":
            before = self.gauges.get(name, 0.0) if value[:1] in b"+-" else 0.0
            self.gauges[name] = before + float(value)
            self.history.append((name, self.gauges[name]))


def test_a_statsd_server_counts_what_the_gateway_counts(running: Running) -> None:
    with closing(StatsdRecorder()) as recorder:
        statsd = {
            "kind": "io.l5d.statsd",
            "experimental": True,
            "hostname": "localhost",
            "port": recorder.port,
            "prefix": "mesh",
            "gaugeIntervalMs": 300,
        }
        router = {"label": LABEL, "identifier": {"kind": "io.l5d.header", "header": "to"}}
        gw = gateway(running, {"web": Nginx(running, HELLO).port}, router=router, top={"telemetry": [statsd]})
        for number in range(5):
            assert gw.get("h", "/" if number else "/bad", "to: /web").status == (200 if number else 500)
        service = "mesh.rt.we_b__a_b_c__.service.svc.web"
        assert wait_until(lambda: recorder.read().counters.get(f"{service}.requests") == 5, SECONDS), recorder.counters
        assert (recorder.counters[f"{service}.success"], recorder.counters[f"{service}.failures"]) == (4, 1)
        assert wait_until(lambda: recorder.read().gauges.get("mesh.jvm.uptime", 0.0) > 0, SECONDS)
        assert recorder.bad == []
        assert gw.metrics()["telemetry/io.l5d.statsd/dropped"] == 0


def test_a_statsd_server_is_told_the_gauges_of_all_workers_together(running: Running) -> None:
    with closing(StatsdRecorder()) as recorder:
        statsd = {"kind": "io.l5d.statsd", "experimental": True, "hostname": "localhost", "port": recorder.port, "gaugeIntervalMs": 200}
        gw = gateway(running, {"web": Nginx(running, HELLO).port}, top={"telemetry": [statsd], "workers": 2})
        with closing(socket.create_connection((LOOPBACK, gw.port))), closing(socket.create_connection((LOOPBACK, gw.port))):
            connections = f"rt/http/server/{LOOPBACK}/{gw.port}/connections"
            assert wait_until(lambda: gw.metrics().get(connections) == 2, SECONDS), gw.metrics()
            told = f"linkerd.{connections}".replace(LOOPBACK, LOOPBACK.replace(".", "_")).replace("/", ".")
            assert wait_until(lambda: recorder.read().gauges.get(told) == 2, SECONDS), recorder.gauges
            recorder.history.clear()
            assert wait_until(lambda: recorder.read().history.count(("linkerd.workers.running", 2.0)) >= 3, SECONDS), recorder.gauges
            assert {value for name, value in recorder.history if name == told} == {2.0}
        assert recorder.bad == []
