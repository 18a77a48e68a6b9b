"""Whether the placement in a job's status is one of this very job.

The operator writes no other. But a status can be restored from a backup, edited, or have been written by an operator that saw
an earlier job of this name; and a gang must not start in part, on another's GPUs, or keep the planner from its work.
"""

from __future__ import annotations

import re
from collections import Counter

from muster.api import names
from muster.api.status import RoleName, TaskPlacement
from muster.scheduling.counting import counted
from muster.scheduling.topology.links import MOST_GPUS
from muster_operator.dljob.job import Job

_NODE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)
"""What a node can be called: a DNS subdomain."""


def misfit(job: Job) -> str | None:
    """Return why the placement of a job cannot be its own, in one sentence; None if it can."""
    status = job.status
    if status.placed_uid not in (None, job.meta.uid):
        return f"it was made for another job of this name, uid {status.placed_uid}"
    if status.phase not in ("Admitted", "Running"):
        return f"a job in phase {status.phase or 'Queued'} has none"
    limits = _limits(job)
    for place in status.placement:
        wrong = _wrong(job, place, limits)
        if wrong:
            return f"pod {place.pod[:253]!r} {wrong}"
    return _incomplete(job)


def _limits(job: Job) -> dict[RoleName, int]:
    """The most pods of each role: as many as the job has, or had when it was placed."""
    workers = max(job.replicas["worker"], job.status.wanted_replicas or 0)
    return {**job.replicas, "worker": workers}


def _wrong(job: Job, place: TaskPlacement, limits: dict[RoleName, int]) -> str | None:
    """What is wrong with one entry."""
    if place.role not in limits:
        return f"has the role {place.role}, which the job does not have"
    if not 0 <= place.index < limits[place.role]:
        return f"has number {place.index}, and the role {place.role} has 0 to {limits[place.role] - 1}"
    name = names.pod_name(job.meta.name, place.role, place.index)
    if place.pod != name:
        return f"would have to be called {name}"
    if not _NODE.fullmatch(place.node) or len(place.node) > 253:
        return f"is on {place.node[:253]!r}, which is no name of a node"
    asked, gpus = 0 if place.ended else job.shapes[place.role].gpus, set(place.gpus)
    if not len(gpus) == len(place.gpus) == asked:
        return f"has {counted(len(gpus), 'GPU')} and asks for {asked}"
    if not all(0 <= gpu < MOST_GPUS for gpu in gpus):
        return f"has a GPU that no node has: {', '.join(map(str, sorted(gpus)))}"
    return None


def _incomplete(job: Job) -> str | None:
    """What is missing, or there twice; how many workers there are is the matter of resizes."""
    placement = job.status.placement
    if len({place.pod for place in placement}) < len(placement):
        return "a pod is in it twice"
    if {place.rank for place in placement} != set(range(len(placement))):
        return f"its ranks are not those from 0 to {len(placement) - 1}"
    placed = Counter(place.role for place in placement)
    for role, count in job.replicas.items():
        if placed[role] < (1 if role == "worker" else count):
            return f"it has {placed[role]} of {count} pods of the role {role}"
    return None
