"""Random clusters and gangs, whose constraints are those that kube-scheduler knows.

The mix. A cluster has six nodes of three machine types in two zones, one in eight in none; half have network devices
(rdma/hca), a third is tainted, one in ten by a soft taint; one in twelve is cordoned. On it are up to six pods of others, some
with a host port, some that take more CPU than their node has, some that keep trainers away from their node or zone. A gang has
one to six pods of one to four GPUs, and none to three hard constraints, of all kinds alike: two or more in half of the gangs.
A fifth of the gangs have a chief as well, with a constraint of its own or none; a third have a preference. Racks, quotas and
queues are left out, since kube-scheduler knows none; so are tolerations of cordons, since muster places nothing on cordoned
nodes.
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
RUNTIME: Final[Json] = {"metadata": {"name": "boxed"}, "handler": "boxed", "overhead": {"podFixed": {"cpu": "3"}}}
"""A RuntimeClass whose pods take more than their containers ask for."""
MACHINES = ("dgx-a100", "pcie-8", "p100")
NODES, MOST_RESIDENTS, MOST_PODS = 6, 6, 6
TRAINER: Final = {"app": "train"}
LABELS: Final = {**TRAINER, "revision": "1"}
"""Of the pods of gangs."""
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
NAMESPACES: list[Json] = [{}, {}, {"namespaces": ["oracle"]}, {"namespaces": ["default"]}, {"namespaceSelector": {}}]
LABEL_KEYS: list[Json] = [{"matchLabelKeys": ["revision"]}, {"mismatchLabelKeys": ["revision"]}]
SPREAD_POLICIES: list[Json] = [
    *({}, {}, {}),
    {"nodeTaintsPolicy": "Honor"},
    {"nodeAffinityPolicy": "Ignore"},
    {"minDomains": 2},
    {"minDomains": 3, "nodeAffinityPolicy": "Ignore"},
]
HARD_CONSTRAINTS = (0, 1, 1, 2, 2, 3)
"""The number of hard constraints of a gang, each of these equally often."""


Roles = dict[str, tuple[int, Json]]
"""A gang: by role the number of its pods, and the spec of each."""


@dataclass(frozen=True)
class World:
    """A cluster, pods of others on it, and gangs that are tried on it one after another."""

    nodes: list[Json]
    cordoned: list[str]
    residents: list[Json]
    gangs: list[Roles]


@st.composite
def worlds(draw: st.DrawFn, gangs: int) -> World:
    """Draw a world with so many gangs."""
    made = [_node(draw, index) for index in range(NODES)]
    residents = [_resident(draw, index, made) for index in range(draw(st.integers(0, MOST_RESIDENTS)))]
    cordoned = [node["metadata"]["name"] for node in made if draw(st.sampled_from([False] * 11 + [True]))]
    return World(made, cordoned, residents, [draw(specs()) for _ in range(gangs)])


def _node(draw: st.DrawFn, index: int) -> Json:
    machine = machines.machine(draw(st.sampled_from(MACHINES)))
    made = nodes.node(machine, f"n{index}", f"rack-{index % 2}", "block", kwok=True)
    made["metadata"]["labels"] |= {
        DISK: draw(st.sampled_from(["ssd", "hdd"])),
        POOL: draw(st.sampled_from("xy")),
        GENERATION: str(draw(st.integers(1, 3))),
    }
    if zone := draw(st.sampled_from("aaabbbb-")).strip("-"):
        made["metadata"]["labels"][ZONE] = zone
    amounts = {
        "cpu": str(draw(st.sampled_from([8, 16, 32, 64]))),
        "memory": draw(st.sampled_from(["32Gi", "128Gi", "512Gi"])),
        "ephemeral-storage": draw(st.sampled_from(["20Gi", "200Gi"])),
    }
    if draw(st.booleans()):
        amounts[RDMA] = str(draw(st.integers(1, 4)))
    for part in ("capacity", "allocatable"):
        made["status"][part] = made["status"][part] | amounts
    taint = draw(st.sampled_from(["", "", "", "", "", "", "NoSchedule", "NoSchedule", "NoExecute", "PreferNoSchedule"]))
    if taint:
        made["spec"] = {"taints": [{"key": "team", "value": "vision", "effect": taint}]}
    return made


def _resident(draw: st.DrawFn, index: int, on: list[Json]) -> Json:
    container: Json = {
        "name": "main",
        "image": "x",
        "resources": {"requests": {"cpu": draw(st.sampled_from(["1", "4", "4", "100"]))}},
    }
    spec: Json = {
        "containers": [container],
        "tolerations": [{"operator": "Exists"}],
        "nodeName": draw(st.sampled_from(on))["metadata"]["name"],
    }
    match draw(st.sampled_from(["plain", "plain", "port", "alone on its node", "alone in its zone"])):
        case "port":
            container["ports"] = [_port(draw)]
        case "alone on its node":
            spec["affinity"] = {"podAntiAffinity": _required(HOST, TRAINER)}
        case "alone in its zone":
            spec["affinity"] = {"podAntiAffinity": _required(ZONE, TRAINER)}
    labels = {"app": draw(st.sampled_from(["db", "web"]))}
    return {"metadata": {"name": f"resident-{index}", "labels": labels}, "spec": spec}


# Gangs


@st.composite
def specs(draw: st.DrawFn) -> Roles:
    """Draw a gang."""
    chief = draw(st.sampled_from([False, False, False, False, True]))
    roles = {"chief": (1, _spec(draw, draw(st.integers(0, 1))))} if chief else {}
    return roles | {"worker": (draw(st.integers(1, MOST_PODS)), _spec(draw, draw(st.sampled_from(HARD_CONSTRAINTS))))}


def _spec(draw: st.DrawFn, count: int) -> Json:
    """The spec of a pod with so many hard constraints."""
    amounts: Json = {names.GPU: draw(st.sampled_from([1, 1, 2, 2, 4]))}
    container: Json = {"name": "train", "image": "x", "resources": {"limits": amounts}}
    spec: Json = {"containers": [container]}
    kinds = st.sampled_from(sorted(CONSTRAINTS))
    for kind in draw(st.lists(kinds, min_size=count, max_size=count, unique=True)):
        CONSTRAINTS[kind](draw, spec)
    if draw(st.sampled_from([False, False, True])):
        term = _expressions(DISK, "In", draw(st.sampled_from(["ssd", "hdd"])))
        preferred = [{"weight": draw(st.integers(1, 100)), "preference": term}]
        _node_affinity(spec)["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return spec


def _label(draw: st.DrawFn, spec: Json) -> None:
    spec["nodeSelector"] = {DISK: draw(st.sampled_from(["ssd", "hdd"]))}


def _affinity(draw: st.DrawFn, spec: Json) -> None:
    choices = [
        _expressions(ZONE, "In", draw(st.sampled_from("ab"))),
        _expressions(POOL, "NotIn", draw(st.sampled_from("xy"))),
        _expressions(GENERATION, "Gt", "1"),
        _expressions(GENERATION, "Lt", "3"),
        _expressions(ZONE, "Exists"),
        {
            **_expressions(POOL, "In", "x", "y"),
            "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}],
        },
        _expressions(RDMA.replace("/", "."), "DoesNotExist"),
    ]
    terms = draw(st.lists(st.sampled_from(choices), min_size=1, max_size=2))
    _node_affinity(spec)[REQUIRED] = {"nodeSelectorTerms": terms}


def _toleration(draw: st.DrawFn, spec: Json) -> None:
    """Only tainted nodes, which then have to be tolerated; else a toleration would be no constraint."""
    choices = [
        {"key": "team", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "vision", "effect": "NoSchedule"},
        {"key": "team", "value": "vision"},
        {"key": "team", "value": "speech"},
        {"operator": "Exists", "effect": "NoExecute"},
    ]
    spec["tolerations"] = [draw(st.sampled_from(choices))]
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


def _whole_pod(draw: st.DrawFn, spec: Json) -> None:
    """A limit of the pod as a whole, which is a request as well where no container requests any."""
    if draw(st.booleans()):
        resources: Json = spec["containers"][0]["resources"]
        resources.setdefault("requests", {}).setdefault("cpu", "2")
    spec["resources"] = {"limits": {"cpu": "14"}}


def _runtime(_: st.DrawFn, spec: Json) -> None:
    spec["runtimeClassName"] = RUNTIME["metadata"]["name"]


def _host_port(draw: st.DrawFn, spec: Json) -> None:
    spec["containers"][0]["ports"] = [_port(draw)]


def _port(draw: st.DrawFn) -> Json:
    address = draw(st.sampled_from([{}, {}, {"hostIP": "10.0.0.1"}, {"hostIP": "10.0.0.2"}]))
    protocol = draw(st.sampled_from([{}, {}, {"protocol": "UDP"}]))
    return {"containerPort": 80, "hostPort": draw(st.sampled_from([8080, 8080, 9090])), **address, **protocol}


def _apart(draw: st.DrawFn, spec: Json) -> None:
    labels = draw(st.sampled_from([TRAINER, TRAINER, {"app": "db"}]))
    term = _term(draw(st.sampled_from([HOST, HOST, ZONE])), labels)
    _affinities(spec)["podAntiAffinity"] = {REQUIRED: [term | draw(st.sampled_from(NAMESPACES + LABEL_KEYS))]}


def _together(draw: st.DrawFn, spec: Json) -> None:
    labels = draw(st.sampled_from([TRAINER, TRAINER, {"app": "web"}]))
    term = _term(draw(st.sampled_from([ZONE, ZONE, HOST])), labels)
    _affinities(spec)["podAffinity"] = {REQUIRED: [term | draw(st.sampled_from(NAMESPACES))]}


def _spread(draw: st.DrawFn, spec: Json) -> None:
    selected = draw(st.sampled_from([{"matchLabels": TRAINER}] * 6 + [{}, {"matchLabels": {"app": "db"}}]))
    by_zone, by_host = (
        {"maxSkew": draw(st.sampled_from([1, 1, 2])), "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule"}
        for key in (ZONE, HOST)
    )
    for one in (chosen := draw(st.sampled_from([[by_zone], [by_zone], [by_host], [by_zone, by_host]]))):
        one |= {"labelSelector": selected, **draw(st.sampled_from(SPREAD_POLICIES))}
    spec["topologySpreadConstraints"] = chosen


CONSTRAINTS: Final[Mapping[str, Callable[[st.DrawFn, Json], None]]] = {
    "node selector": _label,
    "node affinity": _affinity,
    "toleration": _toleration,
    "cpu": _amount("cpu", "2", "6", "12"),
    "memory": _amount("memory", "8Gi", "60Gi"),
    "ephemeral storage": _amount("ephemeral-storage", "5Gi", "50Gi"),
    "device": _amount(RDMA, "1", "2"),
    "init container": _init,
    "pod-level limit": _whole_pod,
    "overhead": _runtime,
    "host port": _host_port,
    "pod anti-affinity": _apart,
    "pod affinity": _together,
    "topology spread": _spread,
}
"""The kinds of hard constraints, each of which changes the spec of a pod."""


def _expressions(key: str, operator: str, *values: str) -> Json:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


def _required(key: str, labels: Mapping[str, str]) -> Json:
    return {REQUIRED: [_term(key, labels)]}


def _term(key: str, labels: Mapping[str, str]) -> Json:
    return {"topologyKey": key, "labelSelector": {"matchLabels": dict(labels)}}


def _affinities(spec: Json) -> Json:
    found: Json = spec.setdefault("affinity", {})
    return found


def _node_affinity(spec: Json) -> Json:
    found: Json = _affinities(spec).setdefault("nodeAffinity", {})
    return found
