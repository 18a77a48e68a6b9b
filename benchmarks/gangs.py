"""Gang throughput of muster, kube-scheduler's native gang scheduling and a bare client: `make bench-gangs`.

100 gangs of 20 one-GPU pods on 1,000 nodes of 8 GPUs, timed from the first create to the last bind. In each round every
contestant runs once on the same control plane; muster's processes run only during its own race. kube-scheduler runs with its
defaults (on a large cluster it scores a sample of the nodes) and with scoring of every node, which packing needs. The bare
client creates and binds pods without gangs, checks or events: the upper bound set by the API server. The pinned contestant
creates pods with a node affinity, which kube-scheduler binds without gangs, reservations or extender: the upper bound of any
design that binds through kube-scheduler. Results are ratios within a round, since machines are noisy; CPU is in milliseconds
per pod, by process. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence
from statistics import median
from typing import Any

from muster.kube import paths
from muster.kube.client import Client
from muster_dev.demo import gang_race
from muster_dev.demo.gang_race import Race
from muster_dev.local import stack
from muster_dev.local.cluster import LocalCluster
from muster_dev.local.progress import Shown

GPUS_PER_NODE = 8
MACHINE = "dgx-a100"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the races and print the results."""
    options = _parser().parse_args(argv)
    rounds: list[dict[str, Race]] = []
    with LocalCluster(options=gang_race.options(), progress=Shown()) as cluster:
        gang_race.add_nodes(cluster, f"{MACHINE}:{options.nodes}")
        stack.install(cluster)
        gang_race.wait_for_agents(cluster)
        for number in range(1, options.rounds + 1):
            stack.stop(cluster)
            gang_race.wait_for_rest(cluster)
            races = [
                gang_race.race(cluster, "bare", submit_bare, options.gangs, options.size),
                gang_race.race(cluster, "pinned", submit_pinned, options.gangs, options.size),
                gang_race.race_native(cluster, options.gangs, options.size),
                gang_race.race_native_every_node(cluster, options.gangs, options.size),
            ]
            stack.start(cluster)
            gang_race.wait_for_rest(cluster)
            races.append(gang_race.race_muster(cluster, options.gangs, options.size))
            rounds.append({race.contestant: race for race in races})
            speeds = ", ".join(f"{race.contestant} {race.pods_per_second:.0f}" for race in races)
            print(f"round {number} of {options.rounds}: pods per second: {speeds}", flush=True)
    print(json.dumps(report(rounds)))


def report(rounds: Sequence[dict[str, Race]]) -> dict[str, Any]:
    """Return the medians of each contestant, and the throughput ratios of muster and pinned to the others within each round."""
    contestants = {
        name: {
            "pods_per_s": round(median(races[name].pods_per_second for races in rounds), 1),
            "cpu_ms_per_pod": {
                process: round(median(1000 * races[name].cpu_seconds[process] / races[name].pods for races in rounds), 2)
                for process in rounds[0][name].cpu_seconds
            },
        }
        for name in rounds[0]
    }
    ratios = {
        f"{ours}/{other}": sorted(round(r[ours].pods_per_second / r[other].pods_per_second, 2) for r in rounds)
        for ours in ("muster", "pinned")
        for other in rounds[0]
        if other not in ("muster", ours)
    }
    return {"contestants": contestants, "ratios": ratios}


async def submit_bare(client: Client, namespace: str, gang: int, size: int) -> None:
    """Create a gang's pods and bind each directly, on nodes that no other gang uses."""
    await gang_race.create_pods(client, namespace, gang, size, {"schedulerName": "by-hand"})
    async with asyncio.TaskGroup() as group:
        for index in range(size):
            name = f"gang-{gang}-{index}"
            node = _node(gang * size + index)
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
            group.create_task(client.create(paths.pods(namespace, name, "binding"), body))


async def submit_pinned(client: Client, namespace: str, gang: int, size: int) -> None:
    """Create the same pods pinned to the same nodes by affinity, for kube-scheduler to bind."""

    def body(index: int) -> dict[str, Any]:
        pin = {"key": "metadata.name", "operator": "In", "values": [_node(gang * size + index)]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [pin]}]}}
        return gang_race.pod(f"gang-{gang}-{index}", {"affinity": {"nodeAffinity": required}})

    await asyncio.gather(*(client.create(paths.pods(namespace), body(index)) for index in range(size)))


def _node(task: int) -> str:
    """The node of a pod by its number, with nodes filled one after another."""
    return f"{MACHINE}-{task // GPUS_PER_NODE}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--gangs", type=int, default=gang_race.GANGS)
    parser.add_argument("--size", type=int, default=gang_race.SIZE, help="pods in a gang")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
