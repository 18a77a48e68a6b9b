"""A job whose names something else has: it says what and who can remove it, and goes on by itself once that is gone."""

from __future__ import annotations

import pytest

from builders.dljobs import NOW, Json, job, placed, pod_of, roles, time
from builders.operator_harness import SPACE, OperatorHarness
from muster.allocation.holding import Source
from muster.api import names
from muster.kube import paths
from muster_operator.dljob.leftovers import in_the_way, job_of_pod

W0, W1 = "vgg16-worker-0", "vgg16-worker-1"
LABEL = {names.JOB: "vgg16"}
EARLIER = [{"apiVersion": names.API_VERSION, "kind": "DLJob", "name": "vgg16", "uid": "earlier", "controller": True}]
LEFT = "was left by an earlier DLJob (deleted with --cascade=orphan, or restored from a backup): delete it (kubectl delete"
KINDS: dict[str, tuple[Json, str]] = {
    "orphan": ({"labels": LABEL}, LEFT),
    "of-an-earlier-job": ({"labels": LABEL, "ownerReferences": EARLIER}, "garbage collector"),
    "leaving": ({"labels": LABEL, "deletionTimestamp": time(NOW)}, "is being deleted"),
    "of-a-user": ({"labels": {}}, "exists and is not this job's: delete it (kubectl delete pod -n vision vgg16-worker-1)"),
    "of-another-job": ({"labels": {names.JOB: "other"}, "ownerReferences": [{**EARLIER[0], "kind": "Job"}]}, "not this job's"),
}


def service(**meta: object) -> Json:
    return {"metadata": {"name": "vgg16", "namespace": SPACE, "uid": "theirs", "labels": LABEL, **meta}}


@pytest.mark.parametrize("kind", KINDS)
async def test_job_waits_for_a_pod_of_its_name_and_says_so(harness: OperatorHarness, kind: str) -> None:
    meta, words = KINDS[kind]
    harness.pod(W1, 1, gated=False, node="n1", metadata=meta)
    harness.submit()
    await harness.turn(4)
    reason, message = harness.admitted()
    assert (harness.status()["phase"], reason, harness.pods()) == ("Queued", "NameTaken", [W1])
    assert message.startswith(f"Pod vision/{W1} ")
    assert words in message
    assert ("Warning", "vgg16", "NameTaken") in await harness.events()
    asked = len(harness.server.asked)
    await harness.turn(3)
    assert len(harness.server.asked) == asked, "it is told once"

    harness.server.drop(paths.pods(SPACE, W1))
    await harness.turn(3)
    assert (harness.status()["phase"], harness.pods()) == ("Admitted", [W0, W1])


@pytest.mark.parametrize(("meta", "words"), [({}, LEFT), ({"ownerReferences": EARLIER}, "garbage collector")])
async def test_job_waits_for_a_service_of_its_name_and_says_so(harness: OperatorHarness, meta: Json, words: str) -> None:
    harness.server.put(paths.services(SPACE), service(**meta))
    harness.submit()
    await harness.turn(4)
    assert (harness.admitted()[0], harness.pods()) == ("NameTaken", [])
    assert harness.admitted()[1].startswith("Service vision/vgg16 ")
    assert words in harness.admitted()[1]
    assert harness.server.of("services")[0]["metadata"]["uid"] == "theirs"

    harness.server.drop(paths.services(SPACE, "vgg16"))
    await harness.turn(3)
    assert (harness.status()["phase"], harness.pods()) == ("Admitted", [W0, W1])


async def test_service_without_our_label_requeues_the_gang(harness: OperatorHarness) -> None:
    """The watch does not bring it: it is found when the Service is to be created."""
    harness.submit()
    harness.server.put(paths.services(SPACE), service(labels={}))
    await harness.turn(3)
    assert harness.pods() == []
    remedy = "delete it (kubectl delete service -n vision vgg16), or name the job otherwise"
    assert harness.admitted() == ("FailedCreate", f"Service vision/vgg16 exists and is not this job's: {remedy}")
    assert harness.server.of("services")[0]["metadata"]["uid"] == "theirs"


async def test_gang_is_requeued_for_a_pod_that_came_after_its_placement(harness: OperatorHarness) -> None:
    harness.submit()
    await harness.turn(2)
    harness.pod(W1, 0, gated=False, spec={"schedulerName": "default-scheduler"})
    await harness.look()
    assert harness.admitted()[0] == "FailedCreate"
    assert harness.admitted()[1].endswith("already exists: a pod of that name is not this job's")
    await harness.turn(3)
    assert (harness.admitted()[0], harness.pods()) == ("NameTaken", [W1])
    assert "notBefore" not in harness.status(), "it starts as soon as the pod is gone"


@pytest.mark.parametrize("suspend", [True, False])
async def test_service_of_an_earlier_job_keeps_no_job_from_its_next_step(harness: OperatorHarness, suspend: bool) -> None:
    harness.server.put(paths.services(SPACE), service())
    harness.submit(suspend=suspend)
    await harness.turn(4)
    assert harness.status()["phase"] == ("Suspended" if suspend else "Queued")


async def test_gpus_of_an_orphaned_pod_stay_its_own(harness: OperatorHarness) -> None:
    harness.pod("vgg16-worker-7", 3, gated=False, node="n1", metadata={"labels": LABEL})
    harness.pod("vgg16-worker-8", 3, gated=False, node="n2", metadata={"labels": LABEL})
    harness.submit()
    await harness.turn(4)
    assert harness.admitted()[0] == "InsufficientGPUs"
    assert harness.pods() == ["vgg16-worker-7", "vgg16-worker-8"]
    holding = harness.stores.view.ledger.holding(f"{SPACE}/vgg16-worker-7", Source.POD)
    assert holding is not None
    assert (holding.size, holding.leaving) == (3, False)


def test_pods_that_are_not_wanted_are_not_in_the_way() -> None:
    one = job(roles=roles(workers=1))
    two = placed(job(metadata={"uid": "earlier"}))
    pods = [pod_of(two, place) for place in two.status.placement]
    assert in_the_way(one, pods[1:], None) == ""
    assert in_the_way(one, pods, None).startswith(f"Pod vision/{W0} ")
    assert "1 more pod has a name of this job" in in_the_way(job(), pods, None)
    assert in_the_way(two, pods, None) == "", "its own are not in its way"


@pytest.mark.parametrize(
    ("pod", "expected"),
    [(W0, "vgg16"), ("a-b-ps-12", "a-b"), ("worker-0", None), ("a-worker-x", None), ("a-cook-0", None), ("a", None)],
)
def test_job_of_a_pod_follows_from_its_name(pod: str, expected: str | None) -> None:
    assert job_of_pod(pod, ("worker", "ps")) == expected
