"""Carries out what is decided about pods that muster did not create; what they are as gangs is in `gates`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from muster.api import names
from muster.kube.errors import KubeError
from muster.kube.events import Recorder, Reference
from muster.kube.objects import Meta, Pod
from muster.scheduling.decisions import Place, Preempt, Reason, Wait
from muster.scheduling.snapshot import Gang, Node, Placement
from muster_operator import gates
from muster_operator.gates import PodGang
from muster_operator.hands import Hands

log = logging.getLogger("muster.operator")


class ForeignPods:
    """The pods of others that name our scheduler, and the gangs that they make."""

    def __init__(self, hands: Hands, recorder: Recorder, clock: Callable[[], float]) -> None:
        self._hands, self._recorder, self._clock = hands, recorder, clock
        self._pods: dict[str, Pod] = {}
        self._gangs: dict[str, PodGang] = {}
        self._told: dict[str, Reason] = {}
        self.look_again = float("inf")
        """When a pod that kube-scheduler refuses will have been refused for long enough."""

    def changed(self, old: Pod | None, new: Pod | None) -> bool:
        """Take a change in; say whether it is one of ours."""
        pod = new or old
        assert pod is not None
        if not gates.is_foreign(pod):
            return False
        if new is None or new.finished:
            self._pods.pop(pod.metadata.key, None)
        else:
            self._pods[pod.metadata.key] = new
        return True

    async def tend(self, nodes: Mapping[str, Node], now: float) -> None:
        """Finish what was begun before a restart, take back what cannot start, and see which gangs there are now."""
        self.look_again = float("inf")
        for pod in list(self._pods.values()):
            stuck, until = gates.stranded(pod, nodes, now)
            if stuck:
                await self._take_back(pod)
            elif until is not None:
                self.look_again = min(self.look_again, until)
        found = gates.gangs_of(self._pods.values())
        for gang in found:
            promised = gates.reservation(gang)
            if promised:
                await self._let_go(gang, promised)
        self._gangs = {found.gang.name: found for found in gates.gangs_of(self._pods.values())}
        self._told = {name: reason for name, reason in self._told.items() if name in self._gangs}

    def gangs(self) -> list[Gang]:
        """The gangs that wait, and the pods already let go, which count against their queue's quota."""
        placed = (gates.placed_gang(pod) for pod in self._pods.values())
        return [*(found.gang for found in self._gangs.values()), *(gang for gang in placed if gang is not None)]

    async def place(self, decision: Place) -> None:
        """Let a gang go. The placement of a gang of several is written to its first pod before, and cleared at the end."""
        found = self._gangs[decision.gang.name]
        log.info("%s: %s", decision.gang.name, decision.message)
        if len(found.pods) > 1:
            text = gates.reservation_text(decision.placement)
            await self._hands.annotate_pod(found.members[0], {names.RESERVATION: text})
        await self._let_go(found, decision.placement)
        for pod in found.pods.values():
            self._recorder.event(_reference(pod.metadata), "Normal", decision.reason, decision.message)

    async def wait(self, decision: Wait | Preempt) -> None:
        """Tell the pods of a gang why they wait, when the reason is a new one."""
        if self._told.get(decision.gang.name) is decision.reason:
            return
        self._told[decision.gang.name] = decision.reason
        for pod in self._gangs[decision.gang.name].pods.values():
            await self._hands.annotate_pod(pod, {names.WAITING: decision.message})
            self._recorder.event(_reference(pod.metadata), "Warning", decision.reason, decision.message)

    async def _let_go(self, found: PodGang, placement: Placement) -> None:
        """Patch each pod as it is now; what changed meanwhile is left to the next plan, or to the reservation."""
        now = {a.task.name: self._pods.get(found.pods[a.task.name].metadata.key) for a in placement}
        results = await asyncio.gather(
            *(self._hands.let_go(pod, a) for a in placement if (pod := now[a.task.name]) is not None),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        first = self._pods.get(found.members[0].metadata.key)
        if all(results) and first is not None and first.metadata.annotation(names.RESERVATION) is not None:
            await self._hands.annotate_pod(first, {names.RESERVATION: None})

    async def _take_back(self, pod: Pod) -> None:
        """Delete a pod that cannot start where it is pinned, and the rest of its gang: its controller makes it anew, gated."""
        name = gates.gang_name(pod)
        gang = [other for other in self._pods.values() if gates.gang_name(other) == name]
        for member in gang:
            reason = "it cannot start where it is pinned" if member is pod else f"{pod.metadata.name} cannot start"
            self._recorder.event(_reference(member.metadata), "Warning", "TakenBack", f"taken back: {reason}")
            try:
                await self._hands.delete_pod(member)
            except KubeError as error:
                log.warning("%s: could not be taken back: %s", member.metadata.key, error)


def _reference(meta: Meta) -> Reference:
    return Reference("v1", "Pod", meta.name, meta.namespace or "", meta.uid)
