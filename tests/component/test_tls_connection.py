from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from OpenSSL import SSL

from fakes.tls import NAME, Bench, TlsPair, tls_client, tls_server
from meshgw.core.certificates import PeerIdentity
from meshgw.core.tls import ClientSettings, HandshakeFailed, ServerSettings, VerificationFailed
from meshgw.core.tls_connection import RECORD, TlsConnection
from meshgw.core.transport import HIGH_WATER, LINGER_SECONDS, Connection
from support.certs import SPIFFE, authority, pair_of

VERSIONS = ("TLSv1.2", "TLSv1.3")


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    found.close()


def pair(bench: Bench, version: str = "", *, buffer: int | None = None) -> TlsPair:
    settings = ClientSettings(trust=authority().pem, protocols=(version,) if version else ())
    return TlsPair(bench, tls_server(), tls_client(settings=settings), buffer=buffer)


def public(kind: type) -> set[str]:
    return {name for one in kind.__mro__ for name in (*vars(one), *getattr(one, "__slots__", ())) if not name.startswith("_")}


def test_it_has_everything_that_a_plain_connection_has() -> None:
    assert public(Connection) - public(TlsConnection) == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_pass_both_ways(bench: Bench, version: str) -> None:
    found = pair(bench, version)
    found.exchange()
    assert (found.at_server.data, found.at_client.data) == (b"ping", b"pong")
    assert found.at_server.outcomes == found.at_client.outcomes == [None]
    assert [end.version for end in found.both] == [version, version]
    assert "lost" not in str(found.at_server.events + found.at_client.events)


def test_nothing_of_the_plain_text_is_on_the_wire(bench: Bench) -> None:
    one, two = bench.sockets_pair()
    connection, _ = bench.client(two, tls_client())
    connection.write(b"a secret")
    bench.pump()
    assert b"a secret" not in one.recv(65536)


def test_what_is_written_before_the_handshake_ended_is_sent_after_it(bench: Bench) -> None:
    found = TlsPair(bench, tls_server(), tls_client(), pump=False)
    found.client.write(b"early ")
    found.client.write(b"bird")
    assert found.client.is_sending
    assert not found.client.is_secured
    bench.pump()
    assert found.at_server.data == b"early bird"
    assert not found.client.is_sending


def test_early_output_is_bounded_by_the_same_mark(bench: Bench) -> None:
    found = TlsPair(bench, tls_server(), tls_client(), pump=False)
    found.client.write(b"x" * HIGH_WATER)
    assert not found.client.is_full
    found.client.write(b"x")
    assert found.client.is_full
    bench.pump(200)
    assert not found.client.is_full
    assert "drained" in found.at_client.events
    assert len(found.at_server.data) == HIGH_WATER + 1


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [1, RECORD - 1, RECORD, RECORD + 1, 5 * RECORD + 7, 1_000_000])
def test_writes_of_any_size_arrive_whole_and_in_order(bench: Bench, version: str, size: int) -> None:
    found = pair(bench, version)
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    found.server.write(data)
    found.server.write(b"end")
    bench.pump(400)
    assert found.at_client.data == data + b"end"


def test_an_empty_write_sends_nothing(bench: Bench) -> None:
    found = pair(bench)
    before = found.client.sent
    found.client.write(b"")
    assert found.client.sent == before


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("step", [1, 3, 4, 5, 6, 100])
def test_records_may_be_cut_anywhere(bench: Bench, version: str, step: int) -> None:
    found = pair(bench, version)
    found.exchange()  # tickets are read
    one, two = bench.sockets_pair()
    del two
    found.server._raw = catcher = Catcher(bench.raw(one))  # type: ignore[assignment]
    for number in range(4):
        found.server.write(b"record %d;" % number)
    data = catcher.data
    for at in range(0, len(data), step):
        found.client.data_received(data[at : at + step])
    assert found.at_client.data == b"pong" + b"".join(b"record %d;" % number for number in range(4))


class Catcher:
    """In place of a plain connection: keeps what is written."""

    def __init__(self, raw: Connection) -> None:
        self.data, self.is_full, self.is_sending, self._raw = b"", False, False, raw

    def write(self, data: bytes) -> None:
        self.data += data

    def __getattr__(self, name: str) -> object:
        return getattr(self._raw, name)


