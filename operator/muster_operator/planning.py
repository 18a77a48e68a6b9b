"""All jobs at once: a snapshot, one plan, and the writes that carry it out.

The placements and evictions of a plan are all written before the next plan looks at the stores, which hold the server's
answers: no plan ever sees a GPU as free that an earlier one gave away. What a gang waits for is written beside that, and not
more often than people can read.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from muster.api import names
from muster.kube.errors import KubeError
from muster.scheduling.decisions import Assignment, Decision, Move, Place, Preempt, Reason, Requeue, Resize, Verb, Wait
from muster.scheduling.gang import Gang
from muster.scheduling.placing.placement import describe
from muster.scheduling.planner import Planner
from muster.scheduling.settings import Settings
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.speed.occupancy import gpus_by_node
from muster_operator import metrics
from muster_operator.external_pods import ExternalPods
from muster_operator.jobs import Job, gang_of, stamp
from muster_operator.record import Record
from muster_operator.work_queue import RETRY_SECONDS, WorkQueue, all_of

log = logging.getLogger("muster.operator")

SAY_SECONDS = 10.0
"""Least time between two status writes that only bring newer numbers to the same reason."""
SAY_AT_ONCE = 100
"""Most waiting jobs that are told their reason after one plan; the others hear after the next."""

VERBS: frozenset[Verb] = frozenset({Place, Move, Resize, Requeue, Preempt, Wait})
"""What the operator can execute."""
ENDED = 500
"""Jobs that ended last, from whose run times it is told what others promise."""


class Planning:
    """Plan, and carry out what was planned."""

    def __init__(self, work_queue: WorkQueue, settings: Settings) -> None:
        self._work_queue, self._planner = work_queue, Planner(settings)
        self._next_slice = 0.0
        self._external_pods = ExternalPods(work_queue)
        self._gangs: dict[str, tuple[Job, Gang]] = {}
        self._said: dict[str, float] = {}

    async def run(self, now: float) -> None:
        """Make one plan from what is known now, and write what it decides."""
        work_queue = self._work_queue
        await self._external_pods.tend(now)
        gangs = [*(self._gang(job) for job in work_queue.jobs.values() if self._plannable(job)), *self._external_pods.gangs()]
        self._gangs = {key: known for key, known in self._gangs.items() if key in work_queue.jobs}
        metrics.observe(work_queue.jobs.values(), gangs)
        ended = self._ended() if any(gang.sharing.slices for gang in gangs) else ()
        snapshot = Snapshot(work_queue.view.usable(), tuple(gangs), work_queue.stores.quotas(), ended=ended)
        with metrics.PLAN_SECONDS.time():
            decisions = self._decide(snapshot, now)
        await self._apply(decisions, snapshot, now)
        await self._report_queues(gangs)

    def _decide(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        """Ask the planner: for an introspective pass when a slice ends, else, if anybody wants something, a reactive one."""
        if any(gang.sharing.slices for gang in snapshot.gangs):
            due = self._next_slice <= now
            self._next_slice = now + self._planner.settings.slice_seconds if due else self._next_slice
            self._work_queue.plan_by(self._next_slice)
            if due:
                return self._planner.introspect(snapshot, now)
        if any(not gang.placement or gang.leave is not None or gang.resize for gang in snapshot.gangs):
            return self._planner.plan(snapshot, now)
        return ()

    def _ended(self) -> tuple[float, ...]:
        """How long the jobs that ended lately ran, as far as they are still there."""
        done = [job for job in self._work_queue.jobs.values() if job.finished and job.gpus and job.status.gpu_seconds]
        lately = sorted(done, key=lambda job: (stamp(job.status.finished_at), job.key))[-ENDED:]
        return tuple(job.status.gpu_seconds / job.gpus for job in lately)

    def _plannable(self, job: Job) -> bool:
        """Whether the planner should see the job: it holds GPUs, or waits for some and nothing is in its way."""
        if not job.plannable or job.status.placement:
            return job.plannable
        if job.meta.uid not in self._work_queue.checked:
            return False
        return not self._is_deferred(job) and all(pod.finished for pod in self._work_queue.pods_of(job))

    def _is_deferred(self, job: Job) -> bool:
        """Whether work is under way for the job, so that it may not be what it seems; then it is planned after that."""
        in_flight = job.key in self._work_queue.in_flight
        if in_flight:
            self._work_queue.deferred.add(job.key)
        return in_flight

    def _gang(self, job: Job) -> Gang:
        known = self._gangs.get(job.key)
        if known is None or known[0] is not job or job.spec.priority_class_name:
            known = self._gangs[job.key] = (job, gang_of(job, self._work_queue.stores.priority_classes()))
        gang = known[1]
        wishes = gang.placement and (gang.leave is not None or gang.resize)
        return replace(gang, leave=None, resize=False) if wishes and self._is_deferred(job) else gang

    async def _apply(self, decisions: Iterable[Decision], snapshot: Snapshot, now: float) -> None:
        """Write what is to be done, all of it; then tell those who wait, so many at a time."""
        writes: list[Coroutine[Any, Any, None]] = []
        told = 0
        for decision in decisions:
            metrics.DECISIONS.labels(type(decision).__name__, decision.reason).inc()
            possible = not isinstance(decision, Assignment) or _is_free(decision, snapshot)
            if possible:
                writes += self._writes(decision, now)
            job, news = self._work_queue.jobs.get(decision.gang.name), _news(decision, possible)
            if news and job is None:
                writes.append(self._external_pods.wait(news))
            elif news and job and self._worth_saying(job, news, now):
                if told < SAY_AT_ONCE:
                    self._work_queue.start(job.key, self._say(job, news, now))
                else:
                    self._work_queue.plan_by(now + 1.0)
                told += 1
        await all_of(self._logged(write) for write in writes)

    def _writes(self, decision: Decision, now: float) -> list[Coroutine[Any, Any, None]]:
        job = self._work_queue.jobs.get(decision.gang.name)
        match decision:
            case Assignment():
                return [self._place(job, decision, now) if job else self._external_pods.place(decision)]
            case Requeue():
                return self._give_way([decision.gang], decision.message, now)
            case Preempt():
                message = f"gave way to {decision.gang.name}, which has priority {decision.gang.priority}"
                return self._give_way(decision.victims, message, now)
            case Wait() if decision.until is not None:
                self._work_queue.plan_by(decision.until)
        return []

    async def _logged(self, write: Awaitable[None]) -> None:
        """A write that fails is left to the next plan, which sees what came true."""
        try:
            await write
        except KubeError as error:
            self._work_queue.failed("a decision could not be written", error)
            self._work_queue.plan_by(self._work_queue.clock() + RETRY_SECONDS)

    async def _place(self, job: Job, decision: Assignment, now: float) -> None:
        record = Record(job, now)
        record.admit(decision.placement, decision.reason, decision.message)
        log.info("%s: %s: %s", job.key, decision.reason, decision.message)
        await self._work_queue.write(record)
        if job.meta.annotation(names.MIGRATE) is not None:
            await self._work_queue.api_writer.annotate_job(job.meta, {names.MIGRATE: None})

    def _give_way(self, gangs: Iterable[Gang], message: str, now: float) -> list[Coroutine[Any, Any, None]]:
        victims = [job for gang in gangs if (job := self._work_queue.jobs.get(gang.name)) and not self._is_deferred(job)]
        return [self._preempt(victim, message, now) for victim in victims]

    async def _preempt(self, victim: Job, message: str, now: float) -> None:
        record = Record(victim, now)
        record.preempt(message)
        log.info("%s: %s", victim.key, message)
        await self._work_queue.write(record)

    def _worth_saying(self, job: Job, decision: Wait | Preempt, now: float) -> bool:
        if job.key in self._work_queue.in_flight or decision.reason is Reason.BACK_OFF:
            return False  # while backing off, the reason for it says more
        if job.status.placement:
            return job.status.message != decision.message
        told = next((condition for condition in job.status.conditions if condition.type == "Admitted"), None)
        if told is None or told.reason != decision.reason or job.status.phase != "Queued":
            return True
        soonest = self._said.get(job.key, 0.0) + SAY_SECONDS
        if told.message != decision.message and soonest > now:
            self._work_queue.plan_by(soonest)
        return told.message != decision.message and soonest <= now

    async def _say(self, job: Job, decision: Wait | Preempt, now: float) -> None:
        self._said[job.key] = now
        record = Record(job, now)
        if job.status.placement:
            record.note("Stays", decision.reason, decision.message)
            if decision.reason is Reason.NOT_THERE:
                await self._work_queue.api_writer.annotate_job(job.meta, {names.MIGRATE: None})
        else:
            record.wait(decision.reason, decision.message)
        await self._work_queue.write(record)

    async def _report_queues(self, gangs: Iterable[Gang]) -> None:
        """Keep each DLQueue's status at what the plan was made from."""
        by_queue: dict[str, list[Gang]] = {}
        for gang in gangs:
            by_queue.setdefault(gang.queue, []).append(gang)
        for queue in list(self._work_queue.stores.queues.values()):
            mine = by_queue.get(queue.metadata.key, [])
            placed = [gang for gang in mine if gang.placement]
            status = {
                "observedGeneration": queue.metadata.generation,
                "gpusInUse": sum(place.gpus.bit_count() for gang in placed for place in gang.placement),
                "pending": len(mine) - len(placed),
                "running": len(placed),
            }
            before = msgspec.json.decode(queue.status) or {}
            if any(before.get(key) != value for key, value in status.items()):
                await self._logged(self._work_queue.api_writer.patch_queue(queue.metadata, status))


def _is_free(decision: Assignment, snapshot: Snapshot) -> bool:
    """Say whether the GPUs of a placement are free by now, or the gang's own."""
    own = gpus_by_node(decision.gang.placement)
    wanted = gpus_by_node(decision.placement).items()
    return all(not gpus & ~(snapshot.nodes[node].free | own.get(node, 0)) for node, gpus in wanted)


def _news(decision: Decision, possible: bool) -> Wait | Preempt | None:
    """What the gang is told: why it waits, be it for others that give way to it and are still stopping."""
    if isinstance(decision, Assignment) and not possible:
        message = f"waits for pods that are stopping; then has {describe(decision.placement)}"
        return Wait(decision.gang, Reason.PODS_STOPPING, message)
    return decision if isinstance(decision, Wait | Preempt) else None
