"""A watch that fails is reported once, and once more when it works again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from prometheus_client import REGISTRY

from builders.operator_harness import OperatorHarness
from muster.kube.events import Reference
from muster_operator import reporting, watch_health


@dataclass
class Watch:
    """A watch of a resource."""

    trouble: str = ""


def failed(resource: str) -> float | None:
    return REGISTRY.get_sample_value("muster_operator_watch_failed", {"resource": resource})


async def test_failed_watch_is_reported_once_and_its_recovery_once(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_health, "CHECK_SECONDS", 0.001)
    pods, nodes = Watch(), Watch()
    me = Reference("v1", "Pod", "muster-operator-x", "muster-system", "u1")
    task = asyncio.create_task(watch_health.report({"pods": pods, "nodes": nodes}, harness.context.reporter, me))
    pods.trouble = "403 Forbidden: pods is forbidden"
    await harness.until(lambda: failed("pods") == 1.0)
    pods.trouble = "403 Forbidden: told in other words"
    await asyncio.sleep(0.02)
    pods.trouble = ""
    await harness.until(lambda: failed("pods") == 0.0)
    task.cancel()
    assert failed("nodes") == 0.0
    assert await harness.events() == [
        ("Warning", "muster-operator-x", "WatchFailed"),
        ("Normal", "muster-operator-x", "WatchRestored"),
    ]
    said = [event["message"] for event in harness.server.of("events")]
    assert said == ["cannot watch pods: 403 Forbidden: pods is forbidden", "watches pods again"]


def test_own_pod_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POD_NAME", "POD_NAMESPACE", "POD_UID"):
        monkeypatch.delenv(name, raising=False)
    assert reporting.own_pod() is None
    monkeypatch.setenv("POD_NAME", "muster-operator-x")
    monkeypatch.setenv("POD_NAMESPACE", "muster-system")
    monkeypatch.setenv("POD_UID", "u1")
    assert reporting.own_pod() == Reference("v1", "Pod", "muster-operator-x", "muster-system", "u1")
