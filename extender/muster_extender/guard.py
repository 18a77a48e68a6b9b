"""The filter over time: it waits a moment for a reservation that must be on its way, and remembers what it decided.

The operator writes a placement and then creates the pods, so kube-scheduler may ask for a pod milliseconds before the watch
brings its reservation here. One cycle of kube-scheduler stands still meanwhile: so the wait is short, and once a pod.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from muster.kube.objects import Pod
from muster_extender.rules import Cluster, Rule, Verdict, filter_nodes
from muster_extender.waking import Waking

WAIT_SECONDS: Final = 1.0
"""How long a pod's reservation is waited for; kube-scheduler gives the extender 5 s."""
MOST_REMEMBERED: Final = 20_000


class NotSynced(Exception):
    """The view is not complete yet: whatever it says about free GPUs may be wrong."""


class Guard:
    """Decides about pods as kube-scheduler asks."""

    def __init__(self, seen: Cluster, waking: Waking, *, now: Callable[[], float] = time.monotonic) -> None:
        self._seen, self._waking, self._now = seen, waking, now
        self.waits = self.waiting = 0
        """Requests that had to wait for a reservation: ever, and now."""
        self._waited: OrderedDict[str, None] = OrderedDict()

    async def filter(self, pod: Pod, nodes: list[str]) -> Verdict:
        """Judge each of `nodes`; raise NotSynced, or ValueError where an amount in the pod is no quantity."""
        if not self._seen.view.synced:
            raise NotSynced("the extender has not read nodes, pods and jobs from the API server yet; it is tried again")
        self._seen.passed.expire(self._now())
        verdict = await self._settled(pod, nodes)
        task = pod.metadata.key
        passed = verdict.passed if verdict.rule is Rule.OPEN else []
        self._seen.passed.note(task, verdict.gpus, passed, self._now(), pod.spec.scheduler_name)
        self._waking.note(pod, verdict)
        return verdict

    async def _settled(self, pod: Pod, nodes: list[str]) -> Verdict:
        verdict = filter_nodes(self._seen, pod, nodes)
        if verdict.rule is not Rule.AWAITED or not self._first_time(pod):
            return verdict
        self.waits += 1
        self.waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while verdict.rule is Rule.AWAITED:
                    await self._seen.view.jobs_changed()
                    verdict = filter_nodes(self._seen, pod, nodes)
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1
        return verdict

    def _first_time(self, pod: Pod) -> bool:
        """Say whether this pod was not waited for yet: one whose job does not exist must not stop kube-scheduler each time."""
        name = pod.metadata.uid or pod.metadata.key
        if name in self._waited:
            return False
        self._waited[name] = None
        if len(self._waited) > MOST_REMEMBERED:
            self._waited.popitem(last=False)
        return True
