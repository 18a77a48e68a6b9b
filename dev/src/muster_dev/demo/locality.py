"""Scene (b): the GPUs of a job that needs fast links and of one that does not, on PCIe machines.

One GPU of the machine is taken already, so one of its pairs is broken. The sensitive job must get an unbroken pair; the
insensitive one should take the remaining GPU of the broken pair, which is of least use to other jobs.
"""

from __future__ import annotations

from dataclasses import dataclass

from muster import machines
from muster.machines import Machine
from muster.scheduling.topology import links
from muster_dev.demo import objects
from muster_dev.demo.show import Show
from muster_dev.local import nodes
from muster_dev.local.cluster import LocalCluster

MACHINES = ("a100-pcie", "pcie-8")
NAMESPACE = "links"


@dataclass(frozen=True)
class Outcome:
    """The GPUs of the two jobs, by index on their node."""

    sensitive: list[int]
    insensitive: list[int]


def play(cluster: LocalCluster, show: Show) -> Outcome:
    """Run the scene on a cluster with muster, on one node of each PCIe machine type; return the result of the first."""
    cluster.add_nodes([node for name in MACHINES for node in nodes.manifests(f"{name}:1")])
    cluster.create_namespace(NAMESPACE)
    outcomes = [_on(cluster, show, machines.machine(name)) for name in MACHINES]
    objects.clear(cluster, NAMESPACE, "dljobs")
    return outcomes[0]


def _on(cluster: LocalCluster, show: Show, machine: Machine) -> Outcome:
    show.say(f"\n{machine.name}: {machine.gpus} x {machine.product}")
    taken = _place(cluster, machine, "neighbour", 1, "Low")
    sensitive = _place(cluster, machine, "sensitive", 2, "High")
    insensitive = _place(cluster, machine, "insensitive", 1, "Low")
    _draw(show, machine, {"N": taken, "S": sensitive, "I": insensitive})
    show.say(why_sensitive(machine, taken, sensitive))
    show.say(why_insensitive(machine, taken, sensitive, insensitive))
    return Outcome(sensitive, insensitive)


def _place(cluster: LocalCluster, machine: Machine, name: str, gpus: int, sensitivity: str) -> list[int]:
    job = objects.dljob(
        f"{name}-{machine.name}", 1, objects.template(gpus, machine=machine.name), placement={"sensitivity": sensitivity}
    )
    cluster.api.create(objects.dljobs_path(NAMESPACE), job)
    status = objects.wait_for(cluster, NAMESPACE, job["metadata"]["name"], "Running")
    return sorted(gpu for place in status["placement"] for gpu in place["gpus"])


def why_sensitive(machine: Machine, taken: list[int], chosen: list[int]) -> str:
    """Compare the links of the chosen GPUs with those of the first free ones by index."""
    free = [gpu for gpu in range(machine.gpus) if gpu not in taken]
    naive = free[: len(chosen)]
    chosen_speed, naive_speed = _speed(machine, chosen), _speed(machine, naive)
    return (
        f"S, sensitive: GPUs {_list(chosen)}, joined by {machine.links[chosen[0]][chosen[1]]}, {chosen_speed:.0f} GB/s;"
        f" the first two free ones, {_list(naive)}, are joined by {machine.links[naive[0]][naive[1]]}, {naive_speed:.0f} GB/s."
    )


def why_insensitive(machine: Machine, taken: list[int], sensitive: list[int], chosen: list[int]) -> str:
    """Say which GPUs the choice leaves to other jobs."""
    held = {*taken, *sensitive, *chosen}
    free = [gpu for gpu in range(machine.gpus) if gpu not in held]
    best = max(_speed(machine, [a, b]) for a in range(machine.gpus) for b in range(a))
    pairs = ", ".join(_list([a, b]) for a in free for b in free if a < b and _speed(machine, [a, b]) == best)
    partner = next((gpu for gpu in taken if _speed(machine, [gpu, chosen[0]]) == best), None)
    broken = f"the other half of the pair of the neighbour's GPU {partner}; " if partner is not None else ""
    return f"I, insensitive: GPU {_list(chosen)}, {broken}the pairs {pairs} stay whole for jobs that need them."


def _speed(machine: Machine, gpus: list[int]) -> float:
    return links.ring_bandwidth(links.matrix(machine.links), links.gpu_set(gpus))


def _list(gpus: list[int]) -> str:
    return "+".join(map(str, gpus))


def _draw(show: Show, machine: Machine, jobs: dict[str, list[int]]) -> None:
    """Show the link matrix, with the job's letter on its GPUs and the links inside a job marked."""
    owner = {gpu: letter for letter, gpus in jobs.items() for gpu in gpus}
    names = [f"GPU{gpu}{'=' + owner[gpu] if gpu in owner else ''}" for gpu in range(machine.gpus)]
    rows = []
    for i, row in enumerate(machine.links):
        inside = [i != j and i in owner and owner.get(j) == owner[i] for j in range(machine.gpus)]
        cells = [f"[bold green]\\[{cell}][/]" if mark else cell for cell, mark in zip(row, inside, strict=True)]
        rows.append([f"[bold]{names[i]}[/]" if i in owner else names[i], *cells])
    show.table(("", *names), rows)
