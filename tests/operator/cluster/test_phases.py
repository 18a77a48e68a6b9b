"""Suspend, resume and delete a job in each phase of its life: nothing may stay behind."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from builders.live import Live
from muster.api import names

pytestmark = pytest.mark.cluster

PHASES = ("Queued", "Admitted", "Running", "Suspended", "Succeeded", "Failed")
OVER = ("Succeeded", "Failed")


def in_each_phase(live: Live, *phases: str) -> list[str]:
    """Create a job for each phase, and wait until each is there; return their names."""
    for phase in phases:
        match phase:
            case "Queued":
                live.job("queued", 100, 8)
            case "Admitted":
                live.job("admitted", 2, 1, hold=True)
            case "Suspended":
                live.job("suspended", 2, 1, suspend=True)
            case _:
                live.job(phase.lower(), 2, 1, backoffLimit=0)
    for phase in set(phases) & {"Running", *OVER}:
        live.wait_running(phase.lower(), 2)
    if "Succeeded" in phases:
        live.let_end("succeeded")
    if "Failed" in phases:
        live.fail("failed-worker-1")
    for phase in phases:
        live.wait_phase(phase.lower(), phase)
    if "Admitted" in phases:
        live.wait_pods(2, "Pending", "admitted")
    return [phase.lower() for phase in phases]


def suspend(live: Live, how: str, job: str, value: bool) -> None:
    if how == "field":
        live.patch("dljobs", job, {"spec": {"suspend": value}})
    elif how == "job-annotation" or not value:
        live.annotate("dljobs", job, suspend=str(value).lower())
    else:
        live.annotate("pods", f"{job}-worker-0", suspend="true")


@pytest.mark.parametrize("how", ["field", "job-annotation", "pod-annotation"])
def test_suspend_and_resume_in_every_phase(live: Live, how: str) -> None:
    phases = PHASES if how != "pod-annotation" else ("Admitted", "Running", *OVER)
    jobs = in_each_phase(live, *phases)
    arrived = {job: live.status(job).get("queuedAt") for job in jobs}
    ended = {job: live.status(job) for job in jobs if job.capitalize() in OVER}
    for job in jobs:
        suspend(live, how, job, True)
    for job in jobs:
        live.wait_phase(job, job.capitalize() if job in ended else "Suspended")
        live.wait_nothing_held(job)
        if job not in ended:
            assert live.condition(job, "Suspended")["status"] == "True"
            assert live.condition(job, "Admitted")["status"] == "False"
            live.wait_no_pods(job)

    for job in jobs:
        suspend(live, how, job, False)
    expected = {"queued": "Queued", "admitted": "Admitted", "running": "Running", "suspended": "Running"}
    for job in jobs:
        live.wait_phase(job, expected.get(job, job.capitalize()))
        assert live.status(job).get("queuedAt") == arrived[job], "its place in the queue is kept"
    for job, status in ended.items():
        assert live.status(job) == status, "a job that is over is over"
    if "suspended" in jobs:
        live.wait_running("suspended", 2)
    live.wait_running("running", 2)
    assert live.status("running")["attempt"] == 2
    assert live.status("running").get("restarts", 0) == live.status("running").get("requeues", 0) == 0


def test_delete_in_every_phase(live: Live) -> None:
    jobs = in_each_phase(live, *PHASES)
    for job in jobs:
        live.delete("dljobs", job)
    live.wait(lambda: not live.items("dljobs") and not live.pods() and not live.items("services"), "all is gone")


def test_delete_at_any_moment(live: Live) -> None:
    """A job is deleted as soon as it has come so far; another of the same name follows at once."""
    moments: tuple[Callable[[], object], ...] = (
        lambda: True,
        lambda: live.status("brief"),
        lambda: live.status("brief").get("placement"),
        lambda: live.pods("brief"),
        lambda: any(pod["spec"].get("nodeName") for pod in live.pods("brief")),
    )
    for come in moments * 2:
        live.job("brief", 4, 2)
        live.wait(come, "the job has come so far")
        live.delete("dljobs", "brief")
    live.job("brief", 4, 2)
    # kwok writes by name, so what it had in mind for a pod of before may hit one of now: the gang may need another start.
    live.wait(lambda: live.status("brief").get("phase") == "Running" and len(live.pods("brief")) == 4, "the last one runs")


def test_running_pod_gets_a_notice_before_its_deletion(live: Live) -> None:
    live.job("warned", 1, 1)
    live.wait_running("warned", 1)
    uid = live.pods("warned")[0]["metadata"]["uid"]
    live.annotate("dljobs", "warned", suspend="true")
    notes: dict[str, str] = {}

    def noticed() -> bool:
        for pod in live.pods("warned"):
            assert pod["metadata"]["uid"] == uid
            notes.update(pod["metadata"]["annotations"])
        return names.STOP_AT in notes

    live.wait(noticed, "the pod is told")
    assert notes[names.SUSPEND] == "true"
    live.wait_phase("warned", "Suspended")
