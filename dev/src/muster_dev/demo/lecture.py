"""Scene (a): 50 synchronous jobs on 60 GPUs, with the plain default scheduler twice, and with muster.

The experiment of the lecture's figure: learners that are placed one by one hold GPUs while they wait for the rest of their
gang. With the default scheduler the count is taken when the cluster has settled: every learner has a node or was refused one,
and no pod has changed for some seconds. With muster every change of a pod is sampled, since the jobs run to their end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from muster_dev.demo import deadlock, objects
from muster_dev.demo.deadlock import Count, DeadlockWatch, Learner
from muster_dev.demo.objects import Json
from muster_dev.demo.observed import Observed
from muster_dev.demo.show import Show
from muster_dev.local import stack
from muster_dev.local.cluster import LocalCluster
from muster_dev.local.progress import Detail

NODES = "a100-4:15"
GPUS = 60
SETTLED_SECONDS = 3.0
"""Seconds without a change after which the cluster counts as settled."""
PATIENCE_SECONDS = 5.0
"""With muster, a gang that is partial for longer than this (in seconds) counts as deadlocked."""
RUN_SECONDS = 4
_GANG = "demo/gang"


@dataclass(frozen=True)
class Outcome:
    """The results of the three runs."""

    as_jobs: Count
    independent: Count
    muster: Count
    longest_partial: float
    """The longest time, in seconds, for which a gang of muster was partly placed, while its pods were being bound."""


def play(cluster: LocalCluster, show: Show, jobs: dict[str, int] | None = None) -> Outcome:
    """Run the scene on a cluster without muster; install muster for the last run and leave it installed."""
    jobs = jobs or deadlock.workload()
    demand = sum(jobs.values())
    show.say(f"{len(jobs)} jobs, {demand} learners of 1 GPU; a job trains only when all of its learners run.")
    as_jobs = _settled(cluster, show, "the default scheduler, batch Jobs", "as-jobs", jobs, _batch_jobs)
    independent = _settled(cluster, show, "the default scheduler, learners that arrive one by one", "one-by-one", jobs, _bare)
    stack.install(cluster)
    longest, muster = _with_muster(cluster, show, jobs)
    outcome = Outcome(as_jobs, independent, muster, longest)
    _report(show, outcome)
    return outcome


def _report(show: Show, outcome: Outcome) -> None:
    rows = (
        ("default scheduler, batch Jobs", outcome.as_jobs),
        ("default scheduler, independent learners", outcome.independent),
        ("muster, DLJobs", outcome.muster),
    )
    cells = [(name, str(count.deadlocked_learners), str(count.idle_gpus)) for name, count in rows]
    show.console.print()
    show.table(("", "deadlocked learners", "GPUs they hold"), cells)
    show.result(
        f"With muster all jobs ran to their end; no gang was partly placed for longer than {outcome.longest_partial:.1f} s."
    )


def _settled(
    cluster: LocalCluster,
    show: Show,
    title: str,
    namespace: str,
    jobs: dict[str, int],
    objects_of: Callable[[dict[str, int]], tuple[str, list[Json]]],
) -> Count:
    """Submit the jobs, wait until the cluster has settled, count, and delete everything."""
    cluster.create_namespace(namespace)
    with show.step(f"{title}: submitted, until the cluster has settled") as detail:
        path, bodies = objects_of(jobs)
        cluster.api.create_all(path.format(namespace=namespace), bodies)
        learners = _wait_settled(cluster, namespace, sum(jobs.values()), detail)
    count = deadlock.total(deadlock.partial(jobs, learners).values())
    held = sum(learner.gpus for learner in learners)
    show.result(f"{held} GPUs held; {count.deadlocked_learners} learners hold {count.idle_gpus} of them and cannot train")
    with show.step("deleting them"):
        objects.clear(cluster, namespace, "jobs,pods")
    return count


def _batch_jobs(jobs: dict[str, int]) -> tuple[str, list[Json]]:
    return "/apis/batch/v1/namespaces/{namespace}/jobs", [_batch_job(name, size) for name, size in jobs.items()]


def _batch_job(name: str, size: int) -> Json:
    pods = objects.template(1)
    pods["metadata"]["labels"] = {_GANG: name}
    pods["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"parallelism": size, "completions": size, "template": pods},
    }


def _bare(jobs: dict[str, int]) -> tuple[str, list[Json]]:
    bodies = []
    for name, index in deadlock.arrivals(jobs):
        head = {"name": f"{name}-{index}", "labels": {_GANG: name}}
        bodies.append({"apiVersion": "v1", "kind": "Pod", "metadata": head, "spec": objects.template(1)["spec"]})
    return "/api/v1/namespaces/{namespace}/pods", bodies


def _wait_settled(cluster: LocalCluster, namespace: str, expected: int, detail: Detail) -> list[Learner]:
    """Wait until all pods exist, each with a node or refused one, and none has changed for SETTLED_SECONDS."""
    before: frozenset[tuple[str, str]] = frozenset()
    since = time.monotonic()
    learners: list[Learner] = []

    def settled() -> bool:
        nonlocal before, since, learners
        pods = objects.pods(cluster, namespace)
        learners = [_learner(pod) for pod in pods]
        now = frozenset((pod["metadata"]["name"], pod["spec"].get("nodeName", "")) for pod in pods)
        detail(f"{sum(learner.placed for learner in learners)} of {len(pods)} learners have a GPU")
        if now != before or len(pods) < expected or not all(map(_judged, pods)):
            before, since = now, time.monotonic()
        return time.monotonic() - since >= SETTLED_SECONDS

    cluster.wait(settled, "every learner has a node or was refused one, and the cluster has settled")
    return learners


def _judged(pod: Json) -> bool:
    """Return whether the scheduler has given the pod a node or reported that none fits."""
    conditions = pod["status"].get("conditions", [])
    return bool(pod["spec"].get("nodeName")) or any(c["type"] == "PodScheduled" and c["status"] == "False" for c in conditions)


def _learner(pod: Json) -> Learner:
    gang = pod["metadata"]["labels"][_GANG]
    return Learner(gang, bool(pod["spec"].get("nodeName")), objects.gpus(pod) if objects.holds_gpus(pod) else 0)


def _with_muster(cluster: LocalCluster, show: Show, jobs: dict[str, int]) -> tuple[float, Count]:
    """Run the same jobs as DLJobs to their end; return the longest time of a partial gang (seconds) and the worst count."""
    namespace = "with-muster"
    cluster.create_namespace(namespace)
    watch = DeadlockWatch(jobs, PATIENCE_SECONDS)
    with show.step(f"muster: the same jobs as DLJobs, each runs {RUN_SECONDS} s, until all have succeeded") as detail:
        bodies = [objects.dljob(name, size, objects.template(1, run=RUN_SECONDS)) for name, size in jobs.items()]
        asyncio.run(Observed(watch, detail).run(str(cluster.kubeconfig), namespace, bodies))
    show.result(
        f"{len(jobs)} of {len(jobs)} jobs succeeded; the gangs were sampled {watch.samples} times, at every change of a pod"
    )
    objects.clear(cluster, namespace, "dljobs")
    return watch.longest, watch.worst
