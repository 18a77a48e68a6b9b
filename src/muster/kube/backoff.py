"""Jittered exponential back-off, shared by the client's retries and the reflector's.

Unit: seconds. The n-th wait is drawn from the upper half of base * 2**n, capped, so that many clients that lost the same
server do not come back in step.
"""

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Waits between tries: `base` seconds at first, doubling up to `cap`."""

    base: float = 0.25
    cap: float = 30.0
    tries: int = 0

    def fresh(self) -> "Backoff":
        """Give a back-off of the same shape that starts over."""
        return Backoff(self.base, self.cap)

    def next(self, at_least: float | None = None) -> float:
        """Give the seconds to wait before the next try, at least what the server asked for (its wish is capped too)."""
        wait = min(self.cap, self.base * 2.0 ** min(self.tries, 30)) * random.uniform(0.5, 1.0)
        self.tries += 1
        return max(wait, min(at_least or 0.0, self.cap))

    def reset(self) -> None:
        """Start over: the last try went well."""
        self.tries = 0
