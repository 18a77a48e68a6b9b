"""A gang: pods that start together, what they ask for, where they are placed, and what may be done with them.

Times are in seconds on any clock that `plan` gets `now` from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from muster.scheduling.counting import counted
from muster.scheduling.relations import UNRELATED, Relations
from muster.scheduling.resource_quota import SERVICE, Charge
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
    relations: Relations = UNRELATED
    """Its labels, and what it asks of the places of other pods."""


class Assigned(NamedTuple):
    """Where one task goes: a node, GPUs of it, and the task's rank in the gang."""

    task: Task
    node: str
    gpus: GpuSet
    rank: int = 0


Placement = tuple[Assigned, ...]


def gpus_by_node(placement: Placement) -> dict[str, GpuSet]:
    """Return the GPUs of a placement on each of its nodes."""
    gpus: dict[str, GpuSet] = {}
    for assigned in placement:
        if assigned.gpus:
            gpus[assigned.node] = gpus.get(assigned.node, 0) | assigned.gpus
    return gpus


def gpus_of(placement: Placement) -> int:
    """Return the number of GPUs of a placement."""
    return sum(assigned.gpus.bit_count() for assigned in placement)


def renumbered(placement: Iterable[Assigned]) -> Placement:
    """Return the placement with ranks from 0 on, in the order that they had."""
    return tuple(assigned._replace(rank=rank) for rank, assigned in enumerate(sorted(placement, key=attrgetter("rank"))))


def describe(placement: Placement) -> str:
    """Return "8 GPUs on 2 nodes (n1, n2)"."""
    nodes = sorted({assigned.node for assigned in placement})
    names = ", ".join(nodes[:4]) + (", ..." if len(nodes) > 4 else "")
    return f"{counted(gpus_of(placement), 'GPU')} on {counted(len(nodes), 'node')} ({names})"


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


_NOWHERE: Mapping[str, str] = {}
"""One object for all gangs, of which there may be ten thousand."""


