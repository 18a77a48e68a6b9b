"""The operator's Prometheus metrics; names follow its conventions (seconds, _total)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from prometheus_client import Counter, Gauge, Histogram

from muster.api.status import Phase
from muster.scheduling.gang import Gang

JOBS = Gauge("muster_jobs", "DLJobs by phase", ["phase"])
WAITING_GPUS = Gauge("muster_waiting_gpus", "GPUs that waiting gangs ask for")
RESERVED_GPUS = Gauge("muster_reserved_gpus", "GPUs that placed gangs hold")
DECISIONS = Counter("muster_decisions_total", "Decisions of the planner", ["decision", "reason"])
PLAN_SECONDS = Histogram("muster_plan_seconds", "Time of one plan", buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10))
ERRORS = Counter("muster_operator_errors_total", "Work and writes that failed and are tried again")
PLANNING_FAILING = Gauge("muster_planning_failing", "1 if the last plan failed, 0 if it ended well")
LAST_PLAN = Gauge("muster_last_plan_timestamp_seconds", "When a plan last ended well")
PLAN_OVERDUE = Gauge("muster_plan_overdue_seconds", "For how long a plan has been due, or has taken")
SET_ASIDE = Gauge("muster_set_aside", "Gangs and nodes that planning leaves out because the planner fails over them", ["kind"])
FAILING_GANGS = Gauge("muster_node_failing_gangs", "Owners whose programs failed on a node within the last hour", ["node"])
LEADER = Gauge("muster_operator_leader", "1 if this operator leads, 0 if it stands by")
WATCH_FAILED = Gauge(
    "muster_operator_watch_failed", "1 if a resource cannot be watched: decisions rest on what was read last", ["resource"]
)
PHASES: tuple[str, ...] = get_args(Phase)


def observe_phases(phases: Mapping[str, int]) -> None:
    """Set the number of DLJobs in each phase."""
    for phase in PHASES:
        JOBS.labels(phase).set(phases.get(phase, 0))


def observe_gangs(gangs: Sequence[Gang]) -> None:
    """Have the gauges of GPUs tell of these gangs; counted only when somebody asks, which is seldom, and not at each plan."""
    WAITING_GPUS.set_function(lambda: sum(gang.gpus for gang in gangs if not gang.placement))
    RESERVED_GPUS.set_function(lambda: sum(gang.held for gang in gangs))
