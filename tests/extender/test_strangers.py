"""Anybody may send a request: what is in it changes nothing for others."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from muster.api import names
from muster_extender.guard import LONGEST_SPEC, Asker

if TYPE_CHECKING:
    from extender.conftest import Extender, Json, Patches, Serving, Until, World

OTHER = "default-scheduler"


@pytest.fixture
async def impatient(world: World, patches: Patches, serve: Serving) -> AsyncIterator[Extender]:
    """The extender's own listener, without much of a wait for pods."""
    world.sync()
    async with serve(world, patches, pod_seconds=0.01) as running:
        yield running


@pytest.fixture
async def service(world: World, patches: Patches, serve: Serving) -> AsyncIterator[Extender]:
    """The listener of the Service, without much of a wait for pods."""
    world.sync()
    async with serve(world, patches, pod_seconds=0.01, asker=Asker.SERVICE) as running:
        yield running


def question(pod: Json, *nodes: str) -> Json:
    return {"Pod": pod, "Nodes": None, "NodeNames": list(nodes)}


async def ask(extender: Extender, pod: Json, *nodes: str) -> Json:
    status, answer = await extender.post("filter", question(pod, *nodes))
    assert status == 200
    return dict(answer)


def scheduled_by(name: str, pod: Json) -> Json:
    pod["spec"]["schedulerName"] = name
    return pod


# Pods that the view does not know


@pytest.mark.parametrize("asker", list(Asker))
async def test_unknown_pod_gets_an_error_and_is_not_remembered(
    world: World, patches: Patches, serve: Serving, asker: Asker
) -> None:
    world.node("n1")
    world.node("n2")
    world.sync()
    forged = {
        "open": world.pod("open", 8),
        "owner": world.own("owner", "gang", 8),
        "pinned": world.pod("pinned", 2, pin="n1", claim="0,1"),
        "uid": world.pending("uid", 8) | {"metadata": world.pod("uid", 8)["metadata"] | {"uid": "another"}},
    }
    async with serve(world, patches, pod_seconds=0.01, asker=asker) as extender:
        for name, pod in forged.items():
            for scheduler in (names.SCHEDULER, "", "nobody"):
                answer = await ask(extender, scheduled_by(scheduler, pod), "n1", "n2")
                assert f"no pod vision/{name} with uid" in answer["Error"]
                assert answer["NodeNames"] is None
        assert (len(world.cluster.assumed), len(extender.waking), extender.guard.waits) == (0, 0, 0)
        assert (await ask(extender, world.pending("real", 8, phase="Pending"), "n1"))["NodeNames"] == ["n1"]
        _, text = await extender.get("metrics")
        assert 'muster_extender_requests_total{outcome="unknown-pod",verb="filter"} 12.0' in text.splitlines()


async def test_unknown_pod_is_scored_nowhere(world: World, impatient: Extender) -> None:
    world.node("n1", kind="dgx-a100")
    world.node("n2", kind="pcie-8")
    answer = await impatient.post("prioritize", question(world.pod("job", 1), "n1", "n2"))
    assert answer == (200, [{"Host": "n1", "Score": 0}, {"Host": "n2", "Score": 0}])


async def test_pod_that_the_watch_brings_a_moment_later_gets_its_answer(world: World, extender: Extender, until: Until) -> None:
    world.node("n1")
    pod = world.pod("fresh", 8)
    asked = asyncio.create_task(ask(extender, pod, "n1"))
    await until(lambda: "vision/fresh" in extender.guard._pod_changes)
    world.store(pod)
    answer = await asked
    assert (answer["Error"], answer["NodeNames"]) == ("", ["n1"])


async def test_pods_waited_for_are_not_kept_once_the_wait_is_over(world: World, impatient: Extender) -> None:
    world.node("n1")
    for number in range(5):
        assert (await ask(impatient, world.pod(f"never-{number}", 8), "n1"))["Error"]
    assert not impatient.guard._pod_changes


@pytest.mark.parametrize("change", ["gated", "bound", "leaving"])
async def test_pod_that_no_scheduler_can_place_gets_an_error(world: World, impatient: Extender, change: str) -> None:
    world.node("n1")
    pod = world.pod("job", 8)
    asked = copy.deepcopy(pod)
    match change:
        case "gated":
            pod["spec"]["schedulingGates"] = [{"name": "example.com/hold"}]
        case "bound":
            pod["spec"]["nodeName"] = "elsewhere"
        case _:
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.store(pod)
    assert "that waits for a node" in (await ask(impatient, asked, "n1"))["Error"]
    assert len(world.cluster.assumed) == 0


