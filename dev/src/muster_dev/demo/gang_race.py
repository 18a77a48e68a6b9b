"""The rate at which gangs get their nodes, from the first create to the last bind, measured alike for every contestant.

A client creates the contestant's objects, all gangs at once, over the same number of connections for all; a watch records when
each pod is first seen with a node. Nodes are mere objects, so only the control plane and the contestant work. Times are in
seconds, as seen by the watch; CPU in seconds per process, user and system.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from muster.api import names
from muster.kube import paths
from muster.kube.client import Client
from muster.kube.errors import KubeError, NotFound
from muster.kube.objects import Meta, Struct, decoder
from muster.kube.reflector import Reflector
from muster.kube.store import Store
from muster_dev.local import nodes, proc, processes
from muster_dev.local.cluster import LocalCluster
from muster_dev.local.commands import Options
from muster_dev.local.errors import LocalError

GANGS: Final = 100
SIZE: Final = 20
NODES: Final = "dgx-a100:1000"
CONNECTIONS: Final = 32
TIMEOUT_SECONDS: Final = 300.0
AT_REST_CPU_SECONDS: Final = 0.15
"""The CPU time that all processes of an idle cluster use in a second, at most."""
NATIVE_API: Final = "scheduling.k8s.io/v1alpha2"
EVERY_NODE: Final = "every-node"
"""schedulerName of a profile of the default kube-scheduler that scores every node, as packing needs; by default it samples."""
_NAMESPACE: Final = "race"
_CONTAINER: Final = {"name": "train", "image": "train:1", "resources": {"limits": {names.GPU: "1"}}}

Submit = Callable[[Client, str, int, int], Awaitable[None]]
"""Creates one gang, given client, namespace, number and size."""


class TooSlow(LocalError):
    """Some pods had no node at the deadline."""


@dataclass(frozen=True)
class Race:
    """The result of one contestant."""

    contestant: str
    pods: int
    seconds: float
    """From the first create to the last bind."""
    cpu_seconds: dict[str, float]
    """CPU seconds used in that time, by process of the cluster."""

    @property
    def pods_per_second(self) -> float:
        return self.pods / self.seconds


class _Pod(Struct, frozen=True):
    metadata: Meta
    spec: _Spec


class _Spec(Struct, frozen=True):
    node_name: str | None = None


_decode_pod: Final = msgspec.json.Decoder(_Pod).decode


def options() -> Options:
    """Return the options of a cluster for races: native gang scheduling is on, and nodes stay Ready without renewals."""
    return Options(
        feature_gates={"GenericWorkload": True, "GangScheduling": True},
        runtime_config={NATIVE_API: True},
        profiles=({"schedulerName": EVERY_NODE, "percentageOfNodesToScore": 100},),
        node_grace_seconds=24 * 3600,
    )


def add_nodes(cluster: LocalCluster, text: str = NODES) -> None:
    """Add mere Node objects that are declared Ready, and wait until they take pods."""
    cluster.add_nodes(nodes.manifests(text, kwok=False))


def wait_for_agents(cluster: LocalCluster) -> None:
    """Wait until the agents have published the topology of every node, so that they idle during the race."""

    def all_known() -> bool:
        items = cluster.api.get("/api/v1/nodes?resourceVersion=0")["items"]
        return all(names.TOPOLOGY in item["metadata"].get("annotations", {}) for item in items)

    cluster.wait(all_known, "the agents have published every node's topology")


def wait_for_rest(cluster: LocalCluster) -> None:
    """Wait until the cluster's processes are idle, having read what they need at their start."""
    for _ in range(60):
        before = sum(_cpu(cluster).values())
        time.sleep(1.0)
        if sum(_cpu(cluster).values()) - before < AT_REST_CPU_SECONDS:
            return


def race_muster(cluster: LocalCluster, gangs: int = GANGS, size: int = SIZE) -> Race:
    """Measure muster: one DLJob per gang."""
    return race(cluster, "muster", submit_dljob, gangs, size)


def race_native(cluster: LocalCluster, gangs: int = GANGS, size: int = SIZE) -> Race:
    """Measure kube-scheduler's own gang scheduling: one PodGroup per gang, then its pods."""
    return race(cluster, "native", submit_pod_group, gangs, size)


def race_native_every_node(cluster: LocalCluster, gangs: int = GANGS, size: int = SIZE) -> Race:
    """Measure the same with every node scored."""
    return race(cluster, "native-every-node", partial(submit_pod_group, scheduler=EVERY_NODE), gangs, size)


