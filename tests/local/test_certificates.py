"""The cluster's certificates: who they speak for, for which hosts, and that others cannot read the keys."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from muster_dev.local.certificates import Authority, Pair, token_keys, write_kubeconfig


@pytest.fixture
def authority() -> Authority:
    return Authority()


def names_of(pair: Pair, oid: x509.ObjectIdentifier) -> list[str | bytes]:
    return [each.value for each in x509.load_pem_x509_certificate(pair.certificate).subject.get_attributes_for_oid(oid)]


def test_a_client_is_its_user_and_its_groups(authority: Authority) -> None:
    pair = authority.client("system:serviceaccount:muster:operator", ["a", "b"])
    assert names_of(pair, NameOID.COMMON_NAME) == ["system:serviceaccount:muster:operator"]
    assert names_of(pair, NameOID.ORGANIZATION_NAME) == ["a", "b"]


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


def contexts(tmp_path: Path, ours: Authority, trusted: Authority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(*ours.serving("api", ["localhost", "127.0.0.1"]).write(tmp_path, "serving"))
    client.load_verify_locations(cadata=trusted.certificate.decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    return server, client


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_server_is_trusted_under_its_hosts(tmp_path: Path, authority: Authority, host: str) -> None:
    assert handshake(*contexts(tmp_path, authority, authority), host)


@pytest.mark.parametrize(("host", "same"), [("elsewhere", True), ("localhost", False)], ids=["other host", "other authority"])
def test_a_server_is_not_trusted_otherwise(tmp_path: Path, authority: Authority, host: str, same: bool) -> None:
    server, client = contexts(tmp_path, authority, authority if same else Authority())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, client, host)


def test_keys_are_for_their_owner_only(tmp_path: Path, authority: Authority) -> None:
    certificate, key = authority.client("admin").write(tmp_path, "admin")
    config = write_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", authority.certificate, authority.client("admin"))
    assert {path.stat().st_mode & 0o077 for path in (key, config)} == {0}
    assert certificate.read_bytes().startswith(b"-----BEGIN CERTIFICATE")


def test_a_kubeconfig_is_whole_by_itself(tmp_path: Path, authority: Authority) -> None:
    admin = authority.client("admin")
    config = yaml.safe_load(
        write_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", authority.certificate, admin).read_text()
    )
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    user = config["users"][0]["user"]
    assert base64.b64decode(user["client-certificate-data"]) == admin.certificate
    assert base64.b64decode(user["client-key-data"]) == admin.key


def test_token_keys_are_a_new_pair_each_time() -> None:
    (private, public), (other, _) = token_keys(), token_keys()
    assert private.startswith(b"-----BEGIN EC PRIVATE KEY")
    assert public.startswith(b"-----BEGIN PUBLIC KEY")
    assert private != other
