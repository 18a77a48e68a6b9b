"""Objects that muster 0.1.0 wrote are read: an upgrade keeps its gangs running, and its waiting jobs go on.

The operators are stopped, the recorded objects created and their pods started by real kubelets; then the operators start again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import yaml

from kind.jobs import Jobs, Object, namespace
from muster.api import names
from muster_dev.kind.cluster import NAMESPACE, Cluster

pytestmark = pytest.mark.kind
RECORDED: Final = Path(__file__).parent / "data" / "muster-0.1.0.yaml"
OPERATOR: Final = "deployment/muster-operator"
AS_OPERATOR: Final = f"--as=system:serviceaccount:{NAMESPACE}:muster-operator --as-group=system:masters"
"""Whose objects these are: the admission policies refuse them from anybody else."""
LIMIT: Final[Object] = {
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "one-gpu"},
    "spec": {"limits": [{"type": "Container", "max": {names.GPU: "1"}}]},
}
"""Of the recorded jobs, only "untried" has larger pods."""
DEFAULT: Final[Object] = {"apiVersion": names.API_VERSION, "kind": "DLQueue", "metadata": {"name": "default"}}
"""muster 0.1.0 let jobs name a queue that does not exist beside queues that do."""


@dataclass(frozen=True)
class Upgraded:
    """A namespace of muster 0.1.0 under the present operators."""

    jobs: Jobs
    statuses: dict[str, Object]
    """The status of each DLJob as it was recorded, by name."""
    uids: dict[str, str]
    """The UIDs of the pods that ran before the operators started, by name."""


@pytest.fixture(scope="module")
def upgraded(kind: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    """The recorded objects, after the operators have seen them."""
    objects: list[Object] = list(yaml.safe_load_all(RECORDED.read_text()))
    with namespace(kind, objects[0]["metadata"]["namespace"]) as jobs:
        folder = tmp_path_factory.mktemp("recorded")
        with operators_stopped(kind):
            kubectl(jobs, "create", [DEFAULT], folder)
            restore(jobs, [LIMIT, *objects], folder)
            uids = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in jobs.pods("")}
        jobs.until_phase("refused", "Running")
        statuses = {item["metadata"]["name"]: item["status"] for item in objects if item["kind"] == "DLJob"}
        yield Upgraded(jobs, statuses, uids)


@contextmanager
def operators_stopped(cluster: Cluster) -> Iterator[None]:
    """Scale the operators to 0, and back afterwards."""
    replicas = cluster.kubectl("get", OPERATOR, "--namespace", NAMESPACE, "--output=jsonpath={.spec.replicas}")
    scale = ("scale", OPERATOR, "--namespace", NAMESPACE)
    cluster.kubectl(*scale, "--replicas=0")
    try:
        pods = ("pods", "--selector", "app.kubernetes.io/component=operator")
        cluster.kubectl("wait", "--for=delete", *pods, "--namespace", NAMESPACE, "--timeout=120s")
        yield
    finally:
        cluster.kubectl(*scale, f"--replicas={replicas}")


def restore(jobs: Jobs, objects: Sequence[Object], folder: Path) -> None:
    """Create the objects with new UIDs, and wait until the pods of the running gangs run."""
    custom = [item for item in objects if item["apiVersion"] == names.API_VERSION]
    kubectl(jobs, "create", custom, folder)
    kubectl(jobs, "replace --subresource=status", custom, folder)
    created = json.loads(jobs.kubectl("get", "dljobs", "--output", "json"))["items"]
    uids = {job["metadata"]["name"]: job["metadata"]["uid"] for job in created}
    others = [item for item in objects if item not in custom]
    for owner in (owner for item in others for owner in item["metadata"].get("ownerReferences", ())):
        owner["uid"] = uids[owner["name"]]
    kubectl(jobs, f"create {AS_OPERATOR}", others, folder)
    for pod in jobs.pods(names.GANG):  # the gate of the admission policy, which the operator of that time had removed
        patch = '[{"op": "remove", "path": "/spec/schedulingGates"}]'
        jobs.kubectl("patch", *AS_OPERATOR.split(), "pod", pod["metadata"]["name"], "--type=json", f"--patch={patch}")
    jobs.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pods", "--all", "--timeout=120s")


def kubectl(jobs: Jobs, verb: str, objects: Iterable[Object], folder: Path) -> None:
    """Run kubectl with a file of objects."""
    file = folder / "objects.yaml"
    file.write_text(yaml.safe_dump_all(objects))
    jobs.kubectl(*verb.split(), "--filename", file)


def assert_still_running(upgraded: Upgraded, pods: Sequence[Object], count: int) -> None:
    """Assert that these are the pods from before the upgrade, in the same run of their containers."""
    assert len(pods) == count
    for pod in pods:
        assert pod["metadata"]["uid"] == upgraded.uids[pod["metadata"]["name"]]
        assert pod["status"]["phase"] == "Running"
        assert [container["restartCount"] for container in pod["status"]["containerStatuses"]] == [0]


def assert_ran_at_once(upgraded: Upgraded, job: str) -> None:
    """Assert that the first placement since the upgrade is running, and that the job's earlier history is kept."""
    status, before = upgraded.jobs.get("dljob", job)["status"], upgraded.statuses[job]
    assert (status["phase"], status["attempt"]) == ("Running", before.get("attempt", 0) + 1)
    assert status["queuedAt"] == before["queuedAt"]
    count = len(before["timeline"])
    assert status["timeline"][:count] == before["timeline"]
    assert [event["event"] for event in status["timeline"][count:]] == ["Admitted", "Running"]


