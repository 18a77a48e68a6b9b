"""GPUs of bound pods that no plan named, by queue."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from builders.dljobs import Json, dljob
from builders.external_pods import external_json
from muster.allocation.unplanned import Unplanned
from muster.allocation.view import ClusterView
from muster.api import names
from muster.kube.objects import DLJob, Pod


def view_of(*pods: Json) -> ClusterView:
    view = ClusterView()
    for body in pods:
        view.pods.put(msgspec.convert(json.loads(json.dumps(body)), Pod))
    return view


def pod(name: str = "a", gpus: int = 2, *, owner: str = "", **fields: Any) -> Json:
    """A pod that is bound to n1."""
    body = external_json(name, gpus, gated=False, **{"node": "n1", **fields})
    if owner:
        body["metadata"]["ownerReferences"] = [
            {"apiVersion": names.API_VERSION, "kind": "DLJob", "name": "vgg16", "uid": owner, "controller": True}
        ]
    return body


OTHER = {"schedulerName": "default-scheduler"}
NAMED = {names.GPUS: "0,1"}


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"spec": OTHER}, {"vision/default": 2}),
        ({"spec": OTHER, "annotations": NAMED}, {"vision/default": 2}),
        ({"spec": OTHER, "metadata": {"labels": {names.QUEUE: "research"}}}, {"vision/research": 2}),
        ({}, {"vision/default": 2}),
        ({"annotations": {names.GPUS: "0"}}, {"vision/default": 2}),
        ({"annotations": NAMED}, {}),
        ({"metadata": {"labels": {names.JOB: "vgg16"}}, "annotations": NAMED}, {"vision/default": 2}),
        ({"owner": "uid-forged", "spec": OTHER}, {"vision/default": 2}),
        ({"owner": "uid-vgg16", "spec": OTHER}, {"vision/default": 2}),
        ({"owner": "uid-vgg16", "metadata": {"labels": {names.JOB: "vgg16"}}}, {}),
        ({"spec": OTHER, "node": None}, {}),
        ({"spec": OTHER, "phase": "Succeeded"}, {}),
        ({"spec": OTHER, "gpus": 0}, {}),
    ],
)
def test_bound_pod_counts_unless_a_gang_or_job_counts_its_gpus(fields: Json, counts: dict[str, int]) -> None:
    view = view_of(pod(**fields))
    view.jobs.put(msgspec.json.decode(json.dumps(dljob(metadata={"resourceVersion": "1"})), type=DLJob))
    assert Unplanned(view).by_queue() == counts


def test_pod_of_a_job_deleted_before_this_process_began_counts_only_where_nobody_vouches_for_its_label() -> None:
    view = view_of(pod(owner="uid-gone", metadata={"labels": {names.JOB: "vgg16"}}))
    unplanned = Unplanned(view)
    assert unplanned.by_queue() == {"vision/default": 2}
    view.vouch(True)
    assert unplanned.by_queue() == {}


def test_count_follows_the_pods() -> None:
    view = view_of(pod("a", spec=OTHER))
    unplanned = Unplanned(view)
    view.pods.put(msgspec.convert(pod("b", 3, spec=OTHER, metadata={"resourceVersion": "2"}), Pod))
    assert unplanned.by_queue() == {"vision/default": 5}
    view.pods.put(msgspec.convert(pod("b", 3, spec=OTHER, metadata={"resourceVersion": "3"}, phase="Failed"), Pod))
    view.pods.remove("vision/a", "4")
    assert unplanned.by_queue() == {}


OWN = {"metadata": {"labels": {names.JOB: "vgg16", names.QUEUE: "research"}}, "owner": "uid-vgg16"}
LEAVING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("fields", "reserved", "counts"),
    [
        (OWN, False, {"vision/research": 2}),
        (OWN, True, {}),
        ({**OWN, "phase": "Failed"}, False, {}),
        ({**OWN, "node": None}, False, {}),
        ({"annotations": NAMED, "metadata": LEAVING}, False, {"vision/default": 2}),
        ({"annotations": NAMED}, False, {}),
        ({"spec": OTHER, "metadata": LEAVING}, False, {}),
    ],
    ids=["given up", "placed", "ended", "not bound", "a gang's, terminating", "a gang's", "another scheduler's"],
)
def test_pod_on_its_way_out_counts_where_no_gang_counts_it(fields: Json, reserved: bool, counts: dict[str, int]) -> None:
    view = view_of(pod("vgg16-worker-0", **fields))
    placement = [{"pod": "vgg16-worker-0", "rank": 0, "role": "worker", "index": 0, "node": "n1", "gpus": [0, 1]}]
    body = dljob(metadata={"resourceVersion": "1"}, status={"placement": placement if reserved else []})
    view.jobs.put(msgspec.json.decode(json.dumps(body), type=DLJob))
    assert Unplanned(view).stopping_by_queue() == counts
