"""What every answer of every policy must keep, one rule a function: it yields a sentence for each fault it finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from math import isfinite

from muster.scheduling.decisions import Assignment, Grow, Preempt, Shrink
from muster.scheduling.gang import Gang, Placement, gpus_by_node
from muster.scheduling.topology.links import GpuSet, indices
from muster.simulator.outcome import Change, Outcome, as_asked, bundle, runs, surplus


def unexplained(outcome: Outcome) -> Iterator[str]:
    """Every decision has a reason, a sentence, and figures that are numbers; every gang that waits hears why."""
    for decision in outcome.decisions:
        if not decision.reason or not decision.message or decision.gang.name not in outcome.before:
            yield f"{type(decision).__name__} of {decision.gang.name} has no reason"
        if isinstance(decision, Assignment) and decision.effect and not _is_told(decision.effect.before, decision.effect.after):
            yield f"{type(decision).__name__} of {decision.gang.name} expects {decision.effect}"


def _is_told(*figures: float) -> bool:
    return all(isfinite(figure) and figure >= 0 for figure in figures)


def torn(outcome: Outcome) -> Iterator[str]:
    """No gang is split: one of its allowed sizes, each task once, with its GPUs, where it may go, as near as required."""
    for decision in outcome.decisions:
        if isinstance(decision, Assignment) and decision.placement:
            yield from _torn(outcome.before[decision.gang.name], decision.placement)
            domains = {outcome.snapshot.nodes[one.node].domain(decision.gang.required) for one in decision.placement}
            if len(domains) > 1:
                yield f"{decision.gang.name} is in {sorted(domains)}, and must be in one {decision.gang.required.name.lower()}"


def _torn(gang: Gang, placement: Placement) -> Iterator[str]:
    names = sorted(one.task.name for one in placement)
    workers = sum(one.task.role == "worker" for one in placement)
    whole = sorted(task.name for task in gang.tasks if task.role != "worker" or task.index < workers)
    all_workers = sum(task.role == "worker" for task in gang.tasks)
    fewest = min(size for size in (gang.fewest, gang.asked, all_workers) if size is not None)
    if names != whole or workers < fewest:
        yield f"{gang.name} is not put whole: {', '.join(names)}"
    if any(one.task not in gang.tasks or one.gpus.bit_count() != one.task.gpus for one in placement):
        yield f"{gang.name} has tasks with other GPUs than they ask for"
    if sorted(one.rank for one in placement) != list(range(len(placement))):
        yield f"{gang.name} has the ranks {[one.rank for one in placement]}"


def given_twice(outcome: Outcome) -> Iterator[str]:
    """No GPU is given to two gangs, but to those packed onto it, and none that is out of order or that others hold."""
    users: dict[tuple[str, int], dict[str, Gang]] = {}
    for gang in filter(runs, outcome.before.values()):
        _use(users, gang)
    for change in outcome.changes:
        if runs(change.before):
            for gpu in _gpus(change.before):
                users[gpu].pop(change.before.name, None)
        for node, gpus in gpus_by_node(change.after.placement).items():
            wrong = gpus & ~outcome.usable[node]
            if wrong and change.after.placement != change.before.placement:
                yield f"{change.after.name} is put on GPUs {indices(wrong)} of {node}, which are out of order or others'"
        if runs(change.after):
            yield from _use(users, change.after)


def _use(users: dict[tuple[str, int], dict[str, Gang]], gang: Gang) -> list[str]:
    """Note a gang as a user of its GPUs; return what is wrong with those who are there already."""
    faults = []
    for gpu in _gpus(gang):
        there = users.setdefault(gpu, {})
        faults += [
            f"{gang.name} is put on {gpu}, where {name} runs" for name, one in there.items() if bundle(one) != bundle(gang)
        ]
        there[gang.name] = gang
    return faults[:1]


def _gpus(gang: Gang) -> list[tuple[str, int]]:
    return [(one.node, gpu) for one in gang.placement for gpu in indices(one.gpus)]


def over_quota(outcome: Outcome) -> Iterator[str]:
    """No decision gives a gang GPUs beyond what its queue may hold."""
    held: Counter[str] = Counter()
    for gang in outcome.before.values():
        held[gang.queue] += gang.held
    for change in outcome.changes:
        queue = outcome.snapshot.queues.get(change.after.queue)
        held[change.after.queue] += change.after.held - change.before.held
        if change.after.held > change.before.held and queue and queue.quota is not None and held[queue.name] > queue.quota:
            yield f"{change.after.name} brings queue {queue.name} to {held[queue.name]} of {queue.quota} GPUs"


def overridden(outcome: Outcome) -> Iterator[str]:
    """No gang loses its GPUs unless gangs of its own or a higher priority need them, where they are or where they come from."""
    for gang in outcome.before.values():
        if not runs(gang) or runs(outcome.gangs[gang.name]) or outcome.preempts:
            continue
        stronger = chain.from_iterable(
            (other, outcome.before[other.name])
            for other in outcome.running()
            if other.priority >= gang.priority or (runs(outcome.before[other.name]) and not other.sharing.slices)
        )
        may = bool(outcome.gangs[gang.name].placement) or outcome.quota_allows(gang)
        if may and _holds(outcome.without(stronger), gang):
            yield f"{gang.name} of priority {gang.priority} loses its GPUs, which nobody of its priority takes"
    for decision in outcome.decisions:
        if isinstance(decision, Preempt) and any(victim.priority >= decision.gang.priority for victim in decision.victims):
            yield f"{decision.gang.name} takes the place of gangs of its own priority"


def idle_in_vain(outcome: Outcome) -> Iterator[str]:
    """Work is conserved: no gang that shares waits for a place that idle GPUs offer, or for a turn while its GPUs are free."""
    if outcome.preempts:
        return
    idle, free = outcome.idle(), outcome.free()
    for gang in outcome.waiting():
        if gang.sharing.slices and outcome.fits(gang, idle):
            yield f"{gang.name} waits ({_why(outcome, gang)}) although idle GPUs would hold it"
    for gang in outcome.taking_turns():
        if _holds(free, gang):
            yield f"{gang.name} waits for a turn although its GPUs are free"


def in_the_way(outcome: Outcome) -> Iterator[str]:
    """Who waits for a turn waits among gangs that give theirs up."""
    mine = outcome.without(gang for gang in outcome.gangs.values() if gang.placement and not gang.sharing.slices)
    for gang in outcome.taking_turns():
        if not _holds(mine, gang):
            yield f"{gang.name} waits for GPUs of gangs that take no turns"


def not_shrunk(outcome: Outcome) -> Iterator[str]:
    """Elastic gangs give up what they have beyond what they asked for in the pass in which others need it."""
    yield from (_wrong_size(change) for change in outcome.changes if _is_wrong_size(change))
    grown = [gang.name for gang in outcome.gangs.values() if runs(gang) and surplus(gang)]
    if not grown or outcome.preempts:
        return
    idle, free = outcome.without(map(as_asked, outcome.placed())), outcome.without(map(as_asked, outcome.running()))
    idle = {node: gpus & outcome.spare_before[node] for node, gpus in idle.items()}
    first = outcome.first()
    for gang in outcome.waiting():
        if (gang is first or gang.sharing.slices) and outcome.fits(gang, idle):
            yield f"{gang.name} waits ({_why(outcome, gang)}) for GPUs that {grown[0]} has beyond what it asked for"
    for gang in outcome.taking_turns():
        if _holds(free, gang):
            yield f"{gang.name} waits for a turn although {grown[0]} has more than it asked for"


def _is_wrong_size(change: Change) -> bool:
    match change.decision:
        case Grow():
            return change.after.held <= change.before.held
        case Shrink():
            return change.after.held >= change.before.held
    return False


def _wrong_size(change: Change) -> str:
    return f"{type(change.decision).__name__} takes {change.after.name} from {change.before.held} to {change.after.held} GPUs"


def _holds(spots: dict[str, GpuSet], gang: Gang) -> bool:
    """Say whether there are as many of these GPUs as the gang has on each of its nodes."""
    return all(spots[node].bit_count() >= gpus.bit_count() for node, gpus in gpus_by_node(gang.placement).items())


def _why(outcome: Outcome, gang: Gang) -> str:
    return str(outcome.wait[gang.name].reason) if gang.name in outcome.wait else "nobody says why"


RULES = (unexplained, torn, given_twice, over_quota, overridden, idle_in_vain, in_the_way, not_shrunk)
