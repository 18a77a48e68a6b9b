"""The cluster as a value: what the planner sees, and all that it sees.

The operator makes it from API objects, the simulator from its own state; neither does more than translate. Amounts: GPUs
are sets (see `links`), CPU is in milli-cores, memory in bytes, times in seconds on any clock that `plan` gets `now` from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

from muster.scheduling.profile import Profile
from muster.scheduling.topology.eligibility import ANYWHERE, Constraint, Taint
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.machine import MachineType


class Level(IntEnum):
    """How far the tasks of a gang may be from each other, nearest first."""

    NODE = 0
    RACK = 1
    BLOCK = 2
    CLUSTER = 3


class Sensitivity(StrEnum):
    """How much a job suffers from slow links between its GPUs."""

    AUTO = "Auto"
    HIGH = "High"
    LOW = "Low"


class Resources(NamedTuple):
    """Amounts of what a node has beside GPUs."""

    cpu: int = 0
    memory: int = 0
    pods: int = 0

    def __add__(self, other: Resources) -> Resources:  # type: ignore[override]  # amounts, not tuples
        return Resources(self.cpu + other.cpu, self.memory + other.memory, self.pods + other.pods)

    def __sub__(self, other: Resources) -> Resources:
        return Resources(self.cpu - other.cpu, self.memory - other.memory, self.pods - other.pods)

    def times(self, number: int) -> Resources:
        return Resources(self.cpu * number, self.memory * number, self.pods * number)

    def covers(self, other: Resources) -> bool:
        return self.cpu >= other.cpu and self.memory >= other.memory and self.pods >= other.pods

    def holds(self, each: Resources, most: int) -> int:
        """How often there is what one needs, if not more than `most` times."""
        (cpu, memory, pods), (its_cpu, its_memory, its_pods) = self, each
        if cpu < its_cpu or memory < its_memory or pods < its_pods:
            return 0
        if most * its_cpu > cpu:
            most = cpu // its_cpu
        if most * its_memory > memory:
            most = memory // its_memory
        return pods // its_pods if most * its_pods > pods else most


PLENTY = Resources(1 << 62, 1 << 62, 1 << 62)
NOTHING = Resources()
ONE_POD = Resources(pods=1)


WHOLE = 1000
"""A GPU has a thousand parts."""
Parts = tuple[tuple[int, int], ...]
"""GPUs that are shared out in parts, by index, each with the thousandths of it that are free; those without are left out."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `healthy` are the GPUs that work, `free` those of them that nobody holds."""

    name: str
    machine: MachineType
    healthy: GpuSet
    free: GpuSet
    model: str = ""
    """What its GPUs are called ("P100"): a job runs equally fast on nodes of one model."""
    leaving: GpuSet = 0
    """GPUs that pods on their way out still hold: free soon, without anybody else having to go."""
    nic_gbps: float = 12.0
    """GB/s that its network cards carry together; where nobody says, those of one of 100 Gb/s."""
    rest: Resources = PLENTY
    """What is free beside GPUs; negative where pods of other schedulers took too much."""
    capacity: Resources = PLENTY
    """What there is beside GPUs when nobody holds any of it."""
    rack: str = ""
    block: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    parts: Parts = ()
    """What is free of GPUs that tasks share; none of them is in `free`. Kubernetes' device plugins know no parts."""

    def domain(self, level: Level) -> str:
        """The name of the node, rack, block or cluster that this node is in."""
        if level is Level.CLUSTER:
            return ""
        return (self.name, f"{self.block}/{self.rack}", self.block)[level]


@dataclass(frozen=True, slots=True)
class Task:
    """One pod of a gang."""

    name: str
    gpus: int
    rest: Resources = ONE_POD
    where: Constraint = ANYWHERE
    role: str = "worker"
    index: int = 0
    share: int = WHOLE
    """The thousandths that it takes of its GPU; less than all of it only with one GPU."""


class Assigned(NamedTuple):
    """Where one task goes: a node, GPUs of it, and the task's rank in the gang."""

    task: Task
    node: str
    gpus: GpuSet
    rank: int = 0


Placement = tuple[Assigned, ...]


