"""Reports a resource that cannot be watched: a right to list was revoked, say, or a definition was deleted.

The operator goes on with what it read last and keeps trying. Meanwhile people are told where they look: by an Event about the
operator's own pod, in the log, and by the metric muster_operator_watch_failed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from muster.kube.events import Reference
from muster_operator import metrics
from muster_operator.reporting import Reporter

log = logging.getLogger("muster.operator")

CHECK_SECONDS = 2.0


class Watch(Protocol):
    """A watch of a resource; `trouble` says why it fails, "" while it works."""

    trouble: str


async def report(watches: Mapping[str, Watch], reporter: Reporter, me: Reference | None) -> None:
    """Report each resource once when its watch fails, and once when it works again, for ever."""
    failed: set[str] = set()
    while True:
        for resource, watch in watches.items():
            fails = bool(watch.trouble)
            metrics.WATCH_FAILED.labels(resource).set(fails)
            if fails is not (resource in failed):
                failed ^= {resource}
                _tell(resource, watch.trouble, reporter, me)
        await asyncio.sleep(CHECK_SECONDS)


def _tell(resource: str, trouble: str, reporter: Reporter, me: Reference | None) -> None:
    message = f"cannot watch {resource}: {trouble}" if trouble else f"watches {resource} again"
    log.log(logging.ERROR if trouble else logging.INFO, message)
    if me is not None:
        reporter.event(me, "Warning" if trouble else "Normal", "WatchFailed" if trouble else "WatchRestored", message)
