"""One cluster with all of muster's parts for this folder, a namespace for each test, and a check that nothing is left."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from builders.live import Live
from builders.live_processes import Operator, Scheduler
from muster_dev.local import stack
from muster_dev.local.cluster import LocalCluster

NODES = "dgx-a100:2,pcie-8:2"
_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def cluster() -> Iterator[LocalCluster]:
    """A real control plane on which muster runs: operator, extender, scheduler, agents."""
    with LocalCluster(nodes=NODES) as running:
        stack.install(running)
        yield running


@pytest.fixture
def live(cluster: LocalCluster, operator: Operator) -> Iterator[Live]:
    """A namespace of the test's own. After the test all is deleted, and no pod, Service or reservation may remain."""
    found = Live(cluster, f"live-{next(_numbers)}")
    cluster.create_namespace(found.namespace)
    yield found
    if not operator.running:
        operator.start()
    found.clear()
    log = operator.log()
    assert "Traceback" not in log, log[log.index("Traceback") - 2000 :]
    cluster.api.delete(f"/api/v1/namespaces/{found.namespace}")


@pytest.fixture
def operator(cluster: LocalCluster) -> Operator:
    """The operator's process."""
    return Operator(cluster)


@pytest.fixture
def scheduler(cluster: LocalCluster) -> Iterator[Scheduler]:
    """The kube-scheduler's process; it runs again after the test."""
    found = Scheduler(cluster)
    yield found
    found.start()
