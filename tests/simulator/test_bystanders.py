"""The schedulers that muster is measured against: kube-scheduler pod by pod, and YARN's capacity scheduler."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from muster.scheduling.decisions import Assignment
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.cluster import Cluster
from muster.simulator.engine import Simulation
from muster.simulator.jobs import Job, gang
from muster.simulator.physics import Ideal
from muster.simulator.policies.kubernetes import KubeScheduler, Order, stuck
from muster.simulator.policies.muster import Muster
from muster.simulator.policies.yarn import Yarn
from muster.simulator.traces.ffdl import learners


def nodes(count: int, gpus: int = 4) -> list[Node]:
    machine = unknown_machine(gpus)
    return [Node(f"n{index:02}", machine, machine.all, machine.all) for index in range(count)]


def at_once(policy: KubeScheduler | Muster, jobs: Sequence[Job], count: int = 15) -> tuple[int, int]:
    simulation = Simulation(nodes(count), jobs, Ideal(), policy, until=1.0)
    simulation.run()
    return stuck(simulation.cluster.gangs.values())


def test_pods_of_many_gangs_in_any_order_leave_most_of_them_partial() -> None:
    found = [at_once(KubeScheduler(seed), learners(seed))[0] for seed in range(20)]
    assert min(found) >= 30
    assert max(found) <= 60


def test_pods_of_one_job_after_another_leave_at_most_the_last_partial() -> None:
    assert all(at_once(KubeScheduler(seed, Order.JOBS), learners(seed))[0] <= 3 for seed in range(20))


def test_gangs_are_never_partial() -> None:
    assert at_once(Muster(), learners(0)) == (0, 0)


def test_a_partial_gang_runs_once_the_rest_of_its_pods_find_nodes() -> None:
    jobs = [Job("a", 0.0, (3,), 100.0), Job("b", 50.0, (2, 2), 10.0)]
    records = Simulation(nodes(1, 6), jobs, Ideal(), KubeScheduler(0)).run()
    assert records.rows["b"].started == 100.0
    assert records.rows["b"].finished == 110.0


def test_a_learner_goes_to_the_emptiest_node() -> None:
    cluster = Cluster(nodes(2))
    cluster.put(gang(Job("a", 0.0, (1, 1), 1.0)))
    (decision,) = KubeScheduler(0).react(cluster.snapshot(), 0.0)
    assert isinstance(decision, Assignment)
    assert {place.node for place in decision.placement} == {"n00", "n01"}


def test_yarn_is_blind_to_locality_and_fills_each_server_that_reports() -> None:
    jobs = [Job("filler", 0.0, (3,), 1e6), Job("job", 1.0, (1,) * 4, 10.0)]
    lain = []
    for seed in range(20):
        simulation = Simulation(nodes(2), jobs, Ideal(), Yarn(seed), until=2.0)
        simulation.run()
        lain.append(len({place.node for place in simulation.cluster.gangs["job"].placement}))
    assert set(lain) == {1, 2}


def test_yarn_lets_nobody_past_the_first_of_a_queue_but_other_queues_go_on() -> None:
    jobs = [
        Job("runs", 0.0, (1, 1), 100.0, queue="a"),
        Job("large", 1.0, (1,) * 4, 10.0, queue="a"),
        Job("small", 2.0, (1,), 10.0, queue="a"),
        Job("other", 3.0, (1,), 10.0, queue="b"),
    ]
    rows = Simulation(nodes(1), jobs, Ideal(), Yarn(0)).run().rows
    assert rows["large"].started == 100.0
    assert rows["small"].started == pytest.approx(110.0)
    assert rows["other"].started == 3.0
