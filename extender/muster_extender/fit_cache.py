"""The nodes that fit a number of GPUs, and why the others do not: cached, so that filtering thousands of nodes is look-ups.

Invariant: for each number asked for lately, `fitting` is the set of usable nodes with as many free GPUs, as of the view's last
refresh, and `refusals` has only sentences that still hold.
"""

from __future__ import annotations

from collections.abc import Collection

from muster.allocation.view import ClusterView
from muster_extender.reasons import Refusal, too_few

MOST_COUNTS = 64
"""Machines have up to 16 GPUs or so; pods that ask for odd numbers must not fill the memory."""
MOST_READERS = 8
"""Namespaces for which the refusals of a node are kept."""


class Fit:
    """The nodes with `count` free GPUs."""

    def __init__(self, view: ClusterView, count: int) -> None:
        self._view, self._count = view, count
        self.fitting = {name for name, node in view.usable().items() if node.free.bit_count() >= count}
        self.refusals: dict[str, dict[str, Refusal]] = {}
        """By node, and by the namespace whose jobs are named."""

    def refusal(self, name: str, reader: str) -> Refusal:
        """Return why a node is not among the `fitting` ones, for readers of a namespace."""
        refusals = self.refusals.setdefault(name, {})
        refusal = refusals.get(reader)
        if refusal is None:
            if len(refusals) >= MOST_READERS:
                refusals.clear()
            refusal = refusals[reader] = self._why(name, reader)
        return refusal

    def changed(self, nodes: Collection[str]) -> None:
        """Check these nodes again."""
        for name in nodes:
            self.refusals.pop(name, None)
            node = self._view.current(name)
            if node is not None and node.free.bit_count() >= self._count:
                self.fitting.add(name)
            else:
                self.fitting.discard(name)

    def _why(self, name: str, reader: str) -> Refusal:
        node = self._view.node(name)
        return unknown(self._view, name) if node is None else too_few(self._view, node, self._count, reader)


class FitCache:
    """A `Fit` for each number of GPUs asked for."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view
        self._fits: dict[int, Fit] = {}
        view.on_refresh(self._changed)

    def of(self, count: int) -> Fit:
        """Return the nodes with `count` free GPUs as they are now."""
        self._view.refresh()
        fit = self._fits.get(count)
        if fit is None:
            if len(self._fits) >= MOST_COUNTS:
                self._fits.clear()
            fit = self._fits[count] = Fit(self._view, count)
        return fit

    def _changed(self, nodes: Collection[str]) -> None:
        for fit in self._fits.values():
            fit.changed(nodes)


def unknown(view: ClusterView, name: str) -> Refusal:
    """Return why a node that the view does not offer is refused."""
    if name in view.nodes:
        return Refusal(True, "the node is not Ready or is cordoned")
    return Refusal(False, "the extender has not seen this node yet")
