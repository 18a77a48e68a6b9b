"""The view: holdings follow the stores, and what has not changed stays the same object."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from muster.allocation.view import ClusterView
from muster.api import names
from muster.kube.objects import DLJob, Node, Pod


def node(version: int = 1, **annotations: str) -> Node:
    """Node n of four GPUs."""
    return msgspec.convert(
        {
            "metadata": {"name": "n", "resourceVersion": str(version), "annotations": annotations},
            "status": {"allocatable": {names.GPU: "4"}, "conditions": [{"type": "Ready", "status": "True"}]},
        },
        Node,
    )


def job(name: str, version: int, *gpus: int, pod: str = "w-0") -> DLJob:
    """A DLJob that reserves GPUs of node n for a pod."""
    placement = [{"pod": pod, "node": "n", "gpus": gpus}] if gpus else []
    meta = {"name": name, "namespace": "v", "uid": name, "resourceVersion": str(version)}
    return msgspec.json.decode(json.dumps({"metadata": meta, "status": {"attempt": 1, "placement": placement}}), type=DLJob)


def pod(version: int, **spec: Any) -> Pod:
    limits = {"limits": {names.GPU: "1"}}
    meta = {"name": "p", "namespace": "v", "resourceVersion": str(version)}
    return msgspec.convert({"metadata": meta, "spec": {"containers": [{"resources": limits}], **spec}}, Pod)


def test_reservation_takes_its_gpus_and_its_end_gives_them_back() -> None:
    view = ClusterView()
    view.nodes.put(node())
    view.jobs.put(job("a", 1, 0, 1))
    assert view.usable()["n"].free == 0b1100
    view.jobs.put(job("a", 2))
    assert (view.usable()["n"].free, len(view.reservations)) == (0b1111, 0)


def test_job_that_goes_leaves_another_jobs_reservation_for_the_same_pod() -> None:
    view = ClusterView()
    view.nodes.put(node())
    view.jobs.put(job("a", 1, 0))
    view.jobs.put(job("b", 2, 1))
    view.jobs.remove("v/a", 3)
    reservation = view.reservations.get("v/w-0")
    assert reservation is not None
    assert (reservation.job.key, view.usable()["n"].free) == ("v/b", 0b1101)


def test_node_stays_the_same_object_while_nothing_on_it_changes() -> None:
    view = ClusterView()
    view.nodes.put(node())
    before = view.usable()["n"]
    view.nodes.put(node(2, heartbeat="2"))
    view.pods.put(pod(3))
    assert view.usable()["n"] is before
    view.pods.put(pod(4, nodeName="n"))
    assert view.usable()["n"].free.bit_count() == 3
