"""Memory of operator and extender by the size of jobs that only wait: `make bench-memory`.

2,000 suspended jobs of 2 KiB, then as many of 64 KiB, in one run on one control plane. Of each size the jobs arrive while the
programs run (each comes by the watch, is written to, and comes again); then the programs are started anew and list them all.
Printed are the resident memory, and its peak so far, of each program in MiB; first without any job. The last line is one JSON
object; its ratios are those of the sums of both programs, the longer jobs to the shorter ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from muster.api import names
from muster.kube import paths
from muster.kube.client import Client
from muster.kube.errors import AlreadyExists, Unreachable
from muster.kube.objects import Meta, Struct, decoder
from muster.kube.reflector import Reflector
from muster.kube.store import Store
from muster_dev.local import proc, processes, stack
from muster_dev.local.cluster import LocalCluster
from muster_dev.local.progress import Shown
from muster_dev.local.waiting import PATIENCE_SECONDS

COUNT, SIZES = 2000, (2048, 65536)
SPACE = "waiting"
PROGRAMS = ("muster-operator", "muster-extender")
CONNECTIONS = 4
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
Json = dict[str, Any]
Use = Mapping[str, tuple[float, float]]
"""Resident memory and its peak in MiB, by program."""


class _Status(Struct, frozen=True):
    phase: str = ""


class _Job(Struct, frozen=True):
    metadata: Meta
    status: _Status | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = _parser().parse_args(argv)
    with LocalCluster(nodes="dgx-a100:1", progress=Shown()) as cluster:
        stack.install(cluster)
        result = measure(cluster, options.count, SIZES)
    print(json.dumps(result))


def measure(cluster: LocalCluster, count: int, sizes: Sequence[int]) -> Json:
    """Return the memory of the programs without jobs, and with so many suspended jobs of each size; and the ratios."""
    cluster.create_namespace(SPACE)
    found: dict[str, Use] = {"no jobs": _use(cluster, "no jobs")}
    for size in sizes:
        _restart(cluster)
        asyncio.run(_submit(str(cluster.kubeconfig), count, size))
        found[f"{size}, arrived"] = _use(cluster, f"{count} of {size} bytes, arrived")
        _restart(cluster)
        found[f"{size}, listed"] = _use(cluster, f"{count} of {size} bytes, listed")
        stack.stop(cluster)
        asyncio.run(_remove(str(cluster.kubeconfig), count))
    small, large = sizes
    ratios = {way: ratio(found[f"{small}, {way}"], found[f"{large}, {way}"]) for way in ("arrived", "listed")}
    return {"mib": found, "ratios": ratios}


def ratio(small: Use, large: Use) -> tuple[float, float]:
    """Return how many times the memory of `small` that of `large` is, both programs together: resident, and at its peak."""
    sums = [[sum(use[kind] for use in uses.values()) for kind in (0, 1)] for uses in (small, large)]
    return round(sums[1][0] / sums[0][0], 2), round(sums[1][1] / sums[0][1], 2)


def dljob(name: str, size: int) -> Json:
    """Return a suspended job whose JSON has that many bytes: half of them in its template, half in an annotation.

    `kubectl apply` leaves such an annotation, with a copy of what it applied.
    """
    container = {"name": "train", "image": "train:1", "args": [""], "resources": {"limits": {names.GPU: "8"}}}
    body: Json = {
        "apiVersion": names.API_VERSION,
        "kind": "DLJob",
        "metadata": {"name": name, "annotations": {APPLIED: ""}},
        "spec": {"suspend": True, "roles": {"worker": {"replicas": 2, "template": {"spec": {"containers": [container]}}}}},
    }
    missing = max(0, size - len(json.dumps(body)))
    container["args"] = ["x" * (missing // 2)]
    body["metadata"]["annotations"][APPLIED] = "x" * (missing - missing // 2)
    return body


def _restart(cluster: LocalCluster) -> None:
    stack.stop(cluster)
    stack.start(cluster)


def _use(cluster: LocalCluster, when: str) -> Use:
    _, listed = processes.recorded(cluster.processes.directory)
    pids = {process.name: process.pid for process in listed if process.name in PROGRAMS and process.exit_code is None}
    use = {name: (round(proc.memory_mib(pid), 1), round(proc.peak_memory_mib(pid), 1)) for name, pid in pids.items()}
    print(f"{when}: " + ", ".join(f"{name} {now} MiB, peak {peak}" for name, (now, peak) in sorted(use.items())), flush=True)
    return use


async def _submit(kubeconfig: str, count: int, size: int) -> None:
    """Create the jobs, and wait until the operator has written to each that it is suspended."""
    async with await Client.connect(kubeconfig, connections=CONNECTIONS) as client:
        jobs: Store[_Job] = Store()
        watch = asyncio.create_task(Reflector(client, paths.dljobs(SPACE), decoder(_Job), jobs).run())
        await _all(_create(client, dljob(_name(number), size)) for number in range(count))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(jobs) < count or not all(job.status and job.status.phase == "Suspended" for job in jobs.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        watch.cancel()


async def _create(client: Client, body: Json) -> None:
    """Create a job, however busy the machine is: a request that was not answered may have been carried out."""
    while True:
        with suppress(Unreachable):
            with suppress(AlreadyExists):
                await client.create(paths.dljobs(SPACE), body)
            return


async def _remove(kubeconfig: str, count: int) -> None:
    async with await Client.connect(kubeconfig, connections=CONNECTIONS) as client:
        await _all(client.delete(paths.dljobs(SPACE, _name(number))) for number in range(count))


async def _all(requests: Iterable[Awaitable[object]]) -> None:
    """Await all, no more at a time than there are connections."""
    left: Iterator[Awaitable[object]] = iter(requests)

    async def some() -> None:
        for request in left:
            await request

    await asyncio.gather(*(some() for _ in range(CONNECTIONS)))


def _name(number: int) -> str:
    return f"job-{number:05}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="jobs of each size (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
