"""Events reach the server once, and recording them never hurts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from muster.kube.events import Recorder, Reference

if TYPE_CHECKING:
    from kube.conftest import ApiServer, Until
    from muster.kube.client import Client

JOB = Reference("muster.dev/v1alpha1", "DLJob", "vgg16", "vision", "u1")


class Clock:
    now = 1_700_000_000.0
    step = 0.0

    def __call__(self) -> float:
        return self.now + self.step

    def pace(self) -> float:
        return self.now - 1_600_000_000.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def recorder(client: Client, clock: Clock) -> AsyncIterator[Recorder]:
    recorder = Recorder(client, "muster-operator", "pod-1", queue=20, per_second=10_000, now=clock, pace=clock.pace)
    task = asyncio.create_task(recorder.run())
    yield recorder
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def sent(server: ApiServer) -> list[dict[str, Any]]:
    return [json.loads(body) for body in server.bodies]


async def test_event_has_the_fields_that_kubectl_shows(server: ApiServer, recorder: Recorder, until: Until) -> None:
    recorder.event(JOB, "Warning", "Waiting", "x" * 2000)
    await until(lambda: recorder.posted == 1)
    (event,) = sent(server)
    assert server.asked[0].path == "/api/v1/namespaces/vision/events"
    assert event["involvedObject"] == {
        "apiVersion": "muster.dev/v1alpha1",
        "kind": "DLJob",
        "name": "vgg16",
        "namespace": "vision",
        "uid": "u1",
    }
    assert (event["type"], event["reason"], len(event["message"])) == ("Warning", "Waiting", 1024)
    assert (event["firstTimestamp"], event["count"]) == ("2023-11-14T22:13:20Z", 1)
    assert event["source"] == {"component": "muster-operator", "host": "pod-1"}


async def test_same_event_is_posted_once_in_a_window(server: ApiServer, recorder: Recorder, clock: Clock, until: Until) -> None:
    for message in ("a", "a", "b", "a"):
        recorder.event(JOB, "Normal", "Waiting", message)
    await until(lambda: recorder.posted == 2)
    clock.now += 299
    recorder.event(JOB, "Normal", "Waiting", "a")
    clock.now += 1
    recorder.event(JOB, "Normal", "Waiting", "a")
    await until(lambda: recorder.posted == 3)
    assert [event["message"] for event in sent(server)] == ["a", "b", "a"]


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_window_is_as_long_whatever_becomes_of_the_clock(recorder: Recorder, clock: Clock, step: float) -> None:
    recorder.event(JOB, "Normal", "Waiting", "a")
    clock.step = step
    clock.now += 299
    recorder.event(JOB, "Normal", "Waiting", "a")
    await recorder.drain(30)
    assert recorder.posted == 1
    clock.now += 1
    recorder.event(JOB, "Normal", "Waiting", "a")
    await recorder.drain(30)
    assert recorder.posted == 2


async def test_events_of_one_namespace_leave_room_for_those_of_others(recorder: Recorder) -> None:
    for number in range(1000):
        recorder.event(JOB, "Warning", "UnknownWish", str(number))
    recorder.event(Reference("v1", "Pod", "p", "others"), "Warning", "Requeued", "deleted and queued again")
    assert recorder.dropped == 995
    await recorder.drain(30)
    recorder.event(JOB, "Warning", "UnknownWish", "again")
    await recorder.drain(30)
    assert recorder.posted == 7


async def test_same_words_about_another_occurrence_are_another_event(
    server: ApiServer, recorder: Recorder, clock: Clock, until: Until
) -> None:
    for second in (0, 0, 7):
        at = datetime.fromtimestamp(clock.now + second, UTC)
        recorder.event(JOB, "Warning", "Preempted", "preempted by b", occurrence=at)
    await until(lambda: recorder.posted == 2)
    assert [event["message"] for event in sent(server)] == ["preempted by b"] * 2


async def test_events_over_the_limit_are_dropped(recorder: Recorder) -> None:
    for number in range(12):
        recorder.event(JOB, "Normal", "Waiting", str(number))
    assert recorder.dropped == 7
    await recorder.drain(30)
    assert recorder.posted == 5


async def test_refused_event_is_dropped_and_the_next_one_goes(server: ApiServer, recorder: Recorder, until: Until) -> None:
    server.write_faults.append(server.answers(403, "Forbidden"))
    recorder.event(JOB, "Normal", "Waiting", "refused")
    recorder.event(Reference("v1", "Node", "n1"), "Normal", "Labelled", "of no namespace")
    recorder.event(Reference("v1", "Pod", "p", ".."), "Normal", "Bad", "namespace")
    await until(lambda: recorder.posted == 1 and recorder.dropped == 2)
    assert server.asked[-1].path == "/api/v1/namespaces/default/events"
