"""One gang after another on an idle cluster: first placed pod by pod by kube-scheduler alone, then by muster.

kube-scheduler is the oracle in both directions: what muster admits it binds at the first try, and what it fits muster admits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.oracle.mix import LABELS, RUNTIME, Json, Roles, World

from muster.api import names
from muster.kube import paths
from muster_dev.local import processes
from muster_dev.local.cluster import LocalCluster
from muster_dev.local.waiting import WaitTimeout

SPACE = "oracle"
LOOKS = 40
"""How often a gang is looked at that muster leaves waiting, before that counts as its answer."""
NOW = ("--grace-period=0", "--force", "--ignore-not-found")
"""Pods that are deleted without waiting for their kubelet."""


@dataclass
class Tally:
    """What became of the gangs."""

    gangs: int = 0
    fitted: int = 0
    """Gangs all of whose pods kube-scheduler bound."""
    admitted: int = 0
    bound: int = 0
    """Of the admitted gangs, those that kube-scheduler bound as muster placed them, at the first try."""
    both: int = 0
    """Of the fitted gangs, those that muster admitted."""
    misses: list[str] = field(default_factory=list)
    """What was admitted and not bound, or fitted and not admitted, in words."""

    @property
    def bound_share(self) -> float:
        return self.bound / self.admitted if self.admitted else 1.0

    @property
    def admitted_share(self) -> float:
        return self.both / self.fitted if self.fitted else 1.0


class Undecided(Exception):
    """muster neither admits a gang nor says why it waits, or what it admitted neither runs nor is requeued."""


class Contest:
    """Gangs tried on a cluster on which muster runs, in a namespace of their own."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster, self._api = cluster, cluster.api
        self._number = 0
        self.tally = Tally()
        cluster.create_namespace(SPACE)
        self._api.create(f"{paths.NODE}/runtimeclasses", RUNTIME)

    def run(self, world: World) -> None:
        """Try every gang of a world."""
        with self._up(world):
            for gang in world.gangs:
                self._number += 1
                self._try(f"g{self._number}", gang)

    @contextmanager
    def _up(self, world: World) -> Iterator[None]:
        """Bring up the nodes and the pods of others, and take all away again."""
        self._cluster.add_nodes(world.nodes)
        for name in world.cordoned:
            self._cluster.kubectl("cordon", name)
        self._api.create_all(paths.pods(SPACE), world.residents)
        try:
            yield
        finally:
            self._clear()
            for node in world.nodes:
                self._api.delete(f"/api/v1/nodes/{node['metadata']['name']}")
            self._cluster.wait(lambda: not self._cluster.ready_nodes(), "the nodes are gone")

    def _try(self, name: str, gang: Roles) -> None:
        tally = self.tally
        tally.gangs += 1
        fits, refusal = self._by_kube_scheduler(name, gang)
        status = self._by_muster(name, gang)
        admitted = bool(status.get("attempt"))
        tally.fitted += fits
        tally.admitted += admitted
        tally.both += fits and admitted
        if admitted and status["phase"] == "Running" and status["attempt"] == 1:
            tally.bound += 1
        elif admitted:
            tally.misses.append(f"admitted, not bound: {_text(status)}: {gang}")
        elif fits:
            tally.misses.append(f"fits, not admitted: {_text(status)}: {gang} {refusal}")

    def _by_kube_scheduler(self, name: str, gang: Roles) -> tuple[bool, str]:
        """Whether kube-scheduler binds every pod, and the words with which it refuses one."""
        pods = [
            {
                "metadata": {"name": f"{name}-{role}-plain-{index}", "labels": LABELS},
                "spec": {**spec, "restartPolicy": "Never"},
            }
            for role, (size, spec) in gang.items()
            for index in range(size)
        ]
        for pod in pods:
            self._api.create(paths.pods(SPACE), pod)
        self._cluster.wait(lambda: all(map(_is_decided, self._trainers())), f"kube-scheduler has decided about {name}")
        refusals = [word for pod in self._trainers() if (word := _refusal(pod))]
        self._delete(self._trainers())
        return not refusals, refusals[0] if refusals else ""

    def _by_muster(self, name: str, gang: Roles) -> Json:
        """The status of a DLJob once its gang runs, has failed to, or is left waiting."""
        roles = {
            role: {"replicas": size, "template": {"metadata": {"labels": LABELS}, "spec": spec}}
            for role, (size, spec) in gang.items()
        }
        body = {"metadata": {"name": name}, "spec": {"rendezvous": "None", "roles": roles}}
        self._api.create(paths.dljobs(SPACE), {"apiVersion": names.API_VERSION, "kind": "DLJob", **body})
        looks = iter(range(LOOKS))

        def decided() -> bool:
            status = self._status(name)
            if status.get("attempt"):
                return status["attempt"] > 1 or status["phase"] in ("Running", "Queued")
            return status.get("phase") == "Queued" and _has_answer(status) and next(looks, None) is None

        try:
            self._cluster.wait(decided, f"muster has decided about {name}")
        except WaitTimeout as error:
            raise Undecided(self._told(name)) from error
        status = self._status(name)
        self._api.delete(paths.dljobs(SPACE, name), propagation="Background")
        self._delete(self._trainers())
        return status

    # Objects

    def _told(self, name: str) -> str:
        """All that the API server and the operator's log tell of a gang."""
        objects = {"DLJob": self._api.get(paths.dljobs(SPACE, name)), "pods": self._trainers()}
        return f"{json.dumps(objects)}\n{processes.tail(self._cluster.processes.logs / 'muster-operator.log')}"

    def _status(self, name: str) -> Json:
        found: Json = self._api.get(paths.dljobs(SPACE, name)).get("status") or {}
        return found

    def _trainers(self) -> list[Json]:
        found: list[Json] = self._api.get(f"{paths.pods(SPACE)}?labelSelector=app%3Dtrain")["items"]
        return found

    def _delete(self, pods: Sequence[Json]) -> None:
        if pods:
            names_of = [pod["metadata"]["name"] for pod in pods]
            self._cluster.kubectl("delete", "pod", "-n", SPACE, *names_of, *NOW)
        self._cluster.wait(lambda: not self._trainers(), "the gang's pods are gone")

    def _clear(self) -> None:
        self._cluster.kubectl("delete", "dljob,pod", "-n", SPACE, "--all", *NOW)
        self._cluster.wait(lambda: not self._api.get(paths.pods(SPACE))["items"], "the pods are gone")


def _condition(pod: Json) -> Json:
    conditions: list[Json] = pod.get("status", {}).get("conditions") or []
    return next((each for each in conditions if each["type"] == "PodScheduled"), {})


def _is_decided(pod: Json) -> bool:
    return bool(pod["spec"].get("nodeName") or _condition(pod).get("reason") == "Unschedulable")


def _refusal(pod: Json) -> str:
    return "" if pod["spec"].get("nodeName") else str(_condition(pod).get("message", ""))


def _has_answer(status: Json) -> bool:
    """Whether muster has said why the gang waits."""
    conditions: list[dict[str, Any]] = status.get("conditions") or []
    return any(each["type"] == "Admitted" and each["status"] == "False" for each in conditions)


def _text(status: Json) -> str:
    return f"{status.get('phase')}, {status.get('message')}"
