"""The status of a DLJob: what the operator decided, why, and what came of it.

`placement` is also the reservation: it is written before a pod exists, so whoever starts again finds here what was
promised. Times are UTC; lists are bounded, so that a job's object stays small however long it lives.
"""

from typing import Literal

from pydantic import AwareDatetime, Field

from muster.api.base import Reported, extra

Phase = Literal["Queued", "Admitted", "Running", "Suspended", "Succeeded", "Failed"]
RoleName = Literal["worker", "chief", "ps", "evaluator"]
ConditionType = Literal["Admitted", "Running", "Suspended", "Succeeded", "Failed"]
TIMELINE_LIMIT = 50
"""How many events a timeline keeps; the operator drops the oldest but the first."""


class Condition(Reported):
    """A metav1.Condition: one thing that is so, or is not, since when and why."""

    type: ConditionType
    """Which condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    observed_generation: int | None = None
    """The metadata.generation that it was told of."""
    last_transition_time: AwareDatetime
    """When the status last changed."""
    reason: str
    """Why, as one word for machines."""
    message: str = ""
    """Why, as a sentence with what is needed and what is there."""


class TaskPlacement(Reported):
    """Where one pod of the gang belongs."""

    pod: str
    """The pod's name."""
    role: RoleName
    """Its role."""
    index: int
    """Its number within the role, from 0."""
    rank: int
    """Its rank in the gang, in topology order, from 0."""
    node: str
    """The node it is pinned to."""
    gpus: list[int] = Field(default_factory=list)
    """Its GPUs, by index on the node."""


class Progress(Reported):
    """How far the training is, as the runtime reported it."""

    mini_batches: int
    """Mini-batches done, by the slowest rank."""
    rate: float
    """Mini-batches per second, lately."""


class TimelineEvent(Reported):
    """One step in the life of a job."""

    time: AwareDatetime
    """When."""
    event: str
    """What happened: a phase, or a decision (Preempted, Migrated, Restarted)."""
    reason: str = ""
    """Why, as one word for machines."""
    message: str = ""
    """Why, as a sentence."""


class DLJobStatus(Reported):
    """What became of the job so far."""

    phase: Phase | None = None
    """Where the job is in its life."""
    observed_generation: int | None = None
    """The metadata.generation that this status answers."""
    message: str = ""
    """One sentence: why the job does not run, or what it is doing."""
    gpus: int | None = None
    """How many GPUs the whole gang asks for."""
    attempt: int = 0
    """The number of the present placement; each new one counts up."""
    restarts: int = 0
    """How often the gang was started again after a failure of its own; backoffLimit bounds it."""
    requeues: int = 0
    """How often the gang was queued again for a reason outside it: a node loss, a pod taken away, a preemption."""
    queued_at: AwareDatetime | None = None
    """When the job first arrived; its place in the queue, kept when it is queued again."""
    started_at: AwareDatetime | None = None
    """When the whole gang first ran in its present placement."""
    released_at: AwareDatetime | None = None
    """When it last gave its GPUs up."""
    gpu_seconds: float = 0.0
    """GPU-seconds that it had in earlier placements; of jobs that take turns, the one that had least goes first."""
    finished_at: AwareDatetime | None = None
    """When the job succeeded or failed."""
    not_before: AwareDatetime | None = None
    """Back-off: the job is not placed before this time."""
    conditions: list[Condition] = Field(default_factory=list, json_schema_extra=extra(list_type="map", list_map_keys=["type"]))
    """Admitted, Running, Suspended, Succeeded, Failed."""
    placement: list[TaskPlacement] = Field(default_factory=list)
    """Where each pod belongs; also the reservation of its GPUs."""
    replicas: int | None = None
    """How many worker pods there are (for the scale subresource)."""
    wanted_replicas: int | None = None
    """roles.worker.replicas when the present placement was made; another number there now is a wish to be resized."""
    avoid: list[str] = Field(default_factory=list)
    """Nodes on which the last attempt failed; taken again only where there is no other place."""
    selector: str | None = None
    """The label selector of the worker pods (for the scale subresource)."""
    progress: Progress | None = None
    """How far the training is."""
    timeline: list[TimelineEvent] = Field(default_factory=list, max_length=TIMELINE_LIMIT)
    """What happened to the job, oldest first."""
