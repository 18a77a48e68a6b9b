"""Names the pods that a gang waits for because they are on their way out: one that never ends is somebody's to look at."""

from __future__ import annotations

from muster.allocation.view import ClusterView
from muster.scheduling.counting import counted
from muster.scheduling.decisions import Reason, Wait
from muster.scheduling.gang import gpus_by_node


def with_pods(view: ClusterView, wait: Wait) -> Wait:
    """Return a wait for pods that are stopping with their names; those of other namespaces are named by their node alone."""
    if wait.reason is not Reason.PODS_STOPPING:
        return wait
    found = [
        (task.startswith(f"{wait.gang.namespace}/"), task.rpartition("/")[2], node)
        for node, gpus in sorted(gpus_by_node(wait.keeps).items())
        for task, holding in view.ledger.on_node(node)
        if holding.leaving and holding.gpus & gpus
    ]
    if not found:
        return wait
    is_own, pod, node = max(found, key=lambda each: each[0])
    who = f"pod {pod}" if is_own else "a pod of another namespace"
    more = f", and {counted(len(found) - 1, 'other')}" if found[1:] else ""
    return wait._replace(message=f"{wait.message}: {who} on node {node}{more}")
