"""The pods and the Service of a placed gang, as plain dictionaries.

A pod is its role's template and what muster adds: the owner, the rank and GPUs, the node that the pod is pinned to, and the
variables by which the gang's processes find each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.allocation.pods import pinned_to
from muster.api import names
from muster.api.status import TaskPlacement
from muster.kube.objects import Pod
from muster_operator.dljob.job import Job
from muster_operator.dljob.rendezvous import MOUNT, environment, hostfile, outlives_change
from muster_operator.pinning import Manifest, pinned, without_min_domains

ANNOTATIONS_VOLUME = "muster-annotations"
CONTAINERS = ("initContainers", "containers")
"""All get the same variables and mounts: an init container may wait for rank 0, a sidecar act on a notice."""


def pod(job: Job, me: TaskPlacement, gang: Sequence[TaskPlacement], template: Manifest) -> Manifest:
    """Return the manifest of one pod of the gang, from the template of its role."""
    metadata = template.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), **notes(job, me, gang)}
    ours = {names.JOB: job.meta.name, names.QUEUE: job.spec.queue, names.ROLE: me.role, names.INDEX: str(me.index)}
    labels = {**(metadata.get("labels") or {}), **ours}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": me.pod,
            "namespace": job.meta.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner(job)],
        },
        "spec": _spec(job, me, gang, template["spec"]),
    }


def stays(job: Job, pod: Pod, me: TaskPlacement) -> bool:
    """Return whether a pod of an earlier placement goes on in the present one: it is where that wants it, and may stay."""
    meta = pod.metadata
    return (
        outlives_change(job, me.role)
        and not (pod.leaving or pod.finished or pod.refused)
        and meta.annotation(names.STOP_AT) is None
        and (meta.annotation(names.GPUS), meta.annotation(names.RANK)) == (_gpus(me), str(me.rank))
        and pinned_to(pod.spec) == me.node
    )


def has_service(job: Job) -> bool:
    """Return whether the pods find each other by DNS name."""
    return job.spec.rendezvous != "None"


def service(job: Job) -> Manifest:
    """Return the headless Service that gives the gang's pods their names, from before they are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": job.meta.name,
            "namespace": job.meta.namespace,
            "labels": {names.JOB: job.meta.name},
            "ownerReferences": [owner(job)],
        },
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {names.JOB: job.meta.name}},
    }


def owner(job: Job) -> Manifest:
    """Return the owner reference by which the garbage collector deletes what belongs to a deleted job."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "DLJob",
        "name": job.meta.name,
        "uid": job.meta.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def notes(job: Job, me: TaskPlacement, gang: Sequence[TaskPlacement]) -> dict[str, str]:
    """Return what a pod of this placement is told by annotations."""
    annotations = {names.RANK: str(me.rank), names.ATTEMPT: str(job.status.attempt)}
    gpus = _gpus(me)
    if gpus is not None:
        annotations[names.GPUS] = gpus
    if job.spec.rendezvous == "MPI":
        annotations[names.HOSTFILE] = hostfile(job, gang)
    return annotations


def _gpus(me: TaskPlacement) -> str | None:
    return ",".join(map(str, me.gpus)) or None


def _spec(job: Job, me: TaskPlacement, gang: Sequence[TaskPlacement], template: Manifest) -> Manifest:
    env = environment(job, me, gang)
    spec = {
        **template,
        "schedulerName": names.SCHEDULER,
        "restartPolicy": template.get("restartPolicy", "Never"),
        "affinity": pinned(template.get("affinity"), me.node),
        "volumes": [*(template.get("volumes") or ()), _annotations_volume(job)],
        **{kind: [_container(each, env) for each in template[kind]] for kind in CONTAINERS if template.get(kind)},
    }
    if spread := template.get("topologySpreadConstraints"):
        spec["topologySpreadConstraints"] = without_min_domains(spread)
    if template.get("hostNetwork") and "dnsPolicy" not in template:
        spec["dnsPolicy"] = "ClusterFirstWithHostNet"  # else the names of the gang's Service are not known
    if has_service(job):
        spec |= {"hostname": me.pod, "subdomain": job.meta.name}
    if job.spec.priority_class_name:
        spec["priorityClassName"] = job.spec.priority_class_name
    return spec


def _container(container: Manifest, env: dict[str, str]) -> Manifest:
    """The user's own variables and mounts stay, and take precedence over muster's of the same name."""
    own = {entry["name"] for entry in container.get("env") or ()}
    mounts = container.get("volumeMounts") or ()
    taken = any(mount.get("mountPath", "").rstrip("/") == MOUNT for mount in mounts)
    return {
        **container,
        "env": [*({"name": n, "value": v} for n, v in env.items() if n not in own), *(container.get("env") or ())],
        "volumeMounts": [*mounts, *(() if taken else ({"name": ANNOTATIONS_VOLUME, "mountPath": MOUNT, "readOnly": True},))],
    }


def _annotations_volume(job: Job) -> Manifest:
    items = [{"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}]
    if job.spec.rendezvous == "MPI":
        items.append({"path": "hostfile", "fieldRef": {"fieldPath": f"metadata.annotations['{names.HOSTFILE}']"}})
    return {"name": ANNOTATIONS_VOLUME, "downwardAPI": {"items": items}}
