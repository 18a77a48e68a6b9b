"""Two operators and one Lease in place of the cluster's one operator without: one leads, the other stands by."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from builders.live_processes import Operator
from muster_dev.local.cluster import LocalCluster

LEASE = "kube-system/muster-operator"
PATH = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/muster-operator"


def leads(operator: Operator) -> bool:
    return operator.metric("muster_operator_leader") == 1.0


@contextmanager
def two_operators(cluster: LocalCluster) -> Iterator[tuple[Operator, Operator]]:
    """Run two operators, of which the first leads; in the end neither may have failed, and the one without a Lease is back."""
    alone = Operator(cluster)
    alone.kill()
    both = Operator(cluster, "operator-a", f"--lease={LEASE}"), Operator(cluster, "operator-b", f"--lease={LEASE}")
    for each in both:
        each.start()
    cluster.wait(lambda: leads(both[0]), "the first leads")
    try:
        yield both
    finally:
        for each in both:
            each.stop()
    for each in both:
        assert "Traceback" not in each.log(), each.log()
    if cluster.exists(PATH):
        cluster.api.delete(PATH)
    alone.start()


@contextmanager
def paused(operator: Operator) -> Iterator[None]:
    """Stop a process where it is, then let it go on, as it happens to a virtual machine that is moved."""
    os.kill(operator.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(operator.pid, signal.SIGCONT)
