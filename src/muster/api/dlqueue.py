"""The DLQueue: the jobs of one namespace that wait together, and how many GPUs they may hold.

A namespace without queues needs none: jobs of a queue that does not exist wait in it without a quota.
"""

from typing import Annotated, Literal

from pydantic import Field

from muster.api.base import Open, Reported, Strict
from muster.api.dljob import DnsLabel


class DLQueueSpec(Strict):
    """The rules of the queue."""

    gpus: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """How many GPUs the queue's jobs may hold at once; without it, no limit; 0 admits none."""


class DLQueueStatus(Reported):
    """What the queue holds at present."""

    observed_generation: int | None = None
    """The metadata.generation that this status answers."""
    gpus_in_use: int = 0
    """GPUs that are reserved for admitted jobs."""
    pending: int = 0
    """Jobs that wait."""
    running: int = 0
    """Jobs that hold GPUs."""
    message: str = ""
    """One sentence: what the head of the queue waits for."""


class QueueMeta(Open):
    """Metadata of the object."""

    name: DnsLabel = ""
    """The queue's name, which jobs give in spec.queue."""


class DLQueue(Strict):
    """A queue of DLJobs, ordered by priority, then arrival."""

    api_version: Literal["muster.dev/v1alpha1"] = "muster.dev/v1alpha1"
    kind: Literal["DLQueue"] = "DLQueue"
    metadata: QueueMeta
    spec: DLQueueSpec = DLQueueSpec()
    status: DLQueueStatus = DLQueueStatus()
