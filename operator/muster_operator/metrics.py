"""What the operator tells Prometheus; names follow its conventions (seconds, _total)."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from muster.scheduling.gang import Gang
from muster_operator.jobs import Job

JOBS = Gauge("muster_jobs", "DLJobs by phase", ["phase"])
WAITING_GPUS = Gauge("muster_waiting_gpus", "GPUs that waiting gangs ask for")
RESERVED_GPUS = Gauge("muster_reserved_gpus", "GPUs that placed gangs hold")
DECISIONS = Counter("muster_decisions_total", "Decisions of the planner", ["decision", "reason"])
PLAN_SECONDS = Histogram("muster_plan_seconds", "Time of one plan", buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10))
ERRORS = Counter("muster_operator_errors_total", "Steps and writes that failed and are tried again")
LEADER = Gauge("muster_operator_leader", "1 if this operator decides, 0 if it stands by for another")
BLIND = Gauge("muster_operator_blind", "1 if a resource cannot be listed: decisions go by what was seen last", ["resource"])
PHASES = ("Queued", "Admitted", "Running", "Suspended", "Succeeded", "Failed")


def observe(jobs: Iterable[Job], gangs: Iterable[Gang]) -> None:
    """Set the gauges to what a plan is made from."""
    phases: Tally[str] = Tally(job.status.phase or "Queued" for job in jobs)
    for phase in PHASES:
        JOBS.labels(phase).set(phases[phase])
    waiting = reserved = 0
    for gang in gangs:
        if gang.placement:
            reserved += sum(place.gpus.bit_count() for place in gang.placement)
        else:
            waiting += gang.gpus
    WAITING_GPUS.set(waiting)
    RESERVED_GPUS.set(reserved)
