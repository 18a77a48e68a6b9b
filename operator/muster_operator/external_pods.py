"""Carries out what is decided about pods that muster did not create; what they are as gangs is in `gates`."""

from __future__ import annotations

import asyncio
import logging

from muster.api import names
from muster.kube.errors import KubeError
from muster.kube.objects import Pod
from muster.scheduling.decisions import Assignment, Preempt, Reason, Wait
from muster.scheduling.gang import Gang, Placement
from muster_operator import gates
from muster_operator.gates import PodGang
from muster_operator.requeue import Requeue
from muster_operator.work_queue import WorkQueue, pod_reference

log = logging.getLogger("muster.operator")


class ExternalPods:
    """The pods of others that name our scheduler, and the gangs that they make."""

    def __init__(self, work_queue: WorkQueue) -> None:
        self._work_queue, self._api_writer, self._recorder = work_queue, work_queue.api_writer, work_queue.recorder
        self._requeue = Requeue(work_queue)
        self._pods: dict[str, Pod] = {}
        self._gangs: dict[str, PodGang] = {}
        self._told: dict[str, str] = {}
        for pod in work_queue.view.pods.values():
            self._changed(None, pod)
        work_queue.view.pods.subscribe(self._changed)

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new if new is not None else old
        if pod is None or not gates.is_external(pod):
            return
        if new is None or not gates.counts(new):
            self._pods.pop(pod.metadata.key, None)
        else:
            self._pods[pod.metadata.key] = new
        self._work_queue.plan_by(0.0)

    async def tend(self, now: float) -> None:
        """Finish what was begun before a restart, take back what cannot start, and see which gangs there are now."""
        await self._requeue.run(list(self._pods.values()), now)
        for pod in gates.fulfilled(self._pods.values()):
            await self._clear(pod)
        for gang in gates.gangs_of(self._pods.values()):
            promised = gates.reservation(gang)
            if promised:
                await self._go_on(gang, promised)
        self._gangs = {found.gang.name: found for found in gates.gangs_of(self._pods.values(), self._requeue.away())}
        self._told = {name: reason for name, reason in self._told.items() if name in self._gangs}

    def gangs(self) -> list[Gang]:
        """The gangs that wait, and the pods already let go, which count against their queue's quota."""
        placed = (gates.placed_gang(pod) for pod in self._pods.values())
        return [*(found.gang for found in self._gangs.values()), *(gang for gang in placed if gang is not None)]

    async def place(self, decision: Assignment) -> None:
        """Let a gang go. The placement of a gang of several is written to its first pod before, and cleared at the end."""
        found = self._gangs[decision.gang.name]
        log.info("%s: %s", decision.gang.name, decision.message)
        if len(found.pods) > 1:
            text = gates.reservation_text(decision.placement)
            await self._api_writer.annotate_pod(found.members[0], {names.RESERVATION: text})
        await self._ungate(found, decision.placement)
        for pod in found.pods.values():
            self._recorder.event(pod_reference(pod.metadata), "Normal", decision.reason, decision.message)

    async def wait(self, decision: Wait | Preempt) -> None:
        """Tell the pods of a gang why they wait, when the reason is a new one; how many pods are missing, each time."""
        name, words = decision.gang.name, decision.message
        news = words if decision.reason is Reason.PODS_ABSENT else decision.reason
        for pod in self._gangs[name].pods.values():
            before = pod.metadata.annotation(names.WAITING)
            if before is None or (before != words and self._told.get(name) != news):
                await self._api_writer.annotate_pod(pod, {names.WAITING: words})
                self._recorder.event(pod_reference(pod.metadata), "Warning", decision.reason, words)
        self._told[name] = news

    async def _go_on(self, found: PodGang, promised: Placement) -> None:
        """Let go what was promised; what the API server refuses must not hold up the others, and is planned anew."""
        try:
            await self._ungate(found, promised)
        except KubeError as error:
            self._work_queue.failed(f"{found.gang.name}: could not be let go as promised", error)

    async def _clear(self, pod: Pod) -> None:
        try:
            await self._api_writer.annotate_pod(pod, {names.RESERVATION: None})
        except KubeError as error:
            self._work_queue.failed(f"{pod.metadata.key}: could not be rid of {names.RESERVATION}", error)

    async def _ungate(self, found: PodGang, placement: Placement) -> None:
        """Patch each pod as it is now; what changed meanwhile is left to the next plan, or to the reservation."""
        now = {a.task.name: self._pods.get(found.pods[a.task.name].metadata.key) for a in placement}
        results = await asyncio.gather(
            *(self._api_writer.ungate(pod, a) for a in placement if (pod := now[a.task.name]) is not None),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        first = self._pods.get(found.members[0].metadata.key)
        if all(results) and first is not None and first.metadata.annotation(names.RESERVATION) is not None:
            await self._api_writer.annotate_pod(first, {names.RESERVATION: None})
