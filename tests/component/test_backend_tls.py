"""TLS to a backend: what is verified, what is told of a certificate that is refused, and handshakes that never end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL, crypto
from twisted.internet import protocol
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from fakes.dialled import HEAD, Dialled, Outcome, Wire
from meshgw.backends.connecting import Connector
from meshgw.backends.http_agent import IDLE_SECONDS
from meshgw.backends.http_client import ApiClient
from meshgw.backends.http_connection import FAREWELL_SECONDS, HANDSHAKE_SECONDS
from meshgw.config.tls import ClientAuth, ClientTls
from meshgw.core.address import Address, Replicas
from meshgw.core.live import constant
from meshgw.errors import BackendUnreachable
from support.certs import Issued, authority, write_files


class Answers(protocol.Protocol):
    """Writes down what comes, and answers it unless it is told not to."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self._server.got += data
        if self._server.answers:
            self.transport.write(HEAD + b"ok")


@implementer(IOpenSSLServerConnectionCreator)
class Server(protocol.Factory):
    """A TLS server at the other end of a wire. ``got`` is what it was sent, ``shown`` the names of the client's certificates."""

    def __init__(self, wire: Wire, clock: Dialled, issued: Issued, *, answers: bool = True) -> None:
        self.answers, self.got, self.shown = answers, b"", list[str]()
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.use_certificate(issued.certificate)
        self._context.use_privatekey(issued.key)
        self._context.set_verify(SSL.VERIFY_PEER, self._look)
        self._wire, self._clock, self._transport = wire, clock, StringTransport()
        self._protocol = TLSMemoryBIOFactory(self, False, self, clock).buildProtocol(None)
        self._protocol.makeConnection(self._transport)

    def serverConnectionForTLS(self, _protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)

    def _look(self, _connection: SSL.Connection, certificate: crypto.X509, _code: int, _depth: int, _ok: int) -> bool:
        self.shown.append(certificate.to_cryptography().subject.rfc4514_string())
        return True

    def buildProtocol(self, _address: Any) -> Answers:
        return Answers(self)

    def talk(self) -> None:
        """Carry bytes both ways until none come."""
        while True:
            there = self._wire.take()
            if there:
                self._protocol.dataReceived(there)
            self._clock.advance(0)
            back = self._transport.value()
            self._transport.clear()
            if back and not self._wire.ended:
                self._wire.send(back)
            if not there and not back:
                return


class Api:
    """A client of ``https://api.example``."""

    def __init__(self, tls: ClientTls, host: str = "api.example") -> None:
        self.reactor = Dialled()
        self.connector = Connector(self.reactor, lambda _host, _port: constant(Replicas((Address("192.0.2.1", 443),))), host, 443, tls=tls)
        self.client = ApiClient(self.connector.agent, self.reactor, name="Api", base=self.connector.base, explain=self.connector.refusal)

    def get(self, seconds: float = 600.0) -> Outcome:
        return Outcome(self.client.get("/", seconds=seconds))

    def meets(self, issued: Issued, *, answers: bool = True) -> tuple[Outcome, Server]:
        """Ask a server that shows this certificate."""
        outcome = self.get()
        self.wire = self.reactor.accept()
        server = Server(self.wire, self.reactor, issued, answers=answers)
        server.talk()
        return outcome, server


@pytest.fixture
def trust(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority().pem)
    return str(path)


def test_a_certificate_for_the_host_is_accepted(trust: str) -> None:
    api = Api(ClientTls(trust_certs=(trust,)))
    outcome, server = api.meets(authority().leaf("api.example"))
    assert outcome.value.body == b"ok"
    assert server.got.startswith(b"GET / HTTP/1.1\r\n") and b"Host: api.example\r\n" in server.got
    assert api.connector.base == "https://api.example:443" and api.connector.refusal() == ""


def test_a_certificate_for_the_common_name_is_accepted_whatever_the_host(trust: str) -> None:
    outcome, _ = Api(ClientTls(trust_certs=(trust,), common_name="other.example")).meets(authority().leaf("other.example"))
    assert outcome.value.body == b"ok"


