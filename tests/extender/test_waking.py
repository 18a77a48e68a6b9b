"""Refused pods are woken when the refusal ends, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import msgspec
import pytest

from muster.kube.errors import Unreachable
from muster.kube.objects import Pod
from muster_extender.rules import Rule
from muster_extender.waking import Waking

if TYPE_CHECKING:
    from extender.conftest import Json, Patches, Until, World

APART = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def waking(world: World, patches: Patches, clock: Clock) -> AsyncIterator[Waking]:
    found = Waking(world.cluster, patches, apart=APART, pause=0.0, now=clock)
    task = asyncio.create_task(found.run())
    yield found
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def reserved(world: World) -> World:
    world.node("n1")
    world.node("n2")
    world.job("gang", {"gang-worker-0": ("n1", list(range(8)))})
    world.job("other", {"other-worker-0": ("n2", list(range(6)))})
    return world


def created_again(world: World) -> Json:
    """Another pod of the name "job"."""
    pod = world.pod("job", 4)
    pod["metadata"]["uid"] = "again"
    return pod


def refuse(world: World, waking: Waking, pod: Json, *nodes: str) -> None:
    """kube-scheduler asks for a pending pod, and every node is refused."""
    world.store(pod)
    verdict = world.ask(pod, *nodes)
    assert verdict.passed == []
    waking.note(msgspec.convert(pod, Pod), verdict)


async def idle() -> None:
    """Let everything that can run, run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_released_reservation_wakes_pods_that_fit(
    reserved: World, waking: Waking, patches: Patches, until: Until
) -> None:
    for gpus in (4, 7):
        refuse(reserved, waking, reserved.pod(f"job-{gpus}", gpus))
    await idle()
    assert patches.made == []
    reserved.job("other", {"other-worker-0": ("n2", [0, 1, 2])})
    await until(lambda: patches.made)
    await idle()
    assert patches.pods == ["vision/job-4"]
    reserved.job("gang", {})
    await until(lambda: len(patches.made) > 1)
    assert patches.pods == ["vision/job-4", "vision/job-7"]


async def test_taken_gpu_wakes_no_pod(reserved: World, waking: Waking, patches: Patches) -> None:
    refuse(reserved, waking, reserved.pod("job", 4))
    reserved.job("more", {"more-worker-0": ("n2", [6])})
    reserved.bind("x", 1, "n2")
    await idle()
    assert patches.made == []


async def test_two_wakes_of_a_pod_are_apart_and_differ(
    reserved: World, waking: Waking, patches: Patches, clock: Clock, until: Until
) -> None:
    refuse(reserved, waking, reserved.pod("job", 4))
    reserved.job("gang", {})
    await until(lambda: len(patches.made) == 1)
    reserved.job("gang", {"gang-worker-0": ("n1", list(range(8)))}, attempt=2)
    refuse(reserved, waking, reserved.pod("job", 4))  # it came too late: somebody else was faster
    await idle()
    reserved.job("gang", {}, attempt=2)
    await idle()
    assert len(patches.made) == 1
    clock.now += APART
    reserved.node("n3", 1)  # any change lets it look at the time
    await until(lambda: len(patches.made) == 2)
    assert patches.made[0] != patches.made[1]


@pytest.mark.parametrize("fate", ["bound", "gone", "passed", "leaving"])
async def test_pods_that_are_no_longer_refused_are_forgotten(
    reserved: World, waking: Waking, patches: Patches, fate: str
) -> None:
    pod = reserved.pod("job", 4)
    refuse(reserved, waking, pod)
    if fate == "bound":
        reserved.bind("job", 4, "n1")
    elif fate == "gone":
        reserved.remove(pod)
    elif fate == "leaving":
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        reserved.store(pod)
    else:
        waking.note(msgspec.convert(pod, Pod), reserved.ask(reserved.pod("job", 1)))
    assert len(waking) == 0
    reserved.job("gang", {})
    await idle()
    assert patches.made == []


