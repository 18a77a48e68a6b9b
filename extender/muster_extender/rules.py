"""Which nodes a pod may go to: the filter, as a pure function of the view, the pod and the names of the nodes.

In order, the first rule that fits a pod decides:
1. FREE: it asks for no GPUs. Every node passes.
2. OWNER: it is the pod of a DLJob to which GPUs are reserved. Its own node passes.
3. AWAITED: it says that it is a DLJob's, but the view knows of no reservation yet. No node passes; ask again when the jobs
   change. WITHDRAWN: the view knows that the reservation is gone, or given to a later attempt; or the pod bears the label of
   DLJobs' pods, which frees it from the gate, and is none's. No node passes.
4. PINNED: the operator named its node and GPUs. That node passes, as long as nobody else holds them: anybody can write
   annotations, so they are a claim and never a right.
5. OPEN: any other pod passes where enough GPUs are neither held nor reserved.

Invariant: no pod passes on a node where it could take GPUs that are reserved for another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from muster.api import names
from muster.kube.objects import Pod, gpus_of, pinned_to
from muster.kube.view import annotated_gpus
from muster.scheduling.topology.links import GpuSet
from muster_extender.assumed_pods import AssumedPods
from muster_extender.fit_cache import FitCache, unknown
from muster_extender.reasons import MOST_SENTENCES, Refusal, gpus, holders, numbered, plain
from muster_extender.reservations import GuardedView, Reservation


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
    """The only node that the pod can go to, where there is only one."""
    passing: bool = False
    """A node was refused for pods that are on their way to it perhaps: that ends by itself."""

    def refuse(self, name: str, refusal: Refusal) -> None:
        (self.unresolvable if refusal.unresolvable else self.failed)[name] = refusal.sentence
        self.passing |= refusal.passing


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the rules read."""

    view: GuardedView
    passed: AssumedPods
    fits: FitCache


def cluster(view: GuardedView) -> Cluster:
    """Return what the rules read, beginning with nobody on the way; pods that are bound leave it by the view's store."""
    passed = AssumedPods()
    view.pods.subscribe(passed.pod_changed)
    return Cluster(view, passed, FitCache(view))


def filter_nodes(seen: Cluster, pod: Pod, nodes: list[str]) -> Verdict:
    """Judge each of `nodes` for `pod`; raise ValueError where an amount in the pod is no quantity."""
    count = gpus_of(pod)
    if count <= 0:
        return Verdict(Rule.FREE, 0, passed=list(nodes))
    found = reservation(seen.view, pod)
    if isinstance(found, Reservation):
        return _only(seen, Verdict(Rule.OWNER, count, node=found.node), pod, nodes, found.gpus)
    if found is not None:
        verdict, sentence = found
        return Verdict(verdict, count, unresolvable=dict.fromkeys(nodes, sentence))
    claimed, pin = annotated_gpus(pod, count), pinned_to(pod.spec)
    if claimed and pin is not None:
        return _only(seen, Verdict(Rule.PINNED, count, node=pin), pod, nodes, claimed)
    return _open(seen, Verdict(Rule.OPEN, count), pod, nodes)


def reservation(view: GuardedView, pod: Pod) -> Reservation | tuple[Rule, str] | None:
    """Return what is reserved for a pod; or why nothing is though it says it is a DLJob's; None for any other pod."""
    owner = pod.metadata.controller
    if pod.metadata.label(names.JOB) is None:
        return None
    if owner is None or owner.kind != "DLJob":
        return (Rule.WITHDRAWN, f"the label {names.JOB} is for pods of DLJobs, and this pod is none's: take it off")
    key = f"{pod.metadata.namespace}/{owner.name}"
    reservation = view.reservations.get(pod.metadata.key)
    attempt = _attempt(pod)
    if reservation is not None and reservation.job.key == key and reservation.job.uid == owner.uid:
        if attempt is None or attempt == reservation.job.attempt or _same_gpus(pod, reservation):
            return reservation
        return _moved(key, attempt, reservation.job.attempt)
    known = view.known.get(key)
    if known is not None and known.uid == owner.uid and attempt is not None:
        return _moved(key, attempt, known.attempt)
    return (
        Rule.AWAITED,
        f"no GPUs are reserved for this pod: the extender has not seen a placement of DLJob {key} that names it",
    )


def _moved(job: str, attempt: int, known: int) -> tuple[Rule, str]:
    """The pod is of another attempt than the job, as far as the view knows: of a later one only if the view is behind."""
    if attempt > known:
        return (
            Rule.AWAITED,
            f"no GPUs are reserved for this pod yet: it is of attempt {attempt} of DLJob {job}, seen is {known}",
        )
    return (
        Rule.WITHDRAWN,
        f"no GPUs are reserved for this pod any more: it is of attempt {attempt} of DLJob {job}, now at {known}",
    )


