"""Which trials of a sweep run, wait or stop: early feedback, instead of every configuration to its end.

A sweep tries many configurations of one job. Each trial reports its metric after every interval of mini-batches, larger is
better; a rule reads the reports of all trials and answers with a verdict for each that has not ended. It knows neither how
long a trial takes nor where it runs, and keeps no state: a trial told to wait goes on later from where it stopped.

    in_turn   every trial to its end, in the order of submission: what schedulers without sweeps do
    TopM      Gandiva (OSDI'18): the best run alone, the others take turns, in order, to show what they can do
    Halving   asynchronous successive halving (Li et al., MLSys'20): of those that got as far, the best go on

Invariant: at most `slots` trials are told to run, and no slot is idle while a trial waits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What becomes of a trial until the next report."""

    RUN = "Run"
    WAIT = "Wait"
    STOP = "Stop"


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration, and the metric that it reported after each interval."""

    name: str
    reports: tuple[float, ...] = ()
    running: bool = False
    ended: bool = False
    """It ran to its end or was stopped; its reports still count for others."""


Rule = Callable[[Sequence[Trial], int], dict[str, Verdict]]
"""Trials in the order of submission, and how many can run at once."""


def in_turn(trials: Sequence[Trial], slots: int) -> dict[str, Verdict]:
    """Run every trial to its end, in order."""
    live = [trial for trial in trials if not trial.ended]
    return _verdicts(live, live[:slots])


@dataclass(frozen=True, slots=True)
class TopM:
    """Gandiva: the best `best` trials run for themselves; on the slots that are left each of the others, in order, runs for
    `probe` intervals, and stops unless it did better by then than one of the best had at its age, which stops instead."""

    best: int
    probe: int = 2

    def __call__(self, trials: Sequence[Trial], slots: int) -> dict[str, Verdict]:
        live = [trial for trial in trials if not trial.ended]
        tried = [trial for trial in live if len(trial.reports) >= self.probe]
        leading = sorted(tried, key=lambda trial: (-trial.reports[self.probe - 1], trial.name))[: min(self.best, slots)]
        probed = [trial for trial in live if len(trial.reports) < self.probe]
        probed.sort(key=lambda trial: not trial.running)
        stopped = [trial for trial in tried if trial not in leading]
        return _verdicts(live, (leading + probed)[:slots], stopped)


@dataclass(frozen=True, slots=True)
class Halving:
    """Rung k ends `first` x `factor`^k intervals into a trial. Of those that came to its end, the best 1/`factor` go on to the
    next, each as soon as it is known to be one of them; the others stop once every trial that still runs has come so far.

    While there are trials that nobody has tried, those that go on get at most `ahead` of the slots: what is still to come may
    be better than the best so far, and costs little to look at. Slots that this leaves idle go to the best who wait.
    """

    first: int = 1
    factor: int = 4
    ahead: float = 0.5

    def __call__(self, trials: Sequence[Trial], slots: int) -> dict[str, Verdict]:
        live = [trial for trial in trials if not trial.ended]
        behind = self._behind(trials)
        fresh = sorted((t for t in live if len(t.reports) < self.first), key=lambda t: (not t.running, -len(t.reports)))
        tried = sorted((t for t in live if t.name in behind), key=lambda t: (behind[t.name], -len(t.reports), t.name))
        going_on = [trial for trial in tried if behind[trial.name] < 1 / self.factor]
        lost = [] if fresh else self._lost(tried, behind)
        ahead = max(1, int(self.ahead * slots)) if fresh else slots
        chosen = dict.fromkeys([*going_on[:ahead], *fresh, *(trial for trial in tried if trial not in lost)])
        return _verdicts(live, list(chosen)[:slots], lost)

    def _rung(self, trial: Trial) -> int:
        """The reports at the end of the last rung that the trial came to, 0 for none."""
        end = self.first
        while end * self.factor <= len(trial.reports):
            end *= self.factor
        return end if len(trial.reports) >= end else 0

    def _behind(self, trials: Sequence[Trial]) -> dict[str, float]:
        """For each trial that came to the end of a rung, the share of those who did that were better there, 0 for the best; of
        several rungs the worst: a newcomer that does better than the best so far did at its age goes before it."""
        behind: dict[str, float] = {}
        end, there = self.first, [trial for trial in trials if len(trial.reports) >= self.first]
        while there:
            metrics = sorted(-trial.reports[end - 1] for trial in there)
            for trial in there:
                share = bisect_left(metrics, -trial.reports[end - 1]) / len(there)
                behind[trial.name] = max(behind.get(trial.name, 0.0), share)
            end *= self.factor
            there = [trial for trial in there if len(trial.reports) >= end]
        return behind

    def _lost(self, tried: Sequence[Trial], behind: dict[str, float]) -> list[Trial]:
        """The trials of the lowest rung that anybody is at, but for the best of it: nobody comes behind them any more."""
        lowest = min(map(self._rung, tried), default=0)
        return [t for t in tried if len(t.reports) == lowest and behind[t.name] >= 1 / self.factor]


def _verdicts(live: Iterable[Trial], chosen: Iterable[Trial], stopped: Iterable[Trial] = ()) -> dict[str, Verdict]:
    run, stop = {trial.name for trial in chosen}, {trial.name for trial in stopped}
    return {t.name: Verdict.STOP if t.name in stop else Verdict.RUN if t.name in run else Verdict.WAIT for t in live}
