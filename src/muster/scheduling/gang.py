"""A gang: pods that start together, what they ask for, where they are placed, and what may be done with them.

Times are in seconds on any clock that `plan` gets `now` from.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from muster.scheduling.resources import ONE_POD, WHOLE, Resources
from muster.scheduling.topology.eligibility import ANYWHERE, Constraint
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.node import Level


class Sensitivity(StrEnum):
    """How much a job suffers from slow links between its GPUs."""

    AUTO = "Auto"
    HIGH = "High"
    LOW = "Low"


@dataclass(frozen=True, slots=True)
class Task:
    """One pod of a gang."""

    name: str
    gpus: int
    resources: Resources = ONE_POD
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
