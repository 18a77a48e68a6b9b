"""The DLJob: a training job whose pods start together or not at all.

Field names follow Job, JobSet and Kubeflow Trainer. Types express the schema and CEL rules the remaining constraints, so the
operator understands every job that the API server accepts.
"""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import ConfigDict, Field

from muster.api import names
from muster.api.base import Open, Strict, extra, immutable, rule
from muster.api.podtemplate import PodTemplate
from muster.api.status import DLJobStatus, RoleName

Domain = Literal["Node", "Rack", "Block"]
Rendezvous = Literal["Torchrun", "MPI", "ParameterServer", "None"]
Seconds = Annotated[int, Field(ge=0, le=2**31 - 1)]
DnsLabel = Annotated[str, Field(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
RolesT = TypeVar("RolesT")
WIDTH = "{'Node': 0, 'Rack': 1, 'Block': 2}"
NAME_LIMIT = 50
"""The longest job name: "-evaluator-0" and "-worker-4095" still fit the 63 characters of a pod's hostname."""
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
    """Pods with the same template."""

    replicas: Annotated[int, Field(ge=1, le=4096)] = 1
    """The number of pods."""
    template: PodTemplate
    """The template of each pod."""


class Worker(Role):
    """The pods that train; each requests at least one GPU."""

    model_config = ConfigDict(json_schema_extra=extra(ASKS_FOR_GPUS))


class Single(Role):
    """A role of one pod."""

    replicas: Annotated[int, Field(ge=1, le=1)] = 1
    """Always 1."""


class Servers(Role):
    """The parameter servers."""

    replicas: Annotated[int, Field(ge=1, le=1024, json_schema_extra=extra(immutable("the number of parameter servers")))] = 1
    """The number of pods; immutable."""


def fixed(role: str) -> dict[str, str]:
    """Return the rule that a role is neither added nor removed after creation."""
    message = f"role {role} cannot be added or removed: delete the job and create it again"
    return rule(f"has(self.{role}) == has(oldSelf.{role})", message, at=f".{role}")


class Roles(Strict):
    """The roles of the job. The set of roles and their templates are immutable; worker.replicas is not (kubectl scale)."""

    model_config = ConfigDict(json_schema_extra=extra(fixed("chief"), fixed("ps"), fixed("evaluator")))

    worker: Worker
    """The pods that train."""
    chief: Single | None = None
    """The launcher of an MPI job, or the chief of a parameter-server job. GPUs are optional."""
    ps: Servers | None = None
    """The parameter servers. GPUs are optional."""
    evaluator: Single | None = None
    """Evaluates checkpoints during training. GPUs are optional."""

    def present(self) -> dict[RoleName, Role]:
        """Return the roles of the job, chief first."""
        roles: dict[RoleName, Role | None] = {
            "chief": self.chief,
            "worker": self.worker,
            "ps": self.ps,
            "evaluator": self.evaluator,
        }
        return {name: role for name, role in roles.items() if role}


class PlacementSpec(Strict):
    """Constraints and preferences for the placement of the gang."""

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
    """Pack fills nodes and keeps other nodes entirely free; Spread gives each pod the emptiest node."""
    required: Domain | None = None
    """The topology domain that must contain the whole gang; without enough free GPUs in one the gang waits."""
    preferred: Domain = "Node"
    """The smallest topology domain, tried first."""
    sensitivity: Literal["Auto", "High", "Low"] = "Auto"
    """The job's sensitivity to slow links between its GPUs; Auto learns it from measured mini-batch rates."""


class Elastic(Strict):
    """The range of sizes to which muster may shrink and grow the job."""

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
    """The smallest number of workers with which the job can train."""
    max_replicas: Annotated[int, Field(ge=1, le=4096)]
    """The largest number of workers from which the job benefits."""


class Sharing(Strict):
    """The kinds of GPU sharing that the job allows. Sharing that does not pay by measured rates is undone."""

    time_slicing: bool = False
    """The job may be stopped and queued again for jobs that rank before it (priority, Gittins index)."""
    packing: bool = False
    """The job may run together with another one on the same GPUs. The simulator does so; the operator does not yet."""


class Checkpoint(Strict):
    """How the job is suspended and resumed without losing work."""

    model_config = ConfigDict(
        json_schema_extra=extra(
            rule("self.mode != 'Checkpoint' || has(self.volume)", "mode Checkpoint needs checkpoint.volume", at=".volume")
        )
    )

    mode: Literal["Checkpoint", "Pause"] = "Checkpoint"
    """Checkpoint: the program saves its state and its pods are deleted. Pause: GPU memory moves to the host, the pods stay."""
    volume: DnsLabel | None = None
    """The volume of the worker's template for checkpoints."""
    every_mini_batches: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """The number of mini-batches between saves, in addition to the saves that muster requests."""
    deadline_seconds: Annotated[int, Field(ge=1, le=86400)] = 60
    """The seconds that a save may take before the pods are deleted without it."""


def only_with(role: str, forms: str) -> dict[str, str]:
    """Return the rule that a role exists only with some forms of rendezvous (a CEL list)."""
    return rule(
        f"!has(self.roles.{role}) || self.rendezvous in {forms}",
        f"roles.{role} needs rendezvous to be one of {forms}",
        f"'roles.{role} is not allowed with rendezvous ' + self.rendezvous",
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


class SpecOf(Strict, Generic[RolesT]):
    """The desired state of the job, with its roles in full or as far as somebody needs them."""

    queue: DnsLabel = "default"
    """The DLQueue of the job, in its namespace; it must exist where the namespace has any."""
    priority: Annotated[int, Field(ge=-1_000_000_000, le=1_000_000_000)] = 0
    """A higher priority goes first among the jobs of the namespace, and preempts lower ones of it. For other namespaces it
    counts nothing."""
    priority_class_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """The PriorityClass, which counts against every namespace: a higher value goes first, and preempts lower ones."""
    roles: RolesT
    """The pods, by role."""
    rendezvous: Annotated[Rendezvous, Field(json_schema_extra=extra(immutable("rendezvous")))] = "Torchrun"
    """How the processes find each other: it determines the environment variables and the hostfile of the pods."""
    placement: PlacementSpec = PlacementSpec()
    """Constraints and preferences for the placement of the gang."""
    elastic: Elastic | None = None
    """The range of sizes; without it the size is worker.replicas."""
    sharing: Sharing = Sharing()
    """The kinds of GPU sharing that the job allows."""
    checkpoint: Checkpoint | None = None
    """How the job saves its state; without it a suspended job restarts from its beginning."""
    backoff_limit: Annotated[int, Field(ge=0, le=2**31 - 1)] = 3
    """The number of the gang's own failures after which the job fails. A lost node does not count."""
    start_deadline_seconds: Annotated[int, Field(ge=1, le=2**31 - 1)] = 600
    """The seconds from the placement of the gang until all of it runs; then it gives its GPUs back and is queued again."""
    start_retries: Annotated[int, Field(ge=0, le=2**31 - 1)] = 3
    """The number of failed starts in a row after which the next one has the job set aside: suspended, until it is resumed."""
    suspend: bool = False
    """While true, the gang holds no GPUs."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """The job fails once its whole gang has run for longer than this, over all attempts; waiting does not count."""
    ttl_seconds_after_finished: Seconds | None = None
    """The seconds from the end of the job to its deletion; without it, never."""


class DLJobSpec(SpecOf[Roles]):
    """The desired state of the job."""

    model_config = ConfigDict(json_schema_extra=extra(*SPEC_RULES))


class ObjectMeta(Open):
    """Metadata of the object."""

    name: JobName = ""
    """The job's name; its pods are NAME-ROLE-INDEX, its Service is NAME."""


QUEUE_STAYS = rule(
    "self.spec.queue == oldSelf.spec.queue || !has(self.status) || !has(self.status.placement)"
    " || size(self.status.placement) == 0",
    "spec.queue cannot change while the job holds GPUs, which count in its queue: suspend the job first",
    at=".spec.queue",
)


class DLJob(Strict):
    """A deep-learning training job: pods that start together, placed according to the links between their GPUs."""

    model_config = ConfigDict(json_schema_extra=extra(QUEUE_STAYS))

    api_version: Literal["muster.dev/v1alpha1"] = "muster.dev/v1alpha1"
    kind: Literal["DLJob"] = "DLJob"
    metadata: ObjectMeta
    spec: DLJobSpec
    status: DLJobStatus = DLJobStatus()

    @property
    def gpus(self) -> int:
        """The number of GPUs of the whole gang."""
        return sum(role.replicas * role.template.gpus for role in self.spec.roles.present().values())
