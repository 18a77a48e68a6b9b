"""Every name that muster writes into the API server, in one place.

The annotations are the interface between the parts, and between muster and its users: what the operator does by itself
is what a user can do with `kubectl annotate`. docs/reference/annotations.md is generated from this module
(`python -m muster.api.reference`), so each name has its meaning beside it.
"""

from typing import Final

GROUP: Final = "muster.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
GPU: Final = "nvidia.com/gpu"
"""The extended resource that GPU pods ask for."""

SCHEDULER: Final = "muster"
"""schedulerName of muster's own kube-scheduler."""

GATE: Final = "muster.dev/gang"
"""The scheduling gate that the admission policy puts on GPU pods which muster did not create itself."""

# Labels
JOB: Final = "muster.dev/job"
"""Label of a pod or Service: the DLJob that owns it."""
ROLE: Final = "muster.dev/role"
"""Label of a pod: its role in the DLJob (worker, chief, ps, evaluator)."""
INDEX: Final = "muster.dev/index"
"""Label of a pod: its number among the pods of its role, from 0."""
GANG: Final = "muster.dev/gang"
"""Label of a pod that is no DLJob's: pods of one namespace with the same value start together."""
TAKEN_BACK: Final = "muster.dev/taken-back"
"""Label of a PodTemplate: it keeps a bare pod that was taken back until it is created again; its name is the pod's uid."""
RACK: Final = "muster.dev/rack"
"""Label of a node: the rack it stands in."""
BLOCK: Final = "muster.dev/block"
"""Label of a node: the network block (a set of racks) it belongs to."""
MACHINE: Final = "muster.dev/machine"
"""Label of a node: the name of its machine type."""

# Annotations that a user writes
SUSPEND: Final = "muster.dev/suspend"
"""On a DLJob or any of its pods: "true" takes the gang off its GPUs, "false" (on the DLJob) queues it again."""
MIGRATE: Final = "muster.dev/migrate"
"""On a DLJob or any of its pods: move the gang. Empty: anywhere else; the name of a node or a rack: away from there."""
GANG_SIZE: Final = "muster.dev/gang-size"
"""On a pod with the label muster.dev/gang: how many pods make the gang whole."""

# Annotations that muster writes
RANK: Final = "muster.dev/rank"
"""On a pod: its rank in the gang, 0 first, in topology order."""
GPUS: Final = "muster.dev/gpus"
"""On a pod: the GPUs that its placement gives it, by index on its node ("0,1")."""
ATTEMPT: Final = "muster.dev/attempt"
"""On a pod of a DLJob: the number of the placement (status.attempt) that it was created for."""
HOSTFILE: Final = "muster.dev/hostfile"
"""On a pod of an MPI job: the hostfile, which the downward API mounts into the container."""
RESERVATION: Final = "muster.dev/reservation"
"""On the first pod of a labelled gang: the placement of the whole gang, written before its gates are dropped."""
STOP_AT: Final = "muster.dev/stop-at"
"""On a pod that muster takes off its GPUs: when it will be deleted (RFC 3339). The training program can read it before."""
WAITING: Final = "muster.dev/waiting"
"""On a gated pod: why it waits, in a sentence."""
QUEUED_AT: Final = "muster.dev/queued-at"
"""On a bare pod that was taken back and created again: when it first came (RFC 3339), which keeps its turn."""
REQUEUES: Final = "muster.dev/requeues"
"""On the same: how many times it was taken back; the back-off doubles with each."""
WAKE: Final = "muster.dev/wake"
"""On a pending pod: changed when GPUs that only muster knew as taken come free, so that kube-scheduler tries again."""
TOPOLOGY: Final = "muster.dev/topology"
"""On a node: its GPUs and their links, as the agent read them (JSON)."""
RUN_SECONDS: Final = "muster.dev/run-seconds"
"""On a pod of a `muster local` cluster: how long kwok lets it run before it succeeds."""


def pod_name(job: str, role: str, index: int) -> str:
    """Return the name of a DLJob's pod, which is its host name too."""
    return f"{job}-{role}-{index}"
