"""One edit of a job's status: a copy that may be changed, and the patch that turns the server's status into it.

All of an edit is of one moment. The timeline keeps its first event and the newest ones, so a job that was requeued a hundred
times still shows when it arrived.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from muster.api.status import TIMELINE_LIMIT, Condition, ConditionType, Phase, TaskPlacement, TimelineEvent
from muster_operator.dljob.job import Job
from muster_operator.timestamps import moment, stamp

MOST_NODES = 4
"""The nodes of a placement that are named in one line."""


class StatusEdit:
    """The status of a job, to be changed; `now` is in seconds since 1970."""

    def __init__(self, job: Job, now: float) -> None:
        self.job, self.now = job, now
        self.status = job.status.model_copy(deep=True)
        self.status.observed_generation = job.meta.generation
        self._summarise()

    def patch(self) -> dict[str, Any]:
        """Return the merge patch from the job's status to this one; empty if they are equal."""
        before = self.job.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        after = self.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        changed: dict[str, Any] = {key: value for key, value in after.items() if before.get(key) != value}
        return changed | {key: None for key in before if key not in after}

    def _arrive(self, reason: str, message: str) -> None:
        """Note the first arrival, which decides the job's place in the queue for good."""
        if self.status.queued_at is None:
            self.status.queued_at = self.job.meta.creation_timestamp or moment(self.now)
            self.status.timeline.append(
                TimelineEvent(time=self.status.queued_at, event="Queued", reason=reason, message=message)
            )

    def _release(self) -> None:
        if self.status.placement:
            self._count_service()
            self.status.released_at = moment(self.now)
        self.status.placement = []
        self.status.started_at = None
        self._summarise()
        self.status.replicas = 0

    def _summarise(self) -> None:
        """Say in figures and names what the placement says pod by pod."""
        placement, nodes = self.status.placement, list(dict.fromkeys(place.node for place in self.status.placement))
        self.status.gpus, self.status.wanted_gpus = sum(len(place.gpus) for place in placement), self.job.gpus
        self.status.nodes = ",".join(nodes[:MOST_NODES]) + (f",+{len(nodes) - MOST_NODES}" if len(nodes) > MOST_NODES else "")

    def _count_service(self) -> None:
        """Add what the gang ran in the present placement to the job's attained service."""
        self._count_gpus(self.status.placement)
        self.status.ran_seconds += round(self._ran(), 1)

    def _count_gpus(self, places: Iterable[TaskPlacement]) -> None:
        """Add what these pods had of their GPUs in the present placement."""
        self.status.gpu_seconds += round(sum(len(place.gpus) for place in places) * self._ran(), 1)

    def _ran(self) -> float:
        """The seconds for which the whole gang has run in the present placement."""
        return max(0.0, self.now - stamp(self.status.started_at)) if self.status.started_at else 0.0

    def _phase(self, phase: Phase, message: str) -> None:
        self.status.phase = phase
        if phase != "Queued":
            self.status.position = None
        self.status.message = message

    def _condition(self, kind: ConditionType, holds: bool, reason: str, message: str) -> None:
        old = next((c for c in self.status.conditions if c.type == kind), None)
        status = "True" if holds else "False"
        since = old.last_transition_time if old and old.status == status else moment(self.now)
        new = Condition(
            type=kind,
            status="True" if holds else "False",
            observed_generation=self.job.meta.generation,
            last_transition_time=since,
            reason=reason,
            message=message,
        )
        self.status.conditions = sorted([*(c for c in self.status.conditions if c.type != kind), new], key=lambda c: c.type)

    def _event(self, event: str, reason: str, message: str) -> None:
        timeline = self.status.timeline
        if timeline and (timeline[-1].event, timeline[-1].reason, timeline[-1].message) == (event, reason, message):
            return
        timeline.append(TimelineEvent(time=moment(self.now), event=event, reason=reason, message=message))
        if len(timeline) > TIMELINE_LIMIT:
            self.status.timeline = [timeline[0], *timeline[-(TIMELINE_LIMIT - 1) :]]
