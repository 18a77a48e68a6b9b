"""What starts that failed have taught of a gang: which nodes refuse it, and how often in a row it did not start.

Each lesson holds for one digest: of the node as it is, say. It ends when that changes.

- A node that refused the gang once is avoided: kube-scheduler's cache may have been stale. One that refused it again is left
  out, for longer each time: then nothing but a change helps.
- A start that fails for another reason (an image, a mount, nothing at all for too long) counts against a limit. Its node is
  avoided too: it may be the only one that cannot pull the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from muster.api.status import REFUSALS_LIMIT, FailedStart, Refusal
from muster_operator.timestamps import moment, stamp

REFUSED_SECONDS = 600.0
"""How long a node is left out that has refused a gang twice; doubled each further time."""
LONGEST_REFUSED_SECONDS = 3600.0
MOST_WORDS = 200
"""Characters of a refusal."""
Digest = Callable[[str], str]
"""From a node's name to a digest of what decides which pods it takes."""
UNCHANGED: Digest = "".format
"""Of nodes that never change."""


class Lessons(NamedTuple):
    """The refusals of nodes, the newest last, and the last start if it failed."""

    refusals: tuple[Refusal, ...] = ()
    failed: FailedStart | None = None

    @property
    def avoid(self) -> frozenset[str]:
        """The nodes that are taken only where there is no other place."""
        return frozenset(each.node for each in self.refusals if each.until is None)

    @property
    def refused(self) -> dict[str, str]:
        """The nodes that are left out, each with its words."""
        return {each.node: each.message for each in self.refusals if each.until is not None}

    @property
    def until(self) -> float | None:
        """When the first of the nodes that are left out may be taken again, in seconds since 1970."""
        return min((stamp(each.until) for each in self.refusals if each.until is not None), default=None)

    def are_about(self, node: str) -> bool:
        """Say whether a change of this node may help the gang to start."""
        return any(each.node == node for each in self.refusals) or (self.failed is not None and self.failed.node == node)

    def refused_by(self, words: Mapping[str, str], digest: Digest, now: float) -> Lessons:
        """Return the lessons with further refusals, words by node; the oldest go where they are too many."""
        known = {each.node: each for each in self.refusals}
        for node, said in words.items():
            last = known.pop(node, None)
            known[node] = _again(node, said, 1 + (last.times if last is not None else 0), digest(node), now)
        return self._replace(refusals=tuple(known.values())[-REFUSALS_LIMIT:])

    def failed_on(self, node: str, message: str, digest: Digest) -> Lessons:
        """Return the lessons with a node on which a pod did not start: it may be the node's fault, so others are preferred."""
        known = {each.node: each for each in self.refusals}
        last = known.pop(node, None)
        known[node] = last or Refusal(node=node, message=message[:MOST_WORDS], times=0, digest=digest(node))
        return self._replace(refusals=tuple(known.values())[-REFUSALS_LIMIT:])

    def standing(self, digest: Digest, now: float) -> Lessons:
        """Return the lessons that still hold; a node left out for long enough is only avoided again."""
        holding = (each for each in self.refusals if each.digest == digest(each.node))
        failed = self.failed if self.failed is not None and self.failed.digest == digest(self.failed.node) else None
        return Lessons(tuple(_expired(holding, now)), failed)

    @property
    def failures(self) -> int:
        """The failed starts in a row that count."""
        return self.failed.times if self.failed is not None else 0


NOTHING_LEARNT = Lessons()


def _again(node: str, words: str, times: int, digest: str, now: float) -> Refusal:
    pause = min(REFUSED_SECONDS * 2.0 ** min(times - 2, 10), LONGEST_REFUSED_SECONDS)
    until = moment(now + pause) if times > 1 else None
    return Refusal(node=node, message=words[:MOST_WORDS], times=times, until=until, digest=digest)


def _expired(refusals: Iterable[Refusal], now: float) -> Iterable[Refusal]:
    for each in refusals:
        over = each.until is not None and stamp(each.until) <= now
        yield each.model_copy(update={"until": None}) if over else each
