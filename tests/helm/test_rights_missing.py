"""Missing rights: the loss of each right is reported, and work continues when it is restored.

A right in two roles cannot be revoked through one of them: kube-scheduler's own role lets the extender read nodes and pods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import pytest

from builders.chart import NAMESPACE, RELEASE
from builders.installed import (
    ACCOUNT,
    NODES,
    RBAC,
    TEAM,
    Right,
    World,
    bare_pod,
    hang,
    kept,
    phase,
    refuse_and_make_room,
    rights,
    rob,
    uid,
)
from muster.api import names, write_policies

pytestmark = pytest.mark.cluster

LISTED_ON_DEMAND: Right = ("", "events", "list")
"""The one right to list that is not needed for a start of the operator."""
OWNING: Right = ("muster.dev", "dljobs/finalizers", "update")
"""A right checked by an admission plugin, which rejects with its own message."""


def seen_in_job(world: World) -> str:
    """Submit a job and return its status with the missing right."""
    world.submit("poor")
    world.cluster.wait(lambda: "cannot" in str(world.job("poor").get("status")), "the job reports the missing right")
    return str(world.job("poor")["status"])


def seen_in_log(world: World, name: str, text: str) -> str:
    """Wait until a program's log contains a text; return the log."""
    world.cluster.wait(lambda: text in world.parts.log(name), f"{name} logs {text}")
    return world.parts.log(name)


def reserving(world: World) -> str:
    world.submit("poor")
    log = seen_in_log(world, "operator", 'cannot patch resource "dljobs/status"')
    assert not world.pods("poor")
    return log


def recording_an_event(world: World) -> str:
    world.submit("poor", rendezvous="None")
    return seen_in_log(world, "operator", 'cannot create resource "events"')


def ungating(world: World) -> str:
    world.cluster.api.create(world.path("pods"), bare_pod("gated"))
    log = seen_in_log(world, "operator", 'cannot patch resource "pods"')
    assert world.cluster.api.get(world.path("pods", "gated"))["spec"]["schedulingGates"]
    return log


def storing_a_pod(world: World) -> str:
    before = rob(world, "gated")
    log = seen_in_log(world, "operator", 'cannot create resource "podtemplates"')
    assert uid(world, "gated") == before, "a pod without a stored template is not deleted"
    world.remove("pods", "gated")
    world.remove("pods", "robber")
    return log


def stopping(world: World) -> str:
    world.submit("poor")
    world.await_phase("poor", "Running")
    world.cluster.kubectl("annotate", "dljob", "poor", f"{names.SUSPEND}=true", "-n", TEAM)
    log = seen_in_log(world, "operator", 'cannot delete resource "pods"')
    assert world.pods("poor")
    return log


def reading_for_pinning(world: World) -> str:
    world.cluster.api.create(world.path("pods"), bare_pod("gated"))
    return seen_in_log(world, "operator", 'cannot get resource "pods"')


def reading_templates(world: World) -> str:
    world.submit("poor")
    log = seen_in_log(world, "operator", 'cannot get resource "dljobs"')
    assert not world.pods("poor")
    return log


def finding_a_name_taken(world: World) -> str:
    world.cluster.api.create(world.path("services"), {"metadata": {"name": "poor"}, "spec": {"clusterIP": "None"}})
    world.submit("poor")
    try:
        return seen_in_log(world, "operator", 'cannot get resource "services"')
    finally:
        world.remove("dljobs", "poor")
        world.remove("services", "poor")


def giving_a_start_up(world: World) -> str:
    hang(world, "poor")
    return seen_in_log(world, "operator", 'cannot list resource "events"')


def tidying_up(world: World) -> str:
    world.submit("poor", template={"annotations": {names.RUN_SECONDS: "1"}})
    return seen_in_log(world, "operator", 'cannot delete resource "services"')


def recreating_a_pod(world: World) -> str:
    """The pod was stored and deleted; it is created again once allowed (`settle`)."""
    rob(world, "gated")
    log = seen_in_log(world, "operator", 'cannot get resource "podtemplates"')
    world.remove("pods", "robber")
    return log


def deleting_a_stored_pod(world: World) -> str:
    rob(world, "gated")
    log = seen_in_log(world, "operator", 'cannot delete resource "podtemplates"')
    world.remove("pods", "robber")
    return log


