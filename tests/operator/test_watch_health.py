"""What cannot be followed is told once, and once more when it can be again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from prometheus_client import REGISTRY

from builders.operator_harness import OperatorHarness
from muster.kube.events import Reference
from muster_operator import watch_health


@dataclass
class Follower:
    """Somebody who follows a resource."""

    trouble: str = ""


def blind(resource: str) -> float | None:
    return REGISTRY.get_sample_value("muster_operator_blind", {"resource": resource})


async def test_it_is_told_once_and_again_when_it_is_over(harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_health, "LOOK_SECONDS", 0.001)
    pods, nodes = Follower(), Follower()
    me = Reference("v1", "Pod", "muster-operator-x", "muster-system", "u1")
    task = asyncio.create_task(watch_health.look({"pods": pods, "nodes": nodes}, harness.recorder, me))
    pods.trouble = "403 Forbidden: pods is forbidden"
    await harness.until(lambda: blind("pods") == 1.0)
    pods.trouble = "403 Forbidden: told in other words"
    await asyncio.sleep(0.02)
    pods.trouble = ""
    await harness.until(lambda: blind("pods") == 0.0)
    task.cancel()
    assert blind("nodes") == 0.0
    assert await harness.events() == [("Warning", "muster-operator-x", "Blind"), ("Normal", "muster-operator-x", "Sees")]
    said = [event["message"] for event in harness.server.of("events")]
    assert said == ["cannot follow pods: 403 Forbidden: pods is forbidden", "follows pods again"]


def test_the_pod_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POD_NAME", "POD_NAMESPACE", "POD_UID"):
        monkeypatch.delenv(name, raising=False)
    assert watch_health.own_pod() is None
    monkeypatch.setenv("POD_NAME", "muster-operator-x")
    monkeypatch.setenv("POD_NAMESPACE", "muster-system")
    monkeypatch.setenv("POD_UID", "u1")
    assert watch_health.own_pod() == Reference("v1", "Pod", "muster-operator-x", "muster-system", "u1")
