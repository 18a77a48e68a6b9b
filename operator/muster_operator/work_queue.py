"""The one work queue: which objects are to be reconciled, which have work in flight, and when to plan.

Nothing here is the only copy of anything: a marked object is read afresh, so a missed or doubled event does no harm. An object
has at most one piece of work in flight; a mark that comes meanwhile counts once that work has ended. All fields are private:
controllers and planning speak to the queue by its methods.

Two clocks: `clock` dates what is written to API objects, and may be set back or forward by minutes; `pace` never is, and all
that waits here waits by it. A date becomes a time of `pace` where it is handed in, and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple

from muster.kube.errors import Conflict, KubeError

AT_ONCE = 32
"""Parts of one piece of work that run at once: as many as the client has connections, and no more objects are in memory."""
RETRY_SECONDS = 2.0
"""Before work that failed is tried again; doubled each time in a row that muster itself was at fault."""
LONGEST_RETRY_SECONDS = 120.0
"""The longest such pause. A change of the object ends it at once."""
PLAN_SECONDS = 0.05
"""Least time between two plans: what arrives in between is planned together."""
PLAN_SHARE = 0.2
"""Of the time, for plans that only gangs ask for which have come to wait: thousands that arrive leave the loop to others."""
NEWS_SECONDS = 0.2
"""Before work that came too late is done again although no news has come; as a rule the watch brings them sooner."""
NEVER = float("inf")
Work = Coroutine[Any, Any, object]


class Key(NamedTuple):
    """An object by its kind and its name, "NAMESPACE/NAME"."""

    kind: str
    name: str


class WorkQueue:
    """Marks, work in flight, and the time of the next plan; `failed` is called with work that raised."""

    def __init__(
        self,
        failed: Callable[[str, Exception], None],
        clock: Callable[[], float] = time.time,
        pace: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock, self.pace = clock, pace
        self._failed = failed
        self._dirty: set[Key] = set()
        self._later: dict[Key, float] = {}
        self._in_flight: set[Key] = set()
        self._failures: dict[Key, int] = {}
        """How often in a row muster was at fault in the work of an object."""
        self._telling: set[Key] = set()
        """Those whose work in flight only tells people something."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._plan_at = self._planned_at = self._plan_took = 0.0
        self._plan_after: set[Key] = set()
        self._changed = asyncio.Event()

    # Marks

    def mark(self, key: Key) -> None:
        """Have an object reconciled."""
        self._dirty.add(key)
        self._changed.set()

    def mark_at(self, key: Key, at: float) -> None:
        """Have an object reconciled at a date although nothing changes; the earliest time counts."""
        self.mark_in(key, at - self.clock())

    def mark_in(self, key: Key, seconds: float) -> None:
        """Have an object reconciled after a while although nothing changes; the earliest time counts."""
        self._later[key] = min(self.pace() + seconds, self._later.get(key, NEVER))

    def due(self) -> list[Key]:
        """Take the marked objects that have no work in flight; the others stay marked."""
        now = self.pace()
        self._dirty |= {key for key, at in self._later.items() if at <= now}
        for key in self._dirty:
            self._later.pop(key, None)
        free, self._dirty = self._dirty - self._in_flight, self._dirty & self._in_flight
        return sorted(free)

    @property
    def later(self) -> Mapping[Key, float]:
        """The objects that are marked for a time to come, by `pace`."""
        return self._later

    # Work in flight

    def start(self, key: Key, work: Work, *, tells: bool = False) -> None:
        """Run an object's work concurrently; work that raises is reported, and its object marked for a retry.

        Conflict is no failure: somebody else changed the object first, so it is looked at and planned anew. Work that only
        `tells` people something changes nothing that a plan depends on.
        """
        self._in_flight.add(key)
        if tells:
            self._telling.add(key)
        task = asyncio.create_task(self._guarded(key, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def is_busy(self, key: Key) -> bool:
        """Return whether an object has work in flight."""
        return key in self._in_flight

    def is_changing(self, key: Key) -> bool:
        """Return whether an object has work in flight that may change what a plan depends on."""
        return key in self._in_flight and key not in self._telling

    @property
    def telling(self) -> int:
        """How many objects have work in flight that only tells people something."""
        return len(self._telling)

    @property
    def in_flight(self) -> frozenset[Key]:
        """The objects that have work in flight."""
        return frozenset(self._in_flight)

    def stop(self) -> None:
        """Cancel all work in flight."""
        for task in self._tasks:
            task.cancel()

    async def _guarded(self, key: Key, work: Work) -> None:
        try:
            await work
        except Conflict:
            self.mark_in(key, NEWS_SECONDS)
            self.plan_after_news()
        except Exception as error:
            self.failed(key, error)
        else:
            self._failures.pop(key, None)
        finally:
            self._in_flight.discard(key)
            self._telling.discard(key)
            if key in self._plan_after:
                self._plan_after.discard(key)
                self.plan_now()
            self._changed.set()

    def failed(self, key: Key, error: Exception) -> None:
        """Report what went wrong with an object, and mark it for another try."""
        self._failed(key.name, error)
        if isinstance(error, KubeError):
            self.mark_in(key, RETRY_SECONDS)
            return
        before = self._failures.get(key, 0)
        self._failures[key] = before + 1
        self.mark_in(key, min(RETRY_SECONDS * 2.0 ** min(before, 30), LONGEST_RETRY_SECONDS))

    def settled(self, key: Key) -> None:
        """Forget the failures of an object that was looked at without one, unless it has work in flight that may fail."""
        if key not in self._in_flight:
            self._failures.pop(key, None)

    # Plans

    def plan_now(self) -> None:
        """Have everything planned as soon as possible."""
        self._plan(0.0)

    def plan_soon(self) -> None:
        """Have everything planned for the sake of gangs that have come to wait: the later, the longer a plan takes."""
        self._plan(self._planned_at + self._plan_took / PLAN_SHARE)

    def plan_by(self, at: float) -> None:
        """Have everything planned by a date."""
        self.plan_in(at - self.clock())

    def plan_in(self, seconds: float) -> None:
        """Have everything planned within so many seconds."""
        self._plan(self.pace() + seconds)

    def _plan(self, at: float) -> None:
        if at < self._plan_at:
            self._plan_at = at
            self._changed.set()

    def plan_after(self, key: Key) -> bool:
        """Return whether an object has work in flight; if so, have everything planned once that has ended."""
        if key in self._in_flight:
            self._plan_after.add(key)
        return key in self._in_flight

    def plan_after_news(self) -> None:
        """Have everything planned once the watch has brought the object that made a write come too late."""
        self.plan_in(NEWS_SECONDS)

    @property
    def plan_at(self) -> float:
        """When to plan next although nothing changes, by `pace`."""
        return self._plan_at

    @property
    def plan_due_at(self) -> float:
        """When the next plan is due, by `pace`: as soon as it may be after the last one where it is due at once."""
        return self._next_plan()

    def plan_is_due(self) -> bool:
        """Return whether to plan now."""
        return self._next_plan() <= self.pace()

    def begin_plan(self) -> None:
        """Note that a plan begins: what asks for a plan from here on asks for the next one."""
        self._plan_at, self._planned_at = NEVER, self.pace()

    def decided(self) -> None:
        """Note that the plan that has begun is made; it is still to be carried out."""
        self._plan_took = self.pace() - self._planned_at

    def _next_plan(self) -> float:
        return max(self._plan_at, self._planned_at + PLAN_SECONDS)

    # Waiting

    async def wait(self) -> None:
        """Sleep until something changes or is due."""
        due = min([self._next_plan(), *self._later.values()])
        try:
            async with asyncio.timeout(max(0.0, due - self.pace()) if due != NEVER else None):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()


async def all_of(work: Iterable[Work]) -> None:
    """Run all concurrently, so many at once; when some fail, wait for the others, then raise the first error."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(part: Work) -> None:
        async with turns:
            await part

    for result in await asyncio.gather(*map(in_turn, work), return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