def _attempt(pod: Pod) -> int | None:
    text = pod.metadata.annotation(names.ATTEMPT) or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _same_gpus(pod: Pod, reservation: Reservation) -> bool:
    """A new placement may give a pod what it had before."""
    return annotated_gpus(pod, reservation.gpus.bit_count()) == reservation.gpus and pinned_to(pod.spec) == reservation.node


def _only(seen: Cluster, verdict: Verdict, pod: Pod, nodes: list[str], wanted: GpuSet) -> Verdict:
    """Pass the one node, if the GPUs wanted there are free."""
    owner, where = verdict.rule is Rule.OWNER, f"{numbered(wanted)} of node {verdict.node}"
    sentence = f"this pod is reserved {where}" if owner else f"this pod is pinned to {where}"
    verdict.unresolvable = {name: sentence for name in nodes if name != verdict.node}
    if verdict.node in nodes:
        refusal = _claim(seen, verdict.node, pod, wanted, verdict.gpus, owner)
        if refusal is None:
            verdict.passed.append(verdict.node)
        else:
            verdict.refuse(verdict.node, refusal)
    return verdict


def _claim(seen: Cluster, name: str, pod: Pod, wanted: GpuSet, count: int, owner: bool) -> Refusal | None:
    """Say why a pod cannot have the GPUs `wanted` of a node; None if it can."""
    view, task = seen.view, pod.metadata.key
    node = view.node(name)
    if node is None:
        return unknown(view, name)
    free = view.free_to_owner(name, task) if owner else view.free_to_claim(name, task)
    if missing := wanted & ~node.healthy:
        return Refusal(True, f"{numbered(missing)} of node {name}, given to this pod, cannot be used: not there or unhealthy")
    if missing := wanted & ~free:
        who = holders(view, name, missing, task) or "pods that name no GPUs or a job's reservation"
        return Refusal(not owner, f"{numbered(missing)} of node {name}, given to this pod, held by {who}")
    if free.bit_count() < count:
        return Refusal(True, f"needs {gpus(count)} but was given {numbered(wanted)}, and {free.bit_count()} are free")
    coming = seen.passed.towards(name, task, besides=pod.spec.scheduler_name)
    if free.bit_count() - coming < count:
        why = f"{free.bit_count()} free, pods being bound by another kube-scheduler may take {coming}"
        return Refusal(True, f"needs {gpus(count)}: {why}", True)
    return None


def _open(seen: Cluster, verdict: Verdict, pod: Pod, nodes: list[str]) -> Verdict:
    room = seen.fits.of(verdict.gpus)
    fitting, refusal = room.fitting, room.refusal
    verdict.passed = [name for name in nodes if name in fitting]
    if len(verdict.passed) < len(nodes):
        for name in nodes:
            if name not in fitting:
                verdict.refuse(name, refusal(name))
    if len(seen.passed):
        _keep_back(seen, verdict, pod)
    if len(verdict.failed) + len(verdict.unresolvable) > MOST_SENTENCES:
        _shorten(verdict)
    return verdict


def _keep_back(seen: Cluster, verdict: Verdict, pod: Pod) -> None:
    """Refuse nodes where pods that are not bound yet may leave too little: any of them beside the outstanding reservations,
    and elsewhere those that another kube-scheduler sends, since the one that asks does not count them.
    """
    task, mine = pod.metadata.key, pod.spec.scheduler_name
    outstanding, others = seen.view.outstanding, seen.passed.besides(mine)
    for name in [name for name in verdict.passed if others or name in outstanding]:
        node = seen.view.node(name)
        coming = seen.passed.towards(name, task, None if name in outstanding else mine)
        free = node.free.bit_count() if node else 0
        if free - coming < verdict.gpus:
            why = f"needs {gpus(verdict.gpus)}: {free} free beside reservations, pods being bound may take {coming}"
            verdict.refuse(name, Refusal(True, why, True))
    verdict.passed = [name for name in verdict.passed if name not in verdict.unresolvable]


def _shorten(verdict: Verdict) -> None:
    """Say one sentence a kind where there would be too many."""
    for unresolvable, refusals in ((True, verdict.unresolvable), (False, verdict.failed)):
        if len(set(refusals.values())) > MOST_SENTENCES:
            sentence = plain(verdict.gpus, unresolvable)
            for name in refusals:
                refusals[name] = sentence
