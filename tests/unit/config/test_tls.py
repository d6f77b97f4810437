"""The ``tls`` blocks as the loader reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshgw.config.binding import BROKEN, Binder
from meshgw.config.nodes import read_nodes
from meshgw.config.problems import Severity
from meshgw.config.tls import BOTH_TRUSTS, INCOMPLETE, ClientTls, ServerTls, client_tls_notice, server_tls_notice
from meshgw.kinds import Registry


def read(registry: Registry, kind: type[Any], text: str) -> tuple[Any, list[str], list[str]]:
    """The block, the errors and the notices, each as path and message."""
    text = f"---\n{text}"  # what begins with a brace is read as JSON
    node = read_nodes(text)
    assert node is not None
    binder = Binder(text, "l.yaml", registry)
    block = binder.block(kind, node, "tls")
    told = {severity: [f"{one.path}: {one.message}" for one in binder.problems if one.severity is severity] for severity in Severity}
    return (None if block is BROKEN else block), told[Severity.ERROR], told[Severity.NOTICE]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.crt", "a.key", "ca.crt", "more.crt"):
        (tmp_path / name).touch()
    (tmp_path / "certs").mkdir()
    return tmp_path


SERVER = """
certPath: a.crt
keyPath: a.key
intermediateCertsPath: more.crt
caCertPath: ca.crt
requireClientAuth: true
ciphers: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
protocols: [TLSv1.2]
handshakeTimeoutMs: 3000
sni:
  certificates:
  - {certPath: a.crt, keyPath: a.key}
  directory: certs
  strict: true
"""


@pytest.mark.usefixtures("here")
def test_a_servers_block_is_read_whole(registry: Registry) -> None:
    block, errors, notices = read(registry, ServerTls, SERVER)
    assert (errors, notices) == ([], [])
    assert (block.cert_path, block.key_path, block.ca_cert_path, block.require_client_auth) == ("a.crt", "a.key", "ca.crt", True)
    assert (block.protocols, block.handshake_timeout_ms) == (("TLSv1.2",), 3000)
    assert block.sni.strict
    assert block.sni.certificates[0].key_path == "a.key"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("keyPath: a.key", "missing required field 'certPath'"),
        ("certPath: a.crt", "missing required field 'keyPath'"),
        ("{certPath: a.crt, sni: {directory: certs}}", "missing required field 'keyPath'"),
        ("{certPath: a.crt, keyPath: a.key, sni: {strict: true}}", "sni needs certificates, a directory, or ingress: true"),
        ("{certPath: a.crt, keyPath: a.key, protocols: [TLSv9]}", "unknown protocol 'TLSv9'; known: TLSv1.2, TLSv1.3"),
        ("{certPath: a.crt, keyPath: a.key, protocols: [TLSv1, TLSv1.1]}", "none of TLSv1, TLSv1.1 is offered any more"),
        ("{certPath: a.crt, keyPath: a.key, handshakeTimeoutMs: 0}", "must be at least 1"),
        ("{certPath: a.crt, keyPath: a.key, enabled: true}", "unknown field 'enabled'"),
    ],
)
@pytest.mark.usefixtures("here")
def test_an_incomplete_servers_block_is_an_error(registry: Registry, text: str, error: str) -> None:
    _, errors, _ = read(registry, ServerTls, text)
    assert any(error in told for told in errors), errors


@pytest.mark.usefixtures("here")
def test_certificates_by_name_do_without_a_default(registry: Registry) -> None:
    block, errors, _ = read(registry, ServerTls, "sni: {directory: certs}")
    assert errors == []
    assert block.cert_path is None


@pytest.mark.usefixtures("here")
def test_old_protocols_beside_good_ones_are_a_notice(registry: Registry) -> None:
    block, errors, notices = read(registry, ServerTls, "{certPath: a.crt, keyPath: a.key, protocols: [TLSv1, TLSv1.2]}")
    assert errors == []
    assert block is not None
    assert notices == ["tls.protocols: TLSv1: not offered any more (RFC 8996), the others are"]


@pytest.mark.usefixtures("here")
def test_a_file_that_is_not_there_is_a_notice(registry: Registry) -> None:
    block, errors, notices = read(registry, ServerTls, "{certPath: gone.crt, keyPath: a.key}")
    assert errors == []
    assert block is not None
    assert notices == ["tls.certPath: there is no gone.crt on this machine now"]


@pytest.mark.usefixtures("here")
def test_authorities_without_demand_for_certificates_are_told_to_be_useless(registry: Registry) -> None:
    block, _, _ = read(registry, ServerTls, "{certPath: a.crt, keyPath: a.key, caCertPath: ca.crt}")
    assert server_tls_notice(block) == "caCertPath has no effect without requireClientAuth: true"
    assert server_tls_notice(ServerTls(cert_path="a", key_path="b")) is None


@pytest.mark.usefixtures("here")
def test_a_clients_block_is_read_whole(registry: Registry) -> None:
    text = (
        "{commonName: '{service}.example', trustCertsBundle: ca.crt, clientAuth: {certPath: a.crt, keyPath: a.key}, protocols: [TLSv1.3]}"
    )
    block, errors, notices = read(registry, ClientTls, text)
    assert (errors, notices) == ([], [])
    assert block.name_for({"service": "web"}) == "web.example"
    assert block.trust_files == ("ca.crt",)
    assert block.problem() is None


@pytest.mark.usefixtures("here")
def test_a_list_of_trusted_files_is_deprecated(registry: Registry) -> None:
    block, errors, notices = read(registry, ClientTls, "{commonName: web, trustCerts: [ca.crt, more.crt]}")
    assert errors == []
    assert notices == ["tls.trustCerts: deprecated: trustCertsBundle takes one file with all of them"]
    assert block.trust_files == ("ca.crt", "more.crt")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", INCOMPLETE),
        ("{trustCerts: [ca.crt]}", INCOMPLETE),
        ("{commonName: web, trustCerts: [ca.crt], trustCertsBundle: ca.crt}", BOTH_TRUSTS),
        ("{enabled: false}", None),
        ("{disableValidation: true}", None),
        ("{disableValidation: true, clientAuth: {certPath: a.crt, keyPath: a.key}}", None),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_linkerd_finds_at_the_first_request_is_accepted_with_a_remark(registry: Registry, text: str, problem: str | None) -> None:
    block, errors, _ = read(registry, ClientTls, text)
    assert errors == []
    assert block.problem() == problem
    assert client_tls_notice(block) == (None if problem is None else f"requests will be answered 502: {problem}")


@pytest.mark.usefixtures("here")
def test_missing_validation_is_warned_of(registry: Registry) -> None:
    _, _, notices = read(registry, ClientTls, "disableValidation: true")
    assert len(notices) == 1
    assert notices[0].startswith("tls.disableValidation: ")


def test_a_client_without_a_name_expects_none() -> None:
    assert ClientTls(disable_validation=True).name_for({}) is None
    assert ClientTls(common_name="web").trust_files == ()
