"""The DLJob: a training job whose pods start together or not at all.

Words are those of Job, JobSet and Kubeflow Trainer where they have one. What a schema can say is in the types, what it
cannot is in CEL rules beside them, so that a job which the API server accepted is one that the operator understands.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from muster.api import names
from muster.api.base import Open, Strict, extra, immutable, rule
from muster.api.podtemplate import PodTemplate
from muster.api.status import DLJobStatus, RoleName

Domain = Literal["Node", "Rack", "Block"]
Rendezvous = Literal["Torchrun", "MPI", "ParameterServer", "None"]
Seconds = Annotated[int, Field(ge=0, le=2**31 - 1)]
DnsLabel = Annotated[str, Field(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
WIDTH = "{'Node': 0, 'Rack': 1, 'Block': 2}"
NAME_LIMIT = 50
"""Longest job name: "-evaluator-0" and "-worker-4095" still fit the 63 characters of a pod's hostname."""
JobName = Annotated[str, Field(pattern="^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=NAME_LIMIT)]

ASKS_FOR_GPUS = rule(
    "self.template.spec.containers.exists(c, has(c.resources) && has(c.resources.limits)"
    " && has(c.resources.limits.nvidia__dot__com__slash__gpu)"
    " && c.resources.limits.nvidia__dot__com__slash__gpu != 0"
    " && c.resources.limits.nvidia__dot__com__slash__gpu != '0')",
    f"a container of the worker's template must ask for GPUs: set resources.limits[{names.GPU}] to 1 or more",
    at=".template.spec.containers",
)


class Role(Strict):
    """Pods that do the same work."""

    replicas: Annotated[int, Field(ge=1, le=4096)] = 1
    """How many pods."""
    template: PodTemplate
    """What each pod is made from."""


class Worker(Role):
    """The pods that train; each asks for one GPU or more."""

    model_config = ConfigDict(json_schema_extra=extra(ASKS_FOR_GPUS))


class Single(Role):
    """A role of one pod."""

    replicas: Annotated[int, Field(ge=1, le=1)] = 1
    """Always 1."""


class Servers(Role):
    """The parameter servers."""

    replicas: Annotated[int, Field(ge=1, le=1024, json_schema_extra=extra(immutable("the number of parameter servers")))] = 1
    """How many pods; cannot change."""


def fixed(role: str) -> dict[str, str]:
    """Return the rule that a role neither comes nor goes after creation."""
    message = f"role {role} cannot be added or taken away: delete the job and create it again"
    return rule(f"has(self.{role}) == has(oldSelf.{role})", message, at=f".{role}")


class Roles(Strict):
    """The roles of the job. The set of roles and their templates cannot change; worker.replicas can (kubectl scale)."""

    model_config = ConfigDict(json_schema_extra=extra(fixed("chief"), fixed("ps"), fixed("evaluator")))

    worker: Worker
    """The pods that train."""
    chief: Single | None = None
    """The launcher of an MPI job, or the chief of a parameter-server job. May ask for no GPU."""
    ps: Servers | None = None
    """The parameter servers. May ask for no GPU."""
    evaluator: Single | None = None
    """Evaluates checkpoints beside the training. May ask for no GPU."""

    def present(self) -> dict[RoleName, Role]:
        """Return the roles that the job has, chief first."""
        roles: dict[RoleName, Role | None] = {
            "chief": self.chief,
            "worker": self.worker,
            "ps": self.ps,
            "evaluator": self.evaluator,
        }
        return {name: role for name, role in roles.items() if role}


class PlacementSpec(Strict):
    """Where the gang may and should run."""

    model_config = ConfigDict(
        json_schema_extra=extra(
            rule(
                f"!has(self.required) || {WIDTH}[self.preferred] <= {WIDTH}[self.required]",
                "placement.preferred must not be wider than placement.required (Node < Rack < Block)",
                "'placement.preferred is ' + self.preferred + ', wider than placement.required: ' + self.required",
                at=".preferred",
            )
        )
    )

    policy: Literal["Pack", "Spread"] = "Pack"
    """Pack fills machines up and keeps whole ones free; Spread gives each pod the emptiest machine."""
    required: Domain | None = None
    """The whole gang within one such domain, or it waits."""
    preferred: Domain = "Node"
    """The smallest domain that is tried first."""
    sensitivity: Literal["Auto", "High", "Low"] = "Auto"
    """How much slow links between its GPUs cost this job; Auto learns it from measured mini-batch rates."""


class Elastic(Strict):
    """How far muster may shrink and grow the job."""

    model_config = ConfigDict(
        json_schema_extra=extra(
            rule(
                "self.minReplicas <= self.maxReplicas",
                "elastic.minReplicas must not exceed elastic.maxReplicas",
                at=".minReplicas",
            )
        )
    )

    min_replicas: Annotated[int, Field(ge=1, le=4096)] = 1
    """Fewest workers that the job can train with."""
    max_replicas: Annotated[int, Field(ge=1, le=4096)]
    """Most workers that are of use to it."""


class Sharing(Strict):
    """What the job may share its GPUs for. Either is undone where measured rates say that it does not pay."""

    time_slicing: bool = False
    """The job may be taken off its GPUs for others that had less, and queued again: least attained service first."""
    packing: bool = False
    """The job may run beside another one on the same GPUs."""


class Checkpoint(Strict):
    """How the job gets off its GPUs and comes back without losing work."""

    model_config = ConfigDict(
        json_schema_extra=extra(
            rule("self.mode != 'Checkpoint' || has(self.volume)", "mode Checkpoint needs checkpoint.volume", at=".volume")
        )
    )

    mode: Literal["Checkpoint", "Pause"] = "Checkpoint"
    """Checkpoint: the program saves and its pods go. Pause: GPU memory moves to host memory and the pods stay."""
    volume: DnsLabel | None = None
    """The volume of the worker's template that checkpoints are written to."""
    every_mini_batches: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Save after so many mini-batches, besides the saves that muster asks for."""
    deadline_seconds: Annotated[int, Field(ge=1, le=86400)] = 60
    """How long a save may take before the pods go without it."""


def only_with(role: str, forms: str) -> dict[str, str]:
    """Return the rule that a role is there only in some forms of rendezvous (a CEL list)."""
    return rule(
        f"!has(self.roles.{role}) || self.rendezvous in {forms}",
        f"roles.{role} needs rendezvous to be one of {forms}",
        f"'roles.{role} has no place in rendezvous ' + self.rendezvous",
        at=f".roles.{role}",
    )


SPEC_RULES = (
    rule(
        "!has(self.priorityClassName) || self.priority == 0",
        "priority and priorityClassName exclude each other: set one of them",
        at=".priorityClassName",
    ),
    only_with("ps", "['ParameterServer', 'None']"),
    only_with("chief", "['MPI', 'ParameterServer', 'None']"),
    only_with("evaluator", "['ParameterServer', 'None']"),
    rule("self.rendezvous != 'ParameterServer' || has(self.roles.ps)", "ParameterServer needs roles.ps", at=".roles.ps"),
    rule(
        "!has(self.elastic) || (self.elastic.minReplicas <= self.roles.worker.replicas"
        " && self.roles.worker.replicas <= self.elastic.maxReplicas)",
        "roles.worker.replicas must lie between elastic.minReplicas and elastic.maxReplicas",
        at=".roles.worker.replicas",
    ),
    rule(
        "!has(self.checkpoint) || !has(self.checkpoint.volume) || (has(self.roles.worker.template.spec.volumes)"
        " && self.roles.worker.template.spec.volumes.exists(v, v.name == self.checkpoint.volume))",
        "checkpoint.volume must name a volume of the worker's template",
        "'the worker\\'s template has no volume named ' + self.checkpoint.volume",
        at=".checkpoint.volume",
    ),
)


class DLJobSpec(Strict):
    """What to run, where, and under which rules."""

    model_config = ConfigDict(json_schema_extra=extra(*SPEC_RULES))

    queue: DnsLabel = "default"
    """The DLQueue of the namespace that the job waits in."""
    priority: Annotated[int, Field(ge=-1_000_000_000, le=1_000_000_000)] = 0
    """Higher goes first within a queue, and may preempt lower."""
    priority_class_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """A PriorityClass to take the priority from, instead of priority."""
    roles: Roles
    """The pods, by role."""
    rendezvous: Annotated[Rendezvous, Field(json_schema_extra=extra(immutable("rendezvous")))] = "Torchrun"
    """How the processes find each other: the environment variables and the host file that the pods get."""
    placement: PlacementSpec = PlacementSpec()
    """Where the gang may and should run."""
    elastic: Elastic | None = None
    """Between which sizes muster may choose; without it the size is worker.replicas."""
    sharing: Sharing = Sharing()
    """What the job may share its GPUs for."""
    checkpoint: Checkpoint | None = None
    """How the job saves its state; without it a suspended job starts from its beginning."""
    backoff_limit: Annotated[int, Field(ge=0, le=2**31 - 1)] = 3
    """How many failures of its own the gang may have before the job fails. A lost node is none."""
    suspend: bool = False
    """Keep the gang off the GPUs until this is false."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """The job fails when it was active for longer than this."""
    ttl_seconds_after_finished: Seconds | None = None
    """The job is deleted so long after its end; without it, never."""


class ObjectMeta(Open):
    """Metadata of the object."""

    name: JobName = ""
    """The job's name; its pods are NAME-ROLE-INDEX, its Service is NAME."""


class DLJob(Strict):
    """A deep-learning training job: pods that start together, placed by the links between their GPUs."""

    api_version: Literal["muster.dev/v1alpha1"] = "muster.dev/v1alpha1"
    kind: Literal["DLJob"] = "DLJob"
    metadata: ObjectMeta
    spec: DLJobSpec
    status: DLJobStatus = DLJobStatus()

    @property
    def gpus(self) -> int:
        """Count the GPUs that the whole gang asks for."""
        return sum(role.replicas * role.template.gpus for role in self.spec.roles.present().values())
