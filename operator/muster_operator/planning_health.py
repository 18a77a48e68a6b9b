"""Whether planning works: it fails, or stands still with work to do, or is well. /readyz and the metrics say so."""

from __future__ import annotations

from muster_operator import metrics
from muster_operator.reporting import in_words
from muster_operator.work_queue import WorkQueue

FAILING_SECONDS = 10.0
"""How long planning may fail before the operator is not ready: a single failed plan is made again after 2 s."""
STILL_SECONDS = 30.0
"""How long a plan may be due, or take, before the operator is not ready."""


class PlanningHealth:
    """What became of the last plans."""

    def __init__(self, work_queue: WorkQueue) -> None:
        self._work_queue, self._made = work_queue, work_queue.pace()
        self._failing_since: float | None = None
        self._why = ""
        self._begun: float | None = None
        metrics.PLAN_OVERDUE.set_function(lambda: round(self.overdue, 1))

    def begin(self) -> None:
        """Note that a plan begins."""
        self._begun = self._work_queue.pace()

    def end(self, error: Exception | None = None) -> None:
        """Note that a plan has ended, well unless there is an error."""
        self._begun = None
        metrics.PLANNING_FAILING.set(error is not None)
        if error is None:
            self._failing_since = None
            metrics.LAST_PLAN.set(self._work_queue.clock())
        else:
            self._why = in_words(error)
            self._failing_since = self._work_queue.pace() if self._failing_since is None else self._failing_since

    @property
    def overdue(self) -> float:
        """The seconds for which a plan has been due, or has taken."""
        due = self._work_queue.plan_due_at if self._begun is None else self._begun
        return max(0.0, self._work_queue.pace() - max(due, self._made))

    @property
    def trouble(self) -> str:
        """What is the matter with planning; "" if nothing is."""
        failing = 0.0 if self._failing_since is None else self._work_queue.pace() - self._failing_since
        if failing > FAILING_SECONDS:
            return f"planning has failed for {failing:.0f} s: {self._why}"
        if self.overdue > STILL_SECONDS:
            return f"planning stands still: a plan has been due for {self.overdue:.0f} s"
        return ""
