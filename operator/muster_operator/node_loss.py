"""Which nodes are lost: gone, out of service, or not ready for longer than a grace period.

A kubelet that is restarted and a network that flaps make a node NotReady for a while, and what runs there runs on. So nothing
is taken from a node before the grace has passed. It counts from when this operator saw the node so, on its monotonic clock: the
clocks of other hosts may be minutes off. An operator that starts anew counts anew, which costs one grace at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from muster.kube.objects import Node
from muster.kube.store import Store

GRACE_SECONDS = 60.0
"""By default; Kubernetes evicts the pods of such a node after five minutes."""
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
"""The taint by which an administrator says of a node that is not ready that nothing runs there any more (KEP-2268)."""


class NodeLoss:
    """How long nodes have not been ready; follows the store of nodes. `pace` is a monotonic clock, in seconds."""

    def __init__(self, nodes: Store[Node], pace: Callable[[], float], grace: float = GRACE_SECONDS) -> None:
        self._nodes, self._pace, self._grace = nodes, pace, grace
        self._since: dict[str, float] = {}
        """When each node was first seen not to be ready."""
        for node in nodes.values():
            self._changed(None, node)
        nodes.subscribe(self._changed)

    def is_alive(self, name: str) -> bool:
        """Return whether what runs on a node may go on there."""
        node = self._nodes.get(name)
        if node is None:
            return False
        return node.ready or not (_is_out_of_service(node) or self._left(name) <= 0)

    def is_ready(self, name: str) -> bool:
        """Return whether a node is there and ready at this moment."""
        node = self._nodes.get(name)
        return node is not None and node.ready

    def check_in(self, names: Iterable[str]) -> float | None:
        """Return in how many seconds the first of these nodes may be lost by time alone; None if none will be."""
        left = (self._left(name) for name in names if name in self._since) if self._since else ()
        return min((seconds for seconds in left if seconds > 0), default=None)

    def _left(self, name: str) -> float:
        since = self._since.get(name)
        return self._grace if since is None else since + self._grace - self._pace()

    def _changed(self, old: Node | None, new: Node | None) -> None:
        if new is not None and not new.ready:
            self._since.setdefault(new.metadata.name, self._pace())
        elif (node := new or old) is not None:
            self._since.pop(node.metadata.name, None)


def _is_out_of_service(node: Node) -> bool:
    return any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints or ())
