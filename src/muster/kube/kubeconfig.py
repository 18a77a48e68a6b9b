"""Access by a kubeconfig: the only module that uses the official client, for its configuration loaders.

They read client certificates, tokens, exec plugins, OIDC. The client's request path is not used: pydantic models cost
milliseconds an object.
"""

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

from kubernetes.aio import config as _official
from kubernetes.aio.client import Configuration

from muster.kube.access import Access

_loaders: Final[Any] = _official  # its functions carry no annotations
_TOKEN: Final = "BearerToken"


async def load(path: str) -> Access:
    """Return the access of one kubeconfig, or of several joined by colons; raise the loaders' errors."""
    configuration = Configuration()
    loader = await _loaders.load_kube_config(config_file=path, client_configuration=configuration, persist_config=False)
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
    """Read the token again through the loader, which knows when a plugin's token expires."""

    async def renew() -> str | None:
        await loader.load_and_set(configuration)
        return await configuration.get_api_key_with_prefix(_TOKEN)

    return renew
