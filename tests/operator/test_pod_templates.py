"""Pod templates are read when pods are made of them, of the very job that asks, and for so many jobs at once."""

from __future__ import annotations

import asyncio

import pytest

from builders.dljobs import roles, template
from builders.operator_harness import SPACE, OperatorHarness
from muster.kube import paths
from muster_operator.dljob import templates
from muster_operator.dljob.templates import JobGone, Templates

JOB = paths.dljobs(SPACE, "vgg16")


async def test_templates_of_a_suspended_job_are_not_read(harness: OperatorHarness) -> None:
    harness.submit(suspend=True)
    await harness.turn(4)
    assert harness.status()["phase"] == "Suspended"
    assert harness.server.reads == []


async def test_templates_of_a_waiting_job_are_read_once_for_their_check(harness: OperatorHarness) -> None:
    harness.submit(roles=roles(workers=9, gpus=4))
    await harness.turn(4)
    assert harness.status()["phase"] == "Queued"
    assert harness.server.reads == [JOB]


async def test_pods_are_made_of_the_templates_as_the_api_server_has_them(harness: OperatorHarness) -> None:
    one = template(2, nodeSelector={}, hostNetwork=True) | {"metadata": {"annotations": {"team": "vision"}}}
    harness.submit(roles={"worker": {"replicas": 2, "template": one}})
    await harness.turn(3)
    pods = harness.server.of("pods")
    assert [(pod["spec"]["hostNetwork"], pod["metadata"]["annotations"]["team"]) for pod in pods] == [(True, "vision")] * 2
    assert harness.server.reads == [JOB, JOB]  # for the check, and for both pods


async def test_pods_are_not_made_of_the_templates_of_another_job_of_that_name(harness: OperatorHarness) -> None:
    harness.submit()
    harness.sync()
    job = harness.job()
    harness.server.drop(paths.dljobs(SPACE, "vgg16"))
    with pytest.raises(JobGone):
        async with Templates(harness.context).of(job):
            pass
    harness.submit(metadata={"uid": "another"})
    with pytest.raises(JobGone):
        async with Templates(harness.context).of(job):
            pass


async def test_check_of_a_job_that_has_gone_says_nothing(harness: OperatorHarness) -> None:
    harness.submit()
    harness.sync()
    harness.server.drop(paths.dljobs(SPACE, "vgg16"))
    await harness.dljobs.check.run(harness.job())
    assert not harness.dljobs.check.has_passed(harness.job())
    assert harness.server.asked == []


async def test_failed_read_of_templates_is_no_rejection(harness: OperatorHarness) -> None:
    harness.submit()
    harness.server.refuse("GET", "/dljobs/", 403, "not yours")
    await harness.turn(2)
    assert not harness.status()
    await harness.turn(3, seconds=3)
    assert harness.status()["phase"] == "Admitted"


async def test_templates_of_so_many_jobs_are_in_memory_at_once(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "JOBS_AT_ONCE", 2)
    for number in range(5):
        harness.submit(f"job{number}")
    harness.sync()
    reader, inside, most = Templates(harness.context), 0, 0
    reads, go_on = asyncio.Event(), asyncio.Event()

    async def use(name: str) -> None:
        nonlocal inside, most
        async with reader.of(harness.job(name)):
            inside += 1
            most = max(most, inside)
            if inside == 2:
                reads.set()
            await go_on.wait()
            inside -= 1

    using = [asyncio.create_task(use(f"job{number}")) for number in range(5)]
    await reads.wait()
    go_on.set()
    await asyncio.gather(*using)
    assert most == 2