def race(cluster: LocalCluster, contestant: str, submit: Submit, gangs: int, size: int) -> Race:
    """Let a contestant start `gangs` gangs of `size` 1-GPU pods, delete them again, and return the result.

    Raises TooSlow if some pods have no node after TIMEOUT_SECONDS, LocalError if an object is refused.
    """
    namespace = f"{_NAMESPACE}-{contestant}"
    cluster.create_namespace(namespace)
    before = _cpu(cluster)
    try:
        seconds = asyncio.run(_timed(str(cluster.kubeconfig), namespace, submit, gangs, size))
    except KubeError as error:
        raise LocalError(f"the race of {contestant} could not be run: {error}") from error
    except TooSlow:
        asyncio.run(_clear(str(cluster.kubeconfig), namespace))
        raise
    used = {name: spent - before.get(name, 0.0) for name, spent in _cpu(cluster).items()}
    asyncio.run(_clear(str(cluster.kubeconfig), namespace))
    return Race(contestant, gangs * size, seconds, used)


async def submit_dljob(client: Client, namespace: str, gang: int, size: int) -> None:
    """Create one gang as a DLJob."""
    template = {"spec": {"containers": [_CONTAINER]}}
    await client.create(
        paths.dljobs(namespace),
        {
            "apiVersion": names.API_VERSION,
            "kind": "DLJob",
            "metadata": {"name": f"gang-{gang}"},
            "spec": {"rendezvous": "None", "roles": {"worker": {"replicas": size, "template": template}}},
        },
    )


async def submit_pod_group(client: Client, namespace: str, gang: int, size: int, scheduler: str = "default-scheduler") -> None:
    """Create one gang as a PodGroup of scheduling.k8s.io/v1alpha2 and the pods that name it."""
    name = f"gang-{gang}"
    group = {
        "apiVersion": NATIVE_API,
        "kind": "PodGroup",
        "metadata": {"name": name},
        "spec": {"schedulingPolicy": {"gang": {"minCount": size}}},
    }
    await client.create(f"/apis/{NATIVE_API}/namespaces/{namespace}/podgroups", group)
    spec = {"schedulerName": scheduler, "schedulingGroup": {"podGroupName": name}}
    await create_pods(client, namespace, gang, size, spec)


async def create_pods(client: Client, namespace: str, gang: int, size: int, spec: dict[str, Any]) -> None:
    """Create the pods of one gang at once, each a 1-GPU pod with `spec` added."""
    bodies = [pod(f"gang-{gang}-{index}", spec) for index in range(size)]
    await asyncio.gather(*(client.create(paths.pods(namespace), body) for body in bodies))


def pod(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return a 1-GPU pod with `spec` added."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [_CONTAINER], **spec}}


async def _timed(kubeconfig: str, namespace: str, submit: Submit, gangs: int, size: int) -> float:
    async with await Client.connect(kubeconfig, connections=CONNECTIONS) as client:
        bound = _Bound(gangs * size)
        watching = asyncio.create_task(Reflector(client, paths.pods(namespace), decoder(_Pod), bound.pods).run())
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await bound.pods.synced.wait()
                begun = time.perf_counter()
                await asyncio.gather(*(submit(client, namespace, gang, size) for gang in range(gangs)), bound.all.wait())
        except TimeoutError:
            raise TooSlow(f"{len(bound.names)} of {gangs * size} pods had a node after {TIMEOUT_SECONDS:.0f} s") from None
        finally:
            watching.cancel()
    return bound.last - begun


class _Bound:
    """The pods that were seen with a node; the event `all` is set when their number is as expected."""

    def __init__(self, expected: int) -> None:
        self.pods: Store[_Pod] = Store()
        self.names: set[str] = set()
        self.all = asyncio.Event()
        self.last = 0.0
        self._expected = expected
        self.pods.subscribe(self._changed)

    def _changed(self, _: _Pod | None, new: _Pod | None) -> None:
        if new is None or not new.spec.node_name or new.metadata.name in self.names:
            return
        self.names.add(new.metadata.name)
        self.last = time.perf_counter()
        if len(self.names) == self._expected:
            self.all.set()


async def _clear(kubeconfig: str, namespace: str) -> None:
    """Delete the objects of a race, pods without a grace period: no kubelet would confirm their end."""
    async with await Client.connect(kubeconfig, connections=CONNECTIONS) as client:
        for path in (paths.dljobs(namespace), f"/apis/{NATIVE_API}/namespaces/{namespace}/podgroups"):
            with suppress(NotFound):  # muster or the alpha API is not installed
                await client.delete(path, propagation="Background")
        while left := (await client.list(paths.pods(namespace))).items:
            # Concurrent requests: to delete a collection, the API server deletes its objects one after the other.
            await asyncio.gather(*(_delete_pod(client, namespace, _decode_pod(raw).metadata.name) for raw in left))
        await client.delete(paths.namespaces(namespace))


async def _delete_pod(client: Client, namespace: str, name: str) -> None:
    with suppress(NotFound):
        await client.delete(paths.pods(namespace, name), grace_seconds=0)


def _cpu(cluster: LocalCluster) -> dict[str, float]:
    listed = processes.recorded(cluster.directory)[1]
    return {process.name: proc.cpu_seconds(process.pid) for process in listed}
