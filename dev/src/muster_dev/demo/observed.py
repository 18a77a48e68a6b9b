"""A run of DLJobs in which every state that the API server reports is sampled, so that no deadlock is missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from muster.allocation.pods import gpus_of
from muster.api import names
from muster.kube import paths
from muster.kube.client import Client
from muster.kube.errors import KubeError
from muster.kube.objects import Meta, Pod, Struct, decoder
from muster.kube.reflector import Reflector
from muster.kube.store import Store
from muster_dev.demo.deadlock import DeadlockWatch, Learner
from muster_dev.demo.objects import Json
from muster_dev.local import waiting
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Detail
from muster_dev.local.waiting import WaitTimeout


class _Status(Struct, frozen=True):
    phase: str = ""


class _Job(Struct, frozen=True):
    metadata: Meta
    status: _Status | None = None


class Observed:
    """Samples the pods at every change that the watch reports, and every second without one."""

    def __init__(self, watch: DeadlockWatch, detail: Detail) -> None:
        self._watch, self._detail = watch, detail
        self._pods: Store[Pod] = Store()
        self._jobs: Store[_Job] = Store()
        self._done: set[str] = set()
        self._all_done = asyncio.Event()
        self._pods.subscribe(lambda *_: self._sample())
        self._jobs.subscribe(self._job_changed)

    async def run(self, kubeconfig: str, namespace: str, bodies: Sequence[Json]) -> None:
        """Create the jobs and observe them until all have succeeded; raise WaitTimeout after the deadline."""
        async with await Client.connect(kubeconfig) as client:
            reflectors = (
                Reflector(client, paths.pods(namespace), decoder(Pod), self._pods),
                Reflector(client, paths.dljobs(namespace), decoder(_Job), self._jobs),
            )
            running = [asyncio.create_task(each.run()) for each in reflectors]
            running.append(asyncio.create_task(self._tick()))
            try:
                async with asyncio.timeout(waiting.PATIENCE_SECONDS):
                    await asyncio.gather(self._pods.synced.wait(), self._jobs.synced.wait())
                    await asyncio.gather(*(client.create(paths.dljobs(namespace), body) for body in bodies))
                    await self._all_done.wait()
            except TimeoutError:
                raise WaitTimeout(f"{len(self._done)} of {len(bodies)} DLJobs succeeded in time") from None
            except KubeError as error:
                raise LocalError(f"the DLJobs could not be created: {error}") from error
            finally:
                for task in running:
                    task.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._sample()

    def _sample(self) -> None:
        learners = [_observed(pod) for pod in self._pods.values()]
        deadlocked = self._watch.sample(learners, time.monotonic())
        held = sum(learner.gpus for learner in learners)
        self._detail(f"{held} GPUs held, {deadlocked.deadlocked_learners} learners deadlocked; {len(self._done)} jobs are done")

    def _job_changed(self, _: _Job | None, new: _Job | None) -> None:
        if new is not None and new.status is not None and new.status.phase == "Succeeded":
            self._done.add(new.metadata.name)
        if len(self._done) == len(self._watch.jobs):
            self._all_done.set()


def _observed(pod: Pod) -> Learner:
    placed = bool(pod.spec.node_name)
    return Learner(pod.metadata.label(names.JOB) or "", placed, gpus_of(pod) if placed and not pod.finished else 0)
