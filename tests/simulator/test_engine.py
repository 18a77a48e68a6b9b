"""The engine against cases worked out by hand: what a job gets done, and when, whatever is decided about it."""

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
from muster.simulator.jobs import Job, gang
from muster.simulator.physics import Ideal
from muster.simulator.policies.muster import Muster
from muster.simulator.records import Row

RESUME, MOVE = 5.0, 20.0
BOTH = Sharing(slices=True, packs=True)


class Neighbours(Ideal):
    """A neighbour on the GPU leaves 0.6 of the rate, one under the switch 0.5."""

    placement_matters = True

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:  # noqa: ARG002 (the protocol's)
        return min((0.6 if via is Via.GPU else 0.5 for via, _ in co_location), default=1.0)


class Faster(Ideal):
    """Twice as fast in the second half."""

    def rate(self, job: Job, done: float, shape: Shape, co_location: CoLocation) -> float:  # noqa: ARG002 (the protocol's)
        return 1.0 if done < job.work / 2 else 2.0

    def milestone(self, job: Job, done: float) -> float:
        return job.work / 2 if done < job.work / 2 else job.work


def told(jobs: list[Job], orders: dict[float, list[Any]], physics: Ideal | None = None, **fields: Any) -> Simulation:
    """The simulation after orders."""
    policy = Script(orders, fields.pop("period", None))
    simulation = Simulation(fields.pop("nodes", servers()), jobs, physics or Ideal(RESUME, MOVE), policy, **fields)
    at_all = {when: (lambda: True) for when in orders}
    for when, happening in at_all.items():
        simulation.at(when, happening)
    simulation.run()
    assert not policy.orders, "every order was asked for"
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
        "left alone",
        "turn",
        "turn on another GPU",
        "queued",
        "moved",
        "not moved",
        "told twice",
        "suspended on the way",
        "at once",
    ],
)
def test_what_a_job_loses_by_being_moved(orders: dict[float, list[Any]], finished: float, overhead: float) -> None:
    found = row(told([Job("a", 0.0, (1,), 100.0)], START | orders))
    assert found.finished == pytest.approx(finished)
    assert found.overhead == overhead


def test_a_job_has_its_gpus_while_it_comes_and_not_while_it_is_off_them() -> None:
    orders = {0.0: [place("a", ("n0", [0, 1]))], 30.0: [suspend("a")], 50.0: [resume("a", ("n0", [0, 1]))]}
    simulation = told([Job("a", 0.0, (2,), 100.0)], orders)
    assert row(simulation).gpu_seconds == pytest.approx(2 * (30.0 + 75.0))
    assert simulation.records.held.integral == pytest.approx(2 * (30.0 + 75.0))
    assert simulation.records.queue.integral == pytest.approx(20.0)
    assert row(simulation).suspensions == 1


def test_the_first_start_takes_as_long_as_the_job_says() -> None:
    assert row(told([Job("a", 0.0, (1,), 100.0, start_seconds=7.0)], START)).finished == pytest.approx(107.0)


def test_rates_change_at_milestones_and_who_listens_hears_of_each_once() -> None:
    heard: list[tuple[float, float]] = []

    def listen(simulation: Simulation, run: Run) -> None:
        heard.append((simulation.now, run.done))

    assert row(told([Job("a", 0.0, (1,), 100.0)], START, Faster(), on_milestone=listen)).finished == pytest.approx(75.0)
    assert heard == [(50.0, 50.0)]


def test_a_milestone_may_submit_and_cancel_and_the_policy_hears_of_it_at_once() -> None:
    def listen(simulation: Simulation, run: Run) -> None:
        if run.job.name == "a":
            simulation.submit(Job("c", 0.0, (1,), 10.0))
            simulation.cancel("b")

    orders = {0.0: [place("a", ("n0", [0])), place("b", ("n0", [1]))], 50.0: [place("c", ("n0", [1]))]}
    jobs = [Job("a", 0.0, (1,), 100.0), Job("b", 0.0, (1,), 1000.0)]
    simulation = told(jobs, orders, Faster(), nodes=servers(1), on_milestone=listen)
    assert (row(simulation, "b").ended, row(simulation, "b").finished) == (50.0, None)
    assert row(simulation, "c").finished == pytest.approx(57.5)
    assert row(simulation, "c").queued == 50.0, "a job that comes late has its own arrival"


