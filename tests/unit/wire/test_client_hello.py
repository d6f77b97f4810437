from __future__ import annotations

import ssl
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from meshgw.wire.client_hello import (
    DECODE_ERROR,
    ILLEGAL_PARAMETER,
    LARGEST_HELLO,
    UNEXPECTED_MESSAGE,
    UNRECOGNIZED_NAME,
    ClientHello,
    ClientHelloReader,
    HelloError,
    alert_record,
    parse_client_hello,
)


def real_hello(name: bytes | None = None, alpn: Sequence[bytes] = (), version: int = 0) -> bytes:
    """What OpenSSL sends first."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(version)
    if alpn:
        context.set_alpn_protos(list(alpn))
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if name is not None:
        connection.set_tlsext_host_name(name)
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(65536)


def feed(data: bytes, cuts: Sequence[int] = ()) -> ClientHello | None:
    """The outcome of the bytes cut at these places."""
    reader, at, hello = ClientHelloReader(), 0, None
    for cut in [*sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]:
        assert hello is None, "complete before its end"
        hello = reader.feed(data[at:cut])
        at = cut
    assert bytes(reader.received) == data
    return hello


def message(body: bytes) -> bytes:
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(data: bytes, size: int = 16384) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def vector(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def hello_body(*extensions: tuple[int, bytes]) -> bytes:
    fields = b"\x03\x03" + bytes(32) + vector(1, b"") + vector(2, b"\x13\x01") + vector(1, b"\0")
    return fields + vector(2, b"".join(kind.to_bytes(2, "big") + vector(2, data) for kind, data in extensions))


def server_name(*names: bytes) -> tuple[int, bytes]:
    return 0, vector(2, b"".join(b"\0" + vector(2, name) for name in names))


@pytest.mark.parametrize("version", [0, SSL.TLS1_2_VERSION])
def test_a_real_hello_is_read(version: int) -> None:
    assert feed(real_hello(b"Web.Example", [b"h2", b"http/1.1"], version)) == ClientHello("web.example", (b"h2", b"http/1.1"))
    assert feed(real_hello(version=version)) == ClientHello()


def test_a_hello_of_the_standard_library_is_read() -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    client = context.wrap_bio(incoming, outgoing, server_hostname="api.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    assert feed(outgoing.read()) == ClientHello("api.example", (b"http/1.1",))


REAL = real_hello(b"web.example", [b"http/1.1"])


@given(st.lists(st.integers(1, len(REAL)), max_size=20))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts: list[int]) -> None:
    assert feed(REAL, cuts) == ClientHello("web.example", (b"http/1.1",))


@given(st.integers(1, 300))
def test_it_does_not_matter_how_the_message_is_cut_into_records(size: int) -> None:
    assert feed(records(REAL[5:], size)) == ClientHello("web.example", (b"http/1.1",))


@given(st.integers(0, len(REAL) - 1))
def test_a_part_of_a_hello_is_waited_on(end: int) -> None:
    assert ClientHelloReader().feed(REAL[:end]) is None


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for attempt in (data, b"\x16\x03\x01" + data, records(message(data)) if data else b"", records(message(hello_body()[:-2] + data))):
        try:
            ClientHelloReader().feed(attempt)
        except HelloError as error:
            assert str(error)


@given(st.integers(5, len(REAL) - 1), st.integers(0, 255))
def test_a_changed_byte_raises_nothing_else(at: int, value: int) -> None:
    try:
        ClientHelloReader().feed(REAL[:at] + bytes((value,)) + REAL[at + 1 :])
    except HelloError as error:
        assert error.alert in (DECODE_ERROR, ILLEGAL_PARAMETER, UNEXPECTED_MESSAGE)


@given(st.from_regex(r"[a-z0-9_-]{1,20}(\.[a-z0-9_-]{1,20}){0,4}", fullmatch=True))
def test_any_host_name_is_given_back(name: str) -> None:
    assert parse_client_hello(hello_body(server_name(name.encode()))) == ClientHello(name)


def test_a_final_dot_is_left_out() -> None:
    assert parse_client_hello(hello_body(server_name(b"web.example."))).server_name == "web.example"


def test_a_hello_without_extensions_is_read() -> None:
    assert parse_client_hello(hello_body()[:-2]) == ClientHello()


def test_names_of_other_kinds_are_passed_over() -> None:
    assert parse_client_hello(hello_body((0, vector(2, b"\x07" + vector(2, b"x"))))) == ClientHello()


@pytest.mark.parametrize(
    ("body", "alert"),
    [
        (hello_body(server_name(b"a", b"b")), ILLEGAL_PARAMETER),
        (hello_body(server_name(b"")), ILLEGAL_PARAMETER),
        (hello_body(server_name(b"a b")), ILLEGAL_PARAMETER),
        (hello_body(server_name(b"a\0b")), ILLEGAL_PARAMETER),
        (hello_body(server_name(b".")), ILLEGAL_PARAMETER),
        (hello_body(server_name("ü".encode())), ILLEGAL_PARAMETER),
        (hello_body(server_name(b"x" * 256)), ILLEGAL_PARAMETER),
        (hello_body(server_name(b"a"), server_name(b"a")), ILLEGAL_PARAMETER),
        (hello_body((16, vector(2, vector(1, b"")))), DECODE_ERROR),
        (hello_body((16, vector(2, b"\x05h2"))), DECODE_ERROR),
        (hello_body((0, b"\0\x01")), DECODE_ERROR),
        (hello_body() + b"x", DECODE_ERROR),
        (hello_body()[:20], DECODE_ERROR),
        (b"", DECODE_ERROR),
    ],
)
def test_a_broken_hello_names_the_alert(body: bytes, alert: int) -> None:
    with pytest.raises(HelloError) as caught:
        feed(records(message(body)))
    assert caught.value.alert == alert
    assert not caught.value.is_http


@pytest.mark.parametrize(
    ("data", "alert"),
    [
        (b"\x16\x02\x01\x00\x01\x01", DECODE_ERROR),
        (b"\x16\x03\x01\x00\x00", DECODE_ERROR),
        (b"\x16\x03\x01\xff\xff", DECODE_ERROR),
        (records(b"\x02\0\0\0"), UNEXPECTED_MESSAGE),
        (records(b"\x01\0") + b"\x17\x03\x03\0\x01x", UNEXPECTED_MESSAGE),
        (records(b"\x01\xff\xff\xff"), DECODE_ERROR),
        (records(message(b"x" * LARGEST_HELLO)), DECODE_ERROR),
    ],
)
def test_what_is_no_hello_names_the_alert(data: bytes, alert: int) -> None:
    with pytest.raises(HelloError) as caught:
        feed(data)
    assert caught.value.alert == alert


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0", b"OPTIONS *", b"UPDATEREDIRECTREF /"])
def test_plain_http_is_told_apart(data: bytes) -> None:
    with pytest.raises(HelloError) as caught:
        feed(data, range(len(data)))
    assert caught.value.is_http
    assert caught.value.alert is None


@pytest.mark.parametrize("data", [b"\x00", b"get / HTTP/1.1", b"GET/", b"\x80\x2e\x01\x03\x01", b"A" * 20, b"SSH-2.0-x", b" "])
def test_garbage_is_told_apart(data: bytes) -> None:
    with pytest.raises(HelloError) as caught:
        feed(data)
    assert (caught.value.is_http, caught.value.alert) == (False, None)


def test_a_hello_in_pieces_is_bounded_by_all_its_bytes() -> None:
    body = hello_body((99, bytes(30_000)))
    reader = ClientHelloReader()
    with pytest.raises(HelloError):  # each byte in a record of its own makes six of one
        for byte in records(message(body), 1):
            reader.feed(bytes((byte,)))
    assert len(reader.received) == LARGEST_HELLO + 1


def test_the_alert_is_one_record() -> None:
    assert alert_record(UNRECOGNIZED_NAME) == b"\x15\x03\x03\x00\x02\x02\x70"
