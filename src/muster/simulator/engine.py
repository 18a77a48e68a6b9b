"""Discrete events: jobs arrive, reach milestones and end; the policy is asked, and what it decides comes true.

Between two events every running job makes progress at the rate that the physics gives it where it is. All events of one
moment happen before the policy is asked once: a reactive pass after arrivals, departures and failures, an introspective one
every `period` seconds. Rates are measured while jobs run and become part of the next snapshot, for all jobs of a kind.
Where they drift with a job's progress, a job also reports at each introspective pass how fast it would be now in every way in
which its kind was ever measured: its runtime knows its own statistical efficiency, and the step times are those of the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from muster.scheduling.decisions import Assignment, Decision, Join, Pack, Preempt, Requeue, Resume, Suspend, Wait
from muster.scheduling.gang import Gang, Placement, Trial, gpus_by_node
from muster.scheduling.profile import NO_NEIGHBOURS, CoLocation, Profile, Shape
from muster.scheduling.snapshot import Queue, Snapshot
from muster.scheduling.speed.shapes import shape_of
from muster.scheduling.topology.links import GpuSet
from muster.scheduling.topology.node import Node
from muster.simulator.cluster import Cluster
from muster.simulator.jobs import Job, gang
from muster.simulator.physics import Physics
from muster.simulator.records import Records

MEMORY = 499
"""How many ended jobs a policy remembers beside the last."""
NOWHERE = Shape("", (), 0.0)


class Policy(Protocol):
    """Who decides. `period` is the seconds between introspective passes, None for none."""

    period: float | None

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]: ...

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]: ...


@dataclass(slots=True)
class Run:
    """What the engine keeps of a job that has arrived and not ended."""

    job: Job
    done: float = 0.0
    rate: float = 0.0
    counted_at: float = 0.0
    """Progress is counted up to here; in the future while the job is being suspended, moved or resumed."""
    until: float = 0.0
    """The progress at which `rate` ends."""
    steady_since: float = 0.0
    """When it began to run at this rate, in this shape and company: what is younger nobody has measured."""
    version: int = 0
    shape: Shape = NOWHERE
    co_location: CoLocation = NO_NEIGHBOURS
    gpus: dict[str, GpuSet] | None = None
    """Where it ran last."""

    def advance(self, now: float) -> None:
        if now > self.counted_at:
            self.done += self.rate * (now - self.counted_at)
            self.counted_at = now


Hook = Callable[["Simulation", Run], None]
Moment = Callable[["Simulation"], None]


class Simulation:
    """One run; `on_milestone` hears of each milestone of each job and may submit and cancel jobs, `on_moment` only looks on."""

    def __init__(
        self,
        nodes: Iterable[Node],
        jobs: Iterable[Job],
        physics: Physics,
        policy: Policy,
        *,
        until: float = float("inf"),
        records: Records | None = None,
        queues: Iterable[Queue] = (),
        on_milestone: Hook | None = None,
        on_moment: Moment | None = None,
    ) -> None:
        self.cluster = Cluster(nodes, queues)
        self.physics, self.policy, self.until = physics, policy, until
        self.records = records or Records(self.cluster.gpus)
        self.now = 0.0
        self.runs: dict[str, Run] = {}
        self.submitted = 0
        self._on_milestone, self._on_moment = on_milestone, on_moment
        self._order = count()
        self._events: list[tuple[float, int, Callable[[], bool]]] = []
        self._pass_at: float | None = None
        """When the next introspective pass is due."""
        self._wakes: set[float] = set()
        """When answers change by time alone."""
        for job in jobs:
            self.submit(job)

    def run(self) -> Records:
        """Simulate until every job has ended, or time is up."""
        while self._events and self._events[0][0] <= self.until:
            self.now = self._events[0][0]
            if self._pass_at == self.now:
                self._measure()
            changed = False
            while self._events and self._events[0][0] == self.now:
                changed |= heappop(self._events)[2]()
            if changed:
                self._ask(self.policy.react)
            if self._pass_at == self.now:
                self._pass()
            self.records.looks(self.cluster.nodes, self.now)
            if self._on_moment:
                self._on_moment(self)
        self.records.close(self._over())
        return self.records

    def _over(self) -> float:
        """When the run was over: with its last job, when time was up, or when nothing could happen any more."""
        if not self.runs and len(self.records.rows) == self.submitted:
            return max((row.ended or 0.0 for row in self.records.rows.values()), default=0.0)
        return self.until if self._events else self.now

    def submit(self, job: Job) -> None:
        """Let a job arrive, now or later."""
        self.submitted += 1
        self.at(max(job.arrival, self.now), lambda: self._arrive(job))

    def adopt(self, found: Gang, job: Job) -> None:
        """Let a gang be there now as it is found: waiting, or on the GPUs of its placement."""
        self.submitted += 1
        run = self.runs[job.name] = Run(job, counted_at=self.now)
        self.cluster.put(found)
        self.records.arrived(job, self.now)
        if found.placement:
            run.gpus = gpus_by_node(found.placement)
            run.shape = shape_of(run.gpus, self.cluster.nodes)
        if found.placement and found.running:
            self.records.moved(job, (), found.placement, self.now, "", 0.0)
            self._recompute(gpus_by_node(found.placement))
        self._plan_pass()
        self._ask_again()

    def cancel(self, name: str) -> None:
        """End a job before its work is done."""
        self._end(self.runs[name], finished=False)
        self._ask_again()

    def at(self, when: float, happening: Callable[[], bool]) -> None:
        """Let something happen at a time; it says whether the policy is to be asked."""
        heappush(self._events, (when, next(self._order), happening))

    def remaining(self, name: str) -> float:
        """The work that a job has still to do: for policies that are told (`policies.Oracle`)."""
        run = self.runs[name]
        return run.job.work - run.done - run.rate * max(0.0, self.now - run.counted_at)

    def rate_on(self, name: str, shape: Shape) -> float:
        """The progress a second that a job would make now, alone, on GPUs of a shape: for policies that are told."""
        run = self.runs[name]
        return self.physics.rate(run.job, run.done, shape, NO_NEIGHBOURS)

    def set_node(self, node: Node) -> None:
        """Let GPUs of a node fail or come back; gangs on those that failed are queued again, with what they had saved."""
        self.cluster.set_node(node)
        touched: dict[str, GpuSet] = {}
        for name, gpus in self.cluster.placed(node.name).items():
            if gpus & ~node.healthy:
                touched.update(self._off(self.runs[name], ()))
        self._recompute(touched)
        self._ask_again()

    # Events

    def _arrive(self, job: Job) -> bool:
        self.runs[job.name] = Run(job, counted_at=self.now)
        self.cluster.put(gang(job))
        self.records.arrived(job, self.now)
        self._plan_pass()
        return True

    def _plan_pass(self) -> None:
        if self.policy.period and self._pass_at is None:
            self._pass_at = (self.now // self.policy.period + 1) * self.policy.period
            self.at(self._pass_at, lambda: False)

    def _pass(self) -> None:
        """Where nothing runs, nobody comes and nothing was decided, the next pass would find what this one found."""
        self._pass_at = None
        if self.runs:
            self._ask(self.policy.introspect)
            if self._events:
                self._plan_pass()

    def _ask_again(self) -> None:
        """Let the policy be asked before time goes on."""
        self.at(self.now, lambda: True)

    def _reached(self, run: Run, version: int) -> bool:
        if run.version != version:
            return False
        run.advance(self.now)
        run.done = run.until  # whatever the floating point made of it
        if run.done >= run.job.work:
            self._end(run, finished=True)
            return True
        if self._on_milestone:
            self._on_milestone(self, run)
        if run.job.name not in self.runs:
            return True
        self._set_rate(run)
        return False

    def _end(self, run: Run, *, finished: bool) -> None:
        gone = self.cluster.gangs[run.job.name]
        run.version += 1
        run.advance(self.now)
        self.cluster.remove(run.job.name)
        if self.physics.rates_drift:
            self.cluster.profiles = {name: known for name, known in self.cluster.profiles.items() if name != run.job.name}
        if gone.gpus:
            self.cluster.ended = (*self.cluster.ended[-MEMORY:], gone.ran(self.now))
        del self.runs[run.job.name]
        self._note(run, gone, ())
        self.records.ended(run.job, gone.attained_at(self.now), self.now, finished)
        self._recompute(gpus_by_node(gone.placement))

    # Decisions

    def _ask(self, ask: Callable[[Snapshot, float], Sequence[Decision]]) -> None:
        """Ask the policy and do what it says."""
        touched: dict[str, GpuSet] = {}
        decisions = ask(self.cluster.snapshot(), self.now)
        for decision in decisions:
            self._carry_out(decision, touched)
        self._recompute(touched)
        if not all(isinstance(decision, Wait) for decision in decisions):
            self._plan_pass()

    def _carry_out(self, decision: Decision, touched: dict[str, GpuSet]) -> None:
        self.records.decided(decision)
        match decision:
            case Join():
                touched.update(self._off(self.runs[decision.gang.name], decision.placement))
            case Assignment():
                touched.update(self._put(self.runs[decision.gang.name], decision))
            case Suspend():
                suspended = self.cluster.gangs[decision.gang.name]
                touched.update(self._off(self.runs[suspended.name], suspended.placement, suspended.packed))
            case Requeue():
                touched.update(self._off(self.runs[decision.gang.name], ()))
            case Preempt():
                for victim in decision.victims:
                    touched.update(self._off(self.runs[victim.name], ()))
                self._ask_again()
            case Wait(until=float(until)) if until > self.now and until not in self._wakes:
                self._wakes.add(until)
                self.at(until, lambda: True)

    def _put(self, run: Run, decision: Assignment) -> dict[str, GpuSet]:
        if not decision.placement:
            return self._off(run, ())
        before = self.cluster.gangs[run.job.name]
        gpus = gpus_by_node(decision.placement)
        run.advance(self.now)
        run.rate = 0.0
        shape = shape_of(gpus, self.cluster.nodes)
        pause = self._pause(run, gpus, shape)
        after = replace(
            before,
            attained=before.attained_at(self.now),
            since=self.now,
            placement=decision.placement,
            running=True,
            started=before.started if run.gpus else before.started or self.now,
            packed=decision.onto if isinstance(decision, Pack) else before.packed if isinstance(decision, Resume) else "",
            trial=Trial(type(decision).__name__, self.now, decision.effect, before.placement) if decision.effect else None,
        )
        self.cluster.put(after)
        self._note(run, before, decision.placement, type(decision).__name__, pause)
        run.shape, run.gpus = shape, gpus
        run.counted_at = max(run.counted_at, self.now + pause)
        if not gpus:
            self._set_rate(run)  # it meets nobody on any GPU
        return {**gpus_by_node(before.placement), **gpus}

    def _pause(self, run: Run, gpus: dict[str, GpuSet], shape: Shape) -> float:
        """Seconds that a job loses by starting or going on there."""
        if run.gpus is None:
            return run.job.start_seconds
        if run.gpus == gpus and self.cluster.gangs[run.job.name].running:
            return 0.0
        if _sizes(run.gpus) == _sizes(gpus):
            return self.physics.resume_seconds(run.job)
        return self.physics.move_seconds(run.job, run.shape, shape)

    def _off(self, run: Run, placement: Placement, packed: str = "") -> dict[str, GpuSet]:
        """Take a job off its GPUs, or let it wait on others; with a placement it waits for its turn there."""
        before = self.cluster.gangs[run.job.name]
        run.advance(self.now)
        run.rate, run.version = 0.0, run.version + 1
        after = replace(
            before,
            attained=before.attained_at(self.now),
            since=self.now,
            placement=placement,
            running=False,
            packed=packed,
            trial=None,
        )
        self.cluster.put(after)
        self._note(run, before, (), "Suspend" if before.running and before.placement else "")
        return gpus_by_node(before.placement)

    def _note(self, run: Run, before: Gang, placement: Placement, verb: str = "", pause: float = 0.0) -> None:
        left = before.placement if before.running else ()
        self.records.moved(run.job, left, placement, self.now, verb, pause)

    # Rates

    def _recompute(self, touched: dict[str, GpuSet]) -> None:
        """Give a rate to the gangs that the change may concern."""
        for name in self.cluster.neighbourhood(touched):
            run = self.runs[name]
            if run.rate == 0.0 or self.physics.placement_matters or run.counted_at > self.now:
                self._set_rate(run)

    def _set_rate(self, run: Run) -> None:
        run.advance(self.now)
        before = run.co_location, run.rate
        if self.physics.placement_matters and run.gpus is not None:
            run.co_location = self.cluster.running.co_location(run.job.name, run.gpus, self.cluster.nodes)
        run.rate = self.physics.rate(run.job, run.done, run.shape, run.co_location)
        if (run.co_location, run.rate) != before:
            run.steady_since = run.counted_at
        run.until = min(self.physics.milestone(run.job, run.done), run.job.work)
        run.version += 1
        self.records.busy(run.job, self.physics.busy(run.job, run.co_location), self.now)
        if run.rate > 0.0:
            version = run.version
            self.at(run.counted_at + (run.until - run.done) / run.rate, lambda: self._reached(run, version))

    def _measure(self) -> None:
        """Add what was seen since the last pass to the profiles."""
        if not self.physics.placement_matters:
            return
        for name, run in self.runs.items():
            seen = self.cluster.gangs[name]
            if seen.placement and seen.running and run.steady_since < self.now:
                known = self.cluster.profiles.get(seen.profile_name) or self.physics.profile(run.job)
                if known.rates.get((run.shape, run.co_location)) != run.rate:
                    rates = {**known.rates, (run.shape, run.co_location): run.rate}
                    self.cluster.profiles = {**self.cluster.profiles, seen.profile_name: _with_rates(known, rates)}
        if self.physics.rates_drift:
            self.cluster.profiles = {**self.cluster.profiles, **self._reported()}

    def _reported(self) -> dict[str, Profile]:
        """The profile of each gang that has started: its rates of now, where its kind was measured."""
        found = {}
        for name, run in self.runs.items():
            seen = self.cluster.gangs[name]
            known = self.cluster.profiles.get(seen.profile_name)
            if seen.started and known:
                now = {where: self.physics.rate(run.job, run.done, *where) for where in known.rates}
                found[name] = _with_rates(known, now)
        return found


def _with_rates(profile: Profile, rates: dict[tuple[Shape, CoLocation], float]) -> Profile:
    return replace(profile, rates=rates)


def _sizes(gpus: dict[str, GpuSet]) -> dict[str, int]:
    return {name: held.bit_count() for name, held in gpus.items()}
