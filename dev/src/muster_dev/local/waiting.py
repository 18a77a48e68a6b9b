"""Waiting for something outside of this process to come true: poll, never sleep a fixed time, and say what was waited for."""

from __future__ import annotations

import time
from collections.abc import Callable

from muster_dev.local.errors import LocalError

PATIENCE_SECONDS = 120.0
"""How long a thing may take: far more than on an idle machine, so that a busy one passes."""
_POLL_SECONDS = 0.05


class WaitedInVain(LocalError):
    """What was waited for did not come true."""


def until(
    true: Callable[[], object], what: str, *, check: Callable[[], None] | None = None, seconds: float = PATIENCE_SECONDS
) -> None:
    """Return once `true()` is; raise what `check()` raises meanwhile, or WaitedInVain after `seconds`, naming `what`."""
    deadline = time.monotonic() + seconds
    while True:
        begun = time.monotonic()
        if true():
            return
        if check:
            check()
        now = time.monotonic()
        if now > deadline:
            raise WaitedInVain(f"waited {seconds:.0f} s in vain until {what}")
        # Looking may be dear (a list of a thousand nodes): a fifth of the time at most, or it slows what it waits for.
        time.sleep(max(_POLL_SECONDS, 4 * (now - begun)))
