"""What this operator alone remembers of external pods that start: since when, and what a gang has learnt that is away.

A restart loses it: a pod has its whole deadline again, and pods that their controller creates at that moment are tried as if
for the first time. That is all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import NamedTuple

from muster.api import names
from muster.kube.objects import Pod
from muster_operator.external_pods.failed_starts import START_DEADLINE_SECONDS, whole
from muster_operator.external_pods.gangs import gang_name, is_external
from muster_operator.work_queue import WorkQueue

MOST_KEPT = 10_000
"""Gangs that may be away at once."""


class _Note(NamedTuple):
    owner: str
    """The controller's uid; "" of none."""
    is_alone: bool
    """Whether the gang is a pod without a label, which may come back under another name."""
    text: str


class Starts:
    """Pods that are ungated and have not started, and gangs whose pods are being created again by a controller."""

    def __init__(self, work_queue: WorkQueue) -> None:
        self._work_queue = work_queue
        self._since: dict[str, float] = {}
        self._notes: OrderedDict[str, _Note] = OrderedDict()

    def late(self, pods: Collection[Pod]) -> set[str]:
        """Return the uids of the pods that have not started by their deadline; called in each pass, with all pods."""
        pace = self._work_queue.pace()
        self._since = {uid: self._since.get(uid, pace) for uid in (pod.metadata.uid for pod in pods if _starts(pod))}
        ends = {uid: since + START_DEADLINE_SECONDS for uid, since in self._since.items()}
        if (first := min((end for end in ends.values() if end > pace), default=None)) is not None:
            self._work_queue.plan_in(first - pace)
        return {uid for uid, end in ends.items() if end <= pace}

    def keep(self, gang: str, pod: Pod, text: str) -> None:
        """Keep what is to be written on a gang's pods once the controller of this one has created them again."""
        self._notes[gang] = _Note(_owner(pod), pod.metadata.label(names.GANG) is None, text)
        if len(self._notes) > MOST_KEPT:
            self._notes.popitem(last=False)

    def text(self, gang: str) -> str | None:
        """Return what is kept of a gang."""
        return note.text if (note := self._notes.get(gang)) is not None else None

    def kept(self, pods: Collection[Pod]) -> Iterator[tuple[str, Pod, str]]:
        """Return each such gang that is back, with the pod that is to say what is kept: one that says such a thing already."""
        if not self._notes:
            return
        present = [pod for pod in pods if not pod.leaving and pod.metadata.controller is not None]
        back = {gang_name(pod): pod for pod in reversed(present) if pod.gated}
        back |= {gang_name(pod): pod for pod in present if _says(pod)}
        new: dict[str, list[Pod]] = {}
        for pod in present:
            if pod.gated and pod.metadata.label(names.GANG) is None and not _says(pod) and gang_name(pod) not in self._notes:
                new.setdefault(_owner(pod), []).append(pod)
        for gang, note in list(self._notes.items()):
            same = back.get(gang)
            if same is not None and _owner(same) == note.owner:
                yield gang, same, note.text
            elif note.is_alone and (others := new.get(note.owner)):
                yield gang, others.pop(), note.text

    def forget(self, gang: str) -> None:
        """Forget what was to be written on a gang's pods."""
        self._notes.pop(gang, None)


def outgrown(pods: Collection[Pod]) -> list[Pod]:
    """Return the pods that say something of starts that failed although all of their gang has started."""
    noted = [pod for pod in pods if not pod.gated and pod.metadata.annotation(names.FAILED_STARTS) is not None]
    gangs: dict[str, list[Pod]] = {gang_name(pod): [] for pod in noted}
    for pod in pods if noted else ():
        gangs.get(gang_name(pod), []).append(pod)
    return [pod for pod in noted if whole(gangs[gang_name(pod)])]


def _owner(pod: Pod) -> str:
    owner = pod.metadata.controller
    return owner.uid if owner is not None else ""


def _says(pod: Pod) -> bool:
    return pod.metadata.annotation(names.FAILED_STARTS) is not None


def _starts(pod: Pod) -> bool:
    placed = is_external(pod) and not pod.gated and pod.metadata.annotation(names.RANK) is not None
    return placed and pod.status.phase == "Pending" and not pod.leaving
