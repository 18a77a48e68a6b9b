"""The certificates of a local cluster, and the kubeconfig files that carry them.

`trustme` issues them: its authority lives as long as the object, and its key is never written. A certificate is valid for a
year: no local cluster lives longer.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from trustme import CA, LeafCert

GROUP: Final = "muster-local"
"""The group of a user for whom no other is named: trustme would name one after itself."""
_VALID: Final = datetime.timedelta(days=365)
# trustme marks the alternative names as critical, and Go refuses a critical extension that is empty.
_NO_HOST: Final = "client.invalid"


def issue_server(authority: CA, hosts: Sequence[str]) -> LeafCert:
    """Issue the certificate of a server that is reached under `hosts` (DNS names and IP addresses)."""
    return authority.issue_cert(*hosts, organization_name=GROUP, not_after=_expiry())


def issue_client(authority: CA, user: str, group: str = GROUP) -> LeafCert:
    """Issue the certificate of a client that the API server knows as `user`, a member of `group` (CN and O of the subject)."""
    return authority.issue_cert(_NO_HOST, common_name=user, organization_name=group, not_after=_expiry())


def write(leaf: LeafCert, directory: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate to NAME.crt and its key, which only the owner may read, to NAME.key; return both paths."""
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    certificate.write_bytes(leaf.cert_chain_pems[0].bytes())
    write_private(key, leaf.private_key_pem.bytes())
    return certificate, key


def token_keys() -> tuple[bytes, bytes]:
    """Make the key pair that signs service-account tokens; return (private, public) as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_bytes(content)


def write_kubeconfig(path: Path, url: str, authority: CA, client: LeafCert) -> Path:
    """Write a client's kubeconfig with the certificates inside it, so that the file can be moved; return its path."""
    cluster = {"server": url, "certificate-authority-data": _base64(authority.cert_pem.bytes())}
    user = {
        "client-certificate-data": _base64(client.cert_chain_pems[0].bytes()),
        "client-key-data": _base64(client.private_key_pem.bytes()),
    }
    write_private(path, yaml.safe_dump(_kubeconfig(cluster, user), sort_keys=False).encode())
    return path


def _kubeconfig(cluster: dict[str, str], user: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "muster-local", "cluster": cluster}],
        "users": [{"name": "muster-local", "user": user}],
        "contexts": [{"name": "muster-local", "context": {"cluster": "muster-local", "user": "muster-local"}}],
        "current-context": "muster-local",
    }


def _expiry() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + _VALID


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
