"""The filter over time: which pod is meant, a brief wait for what must be on its way, and which pods are assumed.

Anybody may send a request, so nothing of the pod in it counts but its name and uid: the view's own copy is judged, and no node
is looked at before the view has it. The watch may bring a pod, or its reservation, milliseconds after kube-scheduler asks for
it; kube-scheduler's cycle stands still meanwhile, so each wait is short.

Invariant: a request about a pod that the view does not know changes nothing. Over the Service, where the cluster's own
kube-scheduler cannot be told from a stranger, a request changes only what is known of a pod of other kube-schedulers, and the
pod counts on one node at most: on no more GPUs than it takes once it is bound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import Enum
from typing import Final
from weakref import WeakValueDictionary

from muster.allocation.reservations import Reserving
from muster.api import names
from muster.kube.objects import Meta, Pod
from muster_extender.rules import Cluster, Rule, Verdict, filter_nodes
from muster_extender.scores import Policy, prioritize
from muster_extender.turns import Turn, at_once
from muster_extender.waking import Waking
from muster_extender.wire import AskedMeta, AskedPod, ExtenderArgs

POD_SECONDS: Final = 0.5
"""The longest wait for the pod itself."""
WAIT_SECONDS: Final = 1.0
"""The longest wait for a pod's reservation; kube-scheduler gives the extender 5 s."""
LONGEST_SPEC: Final = 64 << 10
"""Bytes: whether a pod that the view does not know asks for GPUs is read of no longer spec over the Service."""


class Asker(Enum):
    """Whose requests a listener takes."""

    OWN = "own"
    """muster's kube-scheduler, over loopback: nobody else reaches it there."""
    SERVICE = "service"
    """Whoever reaches the extender's Service."""


class Undecided(Exception):
    """No verdict for now: kube-scheduler is to try again. `outcome` is for the metrics."""

    outcome = "undecided"


class NotSynced(Undecided):
    """The view is not complete yet, so what it calls free may not be."""

    outcome = "not-synced"


class UnknownPod(Undecided):
    """The view has no such pod that a kube-scheduler could place."""

    outcome = "unknown-pod"


