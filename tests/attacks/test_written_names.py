"""Names that muster alone writes: the API server refuses them from a user with the role edit, each name and each way."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from builders.live import Json, Live, template
from muster.api import names
from muster.api.topology import MOST_CHARACTERS
from muster.kube.errors import ApiError, Forbidden
from muster_dev.local import stack
from muster_dev.local.api import Api
from muster_dev.local.cluster import LocalCluster

pytestmark = pytest.mark.cluster

ONLY, FREE = names.MUSTER_WRITES["Pod"], names.USERS_WRITE["Pod"]
MUSTERS = [*(("labels", name) for name in ONLY.labels), *(("annotations", name) for name in ONLY.annotations)]
USERS = [*(("labels", name) for name in FREE.labels), *(("annotations", name) for name in FREE.annotations)]
REFUSED = "muster alone writes these"


@pytest.fixture
def gated(user: Live) -> Json:
    """A pod of the user that waits at muster's gate for more GPUs than there are."""
    made = user.pod("gated", 64)
    assert made["spec"]["schedulingGates"] == [{"name": names.GATE}]
    return made


def created(user: Live, pod: str, field: str, name: str) -> Json:
    labels, annotations = ({name: "1"} if field == each else {} for each in ("labels", "annotations"))
    return user.pod(pod, 64, labels=labels, annotations=annotations)


def change(user: Live, field: str, name: str, text: str | None) -> None:
    user.patch("pods", "gated", {"metadata": {field: {name: text}}})


@pytest.mark.parametrize(("field", "name"), MUSTERS)
def test_name_of_musters_is_refused_on_creation(user: Live, field: str, name: str) -> None:
    with pytest.raises(Forbidden, match=f"{name}: {REFUSED}"):
        created(user, "forged", field, name)


@pytest.mark.usefixtures("gated")
@pytest.mark.parametrize(("field", "name"), MUSTERS)
def test_name_of_musters_is_neither_set_nor_changed_nor_removed(user: Live, field: str, name: str) -> None:
    for before, after in ((None, "1"), ("1", "2"), ("1", None)):
        change(user.by_muster(), field, name, before)
        with pytest.raises(Forbidden, match=f"{name}: {REFUSED}"):
            change(user, field, name, after)
    change(user, "annotations", "example.com/note", "a change that leaves the name as it is")


def test_each_name_of_musters_in_a_template_is_refused_to_the_controller_that_copies_it(user: Live) -> None:
    body = template(1, schedulerName=names.SCHEDULER, restartPolicy="Never")
    body["metadata"]["annotations"] = dict.fromkeys(ONLY.annotations, "1")
    user.create("jobs", {"metadata": {"name": "batch"}, "spec": {"template": body}})
    user.wait(lambda: user.told("batch", f"{', '.join(ONLY.annotations)}: {REFUSED}"), "the Job says why it has no pod")
    assert not user.pods()


@pytest.mark.usefixtures("gated")
@pytest.mark.parametrize(("field", "name"), USERS)
def test_name_of_users_is_written_by_a_user(user: Live, field: str, name: str) -> None:
    created(user, "free", field, name)
    for text in ("1", "2", None):
        change(user, field, name, text)


def test_every_name_is_in_one_of_the_lists() -> None:
    listed = [each for kinds in (names.USERS_WRITE, names.MUSTER_WRITES) for each in kinds.values()]
    written = {name for each in listed for name in (*each.labels, *each.annotations)}
    ours = {text for text in vars(names).values() if isinstance(text, str) and text.startswith(f"{names.GROUP}/")}
    assert ours - {names.API_VERSION} == written


@pytest.mark.usefixtures("gated")
def test_gate_is_not_removed_by_a_user(user: Live) -> None:
    with pytest.raises(Forbidden, match=f"the scheduling gate {names.GATE} is removed by muster alone"):
        user.patch("pods", "gated", {"spec": {"schedulingGates": []}})


def test_gate_of_the_users_own_is_removed_by_the_user(user: Live) -> None:
    user.pod("both", 64, hold=True)
    user.let_run()
    assert user.get("pods", "both")["spec"]["schedulingGates"] == [{"name": names.GATE}]


def test_pod_exported_with_musters_annotations_is_refused_until_they_are_left_out(user: Live) -> None:
    user.pod("exported", 1, run=0)
    user.wait(lambda: user.get("pods", "exported")["status"]["phase"] == "Succeeded", "it has run")
    exported = user.get("pods", "exported")
    user.delete("pods", "exported")
    user.wait(lambda: not user.exists("pods", "exported"), "it is gone")
    spec = {key: value for key, value in exported["spec"].items() if key != "nodeName"}
    meta = {key: exported["metadata"][key] for key in ("name", "annotations")}
    with pytest.raises(Forbidden, match="leave them out of what you create"):
        user.create("pods", {"metadata": meta, "spec": spec})
    user.create("pods", {"metadata": {"name": "exported"}, "spec": spec})


