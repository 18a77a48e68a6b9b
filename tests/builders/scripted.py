"""Simulations in which a test decides: a policy that does at each time what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from muster.scheduling.decisions import Decision, Migrate, Pack, Place, Preempt, Reason, Requeue, Resume, Suspend, Wait
from muster.scheduling.gang import Assigned, Gang, Placement
from muster.scheduling.snapshot import Snapshot
from muster.scheduling.topology.links import gpu_set
from muster.scheduling.topology.machine import machine_type, unknown_machine
from muster.scheduling.topology.node import Node

Share = tuple[str, Iterable[int]]
Order = Callable[[Snapshot], Decision]


class Script:
    """A policy that gives its orders at their times, and keeps what it was shown."""

    def __init__(self, orders: Mapping[float, Sequence[Order]], period: float | None = None) -> None:
        self.period = period
        self.orders = dict(orders)
        self.reacted: list[tuple[float, Snapshot]] = []
        self.introspected: list[tuple[float, Snapshot]] = []

    def react(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        self.reacted.append((now, snapshot))
        return [order(snapshot) for order in self.orders.pop(now, ())]

    def introspect(self, snapshot: Snapshot, now: float) -> Sequence[Decision]:
        self.introspected.append((now, snapshot))
        return []


def servers(count: int = 2, gpus: int = 2) -> list[Node]:
    """Servers n0, n1, ... whose GPUs have nothing in common."""
    machine = unknown_machine(gpus)
    return [Node(f"n{index}", machine, machine.all, machine.all) for index in range(count)]


def switched(name: str = "n0") -> Node:
    """A server of two GPUs under one switch."""
    machine = machine_type([["X", "PIX"], ["PIX", "X"]])
    return Node(name, machine, machine.all, machine.all)


def place(name: str, *shares: Share) -> Order:
    return lambda seen: Place(_gang(seen, name), _on(_gang(seen, name), shares), Reason.PLACED, "as told")


def migrate(name: str, *shares: Share) -> Order:
    return lambda seen: Migrate(_gang(seen, name), _on(_gang(seen, name), shares), Reason.LOCALITY, "as told")


def resume(name: str, *shares: Share) -> Order:
    return lambda seen: Resume(_gang(seen, name), _on(_gang(seen, name), shares), Reason.TIME_SLICED, "as told")


def pack(name: str, onto: str, *shares: Share) -> Order:
    return lambda seen: Pack(_gang(seen, name), _on(_gang(seen, name), shares), Reason.PACKED, "as told", onto=onto)


def suspend(name: str) -> Order:
    return lambda seen: Suspend(_gang(seen, name), Reason.TIME_SLICED, "as told")


def requeue(name: str) -> Order:
    return lambda seen: Requeue(_gang(seen, name), Reason.TIME_SLICED, "as told")


def preempt(name: str, *victims: str) -> Order:
    return lambda seen: Preempt(
        _gang(seen, name), tuple(_gang(seen, victim) for victim in victims), Reason.PREEMPTING, "as told"
    )


def wait(name: str, until: float) -> Order:
    return lambda seen: Wait(_gang(seen, name), Reason.BACK_OFF, "as told", until)


def _gang(seen: Snapshot, name: str) -> Gang:
    return next(gang for gang in seen.gangs if gang.name == name)


def _on(gang: Gang, shares: Sequence[Share]) -> Placement:
    """A share for each of the gang's first tasks."""
    return tuple(Assigned(gang.tasks[rank], node, gpu_set(list(gpus)), rank) for rank, (node, gpus) in enumerate(shares))
