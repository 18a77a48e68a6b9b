"""Requeues gangs of external pods that cannot start, as a whole: pods are deleted, and bare ones created again.

All bare pods of a gang are parked as PodTemplates before the first pod is deleted: an operator that restarts in between finds
either the gang still there, or all of it parked, and carries on (see `templates`). Pods with a controller are only deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import suppress

from muster.api import names
from muster.kube.errors import AlreadyExists, ApiError, Conflict, KubeError, NotFound
from muster.kube.objects import Pod
from muster_operator.controller import Context
from muster_operator.external_pods import templates
from muster_operator.external_pods.gangs import gang_name
from muster_operator.external_pods.templates import POD_TEMPLATES, PodTemplate, Step, next_step
from muster_operator.external_pods.ungating import misplaced, stranded
from muster_operator.pod_faults import start_fault
from muster_operator.reporting import about_pod
from muster_operator.resources import PODS
from muster_operator.sightings import Sightings
from muster_operator.work_queue import RETRY_SECONDS, all_of

REJECTED_SECONDS = 30.0
"""Before a pod that quota or policy rejected is created again."""


class Requeue:
    """Gangs on their way back into the queue."""

    def __init__(self, context: Context, sightings: Sightings) -> None:
        self._stores, self._work_queue = context.stores, context.work_queue
        self._api_writer, self._reporter = context.api_writer, context.reporter
        self._node_loss = context.node_loss
        self._templates = context.stores.of(POD_TEMPLATES)
        self._sightings = sightings
        self._not_before: dict[str, float] = {}
        """When to create a parked pod again whose creation was rejected, by uid."""
        self._templates.subscribe(lambda *_: self._work_queue.plan_now())

    async def run(self, pods: list[Pod], now: float) -> None:
        """Requeue the gangs of these pods that cannot start, and bring parked pods on."""
        stuck = self._stuck(pods, now)
        gangs: dict[str, list[Pod]] = {name: [] for name in stuck}
        for pod in pods if stuck else ():
            gangs.get(gang_name(pod), []).append(pod)
        for name, members in gangs.items():
            with self._reporter.contained(f"{name}: could not be requeued"):
                await self._requeue_gang(stuck[name], members)
        await all_of(self._bring_on(parked) for parked in list(self._templates.values()))

    def away(self) -> Counter[str]:
        """Count the pods of each gang that are yet to be created again, and so belong to it although they do not exist."""
        steps = ((parked, self._step(parked)) for parked in self._templates.values())
        return Counter(gang_name(parked.pod) for parked, step in steps if step in (Step.WAIT, Step.CREATE))

    def _stuck(self, pods: Collection[Pod], now: float) -> dict[str, Pod]:
        """The gangs that cannot start, are not as they were placed, or are being requeued, each with one pod that shows it."""
        begun = (parked.pod for parked in self._templates.values() if self._step(parked) is not Step.FORGET)
        stuck = {gang_name(pod): pod for pod in (*begun, *misplaced(pods))}
        for pod in pods:
            with self._reporter.contained(f"pod {pod.metadata.key}: whether it can start", about_pod(pod.metadata)):
                is_stranded, until = stranded(self._sightings.dated(pod), self._node_loss.is_alive, now)
                if is_stranded:
                    stuck[gang_name(pod)] = pod
                elif until is not None:
                    self._work_queue.plan_by(until)
        return stuck

    async def _requeue_gang(self, stuck: Pod, gang: list[Pod]) -> None:
        """Delete the ungated pods of a gang, its bare pods parked; gated pods go on waiting, finished ones stay."""
        members = [pod for pod in gang if not (pod.gated or pod.leaving or pod.finished)]
        for pod in members:
            itself = pod.metadata.name == stuck.metadata.name
            cause = f"{'it' if itself else f'pod {stuck.metadata.name}'} {_cause(stuck)}"
            self._reporter.event(about_pod(pod.metadata), "Warning", "Requeued", f"deleted and queued again: {cause}")
        reserving = (pod for pod in gang if pod.finished and pod.metadata.annotation(names.RESERVATION) is not None)
        try:
            await all_of(self._api_writer.annotate(PODS, pod.metadata, {names.RESERVATION: None}) for pod in reserving)
            await all_of(self._park(pod) for pod in members if pod.metadata.controller is None)
            await all_of(self._delete(pod) for pod in members)
        except Conflict:
            self._work_queue.plan_after_news()
        except KubeError as error:
            self._reporter.failed(f"{gang_name(stuck)}: could not be requeued", error)
            self._work_queue.plan_in(RETRY_SECONDS)

    async def _park(self, pod: Pod) -> None:
        """Write the PodTemplate of a bare pod, unless the pod is terminating or gone already."""
        try:
            whole = await self._api_writer.read(PODS, pod.metadata)
            if whole["metadata"]["uid"] == pod.metadata.uid and "deletionTimestamp" not in whole["metadata"]:
                await self._api_writer.create(POD_TEMPLATES, templates.template(whole))
        except (NotFound, AlreadyExists):
            return

    async def _bring_on(self, parked: PodTemplate) -> None:
        """Do what comes next for a parked pod; a failure is told about the pod, and tried again later."""
        uid = parked.metadata.name
        current = self._stores.view.pods.get(parked.pod.metadata.key)
        not_before = self._not_before.get(uid, 0.0)
        try:
            match self._step(parked):
                case Step.FORGET:
                    await self._api_writer.delete(POD_TEMPLATES, parked.metadata)
                case Step.WAIT if current is not None and self._is_abandoned(current):
                    await self._delete(current)
                case Step.WAIT if current is not None and (seconds := self._node_loss.check_in(_nodes(current))) is not None:
                    self._work_queue.plan_in(seconds)
                case Step.CREATE if not_before <= self._work_queue.pace():
                    await self._create_again(parked)
                    self._not_before.pop(uid, None)
                case Step.CREATE:
                    self._work_queue.plan_in(not_before - self._work_queue.pace())
        except Conflict:
            self._work_queue.plan_after_news()
        except KubeError as error:
            self._failed(parked, error)

    def _failed(self, parked: PodTemplate, error: KubeError) -> None:
        pod, uid = parked.pod.metadata, parked.metadata.name
        self._reporter.failed(f"{pod.key}: could not be created again", error)
        self._reporter.event(about_pod(pod), "Warning", "RequeueFailed", f"not created again: {error}")
        pause = REJECTED_SECONDS if isinstance(error, ApiError) else RETRY_SECONDS
        self._not_before[uid] = self._work_queue.pace() + pause
        self._work_queue.plan_in(pause)

    async def _create_again(self, parked: PodTemplate) -> None:
        """Create a bare pod from its PodTemplate, unless another pod has its name, and delete the template."""
        with suppress(NotFound, AlreadyExists):  # its user has deleted the template, or created the pod
            await self._api_writer.create(PODS, templates.pod(await self._api_writer.read(POD_TEMPLATES, parked.metadata)))
        await self._api_writer.delete(POD_TEMPLATES, parked.metadata)

    def _step(self, parked: PodTemplate) -> Step:
        return next_step(parked.metadata.name, self._stores.view.pods.get(parked.pod.metadata.key))

    def _is_abandoned(self, pod: Pod) -> bool:
        """Whether a pod's node is gone: no kubelet will confirm the pod's end."""
        return pod.spec.node_name is not None and not self._node_loss.is_alive(pod.spec.node_name)

    async def _delete(self, pod: Pod) -> None:
        await self._api_writer.delete(PODS, pod.metadata, grace_seconds=0 if self._is_abandoned(pod) else None)


def _nodes(pod: Pod) -> list[str]:
    return [pod.spec.node_name] if pod.spec.node_name else []


def _cause(stuck: Pod) -> str:
    """What is wrong with the pod that shows that its gang cannot start."""
    if fault := start_fault(stuck):
        return f"cannot start: {fault}"
    return "is not where its gang was placed" if stuck.spec.node_name else "cannot start on the node that it is pinned to"
