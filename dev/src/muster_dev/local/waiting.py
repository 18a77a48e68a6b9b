"""Waiting for an event outside of this process, by polling; an error says which event did not happen."""

from __future__ import annotations

import time
from collections.abc import Callable

from muster_dev.local.errors import LocalError

PATIENCE_SECONDS = 120.0
"""The default deadline: far longer than on an idle machine, so that a busy one passes."""
_POLL_SECONDS = 0.05


class WaitTimeout(LocalError):
    """An awaited event did not happen before the deadline."""


def until(
    true: Callable[[], object], what: str, *, check: Callable[[], None] | None = None, seconds: float = PATIENCE_SECONDS
) -> None:
    """Return once `true()` holds; raise the error of `check()`, or WaitTimeout with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        if true():
            return
        if check:
            check()
        now = time.monotonic()
        if now > deadline:
            raise WaitTimeout(f"waited {seconds:.0f} s, and it is still not true that {what}")
        # A check may be expensive (a list of a thousand nodes): it gets a fifth of the time at most.
        time.sleep(max(_POLL_SECONDS, 4 * (now - begun)))
