"""A slice of `make bench-random`: whatever happens, the policies keep their promises."""

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
def test_random_events_break_no_promise(policy: Policy) -> None:
    total = Tally()
    for seed in range(2):
        total.add(run(seed, policy, jobs=50))
    assert total.violations == []
    assert set(total.decisions) >= USUAL[policy]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(jobs=st.integers(1, 20), seed=st.integers(0, 1_000_000), policy=st.sampled_from(Policy))
def test_the_fewest_jobs_that_break_one(jobs: int, seed: int, policy: Policy) -> None:
    assert run(seed, policy, jobs).violations == []


def test_the_last_line_has_the_sums(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "50", "--jobs", "5"]) == 0
    assert '"violations": 0' in capsys.readouterr().out.splitlines()[-1]
