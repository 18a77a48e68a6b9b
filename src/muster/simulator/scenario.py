"""A scenario: the YAML file that describes a run. docs/simulator.md documents every field.

Invariant: the same scenario and trace give the same result, byte for byte. Times are in seconds since the start of the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from muster import machines
from muster.machines import UnknownMachine
from muster.scheduling.counting import counted
from muster.scheduling.topology.links import BadLinks, canonical, gpu_set, uniform
from muster.scheduling.topology.machine import MachineType, machine_type, unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.plugin_fields import Choice, one_of
from muster.simulator.registry import PHYSICS, POLICIES, SOURCES
from muster.simulator.traces import openb
from muster.simulator.yaml_errors import Strict, complaint, read_yaml

Count = Annotated[int, Field(ge=1, le=100_000)]
Gpus = Annotated[int, Field(ge=1, le=16)]
Seconds = Annotated[float, Field(ge=0)]


class Group(Strict):
    """Identical nodes: of a named machine type, or with a number of GPUs and their links."""

    count: Count
    name: Annotated[str, Field(min_length=1)] | None = None
    """Nodes are called NAME-0, NAME-1, ...; default: the machine type, else "node"."""
    machine: str | None = None
    gpus: Gpus | None = None
    links: str | list[list[str]] | None = None
    """One link for every pair ("NV2"), or the matrix; default: unknown, all pairs across the system (SYS)."""
    model: str | None = None
    """The GPU model; default: the product of the machine type."""

    @property
    def prefix(self) -> str:
        return self.name or self.machine or "node"

    @property
    def product(self) -> str:
        return self.model if self.model is not None else machines.machine(self.machine).product if self.machine else ""

    def type(self) -> MachineType:
        """Return the machine type; raise UnknownMachine or BadLinks."""
        if self.machine is not None:
            return machine_type(machines.machine(self.machine).links)
        gpus = self.gpus or 1
        if self.links is None:
            return unknown_machine(gpus)
        return machine_type(uniform(gpus, canonical(self.links)) if isinstance(self.links, str) else self.links)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.machine is None) == (self.gpus is None):
            raise complaint("has both or neither of machine and gpus; expected exactly one of them")
        if self.machine is not None and self.links is not None:
            raise complaint("a named machine type has its own links; expected links only together with gpus", "links")
        try:
            machine = self.type()
        except (UnknownMachine, BadLinks) as error:
            raise complaint("{error}", "machine" if self.machine else "links", error=str(error)) from None
        if self.gpus is not None and machine.gpus != self.gpus:
            raise complaint(
                "is a matrix of {found}; expected {gpus}", "links", found=counted(machine.gpus, "GPU"), gpus=self.gpus
            )
        return self


class Cluster(Strict):
    """The nodes with their racks and blocks. Each group starts a new rack."""

    groups: tuple[Group, ...] = ()
    openb: Path | None = None
    """Instead of groups: a node list in the format of openb, with CPU and memory."""
    nodes_per_rack: Count | None = None
    """Default: nodes have no rack."""
    racks_per_block: Count | None = None

    @model_validator(mode="after")
    def _names(self) -> Self:
        if bool(self.groups) == (self.openb is not None):
            raise complaint("has both or neither of groups and openb; expected exactly one of them")
        if self.openb is not None and self.nodes_per_rack is not None:
            raise complaint(
                "a node list of openb has no racks; expected this field only together with groups", "nodes_per_rack"
            )
        prefixes = [group.prefix for group in self.groups]
        duplicates = sorted({prefix for prefix in prefixes if prefixes.count(prefix) > 1})
        if duplicates:
            raise complaint("two groups have nodes called {name}; expected unique names", "groups", name=duplicates[0])
        return self

    def nodes(self, folder: Path = Path()) -> list[Node]:
        """Return the nodes, all free; the path of a node list is relative to `folder`. Raise BadInput for a bad list."""
        if self.openb is not None:
            return openb.nodes(folder / self.openb)
        nodes: list[Node] = []
        rack = -1
        for group in self.groups:
            machine, width = group.type(), len(str(group.count - 1))
            for index in range(group.count):
                rack += self.nodes_per_rack is not None and index % self.nodes_per_rack == 0
                name = f"{group.prefix}-{index:0{width}}"
                rack_name, block = self._location(rack)
                nodes.append(Node(name, machine, machine.all, machine.all, group.product, rack=rack_name, block=block))
        return nodes

    def _location(self, rack: int) -> tuple[str, str]:
        """The names of a rack and its block; empty if unknown."""
        if self.nodes_per_rack is None:
            return "", ""
        return f"rack-{rack:04}", f"block-{rack // self.racks_per_block:04}" if self.racks_per_block else ""


class Failure(Strict):
    """A failure of GPUs of one node, by default all of them, until their repair."""

    at: Seconds
    node: str
    gpus: list[Annotated[int, Field(ge=0, lt=16)]] | None = None
    until: Seconds | None = None

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.until is not None and self.until <= self.at:
            raise complaint("found {until}; expected a time after {at}", "until", until=self.until, at=self.at)
        return self

    def broken(self, node: Node) -> int:
        """Return the set of failing GPUs."""
        return node.machine.all if self.gpus is None else gpu_set(self.gpus) & node.machine.all


class Sharing(Strict):
    """The sharing that every job allows, in place of what its trace says."""

    slices: bool = False
    packs: bool = False


class Scenario(Strict):
    """One run."""

    cluster: Cluster
    jobs: Annotated[Choice, one_of(SOURCES, "source")]
    physics: Annotated[Choice, one_of(PHYSICS, "name")] = Choice("ideal", PHYSICS["ideal"], Strict())
    policy: Annotated[Choice, one_of(POLICIES, "name")] = Choice("muster", POLICIES["muster"], Strict())
    seed: int = 0
    until: Annotated[float, Field(gt=0)] | None = None
    """The end of the run; default: the end of the last job."""
    pod_gpus: Gpus | None = None
    """The largest number of GPUs of a pod: larger jobs are split into several pods. Default: as in the trace."""
    sharing: Sharing | None = None
    """Default: as in the trace."""
    failures: tuple[Failure, ...] = ()
    window: tuple[Seconds, Seconds] | None = None
    """Start and end of an interval with separate means. Default: first to last arrival."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = sorted(node.name for node in self.cluster.nodes()) if self.cluster.groups else None
        for index, failure in enumerate(self.failures):
            if names is not None and failure.node not in names:
                fault = f"failure {index} is of node {failure.node!r}"
                raise complaint("{fault}; expected one of {names}, ...", "failures", fault=fault, names=", ".join(names[:3]))
        if self.window is not None and self.window[0] >= self.window[1]:
            raise complaint("ends before it begins; expected a start and a later end", "window")
        return self


def load(path: Path) -> Scenario:
    """Read a scenario; raise BadInput with the line and field of each mistake."""
    return read_yaml(path, Scenario)
