"""In a pod the API server is found without DNS and without the official client, which takes memory in each of muster's pods."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from trustme import CA

from muster.kube import configuration
from muster.kube.access import NoAccess
from muster_operator import listeners

PARTS = ("muster_operator.__main__", "muster_extender.__main__", "muster_agent.__main__", "muster_agent.fake_device_plugin")


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a pod's service account; the process believes that it is in that pod."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(configuration, "ACCOUNT", tmp_path)
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_bytes(CA().cert_pem.bytes())
    return tmp_path


async def test_pod_uses_the_address_and_its_current_token(pod: Path) -> None:
    found = await configuration.load()
    assert found.host == "https://10.96.0.1:443"
    assert found.tls is not None
    assert found.tls.get_ca_certs()
    assert await found.headers() == {"Authorization": "Bearer first"}
    (pod / "token").write_text("second\n")
    assert await found.headers(stale=True) == {"Authorization": "Bearer second"}


@pytest.mark.usefixtures("pod")
def test_ipv6_address_has_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    assert configuration.server_of_pod() == "https://[fd00::1]:443"


@pytest.mark.parametrize("missing", ["token", "ca.crt"])
async def test_pod_without_an_account_says_so(pod: Path, missing: str) -> None:
    (pod / missing).unlink()
    with pytest.raises(NoAccess, match="cannot use the pod's service account"):
        await configuration.load()


async def test_kubeconfig_without_the_official_client_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    path.write_text("apiVersion: v1")
    monkeypatch.setitem(sys.modules, "muster.kube.kubeconfig", None)
    with pytest.raises(NoAccess, match=r"pip install 'muster\[kubeconfig\]'"):
        await configuration.load(str(path))


def test_kopf_uses_the_clients_credentials(pod: Path) -> None:
    found = listeners.login()
    assert found is not None
    assert (found.server, found.token, found.ca_path) == ("https://10.96.0.1:443", "first", pod / "ca.crt")


@pytest.mark.parametrize("part", PARTS)
def test_no_part_imports_the_official_client(part: str) -> None:
    """Its images do not have it; here kopf imports what it finds of it, so it is made not to be there."""
    subprocess.run([sys.executable, "-c", f"import sys; sys.modules['kubernetes'] = None; import {part}"], check=True)
