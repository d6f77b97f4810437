"""Certificates out of files: what is read at start, and what happens when the files change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from fakes.reactor import PumpedReactor
from meshgw.app.tls import ClientTlsFiles, ListenerTls, read_trust
from meshgw.config.tls import CertificateFiles, ClientAuth, ClientTls, ServerTls, SniConfig
from meshgw.core.tls import TlsConfigError
from meshgw.core.tls_files import LARGEST_FILE, read_file
from support.certs import PKCS1_OR_SEC1, authority, write_files


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        if event["log_level"] >= LogLevel.warn:
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


class Served:
    """A started listener's TLS over a directory; ``meanwhile`` happens after its files were read and before they are watched."""

    def __init__(self, config: ServerTls, meanwhile: Callable[[], object] = lambda: None) -> None:
        self.reactor = PumpedReactor()
        self.tls = ListenerTls(config, reactor=self.reactor, clock=self.reactor.seconds, address="127.0.0.1:4443")
        self.tls.load()
        meanwhile()
        self.tls.start()

    def turn(self) -> None:
        self.reactor.turn()

    def serial(self, name: str) -> int | None:
        found = self.tls.store.find(name)
        return found.certificate.serial_number if found is not None else None

    @property
    def errors(self) -> dict[str, str]:
        return {origin: text for state in self.tls.store.state() for origin, text in state.errors.items()}


def own(directory: Path, *names: str, name: str = "own") -> ServerTls:
    certificate, key = write_files(authority().leaf(*names), directory, name)
    return ServerTls(cert_path=certificate, key_path=key)


def in_directory(directory: Path) -> Served:
    return Served(ServerTls(sni=SniConfig(directory=str(directory))))


def test_a_renewed_certificate_is_served_without_restart(tmp_path: Path) -> None:
    served = Served(own(tmp_path, "web.example"))
    renewed = authority().leaf("web.example", "new.example")
    write_files(renewed, tmp_path, "own")
    served.turn()
    assert served.serial("new.example") == served.serial("web.example") == renewed.certificate.serial_number
    served.tls.stop()
    assert served.reactor.readers == []


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_certificate_renewed_while_the_gateway_starts_is_served(tmp_path: Path, is_listed: bool) -> None:
    config = own(tmp_path, "web.example")
    renewed = authority().leaf("web.example", "new.example")
    served = Served(
        config if is_listed else ServerTls(sni=SniConfig(directory=str(tmp_path))), lambda: write_files(renewed, tmp_path, "own")
    )
    served.turn()
    assert served.serial("web.example") == renewed.certificate.serial_number
    served.tls.stop()


def test_a_broken_renewal_leaves_the_old_one_and_is_logged_once(tmp_path: Path, warnings: list[str]) -> None:
    served = Served(own(tmp_path, "web.example"))
    before = served.serial("web.example")
    (tmp_path / "own.key").write_bytes(authority().leaf("web.example").key_pem())
    served.turn()
    (tmp_path / "own.crt").touch()
    served.turn()
    assert served.serial("web.example") == before
    assert len(warnings) == 1
    assert warnings[0].endswith("own.key: the private key does not belong to the certificate; the one before stays")
    assert list(served.errors) == [str(tmp_path / "own.crt")]
    write_files(authority().leaf("web.example"), tmp_path, "own")
    served.turn()
    assert served.serial("web.example") != before
    assert served.errors == {}
    served.tls.stop()


