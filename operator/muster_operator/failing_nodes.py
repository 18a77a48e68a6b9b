"""Nodes on which programs fail: the node may be what is broken, so it is told, by an Event and by a metric.

A program that fails twice on one node may have a fault of its own, and goes elsewhere (`dljob.status`). Where gangs of several
owners fail on one node within a while, somebody should look at the node. Of the pods of one owner that fail together only the
first counts: the others fail because their gang is broken. It is a hint, kept in memory, bounded, by the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from muster.api import names
from muster.kube.objects import Node, Pod
from muster.scheduling.counting import counted
from muster_operator import metrics
from muster_operator.controller import Context
from muster_operator.dljob.faults import to_blame
from muster_operator.reporting import about_node

WINDOW_SECONDS = 3600.0
"""How long a failure is remembered."""
TOGETHER_SECONDS = 10.0
"""Pods of one owner that fail within this time of each other fail together; a gang is started again later than that."""
MOST_REMEMBERED = 64
"""Failures of each node; of more than these the oldest are forgotten."""


class _Failure(NamedTuple):
    owner: str
    at: float


class FailingNodes:
    """The failures of each node; follows the store of pods."""

    def __init__(self, context: Context) -> None:
        self._reporter, self._pace, self._node_loss = context.reporter, context.work_queue.pace, context.node_loss
        self._failures: dict[str, list[_Failure]] = {}
        view = context.stores.view
        self._jobs = view.jobs
        view.pods.subscribe(self._pod_changed)
        view.nodes.subscribe(self._node_changed)

    def owners(self, node: str) -> set[str]:
        """Return whose gangs failed on a node within the last hour, each as "NAMESPACE/NAME"."""
        since = self._pace() - WINDOW_SECONDS
        return {failure.owner for failure in self._failures.get(node, ()) if failure.at > since}

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Count a pod that is seen to fail; one that had failed when it was first seen tells nothing of when."""
        if old is None or new is None or old.finished or new.status.phase != "Failed" or not is_planned(new):
            return
        node, owner = new.spec.node_name, owner_of(new)
        if node is None or not to_blame(new, self._node_loss.is_alive):
            return
        if not (self._fails_together(owner) or self._lacks_a_peer(new)):
            self._note(node, owner)

    def _lacks_a_peer(self, pod: Pod) -> bool:
        """Whether another node of the pod's DLJob is not ready: the program may have failed for that."""
        job = self._jobs.get(f"{pod.metadata.namespace}/{pod.metadata.label(names.JOB)}")
        return job is not None and not all(self._node_loss.is_ready(each.node) for each in job.reserved.placement)

    def _fails_together(self, owner: str) -> bool:
        since = self._pace() - TOGETHER_SECONDS
        return any(failure.owner == owner and failure.at > since for failure in self._all())

    def _all(self) -> Iterator[_Failure]:
        return (failure for failures in self._failures.values() for failure in reversed(failures))

    def _note(self, node: str, owner: str) -> None:
        now = self._pace()
        before = self._failures.get(node)
        if before is None:
            metrics.FAILING_GANGS.labels(node).set_function(lambda: len(self.owners(node)))
        recent = [failure for failure in before or () if failure.at > now - WINDOW_SECONDS]
        self._failures[node] = [*recent, _Failure(owner, now)][-MOST_REMEMBERED:]
        self._tell(node)

    def _tell(self, node: str) -> None:
        owners, times = self.owners(node), len(self._failures[node])
        if len(owners) > 1:
            spaces = len({owner.partition("/")[0] for owner in owners})
            whose = f"gangs of {counted(len(owners), 'owner')} in {counted(spaces, 'namespace')}"
            message = f"programs of {whose} failed here within an hour, {times} times: check the node's GPUs, or cordon it"
            self._reporter.event(about_node(node), "Warning", "GangsFail", message)
        elif times > 1:
            message = f"programs of one owner failed here {times} times within an hour: other nodes are preferred for it"
            self._reporter.event(about_node(node), "Normal", "GangFails", message)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None and old is not None and self._failures.pop(old.metadata.name, None) is not None:
            metrics.FAILING_GANGS.remove(old.metadata.name)


def is_planned(pod: Pod) -> bool:
    """Return whether muster placed a pod."""
    return pod.spec.scheduler_name == names.SCHEDULER


def owner_of(pod: Pod) -> str:
    """Return whose pod it is, "NAMESPACE/NAME": its DLJob's, its gang's, its controller's, else its own."""
    meta = pod.metadata
    controller = meta.controller.name if meta.controller is not None else None
    return f"{meta.namespace}/{meta.label(names.JOB) or meta.label(names.GANG) or controller or meta.name}"
