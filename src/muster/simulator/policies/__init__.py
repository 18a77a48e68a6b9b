"""Who decides in a simulation: muster's planner, called as the operator calls it, and the schedulers of other papers.

The others are here to check the simulator against published figures, and to measure muster against. Those that know how long
a job will run are told by `Oracle`; muster's planner never is.
"""

from __future__ import annotations

from typing import Protocol

from muster.scheduling.profile import Shape


class Oracle(Protocol):
    """Who knows what no real scheduler knows."""

    def remaining(self, name: str) -> float:
        """The work that a job has still to do, in the unit of `Job.work`."""

    def rate_on(self, name: str, shape: Shape) -> float:
        """The progress a second that a job would make now, alone, on GPUs of a shape."""
