"""A job of the same name comes right after another, or with the status of another: it gets a placement of its own."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import pytest

from builders.live import Json, Live, template
from muster.kube.errors import NotFound

pytestmark = pytest.mark.cluster

WORKER = {"worker": {"replicas": 1, "template": template(1)}}
CHIEF_AND_WORKER = {"chief": {"template": template(1)}, **WORKER}
TRIES = 6


def create(live: Live, roles: Json) -> None:
    live.create("dljobs", {"metadata": {"name": "r"}, "spec": {"roles": roles, "rendezvous": "MPI"}})


def delete(live: Live) -> None:
    with suppress(NotFound):
        live.delete("dljobs", "r", propagation="Background")


def test_job_that_is_created_again_at_once_is_placed_by_its_own_roles(live: Live) -> None:
    """As `kubectl replace --force` does it, at some moment of the admission of the job before."""
    dice = random.Random(1)
    for number in range(TRIES):
        create(live, CHIEF_AND_WORKER)
        time.sleep(dice.uniform(0.0, 0.1))  # the moment, not a wait for anything
        delete(live)
        create(live, WORKER)
        live.job(f"other-{number}", 1, 1)
        live.wait_running(f"other-{number}", 1)
        status = live.wait_running("r", 1)
        assert [place["role"] for place in status["placement"]] == ["worker"]
        delete(live)
        live.delete("dljobs", f"other-{number}", propagation="Background")
        live.wait_no_pods("r")


def test_placement_that_was_restored_from_a_backup_is_taken_back(live: Live) -> None:
    create(live, CHIEF_AND_WORKER)
    backup = live.wait_running("r", 2)
    delete(live)
    live.wait_no_pods("r")
    live.wait(lambda: not live.exists("services", "r"), "nothing is left of the first")
    live.job("other", 1, 1)
    create(live, WORKER)
    live.wait_running("r", 1)
    live.patch_status("r", backup)
    live.wait(lambda: live.told("r", "it was made for another job of this name"), "the placement is taken back")
    live.wait_running("other", 1)
    assert [place["role"] for place in live.wait_running("r", 1)["placement"]] == ["worker"]


def test_placement_without_a_trace_of_its_job_is_taken_back(live: Live) -> None:
    """A backup from before muster noted whose placement it is."""
    live.job("other", 1, 1)
    create(live, WORKER)
    placement = live.wait_running("r", 1)["placement"]
    chief = {**placement[0], "role": "chief", "pod": "r-chief-0", "rank": 1}
    live.patch_status("r", {"placement": [*placement, chief], "placedUid": None})
    live.wait(lambda: live.told("r", "has the role chief, which the job does not have"), "the placement is taken back")
    live.wait_running("other", 1)
    assert [place["role"] for place in live.wait_running("r", 1)["placement"]] == ["worker"]
