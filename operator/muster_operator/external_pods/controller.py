"""The front door of the controller of external pods: their gangs for the planner, ungating, telling pods why they wait."""

from __future__ import annotations

import asyncio
import logging
import operator
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from muster.api import names
from muster.kube.errors import Conflict, KubeError, NotFound
from muster.kube.objects import Pod
from muster.scheduling.decisions import Place, Reason, Wait
from muster.scheduling.gang import Assigned, Gang, Placement
from muster_operator.controller import Context, Controller, News
from muster_operator.external_pods import failed_starts
from muster_operator.external_pods.gangs import (
    PodGang,
    back_off,
    counts,
    gang_name,
    grouped,
    is_external,
    is_over,
    kinds_of_pods,
    placed_gang,
    pod_gang,
    with_first,
)
from muster_operator.external_pods.membership import done, not_held, obstacle
from muster_operator.external_pods.requeue import Requeue
from muster_operator.external_pods.ungating import fulfilled, reservation, reservation_text, ungating_patch
from muster_operator.lessons import NOTHING_LEARNT, Lessons
from muster_operator.reporting import about_pod
from muster_operator.resources import PODS
from muster_operator.sightings import Sightings
from muster_operator.storage.storage import GangStorage
from muster_operator.work_queue import Key

log = logging.getLogger("muster.operator")


class _Grouped(NamedTuple):
    """A gang and what it was made from."""

    members: tuple[Pod, ...]
    away: int
    vouched: bool
    done: int
    unplannable: str
    not_before: float
    lessons: Lessons
    storage: GangStorage
    gang: PodGang