def test_a_hello_may_come_byte_by_byte(bench: Bench) -> None:
    one, two = bench.sockets_pair()
    server, recorder = bench.server(one, tls_server())
    ssl, _ = tls_client().begin("x")
    with pytest.raises(SSL.WantReadError):
        ssl.do_handshake()
    for byte in ssl.bio_read(65536):
        two.send(bytes((byte,)))
        bench.pump(2)
    bench.pump()
    ssl.bio_write(two.recv(65536))
    ssl.do_handshake()
    two.send(ssl.bio_read(65536))
    bench.pump()
    assert recorder.outcomes == [None]
    assert server.server_name == NAME


# --- pressure


def test_a_full_output_is_told_and_drained_again(bench: Bench) -> None:
    found = pair(bench, buffer=32768)
    found.client.pause_reading()
    written = 0
    while not found.server.is_full:
        found.server.write(b"y" * 65536)
        written += 65536
        bench.pump(2)
        assert written < 16_000_000
    assert found.at_client.data == b""
    found.client.resume_reading()
    bench.pump(2000)
    assert len(found.at_client.data) == written
    assert found.at_server.events == ["drained"]
    assert not found.server.is_full


def test_a_paused_end_is_given_nothing_and_all_of_it_afterwards(bench: Bench) -> None:
    found = pair(bench)
    found.server.pause_reading()
    found.client.write(b"held back")
    bench.pump()
    assert found.at_server.data == b""
    found.server.resume_reading()
    bench.pump()
    assert found.at_server.data == b"held back"


def test_the_end_that_came_along_with_data_is_told_after_a_pause(bench: Bench) -> None:
    found = pair(bench)
    found.at_server.on_data = lambda _data: found.server.pause_reading()
    found.client.write(b"last")
    found.client.write_eof()
    bench.pump()
    assert (found.at_server.data, found.at_server.events) == (b"last", [])
    found.server.resume_reading()
    bench.pump()
    assert found.at_server.events == ["eof"]


def test_a_pause_does_not_hold_up_the_handshake(bench: Bench) -> None:
    found = TlsPair(bench, tls_server(), tls_client(), pump=False)
    found.server.pause_reading()
    bench.pump()
    assert found.at_client.outcomes == found.at_server.outcomes == [None]
    found.client.write(b"wait")
    bench.pump()
    assert found.at_server.data == b""
    found.server.resume_reading()
    bench.pump()
    assert found.at_server.data == b"wait"


def fill(found: TlsPair) -> None:
    """Let the server write until no more goes out."""
    found.client.pause_reading()
    while not found.server.is_full:
        found.server.write(b"y" * 65536)
        found.bench.pump(2)


def test_parts_of_records_are_waited_on_however_much_output_waits(bench: Bench) -> None:
    found = pair(bench, buffer=32768)
    fill(found)
    found.client._raw = catcher = Catcher(found.client._raw)  # type: ignore[assignment]
    found.client.write(b"a long upload")
    for byte in catcher.data:
        found.server.data_received(bytes((byte,)))
    assert found.at_server.data == b"a long upload"
    assert found.at_server.events == []


def test_who_provokes_answers_and_does_not_read_them_is_dropped(bench: Bench) -> None:
    found = pair(bench, "TLSv1.2", buffer=32768)
    fill(found)
    ssl = found.server._ssl
    assert ssl is not None
    ssl.shutdown()  # stands for any message of OpenSSL's own that waits to be sent
    found.server._silence()
    assert found.at_server.events == ["lost: TLS: too many control messages"]


# --- ends


@pytest.mark.parametrize("version", VERSIONS)
def test_close_announces_the_end(bench: Bench, version: str) -> None:
    found = pair(bench, version)
    found.server.write(b"answer")
    found.server.close()
    bench.pump()
    assert (found.at_client.data, found.at_client.events) == (b"answer", ["eof"])
    found.client.close_now()
    bench.pump()
    assert found.at_server.events == ["lost: closed"]
    assert found.at_client.events == ["eof", "lost: closed"]


def test_close_sends_what_waits_first(bench: Bench) -> None:
    found = pair(bench, buffer=32768)
    found.client.pause_reading()
    while not found.server.is_full:
        found.server.write(b"z" * 65536)
        bench.pump(2)
    found.server.close()
    found.client.resume_reading()
    bench.pump(3000)
    assert set(found.at_client.data) == {ord("z")}
    assert len(found.at_client.data) % 65536 == 0
    assert found.at_client.events[0] == "eof"


