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
from muster.kube.events import Reference
from muster.kube.objects import Pod
from muster_operator import pod_events
from muster_operator.controller import Context
from muster_operator.external_pods import failed_starts, templates
from muster_operator.external_pods.failed_starts import Failure, failure
from muster_operator.external_pods.gangs import gang_name, is_external, is_over
from muster_operator.external_pods.starts import Starts, outgrown
from muster_operator.external_pods.templates import POD_TEMPLATES, PodTemplate, Step, next_step
from muster_operator.external_pods.ungating import misplaced, stranded
from muster_operator.pod_faults import is_rejected, is_taken_away, is_unexplained
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
        self._starts = Starts(context.work_queue)
        self._not_before: dict[str, float] = {}
        """When to create a parked pod again whose creation was rejected, by uid."""
        self._ended: list[Pod] = []
        """Pods that ended before they ran by nobody's fault, and that their controllers create again."""
        self._templates.subscribe(lambda *_: self._work_queue.plan_now())
        context.stores.view.pods.subscribe(self._note_ended)

    async def run(self, pods: list[Pod], now: float) -> None:
        """Requeue the gangs of these pods that cannot start, and bring parked pods on."""
        self._learn_from_ended(pods, now)
        stuck = self._stuck(pods, now)
        gangs: dict[str, list[Pod]] = {name: [] for name in stuck}
        for pod in pods if stuck else ():
            gangs.get(gang_name(pod), []).append(pod)
        for name, members in gangs.items():
            with self._reporter.contained(f"{name}: could not be requeued"):
                await self._requeue_gang(*stuck[name], members, now)
        await all_of(self._bring_on(parked) for parked in list(self._templates.values()))

    def away(self) -> Counter[str]:
        """Count the pods of each gang that are yet to be created again, and so belong to it although they do not exist."""
        steps = ((parked, self._step(parked)) for parked in self._templates.values())
        return Counter(gang_name(parked.pod) for parked, step in steps if step in (Step.WAIT, Step.CREATE))

    def _stuck(self, pods: Collection[Pod], now: float) -> dict[str, tuple[Pod, Failure]]:
        """The gangs that cannot start, are not as they were placed, or are being requeued, each with one pod that shows it."""
        begun = [parked.pod for parked in self._templates.values() if self._step(parked) is not Step.FORGET]
        stuck = {gang_name(pod): (pod, failure(pod)) for pod in (*begun, *misplaced(pods))}
        late = self._starts.late(pods)
        for pod in pods:
            with self._reporter.contained(f"pod {pod.metadata.key}: whether it can start", about_pod(pod.metadata)):
                is_stranded, until = stranded(self._sightings.dated(pod), self._node_loss.is_alive, now)
                if is_stranded or pod.metadata.uid in late:
                    stuck[gang_name(pod)] = pod, failure(pod, overdue=not is_stranded)
                elif until is not None:
                    self._work_queue.plan_by(until)
        return stuck

    async def _requeue_gang(self, stuck: Pod, failed: Failure, gang: list[Pod], now: float) -> None:
        """Delete the ungated pods of a gang, its bare pods parked; gated pods go on waiting, finished ones stay."""
        members = [pod for pod in gang if not (pod.gated or pod.leaving or is_over(pod))]
        failed = await self._explained(stuck, failed)
        for pod in members:
            itself = pod.metadata.name == stuck.metadata.name
            cause = f"{'it' if itself else f'pod {stuck.metadata.name}'} {failed.cause}"
            self._tell(pod, f"deleted and queued again: {cause}")
        notes = self._learn(stuck, failed, gang, members, now)
        reserving = (pod for pod in gang if pod.finished and pod.metadata.annotation(names.RESERVATION) is not None)
        try:
            await all_of(self._api_writer.annotate(PODS, pod.metadata, {names.RESERVATION: None}) for pod in reserving)
            await all_of(self._park(pod, notes.get(pod.metadata.uid)) for pod in members if pod.metadata.controller is None)
            await all_of(self._delete(pod) for pod in members)
        except Conflict:
            self._work_queue.plan_after_news()
        except KubeError as error:
            self._reporter.failed(f"{gang_name(stuck)}: could not be requeued", error)
            self._work_queue.plan_in(RETRY_SECONDS)

    async def _explained(self, pod: Pod, failed: Failure) -> Failure:
        """Return a failed start with the words of Events where the pod's status has none."""
        if failed.is_start and is_unexplained(pod):
            words = await pod_events.warning_about(pod, self._api_writer, self._reporter)
            return failed._replace(cause=f"{failed.cause}; {words}") if words else failed
        return failed

    def _tell(self, pod: Pod, message: str) -> None:
        """Tell a pod, and its owner, who outlives it, why it is deleted."""
        owner = pod.metadata.controller
        self._reporter.event(about_pod(pod.metadata), "Warning", "Requeued", message)
        if owner is not None:
            about = Reference(owner.api_version, owner.kind, owner.name, pod.metadata.namespace or "", owner.uid)
            self._reporter.event(about, "Warning", "Requeued", f"pod {pod.metadata.name}: {message}")

    def _learn(self, stuck: Pod, failed: Failure, gang: list[Pod], members: list[Pod], now: float) -> dict[str, str | None]:
        """What the PodTemplate of one pod, by uid, is to say of the gang's starts; what a controller creates is told later."""
        name, parked = gang_name(stuck), [each.pod for each in self._templates.values()]
        if not members or any(gang_name(pod) == name for pod in parked):
            return {}  # it is known already: the requeue had begun
        before = failed_starts.read(gang)
        text = failed_starts.written(failed_starts.learnt(before, stuck, failed, self._stores.node_digest, now))
        first = min(members, key=lambda pod: (pod.metadata.controller is not None, pod.metadata.name))
        if first.metadata.controller is not None and text is not None:
            self._starts.keep(name, first, text)
        return {first.metadata.uid: text}

    def _note_ended(self, old: Pod | None, new: Pod | None) -> None:
        """Note a pod that is seen to end so; one that had when it was first seen may have taught its lesson before."""
        if old is None or new is None or old.finished or new.metadata.controller is None:
            return
        never_ran = is_rejected(new) or (old.status.phase == "Pending" and is_taken_away(new))
        if never_ran and is_external(new) and new.metadata.annotation(names.RANK) is not None:
            self._ended.append(new)

    def _learn_from_ended(self, pods: Collection[Pod], now: float) -> None:
        """Keep what such pods teach for those that their controllers create in their place."""
        ended, self._ended = self._ended, []
        gangs: dict[str, list[Pod]] = {gang_name(pod): [pod] for pod in ended}
        for pod in pods if ended else ():
            gangs.get(gang_name(pod), []).append(pod)
        for pod in ended:
            name = gang_name(pod)
            before = failed_starts.decoded(self._starts.text(name)) or failed_starts.read(gangs[name])
            known = failed_starts.learnt(before, pod, failure(pod), self._stores.node_digest, now)
            self._starts.keep(name, pod, failed_starts.written(known) or "")

    async def remember(self, pods: Collection[Pod]) -> None:
        """Write on pods that a controller has created again what is known of their gang, and take it off gangs that run."""
        notes = [*self._starts.kept(pods), *((gang_name(pod), pod, None) for pod in outgrown(pods))]
        for gang, pod, text in notes:
            try:
                await self._api_writer.annotate(PODS, pod.metadata, {names.FAILED_STARTS: text})
                self._starts.forget(gang)
            except Conflict:
                self._work_queue.plan_after_news()
            except KubeError as error:
                self._reporter.failed(f"{pod.metadata.key}: annotation {names.FAILED_STARTS} could not be written", error)

    async def _park(self, pod: Pod, failed_starts: str | None) -> None:
        """Write the PodTemplate of a bare pod, unless the pod is terminating or gone already."""
        try:
            whole = await self._api_writer.read(PODS, pod.metadata)
            if whole["metadata"]["uid"] == pod.metadata.uid and "deletionTimestamp" not in whole["metadata"]:
                await self._api_writer.create(POD_TEMPLATES, templates.template(whole, failed_starts))
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
