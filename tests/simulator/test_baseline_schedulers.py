"""Baseline schedulers: kube-scheduler without gang scheduling, and YARN's capacity scheduler."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from muster.scheduling.decisions import Assignment
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.cluster import Cluster
from muster.simulator.engine import Simulation
from muster.simulator.jobs import Job, gang_of
from muster.simulator.physics import Ideal
from muster.simulator.policies.kubernetes import KubeScheduler, Order, stuck
from muster.simulator.policies.muster import Muster
from muster.simulator.policies.yarn import Yarn
from muster.simulator.traces.ffdl import learners


def nodes(count: int, gpus: int = 4) -> list[Node]:
    machine = unknown_machine(gpus)
    return [Node(f"n{index:02}", machine, machine.all, machine.all) for index in range(count)]


def stuck_after_one_second(policy: KubeScheduler | Muster, jobs: Sequence[Job], count: int = 15) -> tuple[int, int]:
    simulation = Simulation(nodes(count), jobs, Ideal(), policy, until=1.0)
    simulation.run()
    return stuck(simulation.cluster.gangs.values())


def test_kube_scheduler_with_pods_in_random_order_leaves_most_gangs_partial() -> None:
    stuck_pods = [stuck_after_one_second(KubeScheduler(seed), learners(seed))[0] for seed in range(20)]
    assert min(stuck_pods) >= 30
    assert max(stuck_pods) <= 60


def test_kube_scheduler_with_jobs_in_order_leaves_at_most_the_last_gang_partial() -> None:
    assert all(stuck_after_one_second(KubeScheduler(seed, Order.JOBS), learners(seed))[0] <= 3 for seed in range(20))


def test_muster_leaves_no_gang_partial() -> None:
    assert stuck_after_one_second(Muster(), learners(0)) == (0, 0)


def test_partial_gang_runs_once_its_remaining_pods_are_bound() -> None:
    jobs = [Job("a", 0.0, (3,), 100.0), Job("b", 50.0, (2, 2), 10.0)]
    records = Simulation(nodes(1, 6), jobs, Ideal(), KubeScheduler(0)).run()
    assert records.rows["b"].started == 100.0
    assert records.rows["b"].finished == 110.0


def test_kube_scheduler_binds_a_pod_to_the_emptiest_node() -> None:
    cluster = Cluster(nodes(2))
    cluster.put(gang_of(Job("a", 0.0, (1, 1), 1.0)))
    (decision,) = KubeScheduler(0).react(cluster.snapshot(), 0.0)
    assert isinstance(decision, Assignment)
    assert {assigned.node for assigned in decision.placement} == {"n00", "n01"}


def test_yarn_ignores_locality_and_fills_servers_in_order_of_heartbeats() -> None:
    jobs = [Job("filler", 0.0, (3,), 1e6), Job("job", 1.0, (1,) * 4, 10.0)]
    node_counts = []
    for seed in range(20):
        simulation = Simulation(nodes(2), jobs, Ideal(), Yarn(seed), until=2.0)
        simulation.run()
        node_counts.append(len({assigned.node for assigned in simulation.cluster.gangs["job"].placement}))
    assert set(node_counts) == {1, 2}


def test_yarn_head_of_queue_blocks_its_own_queue_only() -> None:
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