def forwarding_an_annotation(world: World) -> str:
    world.submit("poor")
    world.await_phase("poor", "Running")
    world.cluster.kubectl("annotate", "pod", "poor-worker-0", f"{names.SUSPEND}=true", "-n", TEAM)
    return seen_in_log(world, "operator", 'cannot patch resource "dljobs"')


def removing_an_expired_job(world: World) -> str:
    world.submit("poor", ttlSecondsAfterFinished=0, template={"annotations": {names.RUN_SECONDS: "1"}})
    log = seen_in_log(world, "operator", 'cannot delete resource "dljobs"')
    assert world.cluster.exists(world.path("dljobs", "poor"))
    return log


def counting_a_queue(world: World) -> str:
    queue = {"apiVersion": names.API_VERSION, "kind": "DLQueue", "metadata": {"name": "poor"}, "spec": {"gpus": 64}}
    world.cluster.api.create(world.path("dlqueues"), queue)
    world.submit("poor", queue="poor")
    try:
        return seen_in_log(world, "operator", 'cannot patch resource "dlqueues/status"')
    finally:
        world.remove("dlqueues", "poor")


def waking(world: World) -> str:
    """The end of the gang's pods may also wake the pod; in one of several rounds the extender does so first."""
    text = refusal(("", "pods", "patch"))
    for _ in range(10):
        refuse_and_make_room(world)
        world.cluster.wait(lambda: text in world.parts.log("extender") or phase(world, "late") == "Running", "it is woken")
        world.remove("pods", "late")
        if text in world.parts.log("extender"):
            break
    return world.parts.log("extender")


def publishing(world: World) -> str:
    node = "dgx-a100-0"
    world.cluster.kubectl("annotate", "node", node, f"{names.TOPOLOGY}-")
    world.parts.start_agent(node, NODES[node], "poor-agent")
    try:
        return seen_in_log(world, "poor-agent", 'cannot patch resource "nodes"')
    finally:
        world.parts.stop("poor-agent")


def reading_the_published_topology(world: World) -> str:
    world.parts.start_agent("dgx-a100-0", NODES["dgx-a100-0"], "poor-reader")
    try:
        return seen_in_log(world, "poor-reader", 'cannot get resource "nodes"')
    finally:
        world.parts.stop("poor-reader")


def asking_for_the_policy(world: World) -> str:
    return seen_in_log(world, "operator", "annotations of pods count for nothing")


def asking_for_the_policy_too(world: World) -> str:
    return seen_in_log(world, "extender", "annotations of pods count for nothing")


@pytest.mark.parametrize(
    ("part", "right", "provoke"),
    [
        ("operator", ("", "pods", "create"), seen_in_job),
        ("operator", ("", "pods", "get"), reading_for_pinning),
        ("operator", ("", "pods", "patch"), ungating),
        ("operator", ("", "pods", "delete"), stopping),
        ("operator", ("", "services", "create"), seen_in_job),
        ("operator", ("", "services", "get"), finding_a_name_taken),
        ("operator", ("", "services", "delete"), tidying_up),
        ("operator", ("", "podtemplates", "create"), storing_a_pod),
        ("operator", ("", "podtemplates", "get"), recreating_a_pod),
        ("operator", ("", "podtemplates", "delete"), deleting_a_stored_pod),
        ("operator", ("", "events", "create"), recording_an_event),
        ("operator", LISTED_ON_DEMAND, giving_a_start_up),
        ("operator", ("muster.dev", "dljobs", "get"), reading_templates),
        ("operator", ("muster.dev", "dljobs", "patch"), forwarding_an_annotation),
        ("operator", ("muster.dev", "dljobs", "delete"), removing_an_expired_job),
        ("operator", ("muster.dev", "dljobs/status", "patch"), reserving),
        ("operator", OWNING, seen_in_job),
        ("operator", ("muster.dev", "dlqueues/status", "patch"), counting_a_queue),
        ("operator", (write_policies.GROUP, "validatingadmissionpolicies", "get"), asking_for_the_policy),
        ("scheduler", (write_policies.GROUP, "validatingadmissionpolicybindings", "get"), asking_for_the_policy_too),
        ("scheduler", ("", "pods", "patch"), waking),
        ("agent", ("", "nodes", "patch"), publishing),
        ("agent", ("", "nodes", "get"), reading_the_published_topology),
    ],
)
def test_missing_right_is_reported_and_work_continues(
    world: World, part: str, right: Right, provoke: Callable[[World], str]
) -> None:
    with without_rights(world, part, {right}):
        log = provoke(world)
    assert ("cannot set blockOwnerDeletion" if right == OWNING else refusal(right)) in log
    settle(world)


