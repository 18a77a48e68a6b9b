"""The status of a DLJob: the operator's decisions, their reasons and results.

`placement` is also the reservation: it is written before any pod exists, so a restarted operator or extender recovers all
reservations from it. Times are UTC; lists are bounded, so an object stays small however long its job lives.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, WithJsonSchema

from muster.api.base import Reported, extra
from muster.scheduling.topology.links import MOST_GPUS

Phase = Literal["Queued", "Admitted", "Running", "Suspending", "Suspended", "Succeeded", "Failed"]
RoleName = Literal["worker", "chief", "ps", "evaluator"]
ConditionType = Literal["Admitted", "Running", "Suspended", "Succeeded", "Failed"]
TIMELINE_LIMIT = 50
"""The number of events of a timeline; the operator drops the oldest except the first."""
FAILURES_LIMIT = 16
"""The number of nodes whose failures are remembered; the operator drops the oldest."""
REFUSALS_LIMIT = 64
"""The number of nodes whose refusals are remembered; the operator drops the oldest."""

Number = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0})]
GpuIndex = Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0, "maximum": MOST_GPUS - 1})]
"""Bounds for the API server. The operator reads any number: a placement that is none is taken back."""


class Condition(Reported):
    """A metav1.Condition."""

    type: ConditionType
    """The type of the condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    observed_generation: int | None = None
    """The metadata.generation that the condition reflects."""
    last_transition_time: AwareDatetime
    """The time of the last change of status."""
    reason: str
    """The reason for the last change, in one word for programs."""
    message: str = ""
    """The reason in one sentence, with what is needed and what is available."""


class TaskPlacement(Reported):
    """The placement of one pod of the gang."""

    pod: str
    """The pod's name."""
    role: RoleName
    """The pod's role."""
    index: Number
    """The pod's number within its role, from 0."""
    rank: Number
    """The pod's rank in the gang, in topology order, from 0."""
    node: str
    """The node to which the pod is pinned."""
    gpus: list[GpuIndex] = Field(default_factory=list)
    """The pod's GPUs, by index on the node."""
    ended: bool | None = None
    """Whether the pod has ended well, in a gang whose pods end one by one: it holds nothing any more."""


class Refusal(Reported):
    """A node that refused a pod of the gang (kube-scheduler did not bind it, the kubelet not admit it), or did not start it."""

    node: str
    """The node to which the pod was pinned."""
    message: str = ""
    """The words of kube-scheduler or the kubelet."""
    times: Number = 1
    """How often the node has refused the gang; 0 where it only did not start it."""
    until: AwareDatetime | None = None
    """The gang does not go to the node before this time; unset after the first refusal, when others are only preferred."""
    digest: str = ""
    """The generation of the spec and a digest of the node's labels, taints and resources: a change ends the refusal."""


class NodeFailures(Reported):
    """How often the job's program failed on a node."""

    node: str
    """The node."""
    times: Number = 1
    """How often it failed there first of all pods; from 2 on, the gang goes there only if no other placement exists."""


class FailedStart(Reported):
    """The last start of the gang, which failed. Until another succeeds, the gang preempts nobody."""

    reason: str
    """Why it failed, in one word for programs."""
    message: str
    """Why it failed, in one sentence."""
    pod: str = ""
    """The pod that did not start."""
    node: str = ""
    """The node on which it did not start."""
    times: Number = 0
    """The starts in a row that count against startRetries; a node that refuses a pod does not, others may take it."""
    digest: str = ""
    """What the failure holds for, as in a refusal: a change of it ends the failure."""


class Progress(Reported):
    """The progress of the training, reported by the runtime."""

    mini_batches: int
    """Completed mini-batches of the slowest rank."""
    rate: float
    """The recent rate in mini-batches per second."""


class TimelineEvent(Reported):
    """One event in the life of a job."""

    time: AwareDatetime
    """The time of the event."""
    event: str
    """A phase, or a decision (Preempted, Migrated, Restarted)."""
    reason: str = ""
    """The reason, in one word for programs."""
    message: str = ""
    """The reason, in one sentence."""


class DLJobStatus(Reported):
    """The observed state of the job."""

    phase: Phase | None = None
    """The phase of the job."""
    observed_generation: int | None = None
    """The metadata.generation that this status reflects."""
    message: str = ""
    """Why the job does not run, or what it is doing, in one sentence."""
    gpus: int | None = None
    """The number of GPUs that the job holds: those of its placement."""
    wanted_gpus: int | None = None
    """The number of GPUs that the whole gang asks for."""
    position: int | None = None
    """The position of a waiting job among those of its queue that wait, from 1; brought up to date at leisure."""
    nodes: str = ""
    """The nodes of the placement, the first few by name."""
    attempt: int = 0
    """The number of the present placement, incremented for each new one."""
    restarts: int = 0
    """The number of restarts after failures of the gang itself, bounded by backoffLimit."""
    requeues: int = 0
    """The number of requeues for external reasons: a lost node, a deleted pod, a preemption."""
    queued_at: AwareDatetime | None = None
    """The arrival of the job, which determines its position in the queue even after a requeue."""
    admitted_at: AwareDatetime | None = None
    """The time of the present placement, from which startDeadlineSeconds counts."""
    started_at: AwareDatetime | None = None
    """The time at which the whole gang first ran in its present placement."""
    released_at: AwareDatetime | None = None
    """The time at which the gang last released its GPUs."""
    gpu_seconds: float = 0.0
    """GPU-seconds of earlier placements; among time-sharing jobs the one with the least goes first."""
    ran_seconds: float = 0.0
    """The seconds for which the whole gang ran in earlier placements; activeDeadlineSeconds counts them."""
    finished_at: AwareDatetime | None = None
    """The time at which the job succeeded or failed."""
    not_before: AwareDatetime | None = None
    """The end of the back-off: the job is not placed before this time."""
    conditions: list[Condition] = Field(default_factory=list, json_schema_extra=extra(list_type="map", list_map_keys=["type"]))
    """Admitted, Running, Suspended, Succeeded, Failed."""
    placement: list[TaskPlacement] = Field(default_factory=list)
    """The placement of each pod, which is also the reservation of its GPUs."""
    placed_uid: str | None = None
    """metadata.uid of the job that was placed: the placement of a status that was restored for another job does not count."""
    replicas: int | None = None
    """The number of worker pods (for the scale subresource)."""
    wanted_replicas: int | None = None
    """roles.worker.replicas at the time of the present placement; a different value there now requests a resize."""
    avoid: list[str] = Field(default_factory=list)
    """Nodes on which the last attempt failed; they are used again only if no other placement exists."""
    failures: list[NodeFailures] = Field(default_factory=list, max_length=FAILURES_LIMIT)
    """The nodes on which the job's program failed, the newest last."""
    refusals: list[Refusal] = Field(default_factory=list, max_length=REFUSALS_LIMIT)
    """The nodes that refused the gang, the newest last."""
    failed_start: FailedStart | None = None
    """The last start, if it failed."""
    selector: str | None = None
    """The label selector of the worker pods (for the scale subresource)."""
    progress: Progress | None = None
    """The progress of the training."""
    timeline: list[TimelineEvent] = Field(default_factory=list, max_length=TIMELINE_LIMIT)
    """The events of the job, oldest first."""
