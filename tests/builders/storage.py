"""Claims, volumes and classes of storage as the API server has them, told by the few fields that a test is about."""

from __future__ import annotations

from typing import Any

from builders.dljobs import Json, template
from builders.operator_harness import SPACE, OperatorHarness
from muster.kube import paths
from muster.kube.objects.volume import SELECTED_NODE

WAITS = "WaitForFirstConsumer"
HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
CLAIMS = f"/api/v1/namespaces/{SPACE}/persistentvolumeclaims"


def at(key: str, *values: str) -> Json:
    """The node affinity of a volume that can be reached where a label has one of these values."""
    expression = {"key": key, "operator": "In", "values": list(values)}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}


def put_claim(
    harness: OperatorHarness,
    name: str = "data",
    *,
    volume: str = "",
    phase: str | None = None,
    storage_class: str | None = "fast",
    modes: tuple[str, ...] = ("ReadWriteMany",),
    node: str = "",
    **more: Any,
) -> Json:
    """A claim of 10 GiB: bound if it has a `volume`, unless `phase` says otherwise."""
    meta = {"name": name, "namespace": SPACE, "uid": f"uid-{name}", "annotations": {SELECTED_NODE: node} if node else {}}
    spec: Json = {"accessModes": list(modes), "resources": {"requests": {"storage": "10Gi"}}, **more.pop("spec", {})}
    spec |= {"volumeName": volume} if volume else {}
    spec |= {"storageClassName": storage_class} if storage_class is not None else {}
    status = {"phase": phase or ("Bound" if volume else "Pending")}
    return harness.server.put(CLAIMS, {"metadata": {**meta, **more}, "spec": spec, "status": status})


def put_volume(
    harness: OperatorHarness,
    name: str = "pv",
    *,
    where: Json | None = None,
    phase: str = "Available",
    storage_class: str = "fast",
    labels: Json | None = None,
    **spec: Any,
) -> Json:
    """A volume of 10 GiB, free unless `phase` says otherwise."""
    body: Json = {"capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": storage_class, **spec}
    body |= {"nodeAffinity": where} if where else {}
    meta = {"name": name, "uid": f"uid-{name}", "labels": labels or {}}
    return harness.server.put("/api/v1/persistentvolumes", {"metadata": meta, "spec": body, "status": {"phase": phase}})


def put_class(
    harness: OperatorHarness,
    name: str = "fast",
    *,
    mode: str = WAITS,
    provisioner: str = "csi",
    zones: tuple[str, ...] = (),
    **more: Any,
) -> Json:
    """A class of storage that makes volumes for pods, in these zones if any are named."""
    terms = [{"matchLabelExpressions": [{"key": ZONE, "values": list(zones)}]}] if zones else []
    body = {
        "metadata": {"name": name, **more},
        "provisioner": provisioner,
        "volumeBindingMode": mode,
        "allowedTopologies": terms,
    }
    return harness.server.put(f"{paths.STORAGE}/storageclasses", body)


def using(*claims: str, gpus: int = 2, workers: int = 1, ephemeral: Json | None = None) -> Json:
    """Roles of a job whose workers use these claims, and one made with each pod if `ephemeral` has its spec."""
    volumes: list[Json] = [{"name": f"v{n}", "persistentVolumeClaim": {"claimName": name}} for n, name in enumerate(claims)]
    if ephemeral is not None:
        volumes.append({"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": ephemeral}}})
    return {"worker": {"replicas": workers, "template": template(gpus, volumes=volumes)}}
