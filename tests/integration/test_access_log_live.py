"""Access logs of a running gateway in the forms that can be chosen, over HTTP/1.1 and HTTP/2, in a file and on standard output."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.gateways import LOOPBACK, SECONDS, Json, Nginx, curl, gateway
from support.processes import Running, wait_until

pytestmark = pytest.mark.integration

HELLO = 'location / { add_header X-Cache hit; return 200 "hello"; }'


def logged(log: Path, count: int) -> list[Json]:
    """The lines of a log in JSON, once there are so many."""

    def lines() -> list[str]:
        return log.read_text().splitlines() if log.exists() else []

    assert wait_until(lambda: len(lines()) >= count, SECONDS), f"{len(lines())} of {count} lines"
    return [json.loads(line) for line in lines()]


def test_json_tells_the_whole_way_of_a_request(running: Running) -> None:
    log = running.directory / "access.log"
    nginx = Nginx(running, HELLO)
    router = {"label": "front", "httpAccessLog": str(log), "httpAccessLogFormat": "json"}
    gw = gateway(running, {"web": nginx.port}, router=router)
    assert gw.get("web", '/a?q="\\x', "User-Agent: t\u00e9st", "l5d-ctx-trace: AAAAAAAAAAEAAAAAAAAAAgAAAAAAAAADAAAAAAAAAAA=").status == 200
    assert gw.get("none").status == 502
    answered, failed = logged(log, 2)
    assert answered["duration_ms"] > 0 and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", answered["time_iso"])
    told = {name: answered[name] for name in ("router", "host", "method", "target", "status", "service", "client", "endpoint", "trace_id")}
    assert told == {
        **{"router": "front", "host": "web", "method": "GET", "target": '/a?q="\\x', "status": 200, "service": "/svc/web"},
        **{"client": "/#/io.l5d.fs/web", "endpoint": f"{LOOPBACK}:{nginx.port}", "trace_id": "0000000000000003"},
    }
    assert (answered["response_bytes"], answered["error"], answered["user_agent"]) == (5, None, "t\\xe9st")
    assert (failed["status"], failed["error"], failed["client"], failed["endpoint"]) == (502, "Unbound", None, None)
    assert "/svc/none" in failed["error_text"]


def test_a_form_of_ones_own_goes_to_standard_output(running: Running) -> None:
    form = 'LINE %{method} %{target} %{status} "%{header:x-request-id}" %{response:x-cache} %{service} 100%%'
    gw = gateway(running, {"web": Nginx(running, HELLO).port}, router={"httpAccessLog": "-", "httpAccessLogFormat": form})
    gw.get("web", "/x", "X-Request-Id: a b")
    expected = 'LINE GET /x 200 "a b" hit /svc/web 100%'
    assert wait_until(lambda: expected in gw.process.output().splitlines(), SECONDS)


def test_http_2_has_the_same_forms(running: Running) -> None:
    log = running.directory / "access.log"
    router = {"protocol": "h2", "label": "two", "h2AccessLog": str(log), "h2AccessLogFormat": "json(protocol,host,status,requeues,service)"}
    gw = gateway(running, {"web": Nginx(running, HELLO).port}, router=router | {"client": {"protocol": "http/1.1"}})
    answer = curl("--http2-prior-knowledge", "--header", "Host: web", f"http://{LOOPBACK}:{gw.port}/")
    assert answer.text == "hello"
    assert logged(log, 1) == [{"protocol": "HTTP/2", "host": "web", "status": 200, "requeues": 0, "service": "/svc/web"}]


def test_the_address_that_trusted_forwarders_tell_is_logged_in_every_form(running: Running) -> None:
    log = running.directory / "access.log"
    router = {"httpAccessLog": str(log), "httpAccessLogFormat": "json(remote_ip,listener)"}
    gw = gateway(running, {"web": Nginx(running, HELLO).port}, router=router, server={"trustedForwarders": [f"{LOOPBACK}/32"]})
    gw.get("web", "/", "X-Forwarded-For: 198.51.100.7")
    assert logged(log, 1) == [{"remote_ip": "198.51.100.7", "listener": f"{LOOPBACK}:{gw.port}"}]


def test_lines_that_are_lost_are_counted_and_found_by_lint(running: Running) -> None:
    log = Path("/dev/full")
    gw = gateway(running, {"web": Nginx(running, HELLO).port}, router={"httpAccessLog": str(log), "httpAccessLogFormat": "json"})
    gw.get("web")
    assert wait_until(lambda: gw.metrics().get("rt/http/access_log/lost", 0) > 0, SECONDS)
    assert "1 lines of the access log are lost" in gw.admin("/admin/lint").text