def refusal(right: Right) -> str:
    """Return the API server's message for a missing right."""
    group, resource, verb = right
    return f'cannot {verb} resource "{resource}" in API group "{group}"'


def settle(world: World) -> None:
    """Wait until requeued pods are created again, and remove the objects of a test."""
    world.cluster.wait(lambda: not kept(world), "no stored pod is left")
    for plural, name in (("dljobs", "poor"), ("pods", "gated")):
        if world.cluster.exists(world.path(plural, name)):
            world.remove(plural, name)


@pytest.mark.parametrize(
    ("part", "verb", "definitions"),
    [
        ("operator", "list", False),
        ("operator", "list", True),
        ("operator", "watch", False),
        ("operator", "watch", True),
        ("scheduler", "list", False),
        ("scheduler", "watch", False),
    ],
)
def test_missing_read_rights_are_reported_until_granted(world: World, part: str, verb: str, definitions: bool) -> None:
    """Without any right to list, or to watch, a starting program reports each, decides nothing, and waits."""
    granted = rights(world.cluster, f"{RBAC}/clusterroles/{RELEASE}-{part}")
    reading = {right for right in granted if right[2] == verb and (right[1] == "customresourcedefinitions") is definitions}
    reading.discard(LISTED_ON_DEMAND)
    assert reading
    program = {"operator": "operator", "scheduler": "extender"}[part]
    name = f"poor-{program}-{verb}-{len(reading)}"
    start = {"operator": world.parts.start_operator, "scheduler": world.parts.start_extender}[part]
    if part == "operator":
        world.parts.stop("operator")
    try:
        with without_rights(world, part, reading):
            url = start(name, wait=False)
            for right in reading:
                seen_in_log(world, name, refusal(right))
            if verb == "list":
                assert page(f"{url}/readyz")[0] == 503
        world.cluster.wait(lambda: page(f"{url}/readyz")[0] == 200, f"{name} is ready")
    finally:
        world.parts.stop(name)
        if part == "operator":
            world.parts.start_operator()


def page(url: str) -> tuple[int, str]:
    """Return the status and the text of a page on loopback; status 0 without a listener."""
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=10) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


@pytest.mark.parametrize("verb", ["get", "update", "create"])
def test_operator_without_lease_right_waits(world: World, verb: str) -> None:
    """The operator is not ready, reports the missing right, and leads once it is granted."""
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{RELEASE}-operator"
    candidate = f"poor-candidate-{verb}"
    world.parts.stop("operator")
    if verb == "create":
        world.cluster.api.delete(lease)
    try:
        with without_lease_right(world, "operator", verb) as right:
            url = world.parts.start_operator(candidate, wait=False)
            world.cluster.wait(lambda: refusal(right) in page(f"{url}/readyz")[1], "the missing right is reported")
            assert page(f"{url}/readyz")[0] == 503
        world.cluster.wait(lambda: page(f"{url}/readyz") == (200, "ok"), "the operator is ready")
        world.cluster.wait(lambda: world.cluster.api.get(lease)["spec"].get("holderIdentity"), "the operator leads")
    finally:
        world.parts.stop(candidate)
        world.parts.start_operator()


@pytest.mark.parametrize("verb", ["get", "update"])
def test_kube_scheduler_without_lease_right_waits(world: World, verb: str) -> None:
    candidate = f"poor-scheduler-{verb}"

    def logged(text: str) -> bool:
        return text in world.parts.log(candidate).replace('\\"', '"').lower()

    for part in ("scheduler", "extender"):
        world.parts.stop(part)
    world.parts.start_extender()
    try:
        with without_lease_right(world, "scheduler", verb) as right:
            world.parts.start_scheduler(candidate)
            world.cluster.wait(lambda: logged(refusal(right).lower()), "the missing right is reported")
            assert not logged("successfully acquired lease")
        world.cluster.wait(lambda: logged("successfully acquired lease"), "kube-scheduler leads")
    finally:
        world.parts.stop(candidate)
        world.parts.start_scheduler()


