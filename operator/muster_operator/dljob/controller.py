"""The DLJob controller's front door: what the loop and planning ask of it."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from muster.api import names
from muster.scheduling.decisions import Move, Place, Reason, Resize, Wait
from muster.scheduling.gang import Gang
from muster_operator import metrics
from muster_operator.controller import Context, Controller, News
from muster_operator.dljob.decoding import DLJOBS
from muster_operator.dljob.gang import gang_of, held_gang, keeps_turn, kinds_of_pods, priority_of
from muster_operator.dljob.job import Job
from muster_operator.dljob.reconcile import Reconciler
from muster_operator.dljob.resize_check import ResizeCheck
from muster_operator.dljob.resources import PRIORITY_CLASSES, Priorities, Priority, PriorityClass
from muster_operator.dljob.rests import Rests
from muster_operator.dljob.status import Record
from muster_operator.dljob.status_writer import StatusWriter
from muster_operator.dljob.telling import JobTelling, news
from muster_operator.dljob.template_check import TemplateCheck
from muster_operator.dljob.unreadable import UnreadableJobs
from muster_operator.dljob.watch import KIND, Jobs, key_of
from muster_operator.storage.storage import GangStorage
from muster_operator.timestamps import stamp

log = logging.getLogger("muster.operator")

MOST_RUN_TIMES = 500
"""Finished jobs, the newest first, whose run times tell the planner how long jobs usually take."""


class _Translated(NamedTuple):
    """A gang and what it was made from."""

    job: Job
    priority: Priority
    without_wishes: bool
    storage: GangStorage
    stopping: bool
    rests_until: float
    gang: Gang


class DLJobs(Controller):
    """DLJobs: reconciled one by one, planned as gangs."""

    kind = KIND

    def __init__(self, context: Context) -> None:
        self._stores, self._work_queue, self._api_writer = context.stores, context.work_queue, context.api_writer
        self._reporter, self._storage = context.reporter, context.storage
        self._writer = StatusWriter(context)
        self.jobs = Jobs(context)
        self.check = TemplateCheck(context, self._writer)
        self._resizes = ResizeCheck(context, self.jobs, self._writer)
        self._rests = Rests(context.work_queue)
        self._telling = JobTelling(context, self._writer)
        self._reconciler = Reconciler(context, self.jobs, self.check, self._writer, self._telling)
        self._unreadable = UnreadableJobs(context)
        self._gangs: dict[str, _Translated] = {}
        self._planned: dict[str, Gang] = {}
        """The gangs of the last plan. Kept, a plan over 10,000 queued jobs takes 80 ms less than with each looked at anew."""
        self._stale: set[str] = set()
        """Jobs whose gang may be another at the next plan."""
        self._classes: tuple[PriorityClass, ...] = ()
        self._priorities = Priorities(())
        self._run_times: tuple[int, Sequence[float]] = (0, ())
        self._storage.subscribe(lambda gangs: self._stale.update(filter(self.owns, gangs)))

    # The loop

    def reconcile(self, name: str, now: float) -> None:
        self._stale.add(name)  # work may begin, or have ended
        self._unreadable.reconcile(name, now)
        job = self.jobs.get(name)
        if job is not None:
            self._reconciler.reconcile(job, now)
        else:
            self.check.forget(name)
            self._rests.forget(name)
            self._reconciler.forget(name)
            self._resizes.forget(name)
            self._gangs.pop(name, None)
            self._storage.forget(name)

    # What planning sees

    def gangs(self) -> Collection[Gang]:
        classes = tuple(self._stores.of(PRIORITY_CLASSES).values())
        self._stale |= self.jobs.take_touched()
        if classes != self._classes:
            self._classes, self._priorities = classes, Priorities(classes)
            self._stale |= {job.key for job in self.jobs.all()}
        self._stale = {name for name in self._stale if self._sees_anew(name)}
        return self._planned.values()

    def _sees_anew(self, name: str) -> bool:
        """Take in a job as it is now; return whether its gang may be another next time although nothing of the job changes."""
        job = self.jobs.get(name)
        gang, is_sound = self._contained(job) if job is not None else (None, True)
        if gang is not None:
            self._planned[name] = gang
        else:
            self._planned.pop(name, None)
        rests = gang is not None and gang.not_before > 0.0
        return job is not None and (not is_sound or rests or job.has_wishes or self._is_held_up(job))

    def _is_held_up(self, job: Job) -> bool:
        """Whether the planner may see a job once its work in flight has ended; that its templates pass marks it anyway."""
        return self.check.has_passed(job) and self._work_queue.is_changing(key_of(job.key))

    def run_times(self) -> Sequence[float]:
        version = self.jobs.finished_version
        if self._run_times[0] != version:
            ended = [job for job in self.jobs.finished() if job.gpus and job.status.gpu_seconds]
            newest = heapq.nlargest(MOST_RUN_TIMES, ended, key=lambda job: (stamp(job.status.finished_at), job.key))
            self._run_times = version, tuple(job.status.gpu_seconds / job.gpus for job in reversed(newest))
        return self._run_times[1]

    def owns(self, gang: str) -> bool:
        return gang in self._gangs

    def defer(self, gang: str) -> bool:
        return self._work_queue.plan_after(key_of(gang))

    def _changes(self, job: Job) -> bool:
        """Whether work in flight may change what the planner should see of a job; then it is planned again after that."""
        return self._work_queue.is_changing(key_of(job.key)) and self.defer(job.key)

    def _is_plannable(self, job: Job) -> bool:
        """Whether the planner should see the job: it holds GPUs, or waits for some and nothing is in its way."""
        if not job.plannable or job.status.placement:
            return job.plannable
        if not self.check.has_passed(job) or self.jobs.in_the_way(job):
            return False
        return not self._is_stopping(job) or keeps_turn(job)

    def _is_stopping(self, job: Job) -> bool:
        """Whether pods of an earlier placement, or writes about them, are still on their way."""
        return not job.status.placement and (self._changes(job) or not all(pod.finished for pod in self.jobs.pods_of(job)))

    def _contained(self, job: Job) -> tuple[Gang | None, bool]:
        """The job as a gang, if the planner should see it, and True; where that fails, what it holds even so, and False."""
        try:
            return (self._gang(job) if self._is_plannable(job) else None), True
        except Exception as error:
            self._reporter.failed(f"DLJob {job.key}: cannot be planned", error)
            self._telling.fault(job, error)
            return held_gang(job), False

    def _gang(self, job: Job) -> Gang:
        """The job as a gang, the same object while nothing about the gang changes.

        Wishes of the user (to move, to be resized) are left out while work is in flight: they may be met by then. So is a size
        that the API server refused a moment ago.
        """
        priority = priority_of(job, self._priorities, self.jobs.pods_of(job) if job.status.placement else ())
        without_wishes = job.has_wishes and self._changes(job)
        without_wishes = without_wishes or (job.is_resized and self._resizes.is_refused(job))
        before = self._gangs.get(job.key)
        storage = self._storage.of(job.key, job.meta.namespace or "", kinds_of_pods(job))
        stopping, rests_until = self._is_stopping(job), self._rests.end(job)
        made_from = (priority, without_wishes, storage, stopping, rests_until)
        if before is not None and before.job is job and before[1:6] == made_from:
            return before.gang
        gang = replace(gang_of(job, priority, storage, stopping=stopping), not_before=rests_until)
        if without_wishes:
            gang = replace(gang, leave=None, resize=False)
        gang = before.gang if before is not None and before.gang == gang else gang
        self._gangs[job.key] = _Translated(job, *made_from, gang)
        return gang

    # What planning decides

    async def place(self, decision: Place, now: float) -> None:
        await self._admit(decision, now)

    async def move(self, decision: Move, now: float) -> None:
        await self._change(decision, now)

    async def resize(self, decision: Resize, now: float) -> None:
        await self._change(decision, now)

    async def _change(self, decision: Move | Resize, now: float) -> None:
        """Give up the present placement only for one whose pods the API server would create."""
        if await self._resizes.passes(self._gangs[decision.gang.name].job, decision.placement, now):
            await self._admit(decision, now)

    async def requeue(self, gang: Gang, reason: Reason, message: str, now: float) -> None:
        planned = self._gangs[gang.name]
        if not planned.job.status.placement:
            return
        log.info("%s: %s: %s", gang.name, reason, message)
        record = Record(planned.job, now)
        record.preempt(message)
        self._follow(planned, await self._writer.write(record))

    def news(self, wait: Wait) -> News:
        job = self._told(wait)
        return news(job, wait) if job is not None else News.NONE

    async def tell(self, wait: Wait, now: float) -> None:
        job = self._told(wait)
        if job is not None and news(job, wait) is not News.NONE:
            await self._telling.write(job, wait, now)

    def _told(self, wait: Wait) -> Job | None:
        """The job that is to be told of a wait, as it is now; None if that one is gone."""
        planned, job = self._gangs.get(wait.gang.name), self.jobs.get(wait.gang.name)
        return job if planned is not None and job is not None and planned.job.meta.uid == job.meta.uid else None

    def report(self, gangs: Sequence[Gang], waits: Sequence[Wait]) -> None:  # noqa: ARG002 (all jobs count, planned or not)
        self.check.behind_others = any(wait.reason is Reason.BEHIND_IN_QUEUE for wait in waits)
        metrics.observe_phases(self.jobs.phases)

    async def _admit(self, decision: Place | Move | Resize, now: float) -> None:
        """Write the placement, which is the reservation; a wish to move is met by it."""
        planned = self._gangs[decision.gang.name]
        log.info("%s: %s: %s", planned.job.key, decision.reason, decision.message)
        record = Record(planned.job, now)
        record.admit(decision.placement, decision.reason, decision.message)
        admitted = await self._writer.write(record)
        self._follow(planned, admitted)
        if admitted is not None and admitted.migrates:
            await self._api_writer.annotate(DLJOBS, admitted.meta, {names.MIGRATE: None})

    def _follow(self, planned: _Translated, written: Job | None) -> None:
        """What else this plan decided about a gang is written upon what was written just now, and not at all if it is gone."""
        if written is not None:
            self._gangs[written.key] = planned._replace(job=written)
