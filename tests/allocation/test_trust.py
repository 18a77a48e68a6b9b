"""What counts of a pod's own words: who vouches for it, and for how long."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from muster.allocation.trust import CLAIM_SECONDS, LEAVING_SECONDS
from muster.allocation.view import ClusterView
from muster.allocation.vouching import Admission, is_enforced
from muster.api import names, write_policies
from muster.kube.objects import DLJob, Node, Pod

Json = dict[str, Any]
ALL, NONE, NAMED = 0b1111, 0, 0b1100
"""What is free of node n: everything, nothing of GPUs 0 and 1 left, or GPUs 2 and 3."""


class Clock:
    """A monotonic clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A view of one node of four GPUs."""

    def __init__(self, *, vouched: bool) -> None:
        self.clock = Clock()
        self.view = ClusterView(self.clock)
        self.view.vouch(vouched)
        status = {"allocatable": {names.GPU: "4"}, "conditions": [{"type": "Ready", "status": "True"}]}
        self.view.nodes.put(msgspec.convert({"metadata": {"name": "n", "resourceVersion": "1"}, "status": status}, Node))
        self._version = 1

    @property
    def free(self) -> int:
        return self.view.usable()["n"].free

    @property
    def leaving(self) -> int:
        return self.view.usable()["n"].leaving

    def pod(self, name: str = "p", *, node: str | None = None, gates: tuple[str, ...] = (), **meta: Any) -> Pod:
        """Put a pod pinned to node n, or bound to it, that says it was given GPUs 0 and 1."""
        self._version += 1
        head = {"name": name, "namespace": "v", "uid": f"uid-{name}", "resourceVersion": str(self._version)}
        pin = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [pin]}}
        spec: Json = {
            "schedulerName": names.SCHEDULER,
            "containers": [{"resources": {"limits": {names.GPU: "2"}}}],
            "affinity": {"nodeAffinity": required},
            "schedulingGates": [{"name": gate} for gate in gates],
        }
        body = {
            "metadata": head | {"annotations": {names.GPUS: "0,1"}} | meta,
            "spec": spec | ({"nodeName": node} if node else {}),
        }
        made = msgspec.convert(json.loads(json.dumps(body)), Pod)
        self.view.pods.put(made)
        return made

    def job(self, name: str = "j", uid: str = "uid-j", gpus: tuple[int, ...] = (), pod: str = "p") -> None:
        """Put a DLJob, which may reserve GPUs of node n for a pod."""
        self._version += 1
        placement = [{"pod": pod, "node": "n", "gpus": gpus}] if gpus else []
        meta = {"name": name, "namespace": "v", "uid": uid, "resourceVersion": str(self._version)}
        body = {"metadata": meta, "status": {"attempt": 1, "placement": placement}}
        self.view.jobs.put(msgspec.json.decode(json.dumps(body), type=DLJob))


def owned(
    uid: str = "uid-j", job: str = "j", label: str | None = "j", kind: str = "DLJob", group: str = names.API_VERSION
) -> Json:
    """The metadata of a pod that says that it is a DLJob's."""
    owner = {"apiVersion": group, "kind": kind, "name": job, "uid": uid, "controller": True}
    return {"ownerReferences": [owner], "labels": {names.JOB: label} if label else {}}


@pytest.fixture
def vouched() -> World:
    return World(vouched=True)


@pytest.fixture
def unvouched() -> World:
    return World(vouched=False)


def test_unbound_pod_claims_gpus_only_where_the_policy_vouches_for_it(vouched: World, unvouched: World) -> None:
    for world, free in ((vouched, NAMED), (unvouched, ALL)):
        world.pod()
        assert world.free == free
        world.view.vouch(not world.view.trust.vouched)
        assert world.free == (ALL if free == NAMED else NAMED)


def test_bound_pod_holds_as_many_gpus_as_it_asks_for_whatever_it_says(unvouched: World) -> None:
    unvouched.pod(node="n")
    assert unvouched.free.bit_count() == 2
    unvouched.pod(node="n", annotations={names.GPUS: "2,3"})
    unvouched.pod("q", annotations={names.GPUS: "2,3"})
    assert unvouched.free.bit_count() == 2


