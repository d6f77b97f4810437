from __future__ import annotations

import pytest

from fakes.heads import section
from meshgw.core.exchange import Exchange
from meshgw.filters.destination import Authority, Destination
from meshgw.naming.dtab import Dtab
from meshgw.naming.path import Path
from meshgw.wire.context import TraceId
from meshgw.wire.headers import FieldTable

TABLE = FieldTable(taken=(b"via",))


def sent(residual: str = "/", *, version: bytes = b"1.1", fields: tuple[bytes, ...] = ()) -> Exchange:
    ex = Exchange()
    ex.version, ex.headers = version, section([b"Host: web", *fields], TABLE)
    ex.trace, ex.dtab, ex.deadline = TraceId(1, 2, 3), Dtab.read("/a=>/b"), (5, 9)
    Destination(Path.read("/svc/web"), Path.read("/#/fs/web"), Path.read(residual), lambda: 7).on_request(ex)
    return ex


def test_the_next_hop_is_told_route_and_context() -> None:
    assert sent("/rest").headers.lines == [
        b"Host: web",
        b"Via: 1.1 linkerd",
        b"l5d-dst-service: /svc/web",
        b"l5d-dst-client: /#/fs/web",
        b"l5d-dst-residual: /rest",
        b"l5d-ctx-trace: " + TraceId(7, 1, 3).encode(),
        b"l5d-reqid: 0000000000000003",
        b"l5d-ctx-dtab: /a=>/b",
        b"l5d-ctx-deadline: 5 9",
    ]


def test_an_empty_residual_is_not_told() -> None:
    assert not [line for line in sent().headers.lines if b"residual" in line]


@pytest.mark.parametrize(
    ("version", "fields", "via"),
    [
        (b"1.1", (b"Via: 1.0 a", b"Via: 1.1 b"), b"Via: 1.0 a, 1.1 b, 1.1 linkerd"),
        (b"1.0", (), b"Via: 1.0 linkerd"),
        (b"1.0", (b"Via: 1.1 a",), b"Via: 1.1 a, 1.0 linkerd"),
        (b"2", (), b"Via: h2 linkerd"),
        (b"2", (b"via: 1.1 a",), b"Via: 1.1 a, h2 linkerd"),
    ],
)
def test_via_is_one_line_with_this_hop_last(version: bytes, fields: tuple[bytes, ...], via: bytes) -> None:
    lines = sent(version=version, fields=fields).headers.lines
    assert [line for line in lines if line.lower().startswith(b"via")] == [via]


def answer(*fields: bytes) -> Exchange:
    ex = Exchange()
    ex.response = section(list(fields), TABLE)
    return ex


@pytest.mark.parametrize(("line", "name"), [(b"HTTP/1.1 200 OK", b"1.1 linkerd"), (b"", b"h2 linkerd")], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize(("fields", "before"), [((), b""), ((b"Via: 1.1 a",), b"1.1 a, ")])
def test_the_answer_gets_a_via_of_what_the_service_speaks(line: bytes, name: bytes, fields: tuple[bytes, ...], before: bytes) -> None:
    ex = answer(*fields)
    ex.version, ex.status_line, via = b"2", line, b"Via: " + before + name
    Destination(Path.read("/svc/web"), Path.read("/#/web"), Path.read("/"), lambda: 7).on_response(ex)
    assert ex.response.lines == [via]


def test_an_authority_replaces_the_host_and_is_turned_back_in_redirects() -> None:
    ex = answer(b"Location: http://inner:80/a", b"Refresh: 5; url=http://inner:80/", b"X: inner:80")
    ex.headers = section([b"A: 1", b"Host: outer", b"B: 2"], TABLE)
    authority = Authority(b"inner:80")
    authority.on_request(ex)
    authority.on_response(ex)
    assert ex.headers.lines == [b"A: 1", b"host: inner:80", b"B: 2"]
    assert dict(ex.response.items()) == {b"location": b"http://outer/a", b"refresh": b"5; url=http://outer/", b"x": b"inner:80"}
