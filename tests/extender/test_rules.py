"""The filter: each rule, and each way around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from muster.api import names
from muster.kube.quantity import parse
from muster_extender.reasons import MOST_SENTENCES
from muster_extender.rules import Rule

if TYPE_CHECKING:
    from extender.conftest import World


@pytest.fixture
def reserved(world: World) -> World:
    """Nodes n1 to n3 of 8 GPUs; vision/vgg16 is reserved 0,1 of n1 and 4 to 7 of n2."""
    for name in ("n1", "n2", "n3"):
        world.node(name)
    world.job("vgg16", {"vgg16-worker-0": ("n1", [0, 1]), "vgg16-worker-1": ("n2", [4, 5, 6, 7])})
    return world


# 1. No GPUs


def test_pod_without_gpus_passes_everywhere(reserved: World) -> None:
    verdict = reserved.ask(reserved.pod("web", 0), "n3", "n1", "elsewhere")
    assert (verdict.rule, verdict.passed) == (Rule.FREE, ["n3", "n1", "elsewhere"])
    assert not verdict.failed
    assert not verdict.unresolvable


# 2. Owners


def test_owner_passes_on_its_node_only(reserved: World) -> None:
    verdict = reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 2))
    assert (verdict.rule, verdict.passed) == (Rule.OWNER, ["n1"])
    sentence = "this pod is reserved GPUs 0,1 of node n1"
    assert verdict.unresolvable == {"n2": sentence, "n3": sentence}


def test_owner_asked_without_its_node_passes_nowhere(reserved: World) -> None:
    verdict = reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 2), "n2")
    assert (verdict.passed, list(verdict.unresolvable)) == ([], ["n2"])


def test_owner_keeps_its_node_when_it_is_pinned_there_itself(reserved: World) -> None:
    pod = reserved.store(reserved.own("vgg16-worker-0", "vgg16", 2, pin="n1", claim="0,1"))
    assert reserved.ask(pod).passed == ["n1"]


def test_owner_whose_gpus_a_bound_pod_took_waits_and_says_for_whom(reserved: World) -> None:
    reserved.bind("thief", 1, "n1", claim="1")
    verdict = reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 2), "n1")
    assert verdict.passed == []
    assert verdict.failed == {"n1": "GPU 1 of node n1, given to this pod, held by vision/thief"}  # preempting it would help


def test_owner_whose_gpus_unnamed_pods_took_waits(reserved: World) -> None:
    reserved.bind("thief", 7, "n1")
    verdict = reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 2), "n1")
    assert verdict.passed == []
    assert "pods that name no GPUs" in verdict.failed["n1"]


def test_claim_does_not_outweigh_an_owner(reserved: World) -> None:
    reserved.store(reserved.pod("forger", 2, pin="n1", claim="0,1"))
    assert reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 2)).passed == ["n1"]


def test_owner_on_a_broken_gpu_waits(reserved: World) -> None:
    reserved.node("n1", broken=[1])
    verdict = reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 2), "n1")
    assert verdict.unresolvable == {"n1": "GPU 1 of node n1, given to this pod, cannot be used: not there or unhealthy"}


def test_owner_that_asks_for_more_than_it_was_given_gets_only_what_is_free(reserved: World) -> None:
    reserved.bind("neighbour", 4, "n1", claim="2,3,4,5")
    assert reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 4)).passed == ["n1"]
    assert reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 5)).passed == []


@pytest.mark.parametrize(
    "forged",
    [
        {"job": None},
        {"job": "vgg16", "job_uid": "another"},
        {"job": "other", "job_uid": "uid-vgg16"},
        {"job": "vgg16", "namespace": "elsewhere"},
        {"job": "vgg16", "labelled": False, "job_uid": "another"},
    ],
)
def test_only_the_job_with_the_right_uid_owns_a_reservation(reserved: World, forged: dict[str, str]) -> None:
    reserved.bind("neighbour", 6, "n1", claim="2,3,4,5,6,7")  # all that is left of n1 is the reservation
    verdict = reserved.ask(reserved.pod("vgg16-worker-0", 2, **forged), "n1")  # type: ignore[arg-type]
    assert verdict.passed == []


# 3. Waiting for a reservation, and reservations that moved


def test_pod_of_a_job_without_reservation_is_awaited(reserved: World) -> None:
    verdict = reserved.ask(reserved.own("new-worker-0", "new", 2))
    assert (verdict.rule, verdict.passed, len(verdict.unresolvable)) == (Rule.AWAITED, [], 3)
    assert "DLJob vision/new" in verdict.unresolvable["n3"]


@pytest.mark.parametrize(
    ("pod_attempt", "job_attempt", "rule"),
    [(1, 1, Rule.OWNER), (None, 1, Rule.OWNER), ("x", 1, Rule.OWNER), (2, 1, Rule.AWAITED), (1, 2, Rule.WITHDRAWN)],
)
def test_attempt_decides_between_owner_awaited_and_withdrawn(
    reserved: World, pod_attempt: int | str | None, job_attempt: int, rule: Rule
) -> None:
    reserved.job("vgg16", {"vgg16-worker-0": ("n1", [0, 1])}, attempt=job_attempt)
    verdict = reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 2, attempt=pod_attempt))
    assert verdict.rule is rule
    assert verdict.passed == (["n1"] if rule is Rule.OWNER else [])


def test_pod_of_an_earlier_attempt_passes_where_the_new_one_gives_it_the_same(reserved: World) -> None:
    reserved.job("vgg16", {"vgg16-worker-0": ("n1", [0, 1])}, attempt=2)
    assert reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 2, attempt=1, pin="n1", claim="0,1")).passed == ["n1"]
    assert reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 2, attempt=1, pin="n1", claim="2,3")).passed == []
    assert reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 2, attempt=1, pin="n2", claim="0,1")).passed == []


def test_withdrawn_reservation_is_not_awaited(reserved: World) -> None:
    reserved.job("vgg16", {}, attempt=1)
    verdict = reserved.ask(reserved.own("vgg16-worker-0", "vgg16", 2, pin="n1", claim="0,1"))
    assert (verdict.rule, verdict.passed) == (Rule.WITHDRAWN, [])


def test_reservation_follows_its_job(reserved: World) -> None:
    pod = reserved.own("vgg16-worker-0", "vgg16", 2, attempt=None)
    reserved.job("vgg16", {"vgg16-worker-0": ("n3", [6, 7])}, attempt=2)
    assert reserved.ask(pod).passed == ["n3"]
    reserved.job_gone("vgg16")
    assert reserved.ask(pod).rule is Rule.AWAITED
    assert reserved.ask(reserved.pod("other", 8)).passed == ["n1", "n2", "n3"]
    assert not reserved.cluster.outstanding


def test_job_takes_only_its_own_reservation_along(reserved: World) -> None:
    reserved.job("twin", {"shared": ("n3", [0])})
    reserved.job("vgg16", {"shared": ("n3", [1])}, attempt=2)  # one name of a pod in two jobs: the last word counts
    reserved.job_gone("twin")
    assert reserved.ask(reserved.own("shared", "vgg16", 1, attempt=2)).passed == ["n3"]


def test_controller_without_the_label_gains_nothing(reserved: World) -> None:
    verdict = reserved.ask(reserved.pod("x", 8, job="vgg16", labelled=False))
    assert (verdict.rule, verdict.passed) == (Rule.OPEN, ["n3"])


def test_pod_that_only_bears_the_label_passes_nowhere(reserved: World) -> None:
    """It frees a pod from the gate, so it must not lead past it."""
    pod = reserved.pod("x", 1)
    pod["metadata"]["labels"] = {names.JOB: "vgg16"}
    verdict = reserved.ask(pod)
    assert (verdict.rule, verdict.passed) == (Rule.WITHDRAWN, [])
    assert "remove the label" in verdict.unresolvable["n3"]


# 4. Pinned by the operator


def test_pinned_pod_passes_on_its_node_only(reserved: World) -> None:
    pod = reserved.store(reserved.pod("bare", 2, pin="n3", claim="0,1"))
    verdict = reserved.ask(pod)
    assert (verdict.rule, verdict.passed) == (Rule.PINNED, ["n3"])
    assert verdict.unresolvable["n1"] == "this pod is pinned to GPUs 0,1 of node n3"


def test_claim_does_not_outweigh_a_reservation(reserved: World) -> None:
    pod = reserved.store(reserved.pod("forger", 2, pin="n1", claim="1,2"))
    verdict = reserved.ask(pod, "n1")
    assert verdict.unresolvable == {"n1": "GPU 1 of node n1, given to this pod, held by vision/vgg16"}


def test_claim_under_the_name_of_a_reserved_pod_does_not_outweigh_the_reservation(reserved: World) -> None:
    pod = reserved.store(reserved.pod("vgg16-worker-0", 2, pin="n1", claim="0,1"))
    assert reserved.ask(pod).passed == []


def test_claim_does_not_outweigh_a_bound_pod(reserved: World) -> None:
    reserved.bind("first", 2, "n3", claim="1,2")
    pod = reserved.store(reserved.pod("forger", 2, pin="n3", claim="0,1"))
    assert reserved.ask(pod).passed == []


@pytest.mark.parametrize("claim", ["0", "0,0", "0,x", "0,1,2", "0,99", "7,8", ""])
def test_claim_of_another_number_of_gpus_is_ignored(reserved: World, claim: str) -> None:
    reserved.bind("neighbour", 6, "n1", claim="2,3,4,5,6,7")
    pod = reserved.store(reserved.pod("forger", 2, pin="n1", claim=claim))
    assert reserved.ask(pod, "n1").passed == []


# 5. Everybody else


@pytest.mark.parametrize(
    ("gpus", "passed"), [(1, ["n1", "n2", "n3"]), (4, ["n1", "n2", "n3"]), (5, ["n1", "n3"]), (7, ["n3"]), (9, [])]
)
def test_open_pod_passes_only_on_unreserved_gpus(reserved: World, gpus: int, passed: list[str]) -> None:
    assert reserved.ask(reserved.pod("job", gpus)).passed == passed


def test_reservation_and_its_bound_pod_count_once(reserved: World) -> None:
    reserved.bind("vgg16-worker-0", 2, "n1", claim="0,1", job="vgg16")
    assert reserved.ask(reserved.pod("job", 6), "n1").passed == ["n1"]


@pytest.mark.parametrize(
    ("gpus", "unresolvable", "sentence"),
    [
        (7, True, "needs 7 GPUs: 3 of 8 free, 4 reserved for vision/big and 1 other, 1 unhealthy"),
        (4, True, "needs 4 GPUs: 3 of 8 free, 4 reserved for vision/big and 1 other, 1 unhealthy"),
    ],
)
def test_reserved_gpus_cannot_be_preempted(world: World, gpus: int, unresolvable: bool, sentence: str) -> None:
    world.node("n", broken=[7])
    world.job("big", {"big-worker-0": ("n", [0, 1, 2])})
    world.job("a", {"a-worker-0": ("n", [3])})
    verdict = world.ask(world.pod("job", gpus), "n")
    assert (verdict.unresolvable if unresolvable else verdict.failed) == {"n": sentence}


def test_jobs_of_other_namespaces_are_not_named(world: World) -> None:
    """What one namespace was told is not told to another, though it asks for as many GPUs of the same node."""
    world.node("n")
    world.job("big", {"big-worker-0": ("n", [0, 1, 2])})
    world.job("secret", {"secret-worker-0": ("n", [3])}, namespace="other")
    told = {
        space: world.ask(world.pod("job", 5, namespace=space), "n").unresolvable["n"] for space in ("vision", "other", "third")
    }
    asked = "needs 5 GPUs: 4 of 8 free, 4 reserved for"
    assert told == {
        "vision": f"{asked} vision/big and 1 other",
        "other": f"{asked} other/secret and 1 other",
        "third": f"{asked} a gang of another namespace and 1 other",
    }
    claims = world.pod("claims", 1, namespace="vision", pin="n", claim="3")
    held = "GPU 3 of node n, given to this pod, held by a gang of another namespace"
    assert world.ask(claims, "n").unresolvable == {"n": held}


@pytest.mark.parametrize(("gpus", "unresolvable"), [(3, False), (6, False), (7, True)])
def test_gpus_held_by_pods_can_be_preempted(world: World, gpus: int, unresolvable: bool) -> None:
    world.node("n")
    world.job("a", {"a-worker-0": ("n", [0, 1])})
    world.bind("some", 4, "n")
    verdict = world.ask(world.pod("job", gpus), "n")
    sentence = f"needs {gpus} GPUs: 2 of 8 free, 2 reserved for vision/a, 4 held by other pods"
    assert (verdict.unresolvable, verdict.failed) == (({"n": sentence}, {}) if unresolvable else ({}, {"n": sentence}))


def test_unknown_and_cordoned_nodes_are_refused(world: World) -> None:
    world.node("cordoned", cordoned=True)
    world.node("sick", ready=False)
    verdict = world.ask(world.pod("job"), "cordoned", "new", "sick")
    assert verdict.passed == []
    assert verdict.failed == {"new": "the extender has not seen this node yet"}  # it may be there in a moment
    assert verdict.unresolvable == dict.fromkeys(["cordoned", "sick"], "the node is not Ready or is cordoned")
    world.node("new")
    assert world.ask(world.pod("job"), "new").passed == ["new"]


def test_node_without_gpus_is_refused(world: World) -> None:
    world.node("cpu", 0)
    assert world.ask(world.pod("job"), "cpu").unresolvable == {"cpu": "needs 1 GPU: 0 of 0 free"}


def test_order_is_kept_and_the_answer_is_the_same_again(reserved: World) -> None:
    pod = reserved.pod("job", 5)
    first = reserved.ask(pod, "n3", "n2", "n1", "nX")
    assert first.passed == ["n3", "n1"]
    assert first == reserved.ask(pod, "n3", "n2", "n1", "nX")


def test_answer_follows_every_change(reserved: World) -> None:
    pod = reserved.pod("job", 7)
    assert reserved.ask(pod).passed == ["n3"]
    reserved.job("vgg16", {"vgg16-worker-0": ("n3", [0, 1])}, attempt=2)
    assert reserved.ask(pod).passed == ["n1", "n2"]
    reserved.bind("x", 2, "n2")
    assert reserved.ask(pod).passed == ["n1"]
    assert "2 held by other pods" in reserved.ask(pod).failed["n2"]
    reserved.remove(reserved.pod("x"))
    reserved.node("n1", cordoned=True)
    assert reserved.ask(pod).passed == ["n2"]


def test_many_nodes_get_few_sentences(world: World) -> None:
    nodes = [f"n{number}" for number in range(MOST_SENTENCES + 2)]
    for node in nodes:
        world.node(node)
        world.job(f"job-{node}", {f"job-{node}-worker-0": (node, [0])})
    verdict = world.ask(world.pod("job", 8), *nodes)
    assert list(verdict.unresolvable) == nodes
    assert set(verdict.unresolvable.values()) == {"needs 8 GPUs: fewer are free, the others are reserved"}
    assert len(set(world.ask(world.pod("job", 8), *nodes[:3]).unresolvable.values())) == 3


def test_requests_for_many_different_numbers_are_answered(world: World) -> None:
    world.node("n")
    for gpus in range(1, 200):
        assert world.ask(world.pod("job", gpus), "n").passed == (["n"] if gpus <= 8 else [])


def test_invalid_quantity_is_named(world: World) -> None:
    world.node("n")
    pod = world.pod("job")
    pod["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/gpu": "many"}
    with pytest.raises(ValueError, match="'many' is no quantity"):
        world.ask(pod, "n")
    assert parse("1") == 1
