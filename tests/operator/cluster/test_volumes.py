"""Volumes on a real control plane: what muster admits starts at the first try, and nobody pays for what cannot start."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from builders.live import POOL, Json, Live
from builders.storage import HOST, WAITS, ZONE, at
from muster.kube import paths
from muster.kube.objects.volume import SELECTED_NODE

pytestmark = pytest.mark.cluster
VOLUMES, CLASSES = f"{paths.CORE}/persistentvolumes", f"{paths.STORAGE}/storageclasses"
MODES = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
FIRST_TRY = ["Queued", "Admitted", "Running"]
Put = Callable[[str, Json], Json]


@pytest.fixture
def put(live: Live) -> Iterator[Put]:
    """Create a volume or a class of storage; it is deleted after the test."""
    made: list[str] = []

    def put(collection: str, body: Json) -> Json:
        made.append(f"{collection}/{body['metadata']['name']}")
        found: Json = live.cluster.api.create(collection, body)
        return found

    yield put
    live.clear()
    for path in made:
        live.cluster.api.delete(path)


def volume(live: Live, name: str, where: Json, storage_class: str = "", claim: str = "") -> Json:
    """A volume of 1 GiB that can be mounted in one place, made for a claim if that is named."""
    named = {"claimRef": {"namespace": live.namespace, "name": claim}} if claim else {}
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": storage_class}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{live.namespace}-{name}"},
        "spec": {**spec, "local": {"path": "/data"}, "nodeAffinity": where, **named},
    }


def storage_class(live: Live, provisioner: str, zones: list[str]) -> Json:
    terms = [{"matchLabelExpressions": [{"key": ZONE, "values": zones}]}] if zones else None
    meta = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": live.namespace}}
    return {**meta, "provisioner": provisioner, "volumeBindingMode": WAITS, "allowedTopologies": terms}


def claim(live: Live, storage_class: str = "") -> None:
    spec = {**MODES, "storageClassName": storage_class}
    live.create("persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": spec})


def using(name: str = "data") -> list[Json]:
    return [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]


def test_gang_starts_on_the_only_node_that_can_mount_its_volume(live: Live, put: Put) -> None:
    put(VOLUMES, volume(live, "data", at(HOST, "pcie-8-1"), claim="data"))
    claim(live)
    live.job("reads", 2, 2, volumes=using())
    live.wait_running("reads", 2)
    assert live.nodes_of("reads") == {"pcie-8-1"}
    assert live.timeline("reads") == FIRST_TRY


def test_gang_starts_where_a_free_volume_is(live: Live, put: Put) -> None:
    put(CLASSES, storage_class(live, "kubernetes.io/no-provisioner", []))
    put(VOLUMES, volume(live, "data", at(HOST, "pcie-8-1"), storage_class=live.namespace))
    claim(live, live.namespace)
    live.job("reads", 2, 2, volumes=using())
    live.wait_running("reads", 2)
    assert live.nodes_of("reads") == {"pcie-8-1"}
    assert live.timeline("reads") == FIRST_TRY


def test_gang_starts_in_a_zone_in_which_its_class_makes_volumes(live: Live, put: Put) -> None:
    for node, zone in zip(live.add_nodes(2), ("a", "b"), strict=True):
        live.cluster.api.patch(f"{paths.nodes()}/{node}", {"metadata": {"labels": {ZONE: zone}}})
    put(CLASSES, storage_class(live, "example.com/disks", ["b"]))
    claim(live, live.namespace)
    live.job("writes", 2, 2, volumes=using(), pool=live.namespace)

    def selected() -> str:
        return str(live.get("persistentvolumeclaims", "data")["metadata"].get("annotations", {}).get(SELECTED_NODE, ""))

    live.wait(selected, "kube-scheduler has the volume made")
    assert selected() == live.added[1]
    put(VOLUMES, volume(live, "made", at(ZONE, "b"), storage_class=live.namespace, claim="data"))
    live.wait_running("writes", 2)
    assert live.nodes_of("writes") == {live.added[1]}
    assert live.timeline("writes") == FIRST_TRY


def test_gang_without_its_claim_preempts_nobody_until_that_comes(live: Live, put: Put) -> None:
    live.add_nodes(1)
    for name in ("low", "lower"):
        live.job(name, 1, 4, nodeSelector={POOL: live.namespace})
        live.wait_running(name, 1)
    live.job("high", 1, 8, volumes=using(), nodeSelector={POOL: live.namespace}, priority=100)
    assert live.wait_reason("high", "NotFound") == "needs the PersistentVolumeClaim data, which does not exist"
    assert [live.timeline(name) for name in ("low", "lower")] == [FIRST_TRY, FIRST_TRY]
    put(VOLUMES, volume(live, "data", at(HOST, live.added[0]), claim="data"))
    claim(live)
    live.wait_running("high", 1)
    assert "Preempted" in live.timeline("low")
    assert live.timeline("high") == FIRST_TRY
