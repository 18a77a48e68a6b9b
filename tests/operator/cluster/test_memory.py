"""Memory of operator and extender: jobs that wait cost the same however long they are. A slice of benchmarks/memory.py."""

from __future__ import annotations

import pytest
from benchmarks import memory

from muster_dev.local import stack
from muster_dev.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster

COUNT, SHORT, LONG = 300, 2048, 120_000


def test_long_suspended_jobs_take_hardly_more_memory_than_short_ones(cluster: LocalCluster) -> None:
    used = memory.measure(cluster, COUNT, (SHORT, LONG))["mib"]
    stack.start(cluster)
    waiting = COUNT * (LONG - SHORT) / 2**20
    for way in ("arrived", "listed"):
        short, long = (sum(now for now, _ in used[f"{size}, {way}"].values()) for size in (SHORT, LONG))
        assert long - short < waiting, f"{waiting:.0f} MiB that wait cost {long - short:.0f} MiB"
    cluster.api.delete(f"/api/v1/namespaces/{memory.SPACE}")
