"""A bare pod as a PodTemplate and back: what its user gave, whole, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builders.dljobs import BORN, NOW, Json, time
from builders.external_pods import external_json, external_pods
from muster.api import names
from muster.scheduling.gang import Assigned, Task
from muster_operator.external_pods import templates
from muster_operator.external_pods.templates import Step, next_step
from muster_operator.external_pods.ungating import ungating_patch

PORT = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}}
GIVEN: Json = {
    "labels": {"team": "a", names.GANG: "g"},
    "annotations": {"note": "b", names.GANG_SIZE: "2", names.SUSPEND: "x", names.RUN_SECONDS: "5"},
    "ownerReferences": [{"kind": "ConfigMap", "name": "c", "uid": "u"}],
    "finalizers": ["example.com/kept"],
}
SPEC: Json = {"nodeSelector": {"pool": "x"}, "priorityClassName": "high", "tolerations": [{"key": "a"}], "affinity": PORT}


def merged(body: Json, patch: Json) -> Json:
    """What the API server makes of the one patch that ungates a pod."""
    notes = body["metadata"]["annotations"] | patch["metadata"]["annotations"]
    metadata = body["metadata"] | {"annotations": {key: value for key, value in notes.items() if value is not None}}
    return {**body, "metadata": metadata, "spec": body["spec"] | patch["spec"]}


def ungated_pod(**fields: Any) -> Json:
    """A pod that waited, was ungated and bound, and has run for a while, as the API server has it."""
    before = external_json("a", 1, metadata=GIVEN, spec=SPEC | fields)
    place = Assigned(Task("a", 1), "n1", 0b1, 0)
    body = merged(before, ungating_patch(external_pods("a", metadata=GIVEN, spec=SPEC), before["spec"].get("affinity"), place))
    body["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    body["metadata"]["annotations"] |= {names.WAKE: "1", names.RESERVATION: "{}", names.WAITING: "no"}
    body["metadata"]["labels"] = body["metadata"]["labels"] | {
        "topology.kubernetes.io/zone": "z",
        "topology.kubernetes.io/region": "r",
    }
    worked_out = {"nodeName": "n1", "priority": 7, "preemptionPolicy": "Never", "overhead": {"cpu": "1"}}
    body["spec"] |= worked_out | {"ephemeralContainers": [{"name": "debugger"}]}
    return body


def again(body: Json) -> Json:
    return templates.pod(json.loads(json.dumps(templates.template(body))))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"affinity": {**PORT, "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}}},
        {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]},
                            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]},
                        ]
                    }
                }
            }
        },
    ],
    ids=["no-node-affinity", "preferred", "required"],
)
def test_pod_from_a_template_is_as_its_user_made_it(fields: Json) -> None:
    body = again(ungated_pod(**fields))
    notes = GIVEN["annotations"] | {names.QUEUED_AT: time(BORN), names.REQUEUES: "1"}
    assert body["metadata"] == {**GIVEN, "name": "a", "namespace": "vision", "annotations": notes}
    assert body["spec"] == external_json("a", 1, spec=SPEC | fields)["spec"]


def test_pod_without_affinity_has_none_from_its_template() -> None:
    body = external_json("a", gated=False, pin="n1", annotations={names.RANK: "0"})
    assert "affinity" not in again(body)["spec"]


def test_pod_that_muster_did_not_ungate_keeps_its_own_pin() -> None:
    body = external_json("a", gated=False, pin="n1")
    assert again(body)["spec"]["affinity"] == body["spec"]["affinity"]


@pytest.mark.parametrize("affinity", [None, {}, {"nodeAffinity": {}}, {"nodeAffinity": None}])
def test_forged_rank_does_no_harm(affinity: Json | None) -> None:
    body = external_json("a", gated=False, annotations={names.RANK: "0"}, spec={"affinity": affinity})
    assert "affinity" not in again(body)["spec"]


def test_pod_from_a_template_has_the_gate_once() -> None:
    own = {"name": "example.com/own"}
    assert again(external_json("a", gated=False, spec={"schedulingGates": [own]}))["spec"]["schedulingGates"] == [
        own,
        {"name": names.GATE},
    ]
    assert again(external_json("a"))["spec"]["schedulingGates"] == [{"name": names.GATE}]


def test_first_arrival_stays_and_requeues_add_up() -> None:
    once = again(ungated_pod())
    once["metadata"] |= {"uid": "later", "creationTimestamp": time(NOW)}
    twice = again(once)["metadata"]["annotations"]
    assert (twice[names.QUEUED_AT], twice[names.REQUEUES]) == (time(BORN), "2")


@pytest.mark.parametrize(("text", "times"), [("3", 3), ("", 0), ("-1", 0), ("x", 0), ("9" * 5000, 0), (None, 0)])
def test_requeues_are_a_number_whatever_is_written(text: str | None, times: int) -> None:
    assert templates.requeues({names.REQUEUES: text}) == times


def test_template_is_named_by_its_pod_alone() -> None:
    body = templates.template(ungated_pod())
    assert body["metadata"] == {"name": "uid-a", "namespace": "vision", "labels": {names.TAKEN_BACK: "true"}}


@pytest.mark.parametrize(
    ("fields", "step"),
    [
        ({}, Step.DELETE),
        ({"metadata": {"deletionTimestamp": time(NOW)}}, Step.WAIT),
        ({"metadata": {"deletionTimestamp": time(NOW)}, "phase": "Failed"}, Step.WAIT),
        ({"phase": "Succeeded"}, Step.FORGET),
        ({"metadata": {"uid": "another"}}, Step.FORGET),
        ({"metadata": {"uid": "another", "deletionTimestamp": time(NOW)}}, Step.FORGET),
    ],
)
def test_next_step_follows_from_the_pod_of_that_name(fields: Json, step: Step) -> None:
    assert next_step("uid-a", external_pods("a", gated=False, **fields)) is step


def test_parked_pod_whose_name_is_free_is_created() -> None:
    assert next_step("uid-a", None) is Step.CREATE
