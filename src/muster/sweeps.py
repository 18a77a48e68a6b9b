"""Rules for the trials of a hyperparameter sweep: early feedback decides which run, wait or stop.

A sweep tries many configurations of one job. Each trial reports its metric after every interval of mini-batches, larger is
better; a rule reads all reports and returns a verdict for each trial that has not ended. A rule keeps no state, and knows
neither the length of a trial nor its placement: a trial that waits continues later from where it stopped.

    in_turn   every trial to its end, in the order of submission: the behaviour of schedulers without sweeps
    TopM      Gandiva (OSDI'18): the best run on, the others take turns, in order, to show what they can do
    Halving   asynchronous successive halving (Li et al., MLSys'20): the best of each rung run on

Invariant: at most `slots` trials are told to run, and no slot is idle while a trial waits.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a trial does until the next report."""

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
    """Whether it ran to its end or was stopped; its reports still count for others."""


Rule = Callable[[Sequence[Trial], int], dict[str, Verdict]]
"""From trials in the order of submission, and the number of slots."""


def in_turn(trials: Sequence[Trial], slots: int) -> dict[str, Verdict]:
    """Run every trial to its end, in order."""
    live = [trial for trial in trials if not trial.ended]
    return _verdicts(live, live[:slots])


@dataclass(frozen=True, slots=True)
class TopM:
    """Gandiva's rule: the `best` trials run on; each of the others, in order, runs for `probe` intervals on the other slots.

    A trial is compared with the best by its metric after `probe` intervals, and the worst of them stops.
    """

    best: int
    probe: int = 2

    def __call__(self, trials: Sequence[Trial], slots: int) -> dict[str, Verdict]:
        live = [trial for trial in trials if not trial.ended]
        tried = [trial for trial in live if len(trial.reports) >= self.probe]
        leading = sorted(tried, key=lambda trial: (-trial.reports[self.probe - 1], trial.name))[: min(self.best, slots)]
        probed = sorted((t for t in live if len(t.reports) < self.probe), key=lambda trial: not trial.running)
        return _verdicts(live, (leading + probed)[:slots], [trial for trial in tried if trial not in leading])


@dataclass(frozen=True, slots=True)
class Halving:
    """Asynchronous successive halving: rung k ends `first` x `factor`^k intervals into a trial.

    Of the trials that reached its end, the best 1/`factor` run on, each as soon as it is known to be one of them; the others
    stop once all live trials have reached it. While untried trials remain, promoted ones get at most the share `ahead` of the
    slots, since an untried trial may be better and costs little to try. Slots left idle go to the best waiting trials.
    """

    first: int = 1
    factor: int = 4
    ahead: float = 0.5

    def __call__(self, trials: Sequence[Trial], slots: int) -> dict[str, Verdict]:
        live = [trial for trial in trials if not trial.ended]
        behind = self._behind(trials)
        fresh = sorted((t for t in live if len(t.reports) < self.first), key=lambda t: (not t.running, -len(t.reports)))
        tried = sorted((t for t in live if t.name in behind), key=lambda t: (behind[t.name], -len(t.reports), t.name))
        promoted = [trial for trial in tried if behind[trial.name] < 1 / self.factor]
        stopped = [] if fresh else self._stopped(tried, behind)
        ahead = max(1, int(self.ahead * slots)) if fresh else slots
        chosen = dict.fromkeys([*promoted[:ahead], *fresh, *(trial for trial in tried if trial not in stopped)])
        return _verdicts(live, list(chosen)[:slots], stopped)

    def _behind(self, trials: Sequence[Trial]) -> dict[str, float]:
        """The share of better trials at the end of a rung, for each trial that reached one; of several rungs the worst share.

        So a newcomer that is better than the leading trial was at its age goes before that one.
        """
        behind: dict[str, float] = {}
        end, reached = self.first, [trial for trial in trials if len(trial.reports) >= self.first]
        while reached:
            metrics = sorted(-trial.reports[end - 1] for trial in reached)
            for trial in reached:
                share = bisect_left(metrics, -trial.reports[end - 1]) / len(reached)
                behind[trial.name] = max(behind.get(trial.name, 0.0), share)
            end *= self.factor
            reached = [trial for trial in reached if len(trial.reports) >= end]
        return behind

    def _stopped(self, tried: Sequence[Trial], behind: dict[str, float]) -> list[Trial]:
        """The trials at the end of the lowest rung that are not among its best: no live trial has yet to reach it."""
        lowest = min((self._last_rung(len(trial.reports)) for trial in tried), default=0)
        return [t for t in tried if len(t.reports) == lowest and behind[t.name] >= 1 / self.factor]

    def _last_rung(self, reports: int) -> int:
        end = self.first
        while end * self.factor <= reports:
            end *= self.factor
        return end


def _verdicts(live: Iterable[Trial], chosen: Iterable[Trial], stopped: Iterable[Trial] = ()) -> dict[str, Verdict]:
    run, stop = {trial.name for trial in chosen}, {trial.name for trial in stopped}
    return {t.name: Verdict.STOP if t.name in stop else Verdict.RUN if t.name in run else Verdict.WAIT for t in live}
