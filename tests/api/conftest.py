"""A cluster with muster's definitions, and a plain client of its API server."""

import json
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from muster_dev.local import stack
from muster_dev.local.cluster import LocalCluster

MERGE = "application/merge-patch+json"


class Answer(NamedTuple):
    """A response of the API server."""

    status: int
    body: dict[str, Any]

    @property
    def message(self) -> str:
        """The message of a rejection."""
        return str(self.body.get("message", ""))


class Server:
    """Requests for muster's resources in one namespace, strict about unknown fields like kubectl."""

    def __init__(self, cluster: LocalCluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def send(self, method: str, path: str, body: object, kind: str = "application/json") -> Answer:
        """Send one request; thread-safe."""
        url = urlsplit(f"{self.cluster.url}/apis/muster.dev/v1alpha1/namespaces/{self.namespace}/{path}")
        with closing(HTTPSConnection(url.netloc, context=self.cluster.access.tls)) as connection:
            sent = None if body is None else json.dumps(body)
            connection.request(method, f"{url.path}?{url.query}", sent, {"Content-Type": kind})
            response = connection.getresponse()
            return Answer(response.status, json.loads(response.read()))

    def create(self, body: dict[str, Any], dry: bool = False) -> Answer:
        """Create a DLJob or DLQueue, or only validate it with a dry run."""
        query = "fieldValidation=Strict" + ("&dryRun=All" if dry else "")
        return self.send("POST", f"{body['kind'].lower()}s?{query}", body)

    def patch(self, name: str, patch: dict[str, Any], resource: str = "") -> Answer:
        """Apply a merge patch to a DLJob or one of its subresources."""
        return self.send("PATCH", f"dljobs/{name}{resource}?fieldValidation=Strict", patch, MERGE)


@pytest.fixture(scope="session")
def served(cluster: LocalCluster) -> LocalCluster:
    """The cluster, with muster's definitions established."""
    stack.define_resources(cluster)
    return cluster


@pytest.fixture(scope="module")
def server(served: LocalCluster, request: pytest.FixtureRequest) -> Iterator[Server]:
    """The API server with a namespace for the test module."""
    namespace = str(request.module.__name__).rpartition(".")[2].replace("_", "-")
    served.kubectl("create", "namespace", namespace)
    yield Server(served, namespace)
    served.kubectl("delete", "namespace", namespace, "--wait=false")
