"""The kind cluster of the test run, with muster installed by helm, and a namespace per test.

A cluster that is up is used and left up, so that tests can be repeated quickly. Otherwise a cluster is created for the run,
and the tests fail if its removal leaves anything on this machine. Without an engine and root the tests are skipped, which
`.ci/run` rejects.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from kind import traces
from kind.jobs import Jobs, namespace
from muster_dev.kind import cluster as kind_cluster
from muster_dev.kind import engine, private_engine
from muster_dev.kind.cluster import Cluster
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Quiet, Shown

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def kind() -> Iterator[Cluster]:
    """muster on real kubelets; skip with the missing requirement if this machine cannot run a cluster."""
    if existing := Cluster.find(Quiet()):
        yield existing
        return
    if engine.running() is None:
        try:
            private_engine.check()
        except LocalError as error:
            pytest.skip(str(error))
    before = traces.collect()
    try:
        yield kind_cluster.up(Shown())
    finally:
        kind_cluster.down(Quiet())
    left = {what: sorted(things - before[what]) for what, things in traces.collect().items() if things - before[what]}
    assert not left, "muster kind down left these behind"


@pytest.fixture
def jobs(kind: Cluster) -> Iterator[Jobs]:
    """Jobs in a namespace of the test; after its removal all GPUs are free again."""
    with namespace(kind, f"test-{os.getpid()}-{next(_numbers)}") as jobs:
        yield jobs
