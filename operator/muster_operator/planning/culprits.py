"""Which of many things a function fails over: found by asking again without some of them, by halves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
Fails = Callable[[Sequence[T]], Exception | None]


@dataclass(slots=True)
class Culprits(Generic[T]):
    """A search; `examine` may be called for one part after the other, the least suspicious first."""

    fails: Fails[T]
    """Why a function fails over things; None if it does not."""
    most: int
    """The number of trials after which nothing more is examined."""
    sound: list[T] = field(default_factory=list)
    """Things over which, together, the function does not fail."""
    found: list[tuple[T, Exception]] = field(default_factory=list)
    """Things that, added to the sound ones, made it fail."""
    unexamined: list[T] = field(default_factory=list)
    """Things of parts that made it fail, when the trials were used up."""

    def examine(self, part: Sequence[T]) -> None:
        """Sort the things of a part into sound ones and others."""
        if not part:
            return
        if self.most <= 0:
            self.unexamined += part
            return
        self.most -= 1
        error = self.fails([*self.sound, *part])
        if error is None:
            self.sound += part
        elif len(part) == 1:
            self.found.append((part[0], error))
        else:
            middle = len(part) // 2
            self.examine(part[:middle])
            self.examine(part[middle:])


def failure(function: Callable[[T], object], argument: T) -> Exception | None:
    """Return the exception that a function raises; None if it raises none."""
    try:
        function(argument)
    except Exception as error:
        return error
    return None
