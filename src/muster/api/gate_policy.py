"""Manifests of the admission policy that adds muster's scheduling gate to external GPU pods.

A MutatingAdmissionPolicy (admissionregistration.k8s.io/v1, Kubernetes 1.36) runs inside the API server, without a webhook, its
certificate or its downtime. It gates pods that name muster's scheduler and request GPUs or have the label of a gang, of which a
launcher without GPUs is a part. It leaves out pods of DLJobs, which are created pinned, and pods with spec.nodeName, which
excludes a gate. A label selector excludes DLJobs' pods, since it is free for
the API server while CEL costs time for each pod. A pod that merely carries the label gains nothing: the extender rejects it for
lack of a reservation.
"""

import argparse
from pathlib import Path
from typing import Any, Final

import yaml

from muster.api import names

NAME: Final = "muster-gang-gate"
_ASKS_FOR_GPUS: Final = (
    f"has(c.resources) && has(c.resources.limits) && '{names.GPU}' in c.resources.limits"
    f" && string(c.resources.limits['{names.GPU}']) != '0'"
)
_CONDITIONS: Final = {
    "names-our-scheduler": f"has(object.spec.schedulerName) && object.spec.schedulerName == '{names.SCHEDULER}'",
    "is-not-bound-by-hand": "!has(object.spec.nodeName) || object.spec.nodeName == ''",
    "is-of-a-gang-or-asks-for-gpus": f"(has(object.metadata.labels) && '{names.GANG}' in object.metadata.labels)"
    f" || (object.spec.containers + object.spec.?initContainers.orValue([])).exists(c, {_ASKS_FOR_GPUS})",
}
_NO_DLJOBS: Final = {"key": names.JOB, "operator": "DoesNotExist"}
_GATE: Final = f'Object{{spec: Object.spec{{schedulingGates: [Object.spec.schedulingGates{{name: "{names.GATE}"}}]}}}}'


def manifests() -> list[dict[str, Any]]:
    """Return the policy and its binding."""
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": NAME}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    policy = {
        **head,
        "kind": "MutatingAdmissionPolicy",
        "spec": {
            "matchConstraints": {"resourceRules": [rule], "objectSelector": {"matchExpressions": [_NO_DLJOBS]}},
            "matchConditions": [{"name": name, "expression": text} for name, text in _CONDITIONS.items()],
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": _GATE}}],
        },
    }
    return [policy, {**head, "kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": NAME}}]


def main() -> None:
    """Write the manifests to a file (`python -m muster.api.gate_policy FILE`)."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.parse_args().file.write_text(yaml.safe_dump_all(manifests(), sort_keys=False))


if __name__ == "__main__":
    main()
