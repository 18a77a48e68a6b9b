"""The seam between operator and planner: no plan that cannot be carried out, and no change where nothing has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from builders.dljobs import Json, roles, time
from builders.operator_harness import SPACE, OperatorHarness
from muster import machines
from muster.api import names, topology
from muster.kube import paths
from muster.scheduling.decisions import Decision
from muster.scheduling.gang_index import GangIndex
from muster.scheduling.planner import Planner
from muster.scheduling.snapshot import Snapshot
from muster_operator.dljob.job import Job
from muster_operator.work_queue import NEVER

TURNS: Json = {"timeSlicing": True}
WHOLE = roles(workers=1, gpus=4)
CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"


def nvlinked(harness: OperatorHarness, name: str, machine: str = "dgx-a100") -> None:
    """A node whose GPUs are joined by NVLink, as its agent reports it."""
    links = machines.machine(machine).links
    gpus = [topology.Gpu(f"GPU-{index}", healthy=True) for index in range(len(links))]
    text = topology.encode(topology.NodeTopology(gpus, [list(row) for row in links]))
    harness.node(name, len(links), annotations={names.TOPOLOGY: text})


async def test_running_job_is_not_restarted_because_faster_links_join(harness: OperatorHarness) -> None:
    """No rate was measured and nothing is checkpointed: a guess about links must not cost a restart."""
    for node in ("n1", "n2"):
        harness.node(node, 2)
    harness.submit(sharing=TURNS, placement={"sensitivity": "Auto"})
    await harness.turn(3)
    harness.run_pods()
    await harness.turn(2)
    pods = harness.pods()
    assert (harness.status()["phase"], {place["node"] for place in harness.status()["placement"]}) == ("Running", {"n1", "n2"})
    nvlinked(harness, "n3")
    harness.submit("waits", roles=roles(workers=1, gpus=16), sharing=TURNS)
    for _ in range(4):
        await harness.turn(3, seconds=60)
    assert (harness.status()["attempt"], harness.status()["phase"], harness.pods()) == (1, "Running", pods)
    assert not [write for write in harness.server.writes("DELETE") if "/pods/" in write]


class Recorded:
    """The snapshots that the planner was asked about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.snapshots: list[Snapshot] = []
        for name in ("plan", "introspect"):
            monkeypatch.setattr(Planner, name, self._recorded(getattr(Planner, name)))

    def _recorded(self, well: Any) -> Any:
        def asked(planner: Planner, snapshot: Snapshot, now: float) -> Sequence[Decision]:
            self.snapshots.append(snapshot)
            decided: Sequence[Decision] = well(planner, snapshot, now)
            return decided

        return asked


async def crowded(harness: OperatorHarness) -> None:
    """Jobs that run and wait, with and without a PriorityClass, and pods that muster did not create, alone and as a gang."""
    harness.server.put(CLASSES, {"metadata": {"name": "urgent"}, "value": 1000})
    queue = {"metadata": {"name": "default", "namespace": SPACE}, "spec": {"gpus": 64}}
    harness.server.put(paths.dlqueues(SPACE), queue)
    harness.submit("done", status={"phase": "Succeeded", "finishedAt": time(harness.now), "gpuSeconds": 400.0, "gpus": 4})
    harness.submit("runs", roles=roles(workers=1, gpus=2), priorityClassName="urgent", sharing=TURNS)
    harness.pod("ungated", 1)
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    for name, fields in (("plain", {}), ("urgent", {"priorityClassName": "urgent"}), ("sharing", {"sharing": TURNS})):
        harness.submit(name, roles=roles(workers=4, gpus=4), **fields)
    harness.pod("alone", 64)
    for number in range(2):
        harness.pod(f"p{number}", 8, gang="g", size=2)
    await harness.turn(6, seconds=10)


