"""Pods that muster did not create, as the API server has them."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from builders.dljobs import BORN, Json, time
from muster.api import names
from muster.kube.objects import Pod


def external_json(
    name: str,
    gpus: int = 1,
    *,
    gang: str | None = None,
    size: int | str | None = None,
    gated: bool = True,
    pin: str | None = None,
    node: str | None = None,
    annotations: Json | None = None,
    metadata: Json | None = None,
    spec: Json | None = None,
    **status: Any,
) -> Json:
    """A pod for muster's scheduler: gated, or pinned to `pin`, or bound to `node`; of the labelled gang `gang`."""
    notes = {**({names.GANG_SIZE: str(size)} if size is not None else {}), **(annotations or {})}
    meta: Json = {
        "name": name,
        "namespace": "vision",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "creationTimestamp": time(BORN),
    }
    body: Json = {"schedulerName": names.SCHEDULER, "containers": [{"name": "c", "resources": {"limits": {names.GPU: gpus}}}]}
    if gated:
        body["schedulingGates"] = [{"name": names.GATE}]
    if pin:
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [pin]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        body["affinity"] = {"nodeAffinity": required}
    if node:
        body["nodeName"] = node
    labels = {names.GANG: gang} if gang else {}
    meta |= {"labels": labels, "annotations": notes, **(metadata or {})}
    return {"metadata": meta, "spec": body | (spec or {}), "status": {"phase": "Pending", **status}}


def external_pods(name: str, gpus: int = 1, **fields: Any) -> Pod:
    """The same, as the operator reads it."""
    return msgspec.convert(json.loads(json.dumps(external_json(name, gpus, **fields))), Pod)
