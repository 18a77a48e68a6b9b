"""Scene (d): a job that cannot fit reports the reason in one sentence with numbers."""

from __future__ import annotations

from muster_dev.demo import objects
from muster_dev.demo.objects import Json
from muster_dev.demo.show import Show
from muster_dev.local.cluster import LocalCluster

NAMESPACE = "unplaceable"
JOB = "too-large"
REPLICAS, GPUS = 40, 4


def play(cluster: LocalCluster, show: Show) -> str:
    """Run the scene on a cluster with muster; return the sentence."""
    cluster.create_namespace(NAMESPACE)
    cluster.api.create(objects.dljobs_path(NAMESPACE), objects.dljob(JOB, REPLICAS, objects.template(GPUS)))
    cluster.wait(lambda: _condition(cluster).get("message"), f"DLJob {JOB} reports why it waits")
    said = _condition(cluster)
    show.command(f"kubectl -n {NAMESPACE} get dljob {JOB}")
    show.console.print(cluster.kubectl("get", "dljob", JOB, f"--namespace={NAMESPACE}").rstrip(), soft_wrap=True, markup=False)
    pods = len(objects.pods(cluster, NAMESPACE))
    show.result(f"{said['reason']}: {said['message']} ({pods} pods exist, so it costs the cluster one object)")
    objects.clear(cluster, NAMESPACE, "dljobs")
    return str(said["message"])


def _condition(cluster: LocalCluster) -> Json:
    conditions = objects.status(cluster, NAMESPACE, JOB).get("conditions", [])
    not_admitted: Json = next((c for c in conditions if c["type"] == "Admitted" and c["status"] == "False"), {})
    return not_admitted
