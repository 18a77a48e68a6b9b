"""Which nodes a pod may go to: the filter, as a pure function of the view, the pod and the names of the nodes.

The first rule that applies to a pod decides:
1. FREE: the pod asks for no GPUs. Every node passes.
2. OWNER: GPUs are reserved for the pod by its DLJob. The reserved node passes.
3. AWAITED: the pod says that a DLJob owns it, and the view has no reservation yet. No node passes; ask again when jobs change.
   WITHDRAWN: the reservation is gone or belongs to a later attempt; or the pod bears the label of DLJobs' pods, which frees it
   from the gate, without being a DLJob's. No node passes.
4. PINNED: the operator has named its node and GPUs. That node passes while nobody else holds them: anybody can write
   annotations, so they are a claim and never a right.
5. OPEN: any other pod passes on nodes with enough GPUs that are neither held nor reserved.

Invariant: no pod passes on a node where it could take GPUs that are reserved for another pod.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from muster.allocation.claims import free_to_claim, free_to_owner
from muster.allocation.pods import annotated_gpus, gpus_of, pinned_to
from muster.allocation.reservations import Reservation
from muster.allocation.view import ClusterView
from muster.api import names, texts
from muster.kube.objects import Pod
from muster.scheduling.placing.fit import misfit
from muster.scheduling.topology.links import GpuSet
from muster_extender.assumed_pods import AssumedPods
from muster_extender.fit_cache import FitCache, unknown
from muster_extender.outstanding import Outstanding
from muster_extender.reasons import MOST_SENTENCES, Refusal, gpus, holders, numbered, plain


class Rule(StrEnum):
    """The rule that decided about a pod."""

    FREE = "free"
    OWNER = "owner"
    AWAITED = "awaited"
    WITHDRAWN = "withdrawn"
    PINNED = "pinned"
    OPEN = "open"


@dataclass(slots=True)
class Verdict:
    """Which nodes pass, in the order asked, and for each other node why not."""

    rule: Rule
    gpus: int
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    unresolvable: dict[str, str] = field(default_factory=dict)
    node: str | None = None
    """The only node that the pod can go to, if there is only one."""
    transient: bool = False
    """A node was refused because of assumed pods only: such a refusal ends by itself."""

    def refuse(self, name: str, refusal: Refusal) -> None:
        """Add a node that does not pass."""
        (self.unresolvable if refusal.unresolvable else self.failed)[name] = refusal.sentence
        self.transient |= refusal.transient


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that the rules read."""

    view: ClusterView
    assumed: AssumedPods
    outstanding: Outstanding
    fits: FitCache


def cluster(view: ClusterView) -> Cluster:
    """Return what the rules read, without assumed pods at first; all of it follows the view by itself."""
    assumed = AssumedPods()
    view.pods.subscribe(assumed.pod_changed)
    return Cluster(view, assumed, Outstanding(view), FitCache(view))


def filter_nodes(cluster: Cluster, pod: Pod, nodes: list[str]) -> Verdict:
    """Judge each of `nodes` for `pod`; raise ValueError if an amount in the pod is not a quantity."""
    count = gpus_of(pod)
    if count <= 0:
        return Verdict(Rule.FREE, 0, passed=list(nodes))
    owned = reservation_for(cluster.view, pod)
    if isinstance(owned, Reservation):
        return _only(cluster, Verdict(Rule.OWNER, count, node=owned.node), pod, nodes, owned.gpus)
    if owned is not None:
        rule, sentence = owned
        return Verdict(rule, count, unresolvable=dict.fromkeys(nodes, sentence))
    claimed, pin = annotated_gpus(pod, count), pinned_to(pod.spec)
    if claimed and pin is not None:
        return _only(cluster, Verdict(Rule.PINNED, count, node=pin), pod, nodes, claimed)
    return _open(cluster, Verdict(Rule.OPEN, count), pod, nodes)


def reservation_for(view: ClusterView, pod: Pod) -> Reservation | tuple[Rule, str] | None:
    """Return a DLJob's reservation for its pod, or why there is none; None for a pod that does not claim to be a DLJob's."""
    owner, job_name = pod.metadata.controller, pod.metadata.label(names.JOB)
    if job_name is None:
        return None
    if owner is None or owner.kind != "DLJob" or owner.name != job_name:
        return (
            Rule.WITHDRAWN,
            f"the label {names.JOB} is for pods of DLJobs, and no DLJob {job_name} owns this pod: remove the label",
        )
    key = f"{pod.metadata.namespace}/{owner.name}"
    reservation = view.reservations.get(pod.metadata.key)
    attempt = _attempt(pod)
    if reservation is not None and reservation.job.key == key and reservation.job.uid == owner.uid:
        if attempt is None or attempt == reservation.job.attempt or _same_gpus(pod, reservation):
            return reservation
        return _other_attempt(key, attempt, reservation.job.attempt)
    job = view.reservations.job(key)
    if job is not None and job.uid == owner.uid and attempt is not None:
        return _other_attempt(key, attempt, job.attempt)
    return (
        Rule.AWAITED,
        f"no GPUs are reserved for this pod: the extender has not seen a placement of DLJob {key} that names it",
    )


