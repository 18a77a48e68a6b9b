"""Volumes: a gang waits for claims that it cannot have yet, and goes where those that it has can be reached."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from builders.dljobs import Json
from builders.operator_harness import SPACE, OperatorHarness
from builders.storage import CLAIMS, HOST, WAITS, ZONE, at, put_claim, put_class, put_volume, using
from muster.api import names
from muster.kube import paths
from muster.kube.objects import ClaimSpec, Volume
from muster.kube.objects.volume import VolumeMeta, VolumeSpec
from muster.scheduling.topology.eligibility import Requirement
from muster_operator.dljob.gang import resources_of
from muster_operator.storage import catalogue
from muster_operator.storage.catalogue import StorageCatalogue
from muster_operator.storage.places import MOST_PLACES, either, matches
from muster_operator.stores import Stores

Cluster = Callable[[OperatorHarness], object]


@pytest.fixture
def zoned(harness: OperatorHarness) -> OperatorHarness:
    """A harness with two nodes in two zones, whose names are their host names."""
    harness.node("n1", labels={HOST: "n1", ZONE: "a"})
    harness.node("n2", labels={HOST: "n2", ZONE: "b"})
    return harness


def nodes_of(harness: OperatorHarness, name: str = "vgg16") -> set[str]:
    return {place["node"] for place in harness.status(name).get("placement") or ()}


def put_all(*makers: Cluster) -> Cluster:
    return lambda harness: [make(harness) for make in makers]


# What keeps a gang from starting


@pytest.mark.parametrize(
    ("cluster", "sentence"),
    [
        (lambda _: None, "needs the PersistentVolumeClaim data, which does not exist"),
        (
            lambda h: put_claim(h),
            "needs the PersistentVolumeClaim data, which is not bound: its StorageClass fast does not exist",
        ),
        (lambda h: put_claim(h, storage_class=None), "needs the PersistentVolumeClaim data, which is not bound yet"),
        (
            put_all(lambda h: put_class(h, mode="Immediate"), put_claim),
            "needs the PersistentVolumeClaim data, which is not bound yet",
        ),
        (
            put_all(put_class, lambda h: put_claim(h, volume="pv", phase="Pending")),
            "needs the PersistentVolumeClaim data, which is not bound yet",
        ),
        (
            lambda h: put_claim(h, volume="pv", phase="Lost"),
            "needs the PersistentVolumeClaim data, whose PersistentVolume is lost",
        ),
        (
            lambda h: put_claim(h, volume="pv"),
            "needs the PersistentVolumeClaim data, whose PersistentVolume pv does not exist",
        ),
        (
            put_all(put_volume, lambda h: put_claim(h, volume="pv", deletionTimestamp="2027-01-15T08:00:00Z")),
            "needs the PersistentVolumeClaim data, which is being deleted",
        ),
        (
            put_all(lambda h: put_class(h, provisioner="kubernetes.io/no-provisioner"), put_claim),
            "needs a PersistentVolume for the PersistentVolumeClaim data: none of StorageClass fast is free that matches it",
        ),
    ],
)
async def test_gang_whose_claim_cannot_be_had_waits_and_preempts_nobody(
    harness: OperatorHarness, cluster: Cluster, sentence: str
) -> None:
    harness.submit("low")
    harness.submit("low-2")
    await harness.turn(3)
    cluster(harness)
    harness.submit("high", priority=5, roles=using("data", workers=2))
    await harness.turn(3)
    assert harness.admitted("high") == ("NotFound", sentence)
    assert {harness.status(name)["phase"] for name in ("low", "low-2")} == {"Admitted"}


async def test_gang_is_planned_at_once_when_its_claim_is_bound(harness: OperatorHarness) -> None:
    put_volume(harness, phase="Bound")
    harness.submit(roles=using("data"))
    await harness.turn(3)
    assert harness.admitted() == ("NotFound", "needs the PersistentVolumeClaim data, which does not exist")
    for change in (put_claim, lambda h: put_class(h, mode="Immediate"), lambda h: put_claim(h, volume="pv")):
        harness.work_queue.begin_plan()
        change(harness)
        harness.sync()
        assert harness.work_queue.plan_at == 0.0
        await harness.turn()
    assert harness.status()["phase"] == "Admitted"


async def test_claims_that_no_gang_uses_lead_to_no_plan(harness: OperatorHarness) -> None:
    harness.submit(roles=using("data"))
    await harness.turn(3)
    harness.work_queue.begin_plan()
    put_claim(harness, "other", volume="pv")
    put_volume(harness)
    harness.sync()
    assert harness.work_queue.plan_at != 0.0


async def test_gang_that_runs_outlives_its_claim(zoned: OperatorHarness) -> None:
    put_volume(zoned)
    put_claim(zoned, volume="pv")
    zoned.submit(roles=using("data"))
    await zoned.turn(3)
    zoned.run_pods()
    await zoned.turn(2)
    zoned.server.drop(f"{CLAIMS}/data")
    await zoned.turn(3)
    assert zoned.status()["phase"] == "Running"


async def test_claim_of_a_single_pod_is_no_claim_of_two(harness: OperatorHarness) -> None:
    put_volume(harness)
    put_claim(harness, volume="pv", modes=("ReadWriteOncePod",))
    harness.submit(roles=using("data", workers=2))
    await harness.turn(3)
    assert harness.admitted() == (
        "NotFound",
        "2 of its pods use the PersistentVolumeClaim data, and ReadWriteOncePod lets only one",
    )


async def test_claim_of_a_single_pod_is_waited_for_until_its_pod_has_ended(harness: OperatorHarness) -> None:
    put_volume(harness)
    put_claim(harness, volume="pv", modes=("ReadWriteOncePod",))
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]
    harness.pod("notebook", 0, gated=False, spec={"volumes": volumes}, node="n1")
    harness.submit(roles=using("data"))
    await harness.turn(3)
    sentence = "needs the PersistentVolumeClaim data, which pod notebook uses, and ReadWriteOncePod lets no other"
    assert harness.admitted() == ("NotFound", sentence)
    harness.change(paths.pods(SPACE, "notebook"), status={"phase": "Succeeded"})
    await harness.turn(2)
    assert harness.status()["phase"] == "Admitted"


async def test_gang_that_runs_with_its_claim_is_bound_to_where_it_can_be_reached(zoned: OperatorHarness) -> None:
    """Its own pod uses the claim, which is no reason to move it to where the volume cannot be reached."""
    put_volume(zoned, where=at(HOST, "n2"), phase="Bound")
    put_claim(zoned, volume="pv", modes=("ReadWriteOncePod",))
    zoned.submit(roles=using("data"))
    await zoned.turn(3)
    zoned.run_pods()
    zoned.change(paths.dljobs(SPACE, "vgg16"), metadata={"annotations": {names.MIGRATE: ""}})
    await zoned.turn(4)
    assert (zoned.status()["phase"], nodes_of(zoned)) == ("Running", {"n2"})


# Where a gang may go


@pytest.mark.parametrize(
    "cluster",
    [
        put_all(lambda h: put_volume(h, where=at(HOST, "n2"), phase="Bound"), lambda h: put_claim(h, volume="pv")),
        put_all(lambda h: put_volume(h, where=at(ZONE, "b", "c"), phase="Bound"), lambda h: put_claim(h, volume="pv")),
        put_all(lambda h: put_volume(h, labels={ZONE: "b__c"}, phase="Bound"), lambda h: put_claim(h, volume="pv")),
        put_all(lambda h: put_class(h, zones=("b",)), put_claim),
        put_all(put_class, lambda h: put_claim(h, node="n2")),
        put_all(
            lambda h: put_class(h, provisioner="kubernetes.io/no-provisioner"),
            lambda h: put_volume(h, "small", where=at(HOST, "n1"), capacity={"storage": "9Gi"}),
            lambda h: put_volume(h, "once", where=at(HOST, "n1"), accessModes=["ReadWriteOnce"]),
            lambda h: put_volume(h, "block", where=at(HOST, "n1"), volumeMode="Block"),
            lambda h: put_volume(h, "slow", where=at(HOST, "n1"), storage_class="slow"),
            lambda h: put_volume(h, "used", where=at(HOST, "n1"), phase="Released"),
            lambda h: put_volume(h, "others", where=at(HOST, "n1"), claimRef={"namespace": SPACE, "name": "other"}),
            lambda h: put_volume(h, "fits", where=at(HOST, "n2")),
            put_claim,
        ),
        put_all(
            lambda h: put_class(h, provisioner="kubernetes.io/no-provisioner"),
            lambda h: put_volume(h, "free", where=at(HOST, "n1")),
            lambda h: put_volume(h, "own", where=at(HOST, "n2"), claimRef={"namespace": SPACE, "name": "data"}),
            put_claim,
        ),
        put_all(
            lambda h: put_class(h, provisioner="kubernetes.io/no-provisioner"),
            lambda h: put_volume(h, "free", where=at(HOST, "n1")),
            lambda h: put_volume(h, "chosen", where=at(HOST, "n2"), labels={"set": "imagenet"}),
            lambda h: put_claim(h, spec={"selector": {"matchLabels": {"set": "imagenet"}}}),
        ),
        put_all(
            lambda h: put_class(h, zones=("x",)),
            lambda h: put_volume(h, where=at(HOST, "n2")),
            put_claim,
        ),
        put_all(
            lambda h: put_class(h, zones=("b",), annotations={"storageclass.kubernetes.io/is-default-class": "true"}),
            lambda h: put_claim(h, storage_class=None),
        ),
    ],
    ids=[
        *("host", "zones", "zone labels", "class topology", "selected node", "matching volume", "prebound", "selector"),
        *("free volume elsewhere", "default class"),
    ],
)
async def test_gang_goes_where_its_volume_can_be_reached(zoned: OperatorHarness, cluster: Cluster) -> None:
    cluster(zoned)
    zoned.submit(roles=using("data"))
    zoned.pod("bare", spec={"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]})
    await zoned.turn(3)
    assert nodes_of(zoned) == {"n2"}
    assert zoned.metadata("bare")["annotations"][names.GPUS]
    affinity = zoned.server.objects[paths.pods(SPACE, "bare")]["spec"]["affinity"]
    assert "n2" in str(affinity)
    assert "n1" not in str(affinity)


@pytest.mark.parametrize(
    "cluster",
    [
        put_all(lambda h: put_volume(h, phase="Bound"), lambda h: put_claim(h, volume="pv")),
        put_all(put_class, put_claim),
        put_all(put_class, lambda h: put_volume(h, where=at(HOST, "n2")), put_claim),
        put_all(lambda h: put_class(h, zones=("b",)), put_volume, put_claim),
    ],
    ids=["bound", "made anywhere", "made anywhere or free", "free anywhere"],
)
async def test_volume_that_can_be_reached_from_everywhere_is_no_condition(zoned: OperatorHarness, cluster: Cluster) -> None:
    cluster(zoned)
    zoned.submit(roles=using("data", workers=2, gpus=4))
    await zoned.turn(3)
    assert nodes_of(zoned) == {"n1", "n2"}


async def test_zone_of_a_volume_concerns_no_node_outside_of_zones(harness: OperatorHarness) -> None:
    put_volume(harness, labels={ZONE: "b"}, phase="Bound")
    put_claim(harness, volume="pv")
    harness.submit(roles=using("data"))
    await harness.turn(3)
    assert nodes_of(harness) == {"n1"}


async def test_volumes_of_a_gang_have_to_be_reached_together(zoned: OperatorHarness) -> None:
    for name, node in (("one", "n1"), ("two", "n2")):
        put_volume(zoned, name, where=at(HOST, node), phase="Bound")
        put_claim(zoned, name, volume=name)
    zoned.submit(roles=using("one", "two"))
    await zoned.turn(3)
    assert zoned.admitted()[0] == "NeverFits"


async def test_gang_that_waits_follows_its_claim_to_where_it_was_bound(zoned: OperatorHarness) -> None:
    put_class(zoned)
    put_claim(zoned)
    zoned.submit("low", roles=using(gpus=4, workers=2))
    await zoned.turn(3)
    zoned.submit(roles=using("data"))
    await zoned.turn(3)
    assert zoned.admitted()[0] == "InsufficientGPUs"
    put_volume(zoned, where=at(HOST, "n2"), phase="Bound")
    put_claim(zoned, volume="pv")
    zoned.server.drop(paths.dljobs(SPACE, "low"))
    for pod in zoned.pods():
        zoned.server.drop(paths.pods(SPACE, pod))
    await zoned.turn(3)
    assert nodes_of(zoned) == {"n2"}


# Claims that are made with a pod


@pytest.mark.parametrize("mode", [WAITS, "Immediate"])
async def test_claim_that_is_made_with_a_pod_goes_where_its_class_allows(zoned: OperatorHarness, mode: str) -> None:
    put_class(zoned, mode=mode, zones=("b",))
    zoned.submit(roles=using(ephemeral={"storageClassName": "fast"}))
    await zoned.turn(3)
    assert nodes_of(zoned) == {"n2"}


async def test_claim_that_is_made_with_a_pod_needs_its_class(zoned: OperatorHarness) -> None:
    zoned.submit(roles=using(ephemeral={"storageClassName": "fast"}))
    await zoned.turn(3)
    assert zoned.admitted() == ("NotFound", "needs the StorageClass fast, which does not exist")
    put_class(zoned)
    await zoned.turn(2)
    assert zoned.status()["phase"] == "Admitted"


async def test_bare_pod_waits_for_its_own_claim(zoned: OperatorHarness) -> None:
    """The claim of a pod that exists is there as soon as Kubernetes has made it, under the pod's name."""
    put_class(zoned, mode="Immediate")
    template: Json = {"spec": {"storageClassName": "fast"}}
    needs = "needs the PersistentVolumeClaim bare-scratch"
    zoned.pod("bare", spec={"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]})
    put_claim(zoned, "bare-scratch")
    await zoned.turn(2)
    assert zoned.metadata("bare")["annotations"][names.WAITING] == f"{needs}, which is not bound yet"
    put_claim(zoned, "bare-scratch", phase="Lost", volume="pv")
    await zoned.turn(2, seconds=1)
    assert zoned.metadata("bare")["annotations"][names.WAITING] == f"{needs}, whose PersistentVolume is lost"
    put_volume(zoned, where=at(HOST, "n2"), phase="Bound")
    put_claim(zoned, "bare-scratch", volume="pv")
    await zoned.turn(2)
    assert "n2" in str(zoned.server.objects[paths.pods(SPACE, "bare")]["spec"]["affinity"])


# Many of them


def test_free_volumes_are_compared_once_with_claims_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after one of them has changed: 10,000 claims and volumes would take minutes otherwise."""
    compared: list[str] = []

    def counted(spec: ClaimSpec, volume: Volume) -> bool:
        compared.append(volume.metadata.name)
        return matches(spec, volume)

    monkeypatch.setattr(catalogue, "matches", counted)
    found = StorageCatalogue(Stores(resources_of), lambda _: None)
    spec = ClaimSpec(storage_class_name="fast")
    for number in range(50):
        found.volumes.put(volume(f"pv-{number}", "1"))
    for version in ("2", "3"):
        compared.clear()
        found.volumes.put(volume("pv-7", version))
        places = {found.free("fast", spec) for _ in range(50)}
        assert len(compared) == 50
        assert places == {((Requirement(HOST, "In", tuple(sorted(f"pv-{number}" for number in range(50)))),),)}


def test_too_many_places_are_no_condition() -> None:
    each = [((Requirement(HOST, "In", (f"n{number}",)),),) for number in range(MOST_PLACES + 1)]
    assert either(*each) is None
    assert either(*each[1:]) is not None


def volume(name: str, version: str) -> Volume:
    """A free volume on the node of its name."""
    meta = VolumeMeta(name=name, resource_version=version)
    spec = msgspec.convert({"storageClassName": "fast", "nodeAffinity": at(HOST, name)}, VolumeSpec)
    return Volume(meta, spec)