@pytest.mark.parametrize("version", VERSIONS)
def test_half_close_lets_the_other_direction_go_on(bench: Bench, version: str) -> None:
    found = pair(bench, version)
    found.client.write(b"request")
    found.client.write_eof()
    found.client.write(b"ignored")
    bench.pump()
    assert (found.at_server.data, found.at_server.events) == (b"request", ["eof"])
    found.server.write(b"answer")
    found.server.close()
    bench.pump()
    assert found.at_client.data == b"answer"
    assert found.at_client.events[0] == "eof"


def test_half_close_before_the_handshake_ended_waits_for_it(bench: Bench) -> None:
    found = TlsPair(bench, tls_server(), tls_client(), pump=False)
    found.client.write(b"all")
    found.client.write_eof()
    bench.pump()
    assert (found.at_server.data, found.at_server.events) == (b"all", ["eof"])


def test_an_end_without_announcement_is_an_error(bench: Bench) -> None:
    found = pair(bench)
    found.server.write(b"part of an ans")
    found.server._raw.close_now()  # as a crashed peer, or someone in between, would
    bench.pump()
    assert found.at_client.data == b"part of an ans"
    assert found.at_client.events == ["lost: the peer closed without close_notify, so what it sent may not be complete"]


def test_abort_is_seen_as_a_reset(bench: Bench) -> None:
    found = pair(bench)
    found.server.abort()
    bench.pump()
    assert found.at_client.events == ["lost: Connection reset by peer"]
    assert found.at_server.events == ["lost: aborted"]


def test_a_forged_record_breaks_the_connection_with_its_reason(bench: Bench) -> None:
    found = pair(bench)
    found.exchange()
    found.client.data_received(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    bench.pump()
    assert len(found.at_client.events) == 1
    assert found.at_client.events[0].startswith("lost: TLS: ")
    assert found.at_client.data == b"pong"
    assert found.at_server.events[0].startswith("lost: TLS: the peer answered with the alert 'bad record mac'")


def test_an_ended_connection_ignores_every_call(bench: Bench) -> None:
    found = pair(bench)
    found.client.close_now()
    found.client.write(b"late")
    for call in (found.client.write_eof, found.client.pause_reading, found.client.resume_reading, found.client.close, found.client.abort):
        call()
    bench.pump()
    assert found.at_client.events == ["lost: closed"]
    assert not found.client.is_open
    assert found.at_server.data == b""


def test_renegotiation_is_refused(bench: Bench) -> None:
    one, two = bench.sockets_pair()
    _, recorder = bench.server(one, tls_server())
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)  # without the option that keeps our own clients from trying
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    ssl = SSL.Connection(context, None)
    ssl.set_connect_state()
    drive(bench, ssl, two, 4)
    assert recorder.outcomes == [None]
    assert ssl.renegotiate()
    said = drive(bench, ssl, two, 4)
    assert "no renegotiation" in said or "handshake failure" in said
    assert ssl.total_renegotiations() <= 1
    assert recorder.data == b""


def drive(bench: Bench, ssl: SSL.Connection, sock: socket.socket, rounds: int) -> str:
    """Let a foreign client shake hands; what it complains of."""
    said = ""
    for _ in range(rounds):
        try:
            ssl.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            said += str(error)
        try:
            sock.send(ssl.bio_read(65536))
        except SSL.WantReadError:
            pass
        bench.pump()
        try:
            data = sock.recv(65536)
        except BlockingIOError:
            continue
        if not data:
            break
        ssl.bio_write(data)
    return said


# --- handshakes that fail


def test_a_silent_caller_is_given_up(bench: Bench) -> None:
    one, _ = bench.sockets_pair()
    tls = tls_server(seconds=5.0)
    _, recorder = bench.server(one, tls)
    bench.advance(4.9)
    assert recorder.outcomes == []
    bench.advance(0.2)
    assert "did not finish within 5 s" in recorder.error
    assert tls.failures == {"timeout": 1}
    bench.advance(LINGER_SECONDS + 0.1)
    assert recorder.events == [f"lost: {recorder.error}"]


