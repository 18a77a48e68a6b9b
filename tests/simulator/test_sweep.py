"""Simulated sweeps: learning curves, reports and stopping rules."""

from __future__ import annotations

from random import Random

import pytest

from muster.scheduling.sweeps import Halving, Rule, TopM, in_turn
from muster.scheduling.topology.machine import unknown_machine
from muster.scheduling.topology.node import Node
from muster.simulator.policies.sweep import Configuration, Training, configurations, reaching, seconds_to

TRAINING = Training(seconds=1000.0, reports=20)


def nodes() -> list[Node]:
    machine = unknown_machine(4)
    return [Node("n0", machine, machine.all, machine.all)]


def search(rule: Rule, position: int, count: int = 60) -> float | None:
    curves = configurations(Random(0), count, mean=0.5, deviation=0.08, below=0.75)
    curves[position - 1] = Configuration(0.85, 0.1)
    return seconds_to(0.85, rule, curves, TRAINING, nodes, seed=0)


def test_accuracy_rises_from_guessing_to_the_final_accuracy() -> None:
    configuration = Configuration(0.8, 0.2)
    assert configuration.accuracy(0.0) == pytest.approx(0.1)
    assert configuration.accuracy(1.0) == pytest.approx(0.8)
    assert configuration.accuracy(0.3) < configuration.accuracy(0.6)


def test_reaching_gives_a_curve_through_the_target() -> None:
    configuration = reaching(0.7, 0.15, 0.74)
    assert configuration.accuracy(0.15) == pytest.approx(0.7)
    assert configuration.accuracy(1.0) == pytest.approx(0.74)


def test_in_turn_runs_all_earlier_configurations_first() -> None:
    assert search(in_turn, 41) == pytest.approx(11 * 1000.0, rel=0.01)


@pytest.mark.parametrize("rule", [TopM(best=2), Halving()])
def test_early_stopping_reaches_the_target_sooner(rule: Rule) -> None:
    seconds = search(rule, 41)
    assert seconds is not None
    assert 1000.0 <= seconds < 11 * 1000.0 / 3


def test_top_m_spends_two_reports_on_each_earlier_configuration() -> None:
    seconds = search(TopM(best=2), 41)
    assert seconds == pytest.approx(2 * 50.0 * 40 / 2 + 1000.0, rel=0.1)


def test_rule_that_stops_the_best_configuration_never_reaches_the_target() -> None:
    curves = [Configuration(0.9, 1e-6), Configuration(0.9, 1e-6), *([Configuration(0.95, 5.0)] * 2)]
    assert seconds_to(0.95, TopM(best=2), curves, TRAINING, nodes, seed=0) is None


def test_same_seed_gives_the_same_time() -> None:
    assert search(Halving(), 30) == search(Halving(), 30)
