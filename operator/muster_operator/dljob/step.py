"""What is to be done next for one job, and how pods are stopped.

A step is carried out in this order: annotations of the job, its status, its Service, then pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from muster.api import names, texts
from muster.api.status import TaskPlacement
from muster.kube.objects import Pod
from muster_operator.dljob.job import Job
from muster_operator.dljob.status import Record
from muster_operator.lessons import UNCHANGED, Digest
from muster_operator.timestamps import moment

NOTICE_SECONDS = 1.0
"""Between the notice to a running pod and its deletion: the kubelet may take that long to show the annotation."""
LONGEST_NOTICE_SECONDS = 5.0
"""A notice of a later time is not muster's, or was given by a clock that was wrong: another one is given."""


class Nodes(NamedTuple):
    """What a step asks about nodes, by name."""

    is_alive: Callable[[str], bool]
    """Whether what runs there may go on."""
    is_ready: Callable[[str], bool]
    """Whether the node is ready at this moment."""
    digest: Digest = UNCHANGED
    """By which it shows whether a node has changed since it refused a pod."""


@dataclass(slots=True)
class Step:
    """What to do next for one job."""

    status: Record | None = None
    annotate_job: dict[str, str | None] = field(default_factory=dict)
    annotate_pods: list[tuple[Pod, dict[str, str]]] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)
    destroy: list[Pod] = field(default_factory=list)
    """Pods whose node is gone: no kubelet will confirm their end, so they are deleted without waiting for it."""
    create: list[TaskPlacement] = field(default_factory=list)
    service: bool | None = None
    """Whether the Service must be there; None: as it is."""
    remove: bool = False
    """The job's time to live has expired."""
    unexplained: Pod | None = None
    """The pod whose failed start the status is about, where only Events about it say why."""
    check_at: float | None = None
    """When to ask for the next step although nothing changes."""

    def check_by(self, at: float) -> None:
        """Have the next step asked for by then."""
        self.check_at = at if self.check_at is None else min(at, self.check_at)


def record(step: Step, job: Job, now: float) -> Record:
    """Return the status that a step writes, to be changed."""
    step.status = step.status or Record(job, now)
    return step.status


def stop(step: Step, pods: Iterable[Pod], alive: Callable[[str], bool], now: float, notice: str) -> None:
    """Give running pods a notice and delete them once it had time to reach them; delete the others at once."""
    for pod in pods:
        if pod.leaving:
            continue
        if pod.spec.node_name and not alive(pod.spec.node_name):
            step.destroy.append(pod)
            continue
        if pod.status.phase != "Running":
            step.delete.append(pod)
            continue
        notice_given = pod.metadata.annotation(names.STOP_AT)
        announced = texts.time(notice_given) or 0.0  # unreadable: long ago
        if notice_given is None or announced > now + LONGEST_NOTICE_SECONDS:
            at = moment(now + NOTICE_SECONDS + 0.999)
            text = at.isoformat().replace("+00:00", "Z")
            step.annotate_pods.append((pod, {notice: "true" if notice == names.SUSPEND else "", names.STOP_AT: text}))
        elif announced <= now:
            step.delete.append(pod)
        else:
            step.check_by(announced)