def test_a_mounted_secret_is_followed_through_its_links(tmp_path: Path) -> None:
    (tmp_path / "..1").mkdir()
    (tmp_path / "..2").mkdir()
    for version, name in (("..1", "tls"), ("..2", "tls")):
        write_files(authority().leaf("web.example"), tmp_path / version, name)
    (tmp_path / "..data").symlink_to("..1")
    for file in ("tls.crt", "tls.key"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    served = Served(ServerTls(cert_path=str(tmp_path / "tls.crt"), key_path=str(tmp_path / "tls.key")))
    before = served.serial("web.example")
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    served.turn()
    assert served.serial("web.example") not in (None, before)
    served.tls.stop()


def test_a_directory_gives_both_layouts(tmp_path: Path) -> None:
    write_files(authority().leaf("web.example"), tmp_path, "web", form=PKCS1_OR_SEC1)
    (tmp_path / "api").mkdir()
    write_files(authority().leaf("api.example"), tmp_path / "api", "tls")
    (tmp_path / "api" / "ca.crt").write_bytes(authority().pem)
    (tmp_path / "..hidden").mkdir()
    write_files(authority().leaf("hidden.example"), tmp_path / "..hidden", "tls")
    (tmp_path / "README").write_text("not a certificate")
    served = in_directory(tmp_path)
    assert {name for pair in served.tls.store.pairs for name in pair.names} == {"web.example", "api.example"}
    assert served.errors == {}
    served.tls.stop()


def test_files_that_come_and_go_are_seen(tmp_path: Path) -> None:
    write_files(authority().leaf("web.example"), tmp_path, "web")
    served = in_directory(tmp_path)
    (tmp_path / "api").mkdir()
    served.turn()
    write_files(authority().leaf("api.example"), tmp_path / "api", "tls")
    served.turn()
    assert served.serial("api.example") is not None
    for file in ("web.crt", "web.key"):
        (tmp_path / file).unlink()
    served.turn()
    assert served.serial("web.example") is None
    assert served.serial("api.example") is not None
    served.tls.stop()


def test_one_bad_file_of_a_directory_does_not_harm_the_others(tmp_path: Path, warnings: list[str]) -> None:
    write_files(authority().leaf("web.example"), tmp_path, "web")
    write_files(authority().leaf(name="nameless"), tmp_path, "nameless")
    (tmp_path / "alone.crt").write_bytes(authority().leaf("alone.example").certificate_pem)
    (tmp_path / "bad.crt").write_text("nonsense")
    (tmp_path / "bad.key").write_text("nonsense")
    served = in_directory(tmp_path)
    assert served.serial("web.example") is not None
    reasons = {Path(origin).name: text.rpartition(": ")[2] for origin, text in served.errors.items()}
    assert reasons["bad.crt"] == "no PEM certificate in it"
    assert "alone.key does not exist" in reasons["alone.crt"]
    assert reasons["nameless.crt"].startswith("no DNS name in its subjectAltName")
    assert len(warnings) == 3
    served.tls.stop()


def test_a_certificate_renewed_before_its_key_stays_the_old_one_until_both_are_there(tmp_path: Path) -> None:
    write_files(authority().leaf("web.example"), tmp_path, "web")
    served = in_directory(tmp_path)
    before, renewed = served.serial("web.example"), authority().leaf("web.example")
    (tmp_path / "web.crt").write_bytes(renewed.certificate_pem)
    served.turn()
    assert served.serial("web.example") == before
    (tmp_path / "web.key").write_bytes(renewed.key_pem())
    served.turn()
    assert served.serial("web.example") == renewed.certificate.serial_number
    served.tls.stop()


def test_certificates_of_other_sources_join_those_of_files(tmp_path: Path) -> None:
    served = Served(own(tmp_path, "web.example"))
    from support.certs import pair_of

    served.tls.store.set("secrets", [pair_of(authority().leaf("ingress.example"))])
    assert served.serial("ingress.example") is not None
    write_files(authority().leaf("web.example"), tmp_path, "own")
    served.turn()
    assert served.serial("ingress.example") is not None
    served.tls.stop()


def test_a_listener_does_not_start_with_a_bad_pair(tmp_path: Path) -> None:
    config = own(tmp_path, "web.example")
    (tmp_path / "own.key").unlink()
    with pytest.raises(TlsConfigError, match=r"own.key: No such file or directory"):
        Served(config)


def test_a_listed_certificate_without_names_is_refused_at_start(tmp_path: Path) -> None:
    certificate, key = write_files(authority().leaf(name="nameless"), tmp_path, "nameless")
    with pytest.raises(TlsConfigError, match="no DNS name"):
        Served(ServerTls(sni=SniConfig(certificates=(CertificateFiles(cert_path=certificate, key_path=key),))))


def test_an_empty_directory_is_no_certificate(tmp_path: Path) -> None:
    with pytest.raises(TlsConfigError, match="there is no certificate"):
        in_directory(tmp_path)
    with pytest.raises(TlsConfigError, match="No such file"):
        in_directory(tmp_path / "none")


def test_new_authorities_of_callers_count_for_new_connections(tmp_path: Path, warnings: list[str]) -> None:
    config = own(tmp_path, "web.example")
    authorities = tmp_path / "ca.crt"
    authorities.write_bytes(authority().pem)
    served = Served(
        ServerTls(cert_path=config.cert_path, key_path=config.key_path, ca_cert_path=str(authorities), require_client_auth=True)
    )
    authorities.write_bytes(authority("other").pem)
    served.turn()
    assert served.tls.server.settings.trust == authority("other").pem
    authorities.write_bytes(b"nonsense")
    served.turn()
    assert served.tls.server.settings.trust == authority("other").pem
    assert len(warnings) == 1
    served.tls.stop()


# --- clients


def test_a_clients_files_are_followed(tmp_path: Path, warnings: list[str]) -> None:
    certificate, key = write_files(authority().leaf("me.example", client=True), tmp_path, "me")
    trust = tmp_path / "ca.crt"
    trust.write_bytes(authority().pem)
    config = ClientTls(common_name="web", trust_certs_bundle=str(trust), client_auth=ClientAuth(cert_path=certificate, key_path=key))
    reactor = PumpedReactor()
    files = ClientTlsFiles(config, reactor=reactor)
    files.start()
    first = files.security().context
    renewed = authority().leaf("me.example", client=True)
    write_files(renewed, tmp_path, "me")
    reactor.turn()
    own_pair = files.security().settings.pair
    assert own_pair is not None
    assert own_pair.certificate == renewed.certificate
    assert files.security().context is not first
    second = files.security().context
    trust.write_bytes(b"nonsense")
    reactor.turn()
    assert files.security().context is second
    assert len(warnings) == 1
    files.stop()
    assert reactor.readers == []


def test_a_client_that_cannot_be_built_says_so_each_time_until_it_can(tmp_path: Path) -> None:
    files = ClientTlsFiles(ClientTls(common_name="web", trust_certs_bundle=str(tmp_path / "ca.crt")), reactor=PumpedReactor())
    for _ in range(2):
        with pytest.raises(TlsConfigError, match="No such file"):
            files.security()
    (tmp_path / "ca.crt").write_bytes(authority().pem)
    assert files.security().settings.validate


def test_a_client_without_a_name_says_so_in_linkerds_words() -> None:
    with pytest.raises(TlsConfigError) as caught:
        ClientTlsFiles(ClientTls(), reactor=PumpedReactor()).security()
    assert str(caught.value) == "tls is configured with validation but 'commonName' is not set"


def test_trusted_files_are_put_together(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(authority(name).pem.rstrip())
    both = read_trust([str(tmp_path / "one"), str(tmp_path / "two")])
    assert both.count(b"BEGIN CERTIFICATE") == 2
    assert b"----------" not in both


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(TlsConfigError, match="larger than"):
        read_file(str(tmp_path / "huge"))
