"""The gangs of a snapshot by what a pass asks of them, counted by what changed since the last one.

A gang that changed is another object; of those that are the same nothing is looked at again. Who came, and in which order,
makes no difference to whoever asks: the order of gangs is that of their turn (`queueing`).
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.scheduling.gang import Gang


class GangIndex:
    """Gangs by identity, and how many of them there are of a kind."""

    def __init__(self) -> None:
        self.placed: dict[int, Gang] = {}
        self.waiting: dict[int, Gang] = {}
        self.wishing: dict[int, Gang] = {}
        """Gangs with a place that want to move, or to be resized."""
        self.slicing = self.sized = self.elastic = 0
        """Gangs that let themselves be suspended, that need not have the size they asked for, and that are both."""
        self._gangs: Sequence[Gang] = ()
        self._there: dict[int, Gang] = {}

    def follow(self, gangs: Sequence[Gang]) -> tuple[list[Gang], list[Gang]]:
        """Become the census of these gangs; return who came and who went since the last one."""
        if gangs is self._gangs:
            return [], []
        before, self._gangs = self._there, gangs
        self._there = dict(zip(map(id, gangs), gangs, strict=True))
        came = [gang for key, gang in self._there.items() if key not in before]
        gone = [gang for key, gang in before.items() if key not in self._there]
        for gang in gone:
            self._leave(gang)
        for gang in came:
            self._enter(gang)
        return came, gone

    def _enter(self, gang: Gang) -> None:
        (self.placed if gang.placement else self.waiting)[id(gang)] = gang
        if gang.placement and (gang.leave is not None or gang.resize):
            self.wishing[id(gang)] = gang
        self._count(gang, 1)

    def _leave(self, gang: Gang) -> None:
        del (self.placed if gang.placement else self.waiting)[id(gang)]
        self.wishing.pop(id(gang), None)
        self._count(gang, -1)

    def _count(self, gang: Gang, change: int) -> None:
        slicing, sized = gang.sharing.slices, gang.asked is not None
        self.slicing += change * slicing
        self.sized += change * sized
        self.elastic += change * (slicing and sized)
