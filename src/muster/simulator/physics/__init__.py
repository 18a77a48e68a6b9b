"""How fast a job trains where it is, and what moving it costs: what is true, and what no policy is told.

Rates are in the unit of `Job.work` a second. Each module takes its figures from measurements that others published.
"""

from __future__ import annotations

from typing import Protocol

from muster.scheduling.profile import UNKNOWN, CoLocation, Profile, Shape
from muster.simulator.jobs import Job


class Physics(Protocol):
    """The truth about jobs."""

    placement_matters: bool
    """Whether shape and company change a rate; where they do not, the engine spares itself to work them out."""

    rates_drift: bool
    """Whether a job's rates change with its progress: then each gang has a profile of its own beside that of its kind."""

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:
        """Progress a second of a job that has `done` of its work behind it."""

    def milestone(self, job: Job, done: float) -> float:
        """The progress up to which that rate holds, at most `job.work`."""

    def resume_seconds(self, job: Job) -> float:
        """What a suspend and a resume on the same nodes cost."""

    def move_seconds(self, job: Job, before: Shape, after: Shape) -> float:
        """What going on elsewhere, or with another number of GPUs, costs."""

    def profile(self, job: Job) -> Profile:
        """What can be measured of the job while it runs alone, but its rates."""

    def busy(self, job: Job, co_location: CoLocation) -> float:
        """The share of time in which the job keeps its GPUs busy, 0 to 1."""


class Ideal:
    """Every job runs at rate 1 wherever it has all its GPUs: `work` is its duration in seconds."""

    placement_matters = False
    rates_drift = False

    def __init__(self, resume_seconds: float = 0.0, move_seconds: float = 0.0) -> None:
        self._resume, self._move = resume_seconds, move_seconds

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:
        return 1.0

    def milestone(self, job: Job, done: float) -> float:
        return job.work

    def resume_seconds(self, job: Job) -> float:
        return self._resume

    def move_seconds(self, job: Job, before: Shape, after: Shape) -> float:
        return self._move

    def profile(self, job: Job) -> Profile:
        return UNKNOWN

    def busy(self, job: Job, co_location: CoLocation) -> float:
        return 1.0
