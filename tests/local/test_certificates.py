"""The cluster's certificates: subject, hosts, validity, and private keys that only their owner can read."""

from __future__ import annotations

import base64
import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID
from trustme import CA, LeafCert

from muster_dev.local import certificates


@pytest.fixture
def authority() -> CA:
    return CA()


def parsed(leaf: LeafCert) -> x509.Certificate:
    return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())


def subject(leaf: LeafCert, oid: x509.ObjectIdentifier) -> list[str | bytes]:
    return [attribute.value for attribute in parsed(leaf).subject.get_attributes_for_oid(oid)]


def test_client_certificate_names_its_user_and_group(authority: CA) -> None:
    leaf = certificates.issue_client(authority, "system:serviceaccount:muster:operator", "system:masters")
    assert subject(leaf, NameOID.COMMON_NAME) == ["system:serviceaccount:muster:operator"]
    assert subject(leaf, NameOID.ORGANIZATION_NAME) == ["system:masters"]


def test_client_without_a_group_is_in_the_group_of_local_users(authority: CA) -> None:
    leaf = certificates.issue_client(authority, "dev")
    assert subject(leaf, NameOID.ORGANIZATION_NAME) == [certificates.GROUP]


def test_client_certificate_has_a_non_empty_alternative_name(authority: CA) -> None:
    extension = parsed(certificates.issue_client(authority, "dev")).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert list(extension.value)


@pytest.mark.parametrize("kind", ["server", "client"])
def test_certificate_is_valid_for_a_year(authority: CA, kind: str) -> None:
    leaf = (
        certificates.issue_server(authority, ["localhost"]) if kind == "server" else certificates.issue_client(authority, "dev")
    )
    now = datetime.datetime.now(datetime.UTC)
    assert parsed(leaf).not_valid_before_utc < now
    assert datetime.timedelta(days=364) < parsed(leaf).not_valid_after_utc - now <= datetime.timedelta(days=365)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> dict[str, object] | None:
    """Shake hands over a socket pair; return the server's certificate as the client verified it."""
    left, right = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(left, server_side=True) as tls:
                tls.recv(1)
        except OSError:
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(right, server_hostname=host) as tls:
            tls.sendall(b".")
            return dict(tls.getpeercert() or {})
    finally:
        right.close()
        thread.join()


def contexts(folder: Path, issuer: CA, trusted: CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    leaf = certificates.issue_server(issuer, ["localhost", "127.0.0.1"])
    server.load_cert_chain(*certificates.write(leaf, folder, "serving"))
    client.load_verify_locations(cadata=trusted.cert_pem.bytes().decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    return server, client


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_server_is_trusted_under_its_hosts(tmp_path: Path, authority: CA, host: str) -> None:
    assert handshake(*contexts(tmp_path, authority, authority), host)


@pytest.mark.parametrize(("host", "same"), [("elsewhere", True), ("localhost", False)], ids=["other host", "other authority"])
def test_server_is_not_trusted_otherwise(tmp_path: Path, authority: CA, host: str, same: bool) -> None:
    server, client = contexts(tmp_path, authority, authority if same else CA())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, host)


def test_key_and_kubeconfig_can_be_read_by_their_owner_only(tmp_path: Path, authority: CA) -> None:
    leaf = certificates.issue_client(authority, "admin")
    certificate, key = certificates.write(leaf, tmp_path, "admin")
    config = certificates.write_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", authority, leaf)
    assert {path.stat().st_mode & 0o077 for path in (key, config)} == {0}
    assert certificate.read_bytes().startswith(b"-----BEGIN CERTIFICATE")


def test_kubeconfig_holds_the_certificates_themselves(tmp_path: Path, authority: CA) -> None:
    admin = certificates.issue_client(authority, "admin")
    path = certificates.write_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", authority, admin)
    config = yaml.safe_load(path.read_text())
    cluster = config["clusters"][0]["cluster"]
    assert cluster["server"] == "https://127.0.0.1:1"
    assert base64.b64decode(cluster["certificate-authority-data"]) == authority.cert_pem.bytes()
    user = config["users"][0]["user"]
    assert base64.b64decode(user["client-certificate-data"]) == admin.cert_chain_pems[0].bytes()
    assert base64.b64decode(user["client-key-data"]) == admin.private_key_pem.bytes()


def test_token_keys_are_a_new_pair_each_time() -> None:
    (private, public), (other, _) = certificates.token_keys(), certificates.token_keys()
    assert private.startswith(b"-----BEGIN EC PRIVATE KEY")
    assert public.startswith(b"-----BEGIN PUBLIC KEY")
    assert private != other
