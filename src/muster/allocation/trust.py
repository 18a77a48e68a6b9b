"""What counts of a pod's own words, and for how long.

Anybody who may write pods may write any annotation, label and owner into them. So a word counts only where it is known to be
muster's: the admission policy vouches for it (`vouching`), this process wrote it, or the DLJob that it names says the same.
And it counts for a bounded time, on the monotonic clock of this process: a claim until kube-scheduler must have acted on it,
a pod's end until the kubelet must have confirmed it.

    named    the annotation muster.dev/gpus says which GPUs the pod has
    claims   ... and the pod holds them before kube-scheduler has bound it
    leaving  the pod's GPUs come free without anybody else having to go
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from muster.api import names
from muster.kube.objects import Meta, Pod

CLAIM_SECONDS: Final = 120.0
"""How long a pod may claim GPUs without being bound: volumes may have to be made for it first."""
LEAVING_SECONDS: Final = 600.0
"""How long a terminating pod's GPUs are waited for: its user chooses its grace period, and may hold it by a finalizer."""
MOST_DELETED: Final = 10_000
"""DLJobs of the past whose pods are recognised while the garbage collector deletes them."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Which words of a pod count."""

    named: bool = False
    claims: bool = False
    leaving: bool = False


PLANNED: Final = Standing(named=True, claims=True)
"""Of a pod that says what muster would have written."""


class Trust:
    """The standing of pods; follows DLJobs and pods as it is told of them."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.vouched = False
        """Whether the admission policy keeps everybody but muster from writing muster's own names."""
        self._now = now
        self._owners: dict[str, str] = {}
        """The uid of each DLJob."""
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._written: dict[str, str | None] = {}
        """The GPUs that this process wrote on pods, by uid."""
        self._claims, self._ends = _Timer(CLAIM_SECONDS), _Timer(LEAVING_SECONDS)

    def wrote(self, pod: Meta, gpus: str | None) -> None:
        """Believe the GPUs that this process is about to write on a pod."""
        self._written[pod.uid] = gpus

    def standing(self, pod: Pod, *, reserved: bool) -> Standing:
        """Return which words of a pod count now; called on each change of it, and when its time is up.

        `reserved`: GPUs are reserved under the pod's name. Then its reservation names them, and the pod need not.
        """
        ours, now = self.is_dljobs(pod), self._now()
        gpus = pod.metadata.annotation(names.GPUS)
        written = gpus is not None and self._written.get(pod.metadata.uid) == gpus
        named = self.vouched or written or (ours and not reserved)
        may_claim = named and not ours and pod.spec.node_name is None and not pod.spec.scheduling_gates and not pod.finished
        claims = self._claims.runs(pod.metadata, may_claim and gpus is not None, now)
        ends = self._ends.runs(pod.metadata, pod.leaving, now)
        return Standing(named, claims, ends if pod.leaving else ours)

    def is_dljobs(self, pod: Pod) -> bool:
        """Return whether a pod is that of a DLJob: by its label, its controller's name, and the uid of that very DLJob.

        The operator deletes such a pod where no placement names it. A DLJob that was deleted counts: its pods go after it.
        Of one that was deleted before this process began nobody knows the uid; then the label counts, where the policy vouches
        for it: the pod was made by muster, and Kubernetes' garbage collector deletes what names an owner that is not there.
        """
        owner, job = pod.metadata.controller, pod.metadata.label(names.JOB)
        if owner is None or owner.kind != "DLJob" or owner.name != job:
            return False
        if owner.uid in self._deleted or self._owners.get(f"{pod.metadata.namespace}/{job}") == owner.uid:
            return True
        return self.vouched and owner.api_version == names.API_VERSION  # another group's the collector may not know

    def job_changed(self, old: Meta | None, new: Meta | None) -> bool:
        """Take in a DLJob that came, changed or went; return whether the standing of its pods may have changed."""
        if old is not None and new is not None and old.uid == new.uid:
            return False
        if old is not None:
            self._owners.pop(old.key, None)
            self._deleted[old.uid] = None
            if len(self._deleted) > MOST_DELETED:
                self._deleted.popitem(last=False)
        if new is not None:
            self._owners[new.key] = new.uid
        return True

    def forget(self, pod: Pod) -> None:
        """Forget a pod that is gone."""
        self._written.pop(pod.metadata.uid, None)
        for timer in (self._claims, self._ends):
            timer.stop(pod.metadata.uid)

    def lapsed(self) -> list[str]:
        """Return the pods of which something has ceased to count by time alone since the last call, "NAMESPACE/NAME"."""
        now = self._now()
        return [*self._claims.lapsed(now), *self._ends.lapsed(now)]

    def lapses_in(self) -> float | None:
        """Return in how many seconds something will cease to count by time alone; None if nothing will."""
        times = [until for until in (self._claims.next, self._ends.next) if until is not None]
        return max(0.0, min(times) - self._now()) if times else None


class _Timer:
    """Times that run for a while each, by the uid of a pod. A time that is over stays over until it is stopped."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[str, tuple[float, str]] = {}
        """In order of time, since each runs equally long."""
        self._over: set[str] = set()

    @property
    def next(self) -> float | None:
        return next((until for until, _ in self._running.values()), None)

    def runs(self, pod: Meta, wanted: bool, now: float) -> bool:
        """Let a pod's time run while it is wanted; return whether it does."""
        if not wanted:
            self.stop(pod.uid)
            return False
        if pod.uid in self._over:
            return False
        until, _ = self._running.setdefault(pod.uid, (now + self._seconds, pod.key))
        return now < until

    def stop(self, uid: str) -> None:
        self._running.pop(uid, None)
        self._over.discard(uid)

    def lapsed(self, now: float) -> list[str]:
        """Return the pods whose time has ended since the last call."""
        found = []
        while self._running:
            uid, (until, key) = next(iter(self._running.items()))
            if until > now:
                break
            del self._running[uid]
            self._over.add(uid)
            found.append(key)
        return found