@pytest.mark.parametrize("gates", [("example.com/own",), (names.GATE,), (names.GATE, "example.com/own")])
def test_pod_with_any_gate_left_holds_nothing(vouched: World, gates: tuple[str, ...]) -> None:
    vouched.pod(gates=gates)
    assert vouched.free == ALL
    vouched.pod()
    assert vouched.free == NAMED


def test_claim_lapses_by_time_alone_and_a_change_of_the_pod_does_not_renew_it(vouched: World) -> None:
    vouched.pod()
    vouched.clock.now += CLAIM_SECONDS - 1
    assert (vouched.free, vouched.view.trust.lapses_in()) == (NAMED, 1.0)
    vouched.clock.now += 1
    assert vouched.free == ALL
    vouched.pod(annotations={names.GPUS: "0,1", "example.com/note": "again"})
    assert (vouched.free, vouched.view.trust.lapses_in()) == (ALL, None)
    vouched.pod(node="n")
    assert vouched.free == NAMED, "once it is bound, it holds its GPUs"


def test_what_this_process_wrote_counts_without_the_policy_while_it_stands(unvouched: World) -> None:
    made = unvouched.pod(gates=(names.GATE,))
    unvouched.view.trust.wrote(made.metadata, "0,1")
    unvouched.pod()
    assert unvouched.free == NAMED
    unvouched.pod(annotations={names.GPUS: "2,3"})
    assert unvouched.free == ALL


@pytest.mark.parametrize(
    "meta",
    [
        owned(uid="uid-of-nothing", group="example.com/v1"),
        owned(label=None),
        owned(label="other"),
        owned(job="other"),
        owned(kind="Job"),
    ],
    ids=["group", "no-label", "label", "name", "kind"],
)
def test_pod_that_merely_says_that_a_dljob_owns_it_is_not_leaving(vouched: World, meta: Json) -> None:
    vouched.job()
    vouched.pod(node="n", **meta)
    assert (vouched.free, vouched.leaving) == (NAMED, 0)


def test_pod_of_a_dljob_that_is_not_there_is_leaving_only_where_the_policy_vouches_for_its_label(
    vouched: World, unvouched: World
) -> None:
    """An operator that starts never saw a job that was deleted just before; its pods go after it all the same."""
    for world, leaving in ((vouched, 0b0011), (unvouched, 0)):
        world.job()
        world.pod(node="n", **owned(uid="uid-of-nothing"))
        assert (world.free, world.leaving) == (NAMED, leaving)
        world.view.vouch(not world.view.trust.vouched)
        assert world.leaving == 0b0011 - leaving


def test_pod_of_a_dljob_is_leaving_where_nothing_is_reserved_for_it(vouched: World) -> None:
    vouched.pod(node="n", **owned())
    vouched.job(gpus=(0, 1))
    assert vouched.leaving == 0, "its reservation keeps its GPUs"
    vouched.job()
    assert vouched.leaving == 0b0011
    vouched.view.jobs.remove("v/j", 99)
    assert vouched.leaving == 0b0011, "the garbage collector deletes the pods of a deleted job"
    vouched.job(uid="uid-of-the-next")
    assert vouched.leaving == 0b0011


def test_pod_without_an_end_is_waited_for_only_so_long(vouched: World) -> None:
    vouched.pod(node="n", deletionTimestamp="2099-01-01T00:00:00Z")
    assert vouched.leaving == 0b0011
    vouched.clock.now += LEAVING_SECONDS
    assert (vouched.free, vouched.leaving) == (NAMED, 0)


def test_own_pod_of_a_dljob_names_no_other_gpus_than_those_reserved_for_it(unvouched: World) -> None:
    unvouched.job(gpus=(0, 1))
    unvouched.pod(node="n", **owned(), annotations={names.GPUS: "2,3"})
    assert unvouched.free == NAMED


def admission(kind: str, **spec: Any) -> Admission:
    made = next(each for each in write_policies.manifests(write_policies.CHART) if each["kind"].endswith(kind))
    return msgspec.convert(made | {"spec": made["spec"] | spec}, Admission)


def test_policy_counts_while_it_is_bound_everywhere_to_deny() -> None:
    policy, binding = admission("Policy"), admission("Binding")
    assert is_enforced(policy, binding)
    assert not is_enforced(admission("Policy", failurePolicy="Ignore"), binding)
    for spec in (
        {"validationActions": ["Audit", "Warn"]},
        {"policyName": "another"},
        {"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}},
    ):
        assert not is_enforced(policy, admission("Binding", **spec))