async def test_pod_that_is_not_found_is_forgotten(reserved: World, waking: Waking, patches: Patches, until: Until) -> None:
    patches.gone.add("job")
    refuse(reserved, waking, reserved.pod("job", 4))
    reserved.job("gang", {})
    await until(lambda: not len(waking))
    assert (waking.woken, waking.failures) == (0, 0)


async def test_refusal_of_an_earlier_pod_of_the_name_wakes_no_pod(
    reserved: World, waking: Waking, patches: Patches, until: Until
) -> None:
    """The watch has not brought the pod that was created again."""
    refuse(reserved, waking, reserved.pod("job", 4))
    patches.uids["job"] = "again"
    reserved.job("gang", {})
    await until(lambda: not len(waking))
    assert (patches.made, waking.woken, waking.failures) == ([], 0, 0)


async def test_refusal_ends_with_its_pod(reserved: World, waking: Waking) -> None:
    refuse(reserved, waking, reserved.pod("job", 4))
    reserved.store(created_again(reserved))
    assert len(waking) == 0


@pytest.mark.parametrize("answer", ["another uid", "not found"])
async def test_wake_that_came_too_late_leaves_the_next_pod_of_the_name_remembered(
    reserved: World, waking: Waking, patches: Patches, until: Until, answer: str
) -> None:
    reserved.node("n3", 2)
    refuse(reserved, waking, reserved.pod("job", 4))
    if answer == "another uid":
        patches.uids["job"] = "again"
    else:
        patches.gone.add("job")
    patches.meanwhile = lambda: refuse(reserved, waking, created_again(reserved), "n3")
    reserved.job("other", {"other-worker-0": ("n2", [0, 1, 2])})
    await until(lambda: not waking._due)
    await idle()
    assert (patches.made, len(waking), waking.failures) == ([], 1, 0)


async def test_wake_that_did_not_reach_the_server_is_tried_again(
    reserved: World, waking: Waking, patches: Patches, clock: Clock, until: Until
) -> None:
    patches.failures.append(Unreachable("gone fishing"))
    refuse(reserved, waking, reserved.pod("job", 4))
    reserved.job("gang", {})
    await until(lambda: waking.failures == 1)
    clock.now += APART
    reserved.node("n3", 1)
    await until(lambda: patches.pods == ["vision/job"])


async def test_owner_is_woken_by_its_own_reservation(reserved: World, waking: Waking, patches: Patches, until: Until) -> None:
    pod = reserved.own("late-worker-0", "late", 2)
    refuse(reserved, waking, pod)
    reserved.node("n3")  # room is not what it waits for
    await idle()
    assert patches.made == []
    reserved.job("late", {"late-worker-0": ("n3", [0, 1])})
    await until(lambda: patches.pods == ["vision/late-worker-0"])


async def test_pinned_pod_is_woken_by_its_own_gpus(reserved: World, waking: Waking, patches: Patches, until: Until) -> None:
    refuse(reserved, waking, reserved.pod("bare", 1, pin="n2", claim="0"))
    reserved.job("gang", {})
    await idle()
    assert patches.made == []
    reserved.job("other", {"other-worker-0": ("n2", [1])})
    await until(lambda: patches.pods == ["vision/bare"])


async def test_pods_refused_for_assumed_pods_are_woken_when_these_are_bound(
    world: World, waking: Waking, patches: Patches, until: Until
) -> None:
    world.node("n1")
    world.job("gang", {"gang-worker-0": ("n1", [0, 1, 2, 3])})
    world.cluster.assumed.assume("vision/first", 4, ["n1"], 100.0, "")
    pod = world.store(world.pod("second", 4))
    verdict = world.ask(pod)
    assert (verdict.rule, verdict.passed, verdict.transient) == (Rule.OPEN, [], True)
    waking.note(msgspec.convert(pod, Pod), verdict)
    await idle()
    assert patches.made == []
    world.cluster.assumed.forget("vision/first")
    world.node("elsewhere", 1)
    await until(lambda: patches.pods == ["vision/second"])
