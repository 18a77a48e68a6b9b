"""A small part of `make bench-random`: policies keep their invariants under random events."""

from __future__ import annotations

import pytest
from benchmarks.random_events import Tally, main, run
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.scheduling.settings import Policy

USUAL = {
    Policy.MUSTER: {"Place", "Wait", "Requeue", "Migrate"},
    Policy.GANDIVA: {"Place", "Join", "Suspend", "Resume", "Migrate"},
}


@pytest.mark.parametrize("policy", list(Policy))
def test_random_events_violate_no_invariant(policy: Policy) -> None:
    total = Tally()
    for seed in range(2):
        total.add(run(seed, policy, jobs=50))
    assert total.violations == []
    assert set(total.decisions) >= USUAL[policy]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(jobs=st.integers(1, 20), seed=st.integers(0, 1_000_000), policy=st.sampled_from(Policy))
def test_no_number_of_jobs_violates_an_invariant(jobs: int, seed: int, policy: Policy) -> None:
    assert run(seed, policy, jobs).violations == []


def test_last_line_has_the_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "50", "--jobs", "5"]) == 0
    assert '"violations": 0' in capsys.readouterr().out.splitlines()[-1]
