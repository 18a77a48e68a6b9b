"""The example of `muster kind up`: applies examples/allreduce.yaml, waits for its end, and shows the result."""

from __future__ import annotations

import json
from functools import partial

from muster_dev.kind.cluster import Cluster
from muster_dev.kind.images import PROJECT
from muster_dev.local.errors import LocalError
from muster_dev.local.progress import Progress
from muster_dev.local.waiting import until

NAME = "allreduce"


def play(cluster: Cluster, progress: Progress) -> str:
    """Run the example again and return the output of the commands that show it; raise LocalError if it fails."""
    with progress.step(f"running examples/{NAME}.yaml"):
        cluster.kubectl("delete", "dljob", NAME, "--ignore-not-found", "--cascade=foreground")
        cluster.kubectl("apply", "--filename", PROJECT / "examples" / f"{NAME}.yaml")
        until(partial(_ended, cluster), f"{NAME} ends")
    commands = [
        ("get", "dljob", NAME),
        ("get", "pods", "--selector", f"muster.dev/job={NAME}", "--output", "wide"),
        ("logs", "--selector", f"muster.dev/job={NAME}", "--prefix", "--tail=2"),
    ]
    return "\n".join(f"$ kubectl {' '.join(words)}\n{cluster.kubectl(*words)}" for words in commands)


def _ended(cluster: Cluster) -> bool:
    job = json.loads(cluster.kubectl("get", "dljob", NAME, "--output", "json"))
    phase = job.get("status", {}).get("phase")
    if phase == "Failed":
        raise LocalError(f"the example failed: {json.dumps(job['status'].get('conditions'))}")
    return bool(phase == "Succeeded")