def test_running_job_keeps_its_pods_and_its_status(upgraded: Upgraded) -> None:
    assert_still_running(upgraded, upgraded.jobs.gang("running"), 4)
    status = upgraded.jobs.get("dljob", "running")["status"]
    assert (status["phase"], status["attempt"]) == ("Running", 1)
    assert status == upgraded.statuses["running"]  # placement and timeline, too


def test_ungated_gang_keeps_running(upgraded: Upgraded) -> None:
    assert_still_running(upgraded, upgraded.jobs.pods(f"{names.GANG}=pair"), 2)


def test_job_that_was_queued_again_for_a_reason_of_that_version_runs(upgraded: Upgraded) -> None:
    assert_ran_at_once(upgraded, "refused")


def test_queued_job_is_admitted_when_its_quota_allows(upgraded: Upgraded) -> None:
    jobs = upgraded.jobs
    assert jobs.phase("queued") == "Queued"
    jobs.kubectl("patch", "dlqueue", "research", "--type=merge", '--patch={"spec": {"gpus": 6}}')
    jobs.until_phase("queued", "Running")
    assert jobs.get("dljob", "queued")["status"]["queuedAt"] == upgraded.statuses["queued"]["queuedAt"]


def test_suspended_job_stays_suspended_until_it_is_resumed(upgraded: Upgraded) -> None:
    jobs = upgraded.jobs
    assert jobs.get("dljob", "suspended")["status"] == upgraded.statuses["suspended"]
    jobs.kubectl("annotate", "dljob", "suspended", "--overwrite", f"{names.SUSPEND}=false")
    jobs.until_phase("suspended", "Running")
    assert jobs.get("dljob", "suspended")["status"]["attempt"] == 2


def test_parked_pod_is_created_again_and_runs(upgraded: Upgraded) -> None:
    jobs = upgraded.jobs
    jobs.until(lambda: not jobs.kubectl("get", "podtemplates", "--output=name"), "the template is deleted")
    assert jobs.get("pod", "parked")["metadata"]["annotations"][names.REQUEUES] == "5"
    jobs.kubectl("wait", "--for=jsonpath={.status.phase}=Running", "pod/parked", "--timeout=120s")


def test_template_that_was_rejected_for_a_reason_of_that_version_is_checked_again(upgraded: Upgraded) -> None:
    jobs = upgraded.jobs
    conditions = jobs.get("dljob", "untried")["status"]["conditions"]
    admitted = next(condition for condition in conditions if condition["type"] == "Admitted")
    assert admitted["reason"] == "TemplateRejected"  # it was TemplateRefused
    assert f"maximum {names.GPU} usage per Container is 1" in admitted["message"]
    jobs.kubectl("delete", "limitrange", LIMIT["metadata"]["name"])
    jobs.until_phase("untried", "Running")
    assert_ran_at_once(upgraded, "untried")