@dataclass(frozen=True, slots=True)
class Sharing:
    """What a gang lets be done with it: give up its GPUs for others' turns, have a neighbour on the same GPUs."""

    slices: bool = False
    packs: bool = False
    weight: float = 1.0
    """Its turns beside those of others: a gang of weight 2 runs twice as long."""


EXCLUSIVE = Sharing()


@dataclass(frozen=True, slots=True)
class Effect:
    """What a decision is about, in figures: measured before, expected after."""

    before: float
    after: float
    unit: str = "mini-batches/s"


@dataclass(frozen=True, slots=True)
class Trial:
    """A decision that the next introspective pass judges: what it was, when, what it promised, and the way back."""

    verb: str
    at: float
    effect: Effect
    undo: Placement = ()


@dataclass(frozen=True, slots=True)
class Gang:
    """Pods that start together or not at all: a DLJob, a labelled set of pods, or one pod.

    `placement` is empty while the gang is queued; otherwise it is the reservation. `fewest` is the number of workers that an
    elastic gang can start with. `absent` counts pods that the gang needs and that nobody has created yet.
    """

    name: str
    """No other gang of the snapshot has it."""
    queue: str
    arrived: float
    tasks: tuple[Task, ...]
    priority: int = 0
    placement: Placement = ()
    spread: bool = False
    required: Level = Level.CLUSTER
    preferred: Level = Level.NODE
    sensitivity: Sensitivity = Sensitivity.AUTO
    fewest: int | None = None
    not_before: float = 0.0
    started: float = 0.0
    absent: int = 0
    preemptible: bool = False
    leave: str | None = None
    """A wish to move: "" away from where it is, else away from the node or rack of this name."""
    resize: bool = False
    """The gang was scaled since it was placed: `tasks` are what it wants, `placement` what it has."""
    avoid: frozenset[str] = frozenset()
    """Nodes on which the gang's last attempt failed: taken only where there is no other place."""
    kind: str = ""
    """Gangs of one kind train alike (one model, one image): what is measured of one holds for all. Empty: its own kind."""
    asked: int | None = None
    """The workers that it asked for, where `tasks` has more: an elastic gang may grow to all of them."""
    sharing: Sharing = EXCLUSIVE
    running: bool = True
    """Beside a placement: on its GPUs now. A gang that is suspended with a placement waits there for its turn."""
    since: float = 0.0
    """When it came to be as it is: placed, suspended, resumed, moved or resized."""
    attained: float = 0.0
    """GPU-seconds that it had up to `since`."""
    packed: str = ""
    """The gang on whose GPUs it runs as well; gangs packed onto the same one take their turns together."""
    trial: Trial | None = None

    @property
    def gpus(self) -> int:
        """The GPUs that it asks for."""
        if self.asked is None:
            return sum([task.gpus for task in self.tasks])
        return sum(task.gpus for task in self.tasks if task.role != "worker" or task.index < self.asked)

    @property
    def held(self) -> int:
        """The GPUs of its placement."""
        return sum([place.gpus.bit_count() for place in self.placement])

    def ran(self, now: float) -> float:
        """Seconds that it ran, on the GPUs that it asks for."""
        return self.attained_at(now) / max(self.gpus, 1)

    def attained_at(self, now: float) -> float:
        """GPU-seconds that it had up to `now`."""
        return self.attained + (self.held * (now - self.since) if self.placement and self.running else 0.0)

    @property
    def sensitive(self) -> bool:
        """Whether fast links matter: as declared, else for every gang that has more than one GPU to join."""
        if self.sensitivity is Sensitivity.AUTO:
            return self.gpus > 1
        return self.sensitivity is Sensitivity.HIGH


@dataclass(frozen=True, slots=True)
class Queue:
    """Gangs of one owner, with the GPUs that they may hold together; None is no limit."""

    name: str
    quota: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a plan depends on."""

    nodes: Mapping[str, Node]
    gangs: tuple[Gang, ...]
    queues: Mapping[str, Queue] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """What was measured of each kind of gang."""
    ended: tuple[float, ...] = ()
    """How long gangs that ended lately ran, in seconds on the GPUs that they asked for."""