def test_a_silent_endpoint_is_given_up(bench: Bench) -> None:
    _, two = bench.sockets_pair()
    client = tls_client(seconds=3.0)
    _, recorder = bench.client(two, client)
    bench.advance(3.1)
    assert isinstance(recorder.outcomes[0], HandshakeFailed)
    assert recorder.outcomes[0].retry_safe
    assert recorder.error == "TLS handshake with 127.0.0.1:443 failed: it did not finish within 3 s"
    assert client.failed == 1


def test_an_endpoint_that_hangs_up_is_told(bench: Bench) -> None:
    one, two = bench.sockets_pair()
    _, recorder = bench.client(two, tls_client())
    bench.pump()
    one.recv(65536)
    one.shutdown(socket.SHUT_WR)
    bench.pump()
    assert recorder.error == "TLS handshake with 127.0.0.1:443 failed: the peer closed the connection"


def test_an_endpoint_without_tls_is_told_apart(bench: Bench) -> None:
    one, two = bench.sockets_pair()
    _, recorder = bench.client(two, tls_client())
    one.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    bench.pump()
    assert "the peer does not speak TLS" in recorder.error


def test_versions_without_overlap_are_told_to_both(bench: Bench) -> None:
    server = tls_server(settings=ServerSettings(protocols=("TLSv1.3",)))
    client = tls_client(settings=ClientSettings(trust=authority().pem, protocols=("TLSv1.2",)))
    found = TlsPair(bench, server, client)
    assert "unsupported protocol" in found.at_server.error
    assert "the peer answered with the alert 'protocol version'" in found.at_client.error
    assert server.failures == {"handshake": 1}


def refused(bench: Bench, *, leaf: object, name: str = NAME, trust: bytes | None = None) -> VerificationFailed:
    server = tls_server(pair_of(leaf))  # type: ignore[arg-type]
    client = tls_client(name, ClientSettings(trust=authority().pem if trust is None else trust))
    found = TlsPair(bench, server, client)
    error = found.at_client.outcomes[0]
    assert isinstance(error, VerificationFailed)
    assert error.retry_safe
    assert error.expected == name
    assert found.at_server.outcomes[0] is not None
    assert found.at_server.data == b""
    return error


def test_a_certificate_for_another_name_is_refused(bench: Bench) -> None:
    error = refused(bench, leaf=authority().leaf("other.example", "third.example"))
    assert str(error).startswith(
        "TLS certificate of 127.0.0.1:443 refused: the certificate is for other names; expected name: web.mesh.example; "
        "certificate shown: subject CN=leaf, names DNS:other.example, DNS:third.example, issuer CN=tests, valid "
    )


def test_a_common_name_alone_does_not_count(bench: Bench) -> None:
    error = refused(bench, leaf=authority().leaf(name=NAME))
    assert "no subjectAltName" in error.reason


def test_an_expired_certificate_is_refused(bench: Bench) -> None:
    error = refused(bench, leaf=authority().expired(NAME))
    assert error.reason == "it has expired"
    assert "DNS:web.mesh.example" in error.shown


def test_a_certificate_of_a_stranger_is_refused(bench: Bench) -> None:
    error = refused(bench, leaf=authority("strangers").leaf(NAME))
    assert "issuer is not trusted" in error.reason
    assert "issuer CN=strangers" in error.shown


def test_a_clients_certificate_does_not_do_for_a_server(bench: Bench) -> None:
    error = refused(bench, leaf=authority().leaf(NAME, client=True))
    assert "purpose" in error.reason


def test_missing_intermediates_are_suspected(bench: Bench) -> None:
    below = authority().intermediate().leaf(NAME)
    bare = type(below)(below.certificate, below.key)
    assert "intermediate certificates were not sent" in refused(bench, leaf=bare).reason


def test_intermediates_are_sent_and_used(bench: Bench) -> None:
    found = TlsPair(bench, tls_server(pair_of(authority().intermediate().leaf(NAME))), tls_client())
    found.exchange()
    assert found.at_client.data == b"pong"


def test_an_intermediate_may_be_trusted_without_its_root(bench: Bench) -> None:
    below = authority().intermediate()
    client = tls_client(settings=ClientSettings(trust=below.pem))
    found = TlsPair(bench, tls_server(pair_of(below.leaf(NAME))), client)
    assert found.at_client.outcomes == [None]


