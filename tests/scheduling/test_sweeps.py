"""Which trials of a sweep run, wait or stop."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.scheduling.sweeps import Halving, Rule, TopM, Trial, Verdict, in_turn

RULES: tuple[Rule, ...] = (in_turn, TopM(best=2), TopM(best=8, probe=1), Halving(), Halving(first=2, factor=3, ahead=0.25))


def trial(name: str, *reports: float, running: bool = False, ended: bool = False) -> Trial:
    return Trial(name, reports, running, ended)


def of(verdicts: dict[str, Verdict], verdict: Verdict) -> list[str]:
    return sorted(name for name, found in verdicts.items() if found is verdict)


trials = st.lists(st.tuples(st.lists(st.floats(0, 1), max_size=9), st.booleans(), st.booleans()), min_size=1, max_size=30).map(
    lambda drawn: [Trial(f"t{i:02}", tuple(reports), running, ended) for i, (reports, running, ended) in enumerate(drawn)]
)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=40, deadline=None)
@given(trials=trials, slots=st.integers(1, 12))
def test_slots_are_filled_while_a_trial_waits_and_used_once(rule: Rule, trials: list[Trial], slots: int) -> None:
    verdicts = rule(trials, slots)
    assert set(verdicts) == {trial.name for trial in trials if not trial.ended}
    running, waiting = of(verdicts, Verdict.RUN), of(verdicts, Verdict.WAIT)
    assert len(running) <= slots
    assert not waiting or len(running) == slots


def test_in_turn_runs_each_trial_to_its_end_in_order() -> None:
    found = in_turn([trial("a", 0.1, ended=True), trial("b", 0.2, running=True), trial("c"), trial("d")], 2)
    assert of(found, Verdict.RUN) == ["b", "c"]
    assert of(found, Verdict.WAIT) == ["d"]


class TestTopM:
    def test_best_trials_run_and_the_next_in_order_are_probed(self) -> None:
        tried = [trial("a", 0.5, 0.6, running=True), trial("b", 0.6, 0.7, running=True)]
        found = TopM(best=2)([*tried, trial("c"), trial("d"), trial("e")], 4)
        assert of(found, Verdict.RUN) == ["a", "b", "c", "d"]
        assert of(found, Verdict.WAIT) == ["e"]

    def test_newcomer_better_at_its_age_replaces_the_worst(self) -> None:
        old = [trial("a", 0.5, 0.6, 0.9, 0.95, running=True), trial("b", 0.6, 0.7, 0.8, running=True)]
        found = TopM(best=2)([*old, trial("c", 0.6, 0.65, running=True), trial("d")], 4)
        assert of(found, Verdict.STOP) == ["a"]

    def test_probe_goes_on_until_it_is_over(self) -> None:
        found = TopM(best=1)([trial("a", 0.9, 0.9, running=True), trial("b"), trial("c", 0.1, running=True)], 2)
        assert of(found, Verdict.RUN) == ["a", "c"]


class TestHalving:
    def test_trials_reach_the_first_rung_in_order(self) -> None:
        found = Halving()([trial(name) for name in "abcde"], 3)
        assert of(found, Verdict.RUN) == ["a", "b", "c"]

    def test_best_of_a_rung_goes_on_and_the_others_wait_for_new_trials(self) -> None:
        tried = [trial(name, metric, running=True) for name, metric in (("a", 0.3), ("b", 0.6), ("c", 0.4), ("d", 0.5))]
        found = Halving()([*tried, *(trial(name) for name in "efgh")], 4)
        assert of(found, Verdict.RUN) == ["b", "e", "f", "g"]

    def test_promoted_trials_get_their_share_of_slots_beside_new_ones(self) -> None:
        tried = [trial(f"a{i}", 0.5 + i / 100, running=True) for i in range(8)]
        new = [trial(f"b{i}") for i in range(8)]
        found = Halving(factor=2, ahead=0.25)([*tried, *new], 8)
        assert of(found, Verdict.RUN) == ["a6", "a7", *(f"b{i}" for i in range(6))]

    def test_once_all_were_tried_every_slot_goes_to_the_best(self) -> None:
        found = Halving(ahead=0.25)([trial(f"a{i}", i / 10, running=i < 4) for i in range(8)], 4)
        assert {"a7", "a6"} <= set(of(found, Verdict.RUN))

    def test_worse_trials_of_the_lowest_rung_stop_once_no_trial_is_new(self) -> None:
        found = Halving()([trial(f"a{i}", i / 10) for i in range(8)], 2)
        assert of(found, Verdict.RUN) == ["a6", "a7"]
        assert of(found, Verdict.STOP) == ["a0", "a1", "a2", "a3", "a4", "a5"]

    def test_no_trial_stops_while_another_is_new(self) -> None:
        found = Halving()([*(trial(f"a{i}", i / 10) for i in range(8)), trial("b")], 1)
        assert not of(found, Verdict.STOP)

    def test_newcomer_better_than_the_leader_at_its_age_goes_first(self) -> None:
        leader = trial("a", 0.5, 0.6, 0.7, 0.8, running=True)
        others = [trial(f"b{i}", 0.3, ended=True) for i in range(6)]
        found = Halving(ahead=0.5)([leader, *others, trial("c", 0.6, running=True), trial("d"), trial("e")], 2)
        assert of(found, Verdict.RUN) == ["c", "d"]
