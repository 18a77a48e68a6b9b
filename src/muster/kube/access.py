"""Where the API server is and who we are: the only module that uses the official client, for its configuration loaders.

They read kubeconfigs (client certificates, tokens, exec plugins, OIDC) and the service account of a pod. Its request path is
not used: pydantic models cost milliseconds an object. Importing it costs about 24 MB beside aiohttp, since its models are lazy.

Invariant: a token is read again at most once a minute, or at once after a 401; certificates are read once.
"""

import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kubernetes.aio import config as _official
from kubernetes.aio.client import Configuration

from muster.kube.errors import KubeError

_loaders: Final[Any] = _official  # its functions carry no annotations
TOKEN_SECONDS: Final = 60.0
_TOKEN: Final = "BearerToken"


class NoAccess(KubeError):
    """There is no usable kubeconfig and no service account; the message says what was tried."""


@dataclass(slots=True)
class Access:
    """An API server's URL, the TLS context to it (None: plain HTTP), and a way to renew the Authorization header."""

    host: str
    tls: ssl.SSLContext | None = None
    server_hostname: str | None = None
    proxy: str | None = None
    renew: Callable[[], Awaitable[str | None]] | None = None
    _headers: dict[str, str] = field(default_factory=dict)
    _until: float = 0.0

    async def headers(self, stale: bool = False) -> dict[str, str]:
        """Give the headers that say who we are, renewed when old or refused (`stale`); raise NoAccess."""
        if self.renew is not None and (stale or time.monotonic() >= self._until):
            try:
                token = await self.renew()
            except Exception as error:  # whatever the official loader stumbles over
                raise NoAccess(f"cannot renew the token for {self.host}: {error}") from error
            self._headers = {"Authorization": token} if token else {}
            self._until = time.monotonic() + TOKEN_SECONDS
        return self._headers


async def load(kubeconfig: str | None = None) -> Access:
    """Find the API server: the file given, else $KUBECONFIG, else the pod's service account, else ~/.kube/config.

    Raises NoAccess with what was tried.
    """
    path = kubeconfig or os.environ.get("KUBECONFIG")
    configuration = Configuration()
    try:
        if path is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            _loaders.load_incluster_config(client_configuration=configuration)
            return _access(configuration, loader=None)
        path = path or str(Path.home() / ".kube" / "config")
        _check_exists(path)
        loader = await _loaders.load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
        return _access(configuration, loader)
    except NoAccess:
        raise
    except Exception as error:  # the loaders raise whatever the YAML, the files and the plugins make them stumble over
        where = f"kubeconfig {path}" if path else "the pod's service account"
        raise NoAccess(f"cannot use {where}: {error}. Try `kubectl get --raw /readyz` with the same settings") from error


def _check_exists(path: str) -> None:
    if not any(Path(part).expanduser().is_file() for part in path.split(os.pathsep) if part):
        raise NoAccess(f"no kubeconfig at {path}: name one with --kubeconfig or KUBECONFIG, or run in a pod")


def _access(configuration: Configuration, loader: Any) -> Access:
    return Access(
        host=str(configuration.host).rstrip("/"),
        tls=_tls(configuration),
        server_hostname=configuration.tls_server_name,
        proxy=configuration.proxy,
        renew=_renewer(configuration, loader) if _TOKEN in configuration.api_key else None,
    )


def _tls(configuration: Configuration) -> ssl.SSLContext | None:
    if not str(configuration.host).startswith("https"):
        return None
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _renewer(configuration: Configuration, loader: Any) -> Callable[[], Awaitable[str | None]]:
    """Read the token anew: a pod's by the official hook, a kubeconfig's by its loader, which knows a plugin's expiry."""

    async def renew() -> str | None:
        if loader is not None:
            await loader.load_and_set(configuration)
        return await configuration.get_api_key_with_prefix(_TOKEN)

    return renew