@pytest.mark.parametrize(
    ("names", "ips", "asked"),
    [
        (("*.mesh.example",), (), "web.mesh.example"),
        (("*.local", "web.mesh.example"), (), "web.mesh.example"),
        (("WEB.mesh.example",), (), "web.mesh.example"),
        ((), ("127.0.0.1",), "127.0.0.1"),
        ((), ("::1",), "::1"),
    ],
)
def test_names_and_addresses_of_the_certificate_match(bench: Bench, names: tuple[str, ...], ips: tuple[str, ...], asked: str) -> None:
    found = TlsPair(bench, tls_server(pair_of(authority().leaf(*names, ips=ips))), tls_client(asked))
    assert found.at_client.outcomes == [None]


@pytest.mark.parametrize(
    ("names", "ips", "asked"),
    [
        (("*.mesh.example",), (), "a.web.mesh.example"),
        (("*.mesh.example",), (), "mesh.example"),
        (("127.0.0.1",), (), "127.0.0.1"),
        ((), ("127.0.0.1",), "127.0.0.2"),
        ((), ("127.0.0.1",), "web.mesh.example"),
    ],
)
def test_other_names_and_addresses_do_not(bench: Bench, names: tuple[str, ...], ips: tuple[str, ...], asked: str) -> None:
    refused(bench, leaf=authority().leaf(*names, ips=ips), name=asked)


def test_without_validation_any_certificate_is_taken(bench: Bench) -> None:
    client = tls_client(None, ClientSettings(validate=False))
    found = TlsPair(bench, tls_server(pair_of(authority("strangers").expired("other.example"))), client)
    found.exchange()
    assert found.at_client.data == b"pong"


def test_an_address_is_not_sent_as_server_name(bench: Bench) -> None:
    found = TlsPair(bench, tls_server(), tls_client("127.0.0.1"))
    assert found.at_server.outcomes == [None]
    assert found.server.server_name is None


# --- certificates of clients


def mutual(bench: Bench, leaf: object | None, version: str = "", *, validate: bool = True) -> TlsPair:
    server = tls_server(settings=ServerSettings(require_client_auth=True, trust=authority().pem))
    settings = ClientSettings(
        validate=validate,
        trust=authority().pem,
        pair=pair_of(leaf) if leaf is not None else None,  # type: ignore[arg-type]
        protocols=(version,) if version else (),
    )
    return TlsPair(bench, server, tls_client(settings=settings))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_is_known_by_its_certificate(bench: Bench, version: str) -> None:
    found = mutual(bench, authority().leaf("caller.example", uris=(SPIFFE,), client=True), version)
    found.exchange()
    assert found.server.peer_identity() == PeerIdentity(SPIFFE, "spiffe")
    assert found.client.peer_identity() == PeerIdentity(NAME, "dns")


def test_a_certificate_is_shown_without_validation_too(bench: Bench) -> None:
    found = mutual(bench, authority().leaf(name="caller", client=True), validate=False)
    assert found.server.peer_identity() == PeerIdentity("caller", "cn")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_without_certificate_is_refused(bench: Bench, version: str) -> None:
    found = mutual(bench, None, version)
    assert "peer did not return a certificate" in found.at_server.error
    assert found.server.peer_identity() is None
    said = found.at_client.events + [str(outcome) for outcome in found.at_client.outcomes]
    assert any("the peer answered with the alert" in text for text in said)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_of_a_strange_authority_is_refused(bench: Bench, version: str) -> None:
    found = mutual(bench, authority("strangers").leaf("caller.example", client=True), version)
    assert "the caller's certificate was refused: its issuer is not trusted" in found.at_server.error
    assert "names DNS:caller.example, issuer CN=strangers" in found.at_server.error
    assert found.at_server.data == b""


def test_a_client_that_needs_no_certificate_has_no_identity(bench: Bench) -> None:
    found = pair(bench)
    assert found.server.peer_identity() is None
    assert found.server.peer_certificate() is None