@dataclass(frozen=True, slots=True)
class Gang:
    """Pods that start together or not at all: a DLJob, a labelled set of pods, or one pod.

    A gang without a `placement` is queued; with one, the placement is its reservation. Gangs are values: passes compare a gang
    with the one of the same name in the last snapshot, and work out again only what depends on those that differ.
    """

    name: str
    """No other gang of the snapshot has it."""
    queue: str
    arrived: float
    tasks: tuple[Task, ...]
    namespace: str = ""
    """Whose it is: within a namespace gangs are named to each other, and preempt by their local priority."""
    priority: int = 0
    """What counts against gangs of every namespace: the value of a PriorityClass, which administrators make."""
    local_priority: int = 0
    """What anybody may write: it orders the gangs of a queue, and preempts within the namespace."""
    preempts: bool = True
    """Whether gangs of lower priority make way for it (preemptionPolicy)."""
    start_failed: bool = False
    """Its last start failed: until something changes it preempts nobody, and gangs behind it leave nothing to it."""
    placement: Placement = ()
    spread: bool = False
    required: Level = Level.CLUSTER
    preferred: Level = Level.NODE
    sensitivity: Sensitivity = Sensitivity.AUTO
    fewest: int | None = None
    """The number of workers with which an elastic gang can start."""
    not_before: float = 0.0
    stopping: bool = False
    """Without a placement: pods of an earlier one have not ended yet."""
    keeps_turn: bool = False
    """It was taken off its GPUs by nobody's fault: until it may start again, nobody behind it has what it needs."""
    started: float = 0.0
    absent: int = 0
    """Pods that the gang needs and that nobody has created yet."""
    missing: str = ""
    """What the gang refers to and is not there, in a sentence: it cannot start before that."""
    unplannable: str = ""
    """Why it is not to be planned as it is, in a sentence for its user: pods that contradict each other, say."""
    charges: tuple[tuple[str, Charge], ...] = ()
    """What a pod of each role will count in the resource quotas of the namespace; nothing for pods that exist."""
    service: bool = False
    """Whether a Service comes with the pods, and goes with them; resource quotas count it too."""
    preemptible: bool = False
    """Whether a gang of higher priority may take its place: DLJobs, but not pods that other controllers created."""
    leave: str | None = None
    """A wish to move: "" to any other place, else away from the node or rack of this name."""
    resize: bool = False
    """The gang was scaled since it was placed: `tasks` are what it wants, `placement` what it has."""
    avoid: frozenset[str] = frozenset()
    """Nodes on which the gang's last attempts failed: taken only where there is no other place."""
    refused: Mapping[str, str] = field(default_factory=lambda: _NOWHERE, hash=False)
    """Nodes that refused its pods more than once, each with the words of kube-scheduler or the kubelet: never taken."""
    kind: str = ""
    """Gangs of one kind train alike (one model, one image): what is measured of one holds for all. Empty: its own kind."""
    asked: int | None = None
    """The workers that it asked for, where `tasks` has more: an elastic gang may grow to all of them."""
    sharing: Sharing = EXCLUSIVE
    running: bool = True
    """With a placement: on its GPUs now. A gang that is suspended with a placement waits there for its turn."""
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
    def fewest_gpus(self) -> int:
        """The GPUs of the smallest size in which it can start."""
        return self.gpus if self.fewest is None else sum(task.gpus for task in shrunk(self.tasks, self.fewest))

    @property
    def held(self) -> int:
        """The GPUs of its placement."""
        return sum([assigned.gpus.bit_count() for assigned in self.placement])

    @property
    def suspended(self) -> bool:
        """Whether it has a placement and waits there for its turn."""
        return bool(self.placement) and not self.running

    @property
    def grown(self) -> bool:
        """Whether it has more workers than it asked for."""
        return self.asked is not None and sum(assigned.task.role == "worker" for assigned in self.placement) > self.asked

    @property
    def elastic(self) -> bool:
        """Whether a policy may choose its size."""
        return self.asked is not None and self.sharing.slices

    @property
    def profile_name(self) -> str:
        """The kind whose measurements hold for it: the declared one, else its own."""
        return self.kind or self.name

    @property
    def sensitive(self) -> bool:
        """Whether fast links matter: as declared, else for every gang that has more than one GPU to join."""
        if self.sensitivity is Sensitivity.AUTO:
            return self.gpus > 1
        return self.sensitivity is Sensitivity.HIGH

    def charged(self, tasks: Iterable[Task]) -> Counter[Charge]:
        """Return how many pods of each kind these tasks are in the resource quotas of the namespace."""
        charges = dict(self.charges)
        return Counter(charges[task.role] for task in tasks if task.role in charges)

    def charged_whole(self, tasks: Sequence[Task]) -> Counter[Charge]:
        """Return what the gang counts if it has these tasks: the pods, and its Service once there are any."""
        return self.charged(tasks) + Counter({SERVICE: 1} if self.service and tasks else {})

    def added(self, placement: Placement) -> Counter[Charge]:
        """Return what a new placement counts beyond the present one."""
        before, after = (self.charged_whole([assigned.task for assigned in each]) for each in (self.placement, placement))
        return after - before

    def ran(self, now: float) -> float:
        """Return for how many seconds it ran, on the GPUs that it asks for."""
        return self.attained_at(now) / max(self.gpus, 1)

    def attained_at(self, now: float) -> float:
        """Return the GPU-seconds that it had up to `now`."""
        return self.attained + (self.held * (now - self.since) if self.placement and self.running else 0.0)

    def is_ready(self, now: float) -> bool:
        """Say whether all of its pods are there, none of an earlier placement is left, and it does not back off."""
        return not (self.absent or self.unplannable or self.stopping) and self.not_before <= now

    def at_size(self, workers: int) -> Gang:
        """Return the gang with that many workers."""
        return replace(self, tasks=shrunk(self.tasks, workers))

    def at_fewest(self) -> Gang:
        """Return the gang in the smallest size in which it can start."""
        return self if self.fewest is None else self.at_size(self.fewest)

    def sizes(self) -> range:
        """Return the numbers of workers with which the gang may start, largest first."""
        workers = self.asked if self.asked is not None else sum(task.role == "worker" for task in self.tasks)
        return range(workers, min(self.fewest if self.fewest is not None else workers, workers) - 1, -1)

    def as_placed(self) -> Gang:
        """Return the gang in the size that it has: for a search that neither grows nor shrinks it."""
        return replace(self, tasks=tuple(assigned.task for assigned in self.placement), fewest=None, asked=None)


def shrunk(tasks: tuple[Task, ...], workers: int) -> tuple[Task, ...]:
    """Return the tasks of an elastic gang with that many workers."""
    return tuple(task for task in tasks if task.role != "worker" or task.index < workers)