class ExternalPods(Controller):
    """Pods that name our scheduler and are no DLJob's. They change as a gang, so they are brought on before each plan."""

    kind = "Pod"

    def __init__(self, context: Context) -> None:
        self._work_queue, self._api_writer, self._reporter = context.work_queue, context.api_writer, context.reporter
        self._sightings = Sightings(context.stores, context.work_queue)
        self._stores, self._storage = context.stores, context.storage
        self._requeue = Requeue(context, self._sightings)
        self._pods: dict[str, Pod] = {}
        self._waiting: dict[str, _Grouped] = {}
        """Gangs with a gated pod, by name."""
        self._placed: dict[str, tuple[Pod, Gang | None]] = {}
        """Each pod as the gang that it was translated to."""
        self._told: dict[str, str] = {}
        self._trust = context.stores.view.trust
        self._ended: dict[str, dict[str, Pod]] = {}
        """Pods of labelled gangs that have ended, by gang."""
        self._strangers: dict[str, dict[str, Pod]] = {}
        """Pods with a gang's label that name another scheduler, by gang."""
        pods = context.stores.view.pods
        for pod in pods.values():
            self._changed(None, pod)
        pods.subscribe(self._changed)

    def _changed(self, old: Pod | None, new: Pod | None) -> None:
        """Take in a pod as it is now. It may be another one of the name: a list brings no deletion in between."""
        pod = new or old
        if pod is None:
            return
        if old is not None and _has_moved(old, new):
            self._note_labelled(old, None)
        if pod.metadata.label(names.GANG) is not None:
            self._note_labelled(pod, new)
        if new is not None and is_external(new) and counts(new):
            self._pods[new.metadata.key] = new
        else:
            self._pods.pop(pod.metadata.key, None)
            self._placed.pop(pod.metadata.key, None)
        if not any(each is not None and is_external(each) for each in (old, new)):
            return
        if old is None and new is not None and new.gated:
            self._work_queue.plan_soon()
        elif old is None or new is None or _without_note(old) != _without_note(new):
            self._work_queue.plan_now()

    def _note_labelled(self, pod: Pod, new: Pod | None) -> None:
        """Keep the pods of a labelled gang that are not planned, and tell a pod that names another scheduler."""
        ours = is_external(pod)
        _keep(self._ended, pod, new if new is not None and ours and is_over(new) else None)
        stranger = new if new is not None and not ours and not new.finished and new.metadata.label(names.JOB) is None else None
        _keep(self._strangers, pod, stranger)
        if stranger is not None and new is not None:
            self._reporter.event(about_pod(stranger.metadata), "Warning", Reason.UNPLANNABLE, not_held(stranger))
        if pod.finished or not ours:
            self._work_queue.plan_now()

    # What planning sees

    async def prepare(self, now: float) -> None:
        """Finish what was begun before a restart, requeue what cannot start, and see which gangs there are now."""
        await self._requeue.run(list(self._pods.values()), now)
        await self._requeue.remember(self._pods.values())
        for pod in fulfilled(self._pods.values()):
            await self._clear_reservation(pod)
        for name, group in self._grouped().items():
            with self._reporter.contained(f"{name}: cannot go on as reserved"):
                reserved = reservation(group.gang) if self._trust.vouched else None
                if reserved:
                    await self._go_on(group.gang, reserved)
        waiting = self._grouped()
        for name in self._waiting.keys() - waiting:
            self._storage.forget(name)
        self._waiting = waiting
        if (seconds := self._trust.lapses_in()) is not None:
            self._work_queue.plan_by(now + seconds)
        self._told = {name: reason for name, reason in self._told.items() if name in self._waiting}

    def gangs(self) -> Collection[Gang]:
        """Return the gangs that wait, and the ungated pods, which count against their queue's quota."""
        placed = [self._placed_gang(key, pod) for key, pod in self._pods.items()]
        return [*(each.gang.gang for each in self._waiting.values()), *(gang for gang in placed if gang is not None)]

    def owns(self, gang: str) -> bool:
        return gang in self._waiting

    def _grouped(self) -> dict[str, _Grouped]:
        """The gangs with a gated pod, the same objects where their pods are the same."""
        away = self._requeue.away()
        found = ((name, self._group(name, members, away[name])) for name, members in grouped(self._pods.values()).items())
        return {name: group for name, group in found if group is not None}

    def _group(self, name: str, members: tuple[Pod, ...], away: int) -> _Grouped | None:
        """A gang of pods; None for one that cannot be read, whose first pod is told."""
        before, vouched = self._waiting.get(name), self._trust.vouched
        with self._reporter.contained(f"{name}: cannot be planned", about_pod(members[0].metadata)):
            ended = done(members, self._ended.get(name, {}).values())
            unplannable = obstacle(members, self._strangers.get(name, {}).values())
            lessons = self._lessons(members)
            pause = failed_starts.pause(lessons)
            rests = max(self._sightings.lapse(pod, max(back_off(pod), pause)) for pod in members if pod.gated)
            storage = self._storage.of(name, members[0].metadata.namespace or "", kinds_of_pods(members))
            now = (away, vouched, ended, unplannable, rests, lessons, storage)
            if before is not None and before[1:8] == now and _same(before.members, members):
                return before
            gang = pod_gang(name, members, away, ended, unplannable, rests, lessons, storage, vouched=vouched)
            if before is not None and before.gang.gang == gang.gang:
                gang = replace(gang, gang=before.gang.gang)
            return _Grouped(members, *now, gang)
        return None

    def _lessons(self, members: Collection[Pod]) -> Lessons:
        """What earlier starts of a gang have taught and still holds; what ends by time alone is planned by then."""
        known = failed_starts.read(members)
        lessons = known.standing(self._stores.node_digest, self._work_queue.clock()) if known != NOTHING_LEARNT else known
        if lessons.until is not None:
            self._work_queue.plan_by(lessons.until)
        return lessons

    def _placed_gang(self, key: str, pod: Pod) -> Gang | None:
        """A pod as a gang that stays where it is; None also for one that cannot be read: the ledger counts what it holds."""
        before = self._placed.get(key)
        if before is not None and before[0] is pod:
            return before[1]
        gang = None
        with self._reporter.contained(f"pod {key}: cannot be counted against its queue's quota", about_pod(pod.metadata)):
            gang = placed_gang(pod)
        gang = before[1] if before is not None and before[1] == gang else gang
        self._placed[key] = pod, gang
        return gang

    def defer(self, gang: str) -> bool:
        return self._work_queue.plan_after(Key(self.kind, gang))

    # What planning decides

    async def place(self, decision: Place, now: float) -> None:  # noqa: ARG002 (nothing of a pod is dated by muster)
        """Ungate a gang. The placement of a gang of several is written to its first pod before, and removed at the end."""
        gang = self._waiting[decision.gang.name].gang
        log.info("%s: %s", decision.gang.name, decision.message)
        if len(gang.pods) > 1:
            text = reservation_text(decision.placement)
            first = await self._api_writer.annotate(PODS, gang.members[0].metadata, {names.RESERVATION: text})
            if first is None:
                return  # the gang is not whole any more, and is planned anew
            gang = with_first(gang, first)
        await self._ungate(gang, decision.placement)
        for pod in gang.pods.values():
            self._reporter.event(about_pod(pod.metadata), "Normal", decision.reason, decision.message)

    def news(self, wait: Wait) -> News:
        untold = self._untold(wait)
        if not untold:
            return News.NONE
        known = wait.gang.name in self._told or any(pod.metadata.annotation(names.WAITING) is None for pod in untold)
        return News.REASON if known else News.NUMBERS  # after a restart nobody knows for which reason they wait

    async def tell(self, wait: Wait, now: float) -> None:  # noqa: ARG002
        for pod in self._untold(wait):
            message = self._message(wait)
            await self._api_writer.annotate(PODS, pod.metadata, {names.WAITING: message})
            self._reporter.event(about_pod(pod.metadata), "Warning", wait.reason, message)
        self._told[wait.gang.name] = _worth_telling(wait)

    def _untold(self, wait: Wait) -> list[Pod]:
        """The pods of a gang that are to be told: once for each reason, and each time how many pods are missing."""
        planned = self._waiting.get(wait.gang.name)
        if planned is None or planned.gang.gang != wait.gang:
            return []
        is_news = self._told.get(wait.gang.name) != _worth_telling(wait)
        pods = [pod for each in planned.gang.pods.values() if (pod := self._pods.get(each.metadata.key)) is not None]
        notes = [(pod, pod.metadata.annotation(names.WAITING)) for pod in pods]
        return [pod for pod, note in notes if note is None or (note != self._message(wait) and is_news)]

    def _message(self, wait: Wait) -> str:
        return failed_starts.said(wait.message, self._waiting[wait.gang.name].lessons)

    # Ungating

    async def _go_on(self, gang: PodGang, reserved: Placement) -> None:
        """Ungate the pods of a reservation; a rejected patch must not hold up other gangs, and its pod is planned again."""
        try:
            await self._ungate(gang, reserved)
        except Conflict:
            self._work_queue.plan_after_news()
        except KubeError as error:
            self._reporter.failed(f"{gang.gang.name}: could not be ungated as reserved", error)

    async def _clear_reservation(self, pod: Pod) -> None:
        try:
            await self._api_writer.annotate(PODS, pod.metadata, {names.RESERVATION: None})
        except Conflict:
            self._work_queue.plan_after_news()
        except KubeError as error:
            self._reporter.failed(f"{pod.metadata.key}: annotation {names.RESERVATION} could not be removed", error)

    async def _ungate(self, gang: PodGang, placement: Placement) -> None:
        """Patch each pod as it was planned; one that changed meanwhile is left to the next plan, or to the reservation.

        The reservation is left to the next plan too where its pod has changed: kube-scheduler may be quicker.
        """
        results = await asyncio.gather(
            *(self._ungate_pod(gang.pods[a.task.name], a) for a in placement),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        first = self._pods.get(gang.members[0].metadata.key)
        if all(results) and first is not None and first.metadata.annotation(names.RESERVATION) is not None:
            await self._clear_reservation(first)

    async def _ungate_pod(self, pod: Pod, assigned: Assigned) -> bool:
        """Remove a pod's gate and pin it; return False if it has changed or is gone."""
        try:
            affinity = await self._affinity(pod) if pod.spec.affinity else None
            patch = ungating_patch(pod, affinity, assigned)
            self._trust.wrote(pod.metadata, patch["metadata"]["annotations"][names.GPUS])
            return await self._api_writer.patch(PODS, pod.metadata, patch) is not None
        except (NotFound, Conflict):
            return False

    async def _affinity(self, pod: Pod) -> dict[str, Any]:
        """A pod's whole affinity: the store has only the part that restricts its node."""
        whole: Mapping[str, Any] = await self._api_writer.read(PODS, pod.metadata)
        affinity: dict[str, Any] = whole["spec"].get("affinity") or {}
        return affinity


def _has_moved(old: Pod, new: Pod | None) -> bool:
    """Whether a pod had the label of a gang that it has no more."""
    label = old.metadata.label(names.GANG)
    return label is not None and new is not None and new.metadata.label(names.GANG) != label


def _without_note(pod: Pod) -> Pod:
    """The pod but for why it waits, which decides nothing, and for its version."""
    others = {key: value for key, value in (pod.metadata.annotations or {}).items() if key != names.WAITING}
    metadata = msgspec.structs.replace(pod.metadata, resource_version="", annotations=others)
    return msgspec.structs.replace(pod, metadata=metadata)


def _worth_telling(wait: Wait) -> str:
    """What people are told once."""
    return wait.message if wait.reason in (Reason.PODS_ABSENT, Reason.UNPLANNABLE, Reason.NOT_FOUND) else wait.reason


def _keep(gangs: dict[str, dict[str, Pod]], pod: Pod, new: Pod | None) -> None:
    """Enter a pod under its gang; take it out if it is not of these, or no more."""
    name, key = gang_name(pod), pod.metadata.key
    if new is not None:
        gangs.setdefault(name, {})[key] = new
    elif name in gangs:
        gangs[name].pop(key, None)
        if not gangs[name]:
            del gangs[name]


def _same(before: tuple[Pod, ...], after: tuple[Pod, ...]) -> bool:
    """Whether two tuples have the very same objects."""
    return len(before) == len(after) and all(map(operator.is_, before, after))