# --- sessions


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ending", ["close", "close_now", "abort", "lost"])
def test_the_next_connection_resumes_the_session(bench: Bench, version: str, ending: str) -> None:
    server = tls_server()
    client = tls_client(settings=ClientSettings(trust=authority().pem, protocols=(version,)))
    first = TlsPair(bench, server, client)
    first.exchange()
    if ending == "lost":
        first.server.abort()
    else:
        getattr(first.client, ending)()
    bench.pump()
    bench.advance(LINGER_SECONDS + 1)
    del first
    second = TlsPair(bench, server, client)
    second.exchange()
    assert (client.handshakes, client.resumed) == (2, 1)
    assert second.client.peer_identity() == PeerIdentity(NAME, "dns")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_resumed_session_still_tells_who_the_client_is(bench: Bench, version: str) -> None:
    server = tls_server(settings=ServerSettings(require_client_auth=True, trust=authority().pem))
    own = pair_of(authority().leaf("caller.example", client=True))
    client = tls_client(settings=ClientSettings(trust=authority().pem, pair=own, protocols=(version,)))
    for _ in range(2):
        found = TlsPair(bench, server, client)
        found.exchange()
        assert found.server.peer_identity() == PeerIdentity("caller.example", "dns")
    assert client.resumed == 1


def test_new_settings_of_the_server_end_its_sessions(bench: Bench) -> None:
    server = tls_server()
    client = tls_client()
    TlsPair(bench, server, client).exchange()
    server.settings = ServerSettings(alpn=(b"http/1.1",))
    TlsPair(bench, server, client).exchange()
    assert (client.handshakes, client.resumed) == (2, 0)


def test_sessions_are_not_shared_between_names(bench: Bench) -> None:
    server = tls_server(pair_of(authority().leaf(NAME, "api.example")))
    TlsPair(bench, server, tls_client(NAME)).exchange()
    other = tls_client("api.example")
    TlsPair(bench, server, other).exchange()
    assert other.resumed == 0


# --- protocols


def test_the_servers_first_common_protocol_is_chosen(bench: Bench) -> None:
    server = tls_server(settings=ServerSettings(alpn=(b"h2", b"http/1.1")))
    client = tls_client(settings=ClientSettings(trust=authority().pem, alpn=(b"http/1.1", b"h2")))
    found = TlsPair(bench, server, client)
    assert [end.alpn for end in found.both] == [b"h2", b"h2"]


def test_protocols_without_overlap_are_refused_by_alert(bench: Bench) -> None:
    server = tls_server(settings=ServerSettings(alpn=(b"http/1.1",)))
    client = tls_client(settings=ClientSettings(trust=authority().pem, alpn=(b"h2",)))
    found = TlsPair(bench, server, client)
    assert "the peer answered with the alert 'no application protocol'" in found.at_client.error
    assert "none of the protocols h2 is served" in found.at_server.error


def test_a_client_that_offers_no_protocol_is_served(bench: Bench) -> None:
    found = TlsPair(bench, tls_server(settings=ServerSettings(alpn=(b"http/1.1",))), tls_client())
    assert [end.alpn for end in found.both] == [b"", b""]


# --- server names


def several() -> tuple[object, ...]:
    return tuple(pair_of(authority().leaf(*names)) for names in (("default.example",), ("*.mesh.example",), ("api.example",)))


@pytest.mark.parametrize(
    ("asked", "shown"), [("api.example", "api.example"), ("web.mesh.example", "*.mesh.example"), ("default.example",) * 2]
)
def test_the_certificate_is_chosen_by_the_server_name(bench: Bench, asked: str, shown: str) -> None:
    found = TlsPair(bench, tls_server(*several()), tls_client(asked))  # type: ignore[arg-type]
    assert found.client.peer_identity() == PeerIdentity(shown, "dns")
    assert found.server.server_name == asked


@pytest.mark.parametrize("asked", ["unknown.test", "a.b.mesh.example", None])
def test_an_unknown_name_gets_the_default(bench: Bench, asked: str | None) -> None:
    found = TlsPair(bench, tls_server(*several()), tls_client(asked, ClientSettings(validate=False)))  # type: ignore[arg-type]
    assert found.client.peer_identity() == PeerIdentity("default.example", "dns")


@pytest.mark.parametrize(
    ("asked", "reason"), [("unknown.test", "no certificate for the server name unknown.test"), (None, "no server name")]
)
def test_a_strict_listener_answers_an_unknown_name_by_alert(bench: Bench, asked: str | None, reason: str) -> None:
    server = tls_server(*several(), strict=True)  # type: ignore[arg-type]
    found = TlsPair(bench, server, tls_client(asked, ClientSettings(validate=False)))
    assert "the peer answered with the alert 'unrecognized name'" in found.at_client.error
    assert reason in found.at_server.error
    assert server.failures == {"hello": 1}