def test_the_policy_hears_of_a_job_that_is_cancelled() -> None:
    policy = Script({0.0: [place("a", ("n0", [0]))]})
    simulation = Simulation(servers(), [Job("a", 0.0, (1,), 100.0)], Ideal(), policy)

    def cancel() -> bool:
        simulation.cancel("a")
        return False

    simulation.at(30.0, cancel)
    simulation.run()
    assert [now for now, _ in policy.reacted] == [0.0, 30.0]


def test_packed_jobs_slow_each_other_while_both_are_there() -> None:
    jobs = [Job("a", 0.0, (1,), 100.0, sharing=BOTH), Job("b", 0.0, (1,), 66.0, sharing=BOTH)]
    simulation = told(jobs, START | {40.0: [pack("b", "a", ("n0", [0]))]}, Neighbours())
    assert row(simulation, "a").finished == pytest.approx(40.0 + 60.0 / 0.6)
    assert row(simulation, "b").finished == pytest.approx(140.0 + 6.0)
    assert simulation.records.held.integral == pytest.approx(146.0), "a GPU is held once, however many run on it"


def test_who_is_unpacked_leaves_the_other_its_rate() -> None:
    jobs = [Job("a", 0.0, (1,), 100.0, sharing=BOTH), Job("b", 0.0, (1,), 1000.0, sharing=BOTH)]
    orders = START | {40.0: [pack("b", "a", ("n0", [0]))], 50.0: [suspend("b")]}
    assert row(told(jobs, orders, Neighbours(), until=200.0)).finished == pytest.approx(50.0 + (100.0 - 46.0))


def test_a_gang_on_gpus_that_fail_is_queued_with_what_it_had_done() -> None:
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


def test_the_neighbours_of_a_gang_that_failed_go_on_at_their_own_rate() -> None:
    policy = Script({0.0: [place("a", ("n0", [0])), place("b", ("n0", [1]))]})
    jobs = [Job("a", 0.0, (1,), 100.0), Job("b", 0.0, (1,), 1000.0)]
    simulation = Simulation([switched()], jobs, Neighbours(), policy, until=300.0)

    def fail() -> bool:
        simulation.set_node(replace(switched(), healthy=0b01))
        return False

    simulation.at(30.0, fail)
    simulation.run()
    assert row(simulation).finished == pytest.approx(30.0 + (100.0 - 15.0))


def test_a_run_is_over_with_its_last_job_though_passes_were_still_to_come() -> None:
    simulation = told([Job("a", 0.0, (1,), 100.0)], START, period=60.0)
    assert simulation.records.end == 100.0


def test_a_run_that_is_cut_short_counts_to_its_end() -> None:
    simulation = told([Job("a", 0.0, (1,), 100.0)], START, until=70.0)
    assert (simulation.records.end, simulation.records.held.integral) == (70.0, 70.0)


def test_gpus_are_busy_as_the_job_keeps_them_wherever_it_is_moved() -> None:
    class Half(Ideal):
        def busy(self, job: Job, co_location: CoLocation) -> float:  # noqa: ARG002 (the protocol's)
            return 0.5

    orders = {0.0: [place("a", ("n0", [0, 1]))], 30.0: [migrate("a", ("n1", [0, 1]))]}
    simulation = told([Job("a", 0.0, (2,), 100.0)], orders, Half())
    assert simulation.records.active.integral == pytest.approx(0.5 * 2 * 100.0)


def test_a_place_that_waits_for_its_turn_makes_no_progress() -> None:
    simulation = Simulation(servers(), [], Ideal(), Script({}), until=500.0)
    job = Job("a", 0.0, (1,), 100.0)
    found = gang(job)
    simulation.adopt(replace(found, placement=(Assigned(found.tasks[0], "n0", 1),), running=False), job)
    simulation.run()
    assert row(simulation).finished is None


