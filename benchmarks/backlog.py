"""How long freed GPUs stay idle behind a short queue and a long one: `make bench-backlog`.

200 nodes of 8 GPUs are full of gangs of four pods, and N more gangs wait: 10, then 10,000, then 10 again, all in one run on one
control plane. Gangs end one after another; each time another is submitted, so that the queue stays as long as it is. The time
is from the end of a gang's last pod to the `status.placement` of the next gang, both as one client's watches bring them.

A long queue is measured twice: while its gangs are being told for the first time why they wait, and afterwards, when each start
brings newer numbers to all of them. The last line is one JSON object; its ratio is that of the medians, 10,000 to 10.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from statistics import median
from typing import Any

from muster.api import names
from muster.kube import paths
from muster.kube.client import Client
from muster.kube.objects import NO_RESERVATION, Meta, ReservationStatus, Struct, decoder
from muster.kube.reflector import Reflector
from muster.kube.store import Store
from muster_dev.demo import gang_race
from muster_dev.local import stack
from muster_dev.local.cluster import LocalCluster, Options
from muster_dev.local.progress import Shown

MACHINE, NODES, GPUS_PER_NODE = "dgx-a100", 200, 8
PODS, GPUS = 4, 2
"""The pods of each gang, and the GPUs of each pod."""
RUNNING = NODES * GPUS_PER_NODE // (PODS * GPUS)
FEW, MANY = 10, 10_000
SPACE = "backlog"
CONNECTIONS, AT_ONCE = 16, 12
"""Requests at a time are fewer than connections, since the watches have two, and one that waits for a connection may starve."""
PAUSE_SECONDS = 0.5
"""Between a gang's start and the next end."""
PATIENCE_SECONDS = 300.0
STEPS = ("short queue", "long queue, first told", "long queue", "short queue again")


class _Pod(Struct, frozen=True):
    metadata: Meta
    status: _PodStatus


class _PodStatus(Struct, frozen=True):
    phase: str = "Pending"


class _Job(Struct, frozen=True):
    metadata: Meta
    status: _JobStatus | None = None


class _JobStatus(ReservationStatus, frozen=True):
    phase: str = ""
    message: str = ""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the results."""
    options = _parser().parse_args(argv)
    with LocalCluster(nodes=f"{MACHINE}:{NODES}", options=Options(node_grace_seconds=24 * 3600), progress=Shown()) as cluster:
        stack.install(cluster)
        gang_race.wait_for_agents(cluster)
        cluster.create_namespace(SPACE)
        result = report(asyncio.run(run(str(cluster.kubeconfig), options.rounds, options.many)))
    print(json.dumps(result))


async def run(kubeconfig: str, rounds: int, many: int) -> dict[str, list[float]]:
    """Measure behind a short queue, a long one and a short one again; return the seconds of each step."""
    async with await Client.connect(kubeconfig, connections=CONNECTIONS) as client:
        backlog, seconds = Backlog(client), dict[str, list[float]]()

        async def step(name: str) -> None:
            told, began = backlog.told, time.perf_counter()
            seconds[name] = await backlog.measure(rounds, PAUSE_SECONDS)
            rate = (backlog.told - told) / (time.perf_counter() - began)
            print(f"{name}: {_text(_spread(seconds[name]))}; told {rate:.0f} a second", flush=True)

        async with backlog.watched():
            await backlog.submit(RUNNING + FEW)
            await backlog.wait_full()
            await step(STEPS[0])
            await backlog.submit(many - FEW)
            await step(STEPS[1])
            await backlog.wait_told()
            await step(STEPS[2])
            await backlog.shorten(FEW)
            await step(STEPS[3])
    return seconds


def report(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return least, median and most seconds of each step, and the ratios of medians of the long queue to the short one."""
    short = median([*seconds[STEPS[0]], *seconds[STEPS[3]]])
    ratios = {name: round(median(seconds[name]) / short, 2) for name in STEPS[1:3]}
    return {"seconds": {name: _spread(values) for name, values in seconds.items()}, "ratios": ratios}