class Guard:
    """Decides about pods as kube-schedulers ask."""

    def __init__(
        self,
        cluster: Cluster,
        waking: Waking,
        policy: Policy = Policy.PACK,
        *,
        pod_seconds: float = POD_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.view = cluster.view
        self._cluster, self._waking, self._policy, self._now = cluster, waking, policy, now
        self._pod_seconds = pod_seconds
        self.waits = self.waiting = 0
        """Requests that had to wait for a reservation: so far, and now."""
        self._waited: set[str] = set()
        """The uids of pods in the view for whose reservation a request has waited."""
        self._jobs_changed = asyncio.Event()
        self._pod_changes: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        """The next change of a pod, while a request waits for it."""
        self.view.jobs.subscribe(self._job_changed)
        self.view.pods.subscribe(self._pod_changed)

    async def filter(self, args: ExtenderArgs, asker: Asker = Asker.OWN, turn: Turn = at_once) -> Verdict:
        """Judge each of the nodes; raise Undecided or WrongShape. After each wait it waits for its turn to go on."""
        if not self.view.synced:
            raise NotSynced("the extender has not read all nodes, pods and jobs from the API server yet; try again")
        if self._known(args.pod.metadata) is None and _is_free(args.pod, asker):
            return Verdict(Rule.FREE, 0, passed=args.names())
        pod = await self._arrived(args.pod.metadata, asker, turn)
        nodes = args.names()
        self._cluster.assumed.expire(self._now())
        if asker is Asker.OWN:
            return self._remember_own(pod, await self._settled(pod, nodes))
        return self._remember_other(pod, filter_nodes(self._cluster, pod, nodes))

    def prioritize(self, args: ExtenderArgs) -> list[tuple[str, int]]:
        """Score each of the nodes from 0 to 10, all 0 for a pod that the view does not know; raise WrongShape."""
        pod, nodes = self._known(args.pod.metadata), args.names()
        return prioritize(self.view, pod, nodes, self._policy) if pod else [(name, 0) for name in nodes]

    def _known(self, asked: Meta | AskedMeta) -> Pod | None:
        """The view's own copy of a pod, if a kube-scheduler could place it."""
        pod = self.view.pods.get(asked.key)
        if pod is None or pod.metadata.uid != asked.uid:
            return None
        return None if pod.spec.node_name or pod.spec.scheduling_gates or pod.leaving else pod

    async def _arrived(self, asked: AskedMeta, asker: Asker, turn: Turn) -> Pod:
        """The view's own copy of a pod, once the watch has brought it; raise UnknownPod."""
        try:
            async with asyncio.timeout(self._pod_seconds):
                while (pod := self._known(asked)) is None:
                    await self._next_change(asked.key)
                    await turn()
        except TimeoutError:
            key, uid = asked.key[:320], asked.uid[:40]
            raise UnknownPod(f"the extender has seen no pod {key} with uid {uid!r} that waits for a node; try again") from None
        if asker is Asker.SERVICE and pod.spec.scheduler_name == names.SCHEDULER:
            raise UnknownPod(f"the scheduler {names.SCHEDULER} asks about its pods within its own pod; name another in the pod")
        return pod

    async def _settled(self, pod: Pod, nodes: list[str]) -> Verdict:
        """The verdict once the pod's reservation is there, or the wait for it is over."""
        verdict = filter_nodes(self._cluster, pod, nodes)
        if verdict.rule is not Rule.AWAITED or pod.metadata.uid in self._waited:
            return verdict
        self._waited.add(pod.metadata.uid)  # without its job, the pod must not stop kube-scheduler each time
        self.waits += 1
        self.waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while verdict.rule is Rule.AWAITED:
                    await self._jobs_changed.wait()
                    verdict = filter_nodes(self._cluster, pod, nodes)
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1
        return verdict

    def _remember_own(self, pod: Pod, verdict: Verdict) -> Verdict:
        if self._known(pod.metadata) is not None:  # it may have gone during a wait
            self._assume(pod, verdict)
            self._waking.note(pod, verdict)
        return verdict

    def _remember_other(self, pod: Pod, verdict: Verdict) -> Verdict:
        """Pass one node only, and remember the pod there; a stranger cannot have it forgotten."""
        if not verdict.passed:
            self._waking.note(pod, verdict)
            return verdict
        scores = prioritize(self.view, pod, verdict.passed, self._policy)
        best, _ = min(scores, key=lambda scored: (-scored[1], scored[0]))
        for name in verdict.passed:
            if name != best:
                verdict.failed[name] = f"the extender has chosen node {best} for this pod"
        verdict.passed = [best]
        self._assume(pod, verdict)
        return verdict

    def _assume(self, pod: Pod, verdict: Verdict) -> None:
        passed = verdict.passed if verdict.rule is Rule.OPEN else []
        self._cluster.assumed.assume(pod.metadata.key, verdict.gpus, passed, self._now(), pod.spec.scheduler_name)

    async def _next_change(self, task: str) -> None:
        change = self._pod_changes.get(task)
        if change is None:
            change = self._pod_changes[task] = asyncio.Event()
        await change.wait()

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Wake the requests that wait for the pod."""
        pod = new or old
        if pod is not None and (change := self._pod_changes.pop(pod.metadata.key, None)) is not None:
            change.set()
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._waited.discard(old.metadata.uid)

    def _job_changed(self, _old: Reserving | None, _new: Reserving | None) -> None:
        """Wake every request that waits, and begin a new wait for those that come after."""
        waiting, self._jobs_changed = self._jobs_changed, asyncio.Event()
        waiting.set()


def _is_free(pod: AskedPod, asker: Asker) -> bool:
    """Whether a pod that the view does not know asks for no GPUs by its own word; a stranger's is not read at any length."""
    return not (asker is Asker.SERVICE and len(pod.spec) > LONGEST_SPEC) and pod.gpus() <= 0