def test_who_is_adopted_running_goes_on() -> None:
    simulation = Simulation(servers(), [], Ideal(), Script({}))
    job = Job("a", 0.0, (1,), 100.0)
    found = gang(job)
    simulation.adopt(replace(found, placement=(Assigned(found.tasks[0], "n0", 1),)), job)
    simulation.run()
    assert row(simulation).finished == 100.0


def test_the_policy_is_asked_again_once_victims_have_gone() -> None:
    policy = Script({0.0: [place("a", ("n0", [0]))], 30.0: [preempt("b", "a")]})
    jobs = [Job("a", 0.0, (1,), 100.0), Job("b", 30.0, (1,), 100.0)]
    Simulation(servers(), jobs, Ideal(), policy, until=200.0).run()
    assert [(now, bool(seen.gangs[0].placement)) for now, seen in policy.reacted] == [(0.0, False), (30.0, True), (30.0, False)]


def test_the_policy_is_asked_when_an_answer_changes_by_time_alone() -> None:
    policy = Script({0.0: [wait("a", until=42.0)], 42.0: [place("a", ("n0", [0]))]})
    simulation = Simulation(servers(), [Job("a", 0.0, (1,), 100.0)], Ideal(), policy)
    simulation.run()
    assert row(simulation).finished == 142.0


def test_all_that_happens_in_one_moment_happens_before_the_policy_is_asked() -> None:
    """A job that ends, one that comes and a pass, all after 60 s."""
    policy = Script({0.0: [place("a", ("n0", [0]))]}, period=60.0)
    jobs = [Job("a", 0.0, (1,), 60.0), Job("b", 60.0, (1,), 1.0), Job("c", 0.0, (1,), 1.0)]
    Simulation(servers(), jobs, Ideal(), policy, until=100.0).run()
    (react,) = [seen for now, seen in policy.reacted if now == 60.0]
    (introspect,) = [seen for now, seen in policy.introspected if now == 60.0]
    assert {gang.name for gang in react.gangs} == {gang.name for gang in introspect.gangs} == {"b", "c"}


@pytest.mark.parametrize("policy", list(Policy))
def test_who_ends_with_its_turn_is_not_suspended(policy: Policy) -> None:
    jobs = [Job(name, 0.0, (1,), 60.0, sharing=BOTH) for name in "ab"]
    simulation = Simulation(servers(1, 1), jobs, Ideal(RESUME, MOVE), Muster(Settings(policy)))
    simulation.run()
    assert {name: row(simulation, name).finished for name in "ab"} == {"a": 60.0, "b": 120.0}


def test_the_order_in_which_jobs_of_one_moment_are_told_decides_nothing() -> None:
    jobs = [Job("a", 0.0, (1, 1), 60.0), Job("b", 0.0, (2,), 120.0), Job("c", 60.0, (1,), 60.0), Job("d", 60.0, (4,), 30.0)]
    found = []
    for order in permutations(jobs):
        simulation = Simulation(servers(1, 4), order, Ideal(RESUME, MOVE), Muster())
        simulation.run()
        found.append({name: row(simulation, name).finished for name in "abcd"})
    assert found == [found[0]] * 24


def test_a_rate_is_measured_by_running_and_not_before() -> None:
    jobs = [Job("a", 0.0, (1,), 500.0, "a", sharing=BOTH), Job("b", 60.0, (1,), 500.0, "b", sharing=BOTH)]
    policy = Script({0.0: [place("a", ("n0", [0]))], 60.0: [pack("b", "a", ("n0", [0]))]}, period=60.0)
    Simulation(servers(1), jobs, Neighbours(), policy, until=130.0).run()
    known = {
        now: {kind: set(profile.rates.values()) for kind, profile in seen.profiles.items()} for now, seen in policy.introspected
    }
    assert known == {60.0: {"a": {1.0}}, 120.0: {"a": {1.0, 0.6}, "b": {0.6}}}


def test_a_gang_started_when_it_first_ran() -> None:
    orders = START | {30.0: [suspend("a")], 50.0: [resume("a", ("n0", [0]))]}
    simulation = told([Job("a", 0.0, (1,), 100.0)], orders, until=60.0)
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


def test_the_same_seed_gives_the_same_bytes_in_every_process() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", PRINT_A_RUN],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert b'"finished": 40' in told[0] or b'"cancelled"' in told[0]
