"""Invariants of every answer of every policy: one function each, which yields a sentence for each violation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from math import isfinite

from muster.scheduling.decisions import Assignment, Grow, Preempt, Shrink
from muster.scheduling.gang import Gang, Placement, gpus_by_node
from muster.scheduling.topology.links import GpuSet, indices
from muster.simulator.outcome import Change, Outcome, as_asked, bundle, runs, surplus


def missing_reason(outcome: Outcome) -> Iterator[str]:
    """Each decision concerns a known gang and has a reason, a message and a finite expected effect."""
    for decision in outcome.decisions:
        if not decision.reason or not decision.message or decision.gang.name not in outcome.before:
            yield f"{type(decision).__name__} of {decision.gang.name} has no reason"
        if (
            isinstance(decision, Assignment)
            and decision.effect
            and not _are_finite(decision.effect.before, decision.effect.after)
        ):
            yield f"{type(decision).__name__} of {decision.gang.name} expects {decision.effect}"


def _are_finite(*figures: float) -> bool:
    return all(isfinite(figure) and figure >= 0 for figure in figures)


def split_gang(outcome: Outcome) -> Iterator[str]:
    """A gang is placed whole: an allowed size, each task once with its GPUs, all within the required topology domain."""
    for decision in outcome.decisions:
        if isinstance(decision, Assignment) and decision.placement:
            yield from _split_gang(outcome.before[decision.gang.name], decision.placement)
            required, nodes = decision.gang.required, outcome.snapshot.nodes
            domains = {nodes[assigned.node].domain(required) for assigned in decision.placement}
            if len(domains) > 1:
                yield f"{decision.gang.name} is in {sorted(domains)}; expected one {required.name.lower()}"


def _split_gang(gang: Gang, placement: Placement) -> Iterator[str]:
    names = sorted(assigned.task.name for assigned in placement)
    workers = sum(assigned.task.role == "worker" for assigned in placement)
    expected = sorted(task.name for task in gang.tasks if task.role != "worker" or task.index < workers)
    all_workers = sum(task.role == "worker" for task in gang.tasks)
    fewest = min(size for size in (gang.fewest, gang.asked, all_workers) if size is not None)
    if names != expected or workers < fewest:
        yield f"{gang.name} is placed in part: {', '.join(names)}"
    if any(assigned.task not in gang.tasks or assigned.gpus.bit_count() != assigned.task.gpus for assigned in placement):
        yield f"{gang.name} has tasks whose GPUs differ from their request"
    ranks = [assigned.rank for assigned in placement]
    if sorted(ranks) != list(range(len(ranks))):
        yield f"{gang.name} has the ranks {ranks}"


def double_booking(outcome: Outcome) -> Iterator[str]:
    """Only packed gangs run on the same GPU, and no gang is placed on GPUs that are unhealthy or held by external pods."""
    users: dict[tuple[str, int], dict[str, Gang]] = {}
    for gang in filter(runs, outcome.before.values()):
        _use(users, gang)
    for change in outcome.changes:
        if runs(change.before):
            for gpu in _gpus(change.before):
                users[gpu].pop(change.before.name, None)
        for node, gpus in gpus_by_node(change.after.placement).items():
            unusable = gpus & ~outcome.usable[node]
            if unusable and change.after.placement != change.before.placement:
                yield f"{change.after.name} is placed on unhealthy or external GPUs {indices(unusable)} of {node}"
        if runs(change.after):
            yield from _use(users, change.after)


def _use(users: dict[tuple[str, int], dict[str, Gang]], gang: Gang) -> list[str]:
    """Add a gang to the users of its GPUs; return the first conflict with their present users."""
    conflicts = []
    for gpu in _gpus(gang):
        present = users.setdefault(gpu, {})
        conflicts += [
            f"{gang.name} is placed on {gpu}, where {user.name} runs"
            for user in present.values()
            if bundle(user) != bundle(gang)
        ]
        present[gang.name] = gang
    return conflicts[:1]


def _gpus(gang: Gang) -> list[tuple[str, int]]:
    return [(assigned.node, gpu) for assigned in gang.placement for gpu in indices(assigned.gpus)]


def over_quota(outcome: Outcome) -> Iterator[str]:
    """No decision takes a queue beyond its quota."""
    held: Counter[str] = Counter()
    for gang in outcome.before.values():
        held[gang.queue] += gang.held
    for change in outcome.changes:
        queue = outcome.snapshot.queues.get(change.after.queue)
        held[change.after.queue] += change.after.held - change.before.held
        if change.after.held > change.before.held and queue and queue.quota is not None and held[queue.name] > queue.quota:
            yield f"{change.after.name} brings queue {queue.name} to {held[queue.name]} of {queue.quota} GPUs"


def priority_inversion(outcome: Outcome) -> Iterator[str]:
    """A gang stops only for gangs of its own or a higher priority, which need the GPUs where they are or come from."""
    for gang in outcome.before.values():
        if not runs(gang) or runs(outcome.gangs[gang.name]) or outcome.preempts:
            continue
        stronger = chain.from_iterable(
            (other, outcome.before[other.name])
            for other in outcome.running()
            if other.priority >= gang.priority or (runs(outcome.before[other.name]) and not other.sharing.slices)
        )
        within_quota = bool(outcome.gangs[gang.name].placement) or outcome.quota_allows(gang)
        if within_quota and _covers(outcome.without(stronger), gang):
            yield f"{gang.name} of priority {gang.priority} stops, and no gang of its priority or above takes its GPUs"
    for decision in outcome.decisions:
        if isinstance(decision, Preempt) and any(victim.priority >= decision.gang.priority for victim in decision.victims):
            yield f"{decision.gang.name} preempts a gang of its own or a higher priority"


def idle_gpus(outcome: Outcome) -> Iterator[str]:
    """Work conservation: no time-sharing gang waits although idle GPUs fit it, or stays suspended while its GPUs are free."""
    if outcome.preempts:
        return
    idle, free = outcome.idle(), outcome.free()
    for gang in outcome.waiting():
        if gang.sharing.slices and outcome.fits(gang, idle):
            yield f"{gang.name} waits ({_wait_reason(outcome, gang)}) although it fits on idle GPUs"
    for gang in outcome.suspended():
        if _covers(free, gang):
            yield f"{gang.name} is suspended although its GPUs are free"


def blocked_suspended(outcome: Outcome) -> Iterator[str]:
    """A suspended gang has its placement among time-sharing gangs, which yield their GPUs."""
    shared = outcome.without(gang for gang in outcome.gangs.values() if gang.placement and not gang.sharing.slices)
    for gang in outcome.suspended():
        if not _covers(shared, gang):
            yield f"{gang.name} is suspended on GPUs of gangs without time sharing"


def unreturned_surplus(outcome: Outcome) -> Iterator[str]:
    """Elastic gangs return their surplus workers in the pass in which other gangs need the GPUs."""
    yield from (_wrong_size(change) for change in outcome.changes if _is_wrong_size(change))
    grown = [gang.name for gang in outcome.gangs.values() if runs(gang) and surplus(gang)]
    if not grown or outcome.preempts:
        return
    free = outcome.without(map(as_asked, outcome.running()))
    unplaced = outcome.without(map(as_asked, outcome.placed()))
    idle = {node: gpus & outcome.spare_before[node] for node, gpus in unplaced.items()}
    first = outcome.first()
    for gang in outcome.waiting():
        if (gang is first or gang.sharing.slices) and outcome.fits(gang, idle):
            yield f"{gang.name} waits ({_wait_reason(outcome, gang)}) for surplus GPUs of {grown[0]}"
    for gang in outcome.suspended():
        if _covers(free, gang):
            yield f"{gang.name} is suspended although {grown[0]} has surplus GPUs"


def _is_wrong_size(change: Change) -> bool:
    match change.decision:
        case Grow():
            return change.after.held <= change.before.held
        case Shrink():
            return change.after.held >= change.before.held
    return False


def _wrong_size(change: Change) -> str:
    return f"{type(change.decision).__name__} takes {change.after.name} from {change.before.held} to {change.after.held} GPUs"


def _covers(available: dict[str, GpuSet], gang: Gang) -> bool:
    """Say whether each node of the gang has as many available GPUs as the gang holds there."""
    return all(available[node].bit_count() >= gpus.bit_count() for node, gpus in gpus_by_node(gang.placement).items())


def _wait_reason(outcome: Outcome, gang: Gang) -> str:
    return str(outcome.wait[gang.name].reason) if gang.name in outcome.wait else "no reason"


INVARIANTS = (
    missing_reason,
    split_gang,
    double_booking,
    over_quota,
    priority_inversion,
    idle_gpus,
    blocked_suspended,
    unreturned_surplus,
)
