"""Whatever is in the API server, the operator goes on, and a job beside it starts in the same pass."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from builders.anything import anything, damaged
from builders.dljobs import dljob, job, placed, roles, template
from builders.external_pods import external_json
from builders.operator_harness import SPACE, OperatorHarness, opened
from muster.api import names
from muster.kube import paths
from muster_operator.resources import Resource

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
WHOLE = roles(workers=1, gpus=4)
KEPT = (("metadata", "name"), ("metadata", "namespace"), ("metadata", "resourceVersion"))
PLACED = placed(job("odd"))
STATUS = PLACED.status.model_dump(mode="json", by_alias=True, exclude_none=True)
FULL = dljob(
    "odd",
    queue="research",
    elastic={"minReplicas": 1, "maxReplicas": 4},
    sharing={"timeSlicing": True},
    placement={"policy": "Spread", "required": "Rack", "preferred": "Node"},
    activeDeadlineSeconds=100,
    annotations={names.SUSPEND: "false", names.MIGRATE: "n1"},
    roles={"worker": {"replicas": 2, "template": template(2, nodeSelector={"a": "b"}, affinity={"nodeAffinity": {}})}},
    status=STATUS,
)
POD = external_json(
    "odd",
    1,
    gang="g",
    size=2,
    metadata={"annotations": {names.GANG_SIZE: "2", names.QUEUED_AT: "2026-01-01T00:00:00Z", names.REQUEUES: "1"}},
)


def readable(resource: Resource[Any], body: Any) -> bool:
    """Whether the reflector puts an object into its store; it leaves out what raises no other error."""
    try:
        resource.decode(json.dumps(body).encode())
    except msgspec.MsgspecError:
        return False
    return True


async def beside(harness: OperatorHarness, plural: str, body: Any) -> None:
    """The operator meets an object; a job beside it must start, with nothing failing outside of what is contained."""
    resource = next(each for each in harness.stores.watched if each.plural == plural)
    if not isinstance(body.get("metadata"), dict) or not readable(resource, {**body, "metadata": {**body["metadata"]}}):
        return
    namespace = None if plural in ("nodes", "priorityclasses") else SPACE
    harness.server.put(resource.path(namespace), body)
    harness.server.put(paths.dlqueues(SPACE), {"metadata": {"name": "default", "namespace": SPACE}, "spec": {}})
    for name in ("n7", "n8", "n9"):
        harness.node(name, 4)
    harness.submit("good", roles=WHOLE, priority=5)
    await harness.turn(3)
    assert harness.status("good").get("phase") == "Admitted"
    assert len(harness.status("good")["placement"]) == 1


@pytest.fixture(autouse=True)
def listeners(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No listener of a store fails: it would leave half a state."""
    yield
    said = [record.getMessage() for record in caplog.get_records("call")]
    assert [message for message in said if "a listener failed" in message] == []


@MANY
@given(damaged(FULL, KEPT))
async def test_job_beside_a_job_of_any_kind_starts(body: Any) -> None:
    async with opened() as harness:
        await beside(harness, "dljobs", body)


@MANY
@given(damaged(POD, KEPT))
async def test_job_beside_a_gated_pod_of_any_kind_starts(body: Any) -> None:
    async with opened() as harness:
        await beside(harness, "pods", body)


@MANY
@given(damaged(external_json("odd", 1, gated=False, node="n9", annotations={names.GPUS: "0", names.RANK: "0"}), KEPT))
async def test_job_beside_a_bound_pod_of_any_kind_starts(body: Any) -> None:
    async with opened() as harness:
        await beside(harness, "pods", body)


NODE = {
    "metadata": {"name": "odd", "labels": {names.RACK: "r"}, "annotations": {names.TOPOLOGY: "{}"}},
    "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]},
    "status": {"allocatable": {names.GPU: "4", "cpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
}


@MANY
@given(damaged(NODE, KEPT))
async def test_job_beside_a_node_of_any_kind_starts(body: Any) -> None:
    async with opened() as harness:
        await beside(harness, "nodes", body)


@MANY
@given(damaged({"metadata": {"name": "odd", "namespace": SPACE}, "spec": {"gpus": 4}, "status": {"pending": 1}}, KEPT))
async def test_job_beside_a_queue_of_any_kind_starts(body: Any) -> None:
    async with opened() as harness:
        harness.server.put(paths.dlqueues(SPACE), {"metadata": {"name": "default", "namespace": SPACE}})
        await beside(harness, "dlqueues", body)


@MANY
@given(anything.map(lambda value: {"metadata": {"name": "odd"}, "value": value}))
async def test_job_beside_a_priority_class_of_any_kind_starts(body: Any) -> None:
    async with opened() as harness:
        harness.submit("classed", priorityClassName="odd", roles=WHOLE)
        await beside(harness, "priorityclasses", body)
