"""What is in a job's way: pods and a Service that have the names it needs, and are not its own.

An earlier job of the same name leaves them: deleted with --cascade=orphan, deleted just now, or restored from a backup. What
still names its DLJob as owner is the garbage collector's to delete. What has no owner may be in use, and is nobody's but its
user's: muster neither deletes it nor goes on with it, and says who can.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from muster.api import names
from muster.kube.objects import Meta, Pod
from muster_operator.dljob.job import Job
from muster_operator.dljob.manifests import has_service


def is_own(meta: Meta, job: Job) -> bool:
    """Return whether an object belongs to this very job, not to an earlier one of its name."""
    owner = meta.controller
    return owner is not None and owner.uid == job.meta.uid


def in_the_way(job: Job, pods: Iterable[Pod], service: Meta | None) -> str:
    """Return the sentence about what keeps the job's pods and Service from being created; empty if nothing does.

    `pods` may have pods of other names too; `service` is the Service of the job's name.
    """
    foreign = [pod.metadata for pod in pods if not is_own(pod.metadata, job)]
    taken = sorted((meta for meta in foreign if _is_needed(meta.name, job)), key=lambda meta: meta.name) if foreign else []
    if has_service(job) and service is not None and not is_own(service, job):
        return sentence("Service", service, others=len(taken))
    return sentence("Pod", taken[0], others=len(taken) - 1) if taken else ""


def sentence(kind: str, meta: Meta, others: int = 0) -> str:
    """Return what an object is that has a name of a job, and who can remove it; `others`: how many more there are."""
    more = f" ({others} more {'pod has' if others == 1 else 'pods have'} a name of this job)" if others else ""
    return f"{kind} {meta.key} {_origin(kind, meta)}{more}"


def job_of_pod(name: str, roles: Collection[str]) -> str | None:
    """Return the name of the job whose pod would have this name; None if it is no such name."""
    job, _, rest = name.rpartition("-")
    job, _, role = job.rpartition("-")
    return job if job and role in roles and rest.isdecimal() else None


def _is_needed(pod: str, job: Job) -> bool:
    role, _, index = pod.removeprefix(f"{job.meta.name}-").rpartition("-")
    count = next((count for name, count in job.replicas.items() if name == role), 0)
    return (
        index.isdecimal() and len(index) < 7 and names.pod_name(job.meta.name, role, int(index)) == pod and int(index) < count
    )


def _origin(kind: str, meta: Meta) -> str:
    owner = meta.controller
    if meta.deletion_timestamp is not None:
        return "is not this job's, and is being deleted: the job waits for its end"
    if owner is not None and owner.kind == "DLJob":
        return "is of an earlier DLJob: the job waits until Kubernetes' garbage collector has deleted it"
    remedy = f"delete it (kubectl delete {kind.lower()} -n {meta.namespace} {meta.name}), or name the job otherwise"
    if owner is None and meta.label(names.JOB) is not None:
        return f"was left by an earlier DLJob (deleted with --cascade=orphan, or restored from a backup): {remedy}"
    return f"exists and is not this job's: {remedy}"
