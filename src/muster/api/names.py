"""Every name that muster writes into the API server, in one place.

The annotations are the interface between muster's components, and between muster and its users: a user can do with
`kubectl annotate` what the operator does by itself. docs/reference/annotations.md is generated from these docstrings
(`python -m muster.api.reference`).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

GROUP: Final = "muster.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
GPU: Final = "nvidia.com/gpu"
"""The extended resource that GPU pods request."""

SCHEDULER: Final = "muster"
"""schedulerName of muster's own kube-scheduler."""

GATE: Final = "muster.dev/gang"
"""The scheduling gate that the admission policy adds to external GPU pods."""

# Labels
JOB: Final = "muster.dev/job"
"""Label of a pod or Service: its DLJob."""
ROLE: Final = "muster.dev/role"
"""Label of a pod: its role in the DLJob (worker, chief, ps, evaluator)."""
INDEX: Final = "muster.dev/index"
"""Label of a pod: its number among the pods of its role, from 0."""
GANG: Final = "muster.dev/gang"
"""Label of an external pod: pods of one namespace with the same value form a gang and start together."""
QUEUE: Final = "muster.dev/queue"
"""Label of a pod that is not a DLJob's: the DLQueue that its GPUs count against; "default" without it."""
TAKEN_BACK: Final = "muster.dev/taken-back"
"""Label of a PodTemplate that stores a requeued bare pod until it is created again; the template's name is the pod's uid."""
RACK: Final = "muster.dev/rack"
"""Label of a node: its rack."""
BLOCK: Final = "muster.dev/block"
"""Label of a node: its network block (a set of racks)."""
MACHINE: Final = "muster.dev/machine"
"""Label of a node: its machine type."""

# Annotations that a user writes
SUSPEND: Final = "muster.dev/suspend"
"""On a DLJob or any of its pods: "true" suspends the gang, "false" (on the DLJob) queues it again."""
MIGRATE: Final = "muster.dev/migrate"
"""On a DLJob or any of its pods: moves the gang away from the named node or rack; empty: away from its present placement."""
GANG_SIZE: Final = "muster.dev/gang-size"
"""On a pod with the label muster.dev/gang: the number of pods of the gang."""
RUN_SECONDS: Final = "muster.dev/run-seconds"
"""On a pod of a `muster local` cluster: the seconds until kwok lets it succeed."""

# Annotations that muster alone writes
RANK: Final = "muster.dev/rank"
"""On a pod: its rank in the gang, from 0, in topology order."""
GPUS: Final = "muster.dev/gpus"
"""On a pod: the planned GPUs, by index on its node ("0,1")."""
ATTEMPT: Final = "muster.dev/attempt"
"""On a pod of a DLJob: the number of its placement (status.attempt)."""
HOSTFILE: Final = "muster.dev/hostfile"
"""On a pod of an MPI job: the hostfile, mounted into the container by the downward API."""
RESERVATION: Final = "muster.dev/reservation"
"""On the first pod of a labelled gang: the placement of the whole gang, written before its gates are removed."""
STOP_AT: Final = "muster.dev/stop-at"
"""On a pod that muster stops: the time of its deletion (RFC 3339), which the training program can read in advance."""
WAITING: Final = "muster.dev/waiting"
"""On a gated pod: why it waits, in one sentence."""
QUEUED_AT: Final = "muster.dev/queued-at"
"""On a requeued bare pod: the time of its first creation (RFC 3339), which keeps its position in the queue."""
REQUEUES: Final = "muster.dev/requeues"
"""On a requeued bare pod: the number of its requeues; the back-off doubles with each."""
FAILED_STARTS: Final = "muster.dev/failed-starts"
"""On a requeued pod, one of its gang: the nodes that refused the gang, and the last start if it failed (JSON)."""
WAKE: Final = "muster.dev/wake"
"""On a pending pod: changed when GPUs that only muster knew as reserved become free, so that kube-scheduler retries the pod."""
TOPOLOGY: Final = "muster.dev/topology"
"""On a node: its GPUs and their links, published by the agent (JSON)."""


def pod_name(job: str, role: str, index: int) -> str:
    """Return the name of a DLJob's pod, which is also its hostname."""
    return f"{job}-{role}-{index}"


class Names(NamedTuple):
    """Labels and annotations of one kind of object."""

    labels: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()


# Who may write which name, by kind of object: `muster.api.write_policies` has the API server hold everybody to it.
USERS_WRITE: Final[Mapping[str, Names]] = {
    "DLJob": Names(annotations=(SUSPEND, MIGRATE)),
    "Pod": Names(labels=(GANG, QUEUE), annotations=(SUSPEND, MIGRATE, GANG_SIZE, RUN_SECONDS)),
    "Node": Names(labels=(RACK, BLOCK, MACHINE)),
}
MUSTER_WRITES: Final[Mapping[str, Names]] = {
    "Pod": Names(
        labels=(JOB, ROLE, INDEX),
        annotations=(RANK, GPUS, ATTEMPT, HOSTFILE, RESERVATION, STOP_AT, WAITING, QUEUED_AT, REQUEUES, FAILED_STARTS, WAKE),
    ),
    "PodTemplate": Names(labels=(TAKEN_BACK,)),
    "Node": Names(annotations=(TOPOLOGY,)),
}
