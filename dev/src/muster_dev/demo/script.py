"""The demo: the scenes in order, commands to try next, and the figures as one JSON object."""

from __future__ import annotations

import time
from typing import Any

from muster_dev.demo import gangs, lecture, locality, suspension, unplaceable
from muster_dev.demo.deadlock import Count
from muster_dev.demo.show import Show
from muster_dev.local.cluster import LocalCluster

NEXT = """\
What to try next (`muster` is .venv/bin/muster in a clone; README.md has a tour of three minutes):
  muster local up --with-muster --nodes dgx-a100:2,pcie-8:2   a cluster to play with, until `muster local down`
  export KUBECONFIG=$(muster local kubeconfig)
  kubectl apply -f examples/mpi.yaml                          a launcher and 2 workers of 4 GPUs
  kubectl get dljobs                                          is it running, how many GPUs, since when, why not
  make bench-gangs                                            the last scene, measured with care
  make test                                                   every test, on a real control plane too"""


def play(show: Show) -> dict[str, Any]:
    """Play all scenes and return the figures; nothing is left running."""
    begun = time.monotonic()
    show.say(
        "muster on a real Kubernetes control plane: etcd, API server, controllers, scheduler. Nodes and GPUs are simulated"
    )
    show.say("(kwok keeps the nodes Ready and lets pods run); every decision is made as on real machines.")
    with LocalCluster(nodes=lecture.NODES, progress=show.progress) as cluster:
        show.scene("a", "50 synchronous jobs on 60 GPUs", "gangs that are placed pod by pod deadlock; with muster none does.")
        deadlocks = lecture.play(cluster, show)
        show.scene(
            "b",
            "GPUs chosen by their links",
            "a job that needs fast links gets them, and a job that does not leaves them to others.",
        )
        chosen = locality.play(cluster, show)
        show.scene("c", "Suspend and resume by annotation", "a job releases all of its GPUs, and all of its pods return.")
        resumed = suspension.play(cluster, show)
        show.scene("d", "A job that cannot fit", "it waits without a pod, and says why.")
        pending_reason = unplaceable.play(cluster, show)
    show.scene("e", "Gangs per second", "how fast gangs start, compared with Kubernetes' own gang scheduling.")
    races = gangs.play(show)
    show.console.print()
    show.say(NEXT)
    show.say(f"\nThe demo took {time.monotonic() - begun:.0f} s; none of its processes is still running.")
    return report(deadlocks, chosen, resumed, pending_reason, races)


def report(
    deadlocks: lecture.Outcome, chosen: locality.Outcome, resumed: bool, pending_reason: str, races: gangs.Outcome
) -> dict[str, Any]:
    """Return the figures of all scenes for the last line."""
    return {
        "default": _counted(deadlocks.independent),
        "muster": _counted(deadlocks.muster),
        "sensitive_gpus": chosen.sensitive,
        "insensitive_gpus": chosen.insensitive,
        "resumed": resumed,
        "pending_reason": pending_reason,
        "gangs": {
            "muster_pods_per_s": round(races.muster.pods_per_second, 1),
            "native_pods_per_s": round(races.native.pods_per_second, 1),
        },
    }


def _counted(count: Count) -> dict[str, int]:
    return {"deadlocked_learners": count.deadlocked_learners, "idle_gpus": count.idle_gpus}
