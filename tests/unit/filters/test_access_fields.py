"""Lines of the access log in other forms than Linkerd's."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgw.config.access_format import FIELDS, JSON_FIELDS, AccessForm
from meshgw.core.exchange import UNKNOWN_LENGTH, Exchange
from meshgw.core.secured import Secured
from meshgw.errors import NoEndpoint, Unidentified
from meshgw.filters.access_fields import FormattedRecord
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.wire.context import TraceId
from meshgw.wire.headers import Headers

NOW = 1_790_000_000.0  # when the monotonic clock said 1000


class Log:
    zone = "%z"

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes) -> None:
        self.lines.append(line)


def exchange(**changes: Any) -> Exchange:
    """A request that was answered by an endpoint after 12.5 ms."""
    ex = Exchange()
    ex.peer, ex.local = ("192.0.2.1", 4000), ("127.0.0.1", 4140)
    ex.method, ex.target, ex.version = b"GET", b"/a?b=c", b"1.1"
    ex.status, ex.response_length, ex.request_bytes = 200, 5, 3
    ex.arrived, ex.ended = 1000.0, 1000.0125
    ex.headers = Headers([], {b"host": b"web", b"user-agent": b"curl/8", b"x-request-id": b"r 1"})
    ex.response = Headers([b"X-Cache: hit"], {})
    ex.name, ex.trace, ex.retries, ex.attempts = Path.read("/svc/web"), TraceId(1, 2, 0xABC), 1, 2
    ex.bound = SimpleNamespace(client=SimpleNamespace(label="/#/io.l5d.fs/web"))
    ex.node = SimpleNamespace(endpoint=SimpleNamespace(pool=SimpleNamespace(name="127.0.0.1:8080")))
    for name, value in changes.items():
        setattr(ex, name, value)
    return ex


def unread() -> Exchange:
    """What of a request is there that could not be read."""
    ex = Exchange()
    ex.peer, ex.local, ex.ended = ("192.0.2.1", 4000), ("::1", 4140), 1000.0
    return ex


def lines(form: str, *exchanges: Exchange) -> list[str]:
    log: Any = Log()
    record = FormattedRecord(log, lambda: NOW, AccessForm.read(form), router="front")
    for ex in exchanges:
        record.on_end(ex)
    return [line.decode("ascii") for line in log.lines]


def value(field: str, ex: Exchange) -> str:
    return lines(f"%{{{field}}}", ex)[0]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("time_iso", "2026-09-21T14:13:20.000Z"),
        ("time_epoch", "1790000000.000"),
        ("duration_ms", "12.500"),
        ("duration_us", "12500"),
        ("router", "front"),
        ("listener", "127.0.0.1:4140"),
        ("remote_ip", "192.0.2.1"),
        ("remote_port", "4000"),
        ("host", "web"),
        ("method", "GET"),
        ("target", "/a?b=c"),
        ("path", "/a"),
        ("query", "b=c"),
        ("protocol", "HTTP/1.1"),
        ("request", "GET\\x20/a?b=c\\x20HTTP/1.1"),
        ("status", "200"),
        ("request_bytes", "3"),
        ("response_bytes", "5"),
        ("referer", "-"),
        ("user_agent", "curl/8"),
        ("header:x-request-id", "r\\x201"),
        ("response:x-cache", "hit"),
        ("service", "/svc/web"),
        ("client", "/#/io.l5d.fs/web"),
        ("endpoint", "127.0.0.1:8080"),
        ("dtab", "-"),
        ("retries", "1"),
        ("requeues", "2"),
        ("trace_id", "0000000000000abc"),
        ("error", "-"),
        ("error_text", "-"),
        ("tls_identity", "-"),
    ],
)
def test_a_field_tells_what_it_is_for(field: str, expected: str) -> None:
    assert value(field, exchange()) == expected


def test_the_time_has_the_form_of_the_default_line() -> None:
    assert re.fullmatch(r"\d\d/\d\d/2026:\d\d:\d\d:\d\d [+-]\d{4}", value("time", exchange()))


def test_what_only_some_requests_have_is_told() -> None:
    secured = Secured(identity="spiffe://a/b", server_name="web", version="TLSv1.3", cipher="AES")
    error = NoEndpoint(service="/svc/web", bound="/#/x", stale="")
    ex = exchange(secured=secured, error=error, dtab=Dtab.read("/a=>/b"), trace=TraceId(1, 2, 0xABC, high=0xD), status=0)
    names = "tls_identity", "tls_version", "tls_cipher", "tls_server_name", "dtab", "trace_id", "error", "status"
    assert [value(name, ex) for name in names] == [
        *("spiffe://a/b", "TLSv1.3", "AES", "web", "/a=>/b", "000000000000000d0000000000000abc", "NoEndpoint", "499")
    ]
    (told,) = lines('"%{error_text}"', ex)
    assert told.startswith('"Unable to route request! service name: /svc/web')
    assert value("response_bytes", exchange(response_length=UNKNOWN_LENGTH)) == "-"


def test_an_errors_text_has_no_query() -> None:
    error = Unidentified(request='Request("GET /a?token=secret", from /192.0.2.1:5)', reason="no header")
    assert value("error_text", exchange(error=error)) == "no\\x20header"


def test_known_forms_have_their_usual_look() -> None:
    (common,), (combined,) = lines("common", exchange()), lines("combined", exchange())
    assert re.fullmatch(r'192\.0\.2\.1 - - \[[^]]+\] "GET /a\?b=c HTTP/1\.1" 200 5', common)
    assert combined.endswith('" 200 5 "-" "curl/8"')


def test_json_has_numbers_texts_and_nulls() -> None:
    found = json.loads(lines("json", exchange())[0])
    assert tuple(found) == JSON_FIELDS
    assert (found["status"], found["duration_ms"], found["service"], found["error"]) == (200, 12.5, "/svc/web", None)
    assert json.loads(lines("json(response_bytes,router,header:x)", exchange(response_length=-1))[0]) == {
        **{"response_bytes": None, "router": "front", "header:x": None}
    }


@pytest.mark.parametrize("form", ["json", f"json({','.join(FIELDS)})", " ".join(f"%{{{name}}}" for name in FIELDS)])
def test_a_request_that_could_not_be_read_has_a_line_too(form: str) -> None:
    (line,) = lines(form, unread())
    if form.startswith("json"):
        assert json.loads(line)["status"] == 499


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_request_cannot_break_json_or_text(target: bytes, agent: bytes) -> None:
    ex = exchange(target=target, headers=Headers([], {b"user-agent": agent, b"host": agent}))
    found = json.loads(lines("json", ex)[0])
    assert set(found) == set(JSON_FIELDS) and found["status"] == 200
    (line,) = lines('"%{target}" %{host} "%{user_agent}"', ex)
    assert re.fullmatch(r'"[ -!#-~]+" [!-~]+ "[ -!#-~]+"', line)


@given(st.text(min_size=1, max_size=40))
def test_text_in_utf_8_is_the_same_in_json(text: str) -> None:
    ex = exchange(headers=Headers([], {b"user-agent": text.encode("utf-8", "replace")}))
    assert json.loads(lines("json(user_agent)", ex)[0])["user_agent"] == text.encode("utf-8", "replace").decode()


def test_a_percent_sign_of_the_form_or_a_request_stays_one() -> None:
    assert lines("100%% %{target} %{header:x%y}", exchange(target=b"/%20%s")) == ["100% /%20%s -"]


def test_what_is_remembered_does_not_mix_requests_up() -> None:
    many = [exchange(headers=Headers([], {b"host": b"host-%d" % number})) for number in range(3000)]
    assert lines("%{host} %{tls_identity}", *many, *many) == [f"host-{number} -" for number in range(3000)] * 2


def test_only_the_fields_of_the_form_are_looked_for() -> None:
    log: Any = Log()
    wanted = FormattedRecord(log, lambda: NOW, AccessForm.read("%{host} %{header:x-a} %{header:x-a}"), router="x").wanted
    assert wanted == (b"host", b"x-a")
