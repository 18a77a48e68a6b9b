"""The cluster as muster sees it: the stores of nodes, pods and jobs, and from them who holds which GPUs.

Operator and extender keep the same view, so they agree on what is free. Everything is kept up to date by the stores' own
changes; a node is worked out again only when something on it changed, so asking costs a look-up.

What a task holds (see scheduling.ledger): a reservation in a DLJob's status.placement; a pod once it is bound; and a pod that
muster has pinned, from the moment it was ungated. A pod that is over, or still gated, holds nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import msgspec

from muster.api import names, topology
from muster.kube.objects import DLJob, Node, Pod, gpus_of, pinned_to, resources_of, taints_of
from muster.kube.quantity import milli, whole
from muster.kube.store import Store
from muster.scheduling.ledger import Holding, Ledger, Source
from muster.scheduling.resources import NOTHING, Resources
from muster.scheduling.topology import node as core
from muster.scheduling.topology.links import BadLinks, GpuSet, gpu_set
from muster.scheduling.topology.machine import MachineType, machine_type, unknown_machine

log = logging.getLogger(__name__)


class ClusterView:
    """Stores of nodes, pods and DLJobs, and the ledger that follows them."""

    def __init__(self) -> None:
        self.nodes: Store[Node] = Store()
        self.pods: Store[Pod] = Store()
        self.jobs: Store[DLJob] = Store()
        self.ledger = Ledger()
        self._facts: dict[str, core.Node] = {}
        self._current: dict[str, core.Node] = {}
        self._stale: set[str] = set()
        self._listeners: list[Callable[[Collection[str]], None]] = []
        self.nodes.subscribe(self._node_changed)
        self.pods.subscribe(self._pod_changed)
        self.jobs.subscribe(self._job_changed)

    @property
    def synced(self) -> bool:
        return self.nodes.synced.is_set() and self.pods.synced.is_set() and self.jobs.synced.is_set()

    async def wait_synced(self) -> None:
        for store in (self.nodes, self.pods, self.jobs):
            await store.synced.wait()

    def node(self, name: str) -> core.Node | None:
        """Return a node with what is free on it now; None if there is none, or it takes no pods."""
        self.refresh()
        return self._current.get(name)

    def usable(self) -> Mapping[str, core.Node]:
        """Return every node that takes pods, with what is free on it now; a copy."""
        self.refresh()
        return dict(self._current)

    def current(self, name: str) -> core.Node | None:
        """Return a node as of the last refresh."""
        return self._current.get(name)

    def on_refresh(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call `listener` with the names of nodes that were worked out again, before anybody else sees them."""
        self._listeners.append(listener)

    def refresh(self) -> None:
        """Bring every node up to date; all readers do."""
        changed, self._stale = self._stale, set()
        for name in changed:
            facts = self._facts.get(name)
            if facts is None:
                self._current.pop(name, None)
            else:
                self._current[name] = self._with_holdings(facts)
        if changed:
            for listener in self._listeners:
                listener(changed)

    def _node_changed(self, _: Node | None, new: Node | None) -> None:
        name = (new or _).metadata.name  # type: ignore[union-attr]
        self._facts.pop(name, None)
        if new is not None and new.ready and not new.spec.unschedulable:
            self._facts[name] = node_facts(new)
        self._stale.add(name)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        key = (new or old).metadata.key  # type: ignore[union-attr]
        self._stale |= self.ledger.put(key, Source.POD, pod_holding(new) if new else None)

    def _job_changed(self, old: DLJob | None, new: DLJob | None) -> None:
        before = reservations(old) if old else {}
        after = reservations(new) if new else {}
        for task in before.keys() | after.keys():
            if before.get(task) != after.get(task):
                self._stale |= self.ledger.put(task, Source.RESERVATION, after.get(task))

    def _with_holdings(self, facts: core.Node) -> core.Node:
        free = self.ledger.free(facts.name, facts.machine, facts.healthy)
        leaving = self.ledger.leaving(facts.name) & facts.healthy & ~free
        rest = facts.resources - self.ledger.resources(facts.name)
        return replace(facts, free=free, leaving=leaving, resources=rest)


def node_facts(node: Node) -> core.Node:
    """Translate a node on which nobody holds anything."""
    allocatable = node.status.allocatable or {}
    count = whole(allocatable.get(names.GPU, 0))
    machine, healthy = _gpus(node, count)
    labels = node.metadata.labels or {}
    rest = Resources(milli(allocatable.get("cpu", 0)), whole(allocatable.get("memory", 0)), whole(allocatable.get("pods", 110)))
    return core.Node(
        name=node.metadata.name,
        machine=machine,
        healthy=healthy,
        free=healthy,
        resources=rest,
        allocatable=rest,
        rack=labels.get(names.RACK, ""),
        block=labels.get(names.BLOCK, ""),
        labels=labels,
        taints=taints_of(node),
    )


def _gpus(node: Node, count: int) -> tuple[MachineType, GpuSet]:
    """The machine type and the healthy GPUs: what the agent published, but never more than the kubelet offers."""
    text = node.metadata.annotation(names.TOPOLOGY)
    if text:
        try:
            found = topology.decode(text)
            machine = machine_type(found.links)
            healthy = [index for index, gpu in enumerate(found.gpus) if gpu.healthy][:count]
            if machine.gpus == len(found.gpus) >= len(healthy):
                return machine, gpu_set(healthy)
            log.warning(
                "node %s: %s lists %d GPUs but links of %d", node.metadata.name, names.TOPOLOGY, len(found.gpus), machine.gpus
            )
        except (BadLinks, msgspec.MsgspecError) as error:
            log.warning(
                "node %s: annotation %s cannot be read (%s); links are taken as unknown",
                node.metadata.name,
                names.TOPOLOGY,
                error,
            )
    return unknown_machine(count), gpu_set(range(count))


def pod_holding(pod: Pod) -> Holding | None:
    """Return what a pod holds.

    A pod that is pinned but not bound only claims: anybody can write annotations, so the claim is one that kube-scheduler
    can act on, and it lapses when kube-scheduler says that the pod cannot go there.
    """
    if pod.finished or pod.gated:
        return None
    count = gpus_of(pod)
    gpus = annotated_gpus(pod, count)
    claims = gpus and pod.spec.scheduler_name == names.SCHEDULER and not pod.refused
    node = pod.spec.node_name or (pinned_to(pod.spec) if claims else None)
    if node is None:
        return None
    return Holding(node, gpus, count, resources_of(pod), pod.leaving or _is_dljobs(pod))


def _is_dljobs(pod: Pod) -> bool:
    """Whether a pod is a DLJob's: beside its reservation it stays, without one it is on its way out, told or not yet."""
    return pod.metadata.controller is not None and pod.metadata.controller.kind == "DLJob"


def annotated_gpus(pod: Pod, count: int) -> GpuSet:
    """Return the GPUs that muster gave a pod; none where the annotation is missing or does not fit what the pod asks for."""
    text = pod.metadata.annotation(names.GPUS)
    if not text or not count:
        return 0
    parts = text.split(",")
    gpus = gpu_set([int(part) for part in parts if part.isdecimal() and len(part) < 3])
    return gpus if gpus.bit_count() == count == len(parts) else 0


def reservations(job: DLJob) -> dict[str, Holding]:
    """Return what a job's status promises to each of its pods, by task."""
    return {
        f"{job.metadata.namespace}/{place.pod}": Holding(place.node, gpu_set(place.gpus), len(place.gpus), NOTHING)
        for place in job.reservation
    }