@pytest.fixture
def rights(cluster: LocalCluster, namespace: str) -> None:
    """The namespace's user may write PodTemplates, which the role edit does not include."""
    path = "/apis/rbac.authorization.k8s.io/v1"
    rule = {"apiGroups": [""], "resources": ["podtemplates"], "verbs": ["*"]}
    head = {"apiGroup": "rbac.authorization.k8s.io"}
    cluster.api.create(f"{path}/namespaces/{namespace}/roles", {"metadata": {"name": "templates"}, "rules": [rule]})
    binding = {
        "metadata": {"name": "templates"},
        "roleRef": head | {"kind": "Role", "name": "templates"},
        "subjects": [head | {"kind": "User", "name": namespace}],
    }
    cluster.api.create(f"{path}/namespaces/{namespace}/rolebindings", binding)


@pytest.mark.usefixtures("rights")
def test_template_of_a_pod_to_create_again_is_written_by_the_operator_only(user: Live) -> None:
    labels = {names.TAKEN_BACK: "true"}
    forged = {"metadata": {"name": "forged", "labels": labels}, "template": template(1) | {"metadata": {"name": "brought"}}}
    plain = {"metadata": {"name": "plain"}, "template": template(1)}
    user.wait(lambda: allowed(user, plain), "the user may write PodTemplates")
    refused = "are pods that muster creates again"
    with pytest.raises(Forbidden, match=refused):
        user.create("podtemplates", forged)
    user.create("podtemplates", plain)
    with pytest.raises(Forbidden, match=refused):
        user.patch("podtemplates", "plain", {"metadata": {"labels": labels}})


def allowed(user: Live, body: Json) -> bool:
    try:
        user.api.create(user.path("podtemplates"), body, dry_run=True)
    except Forbidden:
        return False
    return True


@pytest.fixture
def scheduler(cluster: LocalCluster) -> Api:
    """The API server as extender and kube-scheduler see it."""
    return cluster.api_for(stack.ACCOUNTS.scheduler, "system:masters")


@pytest.mark.usefixtures("gated")
def test_scheduler_changes_the_wake_annotation_of_a_pod_and_nothing_else(user: Live, scheduler: Api) -> None:
    by_scheduler = user.by(scheduler)
    change(by_scheduler, "annotations", names.WAKE, "1")
    others: list[Json] = [
        *({"metadata": {field: {name: "1"}}} for field, name in MUSTERS + USERS if name != names.WAKE),
        {"metadata": {"annotations": {names.WAKE: "2", "example.com/note": "1"}}},
        {"metadata": {"finalizers": ["example.com/never"]}},
        {"spec": {"schedulingGates": []}},
        {"spec": {"activeDeadlineSeconds": 1}},
    ]
    for body in others:
        with pytest.raises(Forbidden, match=f"the annotation {names.WAKE} of a pod and nothing else"):
            by_scheduler.patch("pods", "gated", body)


def node_writers(cluster: LocalCluster) -> dict[str, Api]:
    return {
        "administrator": cluster.api,
        "operator": cluster.api_for(stack.ACCOUNTS.operator, "system:masters"),
        "agent": cluster.api_for(stack.ACCOUNTS.agent, "system:masters"),
    }


def test_topology_of_a_node_is_written_by_the_agent_only(cluster: LocalCluster) -> None:
    node = "/api/v1/nodes/pcie-8-0"

    def write(who: str, **meta: Any) -> None:
        node_writers(cluster)[who].patch(node, {"metadata": meta})

    cluster.wait(lambda: names.TOPOLOGY in cluster.api.get(node)["metadata"].get("annotations", {}), "the agent has written it")
    topology = cluster.api.get(node)["metadata"]["annotations"][names.TOPOLOGY]
    for who in ("administrator", "operator"):
        with pytest.raises(Forbidden, match="is written by muster's agent on the node"):
            write(who, annotations={names.TOPOLOGY: "{}"})
        write(who, annotations={"example.com/note": who})
    write("administrator", annotations={names.TOPOLOGY: None})
    write("agent", annotations={names.TOPOLOGY: topology})
    with pytest.raises(Forbidden, match=f"has more than {MOST_CHARACTERS} characters"):
        write("agent", annotations={names.TOPOLOGY: "x" * (MOST_CHARACTERS + 1)})
    for other in ({"annotations": {"example.com/note": "agent"}}, {"labels": {names.RACK: "elsewhere"}}):
        with pytest.raises(Forbidden, match="and nothing else"):
            write("agent", **other)


@pytest.mark.usefixtures("gated")
@pytest.mark.parametrize("subresource", ["ephemeralcontainers", "resize"])
def test_subresource_that_a_user_may_have_writes_no_name(user: Live, cluster: LocalCluster, subresource: str) -> None:
    """They are not matched by the policies; the API server takes nothing of the metadata from them."""
    with suppress(ApiError):  # the pod may not be resized, say
        cluster.api.patch(f"{user.path('pods', 'gated')}/{subresource}", {"metadata": {"annotations": {names.GPUS: "0"}}})
    assert names.GPUS not in user.get("pods", "gated")["metadata"].get("annotations", {})
