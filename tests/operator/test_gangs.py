"""External pods as gangs, their reservations, and the patch that ungates a pod."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builders.dljobs import BORN, NOW, Json, condition, container, time
from builders.external_pods import external_pods
from muster.api import names
from muster.kube.objects import Pod
from muster.scheduling.gang import Assigned, Task
from muster.scheduling.topology.links import gpu_set
from muster_operator.external_pods import gangs, ungating
from muster_operator.external_pods.gangs import PodGang, gangs_of
from muster_operator.pinning import UNSCHEDULABLE_SECONDS


def shown(found: list[PodGang]) -> dict[str, tuple[list[str], int]]:
    """Gangs by name: their gated pods, and how many are absent."""
    return {gang.gang.name: (list(gang.pods), gang.gang.absent) for gang in found}


def owner(kind: str) -> Json:
    return {"ownerReferences": [{"kind": kind, "name": "x", "uid": "u", "controller": True}]}


# Which pods, in which gangs


@pytest.mark.parametrize(
    ("fields", "ours"),
    [
        ({}, True),
        ({"gated": False}, True),
        ({"metadata": owner("Job")}, True),
        ({"metadata": owner("DLJob")}, True),
        ({"metadata": {"labels": {names.JOB: "x"}}}, False),
        ({"spec": {"schedulerName": "default-scheduler"}}, False),
    ],
)
def test_pod_is_external_by_scheduler_and_label(fields: Json, ours: bool) -> None:
    pod = external_pods("a", **fields)
    assert gangs.is_external(pod) is ours
    if pod.gated:
        assert shown(gangs_of([pod])) == ({"vision/pod:a": (["a"], 0)} if ours else {})


def test_pods_are_grouped_by_namespace_and_label() -> None:
    pods = [
        external_pods("b", gang="g", size=2),
        external_pods("alone"),
        external_pods("a", gang="g", size=2),
        external_pods("c", gang="h", size=2),
        external_pods("a", gang="g", size=2, metadata={"namespace": "audio"}),
    ]
    assert shown(gangs_of(pods)) == {
        "audio/gang:g": (["a"], 1),
        "vision/gang:g": (["a", "b"], 0),
        "vision/gang:h": (["c"], 1),
        "vision/pod:alone": (["alone"], 0),
    }


def test_pod_and_gang_of_the_same_name_are_two_gangs() -> None:
    assert list(shown(gangs_of([external_pods("g"), external_pods("x", gang="g", size=1)]))) == [
        "vision/gang:g",
        "vision/pod:g",
    ]


@pytest.mark.parametrize(
    ("sizes", "absent"),
    [
        ([3, 3], 1),
        ([None, 3], 1),
        ([2, 4], 2),
        ([1, 1], 0),
        ([None, None], 0),
        (["-3", "-3"], 0),
        (["two", ""], 0),
        (["3.5", " 4"], 0),
        (["9" * 5000, "2"], 0),
        (["0", "0"], 0),
    ],
)
def test_absent_pods_follow_from_the_gang_size(sizes: list[int | str | None], absent: int) -> None:
    pods = [external_pods(f"p{number}", gang="g", size=size) for number, size in enumerate(sizes)]
    assert shown(gangs_of(pods)) == {"vision/gang:g": (["p0", "p1"], absent)}


def test_gang_size_without_a_label_is_ignored() -> None:
    assert shown(gangs_of([external_pods("a", size=5)])) == {"vision/pod:a": (["a"], 0)}


def test_ungated_members_count_but_are_not_placed_again() -> None:
    pods = [external_pods("a", gang="g", size=3), external_pods("b", gang="g", size=3, gated=False, pin="n1")]
    found = gangs_of(pods)
    assert shown(found) == {"vision/gang:g": (["a"], 1)}
    assert [pod.metadata.name for pod in found[0].members] == ["a", "b"]
    assert [task.name for task in found[0].gang.tasks] == ["a"]


def test_pods_without_a_gate_are_no_waiting_gang() -> None:
    assert gangs_of([external_pods("a", gated=False, pin="n1"), external_pods("b", gated=False, node="n1")]) == []


@pytest.mark.parametrize("gone", [{"phase": "Failed"}, {"phase": "Succeeded"}, {"metadata": {"deletionTimestamp": time(NOW)}}])
def test_terminating_and_finished_pods_are_no_members(gone: Json) -> None:
    pods = [external_pods("a", gang="g", size=2), external_pods("b", gang="g", size=2, **gone)]
    assert shown(gangs_of(pods)) == {"vision/gang:g": (["a"], 1)}


@pytest.mark.parametrize(("sizes", "away", "absent"), [([2], 1, 1), ([4], 1, 3), ([None], 2, 2), ([None], 0, 0)])
def test_pods_that_are_to_be_created_again_are_absent(sizes: list[int | None], away: int, absent: int) -> None:
    pods = [external_pods(f"p{i}", gang="g", size=size) for i, size in enumerate(sizes)]
    (found,) = gangs_of(pods, {"vision/gang:g": away, "vision/gang:other": 9})
    assert found.gang.absent == absent


@pytest.mark.parametrize(
    ("text", "arrived"),
    [
        (time(BORN - 500), BORN - 500),
        (time(NOW), BORN),
        ("", BORN),
        ("yesterday", BORN),
        ("9" * 5000, BORN),
    ],
)
def test_requeued_pod_keeps_its_first_arrival(text: str, arrived: float) -> None:
    pods = [external_pods("a", gang="g", annotations={names.QUEUED_AT: text}), external_pods("b", gang="g")]
    assert gangs_of(pods)[0].gang.arrived == arrived


@pytest.mark.parametrize(("times", "pause"), [("1", 1), ("3", 4), ("9", 256), ("10", 300), ("999999", 300)])
def test_back_off_doubles_with_each_requeue(times: str, pause: float) -> None:
    assert gangs.back_off(external_pods("a", annotations={names.REQUEUES: times})) == pause


@pytest.mark.parametrize("text", ["0", "-1", "x", None])
def test_pod_that_was_never_requeued_may_start_at_once(text: str | None) -> None:
    assert gangs.back_off(external_pods("a", annotations={names.REQUEUES: text} if text else {})) == 0.0


def test_gang_asks_for_what_its_pods_ask_for() -> None:
    pods = [
        external_pods(
            "a", 2, gang="g", spec={"priority": 5, "nodeSelector": {"pool": "x"}}, metadata={"creationTimestamp": time(NOW)}
        ),
        external_pods("b", 3, gang="g", spec={"priority": 9}),
    ]
    gang = gangs_of(pods)[0].gang
    assert (gang.queue, gang.arrived, gang.priority, gang.gpus, gang.preemptible) == ("vision/default", BORN, 9, 5, False)
    assert [(task.name, task.gpus, task.where.labels) for task in gang.tasks] == [("a", 2, (("pool", "x"),)), ("b", 3, ())]


def test_gang_follows_the_class_and_the_queue_of_its_pods() -> None:
    fields: Json = {"metadata": {"labels": {names.QUEUE: "research"}}, "spec": {"preemptionPolicy": "Never"}}
    waits = gangs_of([external_pods("a", **fields)])[0].gang
    assert (waits.namespace, waits.queue, waits.preempts, waits.local_priority) == ("vision", "vision/research", False, 0)
    holds = gangs.placed_gang(external_pods("a", gated=False, node="n1", **fields))
    assert holds is not None
    assert (holds.namespace, holds.queue) == ("vision", "vision/research")


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({"gated": False, "node": "n1"}, True),
        ({"gated": False, "pin": "n1", "annotations": {names.GPUS: "3"}}, True),
        ({"gated": False, "pin": "n1"}, False),
        ({"pin": "n1", "annotations": {names.GPUS: "3"}}, False),
        ({"gated": False, "node": "n1", "phase": "Succeeded"}, False),
    ],
)
def test_ungated_pod_is_a_placed_gang_of_its_queue(fields: Json, holds: bool) -> None:
    found = gangs.placed_gang(external_pods("a", **fields))
    assert (found is not None) is holds
    if found is not None:
        assert (found.name, found.queue, found.placement[0].node) == ("vision/pod:a", "vision/default", "n1")
        assert found.placement[0].gpus == (gpu_set([3]) if "pin" in fields else 0)


def test_ungated_pods_of_a_labelled_gang_are_placed_gangs_of_their_own() -> None:
    ungate = [external_pods(name, gang="pair", size=2, gated=False, node="n1") for name in ("a", "b")]
    assert [found.name for pod in ungate if (found := gangs.placed_gang(pod))] == ["vision/pod:a", "vision/pod:b"]


# The reservation


def assigned(*places: tuple[str, str, list[int], int]) -> tuple[Assigned, ...]:
    return tuple(Assigned(Task(name, len(gpus)), node, gpu_set(gpus), rank) for name, node, gpus, rank in places)


def reserved(text: str | None, holder: str = "a", gpus: int = 2) -> PodGang:
    """A gang of a, b and c, one of which carries a reservation."""
    notes = {names.RESERVATION: text} if text is not None else {}
    pods = [external_pods(name, gpus, gang="g", size=3, annotations=notes if name == holder else {}) for name in "abc"]
    return gangs_of([*pods, external_pods("gone-ahead", gang="g", gated=False, pin="n9")])[0]


def test_reservation_counts_once_a_pod_is_ungated() -> None:
    """Before that anybody could have written it, to be placed past queue and quota."""
    text = ungating.reservation_text(assigned(("a", "n1", [0], 0)))
    pods = [external_pods("a", gang="g", annotations={names.RESERVATION: text}), external_pods("b", gang="g")]
    assert ungating.reservation(gangs_of(pods)[0]) is None
    pods[1] = external_pods("b", gang="g", gated=False)
    assert ungating.reservation(gangs_of(pods)[0]) is not None


@pytest.mark.parametrize("holder", ["a", "b", "c"])
def test_reservation_is_read_as_it_was_written(holder: str) -> None:
    placement = assigned(("a", "n1", [0, 1], 1), ("b", "n2", [6, 7], 0), ("c", "n1", [2, 5], 2))
    text = ungating.reservation_text(placement)
    assert json.loads(text)["b"] == {"gpus": [6, 7], "node": "n2", "rank": 0}
    found = ungating.reservation(reserved(text, holder))
    assert found is not None
    assert [(a.task.name, a.node, a.gpus, a.rank) for a in found] == [(a.task.name, a.node, a.gpus, a.rank) for a in placement]


def test_reservation_covers_only_pods_that_are_still_gated() -> None:
    text = ungating.reservation_text(assigned(("a", "n1", [0], 0), ("b", "n1", [1], 1), ("gone", "n1", [2], 2)))
    pods = [external_pods("a", gang="g", annotations={names.RESERVATION: text}, gated=False), external_pods("b", gang="g")]
    found = ungating.reservation(gangs_of(pods)[0])
    assert found is not None
    assert [a.task.name for a in found] == ["b"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "[]",
        "7",
        '{"a": null}',
        '{"a": {"node": "n1"}}',
        '{"a": {"node": 7, "gpus": [0, 1], "rank": 0}}',
        '{"a": {"node": "", "gpus": [0, 1], "rank": 0}}',
        '{"a": {"node": "n1", "gpus": ["0", "1"], "rank": 0}}',
        '{"a": {"node": "n1", "gpus": [-1, 0], "rank": 0}}',
        '{"a": {"node": "n1", "gpus": [0, 4000000000], "rank": 0}}',
    ],
)
def test_unreadable_reservation_counts_as_none(text: str) -> None:
    assert ungating.reservation(reserved(text)) is None


@pytest.mark.parametrize("gpus", [[], [0], [0, 0], [0, 1, 2]])
def test_reservation_with_another_number_of_gpus_is_ignored(gpus: list[int]) -> None:
    text = json.dumps({"a": {"node": "n1", "gpus": gpus, "rank": 0}, "b": {"node": "n1", "gpus": [4, 5], "rank": 1}})
    found = ungating.reservation(reserved(text))
    assert found is not None
    assert [a.task.name for a in found] == ["b"]


def test_gang_without_the_annotation_has_no_reservation() -> None:
    assert ungating.reservation(reserved(None)) is None


# Letting go


def test_one_patch_ungates_and_pins() -> None:
    pod = external_pods("a", 2, spec={"schedulingGates": [{"name": names.GATE}, {"name": "other"}]})
    place = assigned(("a", "n1", [1, 3], 4))[0]
    affinity = {"podAffinity": {"x": 1}}
    patch = ungating.ungating_patch(pod, affinity, place)
    assert patch["metadata"] == {
        "annotations": {names.RANK: "4", names.GPUS: "1,3", names.WAITING: None},
    }
    assert patch["spec"]["schedulingGates"] == [{"name": "other"}]
    affinity = patch["spec"]["affinity"]
    assert affinity["podAffinity"] == {"x": 1}
    terms = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert terms == [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]


def test_patch_of_a_pod_without_gpus_names_none() -> None:
    patch = ungating.ungating_patch(external_pods("a", 0), None, Assigned(Task("a", 0), "n1", 0))
    assert patch["metadata"]["annotations"][names.GPUS] is None
    assert patch["spec"]["schedulingGates"] == []


# Misplaced


def ungated(name: str, gpus: str, pin: str = "n1", **more: Any) -> Pod:
    """A pod of a labelled gang that was let go to the node `pin`."""
    notes = {names.GPUS: gpus, names.RANK: "0", **more.pop("annotations", {})}
    return external_pods(name, 2, gang="g", gated=False, pin=pin, annotations=notes, **more)


RESERVED = {names.RESERVATION: ungating.reservation_text(assigned(("a", "n1", [0, 1], 0), ("b", "n2", [2, 3], 1)))}


@pytest.mark.parametrize(
    "pod",
    [
        ungated("b", "2,3", "n1"),
        ungated("b", "2,3", "n1", node="n1"),
        ungated("b", "0,1", "n2"),
        ungated("b", "2,3", "n2", node="n7"),
    ],
)
def test_pod_that_is_not_where_its_gang_has_a_reservation_is_misplaced(pod: Pod) -> None:
    assert ungating.misplaced([ungated("a", "0,1", annotations=RESERVED), pod]) == [pod]


def test_pod_bound_to_another_node_than_its_pin_is_misplaced() -> None:
    pod = ungated("b", "2,3", "n2", node="n7")
    assert ungating.misplaced([pod]) == [pod]


@pytest.mark.parametrize(
    "pod",
    [
        ungated("b", "2,3", "n2"),
        ungated("b", "2,3", "n2", node="n2"),
        ungated("c", "6,7", "n9"),
        external_pods("b", 2, gang="g"),
        external_pods("b", 2, gang="g", gated=False, node="n7"),
        ungated("b", "2,3", "n2", node="n7", phase="Succeeded"),
    ],
)
def test_pod_where_it_was_placed_is_let_be(pod: Pod) -> None:
    assert ungating.misplaced([ungated("a", "0,1", annotations=RESERVED), pod]) == []


@pytest.mark.parametrize("text", ["soon", "[]", '{"b": null}'])
def test_unreadable_reservation_misplaces_nobody(text: str) -> None:
    assert ungating.misplaced([ungated("a", "0,1", annotations={names.RESERVATION: text}), ungated("b", "2,3", "n2")]) == []


# Stranded


REFUSED = condition("PodScheduled", "False", reason="Unschedulable", since=NOW - 1)
GIVEN = {names.GPUS: "0", names.RANK: "0"}
LONG_AGO = condition("PodScheduled", "False", reason="Unschedulable", since=NOW - 60)
NO_IMAGE = container(waiting={"reason": "ImagePullBackOff", "message": "no such image"})
AFTER = NOW - 1 + UNSCHEDULABLE_SECONDS


@pytest.mark.parametrize(
    ("fields", "dead", "answer"),
    [
        ({}, False, (False, None)),
        ({"conditions": [REFUSED]}, False, (False, AFTER)),
        ({"conditions": [LONG_AGO]}, False, (True, None)),
        ({"conditions": [{**LONG_AGO, "reason": "SchedulingGated"}]}, False, (False, None)),
        ({"conditions": [{**LONG_AGO, "status": "True"}]}, False, (False, None)),
        ({}, True, (True, None)),
        ({"metadata": {"creationTimestamp": time(NOW)}}, True, (False, NOW + UNSCHEDULABLE_SECONDS)),
        ({"conditions": [{**REFUSED, "lastTransitionTime": time(NOW - UNSCHEDULABLE_SECONDS)}]}, False, (True, None)),
        ({"conditions": [LONG_AGO], "gated": True}, True, (False, None)),
        ({"conditions": [LONG_AGO], "node": "n1"}, True, (False, None)),
        ({"conditions": [LONG_AGO], "annotations": {names.RANK: "0"}}, False, (True, None)),
        ({"node": "n1", "gang": "g", "containerStatuses": [NO_IMAGE]}, False, (True, None)),
        ({"node": "n1", "gang": "g", "annotations": {}, "containerStatuses": [NO_IMAGE]}, False, (False, None)),
        ({"node": "n1", "containerStatuses": [NO_IMAGE]}, False, (False, None)),
        (
            {"node": "n1", "gang": "g", "containerStatuses": [container(waiting={"reason": "ContainerCreating"})]},
            False,
            (False, None),
        ),
        ({"conditions": [LONG_AGO], "phase": "Failed"}, True, (False, None)),
        ({"conditions": [LONG_AGO], "metadata": {"deletionTimestamp": time(NOW)}}, True, (False, None)),
        ({"conditions": [LONG_AGO], "annotations": {}}, True, (False, None)),
        ({"conditions": [LONG_AGO], "pin": None}, True, (False, None)),
        ({"conditions": [LONG_AGO], "spec": {"schedulerName": "default-scheduler"}}, True, (False, None)),
    ],
)
def test_pod_that_cannot_start_on_its_node_is_stranded(fields: Any, dead: bool, answer: tuple[bool, float | None]) -> None:
    pod = external_pods("a", **({"gated": False, "pin": "n1", "annotations": GIVEN} | fields))
    assert ungating.stranded(pod, lambda node: not (dead and node == "n1"), NOW) == answer
