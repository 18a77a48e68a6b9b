"""A fault over one gang or node leaves the others planned in the same pass, and says what is the matter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from builders.dljobs import roles, time
from builders.operator_harness import SPACE, OperatorHarness
from muster.kube import paths
from muster.kube.objects import Pod
from muster.scheduling import planner
from muster.scheduling.admission.admission import admit
from muster.scheduling.decisions import Admission, Decision, Place, Reason, Wait
from muster.scheduling.gang import Gang, Task
from muster.scheduling.session import Session
from muster.scheduling.snapshot import Queue, Snapshot
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node
from muster_operator.dljob import controller, manifests
from muster_operator.dljob.gang import gang_of
from muster_operator.dljob.job import Job
from muster_operator.external_pods import controller as external_pods
from muster_operator.external_pods.gangs import PodGang, pod_gang
from muster_operator.planning.culprits import Culprits
from muster_operator.planning.isolation import AGAIN_SECONDS, MOST_TRIALS, UNEXAMINED_SECONDS, Isolation

WHOLE = roles(workers=1, gpus=4)
NODE = Node("n1", unknown_machine(4), 0b1111, 0b1111)


class FaultyPlanner:
    """A planner that fails over some gangs and nodes, and counts how often it is asked."""

    def __init__(self, *faulty: str) -> None:
        self.faulty, self.asked = set(faulty), 0

    def __call__(self, snapshot: Snapshot) -> Sequence[Decision]:
        self.asked += 1
        for name in [*snapshot.nodes, *(gang.name for gang in snapshot.gangs)]:
            if name in self.faulty:
                raise KeyError(name)
        return planner.plan(snapshot, 0.0)


def waiting(*names: str) -> tuple[Gang, ...]:
    return tuple(Gang(name, "vision/default", 0.0, (Task(f"{name}-0", 1),)) for name in names)


def outcome(decisions: Sequence[Decision]) -> dict[str, str]:
    return {decision.gang.name: type(decision).__name__ for decision in decisions}


# The search


@pytest.mark.parametrize("bad", [set(), {0}, {6}, {2, 3}, {0, 3, 6}, {0, 1, 2, 3, 4, 5, 6}])
def test_each_culprit_is_found(bad: set[int]) -> None:
    search: Culprits[int] = Culprits(lambda some: ValueError() if bad & set(some) else None, 100)
    search.examine(range(7))
    assert ({item for item, _ in search.found}, set(search.sound)) == (bad, set(range(7)) - bad)


def test_one_of_two_that_fail_only_together_is_a_culprit() -> None:
    search: Culprits[int] = Culprits(lambda some: ValueError() if {2, 5} <= set(some) else None, 100)
    search.examine(range(7))
    assert [item for item, _ in search.found] == [5]


def test_search_for_one_culprit_takes_few_trials_and_never_more_than_allowed() -> None:
    search: Culprits[int] = Culprits(lambda some: ValueError() if 777 in some else None, 30)
    search.examine(range(1000))
    assert [item for item, _ in search.found] == [777]
    assert not search.unexamined
    exhausted: Culprits[int] = Culprits(lambda some: ValueError() if some else None, 5)
    exhausted.examine(range(1000))
    assert len(exhausted.unexamined) + len(exhausted.found) == 1000


# The isolation of the planner


def test_gang_at_fault_is_set_aside_and_the_others_are_planned_in_the_same_pass() -> None:
    ask, found = FaultyPlanner("b"), list[tuple[str, str]]()
    isolation = Isolation(lambda kind, name, _: found.append((kind, name)))
    decisions = isolation.decide(Snapshot({"n1": NODE}, waiting("a", "b", "c")), ask, ask, 0.0)
    assert outcome(decisions) == {"a": "Place", "b": "Wait", "c": "Place"}
    wait = next(decision for decision in decisions if isinstance(decision, Wait))
    assert (wait.reason, "KeyError: 'b'" in wait.message) == (Reason.UNPLANNABLE, True)
    assert found == [("gang", "b")]


def test_gang_set_aside_is_left_out_until_it_changes() -> None:
    ask, found = FaultyPlanner("b"), list[str]()
    isolation = Isolation(lambda _kind, name, _error: found.append(name))
    gangs = waiting("a", "b")
    isolation.decide(Snapshot({"n1": NODE}, gangs), ask, ask, 0.0)
    asked = ask.asked
    assert outcome(isolation.decide(Snapshot({"n1": NODE}, gangs), ask, ask, 1.0)) == {"a": "Place", "b": "Wait"}
    assert (ask.asked, found) == (asked + 1, ["b"])
    ask.faulty.clear()
    mended = Snapshot({"n1": NODE}, (gangs[0], replace(gangs[1], priority=1)))
    assert outcome(isolation.decide(mended, ask, ask, 2.0)) == {"a": "Place", "b": "Place"}


def test_gang_set_aside_is_tried_again_after_a_while() -> None:
    ask = FaultyPlanner("b")
    isolation = Isolation(lambda *_: None)
    snapshot = Snapshot({"n1": NODE}, waiting("a", "b"))
    isolation.decide(snapshot, ask, ask, 0.0)
    assert isolation.again_at == AGAIN_SECONDS
    ask.faulty.clear()
    assert outcome(isolation.decide(snapshot, ask, ask, AGAIN_SECONDS)) == {"a": "Place", "b": "Place"}
    assert isolation.again_at is None


def test_quota_is_less_by_what_a_gang_set_aside_holds() -> None:
    holder = waiting("holder")[0]
    placement = planner.plan(Snapshot({"n1": NODE}, (holder,)), 0.0)[0]
    assert isinstance(placement, Place)
    held = replace(holder, placement=placement.placement)
    queues = {"vision/default": Queue("vision/default", 1)}
    ask = FaultyPlanner("holder")
    node = replace(NODE, free=0b0111)
    decisions = Isolation(lambda *_: None).decide(Snapshot({"n1": node}, (held, *waiting("a")), queues), ask, ask, 0.0)
    assert outcome(decisions) == {"a": "Wait", "holder": "Wait"}


def test_node_at_fault_is_set_aside_and_gangs_go_to_the_others() -> None:
    ask, found = FaultyPlanner("n2"), list[tuple[str, str]]()
    isolation = Isolation(lambda kind, name, _: found.append((kind, name)))
    nodes = {"n1": NODE, "n2": replace(NODE, name="n2", machine=unknown_machine(5))}
    decisions = isolation.decide(Snapshot(nodes, waiting("a", "b")), ask, ask, 0.0)
    assert [(type(decision), decision.placement[0].node) for decision in decisions if isinstance(decision, Place)] == [
        (Place, "n1"),
        (Place, "n1"),
    ]
    assert found == [("node", "n2")]
    used = {**nodes, "n1": replace(NODE, free=0b0011)}
    assert set(isolation.nodes) == {"n2"}
    assert outcome(isolation.decide(Snapshot(used, waiting("a", "b")), ask, ask, 1.0)) == {"a": "Place", "b": "Place"}


def test_gang_that_is_not_examined_yet_is_told_nothing_of_others() -> None:
    bad = [f"secret{number}" for number in range(200)]
    ask = FaultyPlanner(*bad)
    decisions = Isolation(lambda *_: None).decide(Snapshot({"n1": NODE}, waiting("mine", *bad)), ask, ask, 0.0)
    told = [(wait.gang.name, wait.message) for wait in decisions if isinstance(wait, Wait)]
    assert any("examined next" in message for _, message in told)
    assert [(name, message) for name, message in told if "secret" in message.replace(name, "")] == []


def test_many_gangs_at_fault_cost_a_bounded_number_of_passes_a_turn_and_never_those_that_ran_well() -> None:
    bad = [f"bad{number}" for number in range(200)]
    ask = FaultyPlanner(*bad)
    isolation = Isolation(lambda *_: None)
    good = waiting("good")
    isolation.decide(Snapshot({"n1": NODE}, good), ask, ask, 0.0)
    snapshot, turns = Snapshot({"n1": NODE}, (*waiting(*bad), *good)), 0
    now = 0.0
    while turns == 0 or any(fault.until <= now + UNEXAMINED_SECONDS for fault in isolation.gangs.values()):
        asked = ask.asked
        decisions = isolation.decide(snapshot, ask, ask, now)
        assert outcome(decisions)["good"] == "Place"
        assert ask.asked - asked <= MOST_TRIALS + 3
        now += UNEXAMINED_SECONDS
        turns += 1
        assert turns < 20
    assert set(isolation.gangs) == set(bad)


# The operator


def failing(well: Callable[..., object], name: str) -> Callable[..., object]:
    """A function that fails over the object of that name."""

    def faulty(one: Job | str, *others: object, **more: object) -> object:
        if (one.meta.name if isinstance(one, Job) else one).endswith(name):
            raise RuntimeError("a fault of ours")
        return well(one, *others, **more)

    return faulty


def logged(caplog: pytest.LogCaptureFixture) -> int:
    """How many tracebacks were logged."""
    return sum(record.exc_info is not None for record in caplog.records)


async def test_job_that_the_planner_fails_over_is_told_and_the_others_start(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(session: Session, which: Callable[[Gang], bool] | None = None) -> list[Admission]:
        if f"{SPACE}/bad" in session.index.waiting:
            raise KeyError("chief")
        return admit(session, which)

    monkeypatch.setattr(planner, "admit", faulty)
    harness.submit("bad", roles=WHOLE)
    harness.submit("good", roles=WHOLE)
    await harness.turn(2)
    assert harness.status("good")["phase"] == "Admitted"
    assert (harness.status("bad")["phase"], harness.admitted("bad")[0]) == ("Queued", "Unplannable")
    await harness.turn(5, seconds=2)
    assert logged(caplog) == 1


async def test_job_that_cannot_be_translated_is_told_and_the_others_start(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(controller, "gang_of", failing(gang_of, "bad"))
    harness.submit("bad", roles=WHOLE)
    harness.submit("good", roles=WHOLE)
    await harness.turn(3)
    assert harness.status("good")["phase"] == "Admitted"
    reason, message = harness.admitted("bad")
    assert (harness.status("bad")["phase"], reason, "a fault of ours" in message) == ("Queued", "Unplannable", True)
    await harness.turn(5, seconds=2)
    assert logged(caplog) == 1


async def test_running_job_that_cannot_be_translated_keeps_its_gpus_and_counts_against_its_quota(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.server.put(paths.dlqueues(SPACE), {"metadata": {"name": "default", "namespace": SPACE}, "spec": {"gpus": 4}})
    harness.submit("bad", roles=WHOLE)
    await harness.turn(3)
    harness.run_pods()
    await harness.turn()
    monkeypatch.setattr(controller, "gang_of", failing(gang_of, "bad"))
    harness.change(paths.dljobs(SPACE, "bad"), metadata={"annotations": {"touched": "yes"}})
    harness.submit("good", roles=WHOLE)
    await harness.turn(3)
    assert (harness.status("bad")["phase"], len(harness.status("bad")["placement"])) == ("Running", 1)
    assert "a fault of ours" in harness.status("bad")["message"]
    assert harness.admitted("good")[0] == "QuotaExhausted"


async def test_job_whose_work_fails_is_told_once_and_tried_less_and_less_often(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(manifests, "pod", failing(manifests.pod, "bad"))
    harness.submit("bad", roles=WHOLE)
    harness.submit("good", roles=WHOLE)
    await harness.turn(3)
    assert harness.status("good")["phase"] == "Admitted"
    assert (harness.status("bad")["phase"], harness.admitted("bad")[0]) == ("Queued", "Unplannable")
    pauses = []
    for _ in range(5):
        pauses.append(round(harness.later("bad") - harness.now))
        await harness.turn(seconds=harness.later("bad") - harness.now)
    assert pauses == [4, 8, 16, 32, 64]
    assert logged(caplog) == 1


async def test_pods_that_cannot_be_read_as_a_gang_are_told_and_the_others_start(
    harness: OperatorHarness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(name: str, members: Sequence[Pod], *rest: Any, **more: Any) -> PodGang:
        if name.endswith("bad"):
            raise RuntimeError("a fault of ours")
        return pod_gang(name, members, *rest, **more)

    monkeypatch.setattr(external_pods, "pod_gang", faulty)
    harness.pod("bad")
    harness.pod("good")
    harness.submit(roles=WHOLE)
    await harness.turn(3)
    assert harness.status()["phase"] == "Admitted"
    assert not harness.server.objects[paths.pods(SPACE, "good")]["spec"].get("schedulingGates")
    assert ("Warning", "bad", "InternalError") in await harness.events()
    assert logged(caplog) == 1


async def test_queue_that_cannot_be_read_starts_nothing_and_leaves_other_queues_alone(harness: OperatorHarness) -> None:
    harness.server.put(paths.dlqueues(SPACE), {"metadata": {"name": "bad", "namespace": SPACE}, "spec": {"gpus": "many"}})
    harness.server.put(paths.dlqueues(SPACE), {"metadata": {"name": "default", "namespace": SPACE}, "spec": {}})
    harness.submit("first", queue="bad", roles=WHOLE)
    harness.submit("second", roles=WHOLE, metadata={"creationTimestamp": time(harness.now)})
    await harness.turn(3)
    assert harness.status("second")["phase"] == "Admitted"
    assert harness.admitted("first")[0] in ("QuotaExhausted", "OverQuota", "NeverFits")
    assert ("Warning", "bad", "Unreadable") in await harness.events()
