"""Operators under disturbance while jobs start: the leader is killed, or a right is revoked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kind.jobs import Jobs, allreduce
from muster.api import names
from muster_dev.kind.cluster import NAMESPACE, Cluster

pytestmark = pytest.mark.kind
OPERATOR = "muster-operator"
"""The name of Deployment, Lease and ClusterRole, and the program's."""
RESERVING = ("muster.dev", "dljobs/status", "patch")


def test_killed_leader_is_replaced_and_every_gang_starts_once(jobs: Jobs, tmp_path: Path) -> None:
    cluster = jobs.cluster
    cluster.kubectl("rollout", "status", f"deployment/{OPERATOR}", "--namespace", NAMESPACE, "--timeout=120s")
    gangs = [allreduce(name, workers=2, gpus=4, arguments=["--steps=20"]) for name in ("first", "second", "third")]
    jobs.apply(*gangs, folder=tmp_path)
    jobs.until(lambda: jobs.phase("first") not in (None, "Queued"), "the first is being started")
    killed = leader(cluster)
    kill(cluster, killed)
    jobs.apply(allreduce("after", workers=2, gpus=1, arguments=["--steps=20"]), folder=tmp_path)
    for name in ("first", "second", "third", "after"):
        jobs.until_phase(name, "Succeeded")
        status = jobs.get("dljob", name)["status"]
        assert (status["attempt"], status.get("restarts", 0)) == (1, 0)
        assert [event["event"] for event in status["timeline"]].count("Admitted") == 1
        pods = jobs.gang(name)
        assert [pod["status"]["phase"] for pod in pods] == ["Succeeded"] * 2
        assert {pod["metadata"]["annotations"][names.ATTEMPT] for pod in pods} == {"1"}
    assert leader(cluster) != killed


def test_operator_that_loses_a_right_reports_it_and_recovers(jobs: Jobs, tmp_path: Path) -> None:
    with without_right_to_reserve(jobs, tmp_path):
        jobs.apply(allreduce("poor", workers=2, arguments=["--steps=20"]), folder=tmp_path)
        jobs.until(lambda: refusals(jobs), "an Event about its pod reports it")
        pod = refusals(jobs)[0]["involvedObject"]["name"]
        counted = errors(jobs.cluster, pod)
        jobs.until(lambda: errors(jobs.cluster, pod) > counted, "each try is counted")
        assert not jobs.gang("poor")
    jobs.until_phase("poor", "Succeeded")


def leader(cluster: Cluster) -> str:
    """Return the holder of the operators' Lease: the name of its pod and a suffix per process."""
    holder = "--output=jsonpath={.spec.holderIdentity}"
    return cluster.kubectl("get", "lease", OPERATOR, "--namespace", NAMESPACE, holder)


def kill(cluster: Cluster, identity: str) -> None:
    """Kill a leader's process by SIGKILL, so that it does not release the Lease."""
    name = identity.rpartition("_")[0]
    pod = json.loads(cluster.kubectl("get", "pod", name, "--namespace", NAMESPACE, "--output", "json"))
    uid, node = pod["metadata"]["uid"], pod["spec"]["nodeName"]
    script = (
        "killed=1; for process in /proc/[0-9]*; do"
        f" if grep --quiet --regexp={uid} --regexp={uid.replace('-', '_')} $process/cgroup 2> /dev/null"
        f" && grep --quiet {OPERATOR} $process/cmdline; then kill -KILL ${{process#/proc/}} && killed=0; fi;"
        " done; exit $killed"
    )
    cluster.engine.run("docker", "exec", node, "sh", "-c", script)


@contextmanager
def without_right_to_reserve(jobs: Jobs, folder: Path) -> Iterator[None]:
    """Revoke the operators' right to write reservations, and grant it again afterwards."""
    cluster = jobs.cluster
    rules = json.loads(cluster.kubectl("get", "clusterrole", OPERATOR, "--output", "json"))["rules"]
    try:
        set_rules(cluster, [rule for rule in rules if RESERVING[1] not in rule["resources"]])
        jobs.until(lambda: not may_reserve(cluster, folder), "the API server goes by it")
        yield
    finally:
        set_rules(cluster, rules)


def set_rules(cluster: Cluster, rules: list[dict[str, Any]]) -> None:
    cluster.kubectl("patch", "clusterrole", OPERATOR, "--type=merge", "--patch", json.dumps({"rules": rules}))


def may_reserve(cluster: Cluster, folder: Path) -> bool:
    """Ask the API server whether the operators may write reservations."""
    group, resource, verb = RESERVING
    resource, _, sub = resource.partition("/")
    attributes = {"group": group, "resource": resource, "subresource": sub, "verb": verb}
    user = f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    file = folder / "review.json"
    file.write_text(json.dumps(review | {"spec": {"user": user, "resourceAttributes": attributes}}))
    return bool(json.loads(cluster.kubectl("create", "--filename", file, "--output", "json"))["status"]["allowed"])


def refusals(jobs: Jobs) -> list[dict[str, Any]]:
    """Return the Events about operators that were refused something in the namespace of these jobs."""
    about = "reason=Forbidden,involvedObject.kind=Pod"
    events = jobs.cluster.kubectl("get", "events", "--namespace", NAMESPACE, "--field-selector", about, "--output", "json")
    words = f'cannot patch resource "dljobs/status" in API group "muster.dev" in the namespace "{jobs.namespace}"'
    return [event for event in json.loads(events)["items"] if words in event["message"]]


def errors(cluster: Cluster, pod: str) -> float:
    """Return an operator's metric muster_operator_errors_total."""
    page = cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:8081/proxy/metrics")
    (line,) = (line for line in page.splitlines() if line.startswith("muster_operator_errors_total "))
    return float(line.split()[1])