@contextmanager
def without_lease_right(world: World, part: str, verb: str) -> Iterator[Right]:
    """Revoke a program's right to its lease, and restore it."""
    role, right = f"{RBAC}/namespaces/{NAMESPACE}/roles/{RELEASE}-{part}", ("coordination.k8s.io", "leases", verb)

    def set_to(rules: list[dict[str, Any]], *, allowed: bool) -> None:
        world.cluster.api.patch(role, {"rules": rules})
        in_force = "the role is in force"
        world.cluster.wait(lambda: may(world, part, right, NAMESPACE, f"{RELEASE}-{part}") is allowed, in_force)

    rules = world.cluster.api.get(role)["rules"]
    try:
        set_to([without(rule, right) for rule in rules], allowed=False)
        yield right
    finally:
        set_to(rules, allowed=True)


def test_revoked_right_of_a_running_operator_is_reported_by_event_and_metric(world: World) -> None:
    """An Event about the operator's pod and a metric report the loss; the work is done once the right is restored."""
    right = ("", "pods", "delete")
    world.parts.stop("operator")
    url = world.parts.start_operator("watched-operator")
    pod = world.parts.pod("operator")["metadata"]
    try:
        world.submit("poor")
        world.await_phase("poor", "Running")
        with without_rights(world, "operator", {right}):
            world.cluster.kubectl("annotate", "dljob", "poor", f"{names.SUSPEND}=true", "-n", TEAM)
            events = f"/api/v1/namespaces/{NAMESPACE}/events?fieldSelector=involvedObject.uid={pod['uid']},reason=Forbidden"
            world.cluster.wait(lambda: refusal(right) in str(world.cluster.api.get(events)["items"]), "an Event reports it")
            world.cluster.wait(lambda: "\nmuster_operator_errors_total 0.0" not in page(f"{url}/metrics")[1], "it is counted")
        world.await_phase("poor", "Suspended")
        world.cluster.wait(lambda: not world.pods("poor"), "its pods are removed")
    finally:
        world.parts.stop("watched-operator")
        world.parts.start_operator()
        settle(world)


@contextmanager
def without_rights(world: World, part: str, missing: set[Right]) -> Iterator[None]:
    """Revoke rights of a program, and restore them."""
    rules = world.cluster.api.get(f"{RBAC}/clusterroles/{RELEASE}-{part}")["rules"]
    reduced = rules
    for right in missing:
        reduced = [without(rule, right) for rule in reduced]
    set_rules(world, part, missing, reduced, allowed=False)
    try:
        yield
    finally:
        set_rules(world, part, missing, rules, allowed=True)


def without(rule: dict[str, Any], right: Right) -> dict[str, Any]:
    """Return a rule without a right; each rule of the chart names one resource."""
    group, resource, verb = right
    if group not in rule["apiGroups"] or resource not in rule["resources"]:
        return rule
    verbs = [granted for granted in rule["verbs"] if granted != verb]
    return {**rule, "verbs": verbs or ["none"]}  # a rule must have at least one verb


def set_rules(world: World, part: str, changed: set[Right], rules: list[dict[str, Any]], *, allowed: bool) -> None:
    """Change a role, and wait until the API server enforces it."""
    world.cluster.api.patch(f"{RBAC}/clusterroles/{RELEASE}-{part}", {"rules": rules})
    named = {right: write_policies.PODS if right[0] == write_policies.GROUP else "" for right in changed}
    in_force = f"the role {part} is in force"
    world.cluster.wait(lambda: all(may(world, part, right, name=named[right]) is allowed for right in changed), in_force)


def may(world: World, part: str, right: Right, namespace: str = TEAM, name: str = "") -> bool:
    """Return whether a program has a right in a namespace, to the object of this name or to any."""
    group, resource, verb = right
    resource, _, sub = resource.partition("/")
    attributes = {"group": group, "resource": resource, "subresource": sub, "verb": verb, "namespace": namespace, "name": name}
    review = {"spec": {"user": ACCOUNT + part, "resourceAttributes": attributes}}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", **review}
    return bool(world.cluster.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"])
