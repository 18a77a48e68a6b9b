"""A client of the API server in a few lines, for what the local cluster itself needs: nodes by the thousand, and waiting.

Blocking, one kept connection per thread, JSON in and out. What the product's parts use is muster.kube.
"""

from __future__ import annotations

import http
import http.client
import json
import ssl
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from muster_dev.local.errors import LocalError

TIMEOUT_SECONDS = 30.0
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds


class ApiError(LocalError):
    """The API server refused a request."""

    def __init__(self, method: str, path: str, status: int, body: bytes) -> None:
        self.status = status
        try:
            said = json.loads(body)["message"]
        except (ValueError, KeyError, TypeError):
            said = body[:300].decode(errors="replace")
        super().__init__(f"{method} {path}: the API server answers {status}: {said}")


class Client:
    """Requests to one API server as one user."""

    def __init__(self, url: str, authority: Path, certificate: Path, key: Path) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port
        self.tls = ssl.create_default_context(cafile=str(authority))
        self.tls.load_cert_chain(certificate, key)
        self._connections: list[http.client.HTTPSConnection] = []
        self._local = threading.local()

    def get(self, path: str) -> Any:
        """Return the object or list at `path`; raise ApiError with status 404 where there is none."""
        return self.request("GET", path)

    def create(self, path: str, body: Any) -> Any:
        """Create an object in the collection at `path` and return it."""
        return self.request("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        """Merge `body` into the object at `path` and return it."""
        return self.request("PATCH", path, body, MERGE_PATCH)

    def delete(self, path: str) -> Any:
        """Delete the object at `path` and return what the server answers."""
        return self.request("DELETE", path)

    def request(self, method: str, path: str, body: Any = None, kind: str = JSON) -> Any:
        """Send one request and return the decoded answer; raise ApiError where it is refused, OSError where it is lost."""
        status, answer = self.exchange(method, path, body, kind)
        for pause in _PAUSES:
            if (
                status != http.HTTPStatus.TOO_MANY_REQUESTS
            ):  # nothing was processed: "storage is (re)initializing", a full queue
                break
            time.sleep(pause)
            status, answer = self.exchange(method, path, body, kind)
        if status >= 300:
            raise ApiError(method, path, status, answer)
        return json.loads(answer) if answer[:1] in (b"{", b"[") else answer.decode()

    def exchange(self, method: str, path: str, body: Any = None, kind: str = JSON) -> tuple[int, bytes]:
        """Send one request and return status and body as they came; a GET is sent again once where the connection was stale."""
        headers = {"Content-Type": kind, "Accept": JSON}
        data = None if body is None else json.dumps(body).encode()
        for last in (method != "GET", True):
            connection = self._connection()
            try:
                connection.request(method, path, data, headers)
                response = connection.getresponse()
                return response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if last:
                    raise error if isinstance(error, OSError) else ConnectionError(str(error)) from error
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._connections:
            connection.close()

    def _connection(self) -> http.client.HTTPSConnection:
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_SECONDS, context=self.tls)
            self._local.connection = connection
            self._connections.append(connection)
        return connection