async def test_long_spec_of_an_unknown_pod_is_not_read_over_the_service(
    world: World, service: Extender, impatient: Extender
) -> None:
    world.node("n1")
    pod = world.pod("job", 0)
    pod["spec"]["hostname"] = "h" * LONGEST_SPEC
    assert (await ask(impatient, pod, "n1"))["NodeNames"] == ["n1"]
    assert "no pod vision/job" in (await ask(service, pod, "n1"))["Error"]


# Known pods with a forged body


@pytest.mark.parametrize("forgery", ["owner", "label", "pin", "amount", "scheduler"])
async def test_body_of_a_known_pod_is_not_believed(world: World, impatient: Extender, forgery: str) -> None:
    world.node("n1")
    world.node("n2")
    world.job("gang", {"gang-worker-0": ("n1", [0, 1, 2, 3])})
    pod = world.pending("gang-worker-0", 4)
    forged: Any = {
        "owner": lambda: world.own("gang-worker-0", "gang", 4),
        "label": lambda: pod | {"metadata": pod["metadata"] | {"labels": {names.JOB: "gang"}}},
        "pin": lambda: world.pod("gang-worker-0", 4, pin="n1", claim="0,1,2,3"),
        "amount": lambda: world.pod("gang-worker-0", 1),
        "scheduler": lambda: scheduled_by("nobody", copy.deepcopy(pod)),
    }
    world.bind("other", 4, "n1", claim="4,5,6,7")
    answer = await ask(impatient, forged[forgery](), "n1", "n2")
    assert answer["NodeNames"] == ["n2"]
    assert "4 reserved for vision/gang" in answer["FailedNodes"]["n1"]
    assert world.cluster.assumed.gpus_on("n2", but="") == 4
    assert not world.cluster.assumed.any_of_others("")


async def test_body_without_gpus_passes_for_an_unknown_pod_alone(world: World, service: Extender, impatient: Extender) -> None:
    world.node("n1")
    world.job("gang", {"gang-worker-0": ("n1", [0])})
    pod = world.pending("job", 8)
    assert (await ask(impatient, pod, "n1"))["NodeNames"] == []
    for extender in (service, impatient):
        assert (await ask(extender, world.pod("job", 0), "n1"))["NodeNames"] == []
        another = world.pod("job", 0) | {"metadata": pod["metadata"] | {"uid": "another"}}
        assert (await ask(extender, another, "n1"))["NodeNames"] == ["n1"]
    assert len(impatient.waking) == 1


# Over the Service, the scheduler that asks may be anybody


async def test_pod_of_another_scheduler_passes_on_one_node_and_counts_only_there(world: World, service: Extender) -> None:
    world.node("a", kind="dgx-a100")
    for name in ("b", "c"):
        world.node(name, kind="pcie-8")
    pod = world.store(scheduled_by(OTHER, world.pod("single", 1)))
    answer = await ask(service, pod, "a", "b", "c")
    assert answer["NodeNames"] == ["b"]  # the machine without links
    assert answer["FailedNodes"] == dict.fromkeys("ac", "the extender has chosen node b for this pod")
    whole = world.pod("whole", 8)
    whole["spec"]["schedulerName"] = names.SCHEDULER
    assert world.ask(whole).passed == ["a", "c"]


async def test_own_schedulers_pods_are_not_asked_about_over_the_service(world: World, service: Extender) -> None:
    world.node("n1")
    pod = world.store(scheduled_by(names.SCHEDULER, world.own("gang-worker-0", "gang", 8)))
    answer = await ask(service, pod, "n1")
    assert "the scheduler muster asks about its pods within its own pod" in answer["Error"]
    assert (len(world.cluster.assumed), len(service.waking), service.guard.waits) == (0, 0, 0)


async def test_refused_pod_is_woken_whatever_a_stranger_asks_meanwhile(
    world: World, service: Extender, patches: Patches, until: Until
) -> None:
    world.node("n1")
    world.node("n2")
    world.job("gang", {"gang-worker-0": ("n1", [0])})
    pod = world.store(scheduled_by(OTHER, world.pod("job", 8)))
    assert (await ask(service, pod, "n1"))["NodeNames"] == []
    assert (await ask(service, pod, "n2"))["NodeNames"] == ["n2"]
    assert patches.made == []
    world.job("gang", {})
    await until(lambda: patches.pods == ["vision/job"])