def _other_attempt(job: str, attempt: int, seen: int) -> tuple[Rule, str]:
    """The pod is of another attempt than the job in the view: of a later one only if the view lags behind."""
    if attempt > seen:
        return (
            Rule.AWAITED,
            f"no GPUs are reserved for this pod yet: it is of attempt {attempt} of DLJob {job}, seen is {seen}",
        )
    return (
        Rule.WITHDRAWN,
        f"no GPUs are reserved for this pod any more: it is of attempt {attempt} of DLJob {job}, now at {seen}",
    )


def _attempt(pod: Pod) -> int | None:
    return texts.number(pod.metadata.annotation(names.ATTEMPT), 9)


def _same_gpus(pod: Pod, reservation: Reservation) -> bool:
    """Whether a new placement gives a pod of an earlier attempt what it had before."""
    return annotated_gpus(pod, reservation.gpus.bit_count()) == reservation.gpus and pinned_to(pod.spec) == reservation.node


def _only(cluster: Cluster, verdict: Verdict, pod: Pod, nodes: list[str], wanted: GpuSet) -> Verdict:
    """Pass the one node, if the GPUs wanted there are free."""
    owner, where = verdict.rule is Rule.OWNER, f"{numbered(wanted)} of node {verdict.node}"
    sentence = f"this pod is reserved {where}" if owner else f"this pod is pinned to {where}"
    verdict.unresolvable = {name: sentence for name in nodes if name != verdict.node}
    if verdict.node in nodes:
        refusal = _claim(cluster, verdict.node, pod, wanted, verdict.gpus, owner)
        if refusal is None:
            verdict.passed.append(verdict.node)
        else:
            verdict.refuse(verdict.node, refusal)
    return verdict


def _claim(cluster: Cluster, name: str, pod: Pod, wanted: GpuSet, count: int, owner: bool) -> Refusal | None:
    """Return why a pod cannot have the GPUs `wanted` of a node; None if it can."""
    view, task = cluster.view, pod.metadata.key
    node = view.node(name)
    if node is None:
        return unknown(view, name)
    free = free_to_owner(view, name, task) if owner else free_to_claim(view, name, task)
    problem = misfit(wanted, node.healthy, free)
    if problem is not None and problem.unusable:
        missing = numbered(problem.unusable)
        return Refusal(True, f"{missing} of node {name}, given to this pod, cannot be used: not there or unhealthy")
    if problem is not None:
        who = holders(view, name, problem.held, task) or "pods that name no GPUs or a job's reservation"
        return Refusal(not owner, f"{numbered(problem.held)} of node {name}, given to this pod, held by {who}")
    if free.bit_count() < count:
        return Refusal(True, f"needs {gpus(count)} but was given {numbered(wanted)}, and {free.bit_count()} are free")
    assumed = cluster.assumed.gpus_on(name, but=task, known_to=pod.spec.scheduler_name)
    if free.bit_count() - assumed < count:
        why = f"{free.bit_count()} free, pods being bound by another kube-scheduler may take {assumed}"
        return Refusal(True, f"needs {gpus(count)}: {why}", transient=True)
    return None


def _open(cluster: Cluster, verdict: Verdict, pod: Pod, nodes: list[str]) -> Verdict:
    """Pass the nodes with enough free GPUs, except where assumed pods may take them."""
    fit = cluster.fits.of(verdict.gpus)
    fitting, refusal, reader = fit.fitting, fit.refusal, pod.metadata.namespace or ""
    verdict.passed = [name for name in nodes if name in fitting]
    if len(verdict.passed) < len(nodes):
        for name in nodes:
            if name not in fitting:
                verdict.refuse(name, refusal(name, reader))
    if len(cluster.assumed):
        _keep_back(cluster, verdict, pod)
    if len(verdict.failed) + len(verdict.unresolvable) > MOST_SENTENCES:
        _shorten(verdict)
    return verdict


def _keep_back(cluster: Cluster, verdict: Verdict, pod: Pod) -> None:
    """Refuse nodes where assumed pods may leave too few GPUs.

    On nodes with outstanding reservations every assumed pod counts; elsewhere those of other kube-schedulers, since the
    scheduler that asks counts its own.
    """
    task, scheduler = pod.metadata.key, pod.spec.scheduler_name
    others = cluster.assumed.any_of_others(scheduler)
    for name in [name for name in verdict.passed if others or name in cluster.outstanding]:
        node = cluster.view.node(name)
        assumed = cluster.assumed.gpus_on(name, but=task, known_to=None if name in cluster.outstanding else scheduler)
        free = node.free.bit_count() if node else 0
        if free - assumed < verdict.gpus:
            why = f"needs {gpus(verdict.gpus)}: {free} are neither held nor reserved, pods being bound may take {assumed}"
            verdict.refuse(name, Refusal(True, why, transient=True))
    verdict.passed = [name for name in verdict.passed if name not in verdict.unresolvable]


def _shorten(verdict: Verdict) -> None:
    """Use one plain sentence for each kind of refusal if there would be too many distinct ones."""
    for unresolvable, refusals in ((True, verdict.unresolvable), (False, verdict.failed)):
        if len(set(refusals.values())) > MOST_SENTENCES:
            sentence = plain(verdict.gpus, unresolvable)
            for name in refusals:
                refusals[name] = sentence
