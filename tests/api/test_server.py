"""The definitions on a real API server: validation, defaults, printer columns, scaling and immutability."""

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from muster.api.dljob import DLJob
from muster.api.dlqueue import DLQueue
from muster_dev.local.cluster import LocalCluster

if TYPE_CHECKING:
    from api.conftest import Server

pytestmark = pytest.mark.cluster
MANIFESTS = Path(__file__).parent / "manifests"
MODELS: dict[str, type[DLJob | DLQueue]] = {"DLJob": DLJob, "DLQueue": DLQueue}


def example(name: str, rename: str | None = None) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text())
    body["metadata"]["name"] = rename or body["metadata"]["name"]
    return body


@pytest.mark.parametrize("plural", ["dljobs", "dlqueues"])
def test_definitions_are_established_and_structural(served: LocalCluster, plural: str) -> None:
    definition = json.loads(served.kubectl("get", "crd", f"{plural}.muster.dev", "-o", "json"))
    conditions = {condition["type"]: condition["status"] for condition in definition["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in conditions


@pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_manifest_is_accepted_with_the_defaults_of_the_models(server: "Server", path: Path) -> None:
    body = example(path.stem)
    answer = server.create(body, dry=True)
    assert answer.status == 201, answer.message
    model = MODELS[body["kind"]]
    assert model.model_validate(answer.body).spec == model.model_validate(body).spec


def test_defaults_are_in_the_stored_object(server: "Server") -> None:
    spec = server.create(example("minimal"), dry=True).body["spec"]
    template = spec["roles"].pop("worker")["template"]["spec"]
    assert spec == {
        "backoffLimit": 3,
        "placement": {"policy": "Pack", "preferred": "Node", "sensitivity": "Auto"},
        "priority": 0,
        "queue": "default",
        "rendezvous": "Torchrun",
        "roles": {},
        "sharing": {"packing": False, "timeSlicing": False},
        "startDeadlineSeconds": 600,
        "startRetries": 3,
        "suspend": False,
    }
    assert (template["restartPolicy"], template["schedulerName"]) == ("Never", "muster")


def test_template_keeps_undeclared_fields(server: "Server") -> None:
    body = example("torchrun")
    spec = server.create(body, dry=True).body["spec"]["roles"]["worker"]["template"]["spec"]
    template = body["spec"]["roles"]["worker"]["template"]["spec"]
    assert spec == template | {"restartPolicy": "Never", "schedulerName": "muster"}


STATUS = {
    "phase": "Queued",
    "gpus": 2,
    "wantedGpus": 8,
    "nodes": "n1",
    "position": 7,
    "requeues": 3,
    "message": "needs 16 GPUs on 2 nodes, 11 free on 3",
    "startedAt": "2026-01-01T00:00:00Z",
    "replicas": 4,
    "selector": "muster.dev/job=shown,muster.dev/role=worker",
    "restarts": 2,
    "conditions": [{"type": "Admitted", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "NoRoom"}],
    "placement": [{"pod": "shown-worker-0", "role": "worker", "index": 0, "rank": 0, "node": "n1", "gpus": [0, 1]}],
    "progress": {"miniBatches": 1200, "rate": 3.1},
    "timeline": [{"time": "2026-01-01T00:00:00.123456Z", "event": "Queued", "reason": "NoRoom", "message": "no room"}],
}


def test_printer_columns_of_a_job(server: "Server") -> None:
    assert server.create(example("torchrun", "shown")).status == 201
    answer = server.patch("shown", {"status": STATUS}, "/status")
    assert answer.status == 200, answer.message
    shown = server.cluster.kubectl("get", "dlj", "shown", "-n", server.namespace)
    head, row = shown.splitlines()
    assert head.split() == ["NAME", "PHASE", "GPUS", "WANTED", "STARTED", "AGE", "MESSAGE"]
    assert row.split()[:4] == ["shown", "Queued", "2", "8"]
    assert row.endswith("needs 16 GPUs on 2 nodes, 11 free on 3")
    wide = server.cluster.kubectl("get", "muster", "-n", server.namespace, "-o", "wide").splitlines()
    assert wide[0].split() == [
        *("NAME", "PHASE", "GPUS", "WANTED", "STARTED", "AGE", "QUEUE", "POSITION", "PRIORITY", "NODES"),
        *("RESTARTS", "REQUEUES", "MINI-BATCHES", "MESSAGE"),
    ]
    assert wide[1].split()[6:13] == ["research", "7", "100", "n1", "2", "3", "1200"]


def test_printer_columns_of_a_queue(server: "Server") -> None:
    assert server.create(example("queue", "shown")).status == 201
    status = {"status": {"gpusInUse": 8, "running": 1, "pending": 3}}
    path = "dlqueues/shown/status"
    assert server.send("PATCH", path, status, "application/merge-patch+json").status == 200
    head, row = server.cluster.kubectl("get", "dlq", "shown", "-n", server.namespace).splitlines()
    assert head.split() == ["NAME", "QUOTA", "IN", "USE", "RUNNING", "PENDING", "AGE"]
    assert row.split()[:5] == ["shown", "64", "8", "1", "3"]


def test_status_of_the_model_is_stored_unchanged(server: "Server") -> None:
    assert server.create(example("minimal", "status")).status == 201
    body = {"metadata": {"name": "status"}, "spec": example("minimal")["spec"], "status": STATUS}
    written = DLJob.model_validate(body).status
    patch = written.model_dump(mode="json", by_alias=True, exclude_none=True)
    answer = server.patch("status", {"status": patch}, "/status")
    assert answer.status == 200, answer.message
    assert DLJob.model_validate(answer.body).status == written


def test_status_is_a_subresource(server: "Server") -> None:
    assert server.create(example("minimal", "apart")).status == 201
    assert "status" not in server.patch("apart", {"status": {"phase": "Running"}}).body
    answer = server.patch("apart", {"status": {"phase": "Running"}, "spec": {"queue": "other"}}, "/status")
    assert (answer.body["status"]["phase"], answer.body["spec"]["queue"]) == ("Running", "default")


def test_kubectl_scale_sets_the_workers_within_the_elastic_bounds(server: "Server") -> None:
    assert server.create(example("elastic", "scaled")).status == 201
    server.cluster.kubectl("scale", "dljob/scaled", "--replicas=8", "-n", server.namespace)
    job = json.loads(server.cluster.kubectl("get", "dljob", "scaled", "-n", server.namespace, "-o", "json"))
    assert job["spec"]["roles"]["worker"]["replicas"] == 8
    answer = server.patch("scaled", {"spec": {"replicas": 9}}, "/scale")
    assert answer.status == 422
    assert "spec.roles.worker.replicas" in answer.message
    assert "between elastic.minReplicas and elastic.maxReplicas" in answer.message


def test_scale_subresource_has_replicas_and_selector(server: "Server") -> None:
    assert server.create(example("torchrun", "told")).status == 201
    server.patch("told", {"status": STATUS}, "/status")
    scale = server.send("GET", "dljobs/told/scale", None).body
    assert scale["spec"]["replicas"] == 4
    assert scale["status"] == {"replicas": 4, "selector": STATUS["selector"]}


def changed(name: str, path: str, value: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an example, and the same with one field changed, or removed if the value is None."""
    before = example(name)
    after = copy.deepcopy(before)
    holder: Any = after["spec"]
    *parents, last = path.split(".")
    for key in parents:
        holder = holder[int(key) if key.isdigit() else key]
    if value is None:
        del holder[last]
    else:
        holder[int(last) if last.isdigit() else last] = value
    return before, after


CONTAINER = "roles.worker.template.spec.containers.0"
IMMUTABLE = [
    ("minimal", "rendezvous", "None", "spec.rendezvous"),
    ("minimal", f"{CONTAINER}.image", "other", "spec.roles.worker.template"),
    ("minimal", f"{CONTAINER}.env", [{"name": "A", "value": "b"}], "spec.roles.worker.template"),
    ("torchrun", f"{CONTAINER}.env.0.value", "INFO", "spec.roles.worker.template"),
    ("torchrun", f"{CONTAINER}.volumeMounts", None, "spec.roles.worker.template"),
    ("torchrun", f"{CONTAINER}.resources.limits.cpu", 8, "spec.roles.worker.template"),
    ("torchrun", "roles.worker.template.metadata.labels.team", "speech", "spec.roles.worker.template"),
    ("torchrun", "roles.worker.template.spec.hostNetwork", True, "spec.roles.worker.template"),
    ("torchrun", "roles.worker.template.spec.volumes.0", {"name": "ckpt", "emptyDir": {}}, "spec.roles.worker.template"),
    ("mpi", "roles.chief.template.spec.containers.0.command", ["true"], "spec.roles.chief.template"),
    ("mpi", "roles.chief", None, "spec.roles.chief"),
    ("parameter-server", "roles.ps.replicas", 3, "spec.roles.ps.replicas"),
    ("parameter-server", "roles.evaluator", None, "spec.roles.evaluator"),
    ("parameter-server", "roles.chief", None, "spec.roles.chief"),
]


def test_replaced_field_counts_as_a_change(server: "Server") -> None:
    body = example("torchrun")
    server.create(body)
    container = body["spec"]["roles"]["worker"]["template"]["spec"]["containers"][0]
    container["args"] = [container.pop("env")[0]["name"]]
    assert server.send("PUT", f"dljobs/{name_of(body)}", with_version(server, body)).status == 422


@pytest.mark.parametrize(("name", "path", "value", "field"), IMMUTABLE, ids=lambda value: str(value)[:40])
def test_change_of_an_immutable_field_is_rejected(server: "Server", name: str, path: str, value: object, field: str) -> None:
    before, after = changed(name, path, value)
    server.create(before)
    answer = server.send("PUT", f"dljobs/{name_of(before)}", with_version(server, after))
    assert answer.status == 422, answer.body
    assert [cause["field"] for cause in answer.body["details"]["causes"]] == [field]
    assert "delete the job and create it again" in answer.message


MUTABLE = [
    ("queue", "other"),
    ("priority", 7),
    ("roles.worker.replicas", 2),
    ("suspend", True),
    ("backoffLimit", 0),
    ("startDeadlineSeconds", 60),
    ("placement.required", "Block"),
    ("checkpoint.everyMiniBatches", 5),
    ("activeDeadlineSeconds", None),
    ("elastic", {"maxReplicas": 9}),
]


@pytest.mark.parametrize(("path", "value"), MUTABLE, ids=lambda value: str(value)[:40])
def test_change_of_a_mutable_field_is_accepted(server: "Server", path: str, value: object) -> None:
    before, after = changed("torchrun", path, value)
    server.create(before)
    answer = server.send("PUT", f"dljobs/{name_of(before)}", with_version(server, after))
    assert answer.status == 200, answer.message


def name_of(body: dict[str, Any]) -> str:
    return str(body["metadata"]["name"])


def with_version(server: "Server", body: dict[str, Any]) -> dict[str, Any]:
    """Return the body with its current resource version, which a PUT requires."""
    current = server.send("GET", f"dljobs/{name_of(body)}", None).body
    return body | {"metadata": body["metadata"] | {"resourceVersion": current["metadata"]["resourceVersion"]}}
