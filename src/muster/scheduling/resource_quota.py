"""Resource quotas: what gangs of a namespace may ask for together (Kubernetes' ResourceQuota), counted before their pods exist.

Kubernetes counts a pod when it is created. A gang is counted here as a whole before it is admitted, so that it neither starts
in part nor has others make way for pods that would be refused. Amounts are whole: CPU in thousandths, all else in units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

Amounts = tuple[tuple[str, int], ...]
"""How much of each resource, by its name in a ResourceQuota ("requests.cpu", "pods")."""


class Charge(NamedTuple):
    """What one pod, or a gang's Service, counts in the resource quotas of the namespace, and what their scopes ask about it."""

    amounts: Amounts = ()
    priority_class: str = ""
    terminating: bool = False
    """It has an activeDeadlineSeconds."""
    best_effort: bool = False
    """It asks for no CPU and no memory."""
    is_pod: bool = True
    """Only pods are in scopes."""


SERVICE = Charge((("count/services", 1), ("services", 1)), is_pod=False)


class Scope(NamedTuple):
    """Which pods a quota counts: the name of a scope, and what the PriorityClass is compared with."""

    name: str
    operator: str = "Exists"
    values: tuple[str, ...] = ()

    def has(self, pod: Charge) -> bool:
        """Say whether a pod is in the scope; none is in a scope that is not known here."""
        if not pod.is_pod:
            return False
        match self.name:
            case "Terminating" | "NotTerminating":
                return pod.terminating is (self.name == "Terminating")
            case "BestEffort" | "NotBestEffort":
                return pod.best_effort is (self.name == "BestEffort")
            case "PriorityClass":
                return self._selects(pod.priority_class)
        return False

    def _selects(self, priority_class: str) -> bool:
        match self.operator:
            case "In":
                return priority_class in self.values
            case "NotIn":
                return priority_class not in self.values
            case "DoesNotExist":
                return not priority_class
        return bool(priority_class)


@dataclass(frozen=True, slots=True)
class ResourceQuota:
    """One quota of a namespace, with what is used of it by pods that exist or are about to."""

    name: str
    namespace: str
    hard: Amounts
    used: Amounts = ()
    scopes: tuple[Scope, ...] = ()

    def counts(self, pod: Charge) -> bool:
        """Say whether a pod is in every scope of the quota."""
        return all(scope.has(pod) for scope in self.scopes)

    def needs(self, pods: Mapping[Charge, int]) -> Counter[str]:
        """Return how much of each resource of the quota so many pods of each kind take."""
        needs: Counter[str] = Counter()
        limited = dict(self.hard)
        for pod, count in pods.items():
            if self.counts(pod):
                needs.update({name: count * amount for name, amount in pod.amounts if name in limited})
        return needs


class Shortfall(NamedTuple):
    """The first resource of which a gang needs more than a quota has left."""

    quota: str
    resource: str
    needed: int
    left: int
    hard: int

    @property
    def message(self) -> str:
        """What is needed and what is left, in one sentence."""
        needed, left, hard = (quantity(self.resource, amount) for amount in (self.needed, self.left, self.hard))
        least = f"allows no more than {hard}" if self.needed > self.hard else f"has {left} of {hard} left"
        return f"needs {needed} {self.resource}; ResourceQuota {self.quota} {least}"


class Budgets:
    """What the decisions of a pass leave of resource quotas."""

    def __init__(self, quotas: Iterable[ResourceQuota] = ()) -> None:
        self._quotas: dict[str, list[ResourceQuota]] = {}
        for quota in sorted(quotas, key=lambda quota: quota.name):
            self._quotas.setdefault(quota.namespace, []).append(quota)
        self._taken: dict[str, Counter[str]] = {}
        """What this pass took of a quota, by its name."""

    def copy(self) -> Budgets:
        """Return budgets of which the same is taken, to be counted on from here."""
        twin = Budgets()
        twin._quotas, twin._taken = self._quotas, {name: taken.copy() for name, taken in self._taken.items()}
        return twin

    def __contains__(self, namespace: str) -> bool:
        return namespace in self._quotas

    def take(self, namespace: str, pods: Mapping[Charge, int]) -> None:
        """Count pods that are to be created."""
        for quota in self._quotas.get(namespace, ()):
            self._taken.setdefault(quota.name, Counter()).update(quota.needs(pods))

    def shortfall(self, namespace: str, pods: Mapping[Charge, int]) -> Shortfall | None:
        """Return what is short for these pods; None where they fit into every quota."""
        for quota in self._quotas.get(namespace, ()):
            used, taken = dict(quota.used), self._taken.get(quota.name, Counter())
            needs = quota.needs(pods)
            for resource, hard in quota.hard:
                left = hard - used.get(resource, 0) - taken[resource]
                if needs[resource] > max(left, 0):
                    return Shortfall(quota.name, resource, needs[resource], max(left, 0), hard)
        return None


def quantity(resource: str, amount: int) -> str:
    """Return an amount as people write it: "500m" CPU, "64Gi" of memory, 16 GPUs."""
    if resource.rpartition(".")[2] == "cpu":
        return str(amount // 1000) if amount % 1000 == 0 else f"{amount}m"
    if resource.rpartition(".")[2] in ("memory", "ephemeral-storage"):
        for power, suffix in ((30, "Gi"), (20, "Mi"), (10, "Ki")):
            if amount >= 1 << power:
                return f"{amount / (1 << power):.4g}{suffix}"
    return str(amount)
