"""The files in a cluster's directory: their paths and content, and their removal after the cluster has ended."""

from __future__ import annotations

import json
import shutil
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from trustme import CA

from muster.kube.access import Access
from muster_dev.local import certificates, supervisor
from muster_dev.local.errors import LocalError

_OF_A_CLUSTER = ("certificates", "etcd", "config", "kubeconfig", "cluster.json")
_OF_ITS_PROCESSES = ("logs", "processes.json")


@dataclass(frozen=True)
class Files:
    """The files in a cluster's directory."""

    directory: Path

    @property
    def certificates(self) -> Path:
        """The folder of certificates and keys, by name: ca, serving, admin, token."""
        return self.directory / "certificates"

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of the administrator."""
        return self.directory / "kubeconfig"

    @property
    def record(self) -> Path:
        """The record of the running cluster for other processes (JSON: url, kubectl)."""
        return self.directory / "cluster.json"

    def certificate(self, name: str) -> Path:
        """Return the path of a certificate or, by its suffix, of a key."""
        return self.certificates / name

    def config(self, name: str) -> Path:
        """Return the path of a component's configuration file."""
        path = self.directory / "config" / name
        path.parent.mkdir(exist_ok=True)
        return path

    def write_config(self, name: str, content: dict[str, Any]) -> Path:
        """Write a component's configuration as YAML and return the file's path."""
        path = self.config(f"{name}.yaml")
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    def write_certificates(self, authority: CA, url: str) -> None:
        """Write the certificates and keys of the control plane, and the administrator's kubeconfig."""
        self.certificates.mkdir(mode=0o700, exist_ok=True)
        authority.cert_pem.write_to_path(self.certificate("ca.crt"))
        serving = certificates.issue_server(authority, ["localhost", "127.0.0.1", "10.0.0.1"])
        certificates.write(serving, self.certificates, "serving")
        private, public = certificates.token_keys()
        certificates.write_private(self.certificate("token.key"), private)
        self.certificate("token.pub").write_bytes(public)
        admin = certificates.issue_client(authority, "admin", "system:masters")
        certificates.write(admin, self.certificates, "admin")
        certificates.write_kubeconfig(self.kubeconfig, url, authority, admin)

    def write_record(self, url: str, kubectl: Path) -> None:
        """Write the record of the running cluster for other processes."""
        self.record.write_text(json.dumps({"url": url, "kubectl": str(kubectl)}, indent=1))

    def access(self, url: str) -> Access:
        """Return the administrator's access to the API server at `url`."""
        tls = ssl.create_default_context(cafile=str(self.certificate("ca.crt")))
        tls.load_cert_chain(self.certificate("admin.crt"), self.certificate("admin.key"))
        return Access(url, tls)

    def clear(self) -> None:
        """Remove the files of an earlier cluster; the caller must hold the directory's lock."""
        _remove(self.directory, _OF_A_CLUSTER)


def access(directory: Path) -> Access:
    """Return the administrator's access to the cluster that runs in `directory`; raise LocalError if none does."""
    files = Files(directory)
    try:
        return files.access(json.loads(files.record.read_text())["url"])
    except (OSError, ValueError, KeyError):
        raise LocalError(f"no local cluster is up in {directory}; `muster local up` starts one") from None


def clean(directory: Path) -> None:
    """Remove the files of an ended cluster in `directory`, and nothing else; a running cluster keeps its files."""
    lock = supervisor.lock(directory) if directory.is_dir() else None
    if lock:
        with lock:  # the lock's file stays: another process may be waiting for it
            _remove(directory, (*_OF_A_CLUSTER, *_OF_ITS_PROCESSES))


def _remove(directory: Path, entries: Iterable[str]) -> None:
    for entry in entries:
        path = directory / entry
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
