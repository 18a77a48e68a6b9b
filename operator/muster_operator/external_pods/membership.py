"""The gang of a label: which members have done their part, and what keeps a gang from being planned at all.

A label is easily written wrong, and a gang that waits for ever without a word is the worst answer. So each fault of this kind
has a sentence that says what is wrong, on which pod, and what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from muster.allocation.pods import gpus_of
from muster.api import names, texts
from muster.kube.objects import Pod

MOST_DIGITS = 6
"""Of the size of a gang: more pods than any cluster runs."""
MOST_QUOTED = 40
"""Characters of a user's text that a sentence repeats."""


def size_of(pod: Pod) -> int | None:
    """Return how many pods the gang has by the word of one of them; None if it says nothing that is a number from 1."""
    return texts.number(pod.metadata.annotation(names.GANG_SIZE), MOST_DIGITS) or None


def done(members: Iterable[Pod], ended: Collection[Pod]) -> int:
    """Count the members that have ended and are not to come again.

    Of a controller's pods, those that succeeded: it creates the others again. Bare pods do not come again by themselves, but
    belong to an earlier run of the gang once nothing of it runs.
    """
    if not ended:
        return 0
    present = list(members)
    owners = {owner.uid for pod in present if (owner := pod.metadata.controller) is not None}
    runs = any(not pod.gated and not pod.finished for pod in present)
    return sum(_is_done(pod, owners, runs) for pod in ended)


def _is_done(pod: Pod, owners: Collection[str], runs: bool) -> bool:
    owner = pod.metadata.controller
    return runs if owner is None else pod.status.phase == "Succeeded" and owner.uid in owners


def obstacle(members: Sequence[Pod], strangers: Collection[Pod] = ()) -> str:
    """Return the sentence about what keeps a gang of these pods from being planned; empty if nothing does.

    `strangers` bear the gang's label, and name another scheduler.
    """
    return _foreign_gate(members) or (_wrong_label(members, strangers) if members[0].metadata.label(names.GANG) else "")


def not_held(pod: Pod) -> str:
    """Say of a pod with a gang's label, but another scheduler, that it starts without its gang."""
    message = f"has the label {names.GANG}, but names the scheduler {pod.spec.scheduler_name}: it starts without its gang;"
    return f"{message} set schedulerName: {names.SCHEDULER}, or leave the label out"


def _foreign_gate(members: Sequence[Pod]) -> str:
    for pod in members:
        foreign = sorted(gate.name for gate in pod.spec.scheduling_gates or () if gate.name != names.GATE)
        if foreign:
            held = f"pod {pod.metadata.name} has the scheduling gate {foreign[0]}"
            return f"{held}: whoever set it removes it, then GPUs are planned"
    return ""


def _wrong_label(members: Sequence[Pod], strangers: Collection[Pod]) -> str:
    return _wrong_size(members) or _other_gpus(members) or _ahead(members) or _other_scheduler(members, strangers)


def _wrong_size(members: Sequence[Pod]) -> str:
    said = [pod for pod in members if pod.metadata.annotation(names.GANG_SIZE) is not None]
    remedy = f"delete the pods of the gang, and create them with one number of pods from 1 in {names.GANG_SIZE}"
    if not said:
        return f"the pods have the label {names.GANG} without the annotation {names.GANG_SIZE}: {remedy}"
    first = {size_of(pod): pod for pod in reversed(said)}
    if None in first:
        text = (first[None].metadata.annotation(names.GANG_SIZE) or "")[:MOST_QUOTED]
        message = f"{names.GANG_SIZE} of pod {first[None].metadata.name} is {text!r}, which is no number"
        return f"{message}: {remedy}"
    if len(first) > 1:
        contradiction = " and ".join(f"{size} on pod {first[size].metadata.name}" for size in list(first)[-2:])
        return f"{names.GANG_SIZE} is {contradiction}: {remedy}"
    return ""


def _other_gpus(members: Sequence[Pod]) -> str:
    for pod in members:
        if not gpus_of(pod) and (other := _accelerators(pod)):
            message = f"pod {pod.metadata.name} asks for {other[0]}, and {names.SCHEDULER} plans {names.GPU} alone"
            return f"{message}: create the pods without the label {names.GANG}, for another scheduler"
    return ""


def _ahead(members: Sequence[Pod]) -> str:
    for pod in members:
        if gpus_of(pod) and pod.spec.node_name and not pod.gated and pod.metadata.annotation(names.RANK) is None:
            message = f"pod {pod.metadata.name} went to node {pod.spec.node_name} ahead of its gang, without {names.SCHEDULER}"
            return f"{message}: delete it, and create it without spec.nodeName"
    return ""


def _accelerators(pod: Pod) -> list[str]:
    """The resources of a pod, other than ours, that are GPUs by their name."""
    demands = (container.resources for container in (*pod.spec.containers, *(pod.spec.init_containers or ())))
    asked = {name for demand in demands for amounts in (demand.requests, demand.limits) for name in amounts or ()}
    return sorted(
        name for name in asked if name != names.GPU and "/" in name and ("gpu" in name or name.startswith("nvidia.com/"))
    )


def _other_scheduler(members: Sequence[Pod], strangers: Collection[Pod]) -> str:
    stranger = min(strangers, key=lambda pod: pod.metadata.name, default=None)
    if stranger is None or len(members) >= max((size_of(pod) or 1) for pod in members):
        return ""
    message = f"pod {stranger.metadata.name} has the gang's label, but names the scheduler {stranger.spec.scheduler_name}"
    return f"{message}: create it again with schedulerName: {names.SCHEDULER}"
