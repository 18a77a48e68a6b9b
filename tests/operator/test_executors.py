"""One executor a verb: what is decided about one gang is written in order, what cannot be executed fails its gang alone."""

from __future__ import annotations

import pytest

from builders.dljobs import roles
from builders.operator_harness import SPACE, OperatorHarness
from muster.kube import paths
from muster.scheduling import decisions
from muster.scheduling.decisions import (
    AnyAssignment,
    Decision,
    Grow,
    Join,
    Migrate,
    Move,
    Pack,
    Place,
    Preempt,
    Reason,
    Requeue,
    Resume,
    Shrink,
    Suspend,
    Unpack,
)
from muster.scheduling.gang import Gang
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.placement import find
from muster_operator.planning import executors
from muster_operator.planning.executors import VERBS
from muster_operator.planning.snapshot import Snapshots

WHOLE = roles(workers=1, gpus=4)
JOB = paths.dljobs(SPACE, "vgg16")


async def carry_out(harness: OperatorHarness, *decided: Decision) -> None:
    """Have decisions carried out as planning does."""
    harness.sync()
    snapshot = Snapshots(harness.stores.view, harness.controllers, harness.context.reporter).take()
    waits = await executors.carry_out(harness.context, harness.controllers, decided, snapshot, harness.now)
    harness.planning.telling.hear(waits, harness.now)
    await harness.idle()


def gang(harness: OperatorHarness, name: str = "vgg16") -> Gang:
    """A job as the planner sees it now."""
    harness.sync()
    return next(gang for gang in harness.dljobs.gangs() if gang.name == f"{SPACE}/{name}")


async def running(harness: OperatorHarness) -> Gang:
    """A job that fills n1."""
    harness.submit(roles=WHOLE, placement={"preferred": "Node"})
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    return gang(harness)


async def test_requeue_and_placement_of_one_gang_in_one_plan_are_written_in_order(harness: OperatorHarness) -> None:
    one = await running(harness)
    (before,) = one.placement
    elsewhere = (before._replace(node="n2" if before.node == "n1" else "n1"),)
    requeue = Requeue(one, Reason.TIME_SLICED, "another gang ranks first")
    await carry_out(harness, requeue, Place(one, elsewhere, Reason.PLACED, "4 GPUs on another node"))
    status = harness.status()
    assert [event["event"] for event in status["timeline"]][-2:] == ["Preempted", "Admitted"]
    assert (status["attempt"], status["requeues"], status["phase"]) == (2, 1, "Admitted")
    assert [place["node"] for place in status["placement"]] == [elsewhere[0].node]


async def test_failed_write_ends_what_was_decided_about_its_gang_alone(harness: OperatorHarness) -> None:
    one = await running(harness)
    harness.submit("other", roles=WHOLE)
    harness.sync()
    await harness.look()
    other = gang(harness, "other")
    snapshot = harness.stores.view.usable()
    placement = find(other, FreeCapacity(snapshot))
    assert placement is not None
    harness.server.refuse("PATCH", "vgg16/status", 403, "not today")
    await carry_out(
        harness,
        Requeue(one, Reason.TIME_SLICED, "another gang ranks first"),
        Place(one, one.placement, Reason.PLACED, "placed again"),
        Place(other, placement, Reason.PLACED, "placed"),
    )
    assert (harness.status()["attempt"], harness.status("other")["attempt"]) == (1, 1)
    assert harness.work_queue.plan_at <= harness.now + 2


async def test_gang_with_work_in_flight_is_left_alone_and_planned_after_it(harness: OperatorHarness) -> None:
    one = await running(harness)
    harness.keep_busy("vgg16")
    harness.work_queue.begin_plan()
    await carry_out(
        harness, Preempt(one, (one,), Reason.PREEMPTING, "preempts"), Move(one, one.placement, Reason.MIGRATED, "moves")
    )
    assert (harness.status()["phase"], harness.status()["attempt"]) == ("Running", 1)
    await harness.release("vgg16")
    assert harness.work_queue.plan_at == 0.0


async def test_placement_on_gpus_that_are_still_held_waits(harness: OperatorHarness) -> None:
    one = await running(harness)
    harness.submit("other", roles=WHOLE)
    harness.sync()
    await harness.look()
    other = gang(harness, "other")
    taken = (one.placement[0]._replace(task=other.tasks[0]),)
    await carry_out(harness, Place(other, taken, Reason.PLACED, "placed"))
    assert harness.admitted("other")[0] == "PodsStopping"
    assert not harness.status("other").get("placement")


UNEXECUTABLE = (Join, Resume, Migrate, Pack, Unpack, Grow, Shrink)


async def test_job_that_finished_since_the_snapshot_is_not_placed(harness: OperatorHarness) -> None:
    harness.submit(roles=WHOLE)
    harness.sync()
    await harness.look()
    one = gang(harness)
    placement = find(one, FreeCapacity(harness.stores.view.usable()))
    assert placement is not None
    snapshot = Snapshots(harness.stores.view, harness.controllers, harness.context.reporter).take()
    harness.change(JOB, status={"phase": "Failed"})
    harness.sync()
    decided = [Place(one, placement, Reason.PLACED, "placed")]
    await executors.carry_out(harness.context, harness.controllers, decided, snapshot, harness.now)
    assert harness.status() == {"phase": "Failed"}


@pytest.mark.parametrize("verb", UNEXECUTABLE)
async def test_verb_that_the_operator_cannot_execute_is_reported_and_changes_nothing(
    harness: OperatorHarness, verb: type[AnyAssignment], caplog: pytest.LogCaptureFixture
) -> None:
    one = await running(harness)
    asked = len(harness.server.asked)
    await carry_out(harness, verb(one, one.placement, Reason.PLACED, "no reason"))
    assert len(harness.server.asked) == asked
    assert f"gang vision/vgg16: the planner decided {verb.__name__}" in caplog.text


async def test_decision_that_cannot_be_executed_leaves_those_about_other_gangs_alone(
    harness: OperatorHarness, caplog: pytest.LogCaptureFixture
) -> None:
    one = await running(harness)
    harness.submit("other", roles=WHOLE)
    harness.sync()
    await harness.look()
    other = gang(harness, "other")
    placement = find(other, FreeCapacity(harness.stores.view.usable()))
    assert placement is not None
    stranger = Gang("vision/stranger", one.queue, 0.0, one.tasks)
    await carry_out(
        harness,
        Suspend(one, Reason.TIME_SLICED, "waits in its place"),
        Requeue(stranger, Reason.TIME_SLICED, "another gang ranks first"),
        Place(other, placement, Reason.PLACED, "placed"),
    )
    assert (harness.status()["phase"], harness.status("other")["phase"]) == ("Running", "Admitted")
    assert "Suspend" in caplog.text
    assert "gang vision/stranger belongs to no controller" in caplog.text


def test_every_verb_is_executed_or_refused() -> None:
    assert {*VERBS, *UNEXECUTABLE, Suspend} == decisions.VERBS
