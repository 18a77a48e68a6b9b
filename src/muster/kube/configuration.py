"""Where the API server is and who we are: in a pod by its service account, elsewhere by a kubeconfig (`kubeconfig`).

In a pod the server is reached by its address, so nothing waits for the cluster's DNS; and the official client, which takes
16 MB, is not imported.
"""

import importlib
import os
import ssl
from pathlib import Path
from typing import Final

from muster.kube.access import Access, NoAccess

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts a pod's token, and the authority that the API server's certificate is from."""


async def load(kubeconfig: str | None = None) -> Access:
    """Find the API server: the file given, else $KUBECONFIG, else the pod's service account, else ~/.kube/config.

    Raises NoAccess with what was tried.
    """
    path = kubeconfig or os.environ.get("KUBECONFIG")
    server = None if path else server_of_pod()
    try:
        return _of_account(server) if server else await _of_kubeconfig(path or str(Path.home() / ".kube" / "config"))
    except NoAccess:
        raise
    except Exception as error:  # the loaders raise whatever the YAML, the files and the plugins make them stumble over
        where = "the pod's service account" if server else f"kubeconfig {path or '~/.kube/config'}"
        raise NoAccess(f"cannot use {where}: {error}. Try `kubectl get --raw /readyz` with the same settings") from error


def server_of_pod() -> str | None:
    """Return the API server's URL by the environment of this pod; None outside a pod, or if $KUBECONFIG is set."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or os.environ.get("KUBECONFIG"):
        return None
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


async def _of_kubeconfig(path: str) -> Access:
    _check_exists(path)
    try:
        loader = importlib.import_module("muster.kube.kubeconfig")
    except ModuleNotFoundError as error:
        raise NoAccess(f"{path} is read by the official client, which is not here: pip install 'muster[kubeconfig]'") from error
    found: Access = await loader.load(path)
    return found


def _check_exists(path: str) -> None:
    if not any(Path(part).expanduser().is_file() for part in path.split(os.pathsep) if part):
        raise NoAccess(f"no kubeconfig at {path}: name one with --kubeconfig or KUBECONFIG, or run in a pod")


def _of_account(server: str) -> Access:
    async def renew() -> str:
        return f"Bearer {token.read_text().strip()}"

    token = ACCOUNT / "token"
    token.read_text()  # a pod without one is told so at once
    return Access(server, ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")), renew=renew)
