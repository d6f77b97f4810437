from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from meshgw.cli.certs import Issued, make_ca
from meshgw.core.certificates import (
    CertificateStore,
    KeyPair,
    PeerIdentity,
    describe_certificate,
    identity_of,
    load_certificates,
    load_pair,
    showing,
    tls_problem,
)
from support.certs import PKCS1_OR_SEC1, SPIFFE, authority, pair_of

WEB = authority().leaf("web.example", "*.example.net")


@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize(("form", "word"), [(PrivateFormat.PKCS8, b"BEGIN PRIVATE KEY"), (PKCS1_OR_SEC1, None)])
def test_keys_are_read_in_all_their_forms(kind: str, form: PrivateFormat, word: bytes | None) -> None:
    issued = authority().leaf("web.example", key_type=kind)
    pem = issued.key_pem(form)
    assert (word or {"ec": b"BEGIN EC PRIVATE KEY", "rsa": b"BEGIN RSA PRIVATE KEY"}[kind]) in pem
    assert load_pair(issued.certificate_pem, pem).names == {"web.example"}


def test_a_key_behind_its_curve_parameters_is_read() -> None:
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    assert load_pair(WEB.certificate_pem, parameters + WEB.key_pem(PKCS1_OR_SEC1)).certificate == WEB.certificate


def test_intermediates_follow_the_certificate_or_have_a_file() -> None:
    middle = authority().intermediate()
    leaf = middle.leaf("web.example")
    together = load_pair(leaf.certificate_pem, leaf.key_pem())
    bare = Issued(leaf.certificate, leaf.key)
    apart = load_pair(bare.certificate_pem, bare.key_pem(), intermediates=middle.pem)
    assert together.chain == apart.chain == (middle.root.certificate,)


