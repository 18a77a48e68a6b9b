"""Scene (c): an annotation on one of its pods suspends a job, and an annotation on the job resumes it."""

from __future__ import annotations

from datetime import datetime

from muster.api import names
from muster_dev.demo import objects
from muster_dev.demo.objects import Json
from muster_dev.demo.show import Show
from muster_dev.local.cluster import LocalCluster

NAMESPACE = "suspension"
JOB = "vgg16"
REPLICAS, GPUS = 4, 2


def play(cluster: LocalCluster, show: Show) -> bool:
    """Run the scene on a cluster with muster; return whether all pods of the suspended job ran again."""
    cluster.create_namespace(NAMESPACE)
    cluster.api.create(objects.dljobs_path(NAMESPACE), objects.dljob(JOB, REPLICAS, objects.template(GPUS)))
    first = objects.wait_for(cluster, NAMESPACE, JOB, "Running")
    show.say(f"{JOB} runs: {_held(cluster)} GPUs on {_where(first)}")

    _annotate(cluster, show, f"pod {JOB}-worker-0", f"{names.SUSPEND}=true")
    with show.step("until it is Suspended and none of its pods is left"):
        objects.wait_for(cluster, NAMESPACE, JOB, "Suspended")
        cluster.wait(lambda: not objects.pods(cluster, NAMESPACE, JOB), f"the pods of {JOB} are gone")
    show.result(f"{JOB} is Suspended and holds {_held(cluster)} GPUs")

    _annotate(cluster, show, f"dljob {JOB}", f"{names.SUSPEND}=false")
    with show.step("until it runs again"):
        again = objects.wait_for(cluster, NAMESPACE, JOB, "Running")
    held = _held(cluster)
    show.result(f"{JOB} runs again: {held} GPUs on {_where(again)}")
    _timeline(show, again)
    objects.clear(cluster, NAMESPACE, "dljobs")
    return held == REPLICAS * GPUS and again["attempt"] > first["attempt"]


def _annotate(cluster: LocalCluster, show: Show, what: str, annotation: str) -> None:
    show.command(f"kubectl -n {NAMESPACE} annotate {what} {annotation} --overwrite")
    cluster.kubectl("annotate", *what.split(), annotation, "--overwrite", f"--namespace={NAMESPACE}")


def _held(cluster: LocalCluster) -> int:
    return sum(objects.gpus(pod) for pod in objects.pods(cluster, NAMESPACE) if objects.holds_gpus(pod))


def _where(status: Json) -> str:
    return ", ".join(sorted({place["node"] for place in status["placement"]}))


def _timeline(show: Show, status: Json) -> None:
    events = status["timeline"]
    begin = datetime.fromisoformat(events[0]["time"])
    rows = [(f"+{(datetime.fromisoformat(e['time']) - begin).seconds} s", e["event"], e.get("message", "")) for e in events]
    show.table(("since arrival", "event", "why"), rows)
