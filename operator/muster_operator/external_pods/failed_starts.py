"""Why a gang of external pods did not start, and what that teaches (see `lessons`): kept as an annotation of one of its pods.

The pods of a requeued gang are others than before. Of a bare pod the annotation goes through its PodTemplate; pods that their
controller creates again get it when they are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import Field, ValidationError

from muster.allocation.pods import pinned_to
from muster.api import names
from muster.api.base import Reported
from muster.api.status import FailedStart, Refusal
from muster.kube.objects import Pod
from muster.scheduling.counting import counted
from muster_operator.backoff import FAILURE_BACKOFF, FIRST_BACKOFF, doubled
from muster_operator.lessons import Digest, Lessons
from muster_operator.pod_faults import (
    hold_up,
    is_refused,
    is_rejected,
    is_taken_away,
    is_unheard,
    one_line,
    refusal,
    scheduler_words,
    start_fault,
)

START_DEADLINE_SECONDS = 600.0
"""The seconds from the ungating of a pod until it has started; then its gang is requeued."""
START_RETRIES = 3
"""The failed starts in a row after which the next one has the gang wait until its pods are created anew."""
MOST_REFUSALS = 16
"""Nodes whose refusals an annotation has, the newest."""


class _Text(Reported):
    """The annotation."""

    refusals: list[Refusal] = Field(default_factory=list)
    failed_start: FailedStart | None = None


class Failure(NamedTuple):
    """Why a pod does not start: to follow its name, in words; and which node refused it, with whose words."""

    cause: str
    refused: Mapping[str, str]
    is_start: bool = False
    """Whether the pod would start nowhere, for what is known."""
    teaches: bool = True
    """Whether it says anything of the next start."""


def failure(pod: Pod, *, overdue: bool = False) -> Failure:
    """Return why a pod is requeued that cannot start, or has not by its deadline."""
    if is_rejected(pod):
        words = one_line(pod.status.message) or pod.status.reason
        return Failure(f"was rejected by its kubelet: {words}", {pod.spec.node_name: words} if pod.spec.node_name else {})
    if is_taken_away(pod):
        words = one_line(pod.status.message) or pod.status.reason
        return Failure(f"was taken away before it ran: {words}", {})
    if fault := start_fault(pod):
        return Failure(f"cannot start: {fault}", {}, is_start=True)
    if overdue:
        late = f"has not started within {START_DEADLINE_SECONDS:.0f} s: {hold_up(pod)}"
        return Failure(late, {}, is_start=not is_unheard(pod))
    if pod.spec.node_name:
        return Failure("is not where its gang was placed", {}, teaches=False)
    node, cause = pinned_to(pod.spec), "cannot start on the node that it is pinned to"
    if node is None or not is_refused(pod):
        return Failure(cause, {}, teaches=False)
    return Failure(f"{cause}: {scheduler_words(pod)}", {node: words} if (words := refusal(pod)) else {})


def learnt(before: Lessons, pod: Pod, failed: Failure, digest: Digest, now: float) -> Lessons:
    """Return what is known of the starts of a gang, with what the failure of one pod teaches."""
    after = before.refused_by(failed.refused, digest, now)
    if not failed.teaches:
        return after
    node = next(iter(failed.refused), "")
    message = f"pod {pod.metadata.name} {failed.cause}"
    if pod.spec.node_name and not failed.refused:
        after = after.failed_on(pod.spec.node_name, message, digest)
    times = before.failures + failed.is_start
    start = FailedStart(
        reason="StartFailed", message=message, pod=pod.metadata.name, node=node, times=times, digest=digest(node)
    )
    return after._replace(failed=start)


def read(pods: Iterable[Pod]) -> Lessons:
    """Return what the pods of a gang say of its starts; an unreadable text says nothing."""
    return decoded(next((text for pod in pods if (text := pod.metadata.annotation(names.FAILED_STARTS))), None)) or Lessons()


def decoded(text: str | None) -> Lessons | None:
    """Return what an annotation says; None where there is none, or it cannot be read."""
    try:
        found = _Text.model_validate_json(text) if text else None
    except ValidationError:
        return None
    return Lessons(tuple(found.refusals), found.failed_start) if found is not None else None


def written(lessons: Lessons) -> str | None:
    """Return the annotation; None where there is nothing to remember."""
    if lessons == Lessons():
        return None
    text = _Text(refusals=list(lessons.refusals[-MOST_REFUSALS:]), failed_start=lessons.failed)
    return text.model_dump_json(by_alias=True, exclude_defaults=True)


def whole(pods: Iterable[Pod]) -> bool:
    """Say whether all of a gang's pods have started."""
    return all(pod.status.phase != "Pending" for pod in pods)


def pause(lessons: Lessons) -> float:
    """Return the seconds from the creation of a requeued pod until its gang may start again."""
    refused = sum(each.times for each in lessons.refusals)
    after_refusals = doubled(FIRST_BACKOFF, refused - 1) if refused else 0.0
    return max(after_refusals, doubled(FAILURE_BACKOFF, lessons.failures - 1) if lessons.failures else 0.0)


def set_aside(lessons: Lessons) -> str:
    """Return why a gang is not planned that has failed to start too often in a row; empty for any other."""
    if lessons.failed is None or lessons.failures <= START_RETRIES:
        return ""
    tries = f"has failed to start {counted(lessons.failures, 'time')} in a row, the last time because {lessons.failed.message}"
    return f"{tries}; once that is mended, delete its pods and create them again"


def said(message: str, lessons: Lessons) -> str:
    """Return why a gang waits, with why its last start failed."""
    failed = lessons.failed
    return message if failed is None or failed.message in message else f"{message}; the last start failed: {failed.message}"
