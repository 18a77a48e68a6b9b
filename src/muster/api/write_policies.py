"""Manifests of the admission policies that hold everybody to who may write which name (`muster.api.names`).

ValidatingAdmissionPolicies (admissionregistration.k8s.io/v1, Kubernetes 1.30) run inside the API server, without a webhook.
What they refuse, nobody but muster can have written: so operator and extender may believe it (`muster.allocation.vouching`).

    muster-pods       other accounts neither write the names that are muster's alone, nor remove the gate, nor move a pod that
                      has its GPUs to another queue
    muster-templates  other accounts neither make nor change the PodTemplates from which the operator creates pods again
    muster-wake       the account of extender and kube-scheduler changes a pod's annotation muster.dev/wake and nothing else
    muster-nodes      a node's topology is written by the agent on it, which changes nothing else

An update that leaves a name as it is passes, and so do the subresources by which kubelets and kube-scheduler write (status,
binding, eviction), which are not matched. An expression that fails refuses the request (failurePolicy): it can only fail by
what a client has sent, since the API server evaluates it by itself.
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from muster.api import names
from muster.api.topology import MOST_CHARACTERS

Manifest = dict[str, Any]
PODS: Final = "muster-pods"
TEMPLATES: Final = "muster-templates"
WAKE: Final = "muster-wake"
NODES: Final = "muster-nodes"
GROUP: Final = "admissionregistration.k8s.io"


_ANNOTATIONS: Final = "object.metadata.?annotations.orValue({})"
_ANNOTATIONS_BEFORE: Final = "(oldObject == null ? {} : oldObject.metadata.?annotations.orValue({}))"
_ANNOTATION_VARIABLES: Final = {"annotations": _ANNOTATIONS, "annotationsBefore": _ANNOTATIONS_BEFORE}
_LABEL_VARIABLES: Final = {
    "labels": "object.metadata.?labels.orValue({})",
    "labelsBefore": "oldObject == null ? {} : oldObject.metadata.?labels.orValue({})",
}
_NODE_OF_THE_AGENT: Final = {"mine": "request.userInfo.?extra['authentication.kubernetes.io/node-name'].orValue([])"}
_TAKEN_BACK: Final = {
    "expression": "false",
    "message": f"PodTemplates with the label {names.TAKEN_BACK} are pods that muster creates again: leave the label out,"
    " and leave those that are there as they are (deleting one gives its pod up)",
}


@dataclass(frozen=True)
class Accounts:
    """The user names of muster's parts; `per_node`: an agent's token names the node that it runs on."""

    operator: str
    scheduler: str
    agent: str
    per_node: bool = True


def _of_the_chart(part: str) -> str:
    return f'system:serviceaccount:{{{{ .Release.Namespace }}}}:{{{{ include "muster.name" . }}}}-{part}'


CHART: Final = Accounts(_of_the_chart("operator"), _of_the_chart("scheduler"), _of_the_chart("agent"))
"""The service accounts of the release, as helm's template actions."""


def manifests(accounts: Accounts) -> list[Manifest]:
    """Return all policies with their bindings."""
    return [*for_pods(accounts), *for_nodes(accounts)]


def for_pods(accounts: Accounts) -> list[Manifest]:
    """Return the policies about pods and PodTemplates with their bindings."""
    by_others = f"!(request.userInfo.username in ['{accounts.operator}', '{accounts.scheduler}'])"
    return [
        *_policy(
            PODS, "pods", ("CREATE", "UPDATE"), {"by-others": by_others}, _pod_rules(), _LABEL_VARIABLES | _ANNOTATION_VARIABLES
        ),
        *_policy(
            TEMPLATES,
            "podtemplates",
            ("CREATE", "UPDATE"),
            {"not-by-the-operator": f"request.userInfo.username != '{accounts.operator}'"},
            [_TAKEN_BACK],
            selector={"matchExpressions": [{"key": names.TAKEN_BACK, "operator": "Exists"}]},
        ),
        *_policy(
            WAKE,
            "pods",
            ("UPDATE",),
            {"by-the-scheduler": f"request.userInfo.username == '{accounts.scheduler}'"},
            [_nothing_but(names.WAKE, "the scheduler's account may change the annotation {} of a pod and nothing else")],
            _ANNOTATION_VARIABLES,
        ),
    ]


