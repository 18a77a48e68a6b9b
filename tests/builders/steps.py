"""What `lifecycle.next_step` answers, as a dictionary of the parts that say something: a test compares it whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from builders.dljobs import NOW, Json
from muster.kube.objects import Pod
from muster_operator.dljob.job import Job
from muster_operator.dljob.lifecycle import next_step
from muster_operator.dljob.status import Record
from muster_operator.dljob.step import Nodes, Step
from muster_operator.lessons import UNCHANGED, Digest
from muster_operator.timestamps import stamp


def step_of(
    job: Job,
    pods: Mapping[str, Pod] | None = None,
    *,
    dead: Collection[str] = (),
    now: float = NOW,
    digest: Digest = UNCHANGED,
) -> Step:
    """The next step of a job with these pods; every node lives but the `dead`."""
    return next_step(job, (pods or {}).values(), nodes(dead, digest), now)


def nodes(dead: Collection[str] = (), digest: Digest = UNCHANGED) -> Nodes:
    """Nodes that are all ready but the `dead`."""
    return Nodes(lambda node: node not in dead, lambda node: node not in dead, digest)


def look(job: Job, pods: Mapping[str, Pod] | None = None, *, dead: Collection[str] = (), now: float = NOW) -> Json:
    """The same, as `told` tells it, without the check at the deadline of a start, which every placed gang has."""
    step = step_of(job, pods, dead=dead, now=now)
    if step.check_at == stamp(job.status.admitted_at) + job.spec.start_deadline_seconds:
        step.check_at = None
    return told(step)


def told(step: Step) -> Json:
    """The parts of a step that say something; pods by name, the status as phase, last event and its reason."""
    parts: dict[str, Any] = {
        "status": summary(step.status) if step.status and step.status.patch() else None,
        "job": step.annotate_job,
        "notice": {pod.metadata.name: notice for pod, notice in step.annotate_pods},
        "delete": named(step.delete),
        "destroy": named(step.destroy),
        "create": [place.pod for place in step.create],
        "service": step.service,
        "remove": step.remove or None,
        "wake": step.check_at,
    }
    return {key: value for key, value in parts.items() if value is not None and value != [] and value != {}}


def summary(record: Record) -> tuple[str | None, str, str]:
    last = record.status.timeline[-1]
    return record.status.phase, last.event, last.reason


def named(pods: Iterable[Pod]) -> list[str]:
    return [pod.metadata.name for pod in pods]
