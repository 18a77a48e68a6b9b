"""The helm release: tested, upgraded and rolled back under a running job, and the only one of its cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kind.jobs import Jobs, allreduce
from muster_dev.kind.cluster import CHART, NAMESPACE, Cluster
from muster_dev.local.errors import LocalError

pytestmark = pytest.mark.kind


def test_helm_test_finds_operator_extender_and_definitions(kind: Cluster) -> None:
    output = kind.helm("test", "muster", "--namespace", NAMESPACE, "--logs", "--timeout", "180s")
    assert "Phase:          Succeeded" in output
    for line in ("the operator is ready", "the extender is ready", "the API server serves DLJobs"):
        assert line in output


@pytest.mark.parametrize("name", ["muster", "second"])
def test_second_release_is_refused_with_the_name_of_the_first(kind: Cluster, name: str) -> None:
    with pytest.raises(LocalError, match="in this cluster already, as release muster in namespace muster-system"):
        kind.helm("install", name, CHART, "--namespace", "default", "--set", "gate.enabled=false,crds.enabled=false")
    releases = json.loads(kind.helm("list", "--all-namespaces", "--output", "json"))
    assert [(release["name"], release["namespace"]) for release in releases] == [("muster", NAMESPACE)]


def test_job_keeps_running_through_upgrade_and_rollback(jobs: Jobs, tmp_path: Path) -> None:
    jobs.apply(allreduce("long", workers=2, arguments=["--steps=100000", "--seconds=0.05"]), folder=tmp_path)
    jobs.until_phase("long", "Running")
    before = uids(jobs)
    release = ("--namespace", NAMESPACE, "--wait", "--timeout", "180s")
    changed = ("--reuse-values", "--set", "operator.logLevel=DEBUG,operator.replicas=1")
    try:
        jobs.cluster.helm("upgrade", "muster", CHART, *release, *changed)
        assert "--log-level=DEBUG" in arguments(jobs.cluster)
    finally:
        jobs.cluster.helm("rollback", "muster", *release)
    assert "--log-level=INFO" in arguments(jobs.cluster)
    jobs.apply(allreduce("new", workers=2, arguments=["--steps=20"]), folder=tmp_path)
    jobs.until_phase("new", "Succeeded")
    assert uids(jobs) == before
    status = jobs.get("dljob", "long")["status"]
    assert (status["phase"], status["attempt"]) == ("Running", 1)


def uids(jobs: Jobs) -> dict[str, str]:
    """Return the UIDs of the long job's pods, by name."""
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in jobs.gang("long")}


def arguments(cluster: Cluster) -> list[str]:
    """Return the arguments of the operators."""
    deployment = json.loads(
        cluster.kubectl("get", "deployment", "muster-operator", "--namespace", NAMESPACE, "--output", "json")
    )
    args: list[str] = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    return args
