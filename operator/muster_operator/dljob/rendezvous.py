"""How the processes of a gang find each other: environment variables of each container, by the form of rendezvous.

Torchrun: the variables that torchrun reads (PET_*) and those of torch.distributed's env:// method, as Kubeflow's trainer sets
them. MPI: a hostfile, which the downward API mounts, and the variables that Open MPI and MPICH's Hydra look for it in.
ParameterServer: TF_CONFIG. All: MUSTER_* variables. Names are those of the gang's headless Service: POD.JOB.NAMESPACE.svc.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from zlib import crc32

from muster.api.status import RoleName, TaskPlacement
from muster_operator.dljob.job import Job

MASTER_PORT = 29500
"""torch.distributed's default port."""
SERVER_PORT = 2222
"""TensorFlow's customary port of workers and parameter servers."""
HOST_PORTS = 20_000
"""The first of the ports of pods in the network of their node, below those that Linux gives to outgoing connections."""
PORTS_BY_GPU = 100
"""Of these, those of pods with GPUs; others have one of the next by a hash."""
PORTS_BY_HASH = 9_000
MOUNT = "/etc/muster"
"""Where the downward API shows a pod its own annotations, and the hostfile of an MPI job."""


def environment(job: Job, me: TaskPlacement, gang: Sequence[TaskPlacement]) -> dict[str, str]:
    """Return the variables for the containers of one pod of a placed gang."""
    env = {
        "MUSTER_ROLE": me.role,
        "MUSTER_RANK": str(me.rank),
        "MUSTER_SIZE": str(len(gang)),
        "MUSTER_ATTEMPT": str(job.status.attempt),
    }
    match job.spec.rendezvous:
        case "Torchrun":
            env |= _torchrun(job, me, gang)
        case "MPI":
            env |= {
                "OMPI_MCA_orte_default_hostfile": f"{MOUNT}/hostfile",
                "PRTE_MCA_prte_default_hostfile": f"{MOUNT}/hostfile",
                "HYDRA_HOST_FILE": f"{MOUNT}/hostfile",
            }
        case "ParameterServer":
            env |= {"TF_CONFIG": _tf_config(job, me, gang)}
    return env


def outlives_change(job: Job, role: RoleName) -> bool:
    """Return whether a pod of this role may go on while the gang changes around it.

    With torchrun and parameter servers each process has the size of the gang, or all addresses, from its start. Workers of an
    MPI launcher have them from the hostfile, which is mounted and follows the pod's annotation; the launcher starts anew.
    Without a rendezvous the processes see to it by themselves.
    """
    match job.spec.rendezvous:
        case "None":
            return True
        case "MPI":
            return "chief" in job.replicas and role != "chief"
        case _:
            return False


def end_alone(job: Job) -> bool:
    """Return whether a pod that has ended well is needed no more by the others.

    With torchrun and MPI the processes end together: one that ends before the others may be started again, and keeps its GPUs.
    """
    return job.spec.rendezvous in ("None", "ParameterServer")


def hostfile(job: Job, gang: Sequence[TaskPlacement]) -> str:
    """Return Open MPI's hostfile: one host a line, one slot a GPU, in rank order, without a launcher that has no GPUs."""
    hosts = (place for place in sorted(gang, key=lambda place: place.rank) if place.gpus or place.role == "worker")
    return "".join(f"{address(job, place)} slots={max(1, len(place.gpus))}\n" for place in hosts)


def address(job: Job, place: TaskPlacement) -> str:
    """Return the DNS name of a pod under the gang's headless Service."""
    return f"{place.pod}.{job.meta.name}.{job.meta.namespace}.svc"


def _port(job: Job, place: TaskPlacement, port: int) -> int:
    """The port on which a pod listens: in the network of its node one that no other gang's pod there has.

    No two pods on a node have the same first GPU. Pods without GPUs are told apart by job and rank only.
    """
    if place.role not in job.host_network:
        return port
    if place.gpus:
        return HOST_PORTS + min(place.gpus)
    return HOST_PORTS + PORTS_BY_GPU + crc32(f"{job.meta.uid}/{place.rank}".encode()) % PORTS_BY_HASH


def _torchrun(job: Job, me: TaskPlacement, gang: Sequence[TaskPlacement]) -> dict[str, str]:
    first = min(gang, key=lambda place: place.rank)
    processes, port = max(1, len(me.gpus)), str(_port(job, first, MASTER_PORT))
    return {
        "MASTER_ADDR": address(job, first),
        "MASTER_PORT": port,
        "WORLD_SIZE": str(len(gang)),
        "RANK": str(me.rank),
        "PET_MASTER_ADDR": address(job, first),
        "PET_MASTER_PORT": port,
        "PET_NNODES": str(len(gang)),
        "PET_NODE_RANK": str(me.rank),
        "PET_NPROC_PER_NODE": str(processes),
    }


def _tf_config(job: Job, me: TaskPlacement, gang: Sequence[TaskPlacement]) -> str:
    cluster: dict[str, list[str]] = {}
    for place in sorted(gang, key=lambda place: place.index):
        if place.role != "evaluator":  # an evaluator is outside TensorFlow's cluster
            cluster.setdefault(place.role, []).append(f"{address(job, place)}:{_port(job, place, SERVER_PORT)}")
    return json.dumps({"cluster": cluster, "task": {"type": me.role, "index": me.index}}, sort_keys=True)
