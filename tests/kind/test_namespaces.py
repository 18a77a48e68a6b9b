"""Gangs in namespaces that restrict or change their pods: quota, limits, Pod Security, injection.

The API server applies such objects a moment after they are written, so each test first waits until the dry run of a pod
meets them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kind.jobs import Jobs, Object, allreduce, pod_spec
from muster.api import names
from muster_dev.local.errors import LocalError

pytestmark = pytest.mark.kind
STEPS = ["--steps=50"]


def tried(jobs: Jobs, folder: Path, gpus: int = 1) -> str:
    """Return the JSON of a pod as it would be in the namespace, or the refusal of the API server."""
    file = folder / "trial.yaml"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial"}, "spec": pod_spec(gpus, "true")}
    file.write_text(yaml.safe_dump(pod))
    try:
        return jobs.kubectl("create", "--dry-run=server", "--output=json", "--filename", file)
    except LocalError as error:
        return str(error)


def timeline(jobs: Jobs, job: str) -> list[Object]:
    events: list[Object] = jobs.get("dljob", job).get("status", {}).get("timeline", [])
    return events


def condition(jobs: Jobs, job: str, kind: str) -> Object:
    conditions = jobs.get("dljob", job).get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == kind), {})


def rule(kind: str, spec: Object) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "rule"}, "spec": spec}


def test_gang_that_exceeds_a_quota_is_kept_out_whole(jobs: Jobs, tmp_path: Path) -> None:
    jobs.apply(rule("ResourceQuota", {"hard": {f"requests.{names.GPU}": 4}}), folder=tmp_path)
    jobs.until(lambda: "exceeded quota" in tried(jobs, tmp_path, gpus=5), "the quota is in force")
    jobs.apply(allreduce("large", gpus=2, arguments=STEPS), folder=tmp_path)

    def reported() -> bool:
        admitted = condition(jobs, "large", "Admitted")
        return admitted.get("reason") == "ExceedsResourceQuota" and "/rule " in admitted["message"]

    jobs.until(reported, "the job names the quota")
    assert jobs.gang("large") == [], "no pod of it was created"
    assert not [event for event in timeline(jobs, "large") if event["event"] == "Admitted"]
    jobs.kubectl("patch", "resourcequota", "rule", f'--patch={{"spec": {{"hard": {{"requests.{names.GPU}": "8"}}}}}}')
    jobs.until_phase("large", "Succeeded")


def test_gang_runs_with_the_resources_of_a_limit_range(jobs: Jobs, tmp_path: Path) -> None:
    given = {"limits": {"cpu": "500m", "memory": "128Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}}
    limit = {"type": "Container", "default": given["limits"], "defaultRequest": given["requests"]}
    jobs.apply(rule("LimitRange", {"limits": [limit]}), folder=tmp_path)
    jobs.until(lambda: '"memory": "128Mi"' in tried(jobs, tmp_path), "the limit range is in force")
    jobs.apply(allreduce("limited", arguments=STEPS), folder=tmp_path)
    jobs.until_phase("limited", "Succeeded")

    def cpu_and_memory(pod: Object) -> Object:
        resources: Object = pod["spec"]["containers"][0]["resources"]
        return {kind: {name: amount for name, amount in resources.get(kind, {}).items() if name != names.GPU} for kind in given}

    assert [cpu_and_memory(pod) for pod in jobs.gang("limited")] == [given] * 4


def test_job_that_violates_pod_security_is_refused_without_pods_and_the_example_runs(jobs: Jobs, tmp_path: Path) -> None:
    jobs.cluster.kubectl("label", "namespace", jobs.namespace, "pod-security.kubernetes.io/enforce=restricted")
    jobs.until(lambda: "violates PodSecurity" in tried(jobs, tmp_path), "the standard is in force")
    unsafe = allreduce("unsafe", arguments=STEPS)
    (container,) = unsafe["spec"]["roles"]["worker"]["template"]["spec"]["containers"]
    container["securityContext"]["allowPrivilegeEscalation"] = True
    jobs.apply(unsafe, allreduce("safe", arguments=STEPS), folder=tmp_path)
    jobs.until(lambda: condition(jobs, "unsafe", "Admitted").get("reason") == "TemplateRejected", "the job is refused")
    message = condition(jobs, "unsafe", "Admitted")["message"]
    assert 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "train"' in message
    jobs.until_phase("safe", "Succeeded")
    assert jobs.gang("unsafe") == []
    assert jobs.phase("unsafe") == "Queued"  # the namespace may allow it later


@pytest.fixture
def injected(jobs: Jobs, tmp_path: Path) -> Iterator[None]:
    """Add a label and a sidecar to each pod of the namespace, as the webhook of a service mesh would."""
    serve = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit()); signal.pause()"
    sidecar = {"name": "mesh", "image": "muster-runtime:0.1.0", "restartPolicy": "Always", "command": ["python3", "-c", serve]}
    mesh = ", ".join(f"{json.dumps(key)}: dyn({json.dumps(value)})" for key, value in sidecar.items())
    patch = f'[JSONPatch{{op: "add", path: "/spec/initContainers", value: [{{{mesh}}}]}}]'
    label = 'Object{metadata: Object.metadata{labels: {"mesh": "joined"}}}'
    head: dict[str, Any] = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": jobs.namespace}}
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]
    here = {"matchLabels": {"kubernetes.io/metadata.name": jobs.namespace}}
    policy = {
        "matchConstraints": {"resourceRules": rules, "namespaceSelector": here},
        "reinvocationPolicy": "Never",
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": label}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}},
        ],
    }
    kinds = {"MutatingAdmissionPolicy": policy, "MutatingAdmissionPolicyBinding": {"policyName": jobs.namespace}}
    jobs.apply(*(head | {"kind": kind, "spec": spec} for kind, spec in kinds.items()), folder=tmp_path)
    yield
    jobs.cluster.kubectl("delete", ",".join(kinds), jobs.namespace)


@pytest.mark.usefixtures("injected")
def test_gang_with_an_injected_sidecar_succeeds(jobs: Jobs, tmp_path: Path) -> None:
    jobs.until(lambda: '"mesh": "joined"' in tried(jobs, tmp_path), "the policy is in force")
    jobs.apply(allreduce("meshed", arguments=STEPS), folder=tmp_path)
    jobs.until_phase("meshed", "Succeeded")
    pods = jobs.gang("meshed")
    assert [pod["metadata"]["labels"]["mesh"] for pod in pods] == ["joined"] * 4
    assert [[status["name"] for status in pod["status"]["initContainerStatuses"]] for pod in pods] == [["mesh"]] * 4
