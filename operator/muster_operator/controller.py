"""The one loop: what changed is brought one step further, then everything is planned, then both are carried out.

Listeners only mark and ring. Whatever they mark is looked at afresh in the stores (level-triggered), so a missed or doubled
event does no harm. A job has at most one step under way; the placements of a plan are all written before the next plan looks
at the stores, which hold the server's answers: no plan ever sees a GPU as free that an earlier one gave away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from muster.api import names
from muster.api.status import TaskPlacement
from muster.kube.errors import ApiError, Invalid, KubeError
from muster.kube.events import Recorder, Reference
from muster.kube.objects import DLJob, DLQueue, Meta, Node, Pod, gpus_of
from muster.kube.store import Store
from muster.kube.view import ClusterView
from muster.scheduling.decisions import Decision, Place, Preempt, Reason, Wait
from muster.scheduling.planner import Settings, plan
from muster.scheduling.snapshot import Gang, Queue, Snapshot
from muster_operator import manifests, metrics
from muster_operator.foreign import ForeignPods
from muster_operator.hands import Hands, Refused, Service
from muster_operator.jobs import Job, Unreadable, gang_of, read
from muster_operator.lifecycle import Step, next_step
from muster_operator.record import Record

log = logging.getLogger("muster.operator")

PLAN_SECONDS = 0.05
"""Least time between two plans: what arrives in between is planned together."""
SAY_SECONDS = 10.0
"""Least time between two status writes that only bring newer numbers to the same reason."""
SAY_AT_ONCE = 100
"""Most waiting jobs that are told their reason after one plan; the others hear after the next."""
RETRY_SECONDS = 2.0
CHECK_AGAIN_SECONDS = 30.0


class PriorityClass(msgspec.Struct):
    """What is read of a PriorityClass."""

    metadata: Meta
    value: int = 0


class QueueSpec(msgspec.Struct):
    gpus: int | None = None


_decode_queue_spec = msgspec.json.Decoder(QueueSpec | None).decode


@dataclass(slots=True)
class Stores:
    """Everything that the operator watches."""

    view: ClusterView = field(default_factory=ClusterView)
    queues: Store[DLQueue] = field(default_factory=Store)
    services: Store[Service] = field(default_factory=Store)
    priorities: Store[PriorityClass] = field(default_factory=Store)

    async def wait_synced(self) -> None:
        await self.view.wait_synced()
        for store in (self.queues, self.services, self.priorities):
            await store.synced.wait()


class Controller:
    """Bring every job to where it should be; run `run()` as a task."""

    def __init__(
        self, stores: Stores, hands: Hands, recorder: Recorder, settings: Settings, clock: Callable[[], float] = time.time
    ) -> None:
        self.stores, self.view, self._hands, self._recorder = stores, stores.view, hands, recorder
        self._settings, self._clock = settings, clock
        self._foreign = ForeignPods(hands, recorder, clock)
        self._jobs: dict[str, Job] = {}
        self._gangs: dict[str, tuple[Job, Gang]] = {}
        self._pods: dict[str, dict[str, Pod]] = {}
        self._dirty: set[str] = set()
        self._busy: set[str] = set()
        self._checked: set[str] = set()
        self._said: dict[str, float] = {}
        self._wakes: dict[str, float] = {}
        self._plan_wanted, self._plan_at, self._planned = True, float("inf"), 0.0
        self._bell = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listen()

    async def run(self) -> None:
        """Work until cancelled."""
        await self.stores.wait_synced()
        log.info("synced: %d nodes, %d pods, %d jobs", len(self.view.nodes), len(self.view.pods), len(self.view.jobs))
        try:
            while True:
                await self._turn()
                await self._rest()
        finally:
            for task in self._tasks:
                task.cancel()

    async def _turn(self) -> None:
        now = self._clock()
        self._dirty |= {key for key, at in self._wakes.items() if at <= now}
        due, self._dirty = self._dirty - self._busy, self._dirty & self._busy
        for key in sorted(due):
            self._wakes.pop(key, None)
            self._look_at(key, now)
        if (self._plan_wanted or self._plan_at <= now) and now - self._planned >= PLAN_SECONDS:
            self._plan_wanted, self._plan_at, self._planned = False, float("inf"), now
            await self._plan(now)

    async def _rest(self) -> None:
        """Sleep until something changes or is due."""
        next_plan = self._planned + PLAN_SECONDS if self._plan_wanted else self._plan_at
        due = min([next_plan, *self._wakes.values()])
        try:
            async with asyncio.timeout(max(0.0, due - self._clock()) if due != float("inf") else None):
                await self._bell.wait()
        except TimeoutError:
            pass
        self._bell.clear()

    # What changed

    def _listen(self) -> None:
        self.view.jobs.subscribe(self._job_changed)
        self.view.pods.subscribe(self._pod_changed)
        self.view.nodes.subscribe(self._node_changed)
        self.stores.services.subscribe(lambda old, new: self._mark((new or old).metadata.key))  # type: ignore[union-attr]
        self.stores.queues.subscribe(lambda old, new: self._queue_changed(old, new))
        self.stores.priorities.subscribe(lambda *_: self._want_plan())

    def _mark(self, key: str) -> None:
        self._dirty.add(key)
        self._bell.set()

    def _want_plan(self) -> None:
        self._plan_wanted = True
        self._bell.set()

    def _job_changed(self, old: DLJob | None, new: DLJob | None) -> None:
        self._mark((new or old).metadata.key)  # type: ignore[union-attr]

    def _queue_changed(self, old: DLQueue | None, new: DLQueue | None) -> None:
        if old is None or new is None or bytes(old.spec) != bytes(new.spec):
            self._want_plan()

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        name, key = pod.metadata.label(names.JOB), pod.metadata.key
        if name is not None:
            job = f"{pod.metadata.namespace}/{name}"
            mine = self._pods.setdefault(job, {})
            if new is not None:
                mine[key] = new
            elif mine.pop(key, None) and not mine:
                del self._pods[job]
            self._mark(job)
        if self._foreign.changed(old, new) or _frees(old, new):
            self._want_plan()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if old is not None and new is not None and _same_for_planning(old, new):
            return
        name = (new or old).metadata.name  # type: ignore[union-attr]
        for key, job in self._jobs.items():
            if any(place.node == name for place in job.status.placement):
                self._dirty.add(key)
        self._dirty |= {job for job, pods in self._pods.items() if any(pod.spec.node_name == name for pod in pods.values())}
        self._want_plan()

    def _alive(self, node: str) -> bool:
        found = self.view.nodes.get(node)
        return found is not None and found.ready

    # One job

    def _look_at(self, key: str, now: float) -> None:
        obj = self.view.jobs.get(key)
        if obj is None:
            self._forget(key)
            return
        try:
            job = read(obj, self._jobs.get(key))
        except Unreadable as error:
            log.error("%s", error)
            self._recorder.event(reference(obj.metadata), "Warning", "Unreadable", str(error))
            return
        if key not in self._jobs or _matters_to_plan(self._jobs[key], job):
            self._want_plan()
        self._jobs[key] = job
        pods = [p for p in self._pods.get(key, {}).values() if _owned(p, job)]
        step = next_step(job, pods, self._alive, now)
        if step.wake_at is not None:
            self._wakes[key] = step.wake_at
        if self._has_work(job, step):
            self._start(key, self._carry_out(job, step))
        elif self._needs_check(job):
            self._start(key, self._check(job))

    def _forget(self, key: str) -> None:
        job = self._jobs.pop(key, None)
        self._gangs.pop(key, None)
        self._said.pop(key, None)
        if job is not None:
            self._checked.discard(job.meta.uid)
            self._want_plan()

    def _has_work(self, job: Job, step: Step) -> bool:
        there = self.stores.services.get(job.key) is not None
        if step.service is there:
            step.service = None
        return bool(
            (step.status and step.status.patch())
            or step.annotate_job
            or step.annotate_pods
            or step.delete
            or step.destroy
            or step.create
            or step.remove
            or step.service is not None
        )

    def _start(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        """Run the work of one job beside the loop; until it ends the job gets no other."""

        async def guarded() -> None:
            try:
                await work
            except KubeError as error:
                metrics.ERRORS.inc()
                log.warning("%s: %s; tries again in %.0f s", key, error, RETRY_SECONDS)
                self._wakes[key] = self._clock() + RETRY_SECONDS
            except Exception:
                metrics.ERRORS.inc()
                log.exception("%s: a step failed; tries again in %.0f s", key, RETRY_SECONDS)
                self._wakes[key] = self._clock() + RETRY_SECONDS
            finally:
                self._busy.discard(key)
                self._bell.set()

        self._busy.add(key)
        self._spawn(guarded())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, job: Job, step: Step) -> None:
        if step.annotate_job:
            await self._hands.annotate_job(job.meta, step.annotate_job)
        if step.status is not None:
            await self._write(step.status)
        try:
            if step.service:
                await self._hands.create_service(job)
            if step.create:
                gang = job.status.placement
                bodies = [msgspec.json.encode(manifests.pod(job, place, gang)) for place in step.create]
                await _all(self._hands.create_pod(job, body) for body in bodies)
        except Refused as refused:
            await self._refused(job.key, str(refused))
            return
        if step.service is False:
            await self._hands.delete_service(job)
        await _all(self._hands.annotate_pod(pod, {**notice}) for pod, notice in step.annotate_pods)
        await _all(self._hands.delete_pod(pod) for pod in step.delete)
        await _all(self._hands.delete_pod(pod, grace_seconds=0) for pod in step.destroy)
        if step.remove:
            await self._hands.remove_job(job.meta)

    async def _refused(self, key: str, words: str) -> None:
        """A pod or the Service was refused at creation: the whole gang goes back, with the API server's words."""
        obj = self.view.jobs.get(key)
        if obj is None:
            return
        job = read(obj, self._jobs.get(key))
        if job.status.placement:
            record = Record(job, self._clock())
            record.take_back("PodRefused", words)
            await self._write(record)

    async def _write(self, record: Record) -> None:
        """Write a status, and tell people what is new in its timeline."""
        patch = record.patch()
        if not patch:
            return
        meta, known = record.job.meta, len(record.job.status.timeline)
        await self._hands.patch_status(meta, patch)
        for event in record.status.timeline[known:]:
            kind = "Warning" if event.event in ("Failed", "Restarting", "Requeued", "Preempted") else "Normal"
            self._recorder.event(reference(meta), kind, event.reason or event.event, event.message)  # type: ignore[arg-type]

    # A job that has just come

    def _needs_check(self, job: Job) -> bool:
        """Whether the API server has not been asked about the job's templates yet (they never change)."""
        if job.meta.uid in self._checked or job.finished or job.suspended or job.meta.deletion_timestamp is not None:
            return False
        admitted = next((c for c in job.status.conditions if c.type == "Admitted"), None)
        if job.status.attempt or (admitted and admitted.reason not in ("TemplateRefused", "Resumed", "Suspended")):
            self._checked.add(job.meta.uid)
            self._want_plan()
            return False
        return job.status.phase in (None, "Queued")

    async def _check(self, job: Job) -> None:
        sample = [
            TaskPlacement(pod=f"{job.meta.name}-{role}-0", role=role, index=0, rank=rank, node="any", gpus=list(range(s.gpus)))
            for rank, (role, s) in enumerate(job.shapes.items())
        ]
        try:
            await self._hands.check(job, replace(job, status=job.status.model_copy(update={"placement": sample})))
        except ApiError as error:
            await self._template_refused(job, error)
            return
        self._checked.add(job.meta.uid)
        self._want_plan()

    async def _template_refused(self, job: Job, error: ApiError) -> None:
        """A template that can never become a pod ends the job; one that quota or policy refuses today is tried again."""
        record = Record(job, self._clock())
        if isinstance(error, Invalid) or error.status == 400:
            record.finish(False, "InvalidTemplate", error.message)
        elif error.status in (403, 409):
            record.wait("TemplateRefused", error.message)
            self._wakes[job.key] = self._clock() + CHECK_AGAIN_SECONDS
        else:
            raise error
        await self._write(record)

    # All jobs

    async def _plan(self, now: float) -> None:
        await self._foreign.tend(self.view.usable(), now)
        gangs = [self._gang(job) for job in self._jobs.values() if self._plannable(job)]
        gangs += self._foreign.gangs()
        metrics.observe(self._jobs.values(), gangs)
        if any(not gang.placement or gang.leave is not None or gang.resize for gang in gangs):
            with metrics.PLAN_SECONDS.time():
                decisions = plan(Snapshot(self.view.usable(), tuple(gangs), self._queues()), now, self._settings)
            await self._apply(decisions, now)
        self._plan_at = min(self._plan_at, self._foreign.look_again)
        await self._report_queues(gangs)

    def _plannable(self, job: Job) -> bool:
        """Whether the planner should see the job: it holds GPUs, or waits for some and nothing is in its way."""
        if job.finished or job.meta.deletion_timestamp is not None:
            return False
        if job.status.placement:
            return True
        if job.suspended or job.status.phase == "Suspended" or job.meta.uid not in self._checked or job.key in self._busy:
            return False
        return not any(_owned(pod, job) and not pod.finished for pod in self._pods.get(job.key, {}).values())

    def _gang(self, job: Job) -> Gang:
        known = self._gangs.get(job.key)
        if known is None or known[0] is not job or job.spec.priority_class_name:
            priorities = {pc.metadata.name: pc.value for pc in self.stores.priorities.values()}
            known = self._gangs[job.key] = (job, gang_of(job, priorities))
        gang = known[1]
        return replace(gang, leave=None, resize=False) if gang.placement and job.key in self._busy else gang

    def _queues(self) -> dict[str, Queue]:
        found = {}
        for queue in self.stores.queues.values():
            spec = _decode_queue_spec(queue.spec)
            found[queue.metadata.key] = Queue(queue.metadata.key, spec.gpus if spec else None)
        return found

    async def _apply(self, decisions: Iterable[Decision], now: float) -> None:
        """Write what was decided. Placements and evictions are awaited: the next plan must see them."""
        writes: list[Coroutine[Any, Any, None]] = []
        told = 0
        for decision in decisions:
            metrics.DECISIONS.labels(type(decision).__name__, decision.reason).inc()
            job = self._jobs.get(decision.gang.name)
            match decision:
                case Place() if job is not None:
                    writes.append(self._place(job, decision, now))
                case Place():
                    writes.append(self._foreign.place(decision))
                case Preempt():
                    writes += [
                        self._preempt(self._jobs[v.name], decision, now) for v in decision.victims if v.name in self._jobs
                    ]
                case Wait() if decision.until is not None:
                    self._plan_at = min(self._plan_at, decision.until)
            if isinstance(decision, Place):
                continue
            if job is None:
                writes.append(self._foreign.wait(decision))
            elif told < SAY_AT_ONCE and self._worth_saying(job, decision, now):
                told += 1
                self._start(job.key, self._say(job, decision, now))
        await _all(self._logged(write) for write in writes)

    async def _logged(self, write: Awaitable[None]) -> None:
        """A write that fails is left to the next plan, which sees what came true."""
        try:
            await write
        except KubeError as error:
            metrics.ERRORS.inc()
            log.warning("a decision could not be written: %s", error)
            self._plan_at = min(self._plan_at, self._clock() + RETRY_SECONDS)

    async def _place(self, job: Job, decision: Place, now: float) -> None:
        record = Record(job, now)
        record.admit(decision.placement, decision.reason, decision.message)
        log.info("%s: %s: %s", job.key, decision.reason, decision.message)
        await self._write(record)
        if job.meta.annotation(names.MIGRATE) is not None:
            await self._hands.annotate_job(job.meta, {names.MIGRATE: None})

    async def _preempt(self, victim: Job, decision: Preempt, now: float) -> None:
        record = Record(victim, now)
        record.preempt(f"gave way to {decision.gang.name}, which has priority {decision.gang.priority}")
        log.info("%s: preempted for %s", victim.key, decision.gang.name)
        await self._write(record)

    def _worth_saying(self, job: Job, decision: Wait | Preempt, now: float) -> bool:
        if job.key in self._busy or decision.reason is Reason.BACK_OFF:
            return False  # while backing off, the reason for it says more
        if job.status.placement:
            return job.status.message != decision.message
        told = next((c for c in job.status.conditions if c.type == "Admitted"), None)
        if told is None or told.reason != decision.reason or job.status.phase != "Queued":
            return True
        return told.message != decision.message and now - self._said.get(job.key, 0.0) >= SAY_SECONDS

    async def _say(self, job: Job, decision: Wait | Preempt, now: float) -> None:
        self._said[job.key] = now
        record = Record(job, now)
        if job.status.placement:
            record.note("Stays", decision.reason, decision.message)
        else:
            record.wait(decision.reason, decision.message)
        await self._write(record)

    async def _report_queues(self, gangs: Iterable[Gang]) -> None:
        """Keep each DLQueue's status at what the plan was made from."""
        for queue in list(self.stores.queues.values()):
            mine = [gang for gang in gangs if gang.queue == queue.metadata.key]
            placed = [gang for gang in mine if gang.placement]
            status = {
                "observedGeneration": queue.metadata.generation,
                "gpusInUse": sum(place.gpus.bit_count() for gang in placed for place in gang.placement),
                "pending": len(mine) - len(placed),
                "running": len(placed),
            }
            before = msgspec.json.decode(queue.status) or {}
            if any(before.get(key) != value for key, value in status.items()):
                await self._logged(self._hands.patch_queue(queue.metadata, status))


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all; when some fail, wait for the others, then raise the first error."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def reference(meta: Meta) -> Reference:
    """The DLJob that an event is about."""
    return Reference(names.API_VERSION, "DLJob", meta.name, meta.namespace or "", meta.uid)


def _owned(pod: Pod, job: Job) -> bool:
    owner = pod.metadata.controller
    return owner is not None and owner.uid == job.meta.uid


def _frees(old: Pod | None, new: Pod | None) -> bool:
    """Whether GPUs come free, or are about to, by this change of a pod."""
    if old is None or old.finished or not gpus_of(old):
        return False
    return new is None or new.finished or (new.leaving and not old.leaving)


def _same_for_planning(old: Node, new: Node) -> bool:
    return (
        old.ready == new.ready
        and old.spec == new.spec
        and old.status.allocatable == new.status.allocatable
        and old.metadata.labels == new.metadata.labels
        and old.metadata.annotation(names.TOPOLOGY) == new.metadata.annotation(names.TOPOLOGY)
    )


def _matters_to_plan(old: Job, new: Job) -> bool:
    return (
        old.meta.uid != new.meta.uid
        or old.meta.generation != new.meta.generation
        or old.meta.annotations != new.meta.annotations
        or old.meta.deletion_timestamp != new.meta.deletion_timestamp
        or old.status.phase != new.status.phase
        or old.status.attempt != new.status.attempt
        or bool(old.status.placement) != bool(new.status.placement)
    )