ENCRYPTED = WEB.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    ("certificate", "key", "reason"),
    [
        (b"", WEB.key_pem(), "no PEM certificate"),
        (WEB.key_pem(), WEB.key_pem(), "no PEM certificate"),
        (WEB.certificate_pem[:200] + b"\n-----END CERTIFICATE-----\n", WEB.key_pem(), "cannot be read"),
        (WEB.certificate_pem, b"", "the private key cannot be read"),
        (WEB.certificate_pem, WEB.certificate_pem, "the private key cannot be read"),
        (WEB.certificate_pem, ENCRYPTED, "encrypted"),
        (WEB.certificate_pem, authority().leaf("web.example").key_pem(), "does not belong to the certificate"),
    ],
)
def test_a_pair_that_cannot_be_used_tells_why_but_not_its_key(certificate: bytes, key: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        load_pair(certificate, key)
    middle = key.decode().split("\n")[1] if key else "no key"
    assert middle not in str(caught.value)


def test_a_pair_shows_nothing_of_its_key() -> None:
    assert "key" not in repr(pair_of(WEB)).lower().replace("keypair", "").replace("public_key", "")


def test_several_certificates_are_read_in_order() -> None:
    both = authority("one").pem + b"some text\n" + authority("two").pem
    assert [one.subject.rfc4514_string() for one in load_certificates(both)] == ["CN=one", "CN=two"]


# --- who it is


@pytest.mark.parametrize(
    ("leaf", "identity"),
    [
        (authority().leaf("a.example", name="cn", uris=(SPIFFE,)), PeerIdentity(SPIFFE, "spiffe")),
        (authority().leaf("A.example", "b.example", name="cn"), PeerIdentity("a.example", "dns")),
        (authority().leaf("a.example", name="cn", uris=("https://a.example/",)), PeerIdentity("a.example", "dns")),
        (authority().leaf("a.example", name="cn", uris=(SPIFFE, SPIFFE + "2")), PeerIdentity("a.example", "dns")),
        (authority().leaf(name="cn"), PeerIdentity("cn", "cn")),
        (authority().leaf(name="cn", ips=("127.0.0.1",)), PeerIdentity("cn", "cn")),
        (authority().leaf(name="line\nbreak"), PeerIdentity("line?break", "cn")),
    ],
)
def test_the_identity_is_the_most_telling_name(leaf: Issued, identity: PeerIdentity) -> None:
    assert identity_of(leaf.certificate) == identity


@pytest.mark.parametrize("leaf", [authority().leaf(name=SPIFFE), authority().leaf(name="SPIFFE://mesh/x", ips=("127.0.0.1",))])
def test_a_common_name_does_not_pose_as_a_spiffe_id(leaf: Issued) -> None:
    assert identity_of(leaf.certificate) is None


def test_the_description_tells_names_issuer_and_validity() -> None:
    text = describe_certificate(authority().leaf("a.example", name="cn", ips=("::1",), uris=(SPIFFE,)).certificate)
    assert text.startswith(f"subject CN=cn, names DNS:a.example, IP:::1, URI:{SPIFFE}, issuer CN=tests, valid 20")
    assert text.endswith(" UTC")


def test_a_certificate_of_many_names_is_described_briefly() -> None:
    text = describe_certificate(authority().leaf(*(f"n{number}.example" for number in range(100))).certificate)
    assert "DNS:n19.example and 80 more" in text
    assert "n20." not in text


@given(st.text())
def test_what_is_shown_of_a_certificate_is_printable(text: str) -> None:
    assert showing(text).isprintable() or not showing(text)


def test_an_unknown_problem_has_its_number() -> None:
    assert tls_problem(10) == "it has expired"
    assert tls_problem(4242) == "verification failed (X509 error 4242)"


def test_an_authority_has_the_name_it_was_given() -> None:
    root = make_ca("some CA", datetime.now(UTC)).certificate
    assert root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "some CA"
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


# --- by name


def pair(*names: str) -> KeyPair:
    return KeyPair(WEB.certificate, (), None, ",".join(names), frozenset(names))


def test_exact_names_come_before_wildcards_of_one_label() -> None:
    store = CertificateStore()
    store.set("files", [pair("*.example"), pair("web.example")])
    found = {name: one.origin if (one := store.find(name)) else None for name in ("web.example", "api.example", "a.b.example", "example")}
    assert found == {"web.example": "web.example", "api.example": "*.example", "a.b.example": None, "example": None}


def test_no_label_is_left_out_by_a_wildcard() -> None:
    store = CertificateStore()
    store.set("files", [pair("*.example")])
    assert store.find(".example") is None
    assert store.find("") is None


def test_the_earlier_source_counts_and_a_removed_one_no_longer() -> None:
    store = CertificateStore()
    mine, theirs = pair("web.example"), pair("web.example")
    store.set("files", [mine])
    store.set("secrets", [theirs])
    assert store.find("web.example") is mine
    store.set("files", [])
    assert store.find("web.example") is theirs
    store.remove("secrets")
    assert store.find("web.example") is None


def test_the_default_is_the_first_there_is() -> None:
    store = CertificateStore()
    assert store.default is None
    only = pair("b.example")
    store.set("own", [])
    store.set("files", [only, pair("a.example")])
    assert store.default is only


def test_every_change_counts_as_a_version() -> None:
    store = CertificateStore()
    seen = [store.version]
    for change in (lambda: store.set("a", [pair("x")]), lambda: store.set("a", []), lambda: store.remove("a")):
        change()
        seen.append(store.version)
    store.remove("never there")
    assert seen == [0, 1, 2, 3]
    assert store.version == 3


def test_the_state_tells_of_good_and_bad_ones() -> None:
    store = CertificateStore()
    loaded = load_pair(WEB.certificate_pem, WEB.key_pem(), origin="web.crt")
    store.set("files", [loaded], {"api.crt": "api.crt: no PEM certificate in it"})
    (state,) = store.state()
    assert state.source == "files"
    assert state.certificates == (("web.crt", ("*.example.net", "web.example"), loaded.not_after),)
    assert state.errors == {"api.crt": "api.crt: no PEM certificate in it"}


CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3)


@given(CHANGES, CHANGES)
def test_broken_certificates_are_refused_with_a_reason_and_never_break_a_reader(
    leaf: list[tuple[float, int]], above: list[tuple[float, int]]
) -> None:
    own, other = broken(WEB.certificate_pem, leaf), broken(authority().pem, above)
    for pem in (own, other, WEB.certificate_pem + other):
        try:
            loaded = load_pair(pem, WEB.key_pem())
        except ValueError as error:
            assert "PRIVATE" not in str(error)
        else:
            assert loaded.not_after
    try:
        (certificate,) = load_certificates(own)
    except ValueError:
        return
    assert describe_certificate(certificate)
    identity_of(certificate)


def broken(pem: bytes, changes: list[tuple[float, int]]) -> bytes:
    """The certificate with other bytes at these parts of its length."""
    data = bytearray(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    for at, value in changes:
        data[int(at * len(data))] = value
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(bytes(data)) + b"-----END CERTIFICATE-----\n"


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.lists(st.sampled_from(["x.y", "*.y", "z.y", "q"]), max_size=4), max_size=3))
def test_what_is_found_is_for_the_name(sources: dict[str, list[str]]) -> None:
    store = CertificateStore()
    for source, names in sources.items():
        store.set(source, [pair(name) for name in names])
    everything = {name for names in sources.values() for name in names}
    for asked in ("x.y", "z.y", "w.y", "q", "y"):
        found = store.find(asked)
        wildcard = f"*.{asked.partition('.')[2]}"
        expected = asked if asked in everything else wildcard if wildcard in everything and "." in asked else None
        assert (None if found is None else found.origin) == expected
