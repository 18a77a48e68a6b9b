"""What cannot be followed is told once, and once more when it can be again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from prometheus_client import REGISTRY

from builders.office import Office
from muster.kube.events import Reference
from muster_operator import sight


@dataclass
class Follower:
    """Somebody who follows a resource."""

    trouble: str = ""


def blind(resource: str) -> float | None:
    return REGISTRY.get_sample_value("muster_operator_blind", {"resource": resource})


async def test_it_is_told_once_and_again_when_it_is_over(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sight, "LOOK_SECONDS", 0.001)
    pods, nodes = Follower(), Follower()
    me = Reference("v1", "Pod", "muster-operator-x", "muster-system", "u1")
    task = asyncio.create_task(sight.look({"pods": pods, "nodes": nodes}, office.recorder, me))
    pods.trouble = "403 Forbidden: pods is forbidden"
    await office.until(lambda: blind("pods") == 1.0)
    pods.trouble = "403 Forbidden: told in other words"
    await asyncio.sleep(0.02)
    pods.trouble = ""
    await office.until(lambda: blind("pods") == 0.0)
    task.cancel()
    assert blind("nodes") == 0.0
    assert await office.events() == [("Warning", "muster-operator-x", "Blind"), ("Normal", "muster-operator-x", "Sees")]
    said = [event["message"] for event in office.server.of("events")]
    assert said == ["cannot follow pods: 403 Forbidden: pods is forbidden", "follows pods again"]


def test_the_pod_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POD_NAME", "POD_NAMESPACE", "POD_UID"):
        monkeypatch.delenv(name, raising=False)
    assert sight.own_pod() is None
    monkeypatch.setenv("POD_NAME", "muster-operator-x")
    monkeypatch.setenv("POD_NAMESPACE", "muster-system")
    monkeypatch.setenv("POD_UID", "u1")
    assert sight.own_pod() == Reference("v1", "Pod", "muster-operator-x", "muster-system", "u1")
