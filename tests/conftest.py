"""What every test may ask for: the one real control plane of the test run, and a namespace of its own on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from muster_dev.local.cluster import LocalCluster

CLUSTER_NODES = "dgx-a100:4,pcie-8:4"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    """A real control plane with a few kwok nodes, started when the first test asks for it and shared by all."""
    with LocalCluster(nodes=CLUSTER_NODES) as running:
        yield running


@pytest.fixture
def namespace(cluster: LocalCluster) -> Iterator[str]:
    """A new namespace in which pods can be created; it and all in it goes after the test."""
    name = f"test-{next(_numbers)}"
    cluster.create_namespace(name)
    yield name
    cluster.api.delete(f"/api/v1/namespaces/{name}")
