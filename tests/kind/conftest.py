"""The kind cluster of the test run, with muster installed in it by helm, and namespaces on it.

A cluster that is up already is used and left up, so that tests can be run again and again; else one is brought up for these
tests, and what it leaves on this machine fails them. Where there can be none they are skipped, which `.ci/run` does not take.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from kind import traces
from kind.jobs import Jobs
from muster_dev.kind import cluster as kind_cluster
from muster_dev.kind import engine, private_engine
from muster_dev.kind.cluster import Cluster
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Quiet, Shown

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def kind() -> Iterator[Cluster]:
    """muster on real kubelets; where there can be none one is told what is missing."""
    if found := Cluster.find(Quiet()):
        yield found
        return
    if engine.running() is None:
        try:
            private_engine.check()
        except LocalError as error:
            pytest.skip(str(error))
    before = traces.seen()
    try:
        yield kind_cluster.up(Shown())
    finally:
        kind_cluster.down(Quiet())
    left = {what: sorted(things - before[what]) for what, things in traces.seen().items() if things - before[what]}
    assert not left, "muster kind down left these behind"


@pytest.fixture
def jobs(kind: Cluster) -> Iterator[Jobs]:
    """Jobs in a namespace of their own; when it goes after the test, all GPUs are free again."""
    namespace = f"test-{os.getpid()}-{next(_numbers)}"
    kind.kubectl("create", "namespace", namespace)
    kind.kubectl("wait", "--namespace", namespace, "--for=create", "serviceaccount/default")  # before it no pod is accepted
    yield Jobs(kind, namespace)
    kind.kubectl("delete", "namespace", namespace, "--timeout=120s")
