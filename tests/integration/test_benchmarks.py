"""The benchmark's command line and report, and one short real comparison."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.servers import ROOT

pytestmark = pytest.mark.integration


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)


def test_every_goal_belongs_to_a_scenario_that_measures_its_proxies() -> None:
    script = (
        "import goals, scenarios\n"
        "for goal in goals.GOALS:\n"
        "    scenario = scenarios.SCENARIOS[goal.scenario]\n"
        "    assert scenario.is_default, goal.text\n"
        "    assert {goal.proxy, goal.peer or goal.proxy} <= set(scenario.proxies), goal.text\n"
    )
    places = os.pathsep.join((str(ROOT / "benchmarks"), str(ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": places}, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [("--scenario", "nosuch"), ("--proxies", "nosuch"), ("--proxies", "mitmproxy:2")])
def test_what_does_not_exist_is_refused_by_its_name(words: tuple[str, str]) -> None:
    done = bench(*words)
    assert done.returncode == 2
    assert words[1].partition(":")[0] in done.stderr.splitlines()[-1]


def test_the_gateway_is_compared_with_nginx() -> None:
    cores = sorted(os.sched_getaffinity(0))
    words = ["--quick", "--rounds", "1", "--seconds", "1", "--proxies", "nginx,meshgw", "--concurrency", "1,4"]
    done = bench(*words, "--load-core", str(cores[0]), "--proxy-core", str(cores[-1]))
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| meshgw "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert float(cells[1]) > 0, "CPU per request"
    assert "### Goals" in done.stdout


def test_what_telemetry_costs_is_told_in_three_tables() -> None:
    cores = sorted(os.sched_getaffinity(0))
    words = ["--quick", "--rounds", "1", "--seconds", "1", "--services", "5", "--load-core", str(cores[0]), "--proxy-core", str(cores[-1])]
    argv = [sys.executable, str(ROOT / "benchmarks" / "telemetry.py"), *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if line.startswith("| ")]
    scrapes = {row[0]: float(row[1].partition(" ")[0]) for row in rows if row[0] in ("Prometheus", "InfluxDB", "metrics.json")}
    assert len(scrapes) == 3 and min(scrapes.values()) > 0
    names = ("no scrape", "one each second", "off", "exporters", "and recent requests, a quarter of all")
    assert {row[0]: row[-1] for row in rows if row[0] in names} == dict.fromkeys(names, "0")
    assert "Zipkin was told of" in done.stdout