class Backlog:
    """Gangs in a namespace, as they are submitted, start and end; times are those at which the watches bring it."""

    def __init__(self, client: Client) -> None:
        self._client, self._numbers = client, count()
        self._jobs: Store[_Job] = Store()
        self._pods: Store[_Pod] = Store()
        self._waiting: dict[str, None] = {}
        self._running: deque[str] = deque()
        self._started: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._changed = asyncio.Event()
        self.told = 0
        """How often a waiting gang was told something, from the start."""
        self._jobs.subscribe(self._job_changed)
        self._pods.subscribe(self._pod_changed)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watch gangs and pods."""
        watches = [
            asyncio.create_task(Reflector(self._client, paths.dljobs(SPACE), decoder(_Job), self._jobs).run()),
            asyncio.create_task(Reflector(self._client, paths.pods(SPACE), decoder(_Pod), self._pods).run()),
        ]
        try:
            yield
        finally:
            for watch in watches:
                watch.cancel()

    # Steps of the benchmark

    async def submit(self, number: int) -> None:
        """Create so many gangs, and wait until the watch has brought them."""
        gangs = [f"gang-{next(self._numbers):05}" for _ in range(number)]
        await _all(self._client.create(paths.dljobs(SPACE), _dljob(gang)) for gang in gangs)
        await self._until(lambda: all(_key(gang) in self._jobs for gang in gangs))

    async def wait_full(self) -> None:
        """Wait until as many gangs run as there is room for."""
        await self._until(lambda: len(self._running) >= RUNNING and self._all_run())

    async def wait_told(self) -> None:
        """Wait until each gang knows why it waits."""
        await self._until(lambda: all((job := self._jobs.get(_key(name))) and job.status for name in self._waiting))

    async def shorten(self, number: int) -> None:
        """Delete the last gangs that wait until so many are left."""
        doomed = list(self._waiting)[number:]
        await _all(self._client.delete(paths.dljobs(SPACE, name), propagation="Background") for name in doomed)
        await self._until(lambda: len(self._waiting) <= number)

    async def measure(self, rounds: int, pause: float) -> list[float]:
        """End gangs one after another; return the seconds from each end to the next start."""
        seconds = []
        for _ in range(rounds):
            await asyncio.sleep(pause)
            await self._until(self._all_run)
            gang = self._running.popleft()
            started = len(self._started)
            pods = _pods(gang)
            await _all(self._end(pod) for pod in pods)
            await self._until(lambda before=started: len(self._started) > before)  # type: ignore[misc]
            seconds.append(next(reversed(self._started.values())) - max(self._ended[pod] for pod in pods))
            await self.submit(1)
        return seconds

    # What the watches bring

    async def _end(self, pod: str) -> None:
        """Say what the pod's kubelet would: it ran to its end."""
        await self._client.patch(paths.pods(SPACE, pod, "status"), {"status": {"phase": "Succeeded"}}, "strategic")

    async def _until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def _all_run(self) -> bool:
        """Whether the pods of every gang that has started run."""
        pods = [self._pods.get(_key(name)) for gang in self._running for name in _pods(gang)]
        return all(pod is not None and pod.status.phase == "Running" for pod in pods)

    def _job_changed(self, old: _Job | None, new: _Job | None) -> None:
        self._changed.set()
        if new is None:
            self._waiting.pop(old.metadata.name if old else "", None)
            return
        name, status = new.metadata.name, new.status or NO_RESERVATION
        if status.placement and name not in self._started:
            self._started[name] = time.perf_counter()
            self._running.append(name)
            self._waiting.pop(name, None)
        elif name not in self._started:
            self._waiting[name] = None
            self.told += new.status is not None

    def _pod_changed(self, _: _Pod | None, new: _Pod | None) -> None:
        self._changed.set()
        if new is not None and new.status.phase == "Succeeded":
            self._ended.setdefault(new.metadata.name, time.perf_counter())


async def _all(requests: Iterator[Awaitable[object]]) -> None:
    """Await all, some at a time."""

    async def some() -> None:
        for request in requests:
            await request

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


def _key(name: str) -> str:
    return f"{SPACE}/{name}"


def _pods(gang: str) -> list[str]:
    return [names.pod_name(gang, "worker", index) for index in range(PODS)]


def _dljob(name: str) -> dict[str, Any]:
    container = {"name": "train", "image": "train:1", "resources": {"limits": {names.GPU: str(GPUS)}}}
    worker = {"replicas": PODS, "template": {"spec": {"containers": [container]}}}
    return {
        "apiVersion": names.API_VERSION,
        "kind": "DLJob",
        "metadata": {"name": name},
        "spec": {"rendezvous": "None", "roles": {"worker": worker}},
    }


def _spread(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in (min(values), median(values), max(values))]


def _text(spread: Sequence[float]) -> str:
    return " / ".join(f"{1000 * value:.0f}" for value in spread) + " ms"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="ends of gangs in each step (default: %(default)s)")
    parser.add_argument("--many", type=int, default=MANY, help="gangs of the long queue (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
