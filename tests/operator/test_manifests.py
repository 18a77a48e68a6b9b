"""The pods and the Service of a gang: what muster adds to a template, and what it leaves alone."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.dljobs import Json, job, placed, roles, template
from muster.allocation.pods import pinned_to
from muster.api import names
from muster.kube.objects import Pod
from muster_operator.dljob import manifests
from muster_operator.dljob.manifests import ANNOTATIONS_VOLUME
from muster_operator.dljob.rendezvous import MOUNT
from muster_operator.pinning import pinned, unpinned, without_min_domains

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
OWNER = {
    "apiVersion": "muster.dev/v1alpha1",
    "kind": "DLJob",
    "name": "vgg16",
    "uid": "uid-vgg16",
    "controller": True,
    "blockOwnerDeletion": True,
}
ITSELF = {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}
OWN_MOUNT = {"name": ANNOTATIONS_VOLUME, "mountPath": MOUNT, "readOnly": True}


def pod(index: int = 0, **fields: Any) -> Json:
    """The manifest of one pod of a job placed on n1 and n2."""
    gang = placed(job(**fields))
    me = gang.status.placement[index]
    return manifests.pod(gang, me, gang.status.placement, fields.get("roles", roles())[me.role]["template"])


def worker(**container: Any) -> Json:
    """Roles of two workers whose container has these fields."""
    one = template()
    one["spec"]["containers"][0] |= container
    return {"worker": {"replicas": 2, "template": one}}


def pin(node: str) -> Json:
    return {"key": "metadata.name", "operator": "In", "values": [node]}


def test_pod_has_owner_rank_gpus_and_pin() -> None:
    body = pod(1, roles=roles(workers=2))
    assert body["metadata"] == {
        "name": "vgg16-worker-1",
        "namespace": "vision",
        "labels": {names.JOB: "vgg16", names.QUEUE: "default", names.ROLE: "worker", names.INDEX: "1"},
        "annotations": {names.RANK: "1", names.ATTEMPT: "1", names.GPUS: "0,1"},
        "ownerReferences": [OWNER],
    }
    spec = body["spec"]
    assert (spec["schedulerName"], spec["restartPolicy"], spec["hostname"]) == ("muster", "Never", "vgg16-worker-1")
    assert (spec["subdomain"], "priorityClassName" in spec, "nodeName" in spec) == ("vgg16", False, False)
    assert spec["affinity"] == {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": [pin("n2")]}]}}}
    assert pinned_to(msgspec.convert(json.loads(json.dumps(body)), Pod).spec) == "n2"


@st.composite
def affinities(draw: st.DrawFn) -> Json:
    """Affinities without an empty part, as `unpinned` gives them."""
    field = st.sampled_from([pin("n1"), pin("n2"), {"key": "metadata.name", "operator": "NotIn", "values": ["n3"]}])
    label = st.sampled_from([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "In", "values": ["c"]}])
    parts = {
        "matchExpressions": st.lists(label, min_size=1, max_size=2),
        "matchFields": st.lists(field, min_size=1, max_size=2),
    }
    term = st.fixed_dictionaries({}, optional=parts).filter(bool)
    required = st.builds(lambda terms: {"nodeSelectorTerms": terms}, st.lists(term, min_size=1, max_size=3))
    node = st.fixed_dictionaries({}, optional={REQUIRED: required, "preferred": st.just([1])}).filter(bool)
    found: Json = draw(st.fixed_dictionaries({}, optional={"nodeAffinity": node, "podAffinity": st.just({"x": 1})}))
    return found


@given(affinities())
def test_unpinning_restores_the_affinity(affinity: Json) -> None:
    before = json.dumps(affinity)
    assert unpinned(pinned(affinity, "n1")) == (affinity or None)
    assert json.dumps(affinity) == before


def test_pod_without_gpus_has_no_gpu_annotation() -> None:
    body = pod(0, roles=roles(chief=1), rendezvous="MPI")
    assert body["metadata"]["labels"][names.ROLE] == "chief"
    assert names.GPUS not in body["metadata"]["annotations"]


def test_template_metadata_stays_but_cannot_override_musters() -> None:
    one = template() | {
        "metadata": {
            "labels": {"team": "a", names.JOB: "other"},
            "annotations": {"note": "b", names.GPUS: "7", names.RANK: "9"},
        }
    }
    found = pod(roles={"worker": {"replicas": 1, "template": one}})["metadata"]
    assert found["labels"] == {"team": "a", names.JOB: "vgg16", names.QUEUE: "default", names.ROLE: "worker", names.INDEX: "0"}
    assert found["annotations"] == {"note": "b", names.RANK: "0", names.ATTEMPT: "1", names.GPUS: "0,1"}


def test_unknown_fields_of_a_template_pass_through() -> None:
    odd: Json = {
        "tolerations": [{"key": "a"}],
        "resourceClaims": [{"name": "c"}],
        "restartPolicy": "OnFailure",
        "hostIPC": True,
    }
    one = template(**odd)
    one["spec"]["containers"][0]["livenessProbe"] = {"exec": {"command": ["true"]}}
    one["spec"]["initContainers"] = [{"name": "fetch", "image": "x"}]
    spec = pod(roles={"worker": {"replicas": 1, "template": one}})["spec"]
    assert {key: spec[key] for key in odd} == odd
    assert [each["name"] for each in spec["initContainers"]] == ["fetch"]
    assert spec["containers"][0]["livenessProbe"] == {"exec": {"command": ["true"]}}


def test_priority_class_reaches_kube_scheduler() -> None:
    assert pod(priorityClassName="urgent")["spec"]["priorityClassName"] == "urgent"


def test_template_itself_is_not_changed() -> None:
    asked = worker(env=[{"name": "A", "value": "b"}])
    before = json.dumps(asked)
    for index in range(2):
        pod(index, roles=asked)
    assert json.dumps(asked) == before


# The containers


def test_users_variables_take_precedence() -> None:
    mine = [{"name": "MASTER_PORT", "value": "1"}, {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    env = pod(roles=worker(env=mine))["spec"]["containers"][0]["env"]
    assert env[-2:] == mine
    assert [entry["name"] for entry in env].count("MASTER_PORT") == 1
    assert {"name": "MUSTER_RANK", "value": "0"} in env


def test_every_container_gets_the_variables() -> None:
    one = template(initContainers=[{"name": "wait", "image": "x"}, {"name": "upload", "image": "x", "restartPolicy": "Always"}])
    one["spec"]["containers"].append({"name": "logs", "image": "x"})
    spec = pod(roles={"worker": {"replicas": 1, "template": one}})["spec"]
    containers: list[Json] = [*spec["containers"], *spec["initContainers"]]
    first, others = containers[0], containers[1:]
    assert [each["name"] for each in others] == ["logs", "wait", "upload"]
    for each in others:
        assert first["env"] == each["env"]
        assert first["volumeMounts"] == each["volumeMounts"] == [OWN_MOUNT]


def test_pod_in_the_network_of_its_node_knows_the_names_of_its_gang() -> None:
    def policy(**spec: Any) -> Any:
        return pod(roles={"worker": {"replicas": 2, "template": template(**spec)}})["spec"].get("dnsPolicy")

    assert policy(hostNetwork=True) == "ClusterFirstWithHostNet"
    assert policy(hostNetwork=True, dnsPolicy="Default") == "Default"
    assert policy() is None


@pytest.mark.parametrize(
    ("path", "both"), [("/data", True), ("/etc", True), ("/etc/muster/x", True), (MOUNT, False), (f"{MOUNT}/", False)]
)
def test_users_mounts_take_precedence(path: str, both: bool) -> None:
    mine = {"name": "data", "mountPath": path}
    spec = pod(roles=worker(volumeMounts=[mine]))["spec"]
    assert spec["containers"][0]["volumeMounts"] == [mine, *([OWN_MOUNT] if both else [])]


# The downward API


def test_pod_can_read_its_own_annotations() -> None:
    volume = {"name": "data", "emptyDir": {}}
    spec = pod(roles={"worker": {"replicas": 1, "template": template(volumes=[volume])}})["spec"]
    assert spec["volumes"] == [volume, {"name": ANNOTATIONS_VOLUME, "downwardAPI": {"items": [ITSELF]}}]


def test_hostfile_of_an_mpi_job_comes_by_the_downward_api() -> None:
    body = pod(1, rendezvous="MPI", roles=roles(chief=1))
    text = "vgg16-worker-0.vgg16.vision.svc slots=2\nvgg16-worker-1.vgg16.vision.svc slots=2\n"
    assert body["metadata"]["annotations"][names.HOSTFILE] == text
    item = {"path": "hostfile", "fieldRef": {"fieldPath": "metadata.annotations['muster.dev/hostfile']"}}
    assert body["spec"]["volumes"][-1]["downwardAPI"]["items"] == [ITSELF, item]


# The pin


def test_pin_narrows_each_existing_term() -> None:
    zone = {"key": "zone", "operator": "In", "values": ["a"]}
    other = {"key": "metadata.name", "operator": "NotIn", "values": ["n9"]}
    mine = {
        "podAntiAffinity": {REQUIRED: []},
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}],
            REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [zone]}, {"matchFields": [other]}]},
        },
    }
    kept = json.dumps(mine)
    found = pinned(mine, "n1")
    assert found["podAntiAffinity"] == {REQUIRED: []}
    assert found["nodeAffinity"] == {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}],
        REQUIRED: {
            "nodeSelectorTerms": [
                {"matchExpressions": [zone], "matchFields": [pin("n1")]},
                {"matchFields": [other, pin("n1")]},
            ]
        },
    }
    assert json.dumps(mine) == kept


@pytest.mark.parametrize(
    ("own", "written"),
    [
        ({"whenUnsatisfiable": "DoNotSchedule", "minDomains": 2}, {"whenUnsatisfiable": "DoNotSchedule"}),
        *[(wrong, wrong) for wrong in ({"whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}, {"minDomains": 0})],
    ],
)
def test_least_number_of_domains_is_left_out_where_the_api_server_takes_it(own: Json, written: Json) -> None:
    assert without_min_domains([own]) == [written]


@pytest.mark.parametrize("affinity", [None, {}, {"nodeAffinity": None}, {"nodeAffinity": {REQUIRED: None}}])
def test_pin_adds_a_term_if_there_is_none(affinity: Json | None) -> None:
    assert pinned(affinity, "n1") == {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": [pin("n1")]}]}}}


# The Service


def test_service_names_pods_before_they_are_ready() -> None:
    assert manifests.service(job()) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "vgg16", "namespace": "vision", "labels": {names.JOB: "vgg16"}, "ownerReferences": [OWNER]},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {names.JOB: "vgg16"}},
    }
