"""A scenario: everything that a run depends on, as users write it in YAML. docs/simulator.md tells every field.

Invariant: the same scenario and trace give the same result, byte for byte. Times in seconds since the start of the run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from muster import machines
from muster.machines import UnknownMachine
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
    """Nodes that are alike: of a machine type by name, or with so many GPUs and links."""

    count: Count
    name: Annotated[str, Field(min_length=1)] | None = None
    """The nodes are NAME-0, NAME-1, ...; left out: the machine type, or "node"."""
    machine: str | None = None
    gpus: Gpus | None = None
    links: str | list[list[str]] | None = None
    """One link for every pair ("NV2"), or the matrix; left out: unknown, every way through the system."""
    model: str | None = None
    """What its GPUs are called; left out: the product of the machine type."""

    @property
    def prefix(self) -> str:
        return self.name or self.machine or "node"

    @property
    def product(self) -> str:
        return self.model if self.model is not None else machines.machine(self.machine).product if self.machine else ""

    def type(self) -> MachineType:
        """Return the machine type of these nodes."""
        if self.machine is not None:
            return machine_type(machines.machine(self.machine).links)
        gpus = self.gpus or 1
        if self.links is None:
            return unknown_machine(gpus)
        return machine_type(uniform(gpus, canonical(self.links)) if isinstance(self.links, str) else self.links)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.machine is None) == (self.gpus is None):
            raise complaint("has both or neither of machine and gpus; expected one of them")
        if self.machine is not None and self.links is not None:
            raise complaint("a machine type by name has its own links; expected links only beside gpus", "links")
        try:
            found = self.type()
        except (UnknownMachine, BadLinks) as error:
            raise complaint("{error}", "machine" if self.machine else "links", error=str(error)) from None
        if self.gpus is not None and found.gpus != self.gpus:
            raise complaint("is a matrix of {found} GPUs; expected {gpus}", "links", found=found.gpus, gpus=self.gpus)
        return self


class Cluster(Strict):
    """The nodes, and how they stand. Each group begins a new rack."""

    groups: tuple[Group, ...] = ()
    openb: Path | None = None
    """Instead of groups: a list of nodes as openb has it, with their CPU and memory."""
    nodes_per_rack: Count | None = None
    """Left out: racks are not told."""
    racks_per_block: Count | None = None

    @model_validator(mode="after")
    def _names(self) -> Self:
        if bool(self.groups) == (self.openb is not None):
            raise complaint("has both or neither of groups and openb; expected one of them")
        if self.openb is not None and self.nodes_per_rack is not None:
            raise complaint("the list of openb has no racks; expected this only beside groups", "nodes_per_rack")
        prefixes = [group.prefix for group in self.groups]
        twice = sorted({prefix for prefix in prefixes if prefixes.count(prefix) > 1})
        if twice:
            raise complaint("two groups have nodes called {name}; expected another name for one", "groups", name=twice[0])
        return self

    def nodes(self, folder: Path = Path()) -> list[Node]:
        """Return the nodes, all free; the path of a list is relative to `folder`. Raise BadInput where the list is bad."""
        if self.openb is not None:
            return openb.nodes(folder / self.openb)
        made: list[Node] = []
        rack = -1
        for group in self.groups:
            machine, width = group.type(), len(str(group.count - 1))
            for index in range(group.count):
                rack += self.nodes_per_rack is not None and index % self.nodes_per_rack == 0
                name = f"{group.prefix}-{index:0{width}}"
                in_rack, in_block = self._stand(rack)
                made.append(Node(name, machine, machine.all, machine.all, group.product, rack=in_rack, block=in_block))
        return made

    def _stand(self, rack: int) -> tuple[str, str]:
        """The names of a rack and of its block; empty where they are not told."""
        if self.nodes_per_rack is None:
            return "", ""
        return f"rack-{rack:04}", f"block-{rack // self.racks_per_block:04}" if self.racks_per_block else ""


class Failure(Strict):
    """GPUs of a node that stop working, all of them unless some are named, until the node is repaired."""

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
        """Return the set of GPUs that stop working."""
        return node.machine.all if self.gpus is None else gpu_set(self.gpus) & node.machine.all


class Sharing(Strict):
    """What every job lets be done with it, whatever its trace says."""

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
    """When the run is stopped; left out: when every job has ended."""
    pod_gpus: Gpus | None = None
    """GPUs of the largest pod: jobs of more are cut into several. Left out: as the trace says."""
    sharing: Sharing | None = None
    """Left out: as the trace says."""
    failures: tuple[Failure, ...] = ()
    window: tuple[Seconds, Seconds] | None = None
    """From and to: a time for which means are told besides those of the whole run. Left out: while jobs arrive."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        known = sorted(node.name for node in self.cluster.nodes()) if self.cluster.groups else None
        for index, failure in enumerate(self.failures):
            if known is not None and failure.node not in known:
                wrong = f"failure {index} is of node {failure.node!r}"
                raise complaint("{wrong}; expected one of {names}, ...", "failures", wrong=wrong, names=", ".join(known[:3]))
        if self.window is not None and self.window[0] >= self.window[1]:
            raise complaint("ends before it begins; expected two times, from and to", "window")
        return self


def load(path: Path) -> Scenario:
    """Read a scenario; raise BadInput with each mistake's line and field."""
    return read_yaml(path, Scenario)
