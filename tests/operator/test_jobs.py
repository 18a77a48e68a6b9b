"""A DLJob as it is read, and as the gang that the planner sees."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from builders.dljobs import BORN, NOW, Json, after, dljob, job, placed, pods_of, roles, spots, started, template
from muster.api import names
from muster.kube.objects import DLJob, Meta
from muster.scheduling.gang import Sensitivity
from muster.scheduling.resources import Resources
from muster.scheduling.topology.links import gpu_set
from muster.scheduling.topology.node import Level
from muster_operator.dljob.decoding import MOST_BYTES, decode
from muster_operator.dljob.gang import gang_of, placement_of, priority_of, tasks_of, written
from muster_operator.dljob.job import Job, Unreadable
from muster_operator.dljob.resources import Priorities, PriorityClass

CLASSES = Priorities([PriorityClass(Meta("urgent"), 7), PriorityClass(Meta("patient"), 5, preemption_policy="Never")])


def gang(**fields: Any) -> Any:
    one = job(**fields)
    return gang_of(one, priority_of(one, CLASSES, ()))


def test_tasks_are_the_pods_by_role() -> None:
    one = job(roles=roles(workers=2, gpus=4, chief=1, ps=2))
    assert [(task.name, task.gpus, task.role, task.index) for task in tasks_of(one)] == [
        ("vgg16-chief-0", 0, "chief", 0),
        ("vgg16-worker-0", 4, "worker", 0),
        ("vgg16-worker-1", 4, "worker", 1),
        ("vgg16-ps-0", 0, "ps", 0),
        ("vgg16-ps-1", 0, "ps", 1),
    ]
    assert (one.gpus, one.replicas) == (8, {"chief": 1, "worker": 2, "ps": 2})


def test_task_asks_for_what_its_template_asks_for() -> None:
    one = template(nodeSelector={"pool": "a"}, tolerations=[{"key": "gpu", "operator": "Exists"}])
    one["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "500m", "memory": "1Ki"}
    task = tasks_of(job(roles={"worker": {"replicas": 1, "template": one}}))[0]
    assert task.resources == Resources(500, 1024, 1)
    assert task.where.labels == (("pool", "a"),)
    assert task.where.tolerations[0].key == "gpu"


def test_placement_is_written_and_read_back() -> None:
    one = job(roles=roles(workers=3, ps=1))
    placement = spots(one)
    assert placement_of(placed(one)) == placement
    assert [place.gpus for place in written(placement)] == [[0, 1], [0, 1], [2, 3], []]
    assert gang_of(placed(one)).placement == placement


def test_gang_of_a_plain_job_has_the_defaults() -> None:
    found = gang()
    assert (found.name, found.queue, found.arrived, found.priority) == ("vision/vgg16", "vision/default", BORN, 0)
    assert (found.required, found.preferred, found.spread, found.fewest) == (Level.CLUSTER, Level.NODE, False, None)
    assert (found.placement, found.leave, found.resize, found.avoid) == ((), None, False, frozenset())
    assert (found.sensitivity, found.preemptible, found.not_before, found.started) == (Sensitivity.AUTO, True, 0.0, 0.0)


def test_gang_follows_the_spec() -> None:
    placement = {"policy": "Spread", "required": "Block", "preferred": "Rack", "sensitivity": "Low"}
    found = gang(queue="research", placement=placement, elastic={"minReplicas": 1, "maxReplicas": 4}, priority=5)
    assert (found.queue, found.priority, found.spread, found.fewest) == ("vision/research", 0, True, 1)
    assert (found.namespace, found.local_priority) == ("vision", 5)
    assert (found.required, found.preferred, found.sensitivity) == (Level.BLOCK, Level.RACK, Sensitivity.LOW)


@pytest.mark.parametrize(
    ("fields", "priority", "preempts", "missing"),
    [
        ({"priority": 10**9}, 0, True, ""),
        ({"priorityClassName": "urgent"}, 7, True, ""),
        ({"priorityClassName": "patient"}, 5, False, ""),
        ({"priorityClassName": "none"}, 0, True, "PriorityClass none does not exist"),
    ],
)
def test_priority_comes_from_the_class_alone(fields: Json, priority: int, preempts: bool, missing: str) -> None:
    found = gang(**fields)
    assert (found.priority, found.preempts, found.missing) == (priority, preempts, missing)


def test_job_without_a_class_has_the_default_one() -> None:
    classes = [PriorityClass(Meta("b"), 9, global_default=True), PriorityClass(Meta("a"), 3, global_default=True)]
    one = job()
    found = gang_of(one, priority_of(one, Priorities(classes), ()))
    assert (found.priority, dict(found.charges)["worker"].priority_class) == (3, "a")


def test_running_job_whose_class_is_gone_goes_on() -> None:
    one = placed(job(priorityClassName="none"))
    assert gang_of(one, priority_of(one, CLASSES, ())).missing == ""


@pytest.mark.parametrize(("classes", "priority"), [(("urgent", "urgent"), 7), (("urgent", "patient"), 5), (("urgent", ""), 0)])
def test_gang_whose_templates_name_classes_has_the_lowest(classes: tuple[str, str], priority: int) -> None:
    named = [template(priorityClassName=name) if name else template() for name in classes]
    found = gang(roles={role: {"replicas": 1, "template": one} for role, one in zip(("worker", "ps"), named, strict=True)})
    assert found.priority == priority
    assert [charge.priority_class for _, charge in found.charges] == list(classes)


def test_running_gang_counts_the_lowest_priority_that_its_pods_were_admitted_with() -> None:
    one = placed(job(priorityClassName="urgent", roles=roles(workers=2)))
    for admitted, priority in (((9, 8), 8), ((None, 8), 8), ((None, None), 7)):
        pods = zip(pods_of(one).values(), admitted, strict=True)
        seen = [replace(pod, spec=replace(pod.spec, priority=value)) for pod, value in pods]
        assert priority_of(one, CLASSES, seen).value == priority


def test_pod_is_charged_as_the_api_server_counts_it() -> None:
    one = template(activeDeadlineSeconds=9, overhead={"cpu": "250m"})
    one["spec"]["containers"][0]["resources"] = {
        "requests": {"cpu": "500m"},
        "limits": {names.GPU: 2, "cpu": 1, "memory": "1Gi", "ephemeral-storage": 7},
    }
    one["spec"]["initContainers"] = [{"name": "i", "resources": {"requests": {"memory": "2Gi"}}}]
    charge = job(roles={"worker": {"replicas": 1, "template": one}}).charges["worker"]
    assert dict(charge.amounts) == {
        "pods": 1,
        "count/pods": 1,
        f"requests.{names.GPU}": 2,
        f"limits.{names.GPU}": 2,
        "requests.cpu": 750,
        "limits.cpu": 1250,
        "requests.memory": 2 << 30,
        "limits.memory": 1 << 30,
        "requests.ephemeral-storage": 7,
        "limits.ephemeral-storage": 7,
    }
    assert (charge.terminating, charge.best_effort) == (True, False)
    assert job().charges["worker"].best_effort


@pytest.mark.parametrize(("text", "leave"), [("", ""), (" n1 ", "n1"), ("r1", "r1"), ("  ", "")])
def test_annotation_migrate_is_a_wish_to_move(text: str, leave: str) -> None:
    assert gang(annotations={names.MIGRATE: text}).leave == leave


def test_gang_follows_the_status() -> None:
    one = placed(job())
    one = after(one, lambda record: record.requeue("NodeLost", "gone", avoid=["n1"]), NOW)
    found = gang_of(one)
    assert (found.not_before, found.avoid, found.arrived) == (NOW + 1, frozenset({"n1"}), BORN)
    later = job(metadata={"creationTimestamp": None}, status={"queuedAt": "2027-01-01T00:00:00Z"})
    assert gang_of(later).arrived == 1798761600.0


def test_job_with_time_slicing_takes_turns() -> None:
    plain, shares = job(), job(sharing={"timeSlicing": True})
    assert (gang_of(plain).sharing.slices, gang_of(shares).sharing.slices) == (False, True)
    one = after(started(shares, at=NOW), lambda record: record.preempt("gave way"), NOW + 60)
    waits, runs = gang_of(one), gang_of(started(one, at=NOW + 90))
    assert (waits.since, waits.attained_at(NOW + 80)) == (NOW + 60, 60 * waits.gpus)
    assert (runs.running, runs.attained_at(NOW + 100)) == (True, 70 * runs.gpus)
    assert not gang_of(placed(one)).running  # who is still starting is left alone


@pytest.mark.parametrize(("had", "wanted", "resize"), [(2, 2, False), (2, 3, True), (3, 2, True)])
def test_scaled_job_wants_to_be_resized(had: int, wanted: int, resize: bool) -> None:
    before = placed(job(roles=roles(workers=had)))
    obj = dljob(roles=roles(workers=wanted), status=before.status.model_dump(mode="json", by_alias=True, exclude_none=True))
    found = gang_of(decoded(obj))
    assert (found.resize, len(found.tasks), len(found.placement)) == (resize, wanted, had)


def test_job_without_a_placement_is_not_resized() -> None:
    one = after(placed(job()), lambda record: record.preempt("gave way"))
    one = after(one, lambda record: setattr(record.status, "wanted_replicas", 9))
    assert not gang_of(one).resize


# Reading


def decoded(obj: Json) -> Any:
    return decode(json.dumps(obj).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {}},
        {"spec": {"roles": {}}},
        {"spec": {"roles": roles(), "colour": "red"}},
        {"spec": None},
        {"spec": []},
        {"status": {"phase": "Dancing"}},
        {"status": {"placement": [{"pod": "a", "node": "n1"}]}},
    ],
)
def test_undecodable_job_is_unreadable(change: Json) -> None:
    found = decoded(dljob() | change)
    assert isinstance(found, Unreadable)
    assert found.problem.startswith("DLJob vision/vgg16 cannot be read ")
    assert found.problem.endswith("is the CRD of this muster version installed?")


def test_unreadable_job_still_reserves() -> None:
    found = decoded(dljob(status={"attempt": 3, "placement": [{"pod": "a", "node": "n1", "gpus": [1]}]}) | {"spec": None})
    assert isinstance(found, Unreadable)
    assert (found.reserved.attempt, [(place.pod, place.node, place.gpus) for place in found.reserved.placement]) == (
        3,
        [("a", "n1", [1])],
    )


@pytest.mark.parametrize("status", [[], {"placement": [{"pod": "a"}]}])
def test_job_whose_reservation_cannot_be_read_stays_at_its_last_version(status: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        decoded(dljob() | {"status": status})


def asking(amount: str) -> Json:
    one = template()
    one["spec"]["containers"][0]["resources"]["requests"] = {"cpu": amount}
    return one


@pytest.mark.parametrize(
    "wrong",
    [
        *map(asking, ["many", "1x", ""]),
        {"spec": {"containers": [{"name": "a", "resources": 7}]}},
        template(nodeSelector=7),
        template(volumes=[{"name": "x" * MOST_BYTES}]),
    ],
)
def test_job_with_a_template_that_is_none_says_so_and_asks_for_nothing(wrong: Json) -> None:
    found = decoded(dljob(roles={"worker": {"replicas": 1, "template": wrong}}))
    assert isinstance(found, Job)
    assert (found.gpus, found.replicas) == (0, {"worker": 1})
    assert "roles" in found.flaw


def test_status_of_a_newer_version_is_read() -> None:
    assert decoded(dljob(status={"phase": "Queued", "mood": "good"})).status.phase == "Queued"


def test_extender_reads_the_same_reservation() -> None:
    one = placed(job())
    status = one.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    obj = msgspec.json.decode(json.dumps(dljob(status=status)), type=DLJob)
    assert [(p.pod, p.node, gpu_set(p.gpus)) for p in obj.reserved.placement] == [
        (place.task.name, place.node, place.gpus) for place in placement_of(one)
    ]


# Memory


def kept(body: bytes) -> int:
    """The bytes of memory that a decoded job takes once its JSON is dropped."""
    decode(body)  # what is made once for all jobs
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = decode(bytes(bytearray(body)))
        gc.collect()
        assert isinstance(found, Job)
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


TEXT = "x" * 65536
LONG: dict[str, Json] = {
    "env": {"roles": {"worker": {"template": template(containers=[{"name": "train", "env": [{"name": "A", "value": TEXT}]}])}}},
    "args": {"roles": {"worker": {"template": template(containers=[{"name": "train", "args": [TEXT]}])}}},
    "volumes": {"roles": {"worker": {"template": template(volumes=[{"name": "v", "csi": {"driver": TEXT}}])}}},
    "annotations of pods": {"roles": {"worker": {"template": template() | {"metadata": {"annotations": {"a": TEXT}}}}}},
    "annotations": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": TEXT}},
    "annotations that muster reads": {"annotations": {names.SUSPEND: TEXT, names.MIGRATE: TEXT}},
    "labels": {"metadata": {"labels": {f"{'y' * 60}/{number}": "x" * 60 for number in range(1000)}}},
    "owners": {"metadata": {"ownerReferences": [{"kind": "A", "name": "b", "uid": f"u{n}"} for n in range(2000)]}},
    "managed fields": {"metadata": {"managedFields": [{"fieldsV1": {TEXT: {}}}]}},
}


@pytest.mark.parametrize("what", LONG)
def test_job_takes_no_more_memory_for_what_is_not_read_of_it(what: str) -> None:
    short, long = json.dumps(dljob()).encode(), json.dumps(dljob(**LONG[what])).encode()
    assert len(long) > 20 * len(short)
    assert kept(long) < 2 * kept(short)


def test_suspended_job_takes_no_more_memory_for_constraints_than_a_plain_one() -> None:
    tolerations = [{"key": f"{'k' * 50}{number}", "operator": "Exists"} for number in range(500)]
    workers = {"worker": {"replicas": 2, "template": template(2, tolerations=tolerations)}}
    plain, constrained = (json.dumps(one).encode() for one in (dljob(suspend=True), dljob(suspend=True, roles=workers)))
    assert kept(constrained) < 2 * kept(plain)


def test_resumed_job_has_its_constraints() -> None:
    one = template(2, nodeSelector={"pool": "a"})
    asked: Json = {"roles": {"worker": {"replicas": 1, "template": one}}}
    assert tasks_of(job(suspend=True, **asked))[0].where.labels == ()
    resumed = job(suspend=True, annotations={names.SUSPEND: "false"}, **asked)
    assert tasks_of(resumed)[0].where.labels == (("pool", "a"),)
