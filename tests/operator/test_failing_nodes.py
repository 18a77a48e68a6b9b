"""Programs that fail on one node go elsewhere, and nodes on which several fail are told."""

from __future__ import annotations

import pytest

from builders.dljobs import NOW, Json, after, container, job, pod_of, pods_of, roles, started, time
from builders.operator_harness import SPACE, OperatorHarness
from builders.steps import step_of
from muster.api.status import FAILURES_LIMIT
from muster.kube import paths
from muster_operator.dljob.gang import gang_of
from muster_operator.failing_nodes import TOGETHER_SECONDS, WINDOW_SECONDS
from muster_operator.metrics import FAILING_GANGS

WHOLE = roles(workers=1, gpus=4)
REJECTED: Json = {"phase": "Failed", "reason": "OutOfcpu", "message": "Pod was rejected"}


@pytest.fixture(autouse=True)
def no_failures_yet() -> None:
    """The metric is the process's: forget what other tests have left."""
    FAILING_GANGS.clear()


def ended(at: float | None = None, code: int = 1) -> Json:
    """The status of a pod whose program has failed."""
    end = {"exitCode": code, "reason": "Error", **({"finishedAt": time(at)} if at is not None else {})}
    return {"phase": "Failed", "containerStatuses": [container(terminated=end)]}


@pytest.mark.parametrize(
    ("first", "second", "node"),
    [(NOW + 5, NOW + 9, "n1"), (NOW + 9, NOW + 5, "n2"), (None, NOW + 9, "n2"), (NOW, NOW, "n1"), (None, None, "n1")],
)
def test_gang_failed_where_its_first_pod_failed(first: float | None, second: float | None, node: str) -> None:
    gang = started(job(backoffLimit=9))
    pods = {
        place.pod: pod_of(gang, place, **ended(at)) for place, at in zip(gang.status.placement, (first, second), strict=True)
    }
    step = step_of(gang, pods)
    assert step.status is not None
    assert [(each.node, each.times) for each in step.status.status.failures] == [(node, 1)]
    assert f"failed on node {node}" in step.status.status.message


def test_node_is_avoided_from_the_second_failure_on() -> None:
    one = job()
    avoided = []
    for node in ("n1", "n2", "n1", "n3", "n1"):
        one = after(one, lambda record, node=node: record.blame(node))  # type: ignore[misc]
        avoided.append(set(gang_of(one).avoid))
    assert avoided == [set(), set(), {"n1"}, {"n1"}, {"n1"}]
    assert [(each.node, each.times) for each in one.status.failures] == [("n2", 1), ("n3", 1), ("n1", 3)]
    runs = started(one)
    assert gang_of(runs).avoid == {"n1"}, "a program may run for long before it fails"
    for number in range(FAILURES_LIMIT):
        one = after(one, lambda record, number=number: record.blame(f"m{number}"))  # type: ignore[misc]
    assert len(one.status.failures) == FAILURES_LIMIT
    assert one.status.failures[-1].node == f"m{FAILURES_LIMIT - 1}"


def test_trouble_that_is_not_the_programs_is_not_counted() -> None:
    gang = started(job())
    pods = {**pods_of(gang), "vgg16-worker-0": pod_of(gang, gang.status.placement[0], **REJECTED)}
    step = step_of(gang, pods)
    assert step.status is not None
    assert step.status.status.failures == []


async def fail(harness: OperatorHarness, name: str = "vgg16", **status: Json) -> str:
    """Let the pods of a job run, and the first of them fail; return its node."""
    for _ in range(8):
        await harness.turn(seconds=20)
        harness.end_pods()
    harness.run_pods()
    await harness.turn()
    node: str = harness.status(name)["placement"][0]["node"]
    harness.change(paths.pods(SPACE, f"{name}-worker-0"), status=status or ended())
    await harness.turn()
    return node


async def test_program_that_fails_twice_on_a_node_goes_to_another(harness: OperatorHarness) -> None:
    harness.submit(roles=WHOLE, backoffLimit=2)
    nodes = []
    for _ in range(3):
        nodes.append(await fail(harness))
    assert (nodes[1], nodes[2] != nodes[0]) == (nodes[0], True)
    assert harness.status()["phase"] == "Failed"
    assert [(each["node"], each["times"]) for each in harness.status()["failures"]] == [(nodes[0], 2), (nodes[2], 1)]
    assert ("Normal", nodes[0], "GangFails") in await harness.events()


async def test_program_that_fails_on_the_only_node_is_started_there_again(harness: OperatorHarness) -> None:
    harness.submit(roles={"worker": {"replicas": 2, "template": WHOLE["worker"]["template"]}}, backoffLimit=9)
    for attempt in range(1, 4):
        await fail(harness)
        assert harness.status()["attempt"] == attempt


def failing(node: str) -> float:
    """The metric of a node."""
    (family,) = FAILING_GANGS.collect()
    return next((sample.value for sample in family.samples if sample.labels["node"] == node), 0.0)


async def test_node_on_which_gangs_of_several_owners_fail_is_told(harness: OperatorHarness) -> None:
    for name in ("first", "second"):
        harness.submit(name, roles=WHOLE, backoffLimit=0)
        assert await fail(harness, name) == "n1"
        assert ("Warning", "n1", "GangsFail") not in await harness.events() or name == "second"
        harness.server.drop(paths.pods(SPACE, f"{name}-worker-0"))
    assert ("Warning", "n1", "GangsFail") in await harness.events()
    assert (failing("n1"), failing("n2")) == (2, 0)
    harness.now += WINDOW_SECONDS
    assert failing("n1") == 0
    harness.server.drop(paths.nodes("n1"))
    harness.sync()
    (family,) = FAILING_GANGS.collect()
    assert "n1" not in {sample.labels["node"] for sample in family.samples}


async def test_node_is_not_told_of_programs_that_failed_for_want_of_another_node(harness: OperatorHarness) -> None:
    for name in ("first", "second"):
        harness.submit(name, roles=roles(workers=2, gpus=2), placement={"policy": "Spread"})
        await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    harness.node("n2", ready=False)
    harness.sync()
    for pod in harness.server.of("pods"):
        if pod["spec"]["nodeName"] == "n1":
            harness.change(paths.pods(SPACE, pod["metadata"]["name"]), status=ended())
    harness.sync()
    assert (failing("n1"), failing("n2")) == (0, 0)


async def test_pods_of_a_gang_that_fail_together_count_once(harness: OperatorHarness) -> None:
    for number, node in enumerate(("n1", "n2")):
        harness.pod(f"p{number}", gang="g", size=2, gated=False, node=node, phase="Running")
    harness.sync()
    for number in range(2):
        harness.change(paths.pods(SPACE, f"p{number}"), status=ended())
        harness.now += TOGETHER_SECONDS / 4
        harness.sync()
    assert (failing("n1"), failing("n2")) == (1, 0)


async def test_pods_that_muster_did_not_place_or_that_are_not_to_blame_tell_nothing(harness: OperatorHarness) -> None:
    harness.node("n3")
    harness.pod("foreign", gated=False, node="n3", phase="Running", spec={"schedulerName": "default-scheduler"})
    harness.pod("rejected", gated=False, node="n3", phase="Running")
    harness.sync()
    harness.change(paths.pods(SPACE, "foreign"), status=ended())
    harness.change(paths.pods(SPACE, "rejected"), status=REJECTED)
    harness.sync()
    assert failing("n3") == 0