def test_a_new_certificate_counts_for_the_next_connection_only(bench: Bench) -> None:
    server, client = tls_server(), tls_client()
    first = TlsPair(bench, server, client)
    server.store.set("test", [pair_of(authority().leaf(NAME, name="renewed"))])
    second = TlsPair(bench, server, client)
    first.exchange()
    second.exchange()
    assert first.at_client.data == second.at_client.data == b"pong"
    shown = second.client.peer_certificate()
    assert shown is not None
    assert shown.subject.rfc4514_string() == "CN=renewed"
    assert len(server._contexts) == 1


# --- callers that do not speak TLS


def told(bench: Bench, data: bytes) -> tuple[bytes, str, dict[str, int]]:
    one, two = bench.sockets_pair()
    tls = tls_server()
    _, recorder = bench.server(one, tls)
    two.send(data)
    bench.pump()
    try:
        answer = two.recv(65536)
    except BlockingIOError:
        answer = b"(nothing)"
    return answer, recorder.error if recorder.outcomes else "", dict(tls.failures)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: web\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_plain_http_is_told_that_the_port_speaks_tls(bench: Bench, data: bytes) -> None:
    answer, error, failures = told(bench, data)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"\r\n\r\nthis port speaks TLS\n")
    assert "plain HTTP" in error
    assert failures == {"http": 1}


def test_garbage_is_hung_up_on(bench: Bench) -> None:
    answer, error, failures = told(bench, b"\x00\x01\x02")
    assert (answer, failures) == (b"", {"garbage": 1})
    assert "neither TLS nor HTTP" in error


def test_the_beginning_of_a_method_is_waited_on(bench: Bench) -> None:
    assert told(bench, b"GE") == (b"(nothing)", "", {})


# --- what is spoken


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("served", "reason"),
    [
        ((b"http/1.1",), "the peer answered with the alert 'no application protocol'"),
        ((), "the endpoint does not speak h2: it chose no protocol (ALPN)"),
    ],
    ids=["another protocol", "no protocol at all"],
)
def test_an_endpoint_that_does_not_agree_to_http2_is_not_spoken_to(
    bench: Bench, version: str, served: tuple[bytes, ...], reason: str
) -> None:
    security = ClientSettings(trust=authority().pem, alpn=(b"h2",), protocols=(version,))
    found = TlsPair(bench, tls_server(settings=ServerSettings(alpn=served)), tls_client(settings=security))
    assert found.at_client.error == f"TLS handshake with 127.0.0.1:443 failed: {reason}"
    assert not found.client.is_open
    bench.pump()
    assert found.at_client.data == found.at_server.data == b""


@pytest.mark.parametrize(
    ("offered", "served", "agreed"),
    [
        ((b"h2", b"http/1.1"), (b"h2",), b"h2"),
        ((b"h2", b"http/1.1"), (b"http/1.1",), b"http/1.1"),
        ((b"h2", b"http/1.1"), (), b""),
        ((b"http/1.1",), (), b""),
    ],
)
def test_where_http1_is_offered_an_endpoint_may_choose_or_not(
    bench: Bench, offered: tuple[bytes, ...], served: tuple[bytes, ...], agreed: bytes
) -> None:
    client = tls_client(settings=ClientSettings(trust=authority().pem, alpn=offered))
    found = TlsPair(bench, tls_server(settings=ServerSettings(alpn=served)), client)
    assert found.at_client.outcomes == [None]
    assert found.client.alpn == agreed


def test_an_http2_listener_prefers_the_suites_that_http2_may_use(bench: Bench) -> None:
    old, good = "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"
    for alpn, chosen in (((b"h2",), good), ((b"http/1.1",), old)):
        server = tls_server(settings=ServerSettings(alpn=alpn, ciphers=(old, good), protocols=("TLSv1.2",)))
        client = tls_client(settings=ClientSettings(trust=authority().pem, alpn=alpn, protocols=("TLSv1.2",)))
        client._security.context.set_cipher_list(f"{good}:{old}".encode())
        assert TlsPair(bench, server, client).client.cipher == chosen