@pytest.mark.parametrize(
    ("issued", "reason"),
    [
        (lambda: authority().leaf("other.example"), "the certificate is for other names; expected name: api.example; certificate shown: "),
        (lambda: authority().expired("api.example"), "it has expired; expected name: api.example; certificate shown: "),
        (lambda: authority("stranger").leaf("api.example"), "; expected name: api.example; certificate shown: "),
    ],
)
def test_a_certificate_that_is_refused_is_described(trust: str, issued: Any, reason: str) -> None:
    api = Api(ClientTls(trust_certs=(trust,)))
    outcome, server = api.meets(issued())
    error = outcome.error
    assert isinstance(error, BackendUnreachable)
    assert error.reason.startswith("its TLS certificate is refused: ") and reason in error.reason
    assert server.got == b"", "nothing was sent to it"
    assert api.get().is_open, "it is tried again when asked again"


def test_without_validation_any_certificate_is_accepted() -> None:
    outcome, _ = Api(ClientTls(disable_validation=True)).meets(authority("stranger").leaf("other.example"))
    assert outcome.value.body == b"ok"


def test_a_server_that_speaks_no_tls_is_told_as_such(trust: str) -> None:
    api = Api(ClientTls(trust_certs=(trust,)))
    outcome = api.get()
    api.reactor.accept().send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    api.reactor.advance(0)
    assert str(outcome.error) == "Api: TLS failed: the peer does not speak TLS (wrong version number)"


def test_a_server_that_shakes_no_hands_is_left_after_a_while(trust: str) -> None:
    api = Api(ClientTls(trust_certs=(trust,)))
    outcome = api.get(seconds=600.0)
    wire = api.reactor.accept()
    api.reactor.advance(HANDSHAKE_SECONDS)
    api.reactor.advance(0)
    assert str(outcome.error) == "Api: no TLS handshake within 10 s"
    assert wire.ended
    assert api.reactor.getDelayedCalls() == []


def test_a_connection_with_its_handshake_done_may_be_silent_for_long(trust: str) -> None:
    api = Api(ClientTls(trust_certs=(trust,)))
    outcome, _server = api.meets(authority().leaf("api.example"), answers=False)
    api.reactor.advance(500.0)
    assert outcome.is_open and not api.wire.ended
    outcome.deferred.cancel()
    api.reactor.advance(0)
    assert api.wire.ended and api.reactor.getDelayedCalls() == []


def test_a_server_that_takes_no_leave_is_left_after_a_while(trust: str) -> None:
    api = Api(ClientTls(trust_certs=(trust,)))
    outcome, _server = api.meets(authority().leaf("api.example"))
    assert outcome.value.body == b"ok"
    api.reactor.advance(IDLE_SECONDS)
    assert not api.wire.ended, "TLS waits for the farewell"
    api.reactor.advance(FAREWELL_SECONDS)
    api.reactor.advance(0)
    assert api.wire.ended == "aborted" and api.reactor.getDelayedCalls() == []


def test_files_that_cannot_be_read_are_told_without_connecting(tmp_path: Path) -> None:
    api = Api(ClientTls(trust_certs=(str(tmp_path / "none.pem"),)))
    error = api.get().error
    assert isinstance(error, BackendUnreachable) and "none.pem" in error.reason
    assert api.reactor.attempts == []


def test_files_that_appear_later_are_used(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    api = Api(ClientTls(trust_certs=(str(path),)))
    assert "ca.pem" in str(api.get().error)
    path.write_bytes(authority().pem)
    outcome, _ = api.meets(authority().leaf("api.example"))
    assert outcome.value.body == b"ok"


def test_a_certificate_of_our_own_is_shown(trust: str, tmp_path: Path) -> None:
    certificate, key = write_files(authority().leaf("client", name="our client", client=True), tmp_path, "client")
    tls = ClientTls(trust_certs=(trust,), client_auth=ClientAuth(cert_path=certificate, key_path=key))
    outcome, server = Api(tls).meets(authority().leaf("api.example"))
    assert outcome.value.body == b"ok" and "CN=our client" in server.shown
