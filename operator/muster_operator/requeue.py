"""Takes gangs of foreign pods back that cannot start, as a whole, and brings their bare pods into the queue again.

A gang's bare pods are all kept as PodTemplates before the first pod is deleted: who starts again in between finds either the
gang still there, or all of it written down, and carries on (see `templates`). Pods with a controller are only deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from muster.api import names
from muster.kube.errors import ApiError, KubeError
from muster.kube.objects import Pod
from muster_operator import gates
from muster_operator.stores import PodTemplate
from muster_operator.templates import Step, next_step
from muster_operator.work_queue import RETRY_SECONDS, WorkQueue, all_of, pod_reference

REFUSED_SECONDS = 30.0
"""Before what quota or policy refused is tried again."""


class Requeue:
    """Gangs on their way back into the queue."""

    def __init__(self, work_queue: WorkQueue) -> None:
        self._work_queue, self._api_writer, self._templates = work_queue, work_queue.api_writer, work_queue.stores.templates
        self._refused: dict[str, float] = {}
        """uids of pods that could not be created again, and when to try next."""
        self._templates.subscribe(lambda *_: work_queue.plan_by(0.0))

    async def run(self, pods: list[Pod], now: float) -> None:
        """Take back the gangs of these pods that cannot start, and bring on what was taken back before."""
        stuck = self._stuck(pods, now)
        gangs: dict[str, list[Pod]] = {name: [] for name in stuck}
        for pod in pods if stuck else ():
            gangs.get(gates.gang_name(pod), []).append(pod)
        for name, members in gangs.items():
            await self._requeue_gang(stuck[name], members)
        await all_of(self._bring_on(kept, now) for kept in list(self._templates.values()))

    def away(self) -> Counter[str]:
        """How many pods of each gang are to be created again, and so belong to it although they are not there."""
        steps = ((kept, self._step(kept)) for kept in self._templates.values())
        return Counter(gates.gang_name(kept.pod) for kept, step in steps if step in (Step.WAIT, Step.CREATE))

    def _stuck(self, pods: Iterable[Pod], now: float) -> dict[str, Pod]:
        """The gangs that cannot start, or whose taking back was begun, each with one pod that shows it."""
        begun = (kept.pod for kept in self._templates.values() if self._step(kept) is not Step.FORGET)
        stuck = {gates.gang_name(pod): pod for pod in begun}
        for pod in pods:
            stranded, until = gates.stranded(pod, self._work_queue.alive, now)
            if stranded:
                stuck[gates.gang_name(pod)] = pod
            elif until is not None:
                self._work_queue.plan_by(until)
        return stuck

    async def _requeue_gang(self, stuck: Pod, gang: list[Pod]) -> None:
        """Delete what was let go of a gang, its bare pods kept; what is still gated waits on, what has ended stays."""
        members = [pod for pod in gang if not (pod.gated or pod.leaving or pod.finished)]
        for pod in members:
            itself = pod.metadata.name == stuck.metadata.name
            reason = "it cannot start where it is pinned" if itself else f"{stuck.metadata.name} cannot start"
            self._work_queue.recorder.event(pod_reference(pod.metadata), "Warning", "TakenBack", f"taken back: {reason}")
        promised = (pod for pod in gang if pod.finished and pod.metadata.annotation(names.RESERVATION) is not None)
        try:
            await all_of(self._api_writer.annotate_pod(pod, {names.RESERVATION: None}) for pod in promised)
            await all_of(self._api_writer.park_pod(pod) for pod in members if pod.metadata.controller is None)
            await all_of(self._delete(pod) for pod in members)
        except KubeError as error:
            self._work_queue.failed(f"{gates.gang_name(stuck)}: could not be taken back", error)
            self._work_queue.plan_by(self._work_queue.clock() + RETRY_SECONDS)

    async def _bring_on(self, kept: PodTemplate, now: float) -> None:
        pod, uid = kept.pod, kept.metadata.name
        found = self._work_queue.view.pods.get(pod.metadata.key)
        again = self._refused.get(uid, 0.0)
        try:
            match self._step(kept):
                case Step.FORGET:
                    await self._api_writer.forget(kept)
                case Step.WAIT if found is not None and self._abandoned(found):
                    await self._delete(found)
                case Step.CREATE if again <= now:
                    await self._api_writer.create_again(kept)
                    self._refused.pop(uid, None)
                case Step.CREATE:
                    self._work_queue.plan_by(again)
        except KubeError as error:
            self._work_queue.failed(f"{pod.metadata.key}: could not be queued again", error)
            self._work_queue.recorder.event(
                pod_reference(pod.metadata), "Warning", "NotQueuedAgain", f"not created again: {error}"
            )
            self._refused[uid] = now + (REFUSED_SECONDS if isinstance(error, ApiError) else RETRY_SECONDS)
            self._work_queue.plan_by(self._refused[uid])

    def _step(self, kept: PodTemplate) -> Step:
        return next_step(kept.metadata.name, self._work_queue.view.pods.get(kept.pod.metadata.key))

    def _abandoned(self, pod: Pod) -> bool:
        """Whether a pod's node is gone: nobody will ever confirm its end."""
        return pod.spec.node_name is not None and not self._work_queue.alive(pod.spec.node_name)

    async def _delete(self, pod: Pod) -> None:
        await self._api_writer.delete_pod(pod, grace_seconds=0 if self._abandoned(pod) else None)
