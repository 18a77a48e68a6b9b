"""The DLQueue: a queue of jobs in one namespace with a GPU quota.

Queues are optional: in a namespace without DLQueues, queues have no quotas. Where there is a DLQueue, a job waits for the one
that it names to exist.
"""

from typing import Annotated, Literal

from pydantic import Field

from muster.api.base import Open, Reported, Strict
from muster.api.dljob import DnsLabel


class DLQueueSpec(Strict):
    """The desired state of the queue."""

    gpus: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """The quota: the GPUs that the queue's jobs and pods may hold together; without it, no limit; 0 admits no job. A quota
    below what is held stops nothing that runs, and admits nothing."""


class DLQueueStatus(Reported):
    """The current state of the queue."""

    observed_generation: int | None = None
    """The metadata.generation that this status reflects."""
    gpus_in_use: int = 0
    """GPUs reserved for admitted jobs, and held by pods without a plan of muster's."""
    pending: int = 0
    """The number of waiting jobs."""
    running: int = 0
    """The number of jobs that hold GPUs."""
    message: str = ""
    """Why the job at the head of the queue waits, in one sentence."""


class QueueMeta(Open):
    """Metadata of the object."""

    name: DnsLabel = ""
    """The queue's name, to which jobs refer in spec.queue."""


class DLQueue(Strict):
    """A queue of DLJobs, ordered by priority, then arrival. When a queue is deleted its running jobs go on."""

    api_version: Literal["muster.dev/v1alpha1"] = "muster.dev/v1alpha1"
    kind: Literal["DLQueue"] = "DLQueue"
    metadata: QueueMeta
    spec: DLQueueSpec = DLQueueSpec()
    status: DLQueueStatus = DLQueueStatus()
