"""The engine against cases computed by hand: progress and completion times under scripted decisions."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from builders.scripted import (
    Script,
    migrate,
    pack,
    place,
    preempt,
    requeue,
    resume,
    servers,
    suspend,
    switched,
    wait,
)
from muster.scheduling.gang import Assigned, Sharing
from muster.scheduling.profile import CoLocation, Shape, Via
from muster.scheduling.settings import Policy, Settings
from muster.simulator.engine import Run, Simulation
from muster.simulator.jobs import Job, gang_of
from muster.simulator.physics import Ideal
from muster.simulator.policies.muster import Muster
from muster.simulator.records import Row

RESUME, MOVE = 5.0, 20.0
BOTH = Sharing(slices=True, packs=True)


class Neighbours(Ideal):
    """A neighbour on the same GPU reduces the rate to 0.6, one under the same switch to 0.5."""

    placement_matters = True

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:  # noqa: ARG002 (the protocol's)
        return min((0.6 if via is Via.GPU else 0.5 for via, _ in co_location), default=1.0)


class Faster(Ideal):
    """Twice as fast in the second half."""

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:  # noqa: ARG002 (the protocol's)
        return 1.0 if done < job.work / 2 else 2.0

    def milestone(self, job: Job, done: float) -> float:
        return job.work / 2 if done < job.work / 2 else job.work


def run_script(jobs: list[Job], orders: dict[float, list[Any]], physics: Ideal | None = None, **fields: Any) -> Simulation:
    """The simulation after a run with scripted decisions."""
    policy = Script(orders, fields.pop("period", None))
    simulation = Simulation(fields.pop("nodes", servers()), jobs, physics or Ideal(RESUME, MOVE), policy, **fields)
    for time in orders:
        simulation.at(time, lambda: True)
    simulation.run()
    assert not policy.orders, "every scripted decision was requested"
    return simulation


def row(simulation: Simulation, name: str = "a") -> Row:
    return simulation.records.rows[name]


START: dict[float, list[Any]] = {0.0: [place("a", ("n0", [0]))]}


@pytest.mark.parametrize(
    ("orders", "finished", "overhead"),
    [
        ({}, 100.0, 0.0),
        ({30.0: [suspend("a")], 50.0: [resume("a", ("n0", [0]))]}, 50.0 + RESUME + 70.0, RESUME),
        ({30.0: [suspend("a")], 50.0: [resume("a", ("n0", [1]))]}, 50.0 + RESUME + 70.0, RESUME),
        ({30.0: [requeue("a")], 50.0: [place("a", ("n1", [0]))]}, 50.0 + MOVE + 70.0, MOVE),
        ({30.0: [migrate("a", ("n1", [0]))]}, 30.0 + MOVE + 70.0, MOVE),
        ({30.0: [migrate("a", ("n0", [0]))]}, 100.0, 0.0),
        ({30.0: [migrate("a", ("n1", [0]))], 40.0: [migrate("a", ("n1", [0]))]}, 30.0 + MOVE + 70.0, MOVE),
        (
            {30.0: [migrate("a", ("n1", [0]))], 40.0: [suspend("a")], 60.0: [resume("a", ("n1", [0]))]},
            60.0 + RESUME + 70.0,
            MOVE + RESUME,
        ),
        ({30.0: [suspend("a"), resume("a", ("n0", [0]))]}, 30.0 + RESUME + 70.0, RESUME),
    ],
    ids=[
        "undisturbed",
        "suspended and resumed",
        "resumed on another GPU",
        "requeued and placed",
        "migrated",
        "migrated to the same GPU",
        "migrated twice to the same GPU",
        "suspended during a migration",
        "suspended and resumed at once",
    ],
)
def test_overhead_of_suspensions_and_moves(orders: dict[float, list[Any]], finished: float, overhead: float) -> None:
    result = row(run_script([Job("a", 0.0, (1,), 100.0)], START | orders))
    assert result.finished == pytest.approx(finished)
    assert result.overhead == overhead


def test_job_holds_gpus_while_it_resumes_and_not_while_suspended() -> None:
    orders = {0.0: [place("a", ("n0", [0, 1]))], 30.0: [suspend("a")], 50.0: [resume("a", ("n0", [0, 1]))]}
    simulation = run_script([Job("a", 0.0, (2,), 100.0)], orders)
    assert row(simulation).gpu_seconds == pytest.approx(2 * (30.0 + 75.0))
    assert simulation.records.held.integral == pytest.approx(2 * (30.0 + 75.0))
    assert simulation.records.queue.integral == pytest.approx(20.0)
    assert row(simulation).suspensions == 1


def test_first_start_takes_the_start_seconds_of_the_job() -> None:
    assert row(run_script([Job("a", 0.0, (1,), 100.0, start_seconds=7.0)], START)).finished == pytest.approx(107.0)


def test_rate_changes_at_a_milestone_and_the_hook_is_called_once() -> None:
    heard: list[tuple[float, float]] = []

    def listen(simulation: Simulation, run: Run) -> None:
        heard.append((simulation.now, run.done))

    assert row(run_script([Job("a", 0.0, (1,), 100.0)], START, Faster(), on_milestone=listen)).finished == pytest.approx(75.0)
    assert heard == [(50.0, 50.0)]


def test_milestone_hook_can_submit_and_cancel_jobs_and_triggers_a_pass() -> None:
    def listen(simulation: Simulation, run: Run) -> None:
        if run.job.name == "a":
            simulation.submit(Job("c", 0.0, (1,), 10.0))
            simulation.cancel("b")

    orders = {0.0: [place("a", ("n0", [0])), place("b", ("n0", [1]))], 50.0: [place("c", ("n0", [1]))]}
    jobs = [Job("a", 0.0, (1,), 100.0), Job("b", 0.0, (1,), 1000.0)]
    simulation = run_script(jobs, orders, Faster(), nodes=servers(1), on_milestone=listen)
    assert (row(simulation, "b").ended, row(simulation, "b").finished) == (50.0, None)
    assert row(simulation, "c").finished == pytest.approx(57.5)
    assert row(simulation, "c").queued == 50.0, "a job submitted at a milestone has its own arrival"


def test_cancelled_job_triggers_a_pass() -> None:
    policy = Script({0.0: [place("a", ("n0", [0]))]})
    simulation = Simulation(servers(), [Job("a", 0.0, (1,), 100.0)], Ideal(), policy)

    def cancel() -> bool:
        simulation.cancel("a")
        return False

    simulation.at(30.0, cancel)
    simulation.run()
    assert [now for now, _ in policy.reacted] == [0.0, 30.0]


def test_packed_jobs_slow_each_other_only_while_both_run() -> None:
    jobs = [Job("a", 0.0, (1,), 100.0, sharing=BOTH), Job("b", 0.0, (1,), 66.0, sharing=BOTH)]
    simulation = run_script(jobs, START | {40.0: [pack("b", "a", ("n0", [0]))]}, Neighbours())
    assert row(simulation, "a").finished == pytest.approx(40.0 + 60.0 / 0.6)
    assert row(simulation, "b").finished == pytest.approx(140.0 + 6.0)
    assert simulation.records.held.integral == pytest.approx(146.0), "a GPU with several jobs counts once"


def test_unpacking_restores_the_rate_of_the_remaining_job() -> None:
    jobs = [Job("a", 0.0, (1,), 100.0, sharing=BOTH), Job("b", 0.0, (1,), 1000.0, sharing=BOTH)]
    orders = START | {40.0: [pack("b", "a", ("n0", [0]))], 50.0: [suspend("b")]}
    assert row(run_script(jobs, orders, Neighbours(), until=200.0)).finished == pytest.approx(50.0 + (100.0 - 46.0))


def test_gang_on_failed_gpus_is_requeued_with_its_progress() -> None:
    policy = Script({0.0: [place("a", ("n0", [0]))], 40.0: [place("a", ("n1", [0]))]})
    nodes = servers()
    simulation = Simulation(nodes, [Job("a", 0.0, (1,), 100.0)], Ideal(RESUME, MOVE), policy)

    def fail() -> bool:
        simulation.set_node(replace(nodes[0], healthy=0))
        return False

    simulation.at(30.0, fail)
    simulation.at(40.0, lambda: True)
    simulation.run()
    assert [now for now, _ in policy.reacted][:3] == [0.0, 30.0, 40.0]
    assert policy.reacted[1][1].gangs[0].placement == ()
    assert row(simulation).finished == pytest.approx(40.0 + MOVE + 70.0)


def test_neighbours_of_a_failed_gang_return_to_their_own_rate() -> None:
    policy = Script({0.0: [place("a", ("n0", [0])), place("b", ("n0", [1]))]})
    jobs = [Job("a", 0.0, (1,), 100.0), Job("b", 0.0, (1,), 1000.0)]
    simulation = Simulation([switched()], jobs, Neighbours(), policy, until=300.0)

    def fail() -> bool:
        simulation.set_node(replace(switched(), healthy=0b01))
        return False

    simulation.at(30.0, fail)
    simulation.run()
    assert row(simulation).finished == pytest.approx(30.0 + (100.0 - 15.0))


def test_run_ends_with_its_last_job_despite_pending_passes() -> None:
    simulation = run_script([Job("a", 0.0, (1,), 100.0)], START, period=60.0)
    assert simulation.records.end == 100.0


def test_truncated_run_counts_until_its_end() -> None:
    simulation = run_script([Job("a", 0.0, (1,), 100.0)], START, until=70.0)
    assert (simulation.records.end, simulation.records.held.integral) == (70.0, 70.0)


def test_utilisation_of_a_job_persists_across_a_migration() -> None:
    class Half(Ideal):
        def busy(self, job: Job, co_location: CoLocation) -> float:  # noqa: ARG002 (the protocol's)
            return 0.5

    orders = {0.0: [place("a", ("n0", [0, 1]))], 30.0: [migrate("a", ("n1", [0, 1]))]}
    simulation = run_script([Job("a", 0.0, (2,), 100.0)], orders, Half())
    assert simulation.records.active.integral == pytest.approx(0.5 * 2 * 100.0)


def test_adopted_suspended_gang_makes_no_progress() -> None:
    simulation = Simulation(servers(), [], Ideal(), Script({}), until=500.0)
    job = Job("a", 0.0, (1,), 100.0)
    gang = gang_of(job)
    simulation.adopt(replace(gang, placement=(Assigned(gang.tasks[0], "n0", 1),), running=False), job)
    simulation.run()
    assert row(simulation).finished is None


def test_adopted_running_gang_continues() -> None:
    simulation = Simulation(servers(), [], Ideal(), Script({}))
    job = Job("a", 0.0, (1,), 100.0)
    gang = gang_of(job)
    simulation.adopt(replace(gang, placement=(Assigned(gang.tasks[0], "n0", 1),)), job)
    simulation.run()
    assert row(simulation).finished == 100.0


def test_preemption_triggers_another_pass_after_the_victims_stop() -> None:
    policy = Script({0.0: [place("a", ("n0", [0]))], 30.0: [preempt("b", "a")]})
    jobs = [Job("a", 0.0, (1,), 100.0), Job("b", 30.0, (1,), 100.0)]
    Simulation(servers(), jobs, Ideal(), policy, until=200.0).run()
    passes = [(now, bool(snapshot.gangs[0].placement)) for now, snapshot in policy.reacted]
    assert passes == [(0.0, False), (30.0, True), (30.0, False)]


def test_wait_with_a_deadline_triggers_a_pass_at_that_time() -> None:
    policy = Script({0.0: [wait("a", until=42.0)], 42.0: [place("a", ("n0", [0]))]})
    simulation = Simulation(servers(), [Job("a", 0.0, (1,), 100.0)], Ideal(), policy)
    simulation.run()
    assert row(simulation).finished == 142.0


def test_all_events_of_a_moment_precede_the_pass() -> None:
    """At 60 s a job ends, another arrives and a pass is due."""
    policy = Script({0.0: [place("a", ("n0", [0]))]}, period=60.0)
    jobs = [Job("a", 0.0, (1,), 60.0), Job("b", 60.0, (1,), 1.0), Job("c", 0.0, (1,), 1.0)]
    Simulation(servers(), jobs, Ideal(), policy, until=100.0).run()
    (react,) = [snapshot for now, snapshot in policy.reacted if now == 60.0]
    (introspect,) = [snapshot for now, snapshot in policy.introspected if now == 60.0]
    assert {gang.name for gang in react.gangs} == {gang.name for gang in introspect.gangs} == {"b", "c"}


@pytest.mark.parametrize("policy", list(Policy))
def test_job_that_ends_with_its_time_slice_is_not_suspended(policy: Policy) -> None:
    jobs = [Job(name, 0.0, (1,), 60.0, sharing=BOTH) for name in "ab"]
    simulation = Simulation(servers(1, 1), jobs, Ideal(RESUME, MOVE), Muster(Settings(policy)))
    simulation.run()
    assert {name: row(simulation, name).finished for name in "ab"} == {"a": 60.0, "b": 120.0}


def test_order_of_submission_within_a_moment_has_no_effect() -> None:
    jobs = [Job("a", 0.0, (1, 1), 60.0), Job("b", 0.0, (2,), 120.0), Job("c", 60.0, (1,), 60.0), Job("d", 60.0, (4,), 30.0)]
    finish_times = []
    for order in permutations(jobs):
        simulation = Simulation(servers(1, 4), order, Ideal(RESUME, MOVE), Muster())
        simulation.run()
        finish_times.append({name: row(simulation, name).finished for name in "abcd"})
    assert finish_times == [finish_times[0]] * 24


def test_rate_enters_the_profile_only_after_running() -> None:
    jobs = [Job("a", 0.0, (1,), 500.0, "a", sharing=BOTH), Job("b", 60.0, (1,), 500.0, "b", sharing=BOTH)]
    policy = Script({0.0: [place("a", ("n0", [0]))], 60.0: [pack("b", "a", ("n0", [0]))]}, period=60.0)
    Simulation(servers(1), jobs, Neighbours(), policy, until=130.0).run()
    measured = {
        now: {kind: set(profile.rates.values()) for kind, profile in snapshot.profiles.items()}
        for now, snapshot in policy.introspected
    }
    assert measured == {60.0: {"a": {1.0}}, 120.0: {"a": {1.0, 0.6}, "b": {0.6}}}


def test_started_is_the_time_of_the_first_start() -> None:
    orders = START | {30.0: [suspend("a")], 50.0: [resume("a", ("n0", [0]))]}
    simulation = run_script([Job("a", 0.0, (1,), 100.0)], orders, until=60.0)
    assert simulation.cluster.gangs["a"].started == 0.0


PRINT_A_RUN = """
import json
from benchmarks.random_events import simulated
from muster.scheduling.settings import Policy, Settings
from muster.simulator.policies.muster import Muster
from muster.simulator.report import report
from random import Random
for policy in Policy:
    print(json.dumps(report(simulated(Random(7), Muster(Settings(policy)), 40).run(), jobs=True)))
"""


def test_same_seed_gives_the_same_bytes_in_every_process() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", PRINT_A_RUN],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert b'"finished": 40' in outputs[0] or b'"cancelled"' in outputs[0]
