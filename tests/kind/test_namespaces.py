"""What a namespace forbids its pods, or puts into them, as it meets gangs: quota, limits, Pod Security, injection.

The API server comes to know of such objects a moment after they are written, so each test first waits until a pod that is only
tried (a dry run) meets them.
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
    """Return the JSON of a pod as it would be in the namespace, or what the API server has against it."""
    file = folder / "trial.yaml"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial"}, "spec": pod_spec(gpus, "true")}
    file.write_text(yaml.safe_dump(pod))
    try:
        return jobs.kubectl("create", "--dry-run=server", "--output=json", "--filename", file)
    except LocalError as error:
        return str(error)


def timeline(jobs: Jobs, job: str) -> list[Object]:
    found: list[Object] = jobs.get("dljob", job).get("status", {}).get("timeline", [])
    return found


def condition(jobs: Jobs, job: str, kind: str) -> Object:
    conditions = jobs.get("dljob", job).get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})


def rule(kind: str, spec: Object) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "rule"}, "spec": spec}


def test_a_quota_too_small_for_the_gang_keeps_the_whole_of_it_out(jobs: Jobs, tmp_path: Path) -> None:
    jobs.apply(rule("ResourceQuota", {"hard": {f"requests.{names.GPU}": 4}}), folder=tmp_path)
    jobs.until(lambda: "exceeded quota" in tried(jobs, tmp_path, gpus=5), "the quota is in force")
    jobs.apply(allreduce("large", gpus=2, arguments=STEPS), folder=tmp_path)

    def told() -> bool:
        events = [event for event in timeline(jobs, "large") if event["reason"] == "PodRefused"]
        return any("exceeded quota: rule" in event["message"] for event in events)

    jobs.until(told, "the job says which quota")
    jobs.until(lambda: jobs.gang("large") == [], "the half that the quota had let in is gone")
    jobs.kubectl("patch", "resourcequota", "rule", f'--patch={{"spec": {{"hard": {{"requests.{names.GPU}": "8"}}}}}}')
    jobs.until_phase("large", "Succeeded")


def test_a_gang_runs_with_what_a_limit_range_gives_it(jobs: Jobs, tmp_path: Path) -> None:
    given = {"limits": {"cpu": "500m", "memory": "128Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}}
    limit = {"type": "Container", "default": given["limits"], "defaultRequest": given["requests"]}
    jobs.apply(rule("LimitRange", {"limits": [limit]}), folder=tmp_path)
    jobs.until(lambda: '"memory": "128Mi"' in tried(jobs, tmp_path), "the limit range is in force")
    jobs.apply(allreduce("limited", arguments=STEPS), folder=tmp_path)
    jobs.until_phase("limited", "Succeeded")

    def resources(pod: Object) -> Object:
        found: Object = pod["spec"]["containers"][0]["resources"]
        return {kind: {name: amount for name, amount in found.get(kind, {}).items() if name != names.GPU} for kind in given}

    assert [resources(pod) for pod in jobs.gang("limited")] == [given] * 4


def test_pod_security_refuses_a_job_before_any_pod_and_lets_the_example_run(jobs: Jobs, tmp_path: Path) -> None:
    jobs.cluster.kubectl("label", "namespace", jobs.namespace, "pod-security.kubernetes.io/enforce=restricted")
    jobs.until(lambda: "violates PodSecurity" in tried(jobs, tmp_path), "the standard is in force")
    unsafe = allreduce("unsafe", arguments=STEPS)
    (container,) = unsafe["spec"]["roles"]["worker"]["template"]["spec"]["containers"]
    container["securityContext"]["allowPrivilegeEscalation"] = True
    jobs.apply(unsafe, allreduce("safe", arguments=STEPS), folder=tmp_path)
    jobs.until(lambda: condition(jobs, "unsafe", "Admitted").get("reason") == "TemplateRefused", "the job is refused")
    message = condition(jobs, "unsafe", "Admitted")["message"]
    assert 'violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "train"' in message
    jobs.until_phase("safe", "Succeeded")
    assert jobs.gang("unsafe") == []
    assert jobs.phase("unsafe") == "Queued"  # the namespace may change its mind


@pytest.fixture
def injected(jobs: Jobs, tmp_path: Path) -> Iterator[None]:
    """What a webhook of a service mesh would do: each pod of the namespace gets a label and a container beside its own."""
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
def test_a_gang_runs_to_its_end_beside_what_is_injected(jobs: Jobs, tmp_path: Path) -> None:
    jobs.until(lambda: '"mesh": "joined"' in tried(jobs, tmp_path), "the policy is in force")
    jobs.apply(allreduce("meshed", arguments=STEPS), folder=tmp_path)
    jobs.until_phase("meshed", "Succeeded")
    pods = jobs.gang("meshed")
    assert [pod["metadata"]["labels"]["mesh"] for pod in pods] == ["joined"] * 4
    assert [[status["name"] for status in pod["status"]["initContainerStatuses"]] for pod in pods] == [["mesh"]] * 4
