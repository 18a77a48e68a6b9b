"""The event loop: jobs arrive, reach milestones and end; the policy decides, and the engine carries out its decisions.

Between two events every running job progresses at the rate that the physics gives for its placement. All events of one moment
are handled before the policy is called: a reactive pass follows arrivals, departures and failures, an introspective pass runs
every `period` seconds. Rates are measured while jobs run and enter the next snapshot's profiles, for all jobs of a kind. If
rates drift with progress (Pollux, OSDI'21), each started job also reports at every introspective pass its current rate on each
shape on which its kind was measured: a runtime knows its own statistical efficiency, and step times are those of the kind.
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
from muster.simulator.jobs import Job, gang_of
from muster.simulator.physics import Physics
from muster.simulator.records import Records

ENDED_KEPT = 499
"""Earlier ended jobs whose running times a snapshot keeps, in addition to the latest."""
NOWHERE = Shape("", (), 0.0)


class Policy(Protocol):
    """A scheduling policy; `period` is the seconds between introspective passes, None for reactive passes only."""

    period: float | None

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]: ...

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]: ...


@dataclass(slots=True)
class Run:
    """The state of a job between its arrival and its end."""

    job: Job
    done: float = 0.0
    rate: float = 0.0
    counted_at: float = 0.0
    """The time up to which `done` is counted; in the future while the job starts, moves or resumes."""
    until: float = 0.0
    """The progress up to which `rate` holds."""
    steady_since: float = 0.0
    """The start of the current rate, shape and co-location: a rate counts as measured once time has passed since."""
    version: int = 0
    shape: Shape = NOWHERE
    co_location: CoLocation = NO_NEIGHBOURS
    gpus: dict[str, GpuSet] | None = None
    """The GPUs on which it ran last, by node."""

    def advance(self, now: float) -> None:
        if now > self.counted_at:
            self.done += self.rate * (now - self.counted_at)
            self.counted_at = now


Hook = Callable[["Simulation", Run], None]
Moment = Callable[["Simulation"], None]


class Simulation:
    """One run. `on_milestone` runs at each milestone of a job and may submit and cancel jobs; `on_moment` only observes."""

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
        """The time of the next introspective pass."""
        self._wakes: set[float] = set()
        """Times at which a waiting gang becomes ready without an event."""
        for job in jobs:
            self.submit(job)

    def run(self) -> Records:
        """Simulate until every job has ended or `until` is reached."""
        while self._events and self._events[0][0] <= self.until:
            self.now = self._events[0][0]
            if self._pass_at == self.now:
                self._measure()
            changed = False
            while self._events and self._events[0][0] == self.now:
                changed |= heappop(self._events)[2]()
            if changed:
                self._decide(self.policy.react)
            if self._pass_at == self.now:
                self._introspect()
            self.records.sample(self.cluster.nodes, self.now)
            if self._on_moment:
                self._on_moment(self)
        self.records.close(self._over())
        return self.records

    def _over(self) -> float:
        """The end of the run: its last job's end, `until`, or the last event."""
        if not self.runs and len(self.records.rows) == self.submitted:
            return max((row.ended or 0.0 for row in self.records.rows.values()), default=0.0)
        return self.until if self._events else self.now

    def submit(self, job: Job) -> None:
        """Let a job arrive, now or later."""
        self.submitted += 1
        self.at(max(job.arrival, self.now), lambda: self._arrive(job))

    def adopt(self, existing: Gang, job: Job) -> None:
        """Add a gang in its present state: queued, or with a placement."""
        self.submitted += 1
        run = self.runs[job.name] = Run(job, counted_at=self.now)
        self.cluster.put(existing)
        self.records.arrived(job, self.now)
        if existing.placement:
            run.gpus = gpus_by_node(existing.placement)
            run.shape = shape_of(run.gpus, self.cluster.nodes)
        if existing.placement and existing.running:
            self.records.moved(job, (), existing.placement, self.now, "", 0.0)
            self._recompute(gpus_by_node(existing.placement))
        self._plan_pass()
        self._request_pass()

    def cancel(self, name: str) -> None:
        """End a job before its work is done."""
        self._end(self.runs[name], finished=False)
        self._request_pass()

    def at(self, when: float, event: Callable[[], bool]) -> None:
        """Schedule an event; it returns whether a reactive pass must follow."""
        heappush(self._events, (when, next(self._order), event))

    def remaining(self, name: str) -> float:
        """Return the remaining work of a job, for policies with an oracle (`policies.Oracle`)."""
        run = self.runs[name]
        return run.job.work - run.done - run.rate * max(0.0, self.now - run.counted_at)

    def rate_on(self, name: str, shape: Shape) -> float:
        """Return the rate that a job would have now, alone, on GPUs of a shape, for policies with an oracle."""
        run = self.runs[name]
        return self.physics.rate(run.job, run.done, shape, NO_NEIGHBOURS)

    def set_node(self, node: Node) -> None:
        """Change the health of a node's GPUs; gangs on failed GPUs are requeued and keep their progress."""
        self.cluster.set_node(node)
        touched: dict[str, GpuSet] = {}
        for name, gpus in self.cluster.placed(node.name).items():
            if gpus & ~node.healthy:
                touched.update(self._stop(self.runs[name], ()))
        self._recompute(touched)
        self._request_pass()

    # Events

    def _arrive(self, job: Job) -> bool:
        self.runs[job.name] = Run(job, counted_at=self.now)
        self.cluster.put(gang_of(job))
        self.records.arrived(job, self.now)
        self._plan_pass()
        return True

    def _plan_pass(self) -> None:
        if self.policy.period and self._pass_at is None:
            self._pass_at = (self.now // self.policy.period + 1) * self.policy.period
            self.at(self._pass_at, lambda: False)

    def _introspect(self) -> None:
        """Run an introspective pass; without further events the next pass would see the same snapshot, so none is planned."""
        self._pass_at = None
        if self.runs:
            self._decide(self.policy.introspect)
            if self._events:
                self._plan_pass()

    def _request_pass(self) -> None:
        """Schedule a reactive pass at the present moment."""
        self.at(self.now, lambda: True)

    def _reached(self, run: Run, version: int) -> bool:
        if run.version != version:
            return False
        run.advance(self.now)
        run.done = run.until  # exact, despite floating-point error
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
        ended = self.cluster.gangs[run.job.name]
        run.version += 1
        run.advance(self.now)
        self.cluster.remove(run.job.name)
        if self.physics.rates_drift:
            self.cluster.profiles = {name: p for name, p in self.cluster.profiles.items() if name != run.job.name}
        if ended.gpus:
            self.cluster.ended = (*self.cluster.ended[-ENDED_KEPT:], ended.ran(self.now))
        del self.runs[run.job.name]
        self._record(run, ended, ())
        self.records.ended(run.job, ended.attained_at(self.now), self.now, finished)
        self._recompute(gpus_by_node(ended.placement))

    # Decisions

    def _decide(self, plan: Callable[[Snapshot, float], Sequence[Decision]]) -> None:
        """Call the policy and carry out its decisions."""
        touched: dict[str, GpuSet] = {}
        decisions = plan(self.cluster.snapshot(), self.now)
        for decision in decisions:
            self._carry_out(decision, touched)
        self._recompute(touched)
        if not all(isinstance(decision, Wait) for decision in decisions):
            self._plan_pass()

    def _carry_out(self, decision: Decision, touched: dict[str, GpuSet]) -> None:
        self.records.decided(decision)
        match decision:
            case Join():
                touched.update(self._stop(self.runs[decision.gang.name], decision.placement))
            case Assignment():
                touched.update(self._put(self.runs[decision.gang.name], decision))
            case Suspend():
                gang = self.cluster.gangs[decision.gang.name]
                touched.update(self._stop(self.runs[gang.name], gang.placement, gang.packed))
            case Requeue():
                touched.update(self._stop(self.runs[decision.gang.name], ()))
            case Preempt():
                for victim in decision.victims:
                    touched.update(self._stop(self.runs[victim.name], ()))
                self._request_pass()
            case Wait(until=float(until)) if until > self.now and until not in self._wakes:
                self._wakes.add(until)
                self.at(until, lambda: True)

    def _put(self, run: Run, decision: Assignment) -> dict[str, GpuSet]:
        if not decision.placement:
            return self._stop(run, ())
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
        self._record(run, before, decision.placement, type(decision).__name__, pause)
        run.shape, run.gpus = shape, gpus
        run.counted_at = max(run.counted_at, self.now + pause)
        if not gpus:
            self._set_rate(run)  # without GPUs it is in no neighbourhood, so _recompute would miss it
        return {**gpus_by_node(before.placement), **gpus}

    def _pause(self, run: Run, gpus: dict[str, GpuSet], shape: Shape) -> float:
        """The seconds without progress when a job starts, resumes or moves to these GPUs."""
        if run.gpus is None:
            return run.job.start_seconds
        if run.gpus == gpus and self.cluster.gangs[run.job.name].running:
            return 0.0
        if _sizes(run.gpus) == _sizes(gpus):
            return self.physics.resume_seconds(run.job)
        return self.physics.move_seconds(run.job, run.shape, shape)

    def _stop(self, run: Run, placement: Placement, packed: str = "") -> dict[str, GpuSet]:
        """Stop a job: it is queued, or suspended with a placement on which it waits for its time slice."""
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
        self._record(run, before, (), "Suspend" if before.running and before.placement else "")
        return gpus_by_node(before.placement)

    def _record(self, run: Run, before: Gang, placement: Placement, verb: str = "", pause: float = 0.0) -> None:
        ran_on = before.placement if before.running else ()
        self.records.moved(run.job, ran_on, placement, self.now, verb, pause)

    # Rates

    def _recompute(self, touched: dict[str, GpuSet]) -> None:
        """Update the rates of the gangs on the touched nodes."""
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
        """Add the rates observed since the last pass to the profiles."""
        if not self.physics.placement_matters:
            return
        for name, run in self.runs.items():
            gang = self.cluster.gangs[name]
            if gang.placement and gang.running and run.steady_since < self.now:
                profile = self.cluster.profiles.get(gang.profile_name) or self.physics.profile(run.job)
                if profile.rates.get((run.shape, run.co_location)) != run.rate:
                    rates = {**profile.rates, (run.shape, run.co_location): run.rate}
                    self.cluster.profiles = {**self.cluster.profiles, gang.profile_name: _with_rates(profile, rates)}
        if self.physics.rates_drift:
            self.cluster.profiles = {**self.cluster.profiles, **self._reported()}

    def _reported(self) -> dict[str, Profile]:
        """A profile for each started gang: its current rate on each shape and co-location measured for its kind."""
        profiles = {}
        for name, run in self.runs.items():
            gang = self.cluster.gangs[name]
            measured = self.cluster.profiles.get(gang.profile_name)
            if gang.started and measured:
                rates = {key: self.physics.rate(run.job, run.done, *key) for key in measured.rates}
                profiles[name] = _with_rates(measured, rates)
        return profiles


def _with_rates(profile: Profile, rates: dict[tuple[Shape, CoLocation], float]) -> Profile:
    return replace(profile, rates=rates)


def _sizes(gpus: dict[str, GpuSet]) -> dict[str, int]:
    return {name: held.bit_count() for name, held in gpus.items()}
