"""Node objects of named machine types, from a text such as "dgx-a100:4,pcie-8:8,p100:2".

Pure. Nodes are numbered per machine type, and each machine type begins a new rack. The units are those of the API (CPUs, Gi,
GPUs).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from muster import machines
from muster.api import names
from muster.machines import Machine
from muster_dev.local.errors import LocalError

KWOK = "kwok.x-k8s.io/node"
"""The label of a node whose lease kwok renews; a node without it is a mere object."""
EXPECTED = "expected MACHINE:COUNT[,MACHINE:COUNT...], as in dgx-a100:4,pcie-8:8"
MOST = 20_000


class BadNodes(LocalError):
    """A text that describes no nodes."""


@dataclass(frozen=True)
class Layout:
    """The size of racks and blocks."""

    nodes_per_rack: int = 4
    racks_per_block: int = 4


def parse(text: str) -> list[tuple[Machine, int]]:
    """Return the machine types with their numbers of nodes; raise BadNodes, which says what was found and expected."""
    entries = [_entry(part.strip()) for part in text.split(",")] if text.strip() else []
    seen = [machine.name for machine, _ in entries]
    if twice := sorted({name for name in seen if seen.count(name) > 1}):
        raise BadNodes(f"nodes {text!r}: {', '.join(twice)} is named twice; name each machine type once")
    if (total := sum(count for _, count in entries)) > MOST:
        raise BadNodes(f"nodes {text!r}: {total} nodes; at most {MOST} are supported")
    return entries


def manifests(text: str, *, kwok: bool = True, layout: Layout | None = None) -> list[dict[str, Any]]:
    """Return the Node objects that `text` describes, kept Ready by kwok, or else declared Ready; raise BadNodes."""
    located = _located(parse(text), layout or Layout())
    return [node(machine, f"{machine.name}-{index}", rack, block, kwok=kwok) for machine, index, rack, block in located]


def node(machine: Machine, name: str, rack: str, block: str, *, kwok: bool) -> dict[str, Any]:
    """Return one Node object; without kwok its status says Ready from the beginning."""
    resources = {"cpu": str(machine.cpus), "memory": f"{machine.memory_gib}Gi", "ephemeral-storage": "1Ti", "pods": "110"}
    if machine.gpus:
        resources[names.GPU] = str(machine.gpus)
    status: dict[str, Any] = {"capacity": resources, "allocatable": resources}
    if not kwok:
        status["conditions"] = [{"type": "Ready", "status": "True", "reason": "Declared"}]
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        names.MACHINE: machine.name,
        names.RACK: rack,
        names.BLOCK: block,
    }
    if kwok:
        labels[KWOK] = "fake"
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "status": status}


def is_ready(node: dict[str, Any]) -> bool:
    """Return whether the node takes pods: it is Ready, and the taints of a new node are removed."""
    conditions = node.get("status", {}).get("conditions", [])
    taints = node.get("spec", {}).get("taints", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and not any(taint["key"].startswith("node.kubernetes.io/") for taint in taints)


def _entry(part: str) -> tuple[Machine, int]:
    name, colon, count = part.partition(":")
    if not colon or not name:
        raise BadNodes(f"nodes: found {part!r}; {EXPECTED}")
    if not (count.isascii() and count.isdigit() and int(count) > 0):
        raise BadNodes(f"nodes: found {part!r}, and {count!r} is no number of nodes from 1; {EXPECTED}")
    try:
        return machines.machine(name), int(count)
    except machines.UnknownMachine as error:
        raise BadNodes(f"nodes: found {part!r}: {error}") from None


def _located(entries: list[tuple[Machine, int]], layout: Layout) -> Iterator[tuple[Machine, int, str, str]]:
    rack = -1
    for machine, count in entries:
        for index in range(count):
            rack += index % layout.nodes_per_rack == 0
            yield machine, index, f"rack-{rack}", f"block-{rack // layout.racks_per_block}"