def for_nodes(accounts: Accounts) -> list[Manifest]:
    """Return the policy about nodes with its binding.

    Whoever may change a node may remove its topology: the agent writes it again.
    """
    by_agent = f"request.userInfo.username == '{accounts.agent}'"
    written = f"'{names.TOPOLOGY}' in {_ANNOTATIONS}"
    changed = f"{_ANNOTATIONS}[?'{names.TOPOLOGY}'] != {_ANNOTATIONS_BEFORE}[?'{names.TOPOLOGY}']"
    conditions = {"by-an-agent-or-of-a-topology": f"{by_agent} || ({written} && {changed})"}
    agents = {
        "expression": by_agent,
        "message": f"{names.TOPOLOGY} is written by muster's agent on the node: leave the annotation as it is, or remove it",
    }
    own = {
        "expression": "object.metadata.name in variables.mine",
        "messageExpression": "'the agent of node ' + variables.mine.join(',') + ' may not change node ' + object.metadata.name",
    }
    short = {
        "expression": f"size(variables.annotations[?'{names.TOPOLOGY}'].orValue('')) <= {MOST_CHARACTERS}",
        "message": f"{names.TOPOLOGY} has more than {MOST_CHARACTERS} characters",
    }
    nothing_else = _nothing_but(names.TOPOLOGY, "an agent may change the annotation {} of its node and nothing else")
    rules = [agents, *([own] if accounts.per_node else ()), nothing_else, short]
    return _policy(
        NODES,
        "nodes",
        ("CREATE", "UPDATE"),
        conditions,
        rules,
        _ANNOTATION_VARIABLES | _NODE_OF_THE_AGENT,
    )


def _pod_rules() -> list[Manifest]:
    only = names.MUSTER_WRITES["Pod"]
    gated = f"spec.?schedulingGates.orValue([]).exists(gate, gate.name == '{names.GATE}')"
    return [
        _unchanged("labels", only.labels),
        _unchanged("annotations", only.annotations),
        {
            "expression": f"oldObject == null || !oldObject.{gated} || object.{gated}",
            "message": f"the scheduling gate {names.GATE} is removed by muster alone, when the pod's gang has its GPUs:"
            " delete the pod to give its place in the queue up",
        },
        {
            "expression": f"oldObject == null || oldObject.{gated}"
            f" || variables.labels[?'{names.QUEUE}'] == variables.labelsBefore[?'{names.QUEUE}']",
            "message": f"{names.QUEUE} cannot change once a pod is held no more, since its GPUs count in that queue:"
            " delete the pod, and create it for the other queue",
        },
    ]


def _unchanged(field: str, keys: Iterable[str]) -> Manifest:
    """The rule that an update neither adds, changes nor removes these labels or annotations, and a creation has none."""
    listed = ", ".join(f"'{key}'" for key in keys)
    written = f"[{listed}].filter(key, variables.{field}[?key] != variables.{field}Before[?key])"
    advice = f"muster alone writes these {field} of pods: leave them out of what you create, and as they are in what you change"
    return {
        "expression": f"{written}.size() == 0",
        "messageExpression": f"{written}.join(', ') + ': {advice}'",
        "message": advice,
    }


def _nothing_but(annotation: str, message: str) -> Manifest:
    """The rule that an update changes one annotation at most."""
    kept = ("metadata.?labels", "metadata.?ownerReferences", "metadata.?finalizers")
    return {
        "expression": " && ".join(
            (
                "oldObject != null && object.spec == oldObject.spec",
                *(f"object.{field} == oldObject.{field}" for field in kept),
                f"variables.annotations.all(key, key == '{annotation}'"
                " || variables.annotations[?key] == variables.annotationsBefore[?key])",
                f"variables.annotationsBefore.all(key, key == '{annotation}' || key in variables.annotations)",
            )
        ),
        "message": message.format(annotation),
    }


def _policy(
    name: str,
    resource: str,
    operations: Iterable[str],
    conditions: dict[str, str],
    rules: list[Manifest],
    variables: dict[str, str] | None = None,
    selector: Manifest | None = None,
) -> list[Manifest]:
    head = {"apiVersion": f"{GROUP}/v1", "metadata": {"name": name}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": list(operations), "resources": [resource]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule], **({"objectSelector": selector} if selector else {})},
        "matchConditions": [{"name": key, "expression": text} for key, text in conditions.items()],
        **({"variables": [{"name": key, "expression": text} for key, text in variables.items()]} if variables else {}),
        "validations": [{**each, "reason": "Forbidden"} for each in rules],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    return [
        {**head, "kind": "ValidatingAdmissionPolicy", "spec": spec},
        {**head, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    ]


def main() -> None:
    """Write the chart's manifests to files (`python -m muster.api.write_policies PODS_FILE NODES_FILE`)."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("pods", type=Path)
    parser.add_argument("nodes", type=Path)
    files = parser.parse_args()
    for file, items in ((files.pods, for_pods(CHART)), (files.nodes, for_nodes(CHART))):
        file.write_text(yaml.safe_dump_all(items, sort_keys=False, width=10_000))


if __name__ == "__main__":
    main()
