"""Policies of a simulation: muster's planner, called as the operator calls it, and the schedulers of other papers.

The other schedulers validate the simulator against published figures and serve as baselines. Some need job lengths, which an
`Oracle` supplies; muster's planner never has one.
"""

from __future__ import annotations

from typing import Protocol

from muster.scheduling.profile import Shape


class Oracle(Protocol):
    """Job properties that no real scheduler knows."""

    def remaining(self, name: str) -> float:
        """Return the remaining work of a job, in the unit of `Job.work`."""

    def rate_on(self, name: str, shape: Shape) -> float:
        """Return the rate that a job would have now, alone, on GPUs of a shape."""
