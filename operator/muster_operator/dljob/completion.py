"""A DLJob with what admission plugins will add to its pods: how much they take of nodes and quotas, and where they may go.

Of a template as little is kept as that follows from, as JSON, which is shorter than any object.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

import msgspec

from muster.allocation.pods import charge_of, constraint_of, resources_of
from muster.kube.objects import Pod, PodMeta, PodSpec, decoder
from muster.scheduling.gang import Task
from muster.scheduling.topology.eligibility import ANYWHERE, Constraint
from muster_operator.defaults import Added
from muster_operator.dljob.job import Job

RECENT: Final = 64
"""Templates that are kept as objects: all pods of a gang have one of a few."""
_read: Final = lru_cache(RECENT)(decoder(PodSpec))


def packed(spec: PodSpec) -> bytes:
    """Return what of a template decides, with what is added to it, how much its pods take.

    It has no selector and no tolerations: those of the pod that is completed from it are what was added.
    """
    return msgspec.json.encode(
        PodSpec(
            containers=spec.containers,
            init_containers=spec.init_containers,
            overhead=spec.overhead,
            resources=spec.resources,
            host_network=spec.host_network,
            runtime_class_name=spec.runtime_class_name,
            priority_class_name=spec.priority_class_name,
            active_deadline_seconds=spec.active_deadline_seconds,
        )
    )


def completed(job: Job, added: Added) -> Job:
    """Return the job as its pods will be; GPUs are those of the template, by which it is placed."""
    if not (added.is_something and job.packed):
        return job
    pods = {role: _pod(packed, added) for role, packed in job.packed.items()}
    shapes = {role: _completed(job.shapes[role], pod) for role, pod in pods.items()}
    return replace(job, shapes=shapes, charges={role: charge_of(pod) for role, pod in pods.items()})


def completed_shape(job: Job, role: str, added: Added) -> Task | None:
    """Return what one pod of a role will take; None if the job has no such role."""
    shape = next((shape for name, shape in job.shapes.items() if name == role), None)
    packed = next((packed for name, packed in job.packed.items() if name == role), None)
    return _completed(shape, _pod(packed, added)) if shape and packed and added.is_something else shape


def _pod(packed: bytes, added: Added) -> Pod:
    return Pod(PodMeta(name=""), added.to(_read(packed)))


def _completed(shape: Task, pod: Pod) -> Task:
    return replace(shape, resources=resources_of(pod), where=_narrowed(shape.where, constraint_of(pod.spec)))


def _narrowed(where: Constraint, added: Constraint) -> Constraint:
    if added == ANYWHERE:
        return where
    labels = tuple(sorted({*where.labels, *added.labels}))
    return where._replace(labels=labels, tolerations=tuple(dict.fromkeys(where.tolerations + added.tolerations)))
