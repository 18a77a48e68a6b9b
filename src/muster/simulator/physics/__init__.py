"""Physics: the true training rate of a job on a placement, and the cost of a move. No policy sees it.

Rates are in the unit of `Job.work` per second. Each module is based on published measurements.
"""

from __future__ import annotations

from typing import Protocol

from muster.scheduling.profile import UNKNOWN, CoLocation, Profile, Shape
from muster.simulator.jobs import Job


class Physics(Protocol):
    """The true rates and costs of jobs."""

    placement_matters: bool
    """Whether rates depend on shape and co-location; if not, the engine does not compute them."""

    rates_drift: bool
    """Whether a job's rates change with its progress: each gang then has its own profile in addition to that of its kind."""

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:
        """Return the progress per second of a job that has done `done` of its work."""

    def milestone(self, job: Job, done: float) -> float:
        """Return the progress up to which that rate holds, at most `job.work`."""

    def resume_seconds(self, job: Job) -> float:
        """Return the seconds lost by a suspend and a resume on the same nodes."""

    def move_seconds(self, job: Job, before: Shape, after: Shape) -> float:
        """Return the seconds lost by a move to other nodes or another number of GPUs."""

    def profile(self, job: Job) -> Profile:
        """Return the job's measurable profile without rates."""

    def busy(self, job: Job, co_location: CoLocation) -> float:
        """Return the utilisation of the job's GPUs, 0 to 1."""


class Ideal:
    """Every job runs at rate 1 on any placement: `work` is its duration in seconds."""

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
