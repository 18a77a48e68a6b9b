"""Which nodes have room for a number of GPUs, and why the others have not: kept, so that a filter of thousands is look-ups.

Invariant: for each number asked for lately, `roomy` is the set of usable nodes with as many free GPUs, as of the view's last
refresh, and `refusals` says of nodes without room only what is still so.
"""

from __future__ import annotations

from collections.abc import Collection

from muster_extender.reasons import Refusal, too_few
from muster_extender.reservations import GuardedView

MOST_COUNTS = 64
"""Machines have up to 16 GPUs or so; whoever asks for odd numbers must not fill the memory."""


class Fit:
    """The nodes with room for `count` GPUs."""

    def __init__(self, view: GuardedView, count: int) -> None:
        self._view, self._count = view, count
        self.fitting = {name for name, node in view.usable().items() if node.free.bit_count() >= count}
        self.refusals: dict[str, Refusal] = {}

    def refusal(self, name: str) -> Refusal:
        """Say why a node that is not `roomy` has no room."""
        found = self.refusals.get(name)
        if found is None:
            found = self.refusals[name] = self._why(name)
        return found

    def changed(self, nodes: Collection[str]) -> None:
        """Look at these nodes again."""
        for name in nodes:
            self.refusals.pop(name, None)
            node = self._view.current(name)
            if node is not None and node.free.bit_count() >= self._count:
                self.fitting.add(name)
            else:
                self.fitting.discard(name)

    def _why(self, name: str) -> Refusal:
        node = self._view.node(name)
        return unknown(self._view, name) if node is None else too_few(self._view, node, self._count)


class FitCache:
    """Room by the number of GPUs asked for."""

    def __init__(self, view: GuardedView) -> None:
        self._view = view
        self._rooms: dict[int, Fit] = {}
        view.on_refresh(self._changed)

    def of(self, count: int) -> Fit:
        """Return the nodes with room for `count` GPUs as they are now."""
        self._view.refresh()
        room = self._rooms.get(count)
        if room is None:
            if len(self._rooms) >= MOST_COUNTS:
                self._rooms.clear()
            room = self._rooms[count] = Fit(self._view, count)
        return room

    def _changed(self, nodes: Collection[str]) -> None:
        for room in self._rooms.values():
            room.changed(nodes)


def unknown(view: GuardedView, name: str) -> Refusal:
    """Say why a node that the view does not offer is refused."""
    if view.exists(name):
        return Refusal(True, "the node is not Ready or is cordoned")
    return Refusal(False, "the extender has not seen this node yet")
