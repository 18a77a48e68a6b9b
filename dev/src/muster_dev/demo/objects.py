"""The objects that the scenes create, and their state in the cluster.

Every call reads from the API server; nothing is cached.
"""

from __future__ import annotations

from typing import Any

from muster.api import names
from muster_dev.local.cluster import LocalCluster

Json = dict[str, Any]


def template(gpus: int, *, run: int | None = None, machine: str | None = None) -> Json:
    """Return a pod template of `gpus` GPUs that runs for `run` seconds (None: forever) on that machine type (None: any)."""
    container = {"name": "train", "image": "train:1", "resources": {"limits": {names.GPU: str(gpus)}}}
    spec: Json = {"containers": [container], "terminationGracePeriodSeconds": 5}
    if machine:
        spec["nodeSelector"] = {names.MACHINE: machine}
    return {"metadata": {"annotations": {names.RUN_SECONDS: str(run)} if run is not None else {}}, "spec": spec}


def dljob(name: str, replicas: int, pods: Json, **spec: Any) -> Json:
    """Return a DLJob of `replicas` workers; `spec` has its other fields."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "DLJob",
        "metadata": {"name": name},
        "spec": {"roles": {"worker": {"replicas": replicas, "template": pods}}, **spec},
    }


def dljobs_path(namespace: str, name: str = "") -> str:
    """Return the path of the DLJobs of a namespace, or of one of them."""
    return f"/apis/{names.API_VERSION}/namespaces/{namespace}/dljobs" + (f"/{name}" if name else "")


def pods_path(namespace: str) -> str:
    """Return the path of the pods of a namespace."""
    return f"/api/v1/namespaces/{namespace}/pods"


def pods(cluster: LocalCluster, namespace: str, job: str = "") -> list[Json]:
    """Return the current pods of a namespace, or of one DLJob in it."""
    selector = f"?labelSelector={names.JOB}={job}" if job else ""
    items: list[Json] = cluster.api.get(pods_path(namespace) + selector)["items"]
    return items


def status(cluster: LocalCluster, namespace: str, name: str) -> Json:
    """Return a DLJob's status, empty if it has none yet."""
    current: Json = cluster.api.get(dljobs_path(namespace, name)).get("status", {})
    return current


def wait_for(cluster: LocalCluster, namespace: str, name: str, phase: str) -> Json:
    """Wait until a DLJob is in that phase and return its status."""
    cluster.wait(lambda: status(cluster, namespace, name).get("phase") == phase, f"DLJob {name} is {phase}")
    return status(cluster, namespace, name)


def holds_gpus(pod: Json) -> bool:
    """Return whether a pod holds its GPUs: it has a node and has not ended."""
    return bool(pod["spec"].get("nodeName")) and pod["status"].get("phase") not in ("Succeeded", "Failed")


def gpus(pod: Json) -> int:
    """Return how many GPUs a pod asks for."""
    return sum(
        int(container.get("resources", {}).get("limits", {}).get(names.GPU, 0)) for container in pod["spec"]["containers"]
    )


def clear(cluster: LocalCluster, namespace: str, kinds: str) -> None:
    """Delete all objects of these kinds ("jobs,pods"), wait until no pod is left, and delete the namespace."""
    cluster.kubectl("delete", kinds, "--all", f"--namespace={namespace}", "--wait=false")
    cluster.kubectl("delete", "pods", "--all", f"--namespace={namespace}", "--grace-period=0", "--force", "--wait=false")
    cluster.wait(lambda: not pods(cluster, namespace), f"the pods of {namespace} are gone")
    cluster.api.delete(f"/api/v1/namespaces/{namespace}")
