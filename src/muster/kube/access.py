"""Access to an API server: where it is and who we are there (`configuration` finds that out).

Invariant: a token is read again at most once a minute, or at once after a 401; certificates are read once.
"""

import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from muster.kube.errors import KubeError

TOKEN_SECONDS: Final = 60.0


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
