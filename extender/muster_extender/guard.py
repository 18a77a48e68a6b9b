"""The filter over time: it waits briefly for a reservation that must be on its way, and notes which pods are assumed.

The operator writes a placement and then creates the pods, so kube-scheduler may ask for a pod milliseconds before the watch
brings its reservation here. kube-scheduler's cycle stands still meanwhile: so the wait is short, and happens once a pod.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from muster.kube.objects import DLJob, Pod
from muster_extender.rules import Cluster, Rule, Verdict, filter_nodes
from muster_extender.waking import Waking

WAIT_SECONDS: Final = 1.0
"""The longest wait for a pod's reservation; kube-scheduler gives the extender 5 s."""
MOST_REMEMBERED: Final = 20_000


class NotSynced(Exception):
    """The view is not complete yet, so what it calls free may not be."""


class Guard:
    """Decides about pods as kube-scheduler asks."""

    def __init__(self, cluster: Cluster, waking: Waking, *, now: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._waking, self._now = cluster, waking, now
        self.waits = self.waiting = 0
        """Requests that had to wait for a reservation: so far, and now."""
        self._waited: OrderedDict[str, None] = OrderedDict()
        self._jobs_changed = asyncio.Event()
        cluster.view.jobs.subscribe(self._job_changed)

    async def filter(self, pod: Pod, nodes: list[str]) -> Verdict:
        """Judge each of `nodes`; raise NotSynced, or ValueError if an amount in the pod is not a quantity."""
        if not self._cluster.view.synced:
            raise NotSynced("the extender has not read all nodes, pods and jobs from the API server yet; try again")
        self._cluster.assumed.expire(self._now())
        verdict = await self._settled(pod, nodes)
        passed = verdict.passed if verdict.rule is Rule.OPEN else []
        self._cluster.assumed.assume(pod.metadata.key, verdict.gpus, passed, self._now(), pod.spec.scheduler_name)
        self._waking.note(pod, verdict)
        return verdict

    async def _settled(self, pod: Pod, nodes: list[str]) -> Verdict:
        """The verdict once the pod's reservation is there, or the wait for it is over."""
        verdict = filter_nodes(self._cluster, pod, nodes)
        if verdict.rule is not Rule.AWAITED or not self._first_time(pod):
            return verdict
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

    def _job_changed(self, _old: DLJob | None, _new: DLJob | None) -> None:
        """Wake every request that waits, and begin a new wait for those that come after."""
        waiting, self._jobs_changed = self._jobs_changed, asyncio.Event()
        waiting.set()

    def _first_time(self, pod: Pod) -> bool:
        """Whether no request has waited for this pod yet: without its job, it must not stop kube-scheduler each time."""
        name = pod.metadata.uid or pod.metadata.key
        if name in self._waited:
            return False
        self._waited[name] = None
        if len(self._waited) > MOST_REMEMBERED:
            self._waited.popitem(last=False)
        return True
