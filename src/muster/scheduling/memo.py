"""Answers that are worked out once for each key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(dict[K, V]):
    """A dictionary that works out missing values from their keys, and drops all of them when it is full."""

    def __init__(self, work_out: Callable[[K], V], most: int | None = None) -> None:
        super().__init__()
        self._work_out, self._most = work_out, most

    def __missing__(self, key: K) -> V:
        value = self._work_out(key)
        if self._most is not None and len(self) >= self._most:
            self.clear()
        self[key] = value
        return value
