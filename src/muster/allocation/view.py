"""The cluster as muster sees it: the stores of nodes, pods and DLJobs, and from them who holds which GPUs.

The operator and the extender keep the same view, so they agree on what is free. The stores' own changes keep it up to date. A
node is worked out again only when something on it has changed, and stays the same object if the result is equal: a query
costs a look-up, and whoever caches by node sees only true changes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import msgspec

from muster.allocation.holding import Holding, Source
from muster.allocation.ledger import Ledger
from muster.allocation.nodes import translate, unusable
from muster.allocation.pods import pod_holding
from muster.allocation.reservations import Reservations, Reserving, ResourcesOf, not_known
from muster.allocation.trust import Trust
from muster.api import names
from muster.kube.objects import Node, Pod
from muster.kube.store import Store
from muster.scheduling.topology import node as core

log = logging.getLogger(__name__)


class ClusterView:
    """Stores of nodes, pods and DLJobs, and the ledger that follows them."""

    def __init__(self, now: Callable[[], float] = time.monotonic, resources: ResourcesOf = not_known) -> None:
        self.nodes: Store[Node] = Store()
        self.pods: Store[Pod] = Store()
        self.jobs: Store[Reserving] = Store()
        self.ledger = Ledger()
        self.reservations = Reservations(resources)
        self.problems: dict[str, str] = {}
        """What is the matter with nodes, by name: what cannot be used of them."""
        self.trust = Trust(now)
        self._facts: dict[str, core.Node] = {}
        self._current: dict[str, core.Node] = {}
        self._unusable: dict[str, core.Unusable] = {}
        self._stale: set[str] = set()
        self._pods_of: dict[str, set[str]] = {}
        """The pods that bear each DLJob's label."""
        self._node_listeners: list[Callable[[Collection[str]], None]] = []
        self._reservation_listeners: list[Callable[[Collection[str]], None]] = []
        self.nodes.subscribe(self._node_changed)
        self.pods.subscribe(self._pod_changed)
        self.jobs.subscribe(self._job_changed)

    @property
    def synced(self) -> bool:
        """Whether every first list is in."""
        return all(store.synced.is_set() for store in (self.nodes, self.pods, self.jobs))

    async def wait_synced(self) -> None:
        """Wait until every first list is in."""
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

    def unusable(self) -> Mapping[str, core.Unusable]:
        """Return every node that takes no pods, and why; a copy."""
        return dict(self._unusable)

    def current(self, name: str) -> core.Node | None:
        """Return a node as of the last refresh."""
        return self._current.get(name)

    def on_refresh(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call `listener` with the names of nodes on which something changed, before any reader sees them."""
        self._node_listeners.append(listener)

    def on_reservations(self, listener: Callable[[Collection[str]], None]) -> None:
        """Call `listener` with the tasks whose reservations may have changed, at once on each change of a job."""
        self._reservation_listeners.append(listener)

    def vouch(self, vouched: bool) -> None:
        """Take in whether the admission policy keeps others from writing muster's own names."""
        if vouched != self.trust.vouched:
            self.trust.vouched = vouched
            self._review(list(self.pods))

    def refresh(self) -> None:
        """Bring every node up to date; all readers do."""
        self._review(self.trust.lapsed())
        changed, self._stale = self._stale, set()
        for name in changed:
            self._update(name)
        if changed:
            for listener in self._node_listeners:
                listener(changed)

    def _update(self, name: str) -> None:
        facts = self._facts.get(name)
        if facts is None:
            self._current.pop(name, None)
            return
        node = self._with_holdings(facts)
        if node != self._current.get(name):
            self._current[name] = node

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        for obj in (old, new):
            if obj is not None:
                self._stale.add(obj.metadata.name)
                self._facts.pop(obj.metadata.name, None)
        if new is not None:
            facts, problem = translate(new)
            self._note_problem(new.metadata.name, problem)
            self._unusable.pop(new.metadata.name, None)
            if why := unusable(new, readable=facts is not None):
                self._unusable[new.metadata.name] = why
            elif facts is not None:
                self._facts[new.metadata.name] = facts
        elif old is not None:
            self._unusable.pop(old.metadata.name, None)
            self._note_problem(old.metadata.name, "")

    def _note_problem(self, name: str, problem: str) -> None:
        if problem and self.problems.get(name) != problem:
            log.warning("node %s: %s", name, problem)
        if problem:
            self.problems[name] = problem
        else:
            self.problems.pop(name, None)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is None:
            return
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self.trust.forget(old)
        if (job := pod.metadata.label(names.JOB)) is not None:
            self._note_pod(f"{pod.metadata.namespace}/{job}", pod.metadata.key, there=new is not None)
        self._stale |= self.ledger.put(pod.metadata.key, Source.POD, self._holding(new) if new is not None else None)

    def _note_pod(self, job: str, pod: str, *, there: bool) -> None:
        pods = self._pods_of.setdefault(job, set())
        (pods.add if there else pods.discard)(pod)
        if not pods:
            del self._pods_of[job]

    def _review(self, pods: Iterable[str]) -> None:
        """Work out anew what pods hold, whose words count more or less than before."""
        for key in pods:
            pod = self.pods.get(key)
            if pod is not None:
                self._stale |= self.ledger.put(key, Source.POD, self._holding(pod))

    def _holding(self, pod: Pod) -> Holding | None:
        return pod_holding(pod, self.trust.standing(pod, reserved=pod.metadata.key in self.reservations))

    def _job_changed(self, old: Reserving | None, new: Reserving | None) -> None:
        job = new or old
        if job is None:
            return
        try:
            tasks = self.reservations.put(job.metadata.key, new)
        except msgspec.MsgspecError as error:
            log.warning("DLJob %s: its status cannot be read, so what it reserved before counts: %s", job.metadata.key, error)
            return
        metas = (each.metadata if each is not None else None for each in (old, new))
        if self.trust.job_changed(*metas) or not self.trust.vouched:
            self._review({*self._pods_of.get(job.metadata.key, ()), *tasks})
        for task in tasks:
            reservation = self.reservations.get(task)
            self._stale |= self.ledger.put(task, Source.RESERVATION, reservation.holding if reservation else None)
        for listener in self._reservation_listeners:
            listener(tasks)

    def _with_holdings(self, facts: core.Node) -> core.Node:
        free = self.ledger.free(facts.name, facts.machine, facts.healthy)
        return replace(
            facts,
            free=free,
            leaving=self.ledger.leaving(facts.name) & facts.healthy & ~free,
            resources=facts.resources - self.ledger.resources(facts.name),
            parts=self.ledger.parts(facts.name, facts.healthy),
        )
