"""JSON as deep as the API server takes it.

msgspec and json count the levels of JSON, also of what they skip, against Python's recursion limit of 1,000, and the API server
takes 10,000: one object with a deep template would keep a whole list, or a watch, from being read.
"""

from __future__ import annotations

import sys
from typing import Final

LEVELS: Final = 10_000
"""The deepest JSON that the API server takes (sigs.k8s.io/json)."""


def allow() -> None:
    """Let this process read JSON of every depth that the API server takes; called once, as it begins."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 2 * LEVELS))
