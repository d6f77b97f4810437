"""``meshgw certs``."""

from __future__ import annotations

import io
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from meshgw.cli.certs import read_ca
from meshgw.cli.meshgw import main
from meshgw.core.certificates import PeerIdentity, identity_of, load_pair


def run(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    return main(("certs", *arguments), out=out), out.getvalue()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    assert run("ca", "--dir", str(tmp_path))[0] == 0
    return tmp_path


def test_a_ca_is_made_in_a_new_directory(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "certs"
    status, text = run("ca", "--dir", str(directory), "--name", "my CA")
    assert (status, text) == (0, f"{directory}/ca.crt\n{directory}/ca.key\n")
    ca = read_ca(directory).certificate
    assert ca.subject.rfc4514_string() == "CN=my CA"
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_leaf_has_the_names_it_was_asked_for(made: Path) -> None:
    status, text = run(
        *("leaf", "--dir", str(made), "--name", "web", "--dns", "web.example", "--dns", "*.example.net"),
        *("--ip", "127.0.0.1", "--ip", "::1", "--uri", "spiffe://mesh.example/web", "--days", "7"),
    )
    assert (status, text) == (0, f"{made}/web.crt\n{made}/web.key\n")
    pair = load_pair((made / "web.crt").read_bytes(), (made / "web.key").read_bytes())
    assert pair.names == {"web.example", "*.example.net"}
    assert identity_of(pair.certificate) == PeerIdentity("spiffe://mesh.example/web", "spiffe")
    assert timedelta(days=6, hours=23) < pair.not_after - datetime.now(UTC) <= timedelta(days=7)
    pair.certificate.verify_directly_issued_by(read_ca(made).certificate)
    usage = pair.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.SERVER_AUTH]


def test_its_name_is_its_dns_name_when_no_other_is_given(made: Path) -> None:
    run("leaf", "--dir", str(made), "--name", "web.example", "--key-type", "rsa", "--client")
    pair = load_pair((made / "web.example.crt").read_bytes(), (made / "web.example.key").read_bytes())
    assert pair.names == {"web.example"}
    assert isinstance(pair.key, rsa.RSAPrivateKey)
    usage = pair.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]


def test_keys_are_for_their_owner_only(made: Path) -> None:
    run("leaf", "--dir", str(made), "--name", "web")
    assert [stat.S_IMODE((made / name).stat().st_mode) for name in ("ca.key", "web.key")] == [0o600, 0o600]


def test_nothing_is_replaced_unless_asked_for(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (made / "ca.key").read_bytes()
    assert run("ca", "--dir", str(made)) == (2, "")
    assert f"{made}/ca.crt exists already; --force replaces it" in capsys.readouterr().err
    assert (made / "ca.key").read_bytes() == before
    assert run("ca", "--dir", str(made), "--force")[0] == 0
    assert (made / "ca.key").read_bytes() != before
    assert sorted(path.name for path in made.iterdir()) == ["ca.crt", "ca.key"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--name", "../web"), "cannot be the name of a file"),
        (("--name", "ca"), "cannot be the name of a file"),
        (("--name", "web", "--ip", "here"), "'here' does not appear to be an IPv4 or IPv6 address"),
        (("--name", "web", "--days", "0"), "--days must be positive"),
        (("--name", "web", "--dns", "ü.example"), "meshgw certs: "),
    ],
)
def test_what_cannot_be_made_is_refused(made: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str) -> None:
    assert run("leaf", "--dir", str(made), *arguments) == (2, "")
    assert text in capsys.readouterr().err
    assert not (made / "web.crt").exists()


def test_a_leaf_without_a_ca_tells_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("leaf", "--dir", str(tmp_path), "--name", "web")[0] == 2
    assert f"make a CA first: meshgw certs ca --dir {tmp_path}" in capsys.readouterr().err
    (tmp_path / "ca.crt").write_text("nonsense")
    (tmp_path / "ca.key").write_text("nonsense")
    assert run("leaf", "--dir", str(tmp_path), "--name", "web")[0] == 2
    assert "cannot be read" in capsys.readouterr().err
