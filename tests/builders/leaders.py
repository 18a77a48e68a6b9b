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


class Lingering(Operator):
    """An operator that goes on although it has lost the lease: its client alone keeps it from writing then.

    A thread ends a former leader, and the kernel may let that thread run last.
    """

    program = ("-c", "from muster_operator import __main__, election; election._end = lambda: None; __main__.main()")

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__(cluster, "operator-lingering", f"--lease={LEASE}")


@contextmanager
def in_place(cluster: LocalCluster, *operators: Operator) -> Iterator[None]:
    """Run these operators, of which the first leads; in the end none may have failed, and the one without a Lease is back."""
    alone = Operator(cluster)
    alone.kill()
    for each in operators:
        each.start()
    cluster.wait(lambda: leads(operators[0]), "the first leads")
    try:
        yield
    finally:
        for each in operators:
            each.stop()
    for each in operators:
        assert "Traceback" not in each.log(), each.log()
    if cluster.exists(PATH):
        cluster.api.delete(PATH)
    alone.start()


@contextmanager
def two_operators(cluster: LocalCluster) -> Iterator[tuple[Operator, Operator]]:
    """Run two operators, of which the first leads."""
    both = Operator(cluster, "operator-a", f"--lease={LEASE}"), Operator(cluster, "operator-b", f"--lease={LEASE}")
    with in_place(cluster, *both):
        yield both


@contextmanager
def paused(operator: Operator) -> Iterator[None]:
    """Stop a process where it is, then let it go on, as it happens to a virtual machine that is moved."""
    os.kill(operator.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(operator.pid, signal.SIGCONT)
