"""Tells people why gangs wait. Deciding never waits for it: the writes of a plan are out before anybody is told anything.

The waits of the last plan are looked through in the background, some at a time and round and round, until people have been told
all of them. Another reason is written as soon as it is found. Newer numbers to the same reason are written at leisure: when one
gang starts, each of thousands behind it has newer numbers, and nobody reads them all. What comes true meanwhile makes a wait
void, and a newer plan replaces all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from muster.kube.errors import Conflict
from muster.scheduling.decisions import Wait
from muster_operator.controller import Context, Controller, News
from muster_operator.work_queue import NEVER, NEWS_SECONDS, RETRY_SECONDS, Key

SAME_REASON_SECONDS = 30.0
"""Least time between two writes about a gang that only bring newer numbers; more where others would not have their turn."""
LOOK_SECONDS = 0.1
"""Between two looks at the waits. A look costs less than a millisecond, and brings at most:"""
MOST_LOOKED_AT = 500
"""waits that are looked at, so that 10,000 take two seconds;"""
MOST_AT_ONCE = 8
"""writes in flight, of the client's 32 connections: 80 a second;"""
MOST_NUMBERS = 2
"""writes that only bring newer numbers: 20 a second."""
_ITSELF = Key("Wait", "")


class Telling(Controller):
    """The waits of the last plan, and which of them are being told; reconciled whenever it is time for another look."""

    kind = _ITSELF.kind

    def __init__(self, context: Context, owner: Callable[[str], Controller | None]) -> None:
        self._work_queue, self._reporter, self._owner = context.work_queue, context.reporter, owner
        self._waits: Sequence[Wait] = ()
        self._positions: Sequence[int] = ()
        self._next = self._left = 0
        """The number of the wait to look at next, and how many are left until all have been found told, one after the other."""
        self._look_at = 0.0
        self._wake_at = NEVER
        """When the first of the waits that may not be told yet may be."""
        self._rests: dict[Key, float] = {}
        """Until when a gang is told no newer numbers, in order of time; after a write that failed, nothing at all."""
        self._failed: set[Key] = set()

    def hear(self, waits: Sequence[Wait], now: float) -> None:
        """Tell people this from now on, and nothing of what earlier plans said."""
        self._waits, self._next = waits, self._next % max(1, len(waits))
        self._positions = positions(waits)
        self._begin()
        pace = self._work_queue.pace()
        if self._look_at <= pace:
            self._look(now)
        else:
            self._work_queue.mark_in(_ITSELF, self._look_at - pace)

    def reconcile(self, name: str, now: float) -> None:  # noqa: ARG002 (there is only one)
        if not self._left:
            self._begin()
        self._look(now)

    def _begin(self) -> None:
        """Begin another round; rests that are over are forgotten."""
        self._left, self._wake_at = len(self._waits), NEVER
        pace = self._work_queue.pace()
        while self._rests and self._rests[key := next(iter(self._rests))] <= pace:
            del self._rests[key]
            self._failed.discard(key)

    def _look(self, now: float) -> None:
        """Look at some waits, and start the writes of what is to be told now."""
        numbers, pace = MOST_NUMBERS, self._work_queue.pace()
        for _ in range(min(self._left, MOST_LOOKED_AT)):
            if self._work_queue.telling >= MOST_AT_ONCE:
                break
            wait = self._waits[self._next]._replace(position=self._positions[self._next])
            self._next, self._left = (self._next + 1) % len(self._waits), self._left - 1
            news = self._untold(wait, pace)
            if news is not News.NONE:
                self._left = len(self._waits)
            if news is News.REASON or (news is News.NUMBERS and numbers):
                numbers -= news is News.NUMBERS
                self._start(wait, now)
        if self._left:
            self._look_at = pace + LOOK_SECONDS
        if self._left or self._wake_at != NEVER:
            self._work_queue.mark_in(_ITSELF, (self._look_at if self._left else self._wake_at) - pace)

    def _untold(self, wait: Wait, pace: float) -> News:
        """What people are to be told of a wait as soon as there is room for it."""
        with self._reporter.contained(f"{wait.gang.name}: cannot be told why it waits"):
            owner = self._owner(wait.gang.name)
            news = owner.news(wait) if owner is not None else News.NONE
            if owner is None or news is News.NONE:
                return News.NONE
            until = self._rests_until(Key(owner.kind, wait.gang.name), news, pace)
            if until <= pace:
                return news
            self._wake_at = min(self._wake_at, until)
        return News.NONE

    def _rests_until(self, key: Key, news: News, pace: float) -> float:
        """Until when a gang is not told some news."""
        until = self._rests.get(key, 0.0) if news is News.NUMBERS or key in self._failed else 0.0
        return max(until, pace + LOOK_SECONDS) if self._work_queue.is_busy(key) else until

    def _start(self, wait: Wait, now: float) -> None:
        owner = self._owner(wait.gang.name)
        assert owner is not None
        key = Key(owner.kind, wait.gang.name)
        self._work_queue.start(key, self._tell(owner, key, wait, now), tells=True)

    async def _tell(self, owner: Controller, key: Key, wait: Wait, now: float) -> None:
        try:
            await owner.tell(wait, now)
        except Exception as error:
            self._failed.add(key)
            self._rest(key, NEWS_SECONDS if isinstance(error, Conflict) else RETRY_SECONDS)
            raise
        else:
            self._failed.discard(key)
            self._rest(key, max(SAME_REASON_SECONDS, len(self._waits) * LOOK_SECONDS / MOST_NUMBERS))

    def _rest(self, key: Key, seconds: float) -> None:
        self._rests.pop(key, None)
        self._rests[key] = self._work_queue.pace() + seconds


def positions(waits: Iterable[Wait]) -> list[int]:
    """Return the position of each gang among those of its queue that wait, from 1; 0 for a gang that has a placement."""
    last: dict[str, int] = {}
    found = []
    for wait in waits:
        position = 0 if wait.gang.placement else last.get(wait.gang.queue, 0) + 1
        if position:
            last[wait.gang.queue] = position
        found.append(position)
    return found
