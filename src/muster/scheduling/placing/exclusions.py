"""Which rule excludes how many nodes from taking a pod of a gang, in kube-scheduler's manner.

Each node counts once, for the first rule that excludes it however empty it is. Rules are about sets of nodes, which the fleet
keeps, so a sentence about a large cluster costs a few set operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from muster.scheduling.gang import Gang
from muster.scheduling.placing.batches import Ask
from muster.scheduling.resource_quota import quantity
from muster.scheduling.topology.fleet import Fleet, Size

MOST_RULES = 4
"""Rules that one sentence names, those of most nodes first."""
_SINGULAR = {"are": "is", "have": "has", "do": "does"}
_WORDS = {"cpu": "too little CPU", "memory": "too little memory", "pods": "too few pods allowed"}


class Lack(NamedTuple):
    """What a node has too little of: how much it has, and a pod asks for."""

    resource: str
    has: int
    asked: int


class Excluded(NamedTuple):
    """The nodes that a rule excludes, and what it says of several nodes: "are cordoned"."""

    words: str
    nodes: frozenset[str]
    lack: Lack | None = None


Rule = Callable[[Gang, Ask, Fleet], Iterable[Excluded]]


def _by_constraint(_: Gang, ask: Ask, fleet: Fleet) -> Iterator[Excluded]:
    """Labels, cordons, taints; nodes that are not ready or cannot be read."""
    for words, nodes in fleet.excluded[ask.where].items():
        yield Excluded(words, nodes)


def _by_size(_: Gang, ask: Ask, fleet: Fleet) -> Iterator[Excluded]:
    """Nodes that would be too small if they were empty."""
    for size, nodes in fleet.sizes.items():
        if excluded := _too_small(ask, size):
            yield excluded._replace(nodes=nodes)


def _by_refusal(gang: Gang, *_: object) -> Iterator[Excluded]:
    """Nodes that refused the gang; what they said follows the sentence (`refusals`)."""
    yield Excluded("have refused it", frozenset(gang.refused))


RULES: Sequence[Rule] = (_by_constraint, _by_size, _by_refusal)
"""In the order in which a node counts for them; a rule that the planner learns belongs here."""


def exclusions(gang: Gang, ask: Ask, fleet: Fleet) -> list[Excluded]:
    """Return the nodes that cannot take a pod even when they are empty, each with the first rule that excludes it."""
    left, found = fleet.names, []
    for rule in RULES:
        for excluded in rule(gang, ask, fleet):
            nodes = excluded.nodes & left
            if nodes:
                found.append(excluded._replace(nodes=nodes))
                left -= nodes
    return found


def sentence(found: Iterable[Excluded], among: frozenset[str]) -> str:
    """Return "6 do not have the label gpu=a100, 1 has too little memory (largest: 64Gi of 128Gi asked)", of some nodes."""
    merged: dict[str, Excluded] = {}
    for words, nodes, lack in found:
        if counted := nodes & among:
            before = merged.get(words, Excluded(words, frozenset(), lack))
            most = max(filter(None, (lack, before.lack)), key=lambda lack: lack.has, default=None)
            merged[words] = Excluded(words, before.nodes | counted, most)
    most_first = sorted(merged.values(), key=lambda one: (-len(one.nodes), one.words))
    told = [_told(*one) for one in most_first[:MOST_RULES]]
    if rest := sum(len(one.nodes) for one in most_first[MOST_RULES:]):
        told.append(f"{rest} for other reasons")
    return ", ".join(told)


def largest(lack: Lack) -> str:
    """Return "largest: 64Gi of 128Gi asked"."""
    return f"largest: {quantity(lack.resource, lack.has)} of {quantity(lack.resource, lack.asked)} asked"


def _told(words: str, nodes: frozenset[str], lack: Lack | None) -> str:
    verb, _, rest = words.partition(" ")
    size = f" ({largest(lack)})" if lack and lack.resource != "pods" else ""
    return f"{len(nodes)} {_SINGULAR.get(verb, verb) if len(nodes) == 1 else verb} {rest}{size}"


def _too_small(ask: Ask, size: Size) -> Excluded | None:
    if size.healthy < ask.gpus:
        if not size.gpus:
            return Excluded("have no GPUs", frozenset())
        few = "too few GPUs" if size.gpus < ask.gpus else "too few working GPUs"
        return Excluded(f"have {few}", frozenset(), Lack("gpus", size.healthy, ask.gpus))
    for name, asked in ask.resources.asked():
        if (has := size.allocatable.left(name)) < asked:
            return _lacking(Lack(name, has, asked))
    return None


def _lacking(lack: Lack) -> Excluded:
    little = _WORDS.get(lack.resource, f"too little {lack.resource}" if lack.has else f"no {lack.resource}")
    return Excluded(f"have {little}", frozenset(), lack if lack.has else None)