async def test_plan_over_an_unchanged_cluster_sees_the_same_objects(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crowded(harness)
    recorded = Recorded(monkeypatch)
    await harness.turn(2, seconds=60)
    first, second = recorded.snapshots[-2:]
    assert len(first.gangs) == 7
    assert [gang.name for gang, before in zip(second.gangs, first.gangs, strict=True) if gang is not before] == []
    assert [name for name, node in second.nodes.items() if node is not first.nodes[name]] == []
    assert second.profiles is first.profiles
    assert second.ended is first.ended
    assert len(first.ended) == 1


async def test_index_of_an_unchanged_cluster_sees_nobody_come_and_nobody_go(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crowded(harness)
    recorded = Recorded(monkeypatch)
    await harness.turn(2, seconds=60)
    index = GangIndex()
    index.follow(recorded.snapshots[-2].gangs)
    changes = index.follow((*recorded.snapshots[-1].gangs,))  # another tuple, so that each gang is compared
    assert (list(changes.came), list(changes.gone)) == ([], [])


async def test_change_of_one_job_changes_its_gang_alone(harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    await crowded(harness)
    recorded = Recorded(monkeypatch)
    await harness.turn(2, seconds=60)
    harness.change(paths.dljobs(SPACE, "plain"), spec={"priority": 5}, metadata={"generation": 2})
    await harness.turn()
    before, after = recorded.snapshots[-2:]
    changed = [gang.name for gang, old in zip(after.gangs, before.gangs, strict=True) if gang is not old]
    assert changed == ["vision/plain"]


async def test_change_of_a_priority_class_changes_the_gangs_of_its_jobs(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    await crowded(harness)
    recorded = Recorded(monkeypatch)
    await harness.turn(2, seconds=60)
    harness.server.put(CLASSES, {"metadata": {"name": "urgent"}, "value": 2000})
    await harness.turn()
    before, after = recorded.snapshots[-2:]
    changed = {gang.name: gang.priority for gang, old in zip(after.gangs, before.gangs, strict=True) if gang is not old}
    assert changed == {"vision/runs": 2000, "vision/urgent": 2000}


async def test_plan_looks_at_those_jobs_alone_of_which_something_changed(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand that wait must not cost a plan ten thousand looks."""
    for number in range(6):
        harness.submit(f"job{number}", roles=WHOLE, priorityClassName="usual")
    harness.server.put(CLASSES, {"metadata": {"name": "usual"}, "value": 5})
    for _ in range(4):
        await harness.turn(seconds=1)
    looked_at: list[str] = []
    look = harness.dljobs.jobs.in_the_way

    def recorded(job: Job) -> str:
        looked_at.append(job.meta.name)
        return look(job)

    monkeypatch.setattr(harness.dljobs.jobs, "in_the_way", recorded)
    waiting = [name for name in sorted(harness.jobs()) if not harness.status(name).get("placement")]
    await harness.plan()
    assert (len(waiting), looked_at) == (4, [])
    harness.pod(f"{waiting[0]}-worker-0", gated=False, node="n1")
    harness.sync()
    await harness.plan()
    assert looked_at == waiting[:1]
    assert f"{SPACE}/{waiting[0]}" not in {gang.name for gang in harness.dljobs.gangs()}, "something else has its name"
    harness.server.put(CLASSES, {"metadata": {"name": "usual"}, "value": 6})
    looked_at.clear()
    harness.sync()
    await harness.plan()
    assert sorted(looked_at) == waiting
    assert {gang.priority for gang in harness.dljobs.gangs()} == {6}


async def test_job_is_planned_after_the_work_that_kept_it_from_it(harness: OperatorHarness) -> None:
    harness.submit(roles=WHOLE)
    harness.sync()
    await harness.look()
    harness.keep_busy("vgg16")
    await harness.plan()
    await harness.plan()
    assert list(harness.dljobs.gangs()) == []
    await harness.release("vgg16")
    assert harness.work_queue.plan_at < NEVER
    await harness.plan()
    assert harness.status()["phase"] == "Admitted"
