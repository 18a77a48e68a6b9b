"""The cluster's own certificate authority, and the kubeconfig files that carry its certificates.

Elliptic keys, since they are made in a millisecond. All are valid for a year: a local cluster does not live longer.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = datetime.timedelta(days=365)
_CLOCK_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both as PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write NAME.crt and NAME.key (for the owner's eyes only) and return their paths."""
        paths = directory / f"{name}.crt", directory / f"{name}.key"
        paths[0].write_bytes(self.certificate)
        write_private(paths[1], self.key)
        return paths


class Authority:
    """A certificate authority that lives as long as the object; its key is never written."""

    def __init__(self, name: str = "muster-local-ca") -> None:
        """Make a new authority; no certificate of it may bear the same name, or it would look self-signed."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        self._certificate = builder.add_extension(usage, True).sign(self._key, hashes.SHA256())

    @property
    def certificate(self) -> bytes:
        """The authority's own certificate, as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def serving(self, name: str, hosts: Sequence[str]) -> Pair:
        """Make the certificate of a server that is reached under `hosts` (DNS names and IP addresses)."""
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._sign(subject, ExtendedKeyUsageOID.SERVER_AUTH, names)

    def client(self, user: str, groups: Sequence[str] = ()) -> Pair:
        """Make the certificate of a client whom the API server shall know as `user`, a member of `groups`."""
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        return self._sign(
            x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)]), ExtendedKeyUsageOID.CLIENT_AUTH, None
        )

    def _sign(self, subject: x509.Name, usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(subject, key).add_extension(x509.ExtendedKeyUsage([usage]), False)
        if names:
            builder = builder.add_extension(names, False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Pair(certificate.public_bytes(serialization.Encoding.PEM), private_pem(key))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        # Both key identifiers: Python 3.13 and later refuse certificates without.
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCK_SKEW)
            .not_valid_after(now + _VALID)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(issuer, False)
        )


def token_keys() -> tuple[bytes, bytes]:
    """Make the key pair that signs service-account tokens; return (private, public) as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private_pem(key), public


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as the unencrypted PEM (SEC 1) that Go reads."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_bytes(content)


def kubeconfig(url: str, authority: bytes, client: Pair) -> dict[str, Any]:
    """Return a kubeconfig whose certificates are inside it, so that the file can be moved."""
    cluster = {"server": url, "certificate-authority-data": _base64(authority)}
    user = {"client-certificate-data": _base64(client.certificate), "client-key-data": _base64(client.key)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "muster-local", "cluster": cluster}],
        "users": [{"name": "muster-local", "user": user}],
        "contexts": [{"name": "muster-local", "context": {"cluster": "muster-local", "user": "muster-local"}}],
        "current-context": "muster-local",
    }


def write_kubeconfig(path: Path, url: str, authority: bytes, client: Pair) -> Path:
    """Write the kubeconfig of one client and return its path."""
    write_private(path, yaml.safe_dump(kubeconfig(url, authority, client), sort_keys=False).encode())
    return path


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
