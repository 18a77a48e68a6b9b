"""Wakes pods that the extender has refused, once it would let them pass.

kube-scheduler retries a refused pod on events of the cluster. The release of a reservation is no such event, nor is a view
that has caught up with the API server. So refused pods are remembered; when a GPU comes free that some of them could use, or
their own reservation arrives, each gets a new value of the annotation muster.dev/wake: a change of the pod is an event.

Invariant: a pod is patched only while it is pending and refused, and at most once in `apart` seconds; a pod that was created
again under its name, never for a refusal of the earlier one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from muster.api import names
from muster.kube import paths
from muster.kube.client import Client
from muster.kube.errors import ApiError, Conflict, Invalid, KubeError, NotFound
from muster.kube.objects import Meta, Pod
from muster.scheduling.topology.links import GpuSet
from muster_extender.rules import Cluster, Rule, Verdict, filter_nodes

log: Final = logging.getLogger(__name__)

MOST_REMEMBERED: Final = 20_000
AT_ONCE: Final = 16
"""Patches in flight at the same time."""
Patch = Callable[[Meta, str], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Refused:
    """A pod for which no node passed, and the verdict about it."""

    pod: Pod
    verdict: Verdict
    woken: float = float("-inf")


def patcher(client: Client) -> Patch:
    """Return the function that writes a value of muster.dev/wake to a pod of that uid; it raises Invalid for another's."""

    async def patch(pod: Meta, value: str) -> object:
        metadata = {"uid": pod.uid, "annotations": {names.WAKE: value}}
        return await client.patch(paths.pods(pod.namespace or "", pod.name), {"metadata": metadata})

    return patch


class Waking:
    """The refused pods; run `run()` as a task. `woken` and `failures` only grow."""

    def __init__(
        self,
        cluster: Cluster,
        patch: Patch,
        *,
        apart: float = 1.0,
        pause: float = 0.05,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.woken = self.failures = 0
        self._cluster, self._patch, self._apart, self._pause, self._now = cluster, patch, apart, pause, now
        self._refused: dict[str, Refused] = {}
        self._due: dict[str, None] = {}
        self._free: dict[str, GpuSet] = {}
        self._changed = asyncio.Event()
        view = cluster.view
        view.nodes.subscribe(lambda _old, _new: self._changed.set())
        view.jobs.subscribe(lambda _old, _new: self._changed.set())
        view.pods.subscribe(self._pod_changed)

    def __len__(self) -> int:
        return len(self._refused)

    def note(self, pod: Pod, verdict: Verdict) -> None:
        """Remember a pod that was refused on every node; forget one that passed."""
        task = pod.metadata.key
        before = self._refused.pop(task, None)
        if verdict.passed or verdict.rule is Rule.FREE or not pod.metadata.namespace:
            self._due.pop(task, None)
            return
        if not self._refused:
            self._free = self._free_now()
        self._refused[task] = Refused(pod, verdict, before.woken if before else float("-inf"))
        if len(self._refused) > MOST_REMEMBERED:
            self._forget(next(iter(self._refused)))

    async def run(self) -> None:
        """Patch pods whose refusal no longer stands, until cancelled."""
        while True:
            await self._wait()
            self._review()
            while batch := list(islice(self._ready(), AT_ONCE)):
                await asyncio.gather(*map(self._wake, batch))
            await asyncio.sleep(self._pause)

    async def _wait(self) -> None:
        """Wait for a change of the view, or briefly while something ends by time alone."""
        timed = self._due or any(refused.verdict.transient for refused in self._refused.values())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._apart if timed else None):
                await self._changed.wait()
        self._changed.clear()

    def _review(self) -> None:
        if not self._refused:
            return
        self._cluster.assumed.expire(self._now())
        before, self._free = self._free, self._free_now()
        most = max((free.bit_count() for name, free in self._free.items() if free & ~before.get(name, 0)), default=0)
        for task, refused in self._refused.items():
            if self._could_pass(refused, most):
                self._due[task] = None

    def _could_pass(self, refused: Refused, most: int) -> bool:
        """Whether a refused pod could pass now; `most` is the largest number of free GPUs on a node that gained one."""
        verdict = refused.verdict
        if verdict.rule is Rule.OPEN:
            return verdict.gpus <= most or (verdict.transient and not len(self._cluster.assumed))
        reservation = self._cluster.view.reservations.get(refused.pod.metadata.key)
        node = reservation.node if reservation else verdict.node
        return node is not None and bool(filter_nodes(self._cluster, refused.pod, [node]).passed)

    def _ready(self) -> Iterator[str]:
        now = self._now()
        return (task for task in list(self._due) if now - self._refused[task].woken >= self._apart)

    async def _wake(self, task: str) -> None:
        refused = self._refused[task]
        del self._due[task]
        self._refused[task] = replace(refused, woken=self._now())
        try:
            await self._patch(refused.pod.metadata, f"{self._cluster.view.jobs.watermark}.{self.woken}")
            self.woken += 1
        except (NotFound, Conflict, Invalid):  # the pod is gone, or another one has its name
            self._forget(task, refused.pod.metadata.uid)
        except (KubeError, ValueError) as error:  # ValueError: the name cannot be that of an API object
            self.failures += 1
            log.warning("cannot wake pod %s: %s", task, error)
            if task in self._refused and not isinstance(error, (ApiError, ValueError)):
                self._due[task] = None  # the API server was not reached: try again later

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        self._changed.set()
        pod = new or old
        if pod is not None and (new is None or pod.spec.node_name or pod.finished or pod.leaving):
            self._forget(pod.metadata.key)
        elif old is not None and new is not None and old.metadata.uid != new.metadata.uid:
            self._forget(old.metadata.key, old.metadata.uid)

    def _forget(self, task: str, uid: str | None = None) -> None:
        """Forget a refused pod: only that of `uid`, if one is given."""
        refused = self._refused.get(task)
        if refused is not None and uid in (None, refused.pod.metadata.uid):
            del self._refused[task]
            self._due.pop(task, None)

    def _free_now(self) -> dict[str, GpuSet]:
        return {name: node.free for name, node in self._cluster.view.usable().items()}
