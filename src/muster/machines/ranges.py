"""Sets of CPU or NUMA node numbers as the kernel and nvidia-smi write them: "0-31,64-95".

Invariant: `format_ranges` has one text for each set, so `canonical_ranges` makes equal sets compare equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

_PART = re.compile(r"([0-9]+)(?:-([0-9]+))?")


class BadRanges(ValueError):
    """A text that is not a list of numbers and ranges."""


def parse_ranges(text: str) -> list[int]:
    """Return the numbers of "0-3,8" in ascending order without duplicates; raise BadRanges with the invalid part."""
    numbers: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise BadRanges(f"{part.strip()!r} in {text!r} is neither a number nor a range; expected the form 0-3,8")
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def format_ranges(numbers: Iterable[int]) -> str:
    """Return the shortest text for a set of numbers: [0, 1, 2, 8] is "0-2,8", the empty set ""."""
    ordered = sorted(set(numbers))
    starts = ordered[:1] + [b for a, b in pairwise(ordered) if b != a + 1]
    ends = [a for a, b in pairwise(ordered) if b != a + 1] + ordered[-1:]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def canonical_ranges(text: str) -> str:
    """Return the canonical text of a set: "1-1" becomes "1"."""
    return format_ranges(parse_ranges(text))
