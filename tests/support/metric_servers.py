"""Those who take metrics, as real programs of their makers: Prometheus with promtool, and InfluxDB."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.processes import LOOPBACK, Process, Running, free_port, wait_until
from support.servers import tool, written

SECONDS = 20.0
LINT_WARNINGS = 3
"""promtool's exit status when it can read everything but would name it otherwise: Linkerd's names have colons and no HELP."""


def _ask(url: str, body: bytes | None = None) -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data=body), timeout=SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def _is_up(url: str) -> bool:
    try:
        return _ask(url)[0] < 300
    except OSError:
        return False


def promtool(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run it; the caller looks at the exit status."""
    return subprocess.run([tool("promtool"), *words], input=stdin, capture_output=True, timeout=300, check=False)


class Prometheus:
    """Prometheus with ``config``, whose storage is below the test's directory."""

    def __init__(self, running: Running, config: str, name: str = "prometheus") -> None:
        self.port = free_port()
        directory = running.directory / name
        path = written(directory, "prometheus.yml", config)
        argv = [tool("prometheus"), f"--config.file={path}", f"--storage.tsdb.path={directory}/data"]
        argv += [f"--web.listen-address={LOOPBACK}:{self.port}", "--log.level=warn"]
        running.add(Process(name, argv, directory, port=self.port), is_ready=lambda: _is_up(self._url("/-/ready")))

    def _url(self, path: str, **parameters: str) -> str:
        return f"http://{LOOPBACK}:{self.port}{path}?{urllib.parse.urlencode(parameters)}"

    def targets(self) -> dict[str, str]:
        """The health of each target that was scraped, by its URL; an error is told in place of ``down``."""
        found = json.loads(_ask(self._url("/api/v1/targets"))[1])["data"]["activeTargets"]
        return {target["scrapeUrl"]: target["lastError"] or target["health"] for target in found if target["health"] != "unknown"}

    def wait_up(self, *urls: str) -> None:
        """Wait until the targets are exactly these, and all were scraped well."""
        assert wait_until(lambda: self.targets() == dict.fromkeys(urls, "up"), SECONDS), self.targets()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query. Raises AssertionError with Prometheus's words for one that it refuses."""
        status, body = _ask(self._url("/api/v1/query", query=expression))
        content = json.loads(body)
        assert status == 200 and content["status"] == "success", f"{expression}: {content.get('error')}"
        found: Any = content["data"]["result"]
        return list(found) if content["data"]["resultType"] == "vector" else [{"metric": {}, "value": found}]

    def value(self, expression: str) -> float | None:
        """The value of the only series of a result; None while there is none."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def becomes(self, expression: str, expected: float) -> None:
        """Wait until this is the value: one scrape that took too long leaves none for a while."""
        assert wait_until(lambda: self.value(expression) == expected, SECONDS), f"{expression}: {self.query(expression)}"


class InfluxDB:
    """InfluxDB 1.x with a database."""

    def __init__(self, running: Running, database: str = "mesh") -> None:
        self.port, self.database = free_port(), database
        home = running.directory / "influxdb"
        text = (
            f'reporting-enabled = false\nbind-address = "{LOOPBACK}:{free_port()}"\n[meta]\ndir = "{home}/meta"\n'
            f'[data]\ndir = "{home}/data"\nwal-dir = "{home}/wal"\n[http]\nbind-address = "{LOOPBACK}:{self.port}"\nlog-enabled = false\n'
            "[monitor]\nstore-enabled = false\n"
        )
        path: Path = written(home, "influxdb.conf", text)
        process = Process("influxdb", [tool("influxd"), "-config", str(path)], home, port=self.port)
        running.add(process, is_ready=lambda: _is_up(self._url("/ping")))
        self.query(f"CREATE DATABASE {database}")

    def _url(self, path: str, **parameters: str) -> str:
        return f"http://{LOOPBACK}:{self.port}{path}?{urllib.parse.urlencode({'db': self.database, **parameters})}"

    def write(self, lines: bytes) -> None:
        """Write points. Raises AssertionError with InfluxDB's words if it does not take all of them."""
        status, body = _ask(self._url("/write"), lines)
        assert status == 204, body.decode()

    def query(self, text: str) -> Sequence[Mapping[str, Any]]:
        """The series of a query's only statement."""
        status, body = _ask(self._url("/query"), urllib.parse.urlencode({"q": text}).encode())
        (result,) = json.loads(body)["results"]
        assert status == 200 and "error" not in result, result
        found: Sequence[Mapping[str, Any]] = result.get("series", [])
        return found

    def points(self) -> list[tuple[str, dict[str, str], dict[str, float]]]:
        """The latest point of every series: measurement, tags, fields."""
        found = []
        for series in self.query("SELECT * FROM /.*/ GROUP BY * ORDER BY time DESC LIMIT 1"):
            fields = dict(zip(series["columns"][1:], series["values"][0][1:], strict=True))
            tags = {name: value for name, value in series["tags"].items() if value}
            found.append((series["name"], tags, {name: value for name, value in fields.items() if value is not None}))
        return found
