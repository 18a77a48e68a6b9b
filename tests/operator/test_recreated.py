"""Objects that are made again under the same name between two looks of the operator: nothing of the first one stays."""

from __future__ import annotations

from typing import Any

import pytest

from builders.dljobs import BORN, NOW, roles, template, time
from builders.operator_harness import SPACE, OperatorHarness
from muster.api import names
from muster.kube import paths

WHOLE = roles(workers=1, gpus=4)
ANEW: dict[str, dict[str, Any]] = {
    "another scheduler's": {"spec": {"schedulerName": "default-scheduler"}},
    "a job's by its label": {"metadata": {"uid": "anew", "labels": {names.JOB: "x"}}},
    "over": {"phase": "Succeeded"},
}


@pytest.mark.parametrize("anew", ANEW.values(), ids=ANEW)
async def test_pod_made_again_as_another_is_planned_no_more(harness: OperatorHarness, anew: dict[str, Any]) -> None:
    """The list after a watch that broke brings the second pod without the end of the first, which was planned for ever."""
    harness.pod("p", 4)
    await harness.turn(2)
    assert [gang.name for gang in harness.external_pods.gangs()] == [f"{SPACE}/pod:p"]
    harness.server.drop(paths.pods(SPACE, "p"))
    harness.pod("p", 0, gated=False, **{"metadata": {"uid": "anew"}, **anew})
    harness.node("n1", 4)
    harness.submit("good", roles=WHOLE, metadata={"creationTimestamp": time(NOW)})
    await harness.turn(3)
    assert (harness.external_pods.gangs(), harness.status("good")["phase"]) == ([], "Admitted")


async def test_ended_pod_that_gets_another_label_is_done_for_no_gang_that_it_left(harness: OperatorHarness) -> None:
    harness.node("n1", 4)
    harness.pod("a", gang="g", size=2, gated=False, node="n1", annotations={names.GPUS: "0", names.RANK: "0"}, phase="Running")
    harness.pod("b", gang="g", size=2, gated=False, node="n1", phase="Succeeded")
    harness.pod("c", gang="g", size=2)
    await harness.turn(2)
    harness.change(paths.pods(SPACE, "b"), metadata={"labels": {names.GANG: "other"}})
    await harness.turn()
    assert {name: sorted(pods) for name, pods in harness.external_pods._ended.items()} == {
        f"{SPACE}/gang:other": [f"{SPACE}/b"]
    }


async def test_everything_made_again_between_two_passes_leaves_nothing_behind(harness: OperatorHarness) -> None:
    """A namespace deleted and restored, on nodes of the same names."""
    claim = {"metadata": {"name": "data", "namespace": SPACE}, "spec": {"volumeName": "disk"}, "status": {"phase": "Bound"}}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    using = {"worker": {"replicas": 1, "template": template(4, volumes=volumes)}}
    for round in range(3):
        for path in [path for path in harness.server.objects if "/events/" not in path]:
            harness.server.drop(path)
        harness.server.put(paths.dlqueues(SPACE), {"metadata": {"name": "default", "namespace": SPACE}, "spec": {"gpus": 4}})
        harness.server.put("/api/v1/persistentvolumes", {"metadata": {"name": "disk"}, "spec": {"capacity": {"storage": "1"}}})
        harness.server.put(f"/api/v1/namespaces/{SPACE}/persistentvolumeclaims", claim)
        harness.node("n1", 4 if round % 2 else 8)
        born = {"uid": f"uid-{round}", "creationTimestamp": time(BORN + round)}
        harness.submit(roles=using, metadata=born)
        await harness.turn(4)
        assert (harness.status()["phase"], harness.status()["attempt"]) == ("Admitted", 1)
        harness.run_pods()
        await harness.turn(2)
        assert harness.status()["phase"] == "Running"
