"""Random clusters and gangs, whose constraints are those that kube-scheduler knows.

The mix. A cluster has six nodes of three machine types in two zones; half have network devices (rdma/hca), a third is tainted,
one in ten by a soft taint. On it are up to six pods of others, some with a host port, some that keep trainers away from their
node or zone. A gang has one to six pods of one to four GPUs, and none to three hard constraints, of all kinds alike:
two or more in half of the gangs. A third of the gangs have a preference as well. Racks, quotas and queues are left out, since
kube-scheduler knows none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from muster import machines
from muster.api import names
from muster_dev.local import nodes

Json = dict[str, Any]
ZONE, HOST, DISK, POOL, GENERATION = "topology.kubernetes.io/zone", "kubernetes.io/hostname", "disk", "pool", "generation"
RDMA = "rdma/hca"
MACHINES = ("dgx-a100", "pcie-8", "p100")
NODES, MOST_RESIDENTS, MOST_PODS = 6, 6, 6
TRAINER: Final = {"app": "train"}
HARD_CONSTRAINTS = (0, 1, 1, 2, 2, 3)
"""The number of hard constraints of a gang, each of these equally often."""


@dataclass(frozen=True)
class World:
    """A cluster, pods of others on it, and gangs that are tried on it one after another, as pod specs with a number of pods."""

    nodes: list[Json]
    residents: list[Json]
    gangs: list[tuple[int, Json]]


@st.composite
def worlds(draw: st.DrawFn, gangs: int) -> World:
    """Draw a world with so many gangs."""
    made = [_node(draw, index) for index in range(NODES)]
    residents = [_resident(draw, index, made) for index in range(draw(st.integers(0, MOST_RESIDENTS)))]
    return World(made, residents, [draw(specs()) for _ in range(gangs)])


def _node(draw: st.DrawFn, index: int) -> Json:
    machine = machines.machine(draw(st.sampled_from(MACHINES)))
    made = nodes.node(machine, f"n{index}", f"rack-{index % 2}", "block", kwok=True)
    made["metadata"]["labels"] |= {
        ZONE: draw(st.sampled_from("ab")),
        DISK: draw(st.sampled_from(["ssd", "hdd"])),
        POOL: draw(st.sampled_from("xy")),
        GENERATION: str(draw(st.integers(1, 3))),
    }
    amounts = {
        "cpu": str(draw(st.sampled_from([8, 16, 32, 64]))),
        "memory": draw(st.sampled_from(["32Gi", "128Gi", "512Gi"])),
        "ephemeral-storage": draw(st.sampled_from(["20Gi", "200Gi"])),
    }
    if draw(st.booleans()):
        amounts[RDMA] = str(draw(st.integers(1, 4)))
    for part in ("capacity", "allocatable"):
        made["status"][part] = made["status"][part] | amounts
    taint = draw(st.sampled_from(["", "", "", "", "", "", "NoSchedule", "NoSchedule", "NoSchedule", "PreferNoSchedule"]))
    if taint:
        made["spec"] = {"taints": [{"key": "team", "value": "vision", "effect": taint}]}
    return made


def _resident(draw: st.DrawFn, index: int, on: list[Json]) -> Json:
    container: Json = {"name": "main", "image": "x", "resources": {"requests": {"cpu": draw(st.sampled_from(["1", "4"]))}}}
    spec: Json = {"containers": [container], "nodeName": draw(st.sampled_from(on))["metadata"]["name"]}
    match draw(st.sampled_from(["plain", "plain", "port", "alone on its node", "alone in its zone"])):
        case "port":
            container["ports"] = [{"containerPort": 80, "hostPort": 8080}]
        case "alone on its node":
            spec["affinity"] = {"podAntiAffinity": _required(HOST, TRAINER)}
        case "alone in its zone":
            spec["affinity"] = {"podAntiAffinity": _required(ZONE, TRAINER)}
    labels = {"app": draw(st.sampled_from(["db", "web"]))}
    return {"metadata": {"name": f"resident-{index}", "labels": labels}, "spec": spec}


# Gangs


@st.composite
def specs(draw: st.DrawFn) -> tuple[int, Json]:
    """Draw a gang: the number of its pods, and the spec of each."""
    amounts: Json = {names.GPU: draw(st.sampled_from([1, 1, 2, 2, 4]))}
    container: Json = {"name": "train", "image": "x", "resources": {"limits": amounts}}
    spec: Json = {"containers": [container]}
    kinds = st.sampled_from(sorted(CONSTRAINTS))
    for kind in draw(st.lists(kinds, min_size=(count := draw(st.sampled_from(HARD_CONSTRAINTS))), max_size=count, unique=True)):
        CONSTRAINTS[kind](draw, spec)
    if draw(st.sampled_from([False, False, True])):
        term = _expressions(DISK, "In", draw(st.sampled_from(["ssd", "hdd"])))
        preferred = [{"weight": draw(st.integers(1, 100)), "preference": term}]
        _node_affinity(spec)["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return draw(st.integers(1, MOST_PODS)), spec


def _label(draw: st.DrawFn, spec: Json) -> None:
    spec["nodeSelector"] = {DISK: draw(st.sampled_from(["ssd", "hdd"]))}


def _affinity(draw: st.DrawFn, spec: Json) -> None:
    choices = [
        _expressions(ZONE, "In", draw(st.sampled_from("ab"))),
        _expressions(POOL, "NotIn", draw(st.sampled_from("xy"))),
        _expressions(GENERATION, "Gt", "1"),
        _expressions(RDMA.replace("/", "."), "DoesNotExist"),
    ]
    terms = draw(st.lists(st.sampled_from(choices), min_size=1, max_size=2))
    _node_affinity(spec)["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}


def _toleration(draw: st.DrawFn, spec: Json) -> None:
    """Only tainted nodes, which then have to be tolerated; else a toleration would be no constraint."""
    operator = draw(st.sampled_from(["Exists", "Equal"]))
    value = {"value": "vision"} if operator == "Equal" else {}
    spec["tolerations"] = [{"key": "team", "operator": operator, "effect": "NoSchedule", **value}]
    spec["nodeSelector"] = spec.get("nodeSelector", {}) | {POOL: draw(st.sampled_from("xy"))}


def _amount(name: str, *amounts: str) -> Callable[[st.DrawFn, Json], None]:
    def ask(draw: st.DrawFn, spec: Json) -> None:
        amount = draw(st.sampled_from(amounts))
        resources = spec["containers"][0]["resources"]
        resources.setdefault("requests", {})[name] = amount
        if name == RDMA:
            resources["limits"][name] = amount

    return ask


def _init(draw: st.DrawFn, spec: Json) -> None:
    """An init container or a sidecar that asks for much."""
    sidecar = {"restartPolicy": "Always"} if draw(st.booleans()) else {}
    amounts = {"cpu": draw(st.sampled_from(["6", "12"])), "memory": draw(st.sampled_from(["1Gi", "100Gi"]))}
    spec["initContainers"] = [{"name": "init", "image": "x", "resources": {"requests": amounts}, **sidecar}]


def _host_port(draw: st.DrawFn, spec: Json) -> None:
    spec["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": draw(st.sampled_from([8080, 9090]))}]


def _apart(draw: st.DrawFn, spec: Json) -> None:
    labels = draw(st.sampled_from([TRAINER, TRAINER, {"app": "db"}]))
    _affinities(spec)["podAntiAffinity"] = _required(draw(st.sampled_from([HOST, HOST, ZONE])), labels)


def _together(draw: st.DrawFn, spec: Json) -> None:
    labels = draw(st.sampled_from([TRAINER, TRAINER, {"app": "web"}]))
    _affinities(spec)["podAffinity"] = _required(draw(st.sampled_from([ZONE, ZONE, HOST])), labels)


def _spread(draw: st.DrawFn, spec: Json) -> None:
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": draw(st.sampled_from([1, 1, 2])),
            "topologyKey": draw(st.sampled_from([ZONE, HOST])),
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": TRAINER},
        }
    ]


CONSTRAINTS: Final[Mapping[str, Callable[[st.DrawFn, Json], None]]] = {
    "node selector": _label,
    "node affinity": _affinity,
    "toleration": _toleration,
    "cpu": _amount("cpu", "2", "6", "12"),
    "memory": _amount("memory", "8Gi", "60Gi"),
    "ephemeral storage": _amount("ephemeral-storage", "5Gi", "50Gi"),
    "device": _amount(RDMA, "1", "2"),
    "init container": _init,
    "host port": _host_port,
    "pod anti-affinity": _apart,
    "pod affinity": _together,
    "topology spread": _spread,
}
"""The kinds of hard constraints, each of which changes the spec of a pod."""


def _expressions(key: str, operator: str, *values: str) -> Json:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


def _required(key: str, labels: Mapping[str, str]) -> Json:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": dict(labels)}}
    return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}


def _affinities(spec: Json) -> Json:
    found: Json = spec.setdefault("affinity", {})
    return found


def _node_affinity(spec: Json) -> Json:
    found: Json = _affinities(spec).setdefault("nodeAffinity", {})
    return found
