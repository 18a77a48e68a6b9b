"""The search of one gang's placement: levels from near to far, domains of a level, nodes of a domain, GPUs of a node.

Domains are ordered here, nodes and layouts by their `merits`. The search chooses GPUs and tasks (`assignment`) only once it has
the best layout.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from heapq import heappop, heappush
from itertools import accumulate, chain, islice
from operator import add, and_, itemgetter, sub

from muster.scheduling.gang import Gang, Placement, Task
from muster.scheduling.placing.assignment import Assignment
from muster.scheduling.placing.batches import (
    ALL,
    Batches,
    Counts,
    FillKey,
    Limits,
    NodeKey,
    after,
    after_all,
    taken,
)
from muster.scheduling.placing.bounds import Bounds, Filling, in_force
from muster.scheduling.placing.fragmentation import Fragmentation
from muster.scheduling.placing.free_capacity import FreeCapacity
from muster.scheduling.placing.merits import Layout, Merits, Rate
from muster.scheduling.resources import WHOLE
from muster.scheduling.topology.fleet import Fleet
from muster.scheduling.topology.links import UNLIMITED
from muster.scheduling.topology.node import Level

_FEW = 8
"""Domains that are compared with each other."""
_LEVELS = tuple(Level)

_Judged = tuple[tuple[float, ...], Layout]
"""The slowness of a layout, and the layout."""
_NodesByKey = Mapping[FillKey, Sequence[str]]


class Search:
    """The search for a placement of some tasks of a gang, as `place` describes it, on any nodes but those to `avoid`."""

    def __init__(
        self,
        gang: Gang,
        tasks: Sequence[Task],
        capacity: FreeCapacity,
        *,
        avoid: Collection[str] = frozenset(),
        fragmentation: Fragmentation | None = None,
        rate: Rate | None = None,
        ruled: bool = True,
    ) -> None:
        self._gang, self._capacity, self._avoid = gang, capacity, avoid
        rules = in_force(tasks, capacity) if ruled else None
        self._batches = Batches(tasks, rules.kind if rules else None)
        self.bounds = Bounds(rules, self._batches, capacity) if rules else None
        """What rules between pods allow; None, as a rule, where there are none."""
        self._last_first = False
        """Whether the last batch goes first: the rules of small tasks may leave less choice than the size of large ones."""
        self._gpus = self._batches.whole(self._batches.counts)
        self._limits = Limits(len(tasks), sum([task.gpus for task in tasks]))
        self._spread = gang.spread
        self._merits = Merits(gang, self._batches, capacity, fragmentation, rate)

    def run(self) -> Placement | None:
        """Return a node and GPUs for every task, or None."""
        if self._gpus > self._capacity.total or not self._limits.tasks:
            return None
        placement = self._by_levels()
        if placement is None and self.bounds and len(self._batches.all) > 1:
            self._last_first = True
            placement = self._by_levels()
        return placement

    def _by_levels(self) -> Placement | None:
        gang, tasks = self._gang, self._limits.tasks
        nearest = gang.required if self._spread else min(gang.preferred, gang.required)
        for level in _LEVELS[nearest : gang.required + 1]:
            layout = self._on_best_node() if level is Level.NODE else self._in_best_domain(level)
            if layout:
                return Assignment(self._batches, self._capacity, self._merits).placement(layout)
            if tasks == 1:  # a single task fits on one node or nowhere
                return None
        return None

    # Levels and domains

    def _in_best_domain(self, level: Level) -> Layout | None:
        """The best layout of the first domain that holds all tasks, or, by speed, of the first few such domains."""
        domains = self._domains(level)
        if self.bounds:
            divided, free = self.bounds.divided, self._capacity.free
            sizes = {name: free[name].bit_count() for name, _ in self._candidates}
            domains = (part for members in domains for part in divided(members, sizes, emptiest=self._spread))
        layouts = filter(None, map(self._layouts, domains))
        compared = islice(layouts, _FEW if self._merits.by_speed else 1)
        best: _Judged | None = min(chain.from_iterable(compared), key=itemgetter(0), default=None)
        return best[1] if best else None

    @cached_property
    def _candidates(self) -> list[tuple[str, int]]:
        """The nodes, by name, with free capacity for some task, and their free GPUs."""
        capacity, asks = self._capacity, self._batches.asks
        without = any(not ask.gpus for ask in asks)
        least = 0 if without else min((ask.gpus for ask in asks if ask.share == WHOLE), default=0)
        names = capacity.fleet.eligible[Fleet.demands(asks)]
        counts = [(name, capacity.free[name].bit_count()) for name in names if name not in self._avoid]
        return [(name, free) for name, free in counts if free >= least and (free or without or name in capacity.parts)]

    def _domains(self, level: Level) -> Iterator[Sequence[str]]:
        """The nodes of each domain that has enough free GPUs: the emptiest first when spreading, else the fullest.

        By speed, the domains in which the gang may need the fewest nodes come first; then those of the node preferred most.
        Nodes in no domain of the level are left to a level further out, if the gang may go there.
        """
        fleet = self._capacity.fleet
        domain_of, left_out = fleet.domains[level], fleet.outside[level] if level < self._gang.required else frozenset()
        domains: dict[str, list[tuple[str, int]]] = {}
        for candidate in self._candidates:
            if candidate[0] not in left_out:
                domains.setdefault(domain_of[candidate[0]], []).append(candidate)
        order: list[tuple[int, int, int, int, str]] = []
        for domain, members in domains.items():
            counts = sorted([free for _, free in members], reverse=True)
            total = sum(counts)
            if total >= self._gpus:
                fewest = bisect_left(list(accumulate(counts)), self._gpus)
                liking = max(self._merits.preference(name) for name, _ in members) if self._merits.preferences else 0
                links = fewest if self._merits.by_speed else 0
                order.append((links, liking if self._spread else -liking, total, fewest, domain))
        order.sort(reverse=self._spread)
        return ([name for name, _ in domains[domain]] for *_, domain in order)

    def _layouts(self, members: Sequence[str]) -> list[_Judged]:
        """The layout on the fewest nodes, then others, each the best that stays below one limit of the last.

        Rules between pods may fill a node in several steps, which limits of a node do not bound: then it is the first alone.
        """
        nodes, limits = self._nodes_by_key(members), self._limits
        layout = self._fill(nodes, limits)
        judged = [(self._merits.of_layout(layout), layout)] if layout else []
        while layout and not self._spread and not self.bounds and (self._merits.rate or len(layout) <= len(judged[0][1])):
            tried = [(self._fill(nodes, tighter), tighter) for tighter in self._tighter(limits, layout)]
            able = [(self._merits.of_layout(layout), layout, tighter) for layout, tighter in tried if layout]
            if not able:
                break
            slowness, layout, limits = min(able, key=itemgetter(0))
            judged.append((slowness, layout))
        return judged

    def _tighter(self, limits: Limits, layout: Layout) -> Iterator[Limits]:
        """Limits that a layout breaks: fewer GPUs on a node, faster rings, faster network cards."""
        most = max(map(self._batches.whole, layout.values()))
        largest = max(ask.gpus for ask in self._batches.asks)
        if most > largest and (not self._merits.by_speed or self._merits.rate):
            yield limits._replace(gpus=most - 1)
        ring = self._merits.slowest_ring(layout) if self._merits.by_speed else UNLIMITED
        if ring < UNLIMITED:
            yield limits._replace(ring=ring)
        if self._merits.rate:
            yield limits._replace(nic_gbps=min(self._capacity.nodes[name].nic_gbps for name in layout))

    # Nodes

    def _on_best_node(self) -> Layout | None:
        """Put all tasks on the node of least `Merits.of_node`."""
        batches, counts = self._batches, self._batches.counts
        allowed = reduce(and_, map(self._capacity.fleet.admitted.__getitem__, {ask.where for ask in batches.asks}))
        best = min(
            (
                (self._merits.of_node(FillKey(state, key), counts, complete=True), name)
                for state, names in self._capacity.states.items()
                if state.free.bit_count() >= self._gpus and taken(FillKey(state), batches, counts, self._limits) == counts
                for key, name in self._first_by_key(names, allowed).items()
            ),
            default=None,
        )
        return {best[1]: counts} if best else None

    def _first_by_key(self, names: Sequence[str], allowed: frozenset[str]) -> Mapping[NodeKey, str]:
        first: dict[NodeKey, str] = {}
        for name in names:
            if name in allowed and name not in self._avoid and (self.bounds is None or self.bounds.hold_all(name)):
                first.setdefault(self._merits.key(name), name)
                if self._merits.common_key:
                    break
        return first

    def _fill(self, nodes: _NodesByKey, limits: Limits) -> Layout | None:
        """Put every task on one of the nodes, largest first and within limits, or return None."""
        if _most_gpus(nodes, limits) < self._gpus:
            return None
        limits = limits._replace(tasks=1) if self._spread else limits
        if self.bounds:
            return self._fill_by_rules(nodes, limits, self.bounds.begin())
        left = {key: list(names) for key, names in nodes.items()}
        waiting = self._batches.counts
        layout: Layout = {}
        while any(waiting):
            best = self._next(waiting, left, limits)
            if best is None:
                return None
            key, counts = best
            name = heappop(left[key])
            layout[name] = tuple(map(add, layout[name], counts)) if name in layout else counts
            waiting = tuple(map(sub, waiting, counts))
            if not left[key]:
                del left[key]
            if self._spread:
                heappush(left.setdefault(after(key, self._batches.asks[counts.index(1)]), []), name)
        return layout

    def _fill_by_rules(self, nodes: _NodesByKey, limits: Limits, filling: Filling) -> Layout | None:
        """The same within the bounds of rules between pods, which change with each step: tasks of one batch on one node."""
        left = _with_caps(nodes, filling)
        waiting = self._batches.counts
        layout: Layout = {}
        while any(waiting):
            last = self._next(_last(waiting), left, limits) if self._last_first else None
            best = last or self._next(waiting, left, limits)
            if best is None:
                left, before = _with_caps(left, filling), left
                if left.keys() == before.keys():
                    return None
                continue
            key, counts = best
            if filling.caps(left[key][0]) != key.caps:
                _merge(left, _with_caps({key: left.pop(key)}, filling))
                continue
            name = heappop(left[key])
            if not left[key]:
                del left[key]
            number = next(number for number, count in enumerate(counts) if count)
            filling.add(name, number, counts[number])
            layout[name] = tuple(map(add, layout[name], counts)) if name in layout else counts
            waiting = tuple(map(sub, waiting, counts))
            key = after_all(key, self._batches.asks[number], counts[number])._replace(caps=filling.caps(name))
            heappush(left.setdefault(key, []), name)
        return layout

    def _nodes_by_key(self, names: Sequence[str]) -> _NodesByKey:
        admitted = [self._capacity.fleet.admitted[ask.where] for ask in self._batches.asks]
        alike = all(nodes is admitted[0] for nodes in admitted)  # then every candidate admits all tasks
        by_key: dict[FillKey, list[str]] = {}
        for name in names:  # sorted, and a sorted list is a heap
            allowed = ALL if alike else sum(1 << number for number, nodes in enumerate(admitted) if name in nodes)
            by_key.setdefault(FillKey(self._capacity.state(name), self._merits.key(name), allowed), []).append(name)
        return by_key

    def _next(self, waiting: Counts, nodes: _NodesByKey, limits: Limits) -> tuple[FillKey, Counts] | None:
        """The key of the node to fill next, and its tasks: when spreading, the node with the fewest tasks of this gang.

        When packing, one that has any, which only happens where rules between pods fill a node step by step.
        """
        sign = 1 if self._spread else -1
        options = [
            (sign * key.held, self._merits.of_node(key, counts, complete=counts == waiting), names[0], key, counts)
            for key, names in nodes.items()
            if (counts := taken(key, self._batches, waiting, limits))
        ]
        return min(options)[-2:] if options else None


def _last(waiting: Counts) -> Counts:
    """Of the tasks that wait, those of the last batch."""
    last = max(number for number, count in enumerate(waiting) if count)
    return tuple(count if number == last else 0 for number, count in enumerate(waiting))


def _with_caps(nodes: _NodesByKey, filling: Filling) -> dict[FillKey, list[str]]:
    """The nodes by what rules between pods allow on them now."""
    by_key: dict[FillKey, list[str]] = {}
    for key, names in nodes.items():
        for name in names:
            by_key.setdefault(key._replace(caps=filling.caps(name)), []).append(name)
    for heap in by_key.values():
        heap.sort()
    return by_key


def _merge(nodes: dict[FillKey, list[str]], more: _NodesByKey) -> None:
    for key, names in more.items():
        nodes[key] = sorted([*nodes.get(key, ()), *names])


def _most_gpus(nodes: _NodesByKey, limits: Limits) -> int:
    """The most GPUs that these nodes have within limits."""
    usable = ((key.state.free.bit_count(), len(names)) for key, names in nodes.items() if key.node.nic_gbps > limits.nic_gbps)
    return sum(min(free, limits.gpus) * number for free, number in usable)
